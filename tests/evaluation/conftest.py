import numpy as np
import pytest
from tiny_study import Study


@pytest.fixture
def study(tmp_path) -> Study:
    return Study(tmp_path)


@pytest.fixture
def asked(study) -> Study:
    """In `a` half of the tumor and all of the cyst are found; in `b` the tumor is missed, and a cyst made up."""
    study.ask(hepatic_tumor=True, liver_cyst=False, kidney_stone=False)
    study.predict("a", {1: np.s_[0, 0, 0], 2: np.s_[3, 3, 3]}, hepatic_tumor=0.9, liver_cyst=0.8, kidney_stone=0.1)
    study.predict("b", {2: np.s_[5, 5, 5:7]}, hepatic_tumor=0.2, liver_cyst=0.3, kidney_stone=0.1)
    return study

import numpy as np
import pytest

from nnunetv2_malenia.evaluation.metrics import dsc


def mask(*indices: int) -> np.ndarray:
    values = np.zeros(8, dtype=bool)
    values[list(indices)] = True
    return values.reshape(2, 2, 2)


def test_dsc_of_hand_counted_masks():
    assert dsc(mask(0, 1, 2), mask(2, 3)) == 2 * 1 / (3 + 2)
    assert dsc(mask(0, 1), mask(0, 1)) == 1
    assert dsc(mask(0), mask(1)) == 0
    assert dsc(mask(), mask(1)) == 0


def test_two_empty_masks_say_nothing():
    assert np.isnan(dsc(mask(), mask()))


def test_dsc_is_symmetric():
    assert dsc(mask(0, 1, 2), mask(2, 3)) == dsc(mask(2, 3), mask(0, 1, 2))


def test_masks_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2, 2\).*\(8,\)"):
        dsc(mask(0), mask(0).ravel())

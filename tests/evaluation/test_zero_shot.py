import nibabel as nib
import numpy as np
import pytest

from nnunetv2_malenia.evaluation.zero_shot import evaluate_types, format_table

AFFINE = np.diag([2.0, 5.0, 10.0, 1.0])  # a voxel is 0.1 ml
LABELS = {"liver tumor": 1, "liver cyst": 2, "kidney stone": 3}


@pytest.fixture
def references(tmp_path):
    first, second = np.zeros((2, 4, 3, 2), dtype=np.uint8)
    first[0, 0, 0], first[1, 0, 0], first[2, 0, 0] = 1, 1, 2
    second[0, 0, 0] = 1
    paths = []
    for name, values in (("a", first), ("b", second)):
        nib.save(nib.Nifti1Image(values, AFFINE), tmp_path / f"{name}.nii.gz")
        paths.append(tmp_path / f"{name}.nii.gz")
    return paths


def read_mask(path, name):
    """In case a the tumor is found half, the cyst fully; in case b cyst and tumor are both said to be one voxel."""
    values = np.zeros((4, 3, 2), dtype=bool)
    if name == "liver tumor":
        values[0, 0, 0] = True
    if name == "liver cyst":
        values[2 if path.name.startswith("a") else 3, 0, 0] = True
    return values


def test_types_are_scored_where_they_are_and_measured_where_they_are_not(references):
    tumor, cyst, stone = evaluate_types(references, LABELS, ["liver tumor"], read_mask)
    assert (tumor.seen, cyst.seen) == (True, False)
    assert tumor.mean_dsc == pytest.approx(((2 * 1 / (1 + 2)) + 1) / 2)
    assert (tumor.cases_present, tumor.cases_absent) == (2, 0)
    assert (cyst.mean_dsc, cyst.cases_present, cyst.cases_absent) == (1, 1, 1)
    assert cyst.volume_present_ml == pytest.approx(0.1)
    assert cyst.volume_absent_ml == pytest.approx(0.1)
    assert np.isnan(stone.mean_dsc)
    assert stone.volume_absent_ml == 0
    assert stone.to_dict()["mean_dsc"] is None


def test_seen_and_unseen_types_are_never_averaged_together(references):
    results = evaluate_types(references, LABELS, ["liver tumor"], read_mask)
    lines = format_table(results[:2], results[:2]).splitlines()
    assert [line.split()[:3] for line in lines if line.startswith("mean")] == [
        ["mean,", "seen", "types"],
        ["mean,", "unseen", "types"],
    ]
    assert "0.83" in lines[2]
    assert "1.00" in lines[4]

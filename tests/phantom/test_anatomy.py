import nibabel as nib
import numpy as np
import pytest

from nnunetv2_malenia.phantom.anatomy import ORGANS, Grid, Tissue, coarsen_labels, draw_anatomy, smooth_noise

GRID = Grid((40, 46, 66), (5.0, 4.5, 4.2))


@pytest.fixture(scope="module")
def bodies():
    return [draw_anatomy(GRID, np.random.default_rng(seed)) for seed in range(6)]


def centre_ras(body, organ):
    """Centre of an organ in RAS+ millimetres, through the affine."""
    zyx = np.argwhere(body.organ(organ)).mean(0)
    return nib.affines.apply_affine(body.grid.affine, zyx[::-1])


def test_affine_is_ras_and_centred():
    affine = GRID.affine
    assert nib.aff2axcodes(affine) == ("R", "A", "S")
    assert np.allclose(nib.affines.voxel_sizes(affine), (4.2, 4.5, 5.0))
    first = nib.affines.apply_affine(affine, (0, 0, 0))
    last = nib.affines.apply_affine(affine, np.array(GRID.shape[::-1]) - 1)
    assert np.allclose(first, -last)


def test_left_is_left_and_up_is_up_in_world_space(bodies):
    for body in bodies:
        assert centre_ras(body, "liver")[0] > 20  # the patient's right is +x
        assert centre_ras(body, "spleen")[0] < -20
        for organ in ("kidney", "lung"):
            assert centre_ras(body, f"left {organ}")[0] < -20
            assert centre_ras(body, f"right {organ}")[0] > 20
        assert centre_ras(body, "right lung")[2] > centre_ras(body, "liver")[2] > centre_ras(body, "right kidney")[2]
        assert centre_ras(body, "gallbladder")[1] > centre_ras(body, "right kidney")[1]  # the front is +y


def test_every_organ_is_there_and_bodies_differ(bodies):
    voxel_ml = np.prod(GRID.spacing_zyx) / 1000
    volumes = np.array([[body.organ(organ).sum() * voxel_ml for organ in ORGANS] for body in bodies])
    assert (volumes > 10).all()
    assert (volumes.std(0) > 0).all()


def test_same_body_at_another_spacing():
    coarse, fine = GRID, GRID.refined(2)
    bodies = [draw_anatomy(grid, np.random.default_rng(3)) for grid in (coarse, fine)]
    for organ in ORGANS:
        volumes = [body.organ(organ).sum() * np.prod(body.grid.spacing_zyx) for body in bodies]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.15), organ


def test_organs_and_tissues_agree(bodies):
    for body in bodies:
        assert (body.tissue[body.organs == 0] != Tissue.PANCREAS).all()
        assert np.isin(body.tissue[body.organ("liver")], (Tissue.LIVER, Tissue.HEPATIC_VESSEL)).all()
        assert np.isin(body.tissue[body.organ("colon")], (Tissue.BOWEL_WALL, Tissue.STOOL, Tissue.GAS)).all()


def test_coarsening_takes_the_most_frequent_label():
    fine = np.zeros((2, 2, 4), np.uint8)
    fine[:, :, :2] = 7
    fine[0, 0, 0] = 3
    fine[:, 0, 2:] = 5  # half 5, half background: a tie goes to the lower label
    assert coarsen_labels(fine, 2).tolist() == [[[7, 0]]]
    assert (coarsen_labels(fine, 1) == fine).all()


def test_smooth_noise_is_smooth_and_standardised():
    field = smooth_noise(Grid((30, 31, 32), (2.0, 2.0, 2.0)), 30.0, np.random.default_rng(0))
    assert field.shape == (30, 31, 32)
    assert abs(field.mean()) < 1e-5
    assert field.std() == pytest.approx(1, abs=1e-5)
    for axis in range(3):
        steps = np.diff(field, axis=axis)
        assert 0 < steps.std() < 0.35  # white noise has steps of 1.4

import math

import numpy as np
import pytest
from references.metric_loops import dsc_loop, lesion_counts_loop, nsd_loop, presence_auc_loop

from nnunetv2_malenia.evaluation.metrics import (
    bounding_box,
    count_lesions,
    dsc,
    nsd,
    presence_auc,
    without_other_lesions,
)

SPACING = (3.0, 1.0, 0.7)


def mask(*indices: int) -> np.ndarray:
    values = np.zeros(8, dtype=bool)
    values[list(indices)] = True
    return values.reshape(2, 2, 2)


def box(*spans: tuple[int, int], shape: tuple[int, int, int] = (10, 12, 14)) -> np.ndarray:
    values = np.zeros(shape, dtype=bool)
    values[tuple(slice(*span) for span in spans)] = True
    return values


def blobs(seed: int, share: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Two ragged masks that overlap in part."""
    rng = np.random.default_rng(seed)
    common = rng.random((6, 5, 7)) < share
    return common ^ (rng.random(common.shape) < 0.08), common ^ (rng.random(common.shape) < 0.08)


def test_dsc_of_hand_counted_masks():
    assert dsc(mask(0, 1, 2), mask(2, 3)) == 2 * 1 / (3 + 2)
    assert dsc(mask(0, 1), mask(0, 1)) == 1
    assert dsc(mask(0), mask(1)) == 0
    assert dsc(mask(), mask(1)) == 0


def test_two_empty_masks_say_nothing():
    assert np.isnan(dsc(mask(), mask()))
    assert np.isnan(nsd(mask(), mask(), SPACING, tolerance_mm=1))


def test_dsc_and_nsd_are_symmetric():
    one, other = blobs(0)
    assert dsc(one, other) == dsc(other, one)
    assert nsd(one, other, SPACING, tolerance_mm=1) == pytest.approx(nsd(other, one, SPACING, tolerance_mm=1))


@pytest.mark.parametrize(
    "measure", [dsc, count_lesions, lambda a, b: nsd(a, b, SPACING, tolerance_mm=1)], ids=["dsc", "lesions", "nsd"]
)
def test_masks_of_other_shapes_are_refused(measure):
    with pytest.raises(ValueError, match=r"\(2, 2, 2\).*\(8,\)"):
        measure(mask(0), mask(0).ravel())


@pytest.mark.parametrize("seed", range(5))
def test_dsc_and_nsd_agree_with_loops_over_voxels_and_surface_elements(seed):
    one, other = blobs(seed)
    assert dsc(one, other) == pytest.approx(dsc_loop(one, other), abs=1e-6)
    for tolerance_mm in (0.0, 0.8, 1.1, 1.3):  # between the distances that occur, so that rounding does not decide
        expected = nsd_loop(one, other, SPACING, tolerance_mm)
        assert nsd(one, other, SPACING, tolerance_mm=tolerance_mm) == pytest.approx(expected, abs=1e-6)
        assert 0 < expected < 1 or tolerance_mm > 0


def test_nsd_of_a_cube_moved_by_one_voxel_is_that_of_its_sides_edges_and_corners():
    """Two cubes of three voxels, one of them moved along the last axis, at a tolerance below the step.

    The surface elements of a cube lie at the 4 x 4 x 4 grid points between its voxels, 56 of them: 8 corners, 24 on
    edges (8 along each axis), 24 on faces (8 for each normal). After a step of one along the last axis every element
    on a side, an edge or a corner of one cube coincides with one of the other where both cubes have a surface: the
    four sides share all elements but the outermost layer. Left over of each cube is its end face (4 corners, 4 edge
    elements along either of the other axes, 4 face elements); its counterpart, the other end face, lies inside the
    other cube's volume except for its rim, which lies on the other cube's sides.
    """
    a, b, c = SPACING
    corner = math.sqrt((a * b) ** 2 + (b * c) ** 2 + (a * c) ** 2) / 8
    along = {0: a * math.hypot(b, c) / 2, 1: b * math.hypot(a, c) / 2, 2: c * math.hypot(a, b) / 2}
    face = {0: b * c, 1: a * c, 2: a * b}
    total = 8 * corner + 8 * sum(along.values()) + 8 * sum(face.values())
    end = 4 * corner + 4 * (along[0] + along[1]) + 4 * face[2]  # beyond the other cube
    inside = 4 * face[2]  # the opposite end without its rim
    expected = (total - end - inside) / total
    cube = box((2, 5), (3, 6), (4, 7))

    assert nsd(cube, np.roll(cube, 1, 2), SPACING, tolerance_mm=0.5 * c) == pytest.approx(expected, abs=1e-12)
    assert nsd(cube, np.roll(cube, 1, 2), SPACING, tolerance_mm=c) == 1


def test_nsd_takes_each_axis_spacing_for_that_axis():
    cube = box((2, 6), (3, 7), (4, 8))
    for axis, step_mm in enumerate(SPACING):
        moved = np.roll(cube, 1, axis)
        assert nsd(cube, moved, SPACING, tolerance_mm=step_mm) == 1
        assert nsd(cube, moved, SPACING, tolerance_mm=0.99 * step_mm) < 1


def test_nsd_is_zero_for_a_missed_lesion_and_for_one_far_away():
    cube, far = box((0, 2), (0, 2), (0, 2)), box((8, 10), (9, 12), (10, 14))
    assert nsd(np.zeros_like(cube), cube, SPACING, tolerance_mm=2) == 0
    assert nsd(cube, np.zeros_like(cube), SPACING, tolerance_mm=2) == 0
    assert nsd(far, cube, SPACING, tolerance_mm=2) == 0


def test_nsd_at_the_border_of_the_image_counts_the_surface_there():
    whole = np.ones((3, 4, 5), dtype=bool)
    assert nsd(whole, whole, SPACING, tolerance_mm=0) == 1
    half = whole.copy()
    half[:, 2:] = False
    assert nsd(half, whole, SPACING, tolerance_mm=0) == pytest.approx(nsd_loop(half, whole, SPACING, 0), abs=1e-6)


def test_nsd_does_not_fall_as_the_tolerance_grows():
    one, other = blobs(3)
    values = [nsd(one, other, SPACING, tolerance_mm=tolerance) for tolerance in (0, 0.5, 1, 2, 4, 20)]
    assert values == sorted(values)
    assert values[-1] == 1


def test_lesions_that_share_a_corner_are_one_and_one_voxel_finds_it():
    reference = box((0, 2), (0, 2), (0, 2)) | box((2, 4), (2, 4), (2, 4)) | box((8, 9), (8, 9), (8, 9))
    predicted = box((1, 2), (1, 2), (1, 2)) | box((6, 7), (0, 1), (0, 1)) | box((0, 1), (0, 1), (9, 12))
    assert count_lesions(predicted, reference) == (2, 1, 2)
    assert count_lesions(np.zeros_like(reference), reference) == (2, 0, 0)
    assert count_lesions(predicted, np.zeros_like(reference)) == (0, 0, 3)


@pytest.mark.parametrize("seed", range(10))
def test_lesion_counts_agree_with_a_flood_fill(seed):
    one, other = blobs(seed, share=0.06)
    assert count_lesions(one, other) == lesion_counts_loop(one, other)


def test_an_oracle_takes_away_what_lies_in_other_lesions_only():
    own, other = box((0, 3), (0, 3), (0, 3)), box((0, 3), (0, 3), (6, 9))
    on_own, on_other, on_none = box((0, 2), (0, 2), (0, 2)), box((1, 2), (1, 2), (7, 12)), box((7, 9), (7, 9), (0, 2))
    on_both = box((2, 3), (0, 1), (0, 8))
    assert np.array_equal(without_other_lesions(on_own | on_other | on_none, own, other), on_own | on_none)
    assert np.array_equal(without_other_lesions(on_both, own, other), on_both)
    nothing = np.zeros_like(own)
    assert not without_other_lesions(nothing, own, other).any()


def test_presence_auc_of_hand_counted_pairs():
    assert presence_auc([0.9, 0.8, 0.1], [True, True, False]) == 1
    assert presence_auc([0.9, 0.2, 0.5, 0.2], [True, True, False, False]) == (2 + 0 + 0.5) / 4
    assert presence_auc([0.5, 0.5], [True, False]) == 0.5


def test_presence_auc_agrees_with_all_pairs():
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, present = rng.integers(0, 6, 15) / 5, rng.random(15) < 0.4
        if 0 < present.sum() < 15:
            assert presence_auc(scores, present) == pytest.approx(presence_auc_loop(scores, present))


def test_presence_auc_needs_both_kinds_of_cases():
    assert np.isnan(presence_auc([0.3, 0.4], [True, True]))
    assert np.isnan(presence_auc([], []))


def test_the_bounding_box_is_the_smallest_that_holds_all_voxels():
    both = box((2, 3), (4, 6), (1, 9)) | box((5, 7), (5, 6), (3, 4))
    assert bounding_box(both) == (slice(2, 7), slice(4, 6), slice(1, 9))
    assert both[bounding_box(both)].sum() == both.sum()
    assert not np.zeros((3, 4, 5), dtype=bool)[bounding_box(np.zeros((3, 4, 5), dtype=bool))].any()

"""Whether two volumes lie on one grid, and how the axes of one are turned to those of another."""

from itertools import permutations, product
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest

from nnunetv2_malenia.volumes import grid_difference, ras_affine, turned, turned_affine

AFFINE = np.array([[-2.0, 0.1, 0, -20], [0, 2.0, 1.2, 10], [0.3, 0, 3.0, 30], [0, 0, 0, 1]])  # sheared
VOXELS = np.arange(6 * 7 * 8).reshape(6, 7, 8)
ORDERS = [np.column_stack(pair) for pair in product(permutations(range(3)), product((1, -1), repeat=3))]


class Grid(NamedTuple):
    name: str
    shape: tuple[int, ...]
    affine: np.ndarray


def test_a_volume_turned_to_any_order_and_back_is_itself():
    image = nib.Nifti1Image(VOXELS, AFFINE, dtype=np.int64)
    for order in ORDERS:
        other = image.as_reoriented(order)
        np.testing.assert_array_equal(turned(VOXELS, AFFINE, other.affine), np.asarray(other.dataobj))
        np.testing.assert_array_equal(turned(np.asarray(other.dataobj), other.affine, AFFINE), VOXELS)
        rounded = np.round(other.affine, 1) * 1.004
        np.testing.assert_allclose(turned_affine(AFFINE, VOXELS.shape, rounded), other.affine, atol=1e-12)


def test_ras_is_as_nibabel_has_it():
    image = nib.as_closest_canonical(nib.Nifti1Image(VOXELS, AFFINE, dtype=np.int64))
    np.testing.assert_allclose(ras_affine(AFFINE, VOXELS.shape), image.affine)
    np.testing.assert_array_equal(turned(VOXELS, AFFINE, image.affine), np.asarray(image.dataobj))


def moved(mm):
    affine = AFFINE.copy()
    affine[2, 3] += mm
    return affine


@pytest.mark.parametrize(("affine", "shape", "said"), [
    (AFFINE, (6, 7, 8), None),
    (moved(0.1), (6, 7, 8), None),
    (moved(3), (6, 7, 8), "a lies up to 3 mm off b"),
    (AFFINE, (6, 7, 9), "a is of shape (6, 7, 9), b of (6, 7, 8)"),
    (AFFINE @ np.diag([1, -1, 1, 1]), (6, 7, 8), "a and b differ in axis order, LPS and LAS"),
    (AFFINE @ np.diag([1.01, 1.01, 1.01, 1]), (6, 7, 8), "off b"),
])  # fmt: skip
def test_a_difference_is_told(affine, shape, said):
    difference = grid_difference(Grid("a", shape, affine), Grid("b", (6, 7, 8), AFFINE))
    assert difference is None if said is None else said in difference


def test_axes_between_two_directions_do_not_make_two_grids_of_one():
    angle = np.radians([45 - 1e-6, 45 + 1e-6])
    a, b = (np.array([[np.cos(x), -np.sin(x), 0, 0], [np.sin(x), np.cos(x), 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
            for x in angle)  # fmt: skip
    assert grid_difference(Grid("a", (6, 7, 8), a), Grid("b", (6, 7, 8), b)) is None

"""The order and direction of a volume's axes: the same voxels at the same places, stored another way."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np


def ras_affine(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The affine of a volume (X, Y, Z) whose axes are turned to those nearest to right, anterior, superior."""
    return affine @ nib.orientations.inv_ornt_aff(nib.io_orientation(affine), shape)


def turned_affine(affine: np.ndarray, shape: Sequence[int], like: np.ndarray) -> np.ndarray:
    """The affine of a volume (X, Y, Z) whose axes are turned to those of a second affine of its grid, which may be
    rounded; the result is not."""
    return affine @ nib.orientations.inv_ornt_aff(_turn(affine, like), shape)


def turned(voxels: np.ndarray, affine: np.ndarray, like: np.ndarray) -> np.ndarray:
    """A volume (X, Y, Z) with its axes turned to those of a second affine of its grid; a view."""
    return nib.orientations.apply_orientation(voxels, _turn(affine, like))


def _turn(affine: np.ndarray, like: np.ndarray) -> np.ndarray:
    """nibabel's orientation, (3, 2): for each axis the one that it becomes, and 1 or -1."""
    steps = np.linalg.inv(like[:3, :3]) @ affine[:3, :3]  # a permutation with signs
    axes = np.abs(steps).argmax(axis=0)
    return np.stack([axes, np.sign(steps[axes, range(3)])], axis=1)

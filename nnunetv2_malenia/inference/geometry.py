"""Where voxels are in the patient, whichever of nnU-Net's readers read them."""

from __future__ import annotations

from collections.abc import Mapping

import nibabel as nib
import numpy as np

LPS_OF_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_of(properties: Mapping) -> np.ndarray:
    """(4, 4) from voxel indices x, y, z of the array (Z, Y, X) that nnU-Net's reader gave, to RAS millimetres.

    properties: what the reader gave with it. Images without a place in space (TIFF) lie along the axes, at the origin.
    """
    if stored := properties.get("nibabel_stuff"):
        return np.array(stored.get("reoriented_affine", stored["original_affine"]), dtype=float)
    if not (stored := properties.get("sitk_stuff")):
        return np.diag([*properties["spacing"][::-1], 1.0])
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(stored["direction"], (3, 3)) * stored["spacing"]
    affine[:3, 3] = stored["origin"]
    return LPS_OF_RAS @ affine


def as_stored(array: np.ndarray, read_affine: np.ndarray, stored_affine: np.ndarray) -> np.ndarray:
    """An array (Z, Y, X) as nnU-Net's reader gave it -> (X, Y, Z) in the image's own axis order; a view.

    read_affine, stored_affine (4, 4): those of before and after, as in a prepared case's properties.
    """
    turns = nib.orientations.ornt_transform(nib.io_orientation(read_affine), nib.io_orientation(stored_affine))
    return nib.orientations.apply_orientation(array.transpose(2, 1, 0), turns)

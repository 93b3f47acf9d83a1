"""Where voxels are in the patient, whichever of nnU-Net's readers read them."""

from __future__ import annotations

from collections.abc import Mapping

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

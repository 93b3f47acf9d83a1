"""NIfTI files of one and the same volume with their axes in any order."""

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

AXIS_ORDERS = ("RAS", "LPS", "IPL", "PSR", "SLA")  # IPL is KiTS's, LPS that of many scanners


def store(array: np.ndarray, affine: np.ndarray, order: str, path: Path) -> Path:
    """Write a (Z, Y, X) array whose x, y, z belong to a RAS+ affine with its axes in another order."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(order))
    voxels = nib.orientations.apply_orientation(array.transpose(2, 1, 0), turn)
    image = nib.Nifti1Image(voxels, affine @ inv_ornt_aff(turn, array.shape[::-1]))
    assert nib.aff2axcodes(image.affine) == tuple(order)
    nib.save(image, path)
    return path


def middle_ras(mask: nib.Nifti1Image, value: int) -> np.ndarray:
    """Where the voxels of a value are in the patient, mean of x, y, z in RAS+ mm."""
    return nib.affines.apply_affine(mask.affine, np.argwhere(np.asarray(mask.dataobj) == value)).mean(0)

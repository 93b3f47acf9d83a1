"""What SimpleITK does for us: DICOM series are read, NRRD and MHA are written."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from nnunetv2_malenia.volumes.dicom import find_series, read_series
from nnunetv2_malenia.volumes.errors import InputError
from nnunetv2_malenia.volumes.nrrd_mha import open_text_header
from nnunetv2_malenia.volumes.volume import Volume, checked_affine, checked_shape, doubts_about_grid

_LPS_OF_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class SeriesVolume(Volume):
    """A DICOM series, which is read where it is opened."""

    image: sitk.Image

    def voxels(self) -> np.ndarray:
        return sitk.GetArrayFromImage(self.image).transpose(2, 1, 0)

    def verify(self) -> None:
        """Nothing is left to check."""


def open_series(folder: Path, name: str) -> SeriesVolume:
    """The one CT series of a folder. Raises InputError as `find_series` does."""
    series = find_series(folder, name)
    image = read_series(series)
    affine = checked_affine(name, itk_affine(image.GetDirection(), image.GetSpacing(), image.GetOrigin()))
    shape = checked_shape(name, image.GetSize())
    return SeriesVolume(name, shape, affine, (*doubts_about_grid(shape, affine), *series.notes), True, image)


def itk_affine(direction: Sequence[float], spacing: Sequence[float], origin: Sequence[float]) -> np.ndarray:
    """(4, 4) float64 from voxel indices x, y, z to RAS millimetres, of what SimpleITK says of a 3-D image."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(direction, (3, 3)) * spacing
    affine[:3, 3] = origin
    return _LPS_OF_RAS @ affine


def write_itk(voxels: np.ndarray, affine: np.ndarray, path: str) -> None:
    """Store an (X, Y, Z) array as NRRD or MHA, by the path's ending, sheared or not."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    lps, spacing = _LPS_OF_RAS @ affine, nib.affines.voxel_sizes(affine)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, path, True)
    try:
        open_text_header(Path(path), path).verify()
    except InputError:  # SimpleITK says nothing when the disk is full
        raise OSError(errno.ENOSPC, "not written whole; is the disk full?", path) from None

"""One way to open a volume and one to write it, for every format."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np

from nnunetv2_malenia.volumes.errors import InputError
from nnunetv2_malenia.volumes.itk_images import open_series, write_itk
from nnunetv2_malenia.volumes.nifti import NIFTI_ENDINGS, FileOnDisk, open_nifti
from nnunetv2_malenia.volumes.nrrd_mha import TEXT_ENDINGS, open_text_header
from nnunetv2_malenia.volumes.volume import Volume, is_orthonormal

ENDINGS = (*NIFTI_ENDINGS, *TEXT_ENDINGS)


def open_volume(path: Path, name: str | None = None) -> Volume:
    """Open a NIfTI, NRRD or MHA file, or a folder with a DICOM series; of files, only the header is read and checked.

    name: what messages call it, its path if none is given. Raises InputError, in one line, for what is no 3-D volume of
    real numbers with a place for every voxel.
    """
    name = name or str(path)
    if path.is_dir():
        return open_series(path, name)
    if path.name.endswith(NIFTI_ENDINGS):
        return open_nifti(FileOnDisk(path, name))
    if path.name.endswith(TEXT_ENDINGS):
        return open_text_header(path, name)
    raise InputError(f"{name}: ends in none of {', '.join(ENDINGS)}; convert it to one of these")


def stem_of(path: Path) -> str:
    """The name of a volume's file without its ending."""
    ending = next((ending for ending in ENDINGS if path.name.endswith(ending)), "")
    return path.name.removesuffix(ending)


def write_volume(
    voxels: np.ndarray, affine: np.ndarray, path: str | os.PathLike[str], header: nib.Nifti1Header | None = None
) -> None:
    """Store an (X, Y, Z) array; its dtype is kept, and so is the affine, sheared or not. The ending says as what.

    header: of the NIfTI file that the array belongs to, so that every program sees both at one place, whatever it
    makes of the header; without one, sform and qform are the affine.
    """
    path = str(path)
    if path.endswith(TEXT_ENDINGS):
        write_itk(voxels, affine, path)
        return
    if header is not None:
        header = header.copy()
        header["cal_min"] = header["cal_max"] = 0
        header.set_data_dtype(voxels.dtype)
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(voxels, affine, header, dtype=voxels.dtype)
    if header is None:
        image.header.set_xyzt_units("mm")
        image.set_sform(affine, code=1)
        if is_orthonormal(affine):
            image.set_qform(affine, code=1)
    nib.save(image, path)

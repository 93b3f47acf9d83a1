"""NRRD, MHA and DICOM series as NIfTI, which nnU-Net's readers take; geometry is kept."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import SimpleITK as sitk

from nnunetv2_malenia.volumes import InputError
from nnunetv2_malenia.volumes.dicom import find_series, read_series

NIFTI_ENDINGS = (".nii.gz", ".nii")
OTHER_ENDINGS = (".nrrd", ".mha")


def to_nifti(source: Path, target: Path) -> None:
    """Store an NRRD or MHA file, or the one CT series of a DICOM folder, as NIfTI.

    Raises InputError for a damaged file, a folder with several series, or a series that is no regular volume.
    """
    try:
        image = read_series(find_series(source, source.name)) if source.is_dir() else _read_file(source)
        sitk.WriteImage(image, str(target))
    except RuntimeError as error:
        why = str(error).strip().splitlines()[-1]
        if why.startswith("Reason:"):  # ITK's, of a truncated MHA: "No such file or directory"
            why = "its header or voxels are incomplete"
        raise InputError(f"{source.name}: cannot be read ({why}); export or copy it again") from error


def _read_file(path: Path) -> sitk.Image:
    """SimpleITK does not look at the checksums of compressed voxels, so this does."""
    content = path.read_bytes()
    try:
        if path.name.endswith(".mha"):
            header, _, voxels = content.partition(b"ElementDataFile = LOCAL\n")
            if b"CompressedData = True" in header:
                zlib.decompress(voxels)
        else:
            header, _, voxels = content.partition(b"\n\n")
            if b"encoding: gz" in header:
                gzip.decompress(voxels)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path.name}: the file is damaged ({error}); export or copy it again") from error
    return sitk.ReadImage(str(path))

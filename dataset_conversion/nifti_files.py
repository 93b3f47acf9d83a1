"""How single files get into a data set: written, rewritten or linked."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np

from nnunetv2_malenia.files.whole_files import flush_to_disk

FILE_ENDING = ".nii.gz"
_BLOCK = 2**20


def write_nifti(array: np.ndarray, affine: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Store a (Z, Y, X) array; affine: (4, 4), voxel indices x, y, z to RAS+ millimetres. The dtype is kept."""
    image = nib.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def link_or_copy(source: Path, place: Path, *, copy: bool = False) -> None:
    """Make a file appear at `place`: as a hard link, on another file system as a symbolic link, else as a copy."""
    source = source.resolve()  # a hard link to a symbolic link would be one itself
    if copy:
        shutil.copyfile(source, place)
        return
    for link in (os.link, os.symlink, shutil.copyfile):
        try:
            link(source, place)
            return
        except OSError:
            if link is shutil.copyfile:
                raise


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A place for a file that gets its name when it is complete; after an exception nothing is left behind."""
    beside = path.with_name(f".{path.name}.tmp{FILE_ENDING}")
    beside.unlink(missing_ok=True)
    try:
        yield beside
        flush_to_disk(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_mask(voxels: np.ndarray, image: nib.Nifti1Header, path: Path) -> None:
    """Store an (X, Y, Z) label map with the geometry of the image it belongs to, field by field."""
    header = image.copy()
    header.extensions.clear()
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header["cal_min"] = header["cal_max"] = 0
    nib.save(nib.Nifti1Image(voxels, image.get_best_affine(), header), path)


def write_volumes(file: BinaryIO, paths: Sequence[Path]) -> None:
    """Store each volume of a gzipped 4-D NIfTI file as a 3-D file; voxels pass through unread, block by block."""
    with gzip.GzipFile(fileobj=file) as stream:
        header = nib.Nifti1Header.from_fileobj(stream)
        stream.seek(int(header["vox_offset"]))
        shape = header.get_data_shape()[:3]
        header.extensions.clear()
        header.set_data_shape(shape)
        header["vox_offset"] = 0  # nibabel then writes where its own header ends
        for path in paths:
            with path.open("wb") as file_out, gzip.GzipFile("", "wb", 1, file_out, mtime=0) as out:
                header.write_to(out)
                _copy_bytes(stream, out, prod(shape) * header.get_data_dtype().itemsize)


def _copy_bytes(stream: BinaryIO, out: BinaryIO, count: int) -> None:
    while count:
        block = stream.read(min(count, _BLOCK))
        if not block:
            raise EOFError(f"a volume ends {count} bytes early; download the file again")
        out.write(block)
        count -= len(block)

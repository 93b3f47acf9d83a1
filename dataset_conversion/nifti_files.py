"""How single files get into a data set: written, rewritten or linked."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nnunetv2_malenia.files.whole_files import flush_to_disk
from nnunetv2_malenia.volumes import write_volume
from nnunetv2_malenia.volumes.nifti import NiftiVolume

FILE_ENDING = ".nii.gz"


def write_nifti(array: np.ndarray, affine: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Store a (Z, Y, X) array; affine: (4, 4), voxel indices x, y, z to RAS+ millimetres. The dtype is kept."""
    write_volume(array.transpose(2, 1, 0), affine, path)


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


def write_mask(voxels: np.ndarray, image: NiftiVolume, path: Path) -> None:
    """Store an (X, Y, Z) label map with the geometry of the image it belongs to, field by field."""
    write_volume(voxels, image.affine, path, image.header)


def write_volumes(image: NiftiVolume, paths: Sequence[Path]) -> None:
    """Store each volume of an image as a 3-D file that nibabel reads; voxels pass through unread, block by block."""
    header = image.header.copy()
    header.set_data_shape(image.shape)
    header["vox_offset"] = 0  # nibabel then writes where its own header ends
    blocks, pending = image.blocks(), b""
    for path in paths:
        left = image.length // len(paths)
        with path.open("wb") as file, gzip.GzipFile("", "wb", 1, file, mtime=0) as out:
            header.write_to(out)
            while left:
                pending = pending or next(blocks)
                out.write(pending[:left])
                left, pending = max(0, left - len(pending)), pending[left:]
    for _ in blocks:  # to the end, where the checksum is
        pass

"""Are a case's files whole, and do image and mask lie on one grid? Masks are read in full, images are not.

Of an image the header is read, and its size is compared with the length that gzip keeps in the file's last four bytes;
only where the two disagree is the image read through, to tell a damaged file from an unusual one. So is an image that
cannot be linked and has to be stored anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from nnunetv2_malenia.dataset_conversion.sources import SourceFile
from nnunetv2_malenia.volumes import InputError, Volume, grid_difference
from nnunetv2_malenia.volumes.nifti import NiftiVolume, open_nifti

ROUNDING = 1e-4  # by which a label that was stored as a float may be off
_LISTED_AT_MOST = 5


class Mask(NamedTuple):
    """A label map. voxels: (X, Y, Z) in the file's axis order; counts: int64, voxels of each value.

    voxels are uint8, and uint16 where the label map has values above 255; counts has an entry for each that they hold.
    """

    volume: NiftiVolume
    voxels: np.ndarray
    counts: np.ndarray


def open_image(file: SourceFile, volumes: int) -> NiftiVolume:
    """A .nii.gz image that holds `volumes` 3-D volumes, along its fourth axis; one to be linked is not decompressed.

    Raises InputError for a damaged file, another number of volumes, voxels that are not numbers, or an affine that is
    no grid.
    """
    image = open_nifti(file, volumes)
    with file.open() as raw:
        raw.seek(-4, 2)
        length = int.from_bytes(raw.read(4), "little")  # gzip's ISIZE: modulo 2**32, of the last member of the file
    if not image.is_plain or length != (int(image.header["vox_offset"]) + image.length) % 2**32:
        image.verify()
    return image


def read_mask(file: SourceFile, names: Mapping[int, str]) -> Mask:
    """Read a .nii.gz label map to its end, where gzip's checksum is; memory: one or two bytes a voxel.

    names: the values that may occur -> what they mean; the background is one of them, and may be all that there is.
    Raises InputError for a damaged file, more than three axes, an affine that is no grid, and values that are not
    integers or not in `names`.
    """
    volume, kind = open_nifti(file), smallest_type(names)
    voxels, counts = bytearray(), np.zeros(np.iinfo(kind).max + 1, np.int64)
    for block in volume.blocks():
        labels = _labels(volume.scaled(block), len(counts), file).astype(kind)
        counts += np.bincount(labels, minlength=len(counts))
        voxels += labels.tobytes()
    _check_values(counts, names, file)
    return Mask(volume, np.frombuffer(voxels, kind).reshape(volume.shape, order="F"), counts)


def smallest_type(values: Iterable[int]) -> type[np.unsignedinteger]:
    """What label maps with these values are stored as; as few bytes a voxel as will do."""
    return np.uint8 if max(values) <= np.iinfo(np.uint8).max else np.uint16


def check_same_grid(image: Volume, mask: Volume) -> None:
    """Raise InputError unless both have one axis order, shape and affine."""
    if difference := grid_difference(mask, image):
        raise InputError(
            f"{difference}; store the mask on the image's grid: resample it, nearest neighbour, or give it the image's "
            "affine if only its header is wrong"
        )


def _labels(voxels: np.ndarray, limit: int, file: SourceFile) -> np.ndarray:
    if voxels.dtype == np.uint8:
        return voxels
    labels = np.rint(voxels)
    if not (whole := np.abs(voxels - labels) <= ROUNDING).all():
        raise InputError(
            f"{file.name}: mask value {voxels[~whole][0]:.9g} is not an integer; store labels, not probabilities, and "
            "resample masks by nearest neighbour"
        )
    if (outside := (labels < 0) | (labels >= limit)).any():
        raise InputError(_not_in_map(file, f"{labels[outside][0]:.0f}"))
    return labels


def _check_values(counts: np.ndarray, names: Mapping[int, str], file: SourceFile) -> None:
    if unknown := [value for value in np.flatnonzero(counts).tolist() if value not in names]:
        listed = ", ".join(f"{value} ({counts[value]} voxels)" for value in unknown[:_LISTED_AT_MOST])
        known = ", ".join(f"{value} {name}" for value, name in names.items())
        raise InputError(f"{_not_in_map(file, listed)}, which is {known}")


def _not_in_map(file: SourceFile, values: str) -> str:
    return f"{file.name}: label value {values} is not in the label map; correct the mask by the map"

"""Are a case's files whole, and do image and mask lie on one grid? Masks are read in full, images are not.

Of an image the header is read, and its size is compared with the length that gzip keeps in the file's last four bytes;
only where the two disagree is the image read through, to tell a damaged file from an unusual one.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import BinaryIO, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from nnunetv2_malenia.dataset_conversion.sources import SourceFile
from nnunetv2_malenia.files import MaleniaError

GRID_TOLERANCE = 0.1  # of the smallest voxel edge: how far a corner of the mask may lie from the image's
_CHUNK = 2**20
_LISTED_AT_MOST = 5


class CaseFaultError(MaleniaError):
    """Why a case cannot be used; the message is one line: what, in which file, what to do."""


class Mask(NamedTuple):
    """A label map. voxels: (X, Y, Z) in the file's axis order; counts: int64, voxels of each value.

    voxels are uint8, and uint16 where the label map has values above 255; counts has an entry for each that they hold.
    """

    header: nib.Nifti1Header
    voxels: np.ndarray
    counts: np.ndarray


def read_image_header(file: SourceFile, volumes: int) -> nib.Nifti1Header:
    """The header of a .nii.gz image that holds `volumes` 3-D volumes, without decompressing the image.

    A fourth axis is accepted when its length is `volumes`. Raises CaseFaultError for a damaged file, another number of
    volumes, voxels that are not numbers, or an affine that is no grid.
    """
    with _faults_of(file), file.open() as raw:
        with gzip.GzipFile(fileobj=raw) as stream:
            header = nib.Nifti1Header.from_fileobj(stream)
        if _length_in_trailer(raw) != _length_in_header(header) % 2**32:
            _read_through(raw, header, file)
    shape = header.get_data_shape()
    if len(shape) < 3 or prod(shape[3:]) != volumes:
        wanted = "one 3-D volume" if volumes == 1 else f"{volumes} volumes, one a channel"
        raise CaseFaultError(f"{file.name}: an image of shape {shape} where {wanted} is needed; store it as that")
    if header.get_data_dtype().kind not in "iuf":
        raise CaseFaultError(f"{file.name}: voxels of type {header.get_data_dtype()}; store intensities as numbers")
    _check_affine(header, file)
    return header


def read_mask(file: SourceFile, names: Mapping[int, str]) -> Mask:
    """Read a .nii.gz label map to its end, where gzip's checksum is; memory: one or two bytes a voxel.

    names: the values that may occur -> what they mean; the background is one of them, and may be all that there is.
    Raises CaseFaultError for a damaged file, more than three axes, an affine that is no grid, and values that are not
    integers or not in `names`.
    """
    with _faults_of(file), file.open() as raw, gzip.GzipFile(fileobj=raw) as stream:
        header = nib.Nifti1Header.from_fileobj(stream)
        shape = spatial_shape(header)
        if len(shape) != 3 or prod(header.get_data_shape()[3:]) != 1:
            raise CaseFaultError(f"{file.name}: a mask of shape {header.get_data_shape()}; store one 3-D label map")
        _check_affine(header, file)
        stream.seek(int(header["vox_offset"]))
        voxels = np.empty(prod(shape), smallest_type(names))
        counts = np.zeros(np.iinfo(voxels.dtype).max + 1, np.int64)
        for start in range(0, voxels.size, _CHUNK):
            chunk = voxels[start : start + _CHUNK]
            chunk[:] = _labels(_read_voxels(stream, header, chunk.size), len(counts), file)
            counts += np.bincount(chunk, minlength=len(counts))
        while stream.read(_CHUNK):
            pass
    _check_values(counts, names, file)
    return Mask(header, voxels.reshape(shape, order="F"), counts)


def smallest_type(values: Iterable[int]) -> type[np.unsignedinteger]:
    """What label maps with these values are stored as; as few bytes a voxel as will do."""
    return np.uint8 if max(values) <= np.iinfo(np.uint8).max else np.uint16


def check_same_grid(image: nib.Nifti1Header, mask: nib.Nifti1Header) -> None:
    """Raise CaseFaultError unless both have one axis order, shape and affine.

    Affines are one if no corner of the volume moves by more than GRID_TOLERANCE of a voxel; rounding in headers does
    not, a shift by a slice does.
    """
    affines = image.get_best_affine(), mask.get_best_affine()
    orders = ["".join(nib.aff2axcodes(affine)) for affine in affines]
    if orders[0] != orders[1]:
        raise CaseFaultError(
            f"image and mask differ in axis order, {orders[0]} and {orders[1]}; store the mask in the image's order"
        )
    shapes = spatial_shape(image), spatial_shape(mask)
    if shapes[0] != shapes[1]:
        raise CaseFaultError(
            f"image {shapes[0]} and mask {shapes[1]} differ in shape; resample the mask to the image, nearest neighbour"
        )
    distance = _corner_distance_mm(*affines, shapes[0])
    if distance > GRID_TOLERANCE * nib.affines.voxel_sizes(affines[0]).min():
        raise CaseFaultError(
            f"the affines of image and mask differ, by up to {distance:.3g} mm; resample the mask to the image, or "
            "give it the image's affine if only its header is wrong"
        )


def spatial_shape(header: nib.Nifti1Header) -> tuple[int, ...]:
    """(X, Y, Z) in the file's axis order."""
    return tuple(int(size) for size in header.get_data_shape()[:3])


def _corner_distance_mm(affine: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    corners = np.array(np.meshgrid(*([0, size - 1] for size in shape))).reshape(3, -1).T
    moved = nib.affines.apply_affine(affine, corners) - nib.affines.apply_affine(other, corners)
    return float(np.linalg.norm(moved, axis=1).max())


def _check_affine(header: nib.Nifti1Header, file: SourceFile) -> None:
    affine = header.get_best_affine()
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise CaseFaultError(f"{file.name}: its affine is no voxel grid; correct the header's spacing and direction")


def _length_in_header(header: nib.Nifti1Header) -> int:
    return int(header["vox_offset"]) + prod(header.get_data_shape()) * header.get_data_dtype().itemsize


def _length_in_trailer(raw: BinaryIO) -> int:
    """gzip's ISIZE: the length before compression, modulo 2**32, of the last member of the file."""
    raw.seek(-4, 2)
    return int.from_bytes(raw.read(4), "little")


def _read_through(raw: BinaryIO, header: nib.Nifti1Header, file: SourceFile) -> None:
    raw.seek(0)
    length = 0
    with gzip.GzipFile(fileobj=raw) as stream:
        while chunk := stream.read(_CHUNK):
            length += len(chunk)
    if length < _length_in_header(header):
        raise CaseFaultError(_damaged(file, "it ends before its last voxel"))


def _read_voxels(stream: BinaryIO, header: nib.Nifti1Header, count: int) -> np.ndarray:
    dtype = header.get_data_dtype()
    raw = stream.read(count * dtype.itemsize)
    if len(raw) < count * dtype.itemsize:
        raise EOFError("it ends before its last voxel")
    slope, inter = header.get_slope_inter()
    voxels = np.frombuffer(raw, dtype)
    return voxels if slope is None or (slope, inter) == (1, 0) else voxels * slope + inter


def _labels(voxels: np.ndarray, limit: int, file: SourceFile) -> np.ndarray:
    if voxels.dtype.kind not in "iuf":
        raise CaseFaultError(f"{file.name}: mask voxels of type {voxels.dtype}; store integers")
    if voxels.dtype == np.uint8:
        return voxels
    if not (whole := voxels == np.rint(voxels)).all():
        raise CaseFaultError(
            f"{file.name}: mask value {voxels[~whole][0]:.4g} is not an integer; store labels, not probabilities, and "
            "resample masks by nearest neighbour"
        )
    if (outside := (voxels < 0) | (voxels >= limit)).any():
        raise CaseFaultError(_not_in_map(file, f"{voxels[outside][0]:.0f}"))
    return voxels


def _check_values(counts: np.ndarray, names: Mapping[int, str], file: SourceFile) -> None:
    if unknown := [value for value in np.flatnonzero(counts).tolist() if value not in names]:
        listed = ", ".join(f"{value} ({counts[value]} voxels)" for value in unknown[:_LISTED_AT_MOST])
        known = ", ".join(f"{value} {name}" for value, name in names.items())
        raise CaseFaultError(f"{_not_in_map(file, listed)}, which is {known}")


def _not_in_map(file: SourceFile, values: str) -> str:
    return f"{file.name}: label value {values} is not in the label map; correct the mask by the map"


def _damaged(file: SourceFile, why: object) -> str:
    return f"{file.name}: the file is damaged ({why}); download it again"


@contextmanager
def _faults_of(file: SourceFile) -> Iterator[None]:
    """Tell what gzip, zlib, nibabel and the disk find wrong with a file as a fault of its case."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, HeaderDataError, WrapStructError) as error:
        raise CaseFaultError(_damaged(file, " ".join(str(error).split()))) from None
    except OSError as error:
        raise CaseFaultError(f"{file.name}: cannot be read ({error.strerror or error}); check the disk") from None

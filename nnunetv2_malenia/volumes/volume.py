"""A volume as every command sees it, whatever file it comes from, and whether two of them lie on one grid."""

from __future__ import annotations

import gzip
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import nibabel as nib
import numpy as np

from nnunetv2_malenia.volumes.errors import InputError

GRID_TOLERANCE = 0.1  # of the smallest voxel edge: how far apart the corners of two grids may lie
ORTHONORMAL_TOLERANCE = 1e-4
MAX_DEFLATION = 1032  # times that gzip can make data smaller
_LEAST_DETERMINANT = 1e-3  # of the axes' directions: below, they lie in one plane
_LEAST_MM, _MOST_MM = 1e-6, 1e9  # of a voxel's edge; of any number in an affine
SIDES_ARE_A_GUESS = "left and right are a guess"


class Placed(Protocol):
    """Voxels with a place. name: for messages; shape: (X, Y, Z); affine: (4, 4), voxel indices to RAS millimetres."""

    name: str
    shape: tuple[int, ...]
    affine: np.ndarray


@dataclass(frozen=True, eq=False)
class Volume(ABC):
    """A 3-D volume whose header makes sense; voxels are read when they are asked for.

    name: for messages; shape: (X, Y, Z), in the file's own axis order; affine: (4, 4) float64, voxel indices x, y, z to
    RAS millimetres, exactly as the file has it, sheared or not; doubts: what is odd about the header and can be lived
    with, a line each; tells_sides: whether the header says where left and right are.
    """

    name: str
    shape: tuple[int, ...]
    affine: np.ndarray
    doubts: tuple[str, ...]
    tells_sides: bool

    @property
    def header(self) -> nib.Nifti1Header | None:
        """What a mask of this volume takes over, where it is a NIfTI file."""
        return None

    @property
    def is_plain(self) -> bool:
        """Whether every reader of NIfTI files reads the file itself as this volume."""
        return False

    @abstractmethod
    def voxels(self) -> np.ndarray:
        """(X, Y, Z), scaled as the header says; every byte of the file is checked. Raises InputError if damaged."""

    @abstractmethod
    def verify(self) -> None:
        """Check every byte of the file, as `voxels` does, and keep none."""

    def extensions(self) -> bytes:
        """What a NIfTI file has between header and voxels; empty for other files."""
        return b""

    def labels(self) -> np.ndarray:
        """The voxels as integers, for label maps and masks. Raises InputError if they are none."""
        if (labels := whole_numbers(self.voxels())) is None:
            raise InputError(f"{self.name}: voxels that are no integers; give label maps or masks, not probabilities")
        return labels


class StoredVolume(Volume):
    """A volume in one file."""

    @abstractmethod
    def blocks(self) -> Iterator[bytes]:
        """The voxels as they are stored, some at a time; to the end of the file, where checksums are."""

    @abstractmethod
    def scaled(self, stored: bytes) -> np.ndarray:
        """Stored voxels as an array of one axis, scaled as the header says."""

    def voxels(self) -> np.ndarray:
        content = bytearray()  # grows with the file, whatever its header says
        for block in self.blocks():
            content += block
        return self.scaled(content).reshape(self.shape, order="F")

    def verify(self) -> None:
        for _ in self.blocks():
            pass


def checked_affine(name: str, affine: np.ndarray) -> np.ndarray:
    """Raise InputError unless the affine gives every voxel a place of its own."""
    is_sane = bool((np.abs(affine) < _MOST_MM).all())  # not with NaN either
    sizes = nib.affines.voxel_sizes(affine) if is_sane else np.zeros(3)
    if sizes.min() < _LEAST_MM or abs(np.linalg.det(affine[:3, :3] / sizes)) < _LEAST_DETERMINANT:
        raise InputError(f"{name}: its affine is no voxel grid; correct spacing and directions in the header")
    return affine


def checked_shape(name: str, shape: Sequence[int], volumes: int = 1) -> tuple[int, ...]:
    """(X, Y, Z) of a file's axes. Raises InputError unless it holds that many 3-D volumes, and at least a voxel."""
    shape = tuple(int(size) for size in shape)
    if len(shape) < 3:
        raise InputError(f"{name}: a {len(shape)}-D image of shape {shape}; a 3-D volume is needed")
    if min(shape) < 1:
        raise InputError(f"{name}: of shape {shape}, without a voxel; export the image again")
    if int(np.prod(shape[3:], dtype=object)) != volumes:
        if volumes == 1:
            raise InputError(f"{name}: {len(shape)}-D, of shape {shape}; store one 3-D file for each volume of it")
        raise InputError(f"{name}: of shape {shape} where {volumes} volumes, one a channel, are needed")
    return shape[:3]


def doubts_about_grid(shape: Sequence[int], affine: np.ndarray) -> list[str]:
    doubts = []
    if not is_orthonormal(affine):
        doubts.append("the axes are not at right angles (sheared affine); results keep the affine as it is")
    if min(shape) == 1:
        doubts.append(f"a single slice, of shape {tuple(shape)}; volumes are expected")
    return doubts


def is_orthonormal(affine: np.ndarray) -> bool:
    """Whether the axes of a voxel grid are at right angles; SimpleITK reads no other NIfTI images."""
    cosines = affine[:3, :3] / nib.affines.voxel_sizes(affine)
    return bool(np.abs(cosines.T @ cosines - np.eye(3)).max() <= ORTHONORMAL_TOLERANCE)


def grid_difference(a: Placed, b: Placed) -> str | None:
    """How the grids of two volumes differ; None if they do not.

    They are one if shapes are equal and no corner lies further from its twin than GRID_TOLERANCE of a voxel edge.
    Rounding in headers does not move one that far, a shift by a slice does.
    """
    distance = corner_distance_mm(a.affine, b.affine, a.shape) if a.shape == b.shape else np.inf
    if distance <= GRID_TOLERANCE * nib.affines.voxel_sizes(b.affine).min():
        return None
    orders = ["".join(nib.aff2axcodes(each.affine)) for each in (a, b)]
    if orders[0] != orders[1]:
        return f"{a.name} and {b.name} differ in axis order, {orders[0]} and {orders[1]}"
    if a.shape != b.shape:
        return f"{a.name} is of shape {a.shape}, {b.name} of {b.shape}"
    return f"{a.name} lies up to {distance:.3g} mm off {b.name}"


def corner_distance_mm(affine: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    corners = np.array(np.meshgrid(*([0, size - 1] for size in shape))).reshape(3, -1).T
    moved = nib.affines.apply_affine(affine, corners) - nib.affines.apply_affine(other, corners)
    return float(np.linalg.norm(moved, axis=1).max())


def whole_numbers(voxels: np.ndarray) -> np.ndarray | None:
    """Voxels as integers, also where a program stored labels as floats; None for others."""
    if voxels.dtype.kind != "f":
        return voxels
    with np.errstate(invalid="ignore"):
        whole = voxels.astype(np.int32)
    return whole if np.array_equal(whole, voxels) else None


@contextmanager
def faults_of(name: str, kind: str) -> Iterator[None]:
    """Tell what gzip, zlib and the disk find wrong with a file of a kind as an InputError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        why = " ".join(str(error).split())
        raise InputError(f"{name}: the file is damaged or no {kind} ({why}); export or copy it again") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error}); check the path and the disk") from None


def replace_non_finite(name: str, channel: np.ndarray) -> list[str]:
    """Put numbers where a channel has none, in place: the least for NaN, the least or greatest for infinity.

    channel (Z, Y, X) float32. Returns a warning with the count. Raises InputError if no voxel is finite.
    """
    finite = np.isfinite(channel)
    count = channel.size - int(finite.sum())
    if count == 0:
        return []
    if count == channel.size:
        raise InputError(f"{name}: no voxel is a finite number; export the image again")
    low, high = (float(end(channel, where=finite, initial=channel[finite][0])) for end in (np.min, np.max))
    np.nan_to_num(channel, copy=False, nan=low, posinf=high, neginf=low)
    return [f"{count} voxels are NaN or infinite; they are read as {low:.6g} (infinity as {high:.6g})"]

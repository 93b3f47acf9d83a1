"""NIfTI files: what the header says, exactly, and every byte of the voxels.

nibabel's own opening refuses headers that are only rounded, mends others without a word, and looks at no checksum.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO, Protocol

import nibabel as nib
import numpy as np
from nibabel.nifti1 import data_type_codes, xform_codes
from nibabel.volumeutils import apply_read_scaling

from nnunetv2_malenia.volumes.errors import InputError
from nnunetv2_malenia.volumes.volume import (
    GRID_TOLERANCE,
    MAX_DEFLATION,
    SIDES_ARE_A_GUESS,
    StoredVolume,
    checked_affine,
    checked_shape,
    corner_distance_mm,
    doubts_about_grid,
    faults_of,
)

NIFTI_ENDINGS = (".nii.gz", ".nii")
ZOOM_TOLERANCE = 0.01  # share by which voxel sizes may differ from those of the affine
MAX_QUATERNION_EXCESS = 2e-3  # of the squared length over 1: rounding to three digits stays below it
_REAL_NUMBERS = {2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280}  # codes of integers and floats of 8 to 64 bits
_UNITS = {1: "metres", 3: "micrometres"}
_BLOCK = 2**20
_MAX_EXTENSIONS = 2**20


class NamedFile(Protocol):
    """A file on disk or in an archive. name: what a user finds it by; open: its bytes, seekable."""

    name: str

    def open(self) -> AbstractContextManager[BinaryIO]: ...


@dataclass(frozen=True)
class FileOnDisk:
    path: Path
    name: str

    def open(self) -> BinaryIO:
        return self.path.open("rb")


@dataclass(frozen=True, eq=False)
class NiftiVolume(StoredVolume):
    """file: where it is; stored_shape: with axes beyond the third; nifti_header: one that nibabel takes as it is."""

    file: NamedFile
    stored_shape: tuple[int, ...]
    nifti_header: nib.Nifti1Header
    has_extensions: bool

    @property
    def header(self) -> nib.Nifti1Header:
        return self.nifti_header

    @property
    def is_plain(self) -> bool:
        is_nifti_1 = not isinstance(self.header, nib.Nifti2Header)
        return is_nifti_1 and self.stored_shape == self.shape and not self.doubts and not self.has_extensions

    def blocks(self) -> Iterator[bytes]:
        left = self.length
        with faults_of(self.name, "NIfTI"), _decompressed(self.file) as stream:
            stream.seek(int(self.header["vox_offset"]))
            while left:
                block = stream.read(min(left, _BLOCK))
                if len(block) < min(left, _BLOCK):
                    raise EOFError("it ends before its last voxel")
                left -= len(block)
                yield block
            while stream.read(_BLOCK):
                pass

    @property
    def length(self) -> int:
        """Bytes of all voxels."""
        return prod(self.stored_shape) * self.header.get_data_dtype().itemsize

    def scaled(self, stored: bytes) -> np.ndarray:
        voxels = np.frombuffer(stored, self.header.get_data_dtype())
        slope, inter = _scaling(self.header)
        if (slope, inter) != (1, 0):
            return apply_read_scaling(voxels, slope, inter)
        return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)

    def extensions(self) -> bytes:
        """What stands between header and voxels, if anything."""
        start = self.header.template_dtype.itemsize + 4
        with faults_of(self.name, "NIfTI"), _decompressed(self.file) as stream:
            stream.seek(start)
            return stream.read(min(int(self.header["vox_offset"]) - start, _MAX_EXTENSIONS))


def open_nifti(file: NamedFile, volumes: int = 1) -> NiftiVolume:
    """Read the header of a NIfTI file of that many 3-D volumes; a .nii is long enough for its voxels.

    Raises InputError for a damaged or other file, another number of volumes, voxels that are not real numbers, and a
    header without a voxel grid.
    """
    with faults_of(file.name, "NIfTI"), np.errstate(invalid="ignore", over="ignore"):
        with _decompressed(file) as stream:
            header = _header(file.name, stream.read(nib.Nifti2Header.template_dtype.itemsize))
            stream.seek(header.template_dtype.itemsize)
            has_extensions = stream.read(1) != b"\0"
        stored_shape = header["dim"][1 : 1 + header["dim"][0]].tolist() if 0 < header["dim"][0] < 8 else ()
        shape = checked_shape(file.name, stored_shape, volumes)
        _check_voxels(file.name, header)
        affine, doubts = _affine(file.name, header, shape)
        volume = NiftiVolume(
            name=file.name,
            shape=shape,
            affine=affine,
            doubts=(*doubts, *doubts_about_grid(shape, affine)),
            tells_sides=bool(header["sform_code"] or header["qform_code"]),
            file=file,
            stored_shape=tuple(stored_shape),
            nifti_header=header,
            has_extensions=has_extensions,
        )
        with file.open() as raw:
            stored = raw.seek(0, 2) * (MAX_DEFLATION if _is_compressed(file) else 1)
        if stored < int(header["vox_offset"]) + volume.length:
            raise EOFError("it ends before its last voxel")
    return volume


def _is_compressed(file: NamedFile) -> bool:
    return file.name.endswith(".gz")


@contextmanager
def _decompressed(file: NamedFile) -> Iterator[BinaryIO]:
    with file.open() as raw:
        if not _is_compressed(file):
            yield raw
            return
        with gzip.GzipFile(fileobj=raw) as stream:
            yield stream


def _header(name: str, raw: bytes) -> nib.Nifti1Header:
    if raw[344:347] == b"ni1" or raw[4:7] == b"ni2":
        raise InputError(f"{name}: the header of a .hdr/.img pair; store the image as one .nii.gz")
    for kind, magic in (
        (nib.Nifti1Header, raw[344:348] == b"n+1\0"),
        (nib.Nifti2Header, raw[4:12] == b"n+2\0\r\n\x1a\n"),
    ):
        size = kind.template_dtype.itemsize
        if magic and len(raw) >= size:
            return kind(raw[:size], check=False)
    raise EOFError("it does not begin as a NIfTI file does")


def _check_voxels(name: str, header: nib.Nifti1Header) -> None:
    """Raise InputError unless voxels are real numbers that begin behind the header."""
    code = int(header["datatype"])
    if code not in _REAL_NUMBERS:
        known = data_type_codes.label[code] if code in data_type_codes.code else code
        raise InputError(f"{name}: voxels of type {known}; store intensities as real numbers of at most 64 bits")
    slope, inter = _scaling(header)
    if not np.isfinite([slope, inter]).all():
        raise InputError(f"{name}: its scl_inter is {inter}; correct the header, or export the image again")
    offset, least = float(header["vox_offset"]), header.template_dtype.itemsize + 4
    if not (least <= offset < 2**62 and offset == int(offset)):
        raise InputError(f"{name}: its vox_offset is {offset:g}, where no voxels can be; export the image again")


def _scaling(header: nib.Nifti1Header) -> tuple[float, float]:
    """slope and intercept; without a finite slope, the standard says, voxels are not scaled."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    return (slope, inter) if slope and np.isfinite(slope) else (1.0, 0.0)


def _affine(name: str, header: nib.Nifti1Header, shape: tuple[int, ...]) -> tuple[np.ndarray, list[str]]:
    """The affine that the standard chooses, and doubts about it. `header` is made one whose qform nibabel can read."""
    doubts = []
    zooms = np.abs(header["pixdim"][1:4].astype(float))
    qform, excess = _qform(header, zooms)
    for key in ("sform_code", "qform_code"):
        if int(header[key]) not in xform_codes.code:
            header[key] = 0  # as nibabel does
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    if sform_code:
        affine = checked_affine(name, header.get_sform().astype(float))
        sizes = nib.affines.voxel_sizes(affine)
        if not (np.abs(zooms - sizes) <= ZOOM_TOLERANCE * sizes).all():
            doubts.append(
                f"pixdim says a spacing of {_numbers(zooms)} mm, the affine {_numbers(sizes)} mm; the affine is used"
            )
        if qform_code:
            distance = corner_distance_mm(affine, qform, shape) if np.isfinite(qform).all() else np.inf
            if not distance <= GRID_TOLERANCE * sizes.min():
                doubts.append(f"sform and qform disagree by up to {distance:.3g} mm; the sform is used")
    elif qform_code:
        if excess > MAX_QUATERNION_EXCESS:
            raise InputError(f"{name}: the quaternion of its qform is no rotation; correct its header")
        affine = checked_affine(name, qform)
        if excess > 1e-6:
            angle = np.degrees(2 * np.sqrt(excess))
            doubts.append(f"the quaternion of the qform is rounded; directions may be {angle:.2g} degrees off")
        header.set_qform(affine, qform_code)
    else:
        header["pixdim"][1:4] = zooms
        affine = checked_affine(name, header.get_base_affine() if zooms.all() else np.zeros((4, 4)))
        doubts.append(f"the header has no sform and no qform code: {SIDES_ARE_A_GUESS}")
    if (unit := int(header["xyzt_units"]) % 8) in _UNITS:
        doubts.append(f"the header gives {_UNITS[unit]} as unit; the spacing is taken as millimetres")
    slope = float(header["scl_slope"])
    if not np.isfinite(slope):
        doubts.append(f"its scl_slope is {slope}; voxels are taken as they are stored")
    return affine, doubts


def _qform(header: nib.Nifti1Header, zooms: np.ndarray) -> tuple[np.ndarray, float]:
    """The qform's affine, and by how much the squared length of its quaternion is over 1."""
    bcd = np.array([header[f"quatern_{i}"] for i in "bcd"], dtype=float)
    if not (np.abs(bcd) < 2).all():
        return np.full((4, 4), np.nan), np.inf
    squared = float(bcd @ bcd)
    affine = np.eye(4)
    affine[:3, 3] = [header[f"qoffset_{i}"] for i in "xyz"]
    directions = nib.quaternions.quat2mat([np.sqrt(max(0.0, 1 - squared)), *bcd])  # of unit length, whatever theirs
    affine[:3, :3] = directions * zooms * (1, 1, -1 if header["pixdim"][0] < 0 else 1)
    return affine, squared - 1


def _numbers(values: np.ndarray) -> str:
    return " x ".join(f"{value:.4g}" for value in values)

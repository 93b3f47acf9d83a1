"""Volumes with one thing wrong in their headers, as programs and hands leave them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np

QUATERNION, CODES, PIXDIM, SFORM, SCALING, OFFSET, DATATYPE, DIM, UNITS, EXTENSION = (
    256, 252, 76, 280, 112, 108, 70, 40, 123, 348,
)  # fmt: skip
_AXIS = np.array([np.cos(np.radians(2)), np.sin(np.radians(2)), 0])  # its rounded numbers are of length over 1
TURNED = nib.affines.from_matvec((2 * np.outer(_AXIS, _AXIS) - np.eye(3)) * (2, 2, 3), (-20, 10, 30))  # by 180 degrees

REFUSED = {  # name -> byte, format and values of what is wrong
    "datatype 0": (DATATYPE, "<h", 0),
    "colours": (DATATYPE, "<h", 128),
    "complex": (DATATYPE, "<h", 32),
    "float128": (DATATYPE, "<h", 1536),
    "unknown datatype": (DATATYPE, "<h", 77),
    "no shape": (DIM, "<h", 0),
    "huge shape": (DIM, "<4h", 3, 32767, 32767, 32767),
    "negative shape": (DIM, "<4h", 3, -6, -7, 8),
    "zero size": (DIM, "<4h", 3, 6, 0, 8),
    "flat": (DIM, "<4h", 2, 6, 7, 1),
    "two volumes": (DIM, "<5h", 4, 6, 7, 4, 2),
    "offset inside": (OFFSET, "<f", 17.0),
    "offset nan": (OFFSET, "<f", np.nan),
    "offset beyond": (OFFSET, "<f", 1e30),
    "intercept nan": (SCALING, "<2f", 2.0, np.nan),
    "affine nan": (SFORM, "<f", np.nan),
    "affine infinite": (SFORM, "<f", np.inf),
    "affine flat": (SFORM, "<4f", 0, 0, 0, 0),
    "microscopic": (SFORM, "<4f", 1e-9, 0, 0, 0),
    "no rotation": (CODES, "<2h3f", 1, 0, 3.0, 0.0, 1.0),
    "no spacing": (CODES, "<2h", 0, 0),  # with pixdim 0, see `with_fault`
}


def nifti_bytes(voxels: np.ndarray, affine: np.ndarray, *, kind: type = nib.Nifti1Image) -> bytearray:
    """With sform and qform, as most scanners' converters write them; a qform cannot be sheared."""
    image = kind(voxels, affine, dtype=voxels.dtype)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=int(np.allclose(image.get_qform(), affine, atol=1e-3)))
    return bytearray(image.to_bytes())


def with_fault(path: Path, voxels: np.ndarray, affine: np.ndarray, fault: str) -> Path:
    raw = nifti_bytes(voxels, affine)
    place, form, *values = REFUSED[fault]
    struct.pack_into(form, raw, place, *values)
    if fault == "no spacing":
        struct.pack_into("<3f", raw, PIXDIM + 4, 0, 0, 0)
    return store(path, raw)


def with_rounded_quaternion(path: Path, voxels: np.ndarray, affine: np.ndarray = TURNED) -> Path:
    """A qform only, whose quaternion is rounded to 4 digits; with TURNED, its length is then over 1."""
    raw = nifti_bytes(voxels, affine)
    struct.pack_into("<2h", raw, CODES, 1, 0)
    rounded = np.round(struct.unpack_from("<3f", raw, QUATERNION), 4)
    struct.pack_into("<3f", raw, QUATERNION, *rounded)
    return store(path, raw)


def without_form_codes(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    raw = nifti_bytes(voxels, affine)
    struct.pack_into("<2h", raw, CODES, 0, 0)
    return store(path, raw)


def store(path: Path, raw: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(bytes(raw), 1) if path.name.endswith(".gz") else bytes(raw))
    return path


def write_nrrd(path: Path, voxels: np.ndarray, affine: np.ndarray, *, encoding: str = "raw", space: str = "RAS",
               more: str = "") -> Path:  # fmt: skip
    """An NRRD file by hand, so that its axes may have any angle. affine: in `space`."""
    vectors = " ".join("(" + ",".join(repr(float(x)) for x in affine[:3, i]) + ")" for i in range(3))
    head = (
        f"NRRD0004\ntype: {voxels.dtype.name}\ndimension: 3\nsizes: {' '.join(map(str, voxels.shape))}\n"
        + (f"space: {space}\nspace directions: {vectors}\n" if space else "spacings: 2 2 3\n")
        + f"endian: little\nencoding: {encoding}\n{more}"
        + (f"space origin: ({','.join(repr(float(x)) for x in affine[:3, 3])})\n\n" if space else "\n")
    )
    raw = voxels.tobytes(order="F")
    path.write_bytes(head.encode() + (gzip.compress(raw) if encoding == "gzip" else raw))
    return path


def write_mha(path: Path, voxels: np.ndarray, affine: np.ndarray, *, more: str = "", data: str = "LOCAL") -> Path:
    """An MHA file of int16 by hand. affine: in RAS, as everywhere here."""
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)

    def row(numbers: np.ndarray) -> str:
        return " ".join(repr(float(x)) for x in numbers)

    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        f"TransformMatrix = {row((lps[:3, :3] / spacing).T.ravel())}\nOffset = {row(lps[:3, 3])}\n{more}"
        f"ElementSpacing = {row(spacing)}\nDimSize = {' '.join(map(str, voxels.shape))}\nElementType = MET_SHORT\n"
        f"ElementDataFile = {data}\n"
    )
    path.write_bytes(head.encode() + voxels.astype("<i2").tobytes(order="F"))
    return path

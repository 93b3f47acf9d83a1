"""NRRD and MHA files, read by their text headers: the exact affine, sheared or not, and every byte of the voxels.

SimpleITK, of headers without sense, ends the process; of compressed voxels it looks at no checksum.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnunetv2_malenia.volumes.errors import InputError
from nnunetv2_malenia.volumes.volume import (
    MAX_DEFLATION,
    SIDES_ARE_A_GUESS,
    StoredVolume,
    checked_affine,
    checked_shape,
    doubts_about_grid,
    faults_of,
)

TEXT_ENDINGS = (".nrrd", ".mha")
_MAX_HEADER = 2**20
_BLOCK = 2**16  # inflates to 64 MiB at most
_LPS = (-1.0, -1.0, 1.0)
_SPACES = {  # NRRD's names -> what makes right, anterior, superior of its axes
    **dict.fromkeys(("left-posterior-superior", "lps"), _LPS),
    **dict.fromkeys(("right-anterior-superior", "ras"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1.0, 1.0, 1.0)),
}
_TYPES = {
    name: dtype
    for dtype, names in {
        "i1": "signed char|int8|int8_t|MET_CHAR",
        "u1": "uchar|unsigned char|uint8|uint8_t|MET_UCHAR",
        "i2": "short|short int|signed short|signed short int|int16|int16_t|MET_SHORT",
        "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t|MET_USHORT",
        "i4": "int|signed int|int32|int32_t|MET_INT",
        "u4": "uint|unsigned int|uint32|uint32_t|MET_UINT",
        "i8": "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t|MET_LONG_LONG",
        "u8": "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t|MET_ULONG_LONG",
        "f4": "float|MET_FLOAT",
        "f8": "double|MET_DOUBLE",
    }.items()
    for name in names.split("|")
}


class _Described(NamedTuple):
    """What a header says. directions: (3, 3), a column for each axis, of `signs`' space, with spacing."""

    sizes: list[int]
    type: str
    is_big_endian: bool
    is_compressed: bool
    directions: np.ndarray
    origin: list[float]
    signs: tuple[float, float, float]
    tells_sides: bool
    doubts: list[str]


@dataclass(frozen=True, eq=False)
class TextHeaderVolume(StoredVolume):
    """data_offset: where the voxels of type `dtype` begin."""

    path: Path
    data_offset: int
    dtype: np.dtype
    is_compressed: bool

    def blocks(self) -> Iterator[bytes]:
        left = prod(self.shape) * self.dtype.itemsize
        inflater = zlib.decompressobj(47) if self.is_compressed else None  # 47: zlib or gzip, as its header says
        with faults_of(self.name, _kind_of(self.path)), self.path.open("rb") as file:
            file.seek(self.data_offset)
            while left or (inflater and not inflater.eof):  # to the end, where the checksum is
                if not (block := file.read(_BLOCK)):
                    raise EOFError("it ends before its last voxel")
                block = (inflater.decompress(block) if inflater else block)[:left]
                left -= len(block)
                yield block

    def scaled(self, stored: bytes) -> np.ndarray:
        return np.frombuffer(stored, self.dtype).astype(self.dtype.newbyteorder("="), copy=False)


def open_text_header(path: Path, name: str) -> TextHeaderVolume:
    """Read the header of an NRRD or MHA file. Raises InputError as `open_nifti` does, and for voxels elsewhere."""
    is_nrrd = path.name.endswith(".nrrd")
    with faults_of(name, _kind_of(path)), path.open("rb") as file:
        start = file.read(_MAX_HEADER)
        end = re.search(rb"\n\r?\n" if is_nrrd else rb"(?:^|\n)ElementDataFile *=[^\r\n]*\r?\n", start)
        if not end or (is_nrrd and not start.startswith(b"NRRD000")):
            raise EOFError("it does not begin as such a file does")
        stored = file.seek(0, 2) - end.end()
    header = start[: end.end()].decode("utf-8", "replace")
    try:
        described = _nrrd(name, header) if is_nrrd else _mha(name, header)
        dtype = np.dtype((">" if described.is_big_endian else "<") + _TYPES[described.type])
    except InputError:
        raise
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"{name}: its header makes no sense ({error}); export the image again") from None
    shape = checked_shape(name, described.sizes)
    with faults_of(name, _kind_of(path)):
        if stored * (MAX_DEFLATION if described.is_compressed else 1) < prod(shape) * dtype.itemsize:
            raise EOFError("it ends before its last voxel")
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = described.directions, described.origin
    affine[:3] *= np.reshape(described.signs, (3, 1))
    affine = checked_affine(name, affine)
    doubts = [*described.doubts, *doubts_about_grid(shape, affine)]
    if not described.tells_sides:
        doubts.insert(0, f"the header does not say what its directions are: {SIDES_ARE_A_GUESS}")
    return TextHeaderVolume(name, shape, affine, tuple(doubts), described.tells_sides, path, end.end(), dtype,
                            described.is_compressed)  # fmt: skip


def _kind_of(path: Path) -> str:
    return path.suffix[1:].upper()


def _nrrd(name: str, header: str) -> _Described:
    fields = {key.lower(): value.strip() for key, value in re.findall(r"^([^#:\n]+): (.*)$", header, re.MULTILINE)}
    _check_here(name, "data file" not in fields and "datafile" not in fields)
    if any(int(fields.get(key, 0)) for key in ("line skip", "byte skip", "lineskip", "byteskip")):
        raise ValueError("voxels do not follow the header")
    if fields["encoding"].lower() not in ("raw", "gzip", "gz"):
        raise InputError(f"{name}: its encoding is {fields['encoding']}; store it as raw or gzip")
    sizes = [int(size) for size in fields["sizes"].split()]
    if len(sizes) != int(fields["dimension"]):
        raise ValueError("sizes are not as many as its dimension")
    signs = _SPACES.get(fields.get("space", "").lower())
    if "space directions" in fields:
        steps = re.findall(r"none|\([^)]*\)", fields["space directions"])
    else:
        steps = [_on_axis(i, step) for i, step in enumerate(fields["spacings"].split())]
    axes = [i for i, step in enumerate(steps) if step != "none"]
    if len(steps) != len(sizes):
        raise ValueError("its directions are not as many as its axes")
    if (others := prod(size for i, size in enumerate(sizes) if i not in axes)) != 1:
        raise InputError(f"{name}: {others} values a voxel, of sizes {sizes}; store one 3-D file for each")
    units = re.findall(r'"([^"]*)"', fields.get("space units", ""))
    is_3d = len(axes) >= 3
    return _Described(
        sizes=[sizes[i] for i in axes],
        type=fields["type"],
        is_big_endian=fields.get("endian", "little").lower() == "big",
        is_compressed=fields["encoding"].lower() != "raw",
        directions=np.array([_vector(steps[i]) for i in axes[:3]]).T if is_3d else np.zeros((3, 3)),
        origin=_vector(fields.get("space origin", "(0,0,0)")) if is_3d else [0.0, 0.0, 0.0],
        signs=signs or _LPS,
        tells_sides=signs is not None and "space directions" in fields,
        doubts=["the header gives other units than mm; they are taken as mm"] if set(units) - {"mm"} else [],
    )


def _on_axis(axis: int, step: str) -> str:
    """A spacing as a vector; axes without one have nan."""
    return "none" if np.isnan(float(step)) else f"({','.join(step if i == axis else '0' for i in range(3))})"


def _vector(text: str) -> list[float]:
    x, y, z, *_ = (float(number) for number in text.strip("()").split(","))
    return [x, y, z]


def _mha(name: str, header: str) -> _Described:
    fields: Mapping[str, str] = dict(re.findall(r"^(\w+) *= *(.*?)\s*$", header, re.MULTILINE))
    _check_here(name, fields["ElementDataFile"].upper() == "LOCAL")
    number = int(fields["NDims"])
    if not 0 < number < 8 or int(fields.get("HeaderSize", 0)) or not _is_true(fields.get("BinaryData", "True")):
        raise ValueError("NDims, HeaderSize or BinaryData")
    if (channels := int(fields.get("ElementNumberOfChannels", 1))) != 1:
        raise InputError(f"{name}: {channels} values a voxel; store one 3-D file for each")
    for key, neutral in (("ElementToIntensityFunctionSlope", 1), ("ElementToIntensityFunctionOffset", 0)):
        if float(fields.get(key, neutral)) != neutral:
            raise InputError(f"{name}: intensities are to be scaled by its {key}; store them scaled")
    matrix, origin, spacing = (
        next((fields[key] for key in keys if key in fields), None)
        for keys in (
            ("TransformMatrix", "Rotation", "Orientation"),
            ("Offset", "Position", "Origin"),
            ("ElementSpacing", "ElementSize"),
        )
    )
    if spacing is None:
        raise InputError(f"{name}: its header gives no spacing; export the image again")
    rows = np.array(matrix.split(), dtype=float).reshape(number, number) if matrix else np.eye(number)
    sizes = [int(size) for size in fields["DimSize"].split()]
    numbers = [np.array(text.split(), dtype=float) for text in (spacing, origin or "0 " * number)]
    if any(len(each) != number for each in (sizes, *numbers)):
        raise ValueError("DimSize, ElementSpacing or Offset are not as many as NDims")
    is_3d = number >= 3
    return _Described(
        sizes=sizes,
        type=fields["ElementType"],
        is_big_endian=_is_true(fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False"))),
        is_compressed=_is_true(fields.get("CompressedData", "False")),
        directions=rows[:3, :3].T * numbers[0][:3] if is_3d else np.zeros((3, 3)),
        origin=numbers[1][:3].tolist() if is_3d else [0.0, 0.0, 0.0],
        signs=_LPS,
        tells_sides=matrix is not None,
        doubts=[],
    )


def _is_true(text: str) -> bool:
    return text[:1] in "Tt1" if text else False


def _check_here(name: str, is_here: bool) -> None:
    if not is_here:
        raise InputError(f"{name}: its voxels are in another file; store header and voxels in one file")

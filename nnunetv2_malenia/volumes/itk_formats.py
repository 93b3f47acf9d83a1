"""NRRD and MHA files: SimpleITK reads geometry and voxels, sheared ones too; this checks what it does not look at."""

from __future__ import annotations

import errno
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from nnunetv2_malenia.volumes.dicom import read_series
from nnunetv2_malenia.volumes.errors import InputError
from nnunetv2_malenia.volumes.volume import (
    MAX_DEFLATION,
    SIDES_ARE_A_GUESS,
    Volume,
    checked_affine,
    checked_shape,
    doubts_about_grid,
    faults_of,
)

LPS_OF_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MAX_HEADER = 2**20
_BLOCK = 2**16  # inflates to 64 MiB at most
_INTENSITY = "ElementToIntensityFunction"  # a scale of MHA that SimpleITK leaves out


@dataclass(frozen=True)
class _Format:
    """image_io: SimpleITK's name; end: of the header, behind which voxels begin; elsewhere, spacing, sides, compressed:
    how a line of it begins that says that voxels are in another file, how large they are, what directions are, and that
    they are compressed."""

    image_io: str
    end: re.Pattern
    elsewhere: str
    spacing: str
    sides: str
    compressed: str

    def has(self, header: str, what: str) -> bool:
        return bool(re.search(rf"^(?:{what})", header, re.MULTILINE | re.IGNORECASE))


_SPACES = "left-posterior-superior|LPS|left-anterior-superior|LAS|right-anterior-superior|RAS"  # that SimpleITK knows
_FORMATS = {
    ".nrrd": _Format(
        image_io="NrrdImageIO",
        end=re.compile(rb"\n\r?\n"),
        elsewhere="data ?file:",
        spacing="space directions:|spacings:",
        sides=rf"space: *(?:{_SPACES})\s*$",
        compressed="encoding: *gz",
    ),
    ".mha": _Format(
        image_io="MetaImageIO",
        end=re.compile(rb"ElementDataFile *= *[^\r\n]*\r?\n", re.IGNORECASE),
        elsewhere="ElementDataFile *=(?! *LOCAL *$)",
        spacing="Element(?:Spacing|Size) *=",
        sides="(?:TransformMatrix|Rotation|Orientation) *=",
        compressed="CompressedData *= *T",
    ),
}
ITK_ENDINGS = tuple(_FORMATS)


@dataclass(frozen=True, eq=False)
class ItkVolume(Volume):
    """A volume that SimpleITK reads. data_offset: where its voxels begin; length: how many bytes they are."""

    path: Path
    image_io: str
    data_offset: int
    length: int
    is_compressed: bool

    def voxels(self) -> np.ndarray:
        self.verify()
        with _itk_faults_of(self.name):
            image = sitk.ReadImage(str(self.path), imageIO=self.image_io)
            return sitk.GetArrayFromImage(image).reshape(self.shape[::-1]).transpose(2, 1, 0)

    def verify(self) -> None:
        """SimpleITK does not look at the checksums of compressed voxels, so this does."""
        with faults_of(self.name, self.path.suffix[1:].upper()), self.path.open("rb") as file:
            file.seek(self.data_offset)
            if not self.is_compressed:
                return
            length, inflater = 0, zlib.decompressobj(47)  # 47: of zlib or gzip, as its header says
            while block := file.read(_BLOCK):
                length += len(inflater.decompress(block))
            if not inflater.eof or length < self.length:
                raise EOFError("it ends before its last voxel")


def open_itk(path: Path, name: str) -> ItkVolume:
    """Read the header of an NRRD or MHA file. Raises InputError as `open_nifti` does, and for voxels elsewhere."""
    form, kind = _FORMATS[path.suffix], path.suffix[1:].upper()
    with faults_of(name, kind), path.open("rb") as file:
        start = file.read(_MAX_HEADER)
        if not (end := form.end.search(start)):
            raise EOFError("its header has no end")
        stored = file.seek(0, 2) - end.end()
    header = start[: end.end()].decode("utf-8", "replace").replace("\r", "")
    _check_text(name, form, header)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(form.image_io)
    reader.SetFileName(str(path))
    with _itk_faults_of(name):
        reader.ReadImageInformation()
    shape, itemsize = checked_shape(name, reader.GetSize()), _itemsize(name, reader)
    length = prod(reader.GetSize()) * itemsize
    is_compressed = form.has(header, form.compressed)
    is_text = form.has(header, r"encoding: *(?:text|txt|ascii|hex)|BinaryData *= *F")  # of a character a voxel or more
    with faults_of(name, kind):
        if stored * (MAX_DEFLATION if is_compressed else itemsize if is_text else 1) < length:
            raise EOFError("it ends before its last voxel")
    affine = checked_affine(name, itk_affine(reader.GetDirection(), reader.GetSpacing(), reader.GetOrigin()))
    tells_sides = form.has(header, form.sides)
    doubts = doubts_about_grid(shape, affine)
    if not tells_sides:
        doubts.append(f"the header does not say what its directions are: {SIDES_ARE_A_GUESS}")
    if form.has(header, r'space units:(?! *"mm" +"mm" +"mm")'):
        doubts.append("the header gives other units than mm; the spacing is taken as millimetres")
    return ItkVolume(name, shape, affine, tuple(doubts), tells_sides, path, form.image_io, end.end(), length,
                     is_compressed)  # fmt: skip


def _check_text(name: str, form: _Format, header: str) -> None:
    """Raise InputError for a header that gives no spacing, or asks for what SimpleITK does not do."""
    if form.has(header, form.elsewhere):
        raise InputError(f"{name}: its voxels are in another file; store header and voxels in one file")
    for key, neutral in ((f"{_INTENSITY}Slope", 1), (f"{_INTENSITY}Offset", 0)):
        if form.has(header, key) and not form.has(header, rf"{key} *= *{neutral}(?:\.0*)?\s*$"):
            raise InputError(f"{name}: intensities are to be scaled by its {key}; store them scaled")
    if not form.has(header, form.spacing):
        raise InputError(f"{name}: its header gives no spacing; export the image again")


def _itemsize(name: str, reader: sitk.ImageFileReader) -> int:
    """Bytes of a voxel. Raises InputError unless it is one real number."""
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    bits = re.fullmatch(r"(?:vector of )?(\d+)-bit (?:un)?(?:signed integer|float)", kind)
    if not bits or reader.GetNumberOfComponents() != 1:
        raise InputError(f"{name}: voxels of type {kind}; store intensities as real numbers")
    return int(bits[1]) // 8


def itk_affine(direction: Sequence[float], spacing: Sequence[float], origin: Sequence[float]) -> np.ndarray:
    """(4, 4) float64 from voxel indices x, y, z to RAS millimetres, of what SimpleITK says of three axes or more."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(direction, (len(spacing),) * 2)[:3, :3] * spacing[:3]
    affine[:3, 3] = origin[:3]
    return LPS_OF_RAS @ affine


@dataclass(frozen=True, eq=False)
class SeriesVolume(Volume):
    """A DICOM series, which is read where it is opened."""

    image: sitk.Image

    def voxels(self) -> np.ndarray:
        return sitk.GetArrayFromImage(self.image).transpose(2, 1, 0)

    def verify(self) -> None:
        """Nothing is left to check."""


def open_series(folder: Path, name: str) -> SeriesVolume:
    """The one CT series of a folder. Raises InputError as `read_series` does."""
    with _itk_faults_of(name):
        image = read_series(folder)
    affine = checked_affine(name, itk_affine(image.GetDirection(), image.GetSpacing(), image.GetOrigin()))
    shape = checked_shape(name, image.GetSize())
    return SeriesVolume(name, shape, affine, tuple(doubts_about_grid(shape, affine)), True, image)


def write_itk(voxels: np.ndarray, affine: np.ndarray, path: str) -> None:
    """Store an (X, Y, Z) array as NRRD or MHA, by the path's ending, sheared or not."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    lps, spacing = LPS_OF_RAS @ affine, nib.affines.voxel_sizes(affine)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, path, True)
    try:
        open_itk(Path(path), path).verify()
    except InputError:  # SimpleITK says nothing when the disk is full
        raise OSError(errno.ENOSPC, "not written whole; is the disk full?", path) from None


@contextmanager
def _itk_faults_of(name: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        why = str(error).strip().splitlines()[-1]
        if why.startswith("Reason:"):  # ITK's, of a truncated MHA: "No such file or directory"
            why = "its header or voxels are incomplete"
        raise InputError(f"{name}: cannot be read ({why}); export or copy it again") from None

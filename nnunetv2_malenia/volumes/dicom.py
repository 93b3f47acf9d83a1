"""A folder's CT series: which of its files are the slices, what lies beside them, and the volume that they make."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nnunetv2_malenia.files import files_below
from nnunetv2_malenia.volumes.dicom_grid import AIR, Grid, Slice, sorted_on_grid
from nnunetv2_malenia.volumes.errors import InputError

_CT, _MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.2", ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
_SECONDARY_CAPTURE, _DIRECTORY = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.1.3.10"
_NOT_DECODED = {  # by GDCM; beginnings of transfer syntaxes
    "1.2.840.10008.1.2.4.10": "MPEG video",
    "1.2.840.10008.1.2.4.11": "JPEG XL",
    "1.2.840.10008.1.2.4.20": "High-Throughput JPEG 2000",
    "1.2.840.10008.1.2.4.94": "JPIP",
    "1.2.840.10008.1.2.4.95": "JPIP",
    "1.2.840.10008.1.2.8.1": "deflated frames",
}
_DEFLATED = "1.2.840.10008.1.2.1.99"
_PIXEL_DATA = {  # the element's tag, its type where that is explicit, and its length
    "little": re.compile(rb"\xe0\x7f\x10\x00(?:(?:O[BW]|UN)\x00\x00)?(.{4})", re.DOTALL),
    "big": re.compile(rb"\x7f\xe0\x00\x10(?:(?:O[BW]|UN)\x00\x00)?(.{4})", re.DOTALL),
}
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_HEAD = 2**14  # bytes in which class, modality and transfer syntax stand


class Series(NamedTuple):
    """A CT volume. name: for messages; files: its slices, sorted along `grid`; notes: what else is there, in words."""

    name: str
    files: tuple[Path, ...]
    grid: Grid
    notes: tuple[str, ...]


class _Kind(NamedTuple):
    """What a DICOM file says of itself in its first bytes; "" for what it does not say."""

    sop_class: str
    modality: str
    transfer_syntax: str

    @property
    def is_ct(self) -> bool:
        """Not so where class and modality contradict each other: an MR is not read as Hounsfield units."""
        return self.modality == "CT" or (self.sop_class in (_CT, *_MULTI_FRAME) and not self.modality)

    @property
    def must_be_image(self) -> bool:
        """Not so for raw data and private objects of a CT scanner."""
        return self.sop_class in ("", _CT, *_MULTI_FRAME) or self.sop_class.startswith(_SECONDARY_CAPTURE)

    @property
    def label(self) -> str:
        return "directory" if self.sop_class == _DIRECTORY else self.modality or "DICOM object"


def is_ct_file(path: Path) -> bool:
    """Whether it is a DICOM file of modality CT, by its first bytes."""
    kind = _kind(path)
    return kind is not None and kind.is_ct


def is_dicom_folder(folder: Path) -> bool:
    """Whether it is a folder with CT files in it or below."""
    return folder.is_dir() and any(is_ct_file(path) for path in files_below(folder))


def is_dicom_file(path: Path) -> bool:
    """Whether it is a DICOM file of any kind, with or without preamble."""
    return _kind(path) is not None


def find_series(folder: Path, name: str) -> Series:
    """The one CT volume in a folder and the folders below it, whatever else lies there.

    name: what messages call the folder. Localizers, images of other modalities and objects that are no images are not
    used, and noted. Raises InputError for no volume or several, a file that must be a slice and cannot be read, and
    slices that are no regular volume.
    """
    slices, unused = _slices(folder, name)
    by_series = defaultdict(list)
    for each in slices:
        by_series[each.text("0020|000e")].append(each)
    volumes = []
    for members in by_series.values():
        places = {each.position for each in members if each.position}
        if len(places) > 1 or any(each.text("0008|0016") in _MULTI_FRAME for each in members):
            volumes.append(members)
        else:
            label = "CT images at one position" if places else "CT images without position"
            unused[label] += [each.path for each in members]
    if not volumes:
        only = f", only {_listed(unused)}" if unused else ""
        raise InputError(f"{name}: holds no CT volume{only}; give the folder with the slices of a CT series")
    if len(volumes) > 1:
        named = "; ".join(_described(folder, members) for members in volumes)
        raise InputError(f"{name}: {len(volumes)} DICOM series with a CT volume ({named}); keep one in a folder")
    if any(each.frames > 1 or each.text("0008|0016") in _MULTI_FRAME for each in volumes[0]):
        raise InputError(
            f"{name}: a multi-frame (enhanced) DICOM file, whose frames SimpleITK does not sort; convert it to "
            "single-frame slices, e.g. with dcm4che's emf2sf, or to NIfTI, e.g. with dcm2niix"
        )
    members, copies = _without_copies(name, volumes[0])
    unused["copies of slices"] += copies
    members, grid = sorted_on_grid(name, members)
    for each in members:
        _check_complete(name, each)
    notes = [f"beside the CT series, not used: {_listed(unused)}"] if any(unused.values()) else []
    if padded := sum(bool(each.padding) for each in members):
        notes.append(f"{padded} slices state a padding above {AIR} HU; at their edges it is read as {AIR} HU")
    return Series(name, tuple(each.path for each in members), grid, tuple(notes))


def read_series(series: Series) -> sitk.Image:
    """A CT volume, float32: each slice is rescaled by itself. Raises InputError for voxels that cannot be decoded."""
    image = sitk.GetImageFromArray(np.concatenate([_pixels(path, series.name) for path in series.files]))
    image.SetOrigin(series.grid.origin)
    image.SetSpacing(series.grid.spacing)
    image.SetDirection(series.grid.direction)
    return image


def _slices(folder: Path, name: str) -> tuple[list[Slice], dict[str, list[Path]]]:
    """The single images that may be slices of a CT volume, and the other files by what they are."""
    slices, unused = [], defaultdict(list)
    for path in files_below(folder):
        kind = _kind(path)
        if kind is None and path.suffix.lower() == ".dcm":
            raise InputError(f"{name}: {path.name} is damaged, or no DICOM file; export or copy it again")
        if kind is None or not kind.is_ct:
            unused["other files" if kind is None else kind.label].append(path)
            continue
        for beginning, syntax in _NOT_DECODED.items():
            if kind.transfer_syntax.startswith(beginning):
                raise InputError(
                    f"{name}: {path.name} is compressed as {syntax} (transfer syntax {kind.transfer_syntax}), "
                    "which cannot be read here; export the series uncompressed"
                )
        tags = _tags(path)
        if tags is None and kind.must_be_image:
            raise InputError(
                f"{name}: {path.name} cannot be read as a CT slice (transfer syntax "
                f"{kind.transfer_syntax or 'unknown'}); export or copy it again"
            )
        if tags is None:
            unused["CT objects without an image"].append(path)
            continue
        each = Slice(path, tags)
        if "LOCALIZER" in each.text("0008|0008").upper().split("\\"):
            unused["localizer images"].append(path)
        elif each.text("0028|0002") not in ("", "1"):
            unused["colour images"].append(path)
        else:
            slices.append(each)
    return slices, unused


def _without_copies(name: str, slices: Sequence[Slice]) -> tuple[list[Slice], list[Path]]:
    """Slices, and the files that hold one of them once more: the same identifier, position and pixels."""
    first: dict[tuple, Slice] = {}
    kept, copies = [], []
    for each in slices:
        same = first.setdefault((each.text("0008|0018"), each.position), each)
        is_known = same is not each and each.text("0008|0018") != ""
        is_copy = is_known and np.array_equal(_pixels(same.path, name), _pixels(each.path, name))
        copies.append(each.path) if is_copy else kept.append(each)
    return kept, copies


def _check_complete(name: str, each: Slice) -> None:
    """GDCM makes voxels up that are missing. An icon may have pixels too; compressed ones have no length, 2**32 - 1."""
    syntax = _kind(each.path).transfer_syntax
    if syntax == _DEFLATED:
        return
    order = "big" if syntax == _BIG_ENDIAN else "little"
    lengths = [int.from_bytes(found, order) for found in _PIXEL_DATA[order].findall(each.path.read_bytes())]
    bits = prod(number for tag in ("0028|0010", "0028|0011", "0028|0100") for number in each.numbers(tag)[:1])
    if max(lengths, default=0) < bits // 8:
        raise InputError(f"{name}: {each.path.name} holds fewer voxels than its header says; export or copy it again")


def _described(folder: Path, members: Sequence[Slice]) -> str:
    place = os.path.relpath(os.path.commonpath([each.path.parent for each in members]), folder)
    where = "" if place == "." else f", in {place}"
    return f"{len(members)} slices, {members[0].text('0008|103e') or members[0].text('0020|000e')}{where}"


def _listed(unused: dict[str, Sequence[Path]]) -> str:
    """E.g. "RTSTRUCT (contours.dcm), localizer images (2)"."""
    return ", ".join(
        f"{label} ({paths[0].name if len(paths) == 1 else len(paths)})"
        for label, paths in sorted(unused.items())
        if paths
    )


def _kind(path: Path) -> _Kind | None:
    """None for a file that is no DICOM. Without a preamble, a file begins with an element of group 2 or 8."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    is_marked = head[128:132] == b"DICM"
    head = head[132:] if is_marked else head
    sop_class = syntax = modality = ""
    if head[:2] == b"\x02\0":
        sop_class, syntax = _value(head, b"\x02\0\x02\0"), _value(head, b"\x02\0\x10\0")
    if is_marked or head[:2] in (b"\x02\0", b"\x08\0"):
        sop_class = sop_class or _value(head, b"\x08\0\x16\0")
        modality = _value(head, b"\x08\0\x60\0") if sop_class != _DIRECTORY else ""
    return _Kind(sop_class, modality, syntax) if is_marked or sop_class or modality else None


def _value(head: bytes, tag: bytes) -> str:
    """The text of the first element with this tag, little endian with explicit or implicit types; "" without one."""
    at = head.find(tag)
    if at < 0:
        return ""
    has_type = head[at + 4 : at + 6].isalpha()
    length = int.from_bytes(head[at + 6 : at + 8] if has_type else head[at + 4 : at + 8], "little")
    text = head[at + 8 : at + 8 + min(length, 64)].decode("ascii", "replace")
    return "".join(each if each.isprintable() else "?" for each in text.partition("\0")[0].strip())


def _tags(path: Path) -> dict[str, str] | None:
    """An image's top-level elements as text; None where GDCM finds no image in the file."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    return {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}


def _pixels(path: Path, name: str) -> np.ndarray:
    """(1, Y, X) float32, rescaled. name: the folder's, for the message."""
    try:
        image = sitk.ReadImage(str(path), sitk.sitkFloat32, imageIO="GDCMImageIO")
    except RuntimeError:
        syntax = _kind(path).transfer_syntax or "unknown"
        raise InputError(
            f"{name}: the voxels of {path.name} cannot be decoded (transfer syntax {syntax}); export the series again, "
            "uncompressed"
        ) from None
    pixels = sitk.GetArrayFromImage(image)
    tags = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    if padding := Slice(path, tags).padding:
        _as_air(pixels, (padding[0] <= pixels) & (pixels <= padding[1]))
    return pixels


def _as_air(pixels: np.ndarray, is_padding: np.ndarray) -> None:
    """Padding lies around the scanned circle; voxels of the same value within it are tissue. Both (1, Y, X)."""
    regions, _ = ndimage.label(is_padding)
    edge = np.concatenate([regions[0, [0, -1]].ravel(), regions[0, :, [0, -1]].ravel()])
    pixels[is_padding & np.isin(regions, edge)] = AIR

"""A CT series on disk: which files are its slices, whether they are one regular volume, and that volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_malenia.volumes.errors import InputError

SPACING_TOLERANCE = 0.05  # share of the distance between slices by which one of them may differ
MAX_TILT_DEGREES = 0.5
_POSITION, _ORIENTATION, _DESCRIPTION = "0020|0032", "0020|0037", "0008|103e"
_FRAMES, _FRAME_OF_REFERENCE = "0028|0008", "0020|0052"
_OF_ALL_SLICES = {"0028|0010": "rows", "0028|0011": "columns", "0028|0030": "pixel spacing"}


def is_dicom_folder(folder: Path) -> bool:
    """Whether it is a folder in which a file begins as DICOM files do."""
    return folder.is_dir() and any(_is_dicom(path) for path in sorted(folder.iterdir()) if path.is_file())


def series_files(folder: Path) -> tuple[str, ...]:
    """The files of a folder's one DICOM series, by slice position, in the order in which SimpleITK reads them.

    Raises InputError for a folder with several series, or a series that is no regular volume.
    """
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not series:
        raise InputError(f"{folder.name}: no readable DICOM series; export or copy it again")
    files = {each: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), each) for each in series}
    if len(series) > 1:
        named = "; ".join(
            f"{len(names)} slices, {_header(names[0]).get(_DESCRIPTION, '').strip() or each}"
            for each, names in files.items()
        )
        raise InputError(f"{folder.name}: {len(series)} DICOM series ({named}); keep one in a folder")
    names = files[series[0]]
    left_out = sum(_is_dicom(path) for path in folder.iterdir() if path.is_file()) - len(names)
    if left_out:
        raise InputError(f"{folder.name}: {left_out} DICOM files cannot be read as slices; export or copy them again")
    _check_slices(folder.name, [_header(name) for name in names])
    return names


def read_series(folder: Path) -> sitk.Image:
    """The volume of a folder's one CT series."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(series_files(folder))
    return reader.Execute()


def _check_slices(name: str, headers: Sequence[dict[str, str]]) -> None:
    """Raise InputError unless slices have one grid, are parallel, at right angles to their line, and equally spaced."""
    if any(int(header.get(_FRAMES) or 1) > 1 for header in headers):
        raise InputError(
            f"{name}: a multi-frame (enhanced) DICOM file, whose frames SimpleITK does not sort; convert it to "
            "single-frame slices, e.g. with dcm4che's emf2sf, or to NIfTI, e.g. with dcm2niix"
        )
    if len(headers) < 2 or any(_POSITION not in header or _ORIENTATION not in header for header in headers):
        raise InputError(
            f"{name}: {len(headers)} files in the series, not all with a position; export the slices of one volume"
        )
    for tag, what in _OF_ALL_SLICES.items():
        numbers = np.array([_numbers(header[tag]) for header in headers if tag in header])
        differing = np.flatnonzero(np.abs(numbers - numbers[0]).max(axis=1) > 1e-3) if len(numbers) else ()
        if len(differing):
            values = " and ".join(" x ".join(f"{number:.4g}" for number in numbers[i]) for i in (0, differing[0]))
            raise InputError(f"{name}: slices of different {what} ({values}); keep one volume in a folder")
    if len({header.get(_FRAME_OF_REFERENCE, "").strip() for header in headers}) > 1:
        raise InputError(
            f"{name}: slices of different frames of reference, so that their positions cannot be compared; keep one "
            "volume in a folder"
        )
    positions = np.array([_numbers(header[_POSITION]) for header in headers])
    orientations = np.array([_numbers(header[_ORIENTATION]) for header in headers])
    if np.abs(orientations - orientations[0]).max() > 1e-3:
        raise InputError(f"{name}: slices of different orientation; keep one volume in a folder")
    steps = np.diff(positions, axis=0)
    distances = np.linalg.norm(steps, axis=1)
    usual = float(np.median(distances))
    worst = int(np.abs(distances - usual).argmax())
    if usual == 0 or abs(distances[worst] - usual) > SPACING_TOLERANCE * usual:
        raise InputError(
            f"{name}: slices {worst + 1} and {worst + 2} are {distances[worst]:.4g} mm apart, others {usual:.4g} mm; a "
            "slice is missing or doubled, export the series again"
        )
    normal = np.cross(orientations[0, :3], orientations[0, 3:])
    tilt = np.degrees(np.arccos(min(1.0, abs(float(steps.sum(axis=0) @ normal)) / np.linalg.norm(steps.sum(axis=0)))))
    if tilt > MAX_TILT_DEGREES:
        raise InputError(f"{name}: a gantry tilt of {tilt:.3g} degrees; resample the series to upright slices first")


def _header(name: str) -> dict[str, str]:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(name)
    reader.ReadImageInformation()
    return {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split("\\")]


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"

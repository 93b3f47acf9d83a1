"""Which files are which case, and that no two results would get one name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nnunetv2_malenia.files import files_below, is_unicode
from nnunetv2_malenia.inference.model_folder import PredictionError
from nnunetv2_malenia.volumes import ENDINGS, NIFTI_ENDINGS
from nnunetv2_malenia.volumes.dicom import is_ct_file, is_dicom_file, is_dicom_folder

RESERVED = ("queries", "run", "findings")  # names of a run's own files: a case's would overwrite them


class Cases(NamedTuple):
    """files: case id -> its files by channel number; ignored: names of the other files, and of DICOM without a CT."""

    files: dict[str, dict[int, Path]]
    ignored: list[str]


def find_cases(source: Path, file_ending: str, num_channels: int) -> Cases:
    """The cases of a folder, or of a single image, sorted by id.

    nnU-Net's names (CASE_0000.nii.gz, ...) are taken as they are. With one channel, so are plain ones (CASE.nii.gz),
    also with another number (CASE_0012.nii.gz), and folders with CT slices in DICOM, in them or below, which are cases
    by the folder's name. Models of NIfTI images take NRRD and MHA too. Whether a case has all its channels is not
    looked at here. Raises PredictionError when there is no image, two files are one channel of one case, or a case has
    the name of one of a run's own files.
    """
    if not source.exists():
        raise PredictionError(f"{source} does not exist; -i takes a folder of images or one image")
    found = sorted(source.iterdir()) if source.is_dir() else [source]
    takes_nifti = file_ending in NIFTI_ENDINGS
    endings = ENDINGS if takes_nifti else (file_ending,)
    images = [path for path in found if path.name.endswith(endings) and path.is_file() and path.name[0] != "."]
    folders = [path for path in found if path.is_dir() and path.name[0] != "."] if takes_nifti else []
    series = [path for path in folders if is_dicom_folder(path)] if num_channels == 1 else []
    if source.is_dir() and not images and num_channels == 1 and takes_nifti and _is_one_case(found, series):
        found, folders, series = [], [], [source]
    if not images and not series:
        raise PredictionError(_nothing_found(source, file_ending))
    cases: dict[str, dict[int, Path]] = {}
    for case_id, channel, file in (*_named(images, endings, num_channels), *map(_folder_case, series)):
        if channel in cases.setdefault(case_id, {}):
            raise PredictionError(f"{file} and {cases[case_id][channel]} are the same case {case_id}; keep one of them")
        cases[case_id][channel] = file
    for case_id in cases:
        if not is_unicode(case_id):
            raise PredictionError(f"{source}: the name of image {case_id} is no UTF-8 text; rename it")
        if case_id in RESERVED or case_id.startswith(tuple(f"{name}_part_" for name in RESERVED)):
            raise PredictionError(f"{source}: case {case_id} would overwrite the run's own file; rename the image")
    ignored = [path.name for path in found if path.is_file() and path not in images]
    ignored += [path.name for path in folders if path not in series and any(map(is_dicom_file, files_below(path)))]
    return Cases(dict(sorted(cases.items())), ignored)


def check_output_folder(folder: Path, source: Path) -> None:
    """Raise PredictionError for an output folder that cannot be meant."""
    if folder.resolve() == (source if source.is_dir() else source.parent).resolve():
        raise PredictionError(f"{folder} holds the images, which results could overwrite; choose another -o")
    if folder.name.endswith(ENDINGS) and not folder.is_dir():
        raise PredictionError(f"{folder} is named like an image, and -o takes a folder; give e.g. -o answers")
    if folder.exists() and not folder.is_dir():
        raise PredictionError(f"{folder} is a file, and -o takes a folder; choose another name")


def files_of(cases: Mapping[str, Mapping[int, Path]]) -> Iterator[Path]:
    """Every file that is read for these cases, also those of a series."""
    for channels in cases.values():
        for path in channels.values():
            yield from files_below(path) if path.is_dir() else [path]


def _is_one_case(found: Sequence[Path], series: Sequence[Path]) -> bool:
    """Whether a folder is a case itself: slices lie in it, or it is an export whose slices are all in one folder.

    found: what is in the folder; series: those of it that are folders with CT slices.
    """
    is_export = any(path.name.upper() == "DICOMDIR" for path in found)
    return any(is_ct_file(path) for path in found if path.is_file()) or (is_export and len(series) == 1)


def _nothing_found(source: Path, file_ending: str) -> str:
    if source.is_file() and is_dicom_file(source):
        return f"{source} is one DICOM file; give the folder with the slices of the CT series"
    what = f"{source} holds no {file_ending} file"
    if source.is_dir() and any(map(is_dicom_file, files_below(source))):
        what += ", and its DICOM files are no CT series that this model takes"
    return f"{what}; the model was trained on {file_ending} images"


def _folder_case(folder: Path) -> tuple[str, int, Path]:
    place = Path(os.path.abspath(folder))  # "." and ".." have no name
    return place.name, 0, place


def _named(images: Sequence[Path], endings: Sequence[str], num_channels: int) -> Iterator[tuple[str, int, Path]]:
    """Case id, channel and file of each image.

    With one channel, CASE_0012 alone is a plain name; beside CASE_0000 it is a channel too many.
    """
    stems = [path.name.removesuffix(next(each for each in endings if path.name.endswith(each))) for path in images]
    all_stems = set(stems)
    for path, stem in zip(images, stems, strict=True):
        name, _, digits = stem.rpartition("_")
        is_numbered = bool(name) and len(digits) == 4 and digits.isascii() and digits.isdigit()
        if is_numbered and (num_channels > 1 or f"{name}_0000" in all_stems):
            yield name, int(digits), path
        elif num_channels == 1:
            yield stem, 0, path
        else:
            raise PredictionError(f"{path} lacks a channel number; name it like {stem}_0000{endings[0]}")

"""Which files are which case, and that no two results would get one name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from nnunetv2_malenia.inference.image_formats import NIFTI_ENDINGS, OTHER_ENDINGS
from nnunetv2_malenia.inference.model_folder import PredictionError
from nnunetv2_malenia.volumes.dicom import is_dicom_folder

RESERVED = ("queries", "run", "findings")  # names of a run's own files: a case's would overwrite them


class Cases(NamedTuple):
    """files: case id -> its files by channel number; ignored: names of the other files in the folder."""

    files: dict[str, dict[int, Path]]
    ignored: list[str]


def find_cases(source: Path, file_ending: str, num_channels: int) -> Cases:
    """The cases of a folder, or of a single image, sorted by id.

    nnU-Net's names (CASE_0000.nii.gz, ...) are taken as they are; with one channel, so are plain ones (CASE.nii.gz) and
    folders with a DICOM series, which are cases by the folder's name. Models of NIfTI images take NRRD and MHA too.
    Whether a case has all its channels is not looked at here. Raises PredictionError when there is no image, two files
    are one channel of one case, or a case has the name of one of a run's own files.
    """
    if not source.exists():
        raise PredictionError(f"{source} does not exist; -i takes a folder of images or one image")
    found = sorted(source.iterdir()) if source.is_dir() else [source]
    endings = (*NIFTI_ENDINGS, *OTHER_ENDINGS) if file_ending in NIFTI_ENDINGS else (file_ending,)
    images = [path for path in found if path.name.endswith(endings) and path.is_file() and path.name[0] != "."]
    series = []
    if num_channels == 1 and file_ending in NIFTI_ENDINGS:
        folders = [path for path in found if path.is_dir()] if images or not is_dicom_folder(source) else [source]
        series = [path.absolute() for path in folders if is_dicom_folder(path)]
    if not images and not series:
        raise PredictionError(f"{source} holds no {file_ending} file; the model was trained on {file_ending} images")
    cases: dict[str, dict[int, Path]] = {}
    for file in (*images, *series):
        case_id, channel = _case_and_channel(file, endings)
        if channel is None and num_channels > 1:
            raise PredictionError(f"{file} lacks a channel number; name it like {case_id}_0000{file_ending}")
        channel = channel or 0
        if channel in cases.setdefault(case_id, {}):
            raise PredictionError(f"{file} and {cases[case_id][channel]} are the same case {case_id}; keep one of them")
        cases[case_id][channel] = file
    for case_id in cases:
        if case_id in RESERVED or case_id.startswith(tuple(f"{name}_part_" for name in RESERVED)):
            raise PredictionError(f"{source}: case {case_id} would overwrite the run's own file; rename the image")
    ignored = [path.name for path in found if path.is_file() and path not in images and source.absolute() not in series]
    return Cases(dict(sorted(cases.items())), ignored)


def check_output_folder(folder: Path, source: Path) -> None:
    """Raise PredictionError for an output folder that cannot be meant."""
    if folder.resolve() == (source if source.is_dir() else source.parent).resolve():
        raise PredictionError(f"{folder} holds the images, which results could overwrite; choose another -o")
    if folder.name.endswith((*NIFTI_ENDINGS, *OTHER_ENDINGS)) and not folder.is_dir():
        raise PredictionError(f"{folder} is named like an image, and -o takes a folder; give e.g. -o answers")
    if folder.exists() and not folder.is_dir():
        raise PredictionError(f"{folder} is a file, and -o takes a folder; choose another name")


def files_of(cases: Mapping[str, Mapping[int, Path]]) -> Iterator[Path]:
    """Every file that is read for these cases, also those of a series."""
    for channels in cases.values():
        for path in channels.values():
            yield from (each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]


def _case_and_channel(path: Path, endings: tuple[str, ...]) -> tuple[str, int | None]:
    if path.is_dir():
        return path.name, None
    stem = path.name.removesuffix(next(ending for ending in endings if path.name.endswith(ending)))
    name, _, digits = stem.rpartition("_")
    return (name, int(digits)) if name and len(digits) == 4 and digits.isdigit() else (stem, None)

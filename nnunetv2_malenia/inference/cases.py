"""Which files are which case, and that no two results would get one name."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from nnunetv2_malenia.inference.model_folder import PredictionError

RESERVED = ("queries", "run", "findings")  # names of a run's own files: a case's would overwrite them


class Cases(NamedTuple):
    """files: case id -> its files by channel number; ignored: names of the other files in the folder."""

    files: dict[str, dict[int, Path]]
    ignored: list[str]


def find_cases(source: Path, file_ending: str, num_channels: int) -> Cases:
    """The cases of a folder, or of a single file, sorted by id.

    nnU-Net's names (CASE_0000.nii.gz, ...) are taken as they are; with one channel, so are plain ones (CASE.nii.gz).
    Whether a case has all its channels is not looked at here. Raises PredictionError when there is no image, two files
    are one channel of one case, or a case has the name of one of a run's own files.
    """
    if not source.exists():
        raise PredictionError(f"{source} does not exist; -i takes a folder of images or one image")
    found = sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else [source]
    files = [path for path in found if path.name.endswith(file_ending) and not path.name.startswith(".")]
    if not files:
        raise PredictionError(f"{source} holds no {file_ending} file; the model was trained on {file_ending} images")
    cases: dict[str, dict[int, Path]] = {}
    for file in files:
        stem = file.name.removesuffix(file_ending)
        name, _, digits = stem.rpartition("_")
        numbered = bool(name) and len(digits) == 4 and digits.isdigit()
        if not numbered and num_channels > 1:
            raise PredictionError(f"{file} lacks a channel number; name it like {stem}_0000{file_ending}")
        case_id, channel = (name, int(digits)) if numbered else (stem, 0)
        if channel in cases.setdefault(case_id, {}):
            raise PredictionError(f"{file} and {cases[case_id][channel]} are the same case {case_id}; keep one of them")
        cases[case_id][channel] = file
    for case_id in cases:
        if case_id in RESERVED or case_id.startswith(tuple(f"{name}_part_" for name in RESERVED)):
            raise PredictionError(f"{source}: case {case_id} would overwrite the run's own file; rename the image")
    return Cases(cases, [path.name for path in found if path not in files])

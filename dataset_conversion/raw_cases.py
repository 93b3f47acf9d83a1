"""The training cases of an nnU-Net raw data set: those that its dataset.json lists, else those in its folders."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from nnunetv2_malenia.dataset_conversion.nifti_files import FILE_ENDING
from nnunetv2_malenia.dataset_conversion.sources import FileInFolder, source_files
from nnunetv2_malenia.files.dataset_json import DatasetJson

_IMAGE = re.compile(rf"imagesTr/(?P<case>[^/]+)_\d{{4}}{re.escape(FILE_ENDING)}")
_MASK = re.compile(rf"labelsTr/(?P<case>[^/]+){re.escape(FILE_ENDING)}")


class CaseFiles(NamedTuple):
    """images: by channel; none where there is only a mask. mask: whether it is there or not."""

    images: tuple[FileInFolder, ...]
    mask: FileInFolder


class RawCases(NamedTuple):
    """files: case id -> its files; notes: what was left out, or is not as dataset.json says."""

    files: Mapping[str, CaseFiles]
    notes: tuple[str, ...]


def training_cases(folder: Path, about: DatasetJson) -> RawCases:
    """Find the files of all training cases, of which a data set may have an image or a mask only."""
    if about.dataset is not None:
        files = {
            case_id: CaseFiles(tuple(_listed(folder, image) for image in case.images), _listed(folder, case.label))
            for case_id, case in about.dataset.items()
        }
        return RawCases(files, ())
    found = {name: file for name, file in source_files(folder).items() if name.endswith(FILE_ENDING)}
    images: dict[str, list[FileInFolder]] = {}
    notes = []
    for name, file in found.items():
        if match := _IMAGE.fullmatch(name):
            images.setdefault(match["case"], []).append(file)
        elif name.startswith("imagesTr/"):
            notes.append(f"{file.name} is left out: its name does not end in a channel, such as _0000{FILE_ENDING}")
    ids = sorted(images.keys() | {match["case"] for name in found if (match := _MASK.fullmatch(name))})
    if about.num_training not in (None, len(ids)):
        notes.append(f"{folder}: {len(ids)} training cases are there, dataset.json says {about.num_training}")
    masks = {case_id: FileInFolder(folder / "labelsTr" / f"{case_id}{FILE_ENDING}") for case_id in ids}
    return RawCases({i: CaseFiles(tuple(images.get(i, ())), masks[i]) for i in ids}, tuple(notes))


def _listed(folder: Path, path: str) -> FileInFolder:
    """A file that dataset.json lists; nnU-Net takes variables of the environment, and paths from its folder or "/"."""
    return FileInFolder(folder / os.path.expandvars(path))

"""KiTS23, or a data set in its layout or that of KiTS19, to an nnU-Net raw data set."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nnunetv2_malenia.dataset_conversion.case_attributes import attribute_table, notes_on_annotations, read_annotations
from nnunetv2_malenia.dataset_conversion.conversion import Case, Fault, Plan, new_dataset_folder
from nnunetv2_malenia.dataset_conversion.nnunet_raw import TEST, TRAINING
from nnunetv2_malenia.dataset_conversion.sources import ConversionError, SourceFile, is_litter, load_json, source_files


class _Edition(NamedTuple):
    name: str
    labels: tuple[str, ...]
    has_test_cases: bool
    about: Mapping[str, str]


_LICENCE = "CC BY-NC-SA 4.0"
EDITIONS = {  # by the folder that holds the cases
    "dataset": _Edition(
        "KiTS23",
        ("background", "kidney", "kidney tumor", "kidney cyst"),
        False,
        {"license": _LICENCE, "reference": "https://kits-challenge.org/kits23/"},
    ),
    "data": _Edition(  # cysts are part of the kidney there
        "KiTS19",
        ("background", "kidney", "kidney tumor"),
        True,
        {"license": _LICENCE, "reference": "https://kits19.grand-challenge.org/"},
    ),
}
_CASE_FILE = re.compile(r"(?:.*/)?(?P<case>case_\d{5})(?:/(?P<kind>imaging|segmentation)\.nii\.gz)?")
_LISTED_AT_MOST = 5
_METADATA = re.compile(r"(?:.*/)?kits\d*\.json")


def plan_kits(source: Path, raw_folder: Path, dataset: str, annotations_path: Path | None = None) -> Plan:
    """Plan the conversion of KiTS. source: the cloned repository after the download of images, or the folder of cases.

    Cases lie in `dataset/` (KiTS23) or `data/` (KiTS19, where cysts are not annotated, and a case without a mask is a
    test case). Of the clinical metadata only the number of entries is told.
    Raises ConversionError if there is no case, cases of both editions, or two copies of one case.
    """
    files = source_files(source)
    found = _find_files(source, files)
    edition = found.edition
    cases, faults = _find_cases(found)
    labels = {name: value for value, name in enumerate(edition.labels)}
    annotations = read_annotations(annotations_path)
    table = attribute_table(labels, [case.case_id for case in cases], annotations)
    return Plan(
        folder=new_dataset_folder(raw_folder, dataset, edition.name),
        cases=cases,
        labels={TRAINING: labels},
        lesions=frozenset(table.lesions),
        faults=faults,
        tables={"attributes.json": table},
        notes=(
            *_metadata_notes(files),
            *_passed_over(source, found),
            *notes_on_annotations(annotations, annotations_path, found.files.keys()),
        ),
        about={"dataset_name": edition.name, **edition.about},
    )


class _Found(NamedTuple):
    """files: case id -> "imaging" and "segmentation" -> file; a case folder that is a broken link has none.
    beside: the names of all folders that lie where cases do."""

    edition: _Edition
    beside: frozenset[str]
    files: Mapping[str, Mapping[str, SourceFile]]


def _find_files(source: Path, files: Mapping[str, SourceFile]) -> _Found:
    inside = {match: _folder_of_cases(source, match) for name in files if (match := _CASE_FILE.fullmatch(name))}
    if not inside:
        raise ConversionError(
            f"{source}: no dataset/case_00000/imaging.nii.gz in it; give the cloned kits23 repository"
        )
    editions = EDITIONS.keys() & set(inside.values())
    if len(editions) > 1:
        raise ConversionError(f"{source}: cases in {' and '.join(sorted(editions))}; give one of these folders")
    found: dict[str, dict[str, SourceFile]] = {}
    for match in sorted(inside, key=lambda each: inside[each] not in editions):
        case, file = found.setdefault(match["case"], {}), files[match[0]]
        other = case.setdefault(match["kind"], file) if match["kind"] else file
        if other is not file and other.identity != file.identity:
            raise ConversionError(f"{other.name} and {file.name} are two copies of {match['case']}; keep one of them")
        if other is file and inside[match] not in editions:
            raise ConversionError(
                f"{file.name}: a case lies in dataset/{match['case']}, for KiTS19 in data; move it there"
            )
    tops = {match[0][: match.start("case")] for match in inside}
    return _Found(EDITIONS[editions.pop()], _folders_in(source, files, tops), found)


def _folders_in(source: Path, files: Iterable[str], tops: Iterable[str]) -> frozenset[str]:
    """Names of the folders right inside others. tops: paths inside the source, "" or ending in "/"."""
    names = {
        name[len(top) :].partition("/")[0]
        for top in tops
        for name in files
        if name.startswith(top) and "/" in name[len(top) :]
    }
    if source.is_dir():  # a listing of files does not show empty folders
        names |= {path.name for top in tops for path in (source / top).iterdir() if path.is_dir()}
    return frozenset(name for name in names if not is_litter(name))


def _folder_of_cases(source: Path, match: re.Match[str]) -> str:
    """The name of the folder that a case's own folder lies in, as it is given or as it is behind a link."""
    case = match[0][: match.end("case")]
    names = [Path(top, case).parent.name for top in (os.path.abspath(source), source.resolve())]
    return next((name for name in names if name in EDITIONS), names[0])


def _find_cases(found: _Found) -> tuple[list[Case], list[Fault]]:
    names = dict(enumerate(found.edition.labels))
    cases, faults = [], []
    for case_id, files in sorted(found.files.items()):
        image, mask = files.get("imaging"), files.get("segmentation")
        if image is None:
            faults.append(
                Fault(case_id, "imaging.nii.gz is missing; download it, for KiTS23 with kits23_download_data")
            )
        elif mask is None and not found.edition.has_test_cases:
            faults.append(Fault(case_id, "segmentation.nii.gz is missing; get it from the repository"))
        else:
            cases.append(Case(case_id, (image,), mask, names, TRAINING if mask else TEST))
    return cases, faults


def _passed_over(source: Path, found: _Found) -> tuple[str, ...]:
    """A note on folders that lie where cases do, and are none."""
    others = sorted(found.beside - found.files.keys())
    if not others:
        return ()
    shown = ", ".join(others[:_LISTED_AT_MOST]) + ", …" * (len(others) > _LISTED_AT_MOST)
    are = "folder is" if len(others) == 1 else "folders are"
    return (f"{source}: {len(others)} {are} no case_00000 with imaging.nii.gz, and left out: {shown}",)


def _metadata_notes(files: Mapping[str, SourceFile]) -> tuple[str, ...]:
    return tuple(
        f"{Path(name).name}: clinical metadata of {len(load_json(file, list[Any]))} cases, not copied"
        for name, file in files.items()
        if _METADATA.fullmatch(name)
    )

"""KiTS23, or a data set in its layout or that of KiTS19, to an nnU-Net raw data set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from nnunetv2_malenia.attributes.tables import resolve_label_attributes
from nnunetv2_malenia.dataset_conversion.case_attributes import attribute_table, read_annotations
from nnunetv2_malenia.dataset_conversion.conversion import Case, Fault, Plan, new_dataset_folder
from nnunetv2_malenia.dataset_conversion.nnunet_raw import TEST, TRAINING
from nnunetv2_malenia.dataset_conversion.sources import ConversionError, SourceFile, load_json, source_files


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
_CASE_FILE = re.compile(r"(?:.*/)?(?P<case>case_\d{5})/(?P<kind>imaging|segmentation)\.nii\.gz")
_METADATA = re.compile(r"(?:.*/)?kits\d*\.json")


def plan_kits(source: Path, raw_folder: Path, dataset: str, annotations_path: Path | None = None) -> Plan:
    """Plan the conversion of KiTS. source: the cloned repository after the download of images, or the folder of cases.

    Cases lie in `dataset/` (KiTS23) or `data/` (KiTS19, where cysts are not annotated, and a case without a mask is a
    test case). Of the clinical metadata only the number of entries is told.
    Raises ConversionError if there is no case, or cases of both editions.
    """
    files = source_files(source)
    found = _find_files(source, files)
    edition = found.edition
    cases, faults = _find_cases(found)
    labels = {name: value for value, name in enumerate(edition.labels)}
    table = attribute_table(labels, [case.case_id for case in cases], read_annotations(annotations_path))
    return Plan(
        folder=new_dataset_folder(raw_folder, dataset, edition.name),
        cases=cases,
        labels={TRAINING: labels},
        lesions=frozenset(resolve_label_attributes(labels)),
        faults=faults,
        tables={"attributes.json": table},
        notes=_metadata_notes(files),
        about={"dataset_name": edition.name, **edition.about},
    )


class _Found(NamedTuple):
    edition: _Edition
    images: Mapping[str, SourceFile]
    masks: Mapping[str, SourceFile]


def _find_files(source: Path, files: Mapping[str, SourceFile]) -> _Found:
    matches = [(match, name) for name in files if (match := _CASE_FILE.fullmatch(name))]
    parents = {Path(source.resolve(), name).parts[-3] for _, name in matches}
    if not matches or not parents <= EDITIONS.keys():
        raise ConversionError(
            f"{source}: no dataset/case_00000/imaging.nii.gz in it; give the cloned kits23 repository"
        )
    if len(parents) > 1:
        raise ConversionError(f"{source}: cases in {' and '.join(sorted(parents))}; give one of these folders")
    kinds = {
        kind: {match["case"]: files[name] for match, name in matches if match["kind"] == kind}
        for kind in ("imaging", "segmentation")
    }
    return _Found(EDITIONS[parents.pop()], kinds["imaging"], kinds["segmentation"])


def _find_cases(found: _Found) -> tuple[list[Case], list[Fault]]:
    names = dict(enumerate(found.edition.labels))
    cases, faults = [], []
    for case_id in sorted(found.images.keys() | found.masks.keys()):
        image, mask = found.images.get(case_id), found.masks.get(case_id)
        if image is None:
            faults.append(
                Fault(case_id, "imaging.nii.gz is missing; download it, for KiTS23 with kits23_download_data")
            )
        elif mask is None and not found.edition.has_test_cases:
            faults.append(Fault(case_id, "segmentation.nii.gz is missing; get it from the repository"))
        else:
            cases.append(Case(case_id, (image,), mask, names, TRAINING if mask else TEST))
    return cases, faults


def _metadata_notes(files: Mapping[str, SourceFile]) -> tuple[str, ...]:
    return tuple(
        f"{Path(name).name}: clinical metadata of {len(load_json(file))} cases, not copied"
        for name, file in files.items()
        if _METADATA.fullmatch(name)
    )

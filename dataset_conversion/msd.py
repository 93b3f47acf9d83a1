"""A task of the Medical Segmentation Decathlon to an nnU-Net raw data set with lesion types by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from nnunetv2_malenia.attributes.schema import AttributeTable
from nnunetv2_malenia.attributes.tables import resolve_label_attributes
from nnunetv2_malenia.dataset_conversion.case_attributes import (
    annotated_types,
    attribute_table,
    canonical_type,
    read_annotations,
)
from nnunetv2_malenia.dataset_conversion.conversion import Case, Fault, Plan, new_dataset_folder
from nnunetv2_malenia.dataset_conversion.nifti_files import FILE_ENDING
from nnunetv2_malenia.dataset_conversion.nnunet_raw import APART, TEST, TRAINING
from nnunetv2_malenia.dataset_conversion.sources import ConversionError, SourceFile, load_json, source_files

TASKS = {  # label names by value
    "Task03_Liver": ("background", "liver", "liver tumor"),
    "Task06_Lung": ("background", "lung tumor"),
    "Task07_Pancreas": ("background", "pancreas", "pancreas lesion"),
    "Task08_HepaticVessel": ("background", "hepatic vessel", "hepatic vessel tumor"),
    "Task10_Colon": ("background", "colon tumor"),
}
UNSPLIT = "pancreas lesion"
SIDES = ("pancreas tumor", "pancreas cyst")


class _Task(NamedTuple):
    """A task as it is found. root: the folder of dataset.json inside the source, "" or ending in "/"."""

    name: str
    about: Mapping[str, Any]
    root: str
    files: Mapping[str, SourceFile]


def plan_msd(source: Path, raw_folder: Path, dataset: str, annotations_path: Path | None = None) -> Plan:
    """Plan the conversion of an MSD task. source: its folder or uncompressed tar; dataset: id or name to make.

    The five tasks in TASKS get the Clinical Knowledge Table's names for their lesions; of other tasks, labels that the
    table knows by another name are renamed and the rest is kept. Task07's lesions become pancreas tumor or pancreas
    cyst by the annotations of each case; cases annotated as neither or as both are kept apart.
    Raises ConversionError when the task's own files do not say what is needed.
    """
    task = _find_task(source)
    folder = new_dataset_folder(raw_folder, dataset, task.name.partition("_")[2] or task.name)
    names = _label_names(task)
    annotations = read_annotations(annotations_path)
    cases, faults = _find_cases(task, names)
    labels, apart = {TRAINING: {name: value for value, name in names.items()}}, {}
    if task.name == "Task07_Pancreas":
        cases, apart = _split_pancreas(cases, annotations)
        labels = {
            TRAINING: {"background": 0, "pancreas": 1, **{name: 2 + i for i, name in enumerate(SIDES)}},
            **({APART: labels[TRAINING]} if apart else {}),
        }
    table = attribute_table(labels[TRAINING], [case.case_id for case in cases if case.part == TRAINING], annotations)
    return Plan(
        folder=folder,
        cases=cases,
        labels=labels,
        lesions=frozenset(resolve_label_attributes(labels[TRAINING])) | {UNSPLIT},
        channel_names=_channel_names(task),
        faults=faults,
        tables={"attributes.json": table} if table else {},
        apart=apart,
        notes=() if table else (f"no label of {task.name} is a lesion type of the Clinical Knowledge Table",),
        about=_about(task),
    )


def _find_task(source: Path) -> _Task:
    files = source_files(source)
    jsons = [name for name in files if PurePosixPath(name).name == "dataset.json"]
    if len(jsons) != 1:
        raise ConversionError(
            f"{source}: {len(jsons)} files named dataset.json in it; give one task, e.g. Task03_Liver"
        )
    root = jsons[0].removesuffix("dataset.json")
    folder = PurePosixPath(root).name or source.resolve().name.removesuffix(".tar")
    return _Task(re.sub(r"[^\w.-]", "_", folder), load_json(files[jsons[0]]), root, files)


def _label_names(task: _Task) -> dict[int, str]:
    """Value -> name, by TASKS or by the task's own dataset.json, whose values must then be consecutive."""
    own = {int(value): str(name) for value, name in task.about.get("labels", {}).items()}
    if sorted(own) != list(range(len(own))) or len(own) < 2:
        raise ConversionError(f"{task.name}: labels {own} in dataset.json; they must be numbered 0, 1, 2, …")
    if known := TASKS.get(task.name):
        if len(own) != len(known):
            raise ConversionError(f"{task.name}: labels {own} in dataset.json, expected {len(known)}: {known}")
        return dict(enumerate(known))
    names = {value: canonical_type(own[value]) if value else "background" for value in sorted(own)}
    if len(set(names.values())) != len(names):
        raise ConversionError(f"{task.name}: two of its labels {own} are one type: {names}; rename one")
    return names


def _channel_names(task: _Task) -> list[str]:
    modality = task.about.get("modality", {"0": "CT"})
    return [modality[key] for key in sorted(modality, key=int)]


def _about(task: _Task) -> dict[str, str]:
    own = {key: str(task.about[key]) for key in ("description", "reference", "release") if task.about.get(key)}
    licence = task.about.get("licence") or task.about.get("license") or "see the Medical Segmentation Decathlon"
    return own | {"dataset_name": str(task.about.get("name", task.name)), "license": str(licence)}


def _find_cases(task: _Task, names: Mapping[int, str]) -> tuple[list[Case], list[Fault]]:
    """Cases of the task's folders; a fault for what lies in only one of them or is listed and not there."""
    images, masks, test_images = (_by_case(task, folder) for folder in ("imagesTr", "labelsTr", "imagesTs"))
    listed = {_case_id(entry["image"]) for entry in task.about.get("training", [])}
    listed_test = {_case_id(entry) for entry in task.about.get("test", [])}
    cases, faults = [], []
    for case_id in sorted(images.keys() | masks.keys() | listed):
        if case_id in images and case_id in masks:
            cases.append(Case(case_id, (images[case_id],), masks[case_id], names))
        else:
            missing = "labelsTr" if case_id in images else "imagesTr"
            faults.append(_missing(task, missing, case_id))
    for case_id in sorted(test_images.keys() | listed_test):
        if case_id in test_images:
            cases.append(Case(case_id, (test_images[case_id],), None, names, TEST))
        else:
            faults.append(_missing(task, "imagesTs", case_id))
    return cases, faults


def _by_case(task: _Task, folder: str) -> dict[str, SourceFile]:
    inside = f"{task.root}{folder}/"
    found = [name for name in task.files if name.startswith(inside) and name.endswith(FILE_ENDING)]
    return {_case_id(name): task.files[name] for name in found}


def _case_id(path: str) -> str:
    return PurePosixPath(path).name.removesuffix(FILE_ENDING)


def _missing(task: _Task, folder: str, case_id: str) -> Fault:
    return Fault(case_id, f"{folder}/{case_id}{FILE_ENDING} is missing from {task.name}; unpack the task again")


def _split_pancreas(cases: Sequence[Case], annotations: AttributeTable) -> tuple[list[Case], dict[str, str]]:
    """Name each training case's lesion by its annotation. Returns the cases, and why some are kept apart."""
    split, apart = [], {}
    for case in cases:
        sides = [side for side in SIDES if side in annotated_types(annotations, case.case_id)]
        if case.part != TRAINING:
            split.append(case)
        elif len(sides) == 1:
            split.append(replace(case, names={0: "background", 1: "pancreas", 2: sides[0]}))
        else:
            split.append(replace(case, part=APART))
            apart[case.case_id] = f"annotated as {'both' if sides else 'neither'} of {' and '.join(SIDES)}"
    return split, apart

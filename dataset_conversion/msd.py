"""A task of the Medical Segmentation Decathlon to an nnU-Net raw data set with lesion types by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from nnunetv2_malenia.attributes.schema import AttributeTable, lesion_key
from nnunetv2_malenia.dataset_conversion.case_attributes import (
    annotated_types,
    attribute_table,
    canonical_type,
    notes_on_annotations,
    read_annotations,
)
from nnunetv2_malenia.dataset_conversion.conversion import Case, Fault, Plan, new_dataset_folder
from nnunetv2_malenia.dataset_conversion.nifti_files import FILE_ENDING
from nnunetv2_malenia.dataset_conversion.nnunet_raw import APART, TEST, TRAINING
from nnunetv2_malenia.dataset_conversion.sources import ConversionError, SourceFile, load_json, source_files
from nnunetv2_malenia.files.dataset_json import BACKGROUND, Channels, FreeText, Licence, label_map, without_regions

UNSPLIT = "pancreas lesion"
SIDES = ("pancreas tumor", "pancreas cyst")
TASKS = {  # MSD's name of a label -> ours
    "Task03_Liver": {"liver": "liver", "cancer": "liver tumor"},
    "Task06_Lung": {"cancer": "lung tumor"},
    "Task07_Pancreas": {"pancreas": "pancreas", "cancer": UNSPLIT},
    "Task08_HepaticVessel": {"Vessel": "hepatic vessel", "Tumour": "hepatic vessel tumor"},
    "Task10_Colon": {"colon cancer primaries": "colon tumor"},
}
_LISTED_AT_MOST = 5


def _path_inside(text: str) -> str:
    """A path of dataset.json as the task's files go by: "imagesTr/liver_0.nii.gz". Raises ValueError for others."""
    path = PureWindowsPath(text)  # knows both slashes, and drives
    if path.anchor or ".." in path.parts or not path.name:
        raise ValueError(f"{text!r} is no path inside the task's folder; write e.g. ./imagesTr/liver_0.nii.gz")
    return path.as_posix()


def _labels_by_value(content: object) -> dict[int, str]:
    """Value -> name. Raises ValueError as `label_map` does, for gaps, and for labels in nnU-Net's form."""
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content.values()):
        raise ValueError(
            'MSD\'s form is due, value and name, e.g. {"0": "background", "1": "liver"}; an nnU-Net raw data set needs '
            "no conversion"
        )
    by_name = without_regions(label_map((name, value) for value, name in content.items()), "labels")
    names = {value: name for name, value in by_name.items()}
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"the values are {sorted(names)}; they must be numbered 0, 1, 2, …")
    return dict(sorted(names.items()))


_Path = Annotated[str, AfterValidator(_path_inside)]


class _Pair(BaseModel):
    """A training case: its files inside the task."""

    model_config = ConfigDict(frozen=True)

    image: _Path
    label: _Path


class _TestImage(BaseModel):
    image: _Path


class _MsdJson(BaseModel):
    """MSD's dataset.json. labels: value -> name; modality: channel names in order."""

    labels: Annotated[dict[int, str], BeforeValidator(_labels_by_value)]
    modality: Channels = ("CT",)
    training: tuple[_Pair, ...] = Field(min_length=1)
    test: tuple[_Path | _TestImage, ...] = ()
    name: FreeText = ""
    description: FreeText = ""
    reference: FreeText = ""
    release: FreeText = ""
    licence: Licence

    @property
    def test_images(self) -> list[str]:
        return [entry if isinstance(entry, str) else entry.image for entry in self.test]


class _Task(NamedTuple):
    """A task as it is found. root: the folder of dataset.json inside the source, "" or ending in "/"."""

    name: str
    about: _MsdJson
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
    case_ids = [*(case.case_id for case in cases), *(fault.case_id for fault in faults)]
    notes = (*_unlisted(task), *notes_on_annotations(annotations, annotations_path, case_ids))
    labels, apart = {TRAINING: {name: value for value, name in names.items()}}, {}
    if task.name == "Task07_Pancreas":
        cases, apart = _split_pancreas(cases, annotations)
        labels = {
            TRAINING: {BACKGROUND: 0, "pancreas": 1, **{name: 2 + i for i, name in enumerate(SIDES)}},
            **({APART: labels[TRAINING]} if apart else {}),
        }
    table = attribute_table(labels[TRAINING], [case.case_id for case in cases if case.part == TRAINING], annotations)
    return Plan(
        folder=folder,
        cases=cases,
        labels=labels,
        lesions=frozenset(table.lesions if table else ()) | {UNSPLIT},
        channel_names=task.about.modality,
        faults=faults,
        tables={"attributes.json": table} if table else {},
        apart=apart,
        notes=notes if table else (*notes, f"no label of {task.name} is a lesion type of the Clinical Knowledge Table"),
        about=_about(task),
    )


def _find_task(source: Path) -> _Task:
    files = source_files(source)
    jsons = [name for name in files if PurePosixPath(name).name == "dataset.json"]
    if len(jsons) != 1:
        shown = f" ({', '.join(jsons[:_LISTED_AT_MOST])})" if jsons else ""
        raise ConversionError(
            f"{source}: {len(jsons)} files named dataset.json in it{shown}; give one task, e.g. Task03_Liver"
        )
    root = jsons[0].removesuffix("dataset.json")
    folder = PurePosixPath(root).name or source.resolve().name.removesuffix(".tar")
    return _Task(re.sub(r"[^\w.-]", "_", folder), load_json(files[jsons[0]], _MsdJson), root, files)


def _label_names(task: _Task) -> dict[int, str]:
    """Value -> name: as TASKS or the Clinical Knowledge Table call what the task's own dataset.json names.

    One label of a task in TASKS may have a name of its own: it is the one that the others leave.
    """
    own = {value: name for value, name in task.about.labels.items() if value}
    known = TASKS.get(task.name, {})
    ours = {lesion_key(each): name for msd, name in known.items() for each in (msd, name)}
    names = {value: ours.get(lesion_key(name)) or canonical_type(name) for value, name in own.items()}
    if len(set(names.values())) != len(names):
        raise ConversionError(f"{task.name}: two of its labels {own} are one type: {names}; rename one")
    others = [value for value, name in names.items() if name not in ours.values()] if known else []
    missing = [name for name in known.values() if name not in names.values()]
    if len(others) > 1 or len(others) != len(missing):
        raise ConversionError(f"{task.name}: labels {own} in dataset.json, where those of {list(known)} are due")
    return {0: BACKGROUND} | names | dict(zip(others, missing, strict=True))


def _about(task: _Task) -> dict[str, str]:
    own = {key: text for key in ("description", "reference", "release") if (text := getattr(task.about, key))}
    licence = task.about.licence or "see the Medical Segmentation Decathlon"
    return own | {"dataset_name": task.about.name or task.name, "license": licence}


def _find_cases(task: _Task, names: Mapping[int, str]) -> tuple[list[Case], list[Fault]]:
    """The cases that dataset.json lists, whatever lies beside them; a fault for each whose files are not there."""
    listed = [(TRAINING, pair.image, pair.label) for pair in dict.fromkeys(task.about.training)]
    listed += [(TEST, image, None) for image in dict.fromkeys(task.about.test_images)]
    _check_listed_once(task.name, listed)
    cases, faults = [], []
    for part, image, label in sorted(listed, key=lambda each: each[:2]):
        paths = [path for path in (image, label) if path]
        case_id = PurePosixPath(image).name.removesuffix(FILE_ENDING)
        if missing := [path for path in paths if task.root + path not in task.files]:
            why = f"{missing[0]} is missing from {task.name}, whose dataset.json lists it; unpack the task again"
            faults.append(Fault(case_id, why))
        elif other := [path for path in paths if not path.endswith(FILE_ENDING)]:
            faults.append(Fault(case_id, f"{other[0]}: not a {FILE_ENDING} file; store it as one"))
        else:
            files = [task.files[task.root + path] for path in paths]
            cases.append(Case(case_id, (files[0],), files[1] if label else None, names, part))
    return cases, faults


def _check_listed_once(task: str, listed: Sequence[tuple[str, str, str | None]]) -> None:
    """Raise ConversionError for a file that two entries list. listed: part, image and label of each entry."""
    entry_of: dict[str, str] = {}
    for part, image, label in listed:
        entry = f"training, {image} with {label}" if part == TRAINING else f"test, {image}"
        for path in filter(None, (image, label)):
            if (other := entry_of.setdefault(path, entry)) != entry:
                raise ConversionError(
                    f"{task}: dataset.json lists {path} twice ({other}; {entry}); remove the entry that is wrong"
                )


def _unlisted(task: _Task) -> tuple[str, ...]:
    """A note on volumes that dataset.json does not list."""
    listed = {path for pair in task.about.training for path in (pair.image, pair.label)} | set(task.about.test_images)
    inside = [name.removeprefix(task.root) for name in task.files if name.startswith(task.root)]
    others = [name for name in inside if name.endswith(FILE_ENDING) and name not in listed]
    if not others:
        return ()
    shown = ", ".join(others[:_LISTED_AT_MOST]) + ", …" * (len(others) > _LISTED_AT_MOST)
    return (f"{len(others)} left out, since dataset.json does not list them: {shown}",)


def _split_pancreas(cases: Sequence[Case], annotations: AttributeTable) -> tuple[list[Case], dict[str, str]]:
    """Name each training case's lesion by its annotation. Returns the cases, and why some are kept apart."""
    split, apart = [], {}
    for case in cases:
        sides = [side for side in SIDES if side in annotated_types(annotations, case.case_id)]
        if case.part != TRAINING:
            split.append(case)
        elif len(sides) == 1:
            named = {value: sides[0] if name == UNSPLIT else name for value, name in case.names.items()}
            split.append(replace(case, names=named))
        else:
            split.append(replace(case, part=APART))
            apart[case.case_id] = f"annotated as {'both' if sides else 'neither'} of {' and '.join(SIDES)}"
    return split, apart

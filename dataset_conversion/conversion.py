"""From the plan of a data set to the data set: examine every case, stop or leave out the bad ones, store the rest."""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from nnunetv2_malenia.attributes.schema import AspectValues, AttributeTable, has_laterality
from nnunetv2_malenia.dataset_conversion.checks import check_same_grid, open_image, read_mask, smallest_type
from nnunetv2_malenia.dataset_conversion.nifti_files import write_mask, write_volumes, written_beside
from nnunetv2_malenia.dataset_conversion.nnunet_raw import (
    TRAINING,
    RawDataset,
    resumable_raw_dataset,
)
from nnunetv2_malenia.dataset_conversion.sources import ConversionError, SourceFile
from nnunetv2_malenia.dataset_conversion.summary import CaseSummary, Summary, count_lesions
from nnunetv2_malenia.files.dataset_json import BACKGROUND, IGNORE, check_case_id
from nnunetv2_malenia.volumes import InputError
from nnunetv2_malenia.volumes.nifti import NiftiVolume

SUMMARY_NAME = "conversion_summary.json"
NO_TYPES = (BACKGROUND, IGNORE)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Options:
    """copy: images are copied, not linked; skip_bad: bad cases are left out; dry_run: nothing is written."""

    copy: bool = False
    skip_bad: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Case:
    """A case as it is found. images: one file a channel, or one 4-D file for all; mask: None without a reference;
    names: value in the mask -> label name; part: where it goes, "Tr", "Ts" or "Apart"."""

    case_id: str
    images: tuple[SourceFile, ...]
    mask: SourceFile | None
    names: Mapping[int, str]
    part: str = TRAINING


class Fault(NamedTuple):
    """A case that cannot be used, and why."""

    case_id: str
    reason: str


class BadCasesError(ConversionError):
    """Some cases cannot be used, and leaving them out was not asked for."""

    def __init__(self, faults: Sequence[Fault], num_cases: int) -> None:
        super().__init__(
            f"{len(faults)} of {num_cases} cases cannot be used, the first is {faults[0].case_id}: {faults[0].reason}; "
            "nothing was written; correct them, or leave them out with --skip-bad"
        )
        self.faults = faults


@dataclass(frozen=True)
class Plan:
    """What a conversion is going to do. folder: of the data set; labels: part -> label name -> stored value;
    lesions: the names that are lesion types; faults: cases that are bad before a file is opened; tables: file name ->
    attribute table; apart: case id -> why it is kept apart; about: for dataset.json."""

    folder: Path
    cases: Sequence[Case]
    labels: Mapping[str, Mapping[str, int]]
    lesions: frozenset[str]
    channel_names: Sequence[str] = ("CT",)
    faults: Sequence[Fault] = ()
    tables: Mapping[str, AttributeTable] = field(default_factory=dict)
    apart: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Examined:
    """A case whose files are as they should be. images: one an image file; voxels, lesions: what its mask shows."""

    case: Case
    images: tuple[NiftiVolume, ...]
    voxels: Mapping[str, int]
    lesions: Mapping[str, int]


def new_dataset_folder(raw_folder: Path, dataset: str, name: str) -> Path:
    """Where a new data set goes in nnUNet_raw. dataset: an id, "3", or a whole name, "Dataset003_Liver".

    name: what follows an id. Raises ConversionError if it is neither, or another data set has the id.
    """
    match = re.fullmatch(r"(\d{1,3})|Dataset(\d{3})_[\w.-]+", dataset)
    if not match:
        raise ConversionError(f"-d {dataset}: neither a data set id from 0 to 999 nor a name like Dataset003_{name}")
    number = int(match[1] or match[2])
    if taken := sorted(raw_folder.glob(f"Dataset{number:03d}_*")):
        raise ConversionError(f"{taken[0]} has the data set id {number}; remove it or choose another id with -d")
    return raw_folder / (dataset if match[2] else f"Dataset{number:03d}_{name}")


def convert(plan: Plan, options: Options) -> Summary:
    """Examine the cases of a plan and store them. Raises BadCasesError before anything is written."""
    return store(plan, *examine(plan, options), options)


def examine(plan: Plan, options: Options) -> tuple[list[Examined], list[Fault]]:
    """Check every case's files and count what its mask shows. Raises BadCasesError unless bad cases are skipped."""
    images: dict[str, SourceFile] = {}
    for case in plan.cases:
        if (other := images.setdefault(case.case_id, case.images[0])) is not case.images[0]:
            raise ConversionError(
                f"{other.name} and {case.images[0].name} are both called {case.case_id}; rename one, with its mask"
            )
    _check_no_shared_image(plan.cases)
    examined, faults = [], list(plan.faults)
    for case in tqdm(plan.cases, desc="checking", unit="case", disable=None):
        try:
            examined.append(_examine(case, plan))
        except InputError as error:
            faults.append(Fault(case.case_id, str(error)))
    num_cases = len({case.case_id for case in plan.cases} | {fault.case_id for fault in faults})
    if faults and not options.skip_bad:
        raise BadCasesError(faults, num_cases)
    if not any(each.case.part == TRAINING for each in examined):
        raise ConversionError(f"{plan.folder.name}: no training case is left of {num_cases}; check the input folder")
    return examined, faults


def _check_no_shared_image(cases: Sequence[Case]) -> None:
    """Raise ConversionError for an image file of two cases, by whatever names: a test image may be one to train on."""
    owner: dict[tuple[str | int, ...], tuple[str, SourceFile]] = {}
    for case in cases:
        for file in case.images:
            try:
                case_id, other = owner.setdefault(file.inode, (case.case_id, file))
            except OSError:  # told with the case, when it is opened
                continue
            if case_id != case.case_id:
                raise ConversionError(
                    f"{other.name} and {file.name} are one file, in the cases {case_id} and {case.case_id}; give each "
                    "image once"
                )


def _examine(case: Case, plan: Plan) -> Examined:
    try:
        check_case_id(case.case_id)
    except ValueError as error:
        raise InputError(f"{case.images[0].name}: {error}") from None
    volumes = len(plan.channel_names) // len(case.images)
    images = tuple(open_image(file, volumes) for file in case.images)
    for image in images[1:]:
        check_same_grid(images[0], image)
    if not images[0].tells_sides and has_laterality(_attributes(case, plan)):
        raise InputError(
            f"{images[0].name}: the header does not say where left and right are, and attributes name a side; convert "
            "the image again"
        )
    if case.mask is None:
        return Examined(case, images, {}, {})
    mask = read_mask(case.mask, case.names)
    check_same_grid(images[0], mask.volume)
    shown = {value: name for value, name in case.names.items() if value and mask.counts[value]}
    return Examined(
        case,
        images,
        voxels={name: int(mask.counts[value]) for value, name in shown.items()},
        lesions={name: count_lesions(mask.voxels, value) for value, name in shown.items() if name in plan.lesions},
    )


def _attributes(case: Case, plan: Plan) -> Iterator[AspectValues]:
    """What the tables say of the lesion types that the case's mask may show."""
    for table in plan.tables.values():
        yield from (table.attributes_of(name, case.case_id) for name in case.names.values() if table.find(name))


def store(plan: Plan, examined: Sequence[Examined], faults: Sequence[Fault], options: Options) -> Summary:
    """Write the data set, which appears whole or not at all; what an interruption left is gone on with."""
    summary = _summarise(plan, examined, faults)
    if options.dry_run:
        return summary
    try:
        plan.folder.parent.mkdir(parents=True, exist_ok=True)
        with resumable_raw_dataset(
            plan.folder,
            plan.labels[TRAINING],
            _fingerprint(plan, examined, options),
            channel_names=plan.channel_names,
            **plan.about,
        ) as dataset:
            for each in tqdm(examined, desc="storing", unit="case", disable=None):
                _store(dataset, each, plan.labels, options)
            for name, table in plan.tables.items():
                dataset.write_attributes(table, name)
            for part, labels in plan.labels.items():
                if part != TRAINING:
                    dataset.write_json(f"labels{part}.json", labels)
            dataset.write_json(SUMMARY_NAME, summary.to_dict())
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ConversionError(
            f"{plan.folder.parent}: no room ({error.strerror}); make some, then the same command goes on"
        ) from None
    return summary


def _store(dataset: RawDataset, examined: Examined, labels: Mapping[str, Mapping[str, int]], options: Options) -> None:
    """Write what is not there yet, the mask last."""
    case = examined.case
    paths = [dataset.image_path(case.case_id, case.part, channel) for channel in range(dataset.num_channels)]
    per_file = len(paths) // len(case.images)
    for i, (file, image) in enumerate(zip(case.images, examined.images, strict=True)):
        places = paths[i * per_file : (i + 1) * per_file]
        if not all(path.exists() for path in places):
            _store_image(file, image, places, options)
    mask_path = dataset.mask_path(case.case_id, case.part)
    if case.mask and not mask_path.exists():
        with written_beside(mask_path) as beside:
            voxels = _renumbered(read_mask(case.mask, case.names).voxels, case.names, labels[case.part])
            write_mask(voxels, examined.images[0], beside)
    dataset.count(case.case_id, case.part)


def _store_image(file: SourceFile, image: NiftiVolume, paths: Sequence[Path], options: Options) -> None:
    """Link or copy an image that nnU-Net reads as it is; others, and 4-D ones, become a file per volume."""
    with ExitStack() as stack:
        beside = [stack.enter_context(written_beside(path)) for path in paths]
        if image.is_plain:
            file.place(beside[0], copy=options.copy)
        else:
            write_volumes(image, beside)


def _renumbered(voxels: np.ndarray, names: Mapping[int, str], labels: Mapping[str, int]) -> np.ndarray:
    """(X, Y, Z): every value replaced by its name's. Slice by slice, since numpy indexes with eight bytes a voxel."""
    table = np.zeros(max(names) + 1, smallest_type(labels.values()))
    for value, name in names.items():
        table[value] = labels[name]
    renumbered = np.empty(voxels.shape, table.dtype, order="F")
    for z in range(voxels.shape[2]):
        renumbered[..., z] = table[voxels[..., z]]
    return renumbered


def _summarise(plan: Plan, examined: Sequence[Examined], faults: Sequence[Fault]) -> Summary:
    cases = {
        each.case.case_id: CaseSummary(
            part=each.case.part, voxels=each.voxels, volume_ml=_volumes_ml(each), lesions=each.lesions
        )
        for each in examined
    }
    names = dict.fromkeys(name for labels in plan.labels.values() for name in labels if name not in NO_TYPES)
    return Summary(
        dataset=plan.folder.name,
        labels=tuple(names),
        cases=cases,
        empty=tuple(each.case.case_id for each in examined if each.case.mask and not each.voxels),
        apart={case_id: why for case_id, why in plan.apart.items() if case_id in cases},
        left_out=dict(faults),
        notes=(*plan.notes, *_notes(examined)),
    )


def _notes(examined: Sequence[Examined]) -> list[str]:
    guesses = [each.case.case_id for each in examined if not each.images[0].tells_sides]
    return [f"left and right are a guess in {len(guesses)} images, the first is {guesses[0]}"] if guesses else []


def _volumes_ml(examined: Examined) -> dict[str, float]:
    voxel_ml = abs(np.linalg.det(examined.images[0].affine[:3, :3])) / 1000
    return {name: round(count * voxel_ml, 3) for name, count in examined.voxels.items()}


def _fingerprint(plan: Plan, examined: Sequence[Examined], options: Options) -> str:
    """Changes with anything that changes a stored image or mask."""
    cases = [
        [
            each.case.case_id,
            each.case.part,
            [file.identity for file in (*each.case.images, each.case.mask) if file],
            sorted(each.case.names.items()),
        ]
        for each in examined
    ]
    content = [plan.labels, list(plan.channel_names), options.copy, cases]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()

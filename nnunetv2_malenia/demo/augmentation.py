"""A raw data set and, beside its cases, copies of them with synthetic lesions of balanced attributes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunetv2_malenia.attributes.resolution import resolve_cases
from nnunetv2_malenia.attributes.schema import AspectValues, AttributeTable, CaseEntry, LesionEntry
from nnunetv2_malenia.attributes.tables import read_table, resolve_label_attributes
from nnunetv2_malenia.dataset_conversion.nifti_files import FILE_ENDING, link_or_copy
from nnunetv2_malenia.dataset_conversion.nnunet_raw import TRAINING, new_raw_dataset
from nnunetv2_malenia.dataset_conversion.raw_cases import training_cases
from nnunetv2_malenia.files.dataset_json import BACKGROUND, IGNORE, DatasetJson, read_dataset_json, without_regions
from nnunetv2_malenia.phantom.anatomy import PhantomError
from nnunetv2_malenia.phantom.label_maps import checked_labels
from nnunetv2_malenia.phantom.synthesis import BalancedLooks, synthesise
from nnunetv2_malenia.phantom.volume import read_volume

SYNTHETIC = "synthetic lesion"


def augment_dataset(
    source: Path,
    target: Path,
    *,
    per_case: int = 2,
    share: float = 0.5,
    replace: bool = False,
    excluded: AttributeTable | None = None,
    types: Sequence[str] = (),
    seed: int = 0,
) -> tuple[int, int, list[str]]:
    """Write a raw data set's training cases and, of a share of them, copies with synthetic lesions.

    -> number of source cases, number of copies, remarks. source: one CT channel, .nii.gz, organs among the labels.
    The source's files are linked. Labels `synthetic lesion 1` … follow the source's; what each looks like is stated
    per case. share: in (0, 1]; replace: a copy takes the place of its case. excluded: no lesion has location and
    density of one of its `types` (default: all of its types).
    Raises PhantomError for data that this cannot be done with, AttributeTableError for types that are not in the
    table, FileExistsError if the target is there.
    """
    looks = BalancedLooks(_excluded_looks(excluded, types))
    description = _description(source)
    labels = without_regions(description.labels, source / "dataset.json", error=PhantomError)
    if IGNORE in labels:
        raise PhantomError(f"{source}: its ignore label must stay the last; augment a data set without one")
    names = [f"{SYNTHETIC} {i + 1}" for i in range(per_case)]
    if clash := [name for name in names if name in labels]:
        raise PhantomError(f"{source}: has a label {clash[0]!r} already; augment the data set that it was made from")
    own = source / "attributes.json"
    table = read_table(own) if os.path.lexists(own) else None
    lesions = {name: LesionEntry(**entry.stated) for name, entry in resolve_label_attributes(labels, table).items()}
    organs = {name: value for name, value in labels.items() if name not in lesions}
    found = training_cases(source, description)
    case_ids = list(found.files)
    if not case_ids:
        raise PhantomError(f"{source}: no case in labelsTr; give an nnU-Net raw data set")
    if incomplete := [i for i, files in found.files.items() if len(files.images) != 1 or not files.mask.path.is_file()]:
        raise PhantomError(f"{source}: {incomplete[0]} has not one image and a mask; add them, or take the case out")
    real_labels = [name for name in labels if name != BACKGROUND]
    known = resolve_cases(table, real_labels, own, case_ids) if table else {}
    order = np.random.default_rng(seed).permutation(len(case_ids))
    chosen = set(order[: max(1, round(share * len(case_ids)))].tolist())
    last = max(labels.values())
    new_labels = dict(labels)  # grows by those that find room: it is written at the end
    stated: dict[str, Mapping[str, Mapping[str, Sequence[str]]]] = {}
    origins: dict[str, str] = {}
    remarks = list(found.notes)
    with new_raw_dataset(
        target,
        new_labels,
        channel_names=description.channel_names,
        image_reader_writer=description.overwrite_image_reader_writer or "NibabelIOWithReorient",
        description=f"{description.description or source.name} With synthetic lesions; see attributes.json.",
    ) as raw:
        for number, case_id in enumerate(case_ids):
            files = found.files[case_id].images[0].path, found.files[case_id].mask.path
            new_id = f"{case_id}_synthetic"
            done = None
            if number in chosen:
                image, mask = map(read_volume, files)
                rng = np.random.default_rng([seed, number])
                done = synthesise(image, mask, organs, [labels[name] for name in lesions], names, looks, rng)
                remarks += [*image.remarks(done.attributes), *mask.remarks({}), *done.remarks]
            if done and done.attributes:
                raw.count(new_id, TRAINING)
                image.save(done.image, raw.image_path(new_id, TRAINING, 0))
                merged = np.where(done.mask > 0, done.mask.astype(np.uint16) + last, checked_labels(mask, labels))
                mask.save(merged.astype(np.min_scalar_type(merged.max())), raw.mask_path(new_id, TRAINING))
                new_labels |= {name: last + 1 + names.index(name) for name in done.attributes}
                stated[new_id], origins[new_id] = done.attributes, case_id
                if replace:
                    continue
            raw.count(case_id, TRAINING)
            link_or_copy(files[0], raw.image_path(case_id, TRAINING, 0))
            link_or_copy(files[1], raw.mask_path(case_id, TRAINING))
            origins[case_id] = case_id
        if not stated:
            raise PhantomError(f"{source}: no synthetic lesion found room; exclude fewer types or label more organs")
        drawn = [name for name in names if name in new_labels]
        cases = {
            new: _with_synthetic(known.get(old, CaseEntry()), stated.get(new, {}), drawn)
            for new, old in origins.items()
        }
        entries = lesions | {name: LesionEntry() for name in drawn}
        raw.write_attributes(AttributeTable(name=f"{source.name}, augmented", lesions=entries, cases=cases))
    return len(case_ids), len(stated), remarks


def _description(source: Path) -> DatasetJson:
    file = source / "dataset.json"
    if not file.is_file():
        raise PhantomError(f"{file}: no such file; give the folder of an nnU-Net raw data set")
    description = read_dataset_json(file, error=PhantomError)
    if len(description.channel_names) != 1 or description.file_ending != FILE_ENDING:
        raise PhantomError(f"{file}: lesions can be put into one CT channel stored as {FILE_ENDING} only")
    return description


def _with_synthetic(
    case: CaseEntry, synthetic: Mapping[str, Mapping[str, Sequence[str]]], drawn: Sequence[str]
) -> CaseEntry:
    """A source case's entry, and its synthetic lesions.

    All labels of synthetic lesions count as annotated: without one, a case has none.
    """
    annotated = None if case.annotated is None else (*case.annotated, *drawn)
    return CaseEntry(annotated=annotated, lesions={**case.lesions, **synthetic})


def _excluded_looks(table: AttributeTable | None, types: Sequence[str]) -> list[AspectValues]:
    if table is None:
        if types:
            raise PhantomError("--types names types of a table; give it with --exclude")
        return []
    return [table.entry(name).attributes for name in (types or table.lesions)]

"""A raw data set and, beside its cases, copies of them with synthetic lesions of balanced attributes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunetv2_malenia.attributes.schema import AttributeTable, CaseEntry, LesionEntry
from nnunetv2_malenia.attributes.tables import read_table, resolve_label_attributes
from nnunetv2_malenia.dataset_conversion.nifti_files import FILE_ENDING, link_or_copy
from nnunetv2_malenia.dataset_conversion.nnunet_raw import TRAINING, new_raw_dataset
from nnunetv2_malenia.phantom.anatomy import PhantomError
from nnunetv2_malenia.phantom.label_maps import read_names
from nnunetv2_malenia.phantom.synthesis import BalancedLooks, synthesise
from nnunetv2_malenia.phantom.volume import read_volume

SYNTHETIC = "synthetic lesion"


def augment_dataset(
    source: Path,
    target: Path,
    *,
    per_case: int = 2,
    share: float = 0.5,
    excluded: AttributeTable | None = None,
    types: Sequence[str] = (),
    seed: int = 0,
) -> tuple[int, int, list[str]]:
    """Write a raw data set's training cases and, of a share of them, copies with synthetic lesions.

    -> number of source cases, number of copies, remarks. source: one CT channel, .nii.gz, organs among the labels.
    The source's files are linked. Labels `synthetic lesion 1` … follow the source's; what each looks like is stated
    per case. excluded: no lesion has location and density of one of its `types` (default: all of its types).
    Raises PhantomError for data that this cannot be done with, FileExistsError if the target is there.
    """
    description = _description(source)
    labels = read_names(description["labels"], str(source / "dataset.json"))
    own = source / "attributes.json"
    table = read_table(own) if own.is_file() else None
    ignored = labels.pop("ignore", None)
    lesions = {name: LesionEntry(**entry.stated) for name, entry in resolve_label_attributes(labels, table).items()}
    organs = {name: value for name, value in labels.items() if name not in lesions}
    kept = [labels[name] for name in lesions] + ([] if ignored is None else [ignored])
    first = 1 + max(labels.values())
    names = [f"{SYNTHETIC} {i + 1}" for i in range(per_case)]
    if clash := [name for name in names if name in labels]:
        raise PhantomError(f"{source}: has a label {clash[0]!r} already; augment the data set that it was made from")
    new_labels = labels | {name: first + i for i, name in enumerate(names)}
    if ignored is not None:
        new_labels["ignore"] = first + per_case  # nnU-Net wants it last
        if ignored != new_labels["ignore"]:
            raise PhantomError(f"{source}: has an ignore label, whose value would change; take it out first")
    looks = BalancedLooks(_excluded_looks(excluded, types))
    case_ids = [path.name.removesuffix(FILE_ENDING) for path in sorted((source / "labelsTr").glob(f"*{FILE_ENDING}"))]
    if not case_ids:
        raise PhantomError(f"{source}: no case in labelsTr; give an nnU-Net raw data set")
    rng = np.random.default_rng(seed)
    chosen = set(rng.permutation(len(case_ids))[: max(1, round(share * len(case_ids)))].tolist())
    cases = {case_id: _with_labels(table, lesions, case_id, names) for case_id in case_ids}
    remarks: list[str] = []
    reader = description.get("overwrite_image_reader_writer", "NibabelIOWithReorient")
    about = {
        "description": f"{description.get('description', source.name)} With synthetic lesions; see attributes.json."
    }
    channels = list(description["channel_names"].values())
    with new_raw_dataset(target, new_labels, channel_names=channels, image_reader_writer=reader, **about) as raw:
        for number, case_id in enumerate(case_ids):
            files = (
                source / "imagesTr" / f"{case_id}_0000{FILE_ENDING}",
                source / "labelsTr" / f"{case_id}{FILE_ENDING}",
            )
            raw.count(case_id, TRAINING)
            link_or_copy(files[0], raw.image_path(case_id, TRAINING, 0))
            link_or_copy(files[1], raw.mask_path(case_id, TRAINING))
            if number not in chosen:
                continue
            image, mask = map(read_volume, files)
            done = synthesise(image, mask, organs, kept, names, looks, np.random.default_rng([seed, number]))
            remarks += done.remarks
            if not done.attributes:
                continue
            new_id = f"{case_id}_synthetic"
            raw.count(new_id, TRAINING)
            image.save(done.image, raw.image_path(new_id, TRAINING, 0))
            merged = np.where(done.mask > 0, done.mask + (first - 1), mask.array).astype(np.uint8)
            mask.save(merged, raw.mask_path(new_id, TRAINING))
            stated = {**cases[case_id].lesions, **done.attributes}
            cases[new_id] = CaseEntry(annotated=cases[case_id].annotated, lesions=stated)
        drawn = {name for case in cases.values() for name in case.lesions}
        if not drawn & set(names):
            raise PhantomError(f"{source}: no synthetic lesion found room; exclude fewer types or label more organs")
        entries = lesions | {name: LesionEntry() for name in names if name in drawn}
        raw.write_attributes(AttributeTable(name=f"{source.name}, augmented", lesions=entries, cases=cases))
    return len(case_ids), len(raw.training_cases) - len(case_ids), remarks


def _description(source: Path) -> dict:
    file = source / "dataset.json"
    if not file.is_file():
        raise PhantomError(f"{file}: no such file; give the folder of an nnU-Net raw data set")
    description = json.loads(file.read_text(encoding="utf-8"))
    if len(description.get("channel_names", ())) != 1 or description.get("file_ending") != FILE_ENDING:
        raise PhantomError(f"{file}: lesions can be put into one CT channel stored as {FILE_ENDING} only")
    return description


def _with_labels(
    table: AttributeTable | None, lesions: dict[str, LesionEntry], case_id: str, names: Sequence[str]
) -> CaseEntry:
    """A source case's entry, by the data set's label names; synthetic lesions count as annotated: it has none."""
    case = (table.cases.get(case_id) if table else None) or CaseEntry()
    stated = {
        name: values
        for name in lesions
        for key, values in case.lesions.items()
        if table.find(key) is not None and table.find(key) == table.find(name)
    }
    annotated = None if case.annotated is None else (*case.annotated, *names)
    return CaseEntry(annotated=annotated, lesions=stated)


def _excluded_looks(table: AttributeTable | None, types: Sequence[str]) -> list:
    if table is None:
        if types:
            raise PhantomError("--types names types of a table; give it with --exclude")
        return []
    return [table.entry(name).attributes for name in (types or table.lesions)]

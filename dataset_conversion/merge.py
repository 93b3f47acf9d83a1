"""Several nnU-Net raw data sets into one label space, by the names of lesion types; partly labelled, and it says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunetv2_malenia.attributes.schema import AttributeTable, CaseEntry, LesionEntry, lesion_key
from nnunetv2_malenia.attributes.tables import read_table, resolve_label_attributes
from nnunetv2_malenia.dataset_conversion.case_attributes import canonical_type
from nnunetv2_malenia.dataset_conversion.conversion import (
    Case,
    Examined,
    Options,
    Plan,
    examine,
    new_dataset_folder,
    store,
)
from nnunetv2_malenia.dataset_conversion.nifti_files import FILE_ENDING
from nnunetv2_malenia.dataset_conversion.nnunet_raw import TEST, TRAINING
from nnunetv2_malenia.dataset_conversion.sources import ConversionError, FileInFolder, load_json
from nnunetv2_malenia.dataset_conversion.summary import Summary

TEST_TABLE = "test_attributes.json"
IGNORE = "ignore"  # nnU-Net's name of the label that no loss looks at


@dataclass(frozen=True)
class _Source:
    """A data set to merge. labels: its own label name -> value; names: its own label name -> merged name."""

    folder: Path
    about: Mapping[str, Any]
    labels: Mapping[str, int]
    table: AttributeTable | None
    files: Mapping[str, tuple[tuple[FileInFolder, ...], FileInFolder]]
    names: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.folder.name

    def case_entry(self, case_id: str) -> CaseEntry:
        """What is known of a case, by merged names: always with its annotated labels."""
        entry = (self.table.cases.get(case_id) if self.table else None) or CaseEntry()
        annotated = self.labels if entry.annotated is None else entry.annotated
        if unknown := set(annotated) - self.names.keys():
            raise ConversionError(
                f"{self.folder / 'attributes.json'}: cases/{case_id}/annotated names {sorted(unknown)}, which are no "
                f"labels of dataset.json; its labels are {list(self.names)}"
            )
        own = {self.table.find(name): values for name, values in entry.lesions.items()} if self.table else {}
        return CaseEntry(
            annotated=tuple(self.names[name] for name in annotated),
            lesions={merged: own[t] for name, merged in self.names.items() if (t := self._type(name)) in own},
        )

    def _type(self, name: str) -> str | None:
        return self.table.find(name) if self.table else None


def merge(
    sources: Sequence[Path],
    raw_folder: Path,
    dataset: str,
    options: Options,
    holdout: Iterable[str] = (),
    *,
    keep_seen: bool = False,
) -> Summary:
    """Merge raw data sets (their training cases) into one; every case lists the labels that its data set annotates.

    holdout: lesion types that must not be seen in training. Cases that show one go to imagesTs and labelsTs, with the
    label map of labelsTs.json; a label that is then shown by no training case is held out too, and told. Held-out
    types are no labels of dataset.json. test_attributes.json describes all types, to query with.
    keep_seen: cases that show a lesion of another type too stay in training; there, held-out lesions have nnU-Net's
    ignore label.
    Raises ConversionError for labels that clash, and BadCasesError before anything is written.
    """
    folder = new_dataset_folder(raw_folder, dataset, "Merged")
    found = _read_sources(sources)
    lesions = _lesion_types(found)
    unseen = _held_out_types(holdout, lesions)
    plan, entries = _plan(folder, found, lesions)
    examined, faults = examine(plan, options)
    if unseen:
        plan, examined = _hold_out(plan, examined, unseen, entries, keep_seen=keep_seen)
    plan = replace(plan, tables=_tables(plan, examined, lesions, entries))
    return store(plan, examined, faults, options)


def find_dataset(raw_folder: Path, text: str) -> Path:
    """A raw data set by its folder, its name in nnUNet_raw, or its id."""
    named = raw_folder.glob(f"Dataset{int(text):03d}_*") if text.isdecimal() else [raw_folder / text]
    found = [folder for folder in (Path(text), *named) if (folder / "dataset.json").is_file()]
    if not found:
        raise ConversionError(f"{text}: no raw data set by this folder, and none by this name or id in {raw_folder}")
    return found[0]


def _read_sources(folders: Sequence[Path]) -> list[_Source]:
    spelling: dict[str, str] = {}  # the first data set decides how a name is written
    return [_read_source(folder, spelling) for folder in folders]


def _read_source(folder: Path, spelling: dict[str, str]) -> _Source:
    about = load_json(FileInFolder(folder / "dataset.json"))
    labels = {name: value for name, value in about["labels"].items() if name != "background"}
    if IGNORE in labels or not all(isinstance(value, int) for value in labels.values()):
        raise ConversionError(f"{folder}: regions or an ignore label cannot be merged; give plain labels: {labels}")
    if about["file_ending"] != FILE_ENDING:
        raise ConversionError(f"{folder}: files end in {about['file_ending']}; store them as {FILE_ENDING}")
    names = {name: spelling.setdefault(lesion_key(canonical_type(name)), canonical_type(name)) for name in labels}
    if twice := [name for name, count in Counter(names.values()).items() if count > 1]:
        both = [name for name, merged in names.items() if merged == twice[0]]
        raise ConversionError(f"{folder}: labels {both} are one type, {twice[0]!r}; rename one of them")
    table_path = folder / "attributes.json"
    table = read_table(table_path) if table_path.is_file() else None
    return _Source(folder, about, labels, table, _case_files(folder, about), names)


def _case_files(folder: Path, about: dict) -> dict[str, tuple[tuple[FileInFolder, ...], FileInFolder]]:
    """Case id -> images and mask: what dataset.json lists, or else what lies in imagesTr, as nnU-Net finds it."""
    from nnunetv2.utilities import utils as nnunet

    if "dataset" in about:
        listed = nnunet.get_filenames_of_train_images_and_targets(str(folder), about)
        found = {case_id: (files["images"], files["label"]) for case_id, files in listed.items()}
    else:
        images = str(folder / "imagesTr")
        ids = [str(i) for i in nnunet.get_identifiers_from_splitted_dataset_folder(images, FILE_ENDING)]
        ids = [case_id for case_id in ids if not case_id.startswith(".")]
        lists = nnunet.create_lists_from_splitted_dataset_folder(images, FILE_ENDING, ids, num_processes=1)
        found = {i: (paths, folder / "labelsTr" / f"{i}{FILE_ENDING}") for i, paths in zip(ids, lists, strict=True)}
    return {
        case_id: (tuple(FileInFolder(Path(image)) for image in paths), FileInFolder(Path(label)))
        for case_id, (paths, label) in found.items()
    }


def _lesion_types(sources: Sequence[_Source]) -> dict[str, LesionEntry]:
    """Merged name -> attributes, for labels that are lesions. Raises ConversionError where two data sets disagree."""
    described: dict[str, tuple[_Source, LesionEntry | None]] = {}
    for source in sources:
        entries = resolve_label_attributes(source.labels, source.table)
        for name, merged in source.names.items():
            entry = LesionEntry(**entries[name].stated) if name in entries else None
            other, before = described.setdefault(merged, (source, entry))
            if entry != before:
                raise ConversionError(
                    f"{merged!r} means two things: {_meaning(before)} in {other.name}, {_meaning(entry)} in "
                    f"{source.name}; make their attributes.json agree, or rename the label in one"
                )
    return {name: entry for name, (_, entry) in described.items() if entry}


def _meaning(entry: LesionEntry | None) -> str:
    return f"a lesion with {entry.stated}" if entry else "no lesion"


def _held_out_types(holdout: Iterable[str], lesions: Mapping[str, LesionEntry]) -> set[str]:
    by_key = {lesion_key(name): name for name in lesions}
    types = set()
    for name in holdout:
        if (key := lesion_key(canonical_type(name))) not in by_key:
            raise ConversionError(f"--holdout {name!r}: no lesion type of these data sets; theirs are {list(lesions)}")
        types.add(by_key[key])
    return types


def _plan(
    folder: Path, sources: Sequence[_Source], lesions: Mapping[str, LesionEntry]
) -> tuple[Plan, dict[str, CaseEntry]]:
    """The plan without a test side, and what is known of every case by its new id."""
    channels = [list(source.about["channel_names"].values()) for source in sources]
    for source, names in zip(sources, channels, strict=True):
        if names != channels[0]:
            raise ConversionError(
                f"channels {channels[0]} in {sources[0].name}, {names} in {source.name}; merge like with like"
            )
    merged = dict.fromkeys(name for source in sources for name in source.names.values())
    labels = _numbered(sorted(merged, key=lambda name: name in lesions))
    cases, entries = [], {}
    for source, case_id, new_id in _case_ids(sources):
        images, mask = source.files[case_id]
        names = {0: "background"} | {value: source.names[name] for name, value in source.labels.items()}
        cases.append(Case(new_id, images, mask, names))
        entries[new_id] = source.case_entry(case_id)
    plan = Plan(
        folder=folder,
        cases=cases,
        labels={TRAINING: labels},
        lesions=frozenset(lesions),
        channel_names=channels[0],
        about={
            "dataset_name": folder.name,
            "description": f"Merge of {', '.join(source.name for source in sources)}; attributes.json says what is "
            "annotated in each case.",
            "license": _joined(source.about.get("licence", "unknown") for source in sources),
            "reference": _joined(source.about.get("reference", source.name) for source in sources),
        },
    )
    return plan, entries


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: value for value, name in enumerate(["background", *names])}


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _case_ids(sources: Sequence[_Source]) -> Iterable[tuple[_Source, str, str]]:
    """Every case with its id in the merge: its own, or with its data set's name in front where two share one."""
    shared = {case_id for case_id, count in Counter(i for source in sources for i in source.files).items() if count > 1}
    for source in sources:
        prefix = f"{source.name}_" if shared & source.files.keys() else ""
        for case_id in source.files:
            yield source, case_id, f"{prefix}{case_id}"


def _hold_out(
    plan: Plan, examined: Sequence[Examined], unseen: set[str], entries: Mapping[str, CaseEntry], *, keep_seen: bool
) -> tuple[Plan, list[Examined]]:
    """Move cases that show an unseen type to the test side, and labels that nothing is left of with them."""
    seen_lesions = plan.lesions - unseen if keep_seen else frozenset()
    tests = {
        each.case.case_id for each in examined if unseen & each.voxels.keys() and not seen_lesions & each.voxels.keys()
    }
    training = [each for each in examined if each.case.case_id not in tests]
    if not training:
        raise ConversionError(f"every case shows one of {sorted(unseen)}; hold out fewer types, or add a data set")
    left = {name for each in training for name in each.voxels} - unseen
    lost = {name for each in examined for name in each.voxels} - left - unseen
    names = [name for name in plan.labels[TRAINING] if name != "background"]
    seen = [name for name in names if name not in unseen | lost]
    ignored = [each for each in training if unseen & each.voxels.keys()]
    labels = {
        TRAINING: _numbered([*seen, IGNORE] if ignored else seen),
        TEST: _numbered([*seen, *(name for name in names if name not in seen)]),
    }
    split = [
        _with_part(each, TEST, labels)
        if each.case.case_id in tests
        else _with_part(_ignoring(each, unseen), TRAINING, labels)
        for each in examined
    ]
    annotated = [entries[each.case.case_id].annotated for each in training if each not in ignored]
    notes = (*_notes_on_unseen(sorted(unseen), annotated, ignored), *_notes_on_lost(sorted(lost)))
    return replace(plan, labels=labels, notes=(*plan.notes, *notes)), split


def _ignoring(examined: Examined, unseen: set[str]) -> Examined:
    """The same case with held-out lesions as voxels that nnU-Net ignores."""
    if not unseen & examined.voxels.keys():
        return examined
    names = {value: IGNORE if name in unseen else name for value, name in examined.case.names.items()}
    shown = {name: count for name, count in examined.voxels.items() if name not in unseen}
    lesions = {name: count for name, count in examined.lesions.items() if name not in unseen}
    return replace(examined, case=replace(examined.case, names=names), voxels=shown, lesions=lesions)


def _with_part(examined: Examined, part: str, labels: Mapping[str, Mapping[str, int]]) -> Examined:
    """On one side of the split, with names for that side's labels only, so that storing any other one would fail."""
    names = {value: name for value, name in examined.case.names.items() if name in labels[part]}
    return replace(examined, case=replace(examined.case, part=part, names=names))


def _notes_on_unseen(
    unseen: Iterable[str], annotated: Sequence[Sequence[str]], ignored: Sequence[Examined]
) -> Iterator[str]:
    """annotated: the labels annotated in each training case without a held-out lesion; ignored: the other cases."""
    for name in unseen:
        free = sum(name in labels for labels in annotated)
        shown = sum(name in each.voxels for each in ignored)
        yield (
            f"{name} is held out: no training case shows it, {free} are known to be free of it, in "
            f"{len(annotated) - free} it is not annotated" + (f", in {shown} it is ignored" if shown else "")
        )


def _notes_on_lost(lost: Iterable[str]) -> Iterator[str]:
    return (f"{name} is held out too: every case that shows it shows a held-out type" for name in lost)


def _tables(
    plan: Plan, examined: Sequence[Examined], lesions: Mapping[str, LesionEntry], entries: Mapping[str, CaseEntry]
) -> dict[str, AttributeTable]:
    """attributes.json for training; with a test side, a table of all types to query with."""
    tables = {}
    for part, file_name in ((TRAINING, "attributes.json"), (TEST, TEST_TABLE)):
        labels = plan.labels.get(part, {})
        if types := {name: entry for name, entry in lesions.items() if name in labels}:
            case_ids = [each.case.case_id for each in examined if each.case.part == part]
            cases = {case_id: _restricted(entries[case_id], labels, types) for case_id in case_ids}
            tables[file_name] = AttributeTable(lesions=types, cases=cases)
    return tables


def _restricted(entry: CaseEntry, labels: Mapping[str, int], types: Mapping[str, LesionEntry]) -> CaseEntry:
    return CaseEntry(
        annotated=tuple(name for name in entry.annotated if name in labels),
        lesions={name: values for name, values in entry.lesions.items() if name in types},
    )

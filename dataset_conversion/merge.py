"""Several nnU-Net raw data sets into one label space, by the names of lesion types; partly labelled, and it says so."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunetv2_malenia.attributes.resolution import resolve_cases, unmatched_cases
from nnunetv2_malenia.attributes.schema import AttributeTable, CaseEntry, LesionEntry, lesion_key
from nnunetv2_malenia.attributes.tables import read_table, resolve_label_attributes
from nnunetv2_malenia.dataset_conversion.case_attributes import canonical_type
from nnunetv2_malenia.dataset_conversion.conversion import (
    Case,
    Examined,
    Fault,
    Options,
    Plan,
    examine,
    new_dataset_folder,
    store,
)
from nnunetv2_malenia.dataset_conversion.nifti_files import FILE_ENDING
from nnunetv2_malenia.dataset_conversion.nnunet_raw import TEST, TRAINING
from nnunetv2_malenia.dataset_conversion.raw_cases import CaseFiles, training_cases
from nnunetv2_malenia.dataset_conversion.sources import ConversionError, SourceFile
from nnunetv2_malenia.dataset_conversion.summary import Summary
from nnunetv2_malenia.files.dataset_json import BACKGROUND, IGNORE, DatasetJson, read_dataset_json, without_regions

TEST_TABLE = "test_attributes.json"


@dataclass(frozen=True)
class _Source:
    """A data set to merge. labels: its own label name -> value, without the background; names: its own label name ->
    merged name; entries: what its table says of its cases, by its own label names."""

    folder: Path
    about: DatasetJson
    labels: Mapping[str, int]
    table: AttributeTable | None
    files: Mapping[str, CaseFiles]
    names: Mapping[str, str]
    entries: Mapping[str, CaseEntry]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.folder.name

    def case_entry(self, case_id: str) -> CaseEntry:
        """What is known of a case, by merged names: always with its annotated labels."""
        entry = self.entries.get(case_id, CaseEntry())
        annotated = self.labels if entry.annotated is None else entry.annotated
        return CaseEntry(
            annotated=tuple(self.names[name] for name in annotated),
            lesions={self.names[name]: values for name, values in entry.lesions.items()},
        )


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
    notes = (*plan.notes, *_notes_on_copies([each.case for each in examined]))
    plan = replace(plan, tables=_tables(plan, examined, lesions, entries), notes=notes)
    return store(plan, examined, faults, options)


def find_dataset(raw_folder: Path, text: str) -> Path:
    """A raw data set by its folder, its name in nnUNet_raw, or its id."""
    is_id = text.isdecimal() and len(text) <= 3
    named = sorted(raw_folder.glob(f"Dataset{int(text):03d}_*")) if is_id else [raw_folder / text]
    if (Path(text) / "dataset.json").is_file():
        return Path(text)
    found = [folder for folder in named if (folder / "dataset.json").is_file()]
    if len(found) > 1:
        raise ConversionError(f"{text}: {found[0]} and {found[1].name} have this id; name one of them")
    if not found:
        raise ConversionError(f"{text}: no raw data set by this folder, and none by this name or id in {raw_folder}")
    return found[0]


def _read_sources(folders: Sequence[Path]) -> list[_Source]:
    given: dict[Path, Path] = {}
    for folder in folders:
        if (real := folder.resolve()) in given:
            raise ConversionError(f"{given[real]} and {folder} are one data set; name it once")
        given[real] = folder
    spelling: dict[str, str] = {}  # the first data set decides how a name is written
    return [_read_source(folder, spelling) for folder in folders]


def _read_source(folder: Path, spelling: dict[str, str]) -> _Source:
    about = read_dataset_json(folder / "dataset.json", error=ConversionError)
    labels = without_regions(about.labels, folder / "dataset.json", error=ConversionError)
    labels = {name: value for name, value in labels.items() if name != BACKGROUND}
    if ignore := [name for name in labels if name.lower() == IGNORE]:
        raise ConversionError(f"{folder}: the label {ignore[0]!r} cannot be merged; give a data set without one")
    if about.file_ending != FILE_ENDING:
        raise ConversionError(f"{folder}: files end in {about.file_ending}; store them as {FILE_ENDING}")
    names = {name: spelling.setdefault(lesion_key(canonical_type(name)), canonical_type(name)) for name in labels}
    if twice := [name for name, count in Counter(names.values()).items() if count > 1]:
        both = [name for name, merged in names.items() if merged == twice[0]]
        raise ConversionError(f"{folder}: labels {both} are one type, {twice[0]!r}; rename one of them")
    files, notes = training_cases(folder, about)
    table_path = folder / "attributes.json"
    table = read_table(table_path) if os.path.lexists(table_path) else None
    entries = resolve_cases(table, labels, table_path, files) if table else {}
    if table and (note := unmatched_cases(table, files, table_path)):
        notes = (*notes, note)
    return _Source(folder, about, labels, table, files, names, entries, notes)


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
    channels = [source.about.channel_names for source in sources]
    for source, names in zip(sources, channels, strict=True):
        if names != channels[0]:
            raise ConversionError(
                f"channels {list(channels[0])} in {sources[0].name}, {list(names)} in {source.name}; merge like with "
                "like"
            )
    merged = dict.fromkeys(name for source in sources for name in source.names.values())
    labels = _numbered(sorted(merged, key=lambda name: name in lesions))
    cases, faults, entries = [], [], {}
    for source, case_id, new_id in _case_ids(sources):
        images, mask = source.files[case_id]
        if len(images) != len(channels[0]):
            faults.append(
                Fault(new_id, f"{source.name} has {len(images)} images of it for {len(channels[0])} channels")
            )
            continue
        names = {0: BACKGROUND} | {value: source.names[name] for name, value in source.labels.items()}
        cases.append(Case(new_id, images, mask, names))
        entries[new_id] = source.case_entry(case_id)
    plan = Plan(
        folder=folder,
        cases=cases,
        labels={TRAINING: labels},
        lesions=frozenset(lesions),
        channel_names=channels[0],
        faults=faults,
        notes=tuple(note for source in sources for note in source.notes),
        about={
            "dataset_name": folder.name,
            "description": f"Merge of {', '.join(source.name for source in sources)}; attributes.json says what is "
            "annotated in each case.",
            "license": _joined(source.about.licence or "unknown" for source in sources),
            "reference": _joined(source.about.reference or source.name for source in sources),
        },
    )
    return plan, entries


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: value for value, name in enumerate([BACKGROUND, *names])}


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
    names = [name for name in plan.labels[TRAINING] if name != BACKGROUND]
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


def _notes_on_copies(cases: Iterable[Case]) -> Iterator[str]:
    """On files that hold the same bytes. Only images of one size are read."""
    by_size: dict[int, list[Case]] = {}
    for case in cases:
        by_size.setdefault(case.images[0].path.stat().st_size, []).append(case)
    by_digest: dict[str, list[Case]] = {}
    for case in (case for alike in by_size.values() if len(alike) > 1 for case in alike):
        by_digest.setdefault(_sha256(case.images[0]), []).append(case)
    for copies in (copies for copies in by_digest.values() if len(copies) > 1):
        apart = len({case.part for case in copies}) > 1
        yield f"{' and '.join(case.case_id for case in copies)} have the same image" + (
            ", so that training shows what is held out" if apart else ""
        )


def _sha256(file: SourceFile) -> str:
    digest = hashlib.sha256()
    with file.open() as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


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

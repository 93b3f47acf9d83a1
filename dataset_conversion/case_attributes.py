"""Lesion types by their own names, and the attribute tables that go beside converted data."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from importlib.resources import files
from pathlib import Path

from nnunetv2_malenia.attributes.resolution import unmatched_cases
from nnunetv2_malenia.attributes.schema import AttributeTable, CaseEntry, LesionEntry
from nnunetv2_malenia.attributes.tables import (
    clinical_knowledge_table,
    parse_table,
    read_table,
    resolve_label_attributes,
)

SHIPPED_ANNOTATIONS = "msd_kits_annotations.json"


def canonical_type(name: str) -> str:
    """The Clinical Knowledge Table's name for a lesion type; another name is kept as it is."""
    return clinical_knowledge_table().find(name) or name


def read_annotations(path: Path | None) -> AttributeTable:
    """Attributes of single cases: from a table, else from the one that ships with the package."""
    if path:
        return read_table(path)
    shipped = files("nnunetv2_malenia.attribute_tables").joinpath(SHIPPED_ANNOTATIONS)
    return parse_table(json.loads(shipped.read_text(encoding="utf-8")), source=SHIPPED_ANNOTATIONS)


def notes_on_annotations(annotations: AttributeTable, path: Path | None, case_ids: Collection[str]) -> tuple[str, ...]:
    """What to know of a table that was given: which of its cases are none. The shipped one is of several data sets."""
    note = unmatched_cases(annotations, case_ids, path) if path else ""
    return (note,) if note else ()


def annotated_types(annotations: AttributeTable, case_id: str) -> set[str]:
    """Canonical names of the lesion types that the annotations list for a case."""
    case = annotations.cases.get(case_id)
    return {canonical_type(annotations.find(name) or name) for name in case.lesions} if case else set()


def attribute_table(
    labels: Iterable[str], case_ids: Collection[str], annotations: AttributeTable
) -> AttributeTable | None:
    """The attributes.json of a data set: its lesion types by the Clinical Knowledge Table, its cases by annotations.

    A type that the annotations describe themselves is as they say.
    labels: names, canonical where they are lesion types. None when no label is a type of either.
    """
    labels = list(labels)
    known = resolve_label_attributes(labels)
    own = {canonical_type(name): entry for name, entry in annotations.lesions.items()}
    entries = {name: own.get(canonical_type(annotations.find(name) or name), known.get(name)) for name in labels}
    lesions = {name: LesionEntry(**entry.stated) for name, entry in entries.items() if entry}
    if not lesions:
        return None
    source = annotations.name or "the annotation table given"
    changed = [name for name, entry in lesions.items() if name not in known or entry.stated != known[name].stated]
    cases = {case_id: _own_lesions(annotations, case_id, lesions) for case_id in case_ids}
    cases = {case_id: entry for case_id, entry in cases.items() if entry.lesions}
    return AttributeTable(
        description="Lesion types: Clinical Knowledge Table"
        + (f", but {', '.join(changed)}: {source}." if changed else ".")
        + (f" Cases: {source}." if cases else ""),
        license=annotations.license if cases or changed else "",
        lesions=lesions,
        cases=cases,
    )


def _own_lesions(annotations: AttributeTable, case_id: str, types: Collection[str]) -> CaseEntry:
    case = annotations.cases.get(case_id)
    own = {canonical_type(annotations.find(name) or name): v for name, v in case.lesions.items()} if case else {}
    return CaseEntry(lesions={name: values for name, values in own.items() if name in types})

"""Attribute tables as files: read, check, write; look lesion names up; the JSON Schema for editors."""

import json
import os
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from textwrap import shorten
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from nnunetv2_malenia.attributes.schema import (
    ASPECTS,
    MAX_NAME_LENGTH,
    MAX_REFERENCE_LENGTH,
    AspectValues,
    AttributeTable,
    AttributeTableError,
    CaseEntry,
    LesionEntry,
    LesionQuery,
)
from nnunetv2_malenia.attributes.vocabulary import MAX_PHRASE_LENGTH, Vocabulary, closest, vocabulary
from nnunetv2_malenia.files import read_json, write_json
from nnunetv2_malenia.files.json_files import json_path

__all__ = [
    "MAX_TABLE_BYTES",
    "Vocabulary",
    "clinical_knowledge_table",
    "indistinguishable_lesions",
    "json_schema",
    "json_schema_text",
    "parse_table",
    "queries",
    "read_table",
    "resolve_label_attributes",
    "table_file",
    "table_to_dict",
    "vocabulary",
    "write_table",
]
MAX_TABLE_BYTES = 16 * 2**20
_EXAMPLE = '{"lesions": {"kidney tumor": {"location": ["left kidney", "right kidney"], "density": "hypodense"}}}'
_EXPECTED = {"string_type": "a string", "tuple_type": "a string or a list of strings"}


def read_table(path: str | os.PathLike[str]) -> AttributeTable:
    """Read and check an attribute table (JSON, UTF-8).

    Raises AttributeTableError, in one line: the file, the path inside it, the bad value, the closest valid ones and
    what to do; with more than one fault the first is told and the others are counted.
    """
    content = read_json(Path(path), error=AttributeTableError, max_bytes=MAX_TABLE_BYTES)
    return parse_table(content, source=os.fspath(path))


def table_file(name_or_path: str) -> Path:
    """The path as it is given, or that of a table that ships: a name alone, of no existing file.

    Raises AttributeTableError, naming the shipped tables, if there is none of that name.
    """
    path = Path(name_or_path)
    if path.exists() or path.name != name_or_path or path.suffix:
        return path
    shipped = Path(str(files("nnunetv2_malenia.attribute_tables")))
    names = [each.stem for each in (shipped / "clinical_knowledge_table.json", shipped / "msd_kits_annotations.json")]
    if name_or_path not in names:
        raise AttributeTableError(
            f"there is neither a file nor a shipped table {path.name!r}; shipped: {', '.join(names)}"
        )
    return shipped / f"{path.name}.json"


def parse_table(data: object, *, source: str = "attribute table") -> AttributeTable:
    """Check a table that is already parsed JSON; `source` is what an AttributeTableError names as its file."""
    if not isinstance(data, Mapping):
        raise AttributeTableError(f"{source}: expected an object, got {_show(data)}; write e.g. {_EXAMPLE}")
    data = {key: value for key, value in data.items() if key != "$schema"}
    try:
        return AttributeTable.model_validate(data)
    except ValidationError as error:
        first, *others = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        more = f" (+{len(others)} more)" if others else ""
        raise AttributeTableError(f"{source}: {_describe(first, data)}{more}") from None


def table_to_dict(table: AttributeTable) -> dict[str, Any]:
    """The JSON form of a table: what is empty is left out, a single value is a string. Undone by parse_table."""
    head = {"name": table.name, "description": table.description, "license": table.license}
    lesions = {name: _lesion_to_dict(entry) for name, entry in table.lesions.items()}
    cases = {case_id: _case_to_dict(case) for case_id, case in table.cases.items()}
    return (
        {key: value for key, value in head.items() if value}
        | {"lesions": lesions}
        | ({"cases": cases} if cases else {})
    )


def write_table(table: AttributeTable, path: str | os.PathLike[str]) -> None:
    """Write a table as JSON, whole or not at all."""
    write_json(path, table_to_dict(table))


@cache
def clinical_knowledge_table() -> AttributeTable:
    """The Clinical Knowledge Table that ships with the package: diseases -> attributes, with a reference per row."""
    name = "clinical_knowledge_table.json"
    text = files("nnunetv2_malenia.attribute_tables").joinpath(name).read_text(encoding="utf-8")
    return parse_table(json.loads(text), source=name)


def queries(table: AttributeTable) -> list[LesionQuery]:
    """One query per lesion type, in the table's order, from the class-level attributes.

    Types that only cases describe are left out: they would ask for any lesion.
    """
    return [
        LesionQuery(name=name, attributes=entry.attributes) for name, entry in table.lesions.items() if entry.stated
    ]


def resolve_label_attributes(label_names: Iterable[str], table: AttributeTable | None = None) -> dict[str, LesionEntry]:
    """The entry of every label that names a lesion: from the given table, else from the Clinical Knowledge Table.

    Keys are the labels as given, in their order. A label in neither (an organ, the background) is left out.
    """
    tables = [clinical_knowledge_table()] if table is None else [table, clinical_knowledge_table()]
    found: dict[str, LesionEntry] = {}
    for label in label_names:
        hits = ((each, each.find(label)) for each in tables)
        if entry := next((each.lesions[name] for each, name in hits if name is not None), None):
            found[label] = entry
    return found


def indistinguishable_lesions(table: AttributeTable) -> list[tuple[str, str]]:
    """Pairs of lesion types that no aspect tells apart: none that both state without a value that fits both."""
    return [(a, b) for a, b in combinations(table.lesions, 2) if not _are_apart(table.lesions[a], table.lesions[b])]


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a table file, for editors: it completes the vocabulary and allows free text."""
    text = {"type": "string"}
    names = _one_or_many(_text_schema(MAX_NAME_LENGTH))
    references = _one_or_many(_text_schema(MAX_REFERENCE_LENGTH)) | {"description": "Where the values come from."}
    aspects = {aspect: {"$ref": f"#/$defs/{aspect}"} for aspect in ASPECTS}
    lesion = _object_schema(aspects | {"aliases": names, "references": references})
    case = _object_schema({"annotated": names, "lesions": _map_schema(_object_schema(aspects))})
    table = {
        "$schema": text,
        "name": text,
        "description": text,
        "license": text,
        "lesions": _map_schema(lesion) | {"minProperties": 1, "description": "Lesion type -> attributes."},
        "cases": _map_schema(case) | {"description": "Case id -> what holds for that case only."},
    }
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Attribute table"}
    definitions = {"$defs": {aspect: _aspect_schema(aspect) for aspect in ASPECTS}}
    return head | _object_schema(table) | {"required": ["lesions"]} | definitions


def json_schema_text() -> str:
    """`json_schema` as the text of a file."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _aspect_schema(aspect: str) -> dict[str, Any]:
    phrase = {"anyOf": [{"enum": list(vocabulary().values(aspect))}, _text_schema(MAX_PHRASE_LENGTH)]}
    return {"description": vocabulary().aspects[aspect].about} | _one_or_many(phrase)


def _object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _map_schema(entry: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": entry}


def _text_schema(max_length: int) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": max_length}


def _one_or_many(item: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [item, {"type": "array", "items": item}]}


def _are_apart(a: AspectValues, b: AspectValues) -> bool:
    overlap = vocabulary().overlap
    return any(
        not any(overlap(aspect, value, other) for value in a.stated[aspect] for other in b.stated[aspect])
        for aspect in a.stated.keys() & b.stated.keys()
    )


def _aspects_to_dict(values: AspectValues) -> dict[str, Any]:
    return {aspect: list(stated) if len(stated) > 1 else stated[0] for aspect, stated in values.stated.items()}


def _lesion_to_dict(entry: LesionEntry) -> dict[str, Any]:
    aliases = {"aliases": list(entry.aliases)} if entry.aliases else {}
    references = {"references": list(entry.references)} if entry.references else {}
    return aliases | _aspects_to_dict(entry) | references


def _case_to_dict(case: CaseEntry) -> dict[str, Any]:
    annotated = {} if case.annotated is None else {"annotated": list(case.annotated)}
    lesions = {name: _aspects_to_dict(values) for name, values in case.lesions.items()}
    return annotated | ({"lesions": lesions} if lesions else {})


def _show(value: object) -> str:
    """A value as JSON writes it, shortened."""
    return shorten(json.dumps(value, default=repr), width=80, placeholder=" ...") if value != "" else '""'


def _describe(error: ErrorDetails, data: Mapping[str, Any]) -> str:
    """One of pydantic's findings as `path: what is wrong; what to do`, the path being that of the file."""
    path: list[object] = []
    value: object = data
    for step in error["loc"]:
        if not (isinstance(value, Mapping) and step in value) and not (isinstance(value, list) and step != "[key]"):
            break
        path.append(step)
        value = value[step]
    where = f"{json_path(path)}: " if path else ""
    if error["type"] == "missing":
        return f"{where}the entry {error['loc'][-1]!r} is missing; write e.g. {_EXAMPLE}"
    if error["type"] == "extra_forbidden":
        return f"{where}{_unknown_key(str(path[-1]), path)}"
    if error["type"] == "too_short":
        return f"{where}no lesion is given; write e.g. {_EXAMPLE}"
    if error["type"] == "value_error":
        return f"{where}{error['ctx']['error']}"
    expected = _EXPECTED.get(error["type"], "an object")
    return f"{where}expected {expected}, got {_show(value)}; correct it or leave it out"


def _unknown_key(key: str, path: list[object]) -> str:
    model = _model_at(path)
    known = list(model.model_fields)
    what = "aspect" if issubclass(model, AspectValues) else "entry"
    near = closest(key, known)
    hint = f"closest: {', '.join(near)}" if near else f"known: {', '.join(known)}"
    return f"unknown {what} {_show(key)} ({hint}); rename it or take it out"


def _model_at(path: list[object]) -> type[BaseModel]:
    """The model that a path's last key is looked up in."""
    match path:
        case ["lesions", _, _]:
            return LesionEntry
        case ["cases", _, "lesions", _, _]:
            return AspectValues
        case ["cases", _, _]:
            return CaseEntry
        case _:
            return AttributeTable

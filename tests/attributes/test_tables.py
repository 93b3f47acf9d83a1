"""Attribute tables as files: what is read is what was written, and every fault gets one line that helps."""

import copy
import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_malenia.attributes import tables
from nnunetv2_malenia.attributes.schema import ASPECTS, AttributeTable, AttributeTableError, lesion_key
from nnunetv2_malenia.attributes.tables import (
    clinical_knowledge_table,
    indistinguishable_lesions,
    json_schema,
    parse_table,
    queries,
    read_table,
    resolve_label_attributes,
    table_to_dict,
    write_table,
)
from nnunetv2_malenia.attributes.vocabulary import vocabulary

EXAMPLE = {
    "lesions": {
        "kidney tumor": {
            "aliases": ["renal mass"],
            "location": ["left kidney", "right kidney"],
            "shape": "round-like",
            "references": ["A book, page 3"],
        },
        "liver cyst": {"location": "liver"},
    },
    "cases": {
        "case_00001": {
            "annotated": ["kidney", "kidney tumor"],
            "lesions": {"kidney tumor": {"location": "left kidney"}},
        },
        "case_00002": {"annotated": []},
    },
}


def changed(*path: str, value: object) -> dict:
    """EXAMPLE with one entry set."""
    data = copy.deepcopy(EXAMPLE)
    node = data
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    return data


def fault(tmp_path, content: object) -> str:
    """The message that reading this content gives."""
    path = tmp_path / "table.json"
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    path.write_bytes(content)
    with pytest.raises(AttributeTableError) as error:
        read_table(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable(), "one line, without control characters"
    return message.removeprefix(f"{path}: ")


# ------------------------------------------------------------------------------------------------ round trip

texts = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), min_size=1, max_size=12).filter(
    str.strip
)
phrases = st.one_of(texts, st.sampled_from([value for _, value in vocabulary().phrases()]))
aspects = st.fixed_dictionaries({}, optional={name: st.lists(phrases, min_size=1, max_size=3) for name in ASPECTS})


@st.composite
def attribute_tables(draw) -> AttributeTable:
    names = draw(st.lists(texts, min_size=1, max_size=3, unique_by=lesion_key))
    lesions = {
        name: draw(aspects) | {"shape": draw(phrases), "references": draw(st.lists(texts, max_size=2))}
        for name in names
    }
    case = st.builds(
        lambda annotated, values: {"annotated": annotated, "lesions": {names[0]: values}},
        st.none() | st.lists(texts, max_size=2),
        aspects,
    )
    case_ids = draw(st.lists(st.from_regex(r"[A-Za-z0-9_.]{1,8}", fullmatch=True), max_size=2, unique=True))
    return AttributeTable(
        name=draw(st.text(max_size=5)), lesions=lesions, cases={case_id: draw(case) for case_id in case_ids}
    )


@given(attribute_tables())
def test_table_to_json_to_table_is_the_identity(table):
    assert parse_table(json.loads(json.dumps(table_to_dict(table)))) == table


def test_writing_and_reading_is_the_identity(tmp_path):
    table = parse_table(EXAMPLE)
    write_table(table, tmp_path / "table.json")
    assert read_table(tmp_path / "table.json") == table
    assert os.listdir(tmp_path) == ["table.json"]


def test_the_json_form_is_as_short_as_a_hand_would_write_it():
    assert table_to_dict(parse_table(EXAMPLE)) == EXAMPLE


def test_a_failed_write_leaves_the_old_table_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "table.json"
    path.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(tables.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_table(parse_table(EXAMPLE), path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["table.json"]


def test_a_byte_order_mark_and_a_schema_reference_are_allowed(tmp_path):
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"$schema": "x.json"} | EXAMPLE), encoding="utf-8-sig")
    assert read_table(path) == parse_table(EXAMPLE)


# ------------------------------------------------------------------------------------------------ faults

LESION = ("lesions", "kidney tumor")
CASE = ("cases", "case_00001")
FAULTS = [
    (changed(*LESION, "densty", value="x"), "lesions/kidney tumor/densty: unknown aspect.*closest: density"),
    (changed(*LESION, "colour", value="x"), "lesions/kidney tumor/colour: unknown aspect"),
    (changed(*CASE, "annotatd", value=[]), "cases/case_00001/annotatd: unknown entry.*closest: annotated"),
    (
        changed(*CASE, "lesions", "kidney tumor", "aliases", value="x"),
        "cases/case_00001/lesions/kidney tumor/aliases: unknown aspect.*known: location",
    ),
    (changed("lesion", value={}), "lesion: unknown entry.*closest: lesions"),
    (changed(*LESION, "shape", value=3), "lesions/kidney tumor/shape: expected a string or a list of strings, got 3"),
    (changed(*LESION, "shape", value=None), "lesions/kidney tumor/shape: .* got null"),
    (changed(*LESION, "shape", value=["x", 3]), "lesions/kidney tumor/shape/1: expected a string, got 3"),
    (changed(*LESION, "shape", value={"a": 1}), 'lesions/kidney tumor/shape: .* got {"a": 1}'),
    (changed(*LESION, "shape", value=" "), "lesions/kidney tumor/shape: empty phrase; .*leave the aspect out"),
    (changed(*LESION, "shape", value=["x", ""]), "lesions/kidney tumor/shape/1: empty phrase"),
    (changed(*LESION, "shape", value="x" * 201), "lesions/kidney tumor/shape: phrase of 201 .* at most 200"),
    (changed(*LESION, "shape", value="\x1b[31m"), "lesions/kidney tumor/shape: .*control characters"),
    (changed("lesions", "\x1bname", value={"shape": "x"}), r"lesions/.*u001bname.*control characters"),
    (changed("lesions", "x" * 101, value={"shape": "x"}), "text of 101 characters; at most 100"),
    (changed("lesions", " ", value={"shape": "x"}), "lesions/ : empty"),
    (
        changed("lesions", "Kidney_Tumour", value={"shape": "x"}),
        "lesions/Kidney_Tumour: the same name as 'kidney tumor'",
    ),
    (changed("lesions", "kidney  tumor", value={"shape": "x"}), "'kidney tumor' appears twice, with different spaces"),
    (
        changed("lesions", "liver cyst", value={"aliases": "x"}),
        "lesions/liver cyst: no aspect is stated; add at least one",
    ),
    (changed("lesions", "liver cyst", value=["liver"]), r'lesions/liver cyst: expected an object, got \["liver"\]'),
    (
        changed("lesions", "liver cyst", value={"location": "liver", "aliases": ["Renal-Mass"]}),
        "lesions/liver cyst/aliases: 'Renal-Mass' also stands for 'kidney tumor'",
    ),
    (
        changed("lesions", "liver cyst", value={"location": "liver", "aliases": ["kidney tumor"]}),
        "lesions/liver cyst/aliases: 'kidney tumor' also stands for 'kidney tumor'",
    ),
    (
        changed(*CASE, "lesions", value={"kidny tumor": {}}),
        "cases/case_00001/lesions/kidny tumor: not a lesion of this .*closest: 'kidney tumor'.*add it under lesions",
    ),
    (
        changed(*CASE, "lesions", value={"kidney tumor": {}, "renal mass": {}}),
        "cases/case_00001/lesions/renal mass: the same lesion as 'kidney tumor'",
    ),
    (changed(*CASE, "annotated", value=True), "cases/case_00001/annotated: expected a string or a list.* got true"),
    (changed("lesions", value={}), "lesions: no lesion is given; write e.g."),
    (changed("lesions", value=[1]), r"lesions: expected an object, got \[1\]"),
    ({"name": "x"}, "the entry 'lesions' is missing; write e.g."),
    ([], r"expected an object, got \[\]; write e.g."),
    ("null", "expected an object, got null"),
    ("", "not JSON at line 1, column 1"),
    ('{"lesions":\n {"a": }}', "not JSON at line 2, column 8: Expecting value; correct it"),
    ('{"lesions": {"a": {"shape": NaN}}}', "NaN is not valid JSON"),
    ('{"lesions": {"a": {"shape": "x"}, "a": {"shape": "y"}}}', "lesions/a: appears twice in the same object"),
    ('{"lesions": {"a": {"shape": "x", "shape": "y"}}}', "lesions/a/shape: appears twice"),
    ("[" * 100_000, "nested too deeply"),
    ("1" * 5000, "not JSON|expected an object"),
    (b'{"lesions": "\xff"}', "byte 13 is not UTF-8; save the file as UTF-8"),
]


@pytest.mark.parametrize(("content", "message"), FAULTS, ids=[message[:60] for _, message in FAULTS])
def test_a_fault_is_told_in_one_line_with_its_path(tmp_path, content, message):
    assert re.search(message, fault(tmp_path, content))


def test_of_several_faults_the_first_is_told_and_the_others_are_counted(tmp_path):
    content = changed(*LESION, "densty", value="x")
    content["lesions"]["liver cyst"]["shape"] = ["", 4]
    message = fault(tmp_path, content)
    assert "densty" in message
    assert message.endswith("(+2 more)")
    assert "more)" not in fault(tmp_path, changed(*LESION, "densty", value="x"))


def test_a_long_value_is_shortened(tmp_path):
    assert len(fault(tmp_path, changed(*LESION, "shape", value={"a" * 5000: "b"}))) < 250


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(AttributeTableError, match=r"none\.json: does not exist"):
        read_table(tmp_path / "none.json")
    with pytest.raises(AttributeTableError, match="is a directory"):
        read_table(tmp_path)


def test_a_file_beyond_the_size_cap_is_refused_unparsed(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 2**20)
    (tmp_path / "table.json").write_bytes(b"[" * (2**20 + 1))
    with pytest.raises(AttributeTableError, match="larger than 1 MB"):
        read_table(tmp_path / "table.json")


def test_parsed_data_are_checked_under_the_name_of_their_source():
    with pytest.raises(AttributeTableError, match=r"^plans: lesions/a/densty: unknown aspect"):
        parse_table({"lesions": {"a": {"densty": "x"}}}, source="plans")


# ------------------------------------------------------------------------------------------------ look-up


def test_there_is_one_query_per_lesion_type_in_the_order_of_the_table():
    found = queries(parse_table(EXAMPLE))
    assert [query.name for query in found] == ["kidney tumor", "liver cyst"]
    assert found[0].attributes.location == ("left kidney", "right kidney")


def test_labels_are_looked_up_in_the_own_table_first():
    own = parse_table({"lesions": {"my lump": {"aliases": ["kidney tumor"], "shape": "irregular"}}})
    found = resolve_label_attributes(["background", "kidney", "kidney_tumor", "hepatic cyst"], own)
    assert list(found) == ["kidney_tumor", "hepatic cyst"]
    assert found["kidney_tumor"] == own.lesions["my lump"]
    assert found["hepatic cyst"] == clinical_knowledge_table().lesions["liver cyst"]


def test_without_a_table_labels_are_looked_up_in_the_clinical_knowledge_table():
    assert list(resolve_label_attributes(["liver", "liver tumour", "cancer"])) == ["liver tumour"]
    assert resolve_label_attributes([]) == {}


@pytest.mark.parametrize(
    ("a", "b", "is_apart"),
    [
        ({"location": "liver"}, {"location": "kidney"}, True),
        ({"location": "kidney"}, {"location": "left kidney"}, False),
        ({"location": "left kidney"}, {"location": "right kidney"}, True),
        ({"location": "liver"}, {"shape": "irregular"}, False),
        ({"shape": ["irregular", "round-like"]}, {"shape": "round-like"}, False),
        ({"density": "hypodense"}, {"density": "fluid density"}, False),
        ({"location": "liver", "surface": "well-defined"}, {"location": "liver", "surface": "ill-defined"}, True),
    ],
)
def test_lesions_are_apart_when_one_aspect_has_no_value_that_fits_both(a, b, is_apart):
    table = parse_table({"lesions": {"a": a, "b": b}})
    assert indistinguishable_lesions(table) == ([] if is_apart else [("a", "b")])


# ------------------------------------------------------------------------------------------------ JSON Schema


def is_valid(data: object) -> bool:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(json_schema())
    return jsonschema.Draft202012Validator(json_schema()).is_valid(data)


def test_the_schema_accepts_what_the_code_accepts():
    assert is_valid(EXAMPLE)
    assert is_valid({"$schema": "x"} | table_to_dict(clinical_knowledge_table()))
    assert is_valid(changed(*LESION, "density", value="my own words"))
    assert is_valid(changed(*CASE, "annotated", value="kidney"))
    assert parse_table(changed(*CASE, "annotated", value="kidney")).cases["case_00001"].annotated == ("kidney",)


@pytest.mark.parametrize("path", [(*LESION, "densty"), (*CASE, "annotatd"), ("lesion",)])
def test_the_schema_refuses_unknown_entries(path):
    assert not is_valid(changed(*path, value="x"))


@pytest.mark.parametrize("value", [3, None, "", [""], ["x", 3], "x" * 201])
def test_the_schema_refuses_wrong_values(value):
    assert not is_valid(changed(*LESION, "shape", value=value))


def test_the_schema_offers_the_vocabulary():
    offered = json_schema()["$defs"]["density"]["anyOf"][0]["anyOf"][0]["enum"]
    assert tuple(offered) == vocabulary().values("density")

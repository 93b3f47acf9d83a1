"""Attribute tables as objects: cleaning, aliases, overrides per case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nnunetv2_malenia.attributes.schema import (
    ASPECTS,
    AspectValues,
    AttributeTable,
    AttributeTableError,
    LesionEntry,
    LesionQuery,
    has_laterality,
    lesion_key,
)
from nnunetv2_malenia.attributes.vocabulary import loose_key, vocabulary


@pytest.fixture
def table() -> AttributeTable:
    return AttributeTable(
        lesions={
            "kidney tumor": {
                "aliases": ["renal mass"],
                "location": ["left kidney", "right kidney"],
                "shape": "round-like",
                "density": "isodense",
            },
            "liver cyst": {"location": "liver", "density": "fluid density"},
        },
        cases={
            "case_1": {
                "annotated": ["kidney", "kidney tumor"],
                "lesions": {"Renal Mass": {"location": "left kidney", "surface": "ill-defined"}},
            },
            "case_2": {"annotated": []},
        },
    )


def test_a_string_and_a_list_of_one_mean_the_same():
    assert AspectValues(shape="irregular") == AspectValues(shape=["irregular"]) == AspectValues(shape=("irregular",))


def test_phrases_are_cleaned_resolved_and_kept_once():
    values = AspectValues(density=[" Hypo-Attenuating", "low density", "HYPODENSE", "slightly  Dense"])
    assert values.density == ("hypodense", "slightly dense")


def test_a_synonym_is_resolved_in_its_own_aspect_only():
    values = AspectValues(shape="lobulated margin", specific_features="lobulated margin")
    assert values.shape == ("lobulated margin",)
    assert values.specific_features == ("lobulation",)


def test_stated_leaves_out_what_is_unspecified_and_keeps_the_order_of_aspects():
    values = AspectValues(surface="ill-defined", location="liver", shape=[])
    assert values.stated == {"location": ("liver",), "surface": ("ill-defined",)}
    assert list(values.stated) == ["location", "surface"]
    assert AspectValues().stated == {}


def test_attributes_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        AspectValues().shape = ("irregular",)


def test_an_unknown_aspect_is_refused():
    with pytest.raises(ValidationError, match="densty"):
        AspectValues(densty="hypodense")


def test_lesion_attributes_are_without_aliases_and_references():
    entry = LesionEntry(shape="irregular", aliases="a", references="b")
    assert type(entry.attributes) is AspectValues
    assert entry.attributes == AspectValues(shape="irregular")


@pytest.mark.parametrize("name", ["kidney tumor", "Kidney_Tumour", "kidney-tumor", "renal mass", "RENAL  MASS"])
def test_a_lesion_is_found_by_name_or_alias_in_any_spelling(table, name):
    assert table.find(name) == "kidney tumor"


@pytest.mark.parametrize("name", ["tumor", "kidney", "", "kidney tumors"])
def test_what_only_resembles_a_name_is_not_found(table, name):
    assert table.find(name) is None


def test_a_case_replaces_the_aspects_that_it_states_and_no_others(table):
    attributes = table.attributes_of("renal mass", "case_1")
    assert attributes.location == ("left kidney",)
    assert attributes.surface == ("ill-defined",)
    assert attributes.shape == ("round-like",)
    assert attributes.density == ("isodense",)


@pytest.mark.parametrize("case_id", [None, "case_2", "unheard of"])
def test_without_an_override_a_case_has_the_attributes_of_the_type(table, case_id):
    assert table.attributes_of("kidney tumor", case_id) == table.lesions["kidney tumor"].attributes


def test_annotated_distinguishes_nothing_from_everything(table):
    assert table.cases["case_2"].annotated == ()
    assert AttributeTable(lesions={"a": {"shape": "x"}}, cases={"c": {}}).cases["c"].annotated is None


def test_asking_for_a_missing_lesion_names_the_closest(table):
    with pytest.raises(AttributeTableError, match=r"'kidny tumor'.*closest: 'kidney tumor'"):
        table.attributes_of("kidny tumor")


def test_phrases_are_distinct_by_aspect_and_then_by_first_use(table):
    assert table.phrases() == [
        ("location", "left kidney"),
        ("location", "right kidney"),
        ("location", "liver"),
        ("shape", "round-like"),
        ("density", "isodense"),
        ("density", "fluid density"),
        ("surface", "ill-defined"),
    ]


def test_laterality_is_a_word_and_not_a_part_of_one():
    assert has_laterality([AspectValues(location="liver"), AspectValues(location="left kidney")])
    assert has_laterality([AspectValues(specific_features="mass effect to the right")])
    assert has_laterality([AspectValues(location="left_flank")])
    assert has_laterality([AspectValues(location="descending colon")])
    assert not has_laterality([AspectValues(location="transverse colon")])
    assert not has_laterality([AspectValues(location="liver", shape="upright cleft")])
    assert not has_laterality([])


def test_a_query_is_hashable_and_checked():
    query = LesionQuery(name=" kidney  tumor ", attributes=AspectValues(shape="irregular"))
    assert query.name == "kidney tumor"
    assert len({query, query}) == 1


@given(aspect=st.sampled_from(ASPECTS), data=st.data())
def test_every_spelling_of_a_synonym_gives_its_value(aspect, data):
    value = data.draw(st.sampled_from(vocabulary().values(aspect)))
    phrase = data.draw(st.sampled_from((value, *vocabulary().synonyms(aspect, value))))
    separator = data.draw(st.sampled_from([" ", "-", "_", "  "]))
    spelt = data.draw(st.sampled_from([str.upper, str.title, str.lower]))(phrase.replace(" ", separator))
    assert getattr(AspectValues(**{aspect: f" {spelt} "}), aspect) == (value,)


@given(st.text())
def test_keys_do_not_change_when_taken_twice(text):
    assert loose_key(loose_key(text)) == loose_key(text)
    assert lesion_key(lesion_key(text)) == lesion_key(text)

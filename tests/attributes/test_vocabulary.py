"""The controlled vocabulary: one meaning per phrase, and a value for every code of the published annotation."""

from collections import Counter

import pytest
from pydantic import ValidationError

from nnunetv2_malenia.attributes.vocabulary import (
    ASPECTS,
    AspectVocabulary,
    Vocabulary,
    clean_phrase,
    loose_key,
    vocabulary,
)

KIDNEY = ["left kidney", "right kidney"]
LIVER = ["left liver", "right liver"]
PANCREAS = ["pancreatic head", "pancreatic body", "pancreatic tail"]
COLON = ["ascending colon", "transverse colon", "descending colon", "sigmoid", "rectum"]
LUNG = ["left upper lobe", "left lower lobe", "right upper lobe", "right middle lobe", "right lower lobe"]
PUBLISHED_CODES = {
    "enhancement": ["Non-contrast CT", "Contrast-enhanced CT"],
    "location": [*KIDNEY, *LIVER, *PANCREAS, *COLON, *LUNG],
    "shape": ["round-like", "irregular"],
    "density": ["hypodense", "isodense", "hyperdense", "ground glass + soft tissue"],
    "density_variation": ["homogeneous", "heterogeneous"],
    "surface": ["well-defined", "ill-defined"],
    "relationship": ["not close", "close, boundary unclear"],
}


def test_aspects_come_in_the_documented_order():
    assert tuple(vocabulary().aspects) == ASPECTS
    assert ASPECTS[0] == "location"
    assert ASPECTS[-1] == "specific_features"


@pytest.mark.parametrize("aspect", ASPECTS)
def test_no_phrase_of_an_aspect_is_written_twice(aspect):
    content = vocabulary().aspects[aspect].values
    written = Counter(loose_key(phrase) for value, synonyms in content.items() for phrase in (value, *synonyms))
    assert [key for key, count in written.items() if count > 1] == []


@pytest.mark.parametrize("aspect", PUBLISHED_CODES)
def test_each_published_code_has_a_value_of_its_own(aspect):
    values = [vocabulary().resolve(aspect, phrase) for phrase in PUBLISHED_CODES[aspect]]
    assert set(values) <= set(vocabulary().values(aspect))
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("organ", ["liver", "kidney", "pancreas", "colon", "lung"])
def test_plain_organ_names_are_values(organ):
    assert organ in vocabulary().values("location")


@pytest.mark.parametrize(
    ("aspect", "phrase", "value"),
    [
        ("density", "Hypoattenuating", "hypodense"),
        ("density", "hypo-attenuating", "hypodense"),
        ("density", "low  density", "hypodense"),
        ("density", "low_attenuation", "hypodense"),
        ("density", "GGO", "ground-glass density"),
        ("surface", "well defined", "well-defined"),
        ("surface", "Poorly defined", "ill-defined"),
        ("enhancement", "CECT", "contrast-enhanced ct"),
        ("enhancement", "unenhanced CT", "non-contrast ct"),
        ("enhancement", "non-enhancing", "no enhancement"),
        ("location", "head of the pancreas", "pancreas head"),
        ("specific_features", "dilated pancreatic duct", "pancreatic duct dilatation"),
    ],
)
def test_synonyms_resolve_whatever_their_case_and_hyphens(aspect, phrase, value):
    assert vocabulary().resolve(aspect, phrase) == value


def test_opposites_stay_apart():
    resolve = vocabulary().resolve
    assert resolve("surface", "well-defined") != resolve("surface", "ill-defined")
    assert resolve("relationship", "not close") != resolve("relationship", "close")
    assert resolve("density", "hypoattenuating") != resolve("density", "hyperattenuating")


def test_free_text_comes_back_cleaned():
    assert vocabulary().resolve("shape", "  Dumb-bell   Shaped ") == "dumb-bell shaped"


def test_every_value_resolves_to_itself():
    assert [pair for pair in vocabulary().phrases() if vocabulary().resolve(*pair) != pair[1]] == []


def test_phrases_are_ordered_by_aspect():
    order = [ASPECTS.index(aspect) for aspect, _ in vocabulary().phrases()]
    assert order == sorted(order)
    assert len(set(vocabulary().phrases())) == len(order)


def test_closest_finds_a_misspelt_value_and_a_misspelt_synonym():
    assert vocabulary().closest("density", "hipodense")[0] == "hypodense"
    assert vocabulary().closest("density", "hypoatenuating")[0] == "hypodense"
    assert vocabulary().closest("density", "xyz") == []


def test_relative_and_absolute_density_may_describe_one_lesion():
    overlap = vocabulary().overlap
    assert overlap("density", "hypodense", "fluid density")
    assert overlap("density", "fluid density", "hypodense")
    assert not overlap("density", "hypodense", "hyperdense")
    assert not overlap("density", "fluid density", "calcific density")


def test_a_part_overlaps_its_whole_and_not_its_other_half():
    overlap = vocabulary().overlap
    assert overlap("location", "left kidney", "kidney")
    assert not overlap("location", "left kidney", "right kidney")
    assert not overlap("location", "kidney", "liver")


def test_an_unknown_aspect_is_refused():
    with pytest.raises(KeyError):
        vocabulary().resolve("colour", "red")


@pytest.mark.parametrize("phrase", ["", "  ", "x" * 201, "a\x1bb"])
def test_a_phrase_that_cannot_be_stored_is_refused(phrase):
    with pytest.raises(ValueError, match=r"phrase|control"):
        clean_phrase(phrase)


@pytest.mark.parametrize(
    ("values", "overlaps", "message"),
    [
        ({"a": ["c"], "b": ["c"]}, {}, "both 'a' and 'b'"),
        ({"a": ["x-y"], "b": ["x y"]}, {}, "both 'a' and 'b'"),
        ({"a": ["b"], "b": []}, {}, "both 'a' and 'b'"),
        ({"A": []}, {}, "clean form"),
        ({"a": []}, {"a": ["b"]}, "'b', which is not a value"),
    ],
)
def test_a_vocabulary_in_which_a_phrase_is_ambiguous_is_refused(values, overlaps, message):
    with pytest.raises(ValidationError, match=message):
        AspectVocabulary(about="", values=values, overlaps=overlaps)


def test_a_vocabulary_must_have_all_aspects():
    with pytest.raises(ValidationError, match="in this order"):
        Vocabulary(aspects={"location": AspectVocabulary(about="", values={})})

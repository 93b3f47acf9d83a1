"""Sentences, negation, doubt and measurements in the English of reports."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_malenia.attributes.report_cues import Assertion
from nnunetv2_malenia.attributes.report_grammar import assertion, diameters_mm, normalised, sentences


def said(sentence: str, mention: str, **options) -> Assertion:
    start = sentence.index(mention)
    return assertion(sentence, start, start + len(mention), **options)


@pytest.mark.parametrize(
    "sentence",
    [
        "there is calcification.",
        "not only necrosis but also calcification is seen.",
        "no change; calcification is seen.",
        "no enhancement but calcification.",
        "no necrosis is seen within the lesion, calcification is.",
        "the lesion is not round and shows calcification.",
        "no fluid with calcification.",
        "no necrosis, marked calcification.",
        "no fat and a calcification.",
        "necrosis is absent, calcification is present.",
        "there is no doubt of calcification.",
        "non-homogeneous calcification.",
        "not without calcification.",
        "calcification: present, necrosis: absent.",
        "calcification present and necrosis absent.",
        "no enhancement in the coarse calcification.",
        "no abnormality other than calcification.",
        "no necrosis; calcification: yes.",
        "no significant interval change of calcification.",
        "no increase in the calcification.",
        "calcification, not seen on the previous ct.",
        "calcification (previously none).",
        "previously described calcification is unchanged.",
        "calcification has partially resolved.",
        "calcification (+), necrosis (-).",
        "calcification (necrosis: none).",
    ],
)
def test_what_stands_outside_a_negation_is_affirmed(sentence):
    assert said(sentence, "calcification", in_lists=True) is Assertion.AFFIRMED


@pytest.mark.parametrize(
    "sentence",
    [
        "no calcification.",
        "without any coarse calcification.",
        "there is no evidence of calcification.",
        "absence of calcification.",
        "negative for calcification.",
        "no fat, necrosis or calcification.",
        "no fat, calcification, or necrosis.",
        "no fat and calcification.",
        "neither fat nor calcification is seen.",
        "calcification is not seen.",
        "calcification was not clearly identified.",
        "calcification is absent.",
        "calcification and fat are absent.",
        "calcification is ruled out.",
        "non-calcification.",
        "the lesion doesn't contain calcification.",
        "calcification is unlikely.",
        "calcification: none.",
        "calcification - no.",
        "calcification (-), necrosis (+).",
        "calcification: -",
        "(-) calcification, (+) necrosis.",
        "calcification = 0.",
        "two lesions, none with calcification.",
        "calcification: none is seen.",
        "calcification nil.",
        "calcification -ve.",
        "calcification: neg.",
        "neg. for calcification.",
        "calcification? none.",
        "calcification and fat: none.",
        "calcification/fat: none.",
        "calcification, fat and necrosis are not seen.",
        "calcification cannot be seen.",
        "calcification is no longer visible.",
        "no longer shows calcification.",
        "the previously described calcification is not seen any more.",
        "calcification that was seen on the previous ct has now resolved.",
        "interval resolution of the calcification.",
        "the calcification is gone.",
        "status post resection of the calcification.",
        "neither kidney shows calcification.",
        "no definite evidence of calcification.",
        "no suspicion of calcification.",
        "ct excludes calcification.",
        "no macroscopic fat, internal hemorrhage, thick septation, mural nodule, cavity or calcification.",
    ],
)
def test_a_negation_reaches_what_it_denies(sentence):
    assert said(sentence, "calcification", in_lists=True) is Assertion.NEGATED


@pytest.mark.parametrize(
    "sentence",
    [
        "possible calcification.",
        "possibly with a calcification.",
        "calcification cannot be excluded.",
        "suspicious for calcification.",
        "there may be calcification.",
        "unclear whether calcification.",
        "cannot exclude calcification.",
        "calcification is suspected.",
        "calcification?",
        "no fat, necrosis and calcification.",
        "calcification, fat: none.",
        "calcification: yes/no.",
        "calcification: not assessable.",
        "calcification could not be excluded.",
        "calcification has almost completely resolved.",
        "probably no calcification.",
        "fat rather than calcification.",
        "[ ] calcification",
    ],
)
def test_doubt_is_neither_yes_nor_no(sentence):
    assert said(sentence, "calcification", in_lists=True) is Assertion.UNCERTAIN


@pytest.mark.parametrize(
    "sentence",
    [
        "formerly calcification.",
        "previously calcification, now fat.",
        "previously, the lesion was of calcification.",
        "calcification on the previous ct.",
        "in 2019 calcification.",
        "was calcification and is now fat.",
        "has changed from calcification to fat.",
        "used to have calcification.",
    ],
)
def test_what_was_so_is_not_said_to_be_so(sentence):
    assert said(sentence, "calcification", in_lists=True) is Assertion.PAST
    assert (
        said(sentence.replace("calcification", "density").replace("fat", "calcification"), "density") is Assertion.PAST
    )


@pytest.mark.parametrize("now", ["formerly fat, now calcification.", "has changed from fat to calcification."])
def test_what_is_so_now_is_affirmed(now):
    assert said(now, "calcification", in_lists=True) is Assertion.AFFIRMED


def test_only_signs_are_listed_after_one_no():
    assert said("no necrosis and homogeneous density.", "homogeneous") is Assertion.AFFIRMED
    assert said("the lesion is ill-defined and calcification is absent.", "ill-defined") is Assertion.AFFIRMED


def test_a_negation_inside_a_mention_denies_it_unless_it_belongs_to_it():
    assert said("duct is not dilated.", "duct is not dilated") is Assertion.NEGATED
    assert said("no enhancement.", "no enhancement", includes_denial=True) is Assertion.AFFIRMED


def test_sentences_end_at_full_stops_semicolons_blank_lines_items_and_headings():
    text = "one of 3.2 cm. two; three\n\nfour\n- five\nliver: six\nand seven"
    assert [each.text.strip(" .;-") for each in sentences(text)] == [
        "one of 3.2 cm", "two", "three", "four", "five", "liver: six and seven",
    ]  # fmt: skip


def test_abbreviations_end_no_sentence():
    assert len(sentences("approx. 3 cm vs. 2 cm before, e.g. in no. 3, neg. for fat")) == 1
    assert len(sentences("fat: no. gas: no.")) == 2


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\u2028", "\x85"])
@pytest.mark.parametrize("lines", [("fat: no", "gas: no"), ("fat no", "gas no"), ("fat | none", "gas | none")])
def test_lines_that_answer_are_sentences(separator, lines):
    assert [each.text.strip() for each in sentences(normalised(separator.join(lines)).text)] == list(lines)


@pytest.mark.parametrize(
    "answer", [". none.", "? no.", ":\n- none", ". it is no longer seen.", ". these have resolved."]
)
def test_an_answer_belongs_to_the_sentence_before(answer):
    assert len(sentences(f"fat{answer}\ngas: yes")) == 2


@settings(deadline=None)
@given(st.text())
def test_sentences_keep_every_character_at_its_offset(report):
    text = normalised(report).text
    for sentence in sentences(text):
        assert text[sentence.start :].replace("\n", " ").startswith(sentence.text)


@settings(deadline=None)
@given(st.text())
def test_normalising_keeps_track_of_the_report_and_is_done_once(report):
    normal = normalised(report)
    assert len(normal.offsets) == len(normal.text) + 1
    assert list(normal.offsets) == sorted(normal.offsets)
    assert normalised(normal.text).text == normal.text


def test_spans_are_those_of_the_report():
    report = "A  Well\u2011defined\n  MASS"
    normal = normalised(report)
    assert normal.text == "a well-defined\nmass"
    assert normal.span(2, 14) == (3, 15)
    assert report[slice(*normal.span(15, 19))] == "MASS"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("measures 2.9 x 2.4 cm", [(29.0, 24.0)]),
        ("measures 2.9 \u00d7 2.4 \u00d7 3 cm", [(29.0, 24.0, 30.0)]),
        ("2.9cm x 2.4cm", [(29.0, 24.0)]),
        ("a 12-mm nodule and one of 3,5 mm", [(12.0,), (3.5,)]),
        ("15 hu, segment 4, 3 lesions", []),
    ],
)
def test_measurements_come_in_mm(text, expected):
    assert [lengths for _, _, lengths in diameters_mm(text)] == expected

"""Names and sentences become queries, and what was not understood is told."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_malenia.attributes.asking import ANY_LESION, AskingError, understand
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table

TABLE = clinical_knowledge_table()


@pytest.mark.parametrize("name", TABLE.lesions)
def test_every_known_type_is_asked_for_by_its_name_however_it_is_spelt(name):
    for said in (name, name.upper(), name.replace(" ", "_"), f"  {name.replace(' ', '-')} "):
        question = understand(said)
        assert question.type_name == name
        assert question.query.attributes == TABLE.attributes_of(name)
        assert (question.unread, question.unused) == ((), ())


@pytest.mark.parametrize("said", ["RCC", "renal cell carcinoma", "hepatic tumour", "simple renal cyst", "NSCLC"])
def test_aliases_are_asked_for_under_the_name_that_was_said(said):
    question = understand(said)
    assert question.query.name == said
    assert question.type_name in TABLE.lesions
    assert f"which is {question.type_name}" in next(iter(question.lines()))


@pytest.mark.parametrize("said", ["any lesion", "Any-Lesion", "any_lesion"])
def test_any_lesion_states_nothing(said):
    assert understand(said).query == ANY_LESION


@pytest.mark.parametrize(
    ("said", "stated", "unread"),
    [
        (
            "round hypodense lesion with a sharp margin in the left kidney",
            {"location": ("left kidney",), "shape": ("round-like",), "density": ("hypodense",),
             "surface": ("well-defined",)},
            (),
        ),
        ("left kidney", {"location": ("left kidney",)}, ()),
        ("RIGHT KIDNEY", {"location": ("right kidney",)}, ()),
        (
            "a cyst of the pancreas, well-defined, homogeneous, fluid density",
            {"location": ("pancreas",), "density": ("fluid density",), "density_variation": ("homogeneous",),
             "surface": ("well-defined",)},
            ("cyst",),
        ),
        ("hypodense lesion, pulsating", {"density": ("hypodense",)}, ("pulsating",)),
    ],
)  # fmt: skip
def test_a_sentence_states_what_it_says_and_no_more(said, stated, unread):
    question = understand(said)
    assert question.query.attributes.stated == stated
    assert question.unread == unread
    assert question.type_name is None
    assert question.query.name == said


def test_what_is_denied_is_not_asked_for():
    assert understand("hypodense lesion in the liver, no calcification").query.attributes.specific_features == ()


def test_what_is_doubted_is_told_and_not_asked_for():
    question = understand("hypodense liver lesion with possible necrosis")
    assert "necrosis" in question.unused
    assert "necrosis" not in question.query.attributes.specific_features
    assert any(line.startswith("  not asked for") for line in question.lines())


def test_a_long_sentence_has_a_name_that_fits():
    said = "hypodense lesion in the liver " + "that was seen there before " * 20
    assert len(understand(said).query.name) <= 100


@pytest.mark.parametrize("said", ["dog", "", "   ", "Nierentumor", "no renal mass", "the quick brown fox"])
def test_words_that_are_no_question_are_one_line_with_an_example(said):
    with pytest.raises(AskingError, match=r"no known lesion type.*--lesions") as error:
        understand(said)
    assert "\n" not in str(error.value)


WORDS = ["round", "hypodense", "liver", "left kidney", "no", "calcification", "3 x 1e999 mm", "(-)", ":", "tumor", "."]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(said=st.text() | st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=8).map(" ".join))
def test_any_words_are_a_question_or_one_line(said):
    try:
        shown = list(understand(said).lines())
    except AskingError as error:
        shown = [str(error)]
    assert all(line.isprintable() for line in shown)


@pytest.mark.parametrize("said", ["round\x08 liver lesion", "liver\u200b tumor", "\udcff round"])
def test_words_with_characters_that_are_not_shown_are_refused(said):
    with pytest.raises(AskingError, match="characters that are not shown"):
        understand(said)

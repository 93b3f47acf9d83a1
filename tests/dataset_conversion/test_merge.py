"""Several data sets in one: label space, annotated labels, the seen/unseen split."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from in_process import workers_as_threads
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from tiny_data import MSD_LABELS, kits, mask, msd_task, save, stored, tree

from nnunetv2_malenia.attributes.schema import AttributeTable, CaseEntry
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table, read_table, write_table
from nnunetv2_malenia.cli import convert_kits, convert_msd, merge
from nnunetv2_malenia.training.attribute_files import label_values, resolve_plans, resolve_table
from nnunetv2_malenia.training.targets import AttributeSpace

UNSEEN = "pancreas cyst,kidney tumor,hepatic vessel tumor"


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


def convert(tmp_path, raw, name, cases, **options):
    number = name[4:6]
    arguments = ["-i", str(msd_task(tmp_path / name, cases, **options)), "-d", number, "-o", str(raw)]
    table = tmp_path / "table.json"
    if table.exists():
        arguments += ["--annotations", str(table)]
    assert convert_msd(arguments) == 0
    return raw / f"Dataset0{number}_{name.partition('_')[2]}"


def run(raw, *datasets, options=()):
    return merge(["-i", *map(str, datasets), "-d", "100", "-o", str(raw), *options])


def read(folder, name="dataset.json"):
    return json.loads((folder / name).read_text())


@pytest.fixture
def everything(tmp_path, raw):
    """All five tasks and KiTS, as the published experiments merge them."""
    known = clinical_knowledge_table().lesions
    types = {"case_1": "pancreas tumor", "case_2": "pancreas cyst"}
    table = AttributeTable(
        lesions={name: known[name] for name in types.values()},
        cases={case: CaseEntry(lesions={name: {"location": "pancreatic head"}}) for case, name in types.items()},
    )
    write_table(table, tmp_path / "table.json")
    folders = [
        convert(tmp_path, raw, name, {"case_1": range(1, len(labels)), "case_2": range(1, len(labels))})
        for name, labels in MSD_LABELS.items()
    ]
    labels = ("background", "hepatic vessel", "hepatic vessel tumor")
    convert(tmp_path / "more", raw, "Task18_HepaticVessel", {"free": (1,)}, labels=labels)
    cases = {"case_00000": (1, 2, 3), "case_00001": (1, 2), "case_00002": (1, 3)}
    assert convert_kits(["-i", str(kits(tmp_path / "kits23", cases)), "-d", "220", "-o", str(raw)]) == 0
    return [*folders, raw / "Dataset018_HepaticVessel", raw / "Dataset220_KiTS23"]


def test_a_merge_has_one_label_space_by_type_name(raw, everything):
    assert run(raw, *everything) == 0
    folder = raw / "Dataset100_Merged"
    labels = read(folder)["labels"]
    assert list(labels) == [
        "background", "liver", "pancreas", "hepatic vessel", "kidney", "liver tumor", "lung tumor", "pancreas tumor",
        "pancreas cyst", "hepatic vessel tumor", "colon tumor", "kidney tumor", "kidney cyst",
    ]  # fmt: skip
    assert list(labels.values()) == list(range(13))
    assert read(folder)["numTraining"] == 14
    merged = stored(folder / "labelsTr" / "case_00000.nii.gz")
    assert (merged == mask(labels["kidney"], labels["kidney tumor"], labels["kidney cyst"])).all()


def test_every_case_lists_what_its_data_set_annotates(raw, everything):
    assert run(raw, *everything) == 0
    cases = read_table(raw / "Dataset100_Merged" / "attributes.json").cases
    assert len(cases) == 14
    assert cases["case_00001"].annotated == ("kidney", "kidney tumor", "kidney cyst")
    assert cases["Dataset006_Lung_case_1"].annotated == ("lung tumor",)
    assert cases["Dataset007_Pancreas_case_2"].annotated == ("pancreas", "pancreas tumor", "pancreas cyst")
    assert set(cases["Dataset007_Pancreas_case_2"].lesions) == {"pancreas cyst"}


def test_ids_that_two_data_sets_share_get_the_data_sets_name_and_others_stay(raw, everything):
    assert run(raw, *everything) == 0
    images = {name for name in tree(raw / "Dataset100_Merged") if name.startswith("imagesTr")}
    assert len(images) == 14
    assert {"imagesTr/Dataset003_Liver_case_1_0000.nii.gz", "imagesTr/case_00000_0000.nii.gz",
            "imagesTr/free_0000.nii.gz"} < images  # fmt: skip


def test_holding_types_out_makes_the_published_split(raw, everything, capsys):
    assert run(raw, *everything, options=("--holdout", UNSEEN)) == 0
    folder = raw / "Dataset100_Merged"
    labels, test_labels = read(folder)["labels"], read(folder, "labelsTs.json")
    unseen = set(UNSEEN.split(","))
    assert not unseen & labels.keys()
    assert unseen < test_labels.keys()
    assert list(test_labels)[: len(labels)] == list(labels)
    assert list(test_labels.values()) == list(range(len(test_labels)))
    test_cases = {path.name.removesuffix(".nii.gz") for path in (folder / "labelsTs").iterdir()}
    assert test_cases == {
        "Dataset007_Pancreas_case_2", "Dataset008_HepaticVessel_case_1", "Dataset008_HepaticVessel_case_2",
        "case_00000", "case_00001",
    }  # fmt: skip
    assert read(folder)["numTraining"] == 9
    assert len(list((folder / "imagesTs").iterdir())) == 5
    reference = stored(folder / "labelsTs" / "case_00000.nii.gz")
    assert (reference == mask(*(test_labels[name] for name in ("kidney", "kidney tumor", "kidney cyst")))).all()
    told = capsys.readouterr().out
    assert "kidney tumor is held out: no training case shows it, 1 are known to be free of it, in 8 it is not" in told


def test_cases_with_a_seen_lesion_can_stay_in_training_with_held_out_ones_ignored(raw, everything, capsys):
    assert run(raw, *everything, options=("--holdout", UNSEEN, "--keep_seen")) == 0
    folder = raw / "Dataset100_Merged"
    labels = read(folder)["labels"]
    assert labels["ignore"] == len(labels) - 1
    assert not set(UNSEEN.split(",")) & labels.keys()
    test_cases = {path.name.removesuffix(".nii.gz") for path in (folder / "labelsTs").iterdir()}
    assert "case_00000" not in test_cases  # it shows a cyst too
    assert "case_00001" in test_cases
    own = stored(folder / "labelsTr" / "case_00000.nii.gz")
    assert (own == mask(*(labels[name] for name in ("kidney", "ignore", "kidney cyst")))).all()
    told = capsys.readouterr().out
    assert "kidney tumor is held out: no training case shows it, 1 are known to be free of it" in told
    assert "in 1 it is ignored" in told
    assert "ignore " not in told.replace("it is ignored", "")
    summary = read(folder, "conversion_summary.json")
    assert set(summary["types"]["kidney tumor"]) == {"test"}
    assert summary["types"]["kidney cyst"]["training"]["cases"] == 2


def test_keeping_seen_lesions_needs_types_to_hold_out(raw, everything, capsys):
    with pytest.raises(SystemExit):
        run(raw, *everything, options=("--keep_seen",))
    assert "--keep_seen needs --holdout" in capsys.readouterr().err


def test_no_held_out_type_is_in_the_training_masks_or_the_training_table(raw, everything):
    assert run(raw, *everything, options=("--holdout", UNSEEN)) == 0
    folder = raw / "Dataset100_Merged"
    labels = read(folder)["labels"]
    summary = read(folder, "conversion_summary.json")
    for name in UNSEEN.split(","):
        assert "training" not in summary["types"][name]
        assert summary["types"][name]["test"]["cases"] > 0
    table = read_table(folder / "attributes.json")
    assert set(table.lesions) == {"liver tumor", "lung tumor", "pancreas tumor", "colon tumor", "kidney cyst"}
    assert {path.name.removesuffix(".nii.gz") for path in (folder / "labelsTr").iterdir()} == set(table.cases)
    assert table.cases["case_00002"].annotated == ("kidney", "kidney cyst")
    for path in (folder / "labelsTr").iterdir():
        case = table.cases[path.name.removesuffix(".nii.gz")]
        assert set(np.unique(stored(path))) <= {0, *(labels[name] for name in case.annotated)}, path.name


def test_the_test_side_comes_with_a_table_of_all_types(raw, everything):
    assert run(raw, *everything, options=("--holdout", UNSEEN)) == 0
    table = read_table(raw / "Dataset100_Merged" / "test_attributes.json")
    assert len(table.lesions) == 8
    assert set(UNSEEN.split(",")) < set(table.lesions)
    assert len(table.cases) == 5
    assert table.cases["Dataset007_Pancreas_case_2"].lesions["pancreas cyst"].location == ("pancreas head",)


def test_the_trainer_takes_the_merge_and_knows_what_is_annotated(raw, everything):
    assert run(raw, *everything, options=("--holdout", UNSEEN)) == 0
    folder = raw / "Dataset100_Merged"
    labels = label_values(read(folder)["labels"])
    table = resolve_table(labels, folder / "attributes.json")
    plans, _ = resolve_plans(table, labels, has_regions=False, network={}, bank_path=None)
    space = AttributeSpace.build(plans, table, labels)
    types = list(plans.lesions)
    known = space.annotated_types("Dataset003_Liver_case_1")
    assert [name for name, is_known in zip(types, known, strict=True) if is_known] == ["liver tumor"]
    known = space.annotated_types("free")
    assert not known.any()


@pytest.mark.parametrize(
    "options", [(), ("--holdout", UNSEEN), ("--holdout", UNSEEN, "--keep_seen")], ids=["all seen", "split", "ignored"]
)
def test_nnunet_verifies_the_merge(raw, everything, options, capsys):
    assert run(raw, *everything, options=options) == 0
    with workers_as_threads():
        verify_dataset_integrity(str(raw / "Dataset100_Merged"), num_processes=1)
    told = capsys.readouterr().out
    assert "verify_dataset_integrity Done" in told
    assert "Warning" not in told


def test_a_type_that_is_only_shown_beside_held_out_ones_is_held_out_too_and_told(tmp_path, raw, capsys):
    liver = convert(tmp_path, raw, "Task03_Liver", {"liver_0": (1, 2)})
    assert convert_kits(["-i", str(kits(tmp_path / "k", {"case_00000": (1, 2, 3)})), "-d", "220", "-o", str(raw)]) == 0
    assert run(raw, liver, "220", options=("--holdout", "Kidney Tumour")) == 0
    assert set(read(raw / "Dataset100_Merged")["labels"]) == {"background", "liver", "liver tumor"}
    told = capsys.readouterr().out
    assert "kidney cyst is held out too: every case that shows it shows a held-out type" in told


def test_holding_out_what_every_case_shows_is_refused(tmp_path, raw, capsys):
    liver = convert(tmp_path, raw, "Task03_Liver", {"liver_0": (1, 2)})
    assert run(raw, liver, options=("--holdout", "liver tumor")) == 1
    assert "hold out fewer types, or add a data set" in capsys.readouterr().err
    assert run(raw, liver, options=("--holdout", "liver")) == 1
    assert "'liver': no lesion type of these data sets; theirs are ['liver tumor']" in capsys.readouterr().err
    assert not (raw / "Dataset100_Merged").exists()


def test_data_sets_are_found_by_folder_name_and_id(tmp_path, raw, capsys):
    liver = convert(tmp_path, raw, "Task03_Liver", {"liver_0": (1, 2)})
    for number, how in enumerate((liver, liver.name, "3")):
        assert merge(["-i", str(how), "-d", str(101 + number), "-o", str(raw)]) == 0
    assert run(raw, "77") == 1
    assert "77: no raw data set by this folder" in capsys.readouterr().err


def test_one_type_with_two_meanings_is_refused(tmp_path, raw, capsys):
    one = convert(tmp_path, raw, "Task03_Liver", {"liver_0": (1, 2)})
    labels = ("background", "liver", "hepatic tumor")
    other = convert(tmp_path / "b", raw, "Task93_Liver", {"liver_1": (1, 2)}, labels=labels)
    write_table(AttributeTable(lesions={"liver tumor": {"density": "hyperdense"}}), other / "attributes.json")
    assert run(raw, one, other) == 1
    told = capsys.readouterr().err
    assert "'liver tumor' means two things" in told
    assert "'density': ('hyperdense',)} in Dataset093_Liver; make their attributes.json agree" in told
    (other / "attributes.json").unlink()
    assert run(raw, one, other) == 0
    assert set(read(raw / "Dataset100_Merged")["labels"]) == {"background", "liver", "liver tumor"}


def test_a_lesion_in_one_data_set_and_anatomy_in_another_are_refused(tmp_path, raw, capsys):
    labels = ("background", "liver", "blob")
    one = convert(tmp_path, raw, "Task91_One", {"a": (1, 2)}, labels=labels)
    other = convert(tmp_path, raw, "Task92_Two", {"b": (1, 2)}, labels=labels)
    write_table(AttributeTable(lesions={"blob": {"shape": "irregular"}}), other / "attributes.json")
    assert run(raw, one, other) == 1
    assert "'blob' means two things: no lesion in Dataset091_One, a lesion with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels": {"background": 0, "liver": [1, 2], "liver tumor": 2}}, "'liver' is a region, of several values"),
        ({"labels": {"background": 0, "liver cancer": 1, "liver tumor": 2}}, "are one type, 'liver tumor'; rename one"),
        ({"channel_names": {"0": "MRI"}}, r"channels \['CT'\] in .*\['MRI'\] in .*; merge like with like"),
        ({"file_ending": ".nrrd"}, r"files end in \.nrrd; store them as \.nii\.gz"),
    ],
)
def test_what_cannot_be_merged_is_told(tmp_path, raw, capsys, change, told):
    one = convert(tmp_path, raw, "Task06_Lung", {"lung_0": (1,)})
    other = convert(tmp_path, raw, "Task03_Liver", {"liver_0": (1, 2)})
    (other / "dataset.json").write_text(json.dumps(read(other) | change))
    assert run(raw, one, other) == 1
    assert re.search(told, capsys.readouterr().err)


def test_annotated_labels_of_a_source_are_kept_and_wrong_ones_refused(tmp_path, raw, capsys):
    liver = convert(tmp_path, raw, "Task03_Liver", {"liver_0": (1, 2), "liver_1": (1,)})
    table = read_table(liver / "attributes.json")
    partly = table.model_copy(update={"cases": {"liver_1": CaseEntry(annotated=("liver",))}})
    write_table(partly, liver / "attributes.json")
    assert run(raw, liver) == 0
    cases = read_table(raw / "Dataset100_Merged" / "attributes.json").cases
    assert cases["liver_1"].annotated == ("liver",)
    assert cases["liver_0"].annotated == ("liver", "liver tumor")
    wrong = table.model_copy(update={"cases": {"liver_1": CaseEntry(annotated=("spleen",))}})
    write_table(wrong, liver / "attributes.json")
    assert merge(["-i", str(liver), "-d", "101", "-o", str(raw)]) == 1
    assert "cases/liver_1/annotated names 'spleen', which is no label of the data set" in capsys.readouterr().err


def test_images_listed_in_dataset_json_are_merged_where_they_are(tmp_path, raw):
    task = msd_task(tmp_path / "Task03_Liver", {"liver_0": (1, 2)})
    image, label = task / "imagesTr" / "liver_0.nii.gz", task / "labelsTr" / "liver_0.nii.gz"
    folder = raw / "Dataset005_Listed"
    folder.mkdir(parents=True)
    about = {
        "labels": {"background": 0, "liver": 1, "liver tumor": 2}, "channel_names": {"0": "CT"}, "numTraining": 1,
        "file_ending": ".nii.gz", "dataset": {"liver_0": {"images": [str(image)], "label": str(label)}},
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(about))
    assert run(raw, folder) == 0
    assert (raw / "Dataset100_Merged" / "imagesTr" / "liver_0_0000.nii.gz").samefile(image)


def test_a_bad_case_stops_a_merge_or_is_left_out(tmp_path, raw, capsys):
    liver = convert(tmp_path, raw, "Task03_Liver", {"liver_0": (1, 2), "liver_1": (1, 2)})
    save(liver / "labelsTr" / "liver_0.nii.gz", mask(1, 9))
    assert run(raw, liver) == 1
    assert "liver_0: " in (told := capsys.readouterr().err)
    assert "label value 9 (8 voxels)" in told
    assert run(raw, liver, options=("--skip-bad",)) == 0
    folder = raw / "Dataset100_Merged"
    assert set(read(folder, "conversion_summary.json")["left_out"]) == {"liver_0"}
    assert set(read_table(folder / "attributes.json").cases) == {"liver_1"}


def two_data_sets(tmp_path, raw, link):
    """The second one has the first one's image, but shows another type."""
    convert(tmp_path, raw, "Task06_Lung", {"lung_1": (1,), "lung_2": ()})
    other = msd_task(tmp_path / "Task10_Colon", {"colon_1": (1,)})
    image = other / "imagesTr" / "colon_1.nii.gz"
    image.unlink()
    link((tmp_path / "Task06_Lung" / "imagesTr" / "lung_1.nii.gz").resolve(), image)
    assert convert_msd(["-i", str(other), "-d", "10", "-o", str(raw)]) == 0


@pytest.mark.parametrize("link", [os.link, os.symlink])
@pytest.mark.parametrize("options", [(), ("--holdout", "colon tumor", "--dry-run")])
def test_one_image_file_in_two_data_sets_is_an_error(tmp_path, raw, capsys, link, options):
    two_data_sets(tmp_path, raw, link)
    capsys.readouterr()
    assert run(raw, "6", "10", options=options) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert "are one file, in the cases lung_1 and colon_1; give each image once\n" in told
    assert not (raw / "Dataset100_Merged").exists()


def test_copies_of_an_image_in_two_data_sets_are_told(tmp_path, raw, capsys):
    two_data_sets(tmp_path, raw, shutil.copy)
    capsys.readouterr()
    assert run(raw, "6", "10", options=("--dry-run",)) == 0
    assert "lung_1 and colon_1 have the same image\n" in capsys.readouterr().out
    assert run(raw, "6", "10", options=("--holdout", "colon tumor")) == 0
    told = "lung_1 and colon_1 have the same image, so that training shows what is held out"
    assert told in read(raw / "Dataset100_Merged", "conversion_summary.json")["notes"]

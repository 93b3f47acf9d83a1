"""The dataset.json of MSD and of nnU-Net: the pairs and labels stated count; what cannot be right is one line."""

import json

import numpy as np
import pytest
from tiny_data import ct, mask, msd_task, save, stored, tree

from nnunetv2_malenia.cli import convert_msd, merge

LIVER = {"liver_0": (1, 2), "liver_1": (1,)}


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


@pytest.fixture
def task(tmp_path):
    return msd_task(tmp_path / "Task03_Liver", LIVER)


def run(task, raw, *options):
    return convert_msd(["-i", str(task), "-d", "3", "-o", str(raw), *options])


def state(folder, **entries):
    """Set entries of a dataset.json; None takes one out."""
    path = folder / "dataset.json"
    content = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return folder


def one_error(capsys):
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    return told


def pair(image, label):
    return {"image": image, "label": label}


# ---------------------------------------------------------------- the files of a task


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("more", "test", "entries"),
    [
        ([pair("imagesTr/liver_0.nii.gz", "labelsTr/liver_1.nii.gz")], [], ("liver_0.nii.gz with", "liver_1.nii.gz)")),
        ([], [".\\imagesTr/liver_0.nii.gz"], ("training, imagesTr/liver_0.nii.gz", "test, imagesTr/liver_0.nii.gz")),
        ([pair("imagesTs/liver_9.nii.gz", "labelsTr/liver_0.nii.gz")], [], ("imagesTr/liver_0", "imagesTs/liver_9")),
    ],
    ids=["image twice", "image in training and test", "label twice"],
)
def test_a_file_that_two_entries_list_is_told_before_work_starts(task, raw, capsys, more, test, entries, options):
    once = [pair(f"imagesTr/liver_{i}.nii.gz", f"labelsTr/liver_{i}.nii.gz") for i in range(2)]
    state(task, training=[*once, *more], test=test)
    assert run(task, raw, *options) == 1
    told = one_error(capsys)
    assert "twice" in told
    assert all(entry in told for entry in entries)
    assert not raw.exists()


@pytest.mark.parametrize("write", ["./{}", "{}", "././/{}", ".\\{}"])
def test_the_listed_pairs_count_and_not_files_of_the_same_name(task, raw, capsys, write):
    save(task / "labels2" / "any name.nii.gz", mask(2, 1))
    save(task / "more" / "images" / "liver_7.nii.gz", ct(7))
    state(
        task,
        training=[
            pair(write.format("imagesTr/liver_0.nii.gz"), write.format("labels2/any name.nii.gz")),
            pair(write.format("more/images/liver_7.nii.gz"), write.format("labelsTr/liver_1.nii.gz")),
        ],
        test=[{"image": write.format("imagesTr/liver_1.nii.gz")}],
    )
    assert run(task, raw) == 0
    folder = raw / "Dataset003_Liver"
    assert {name for name in tree(folder) if name.endswith(".nii.gz")} == {
        "imagesTr/liver_0_0000.nii.gz", "labelsTr/liver_0.nii.gz", "imagesTr/liver_7_0000.nii.gz",
        "labelsTr/liver_7.nii.gz", "imagesTs/liver_1_0000.nii.gz",
    }  # fmt: skip
    assert (stored(folder / "labelsTr" / "liver_0.nii.gz") == mask(2, 1)).all()
    assert (stored(folder / "imagesTr" / "liver_7_0000.nii.gz") == ct(7)).all()
    note = "1 left out, since dataset.json does not list them: labelsTr/liver_0.nii.gz"
    assert note in capsys.readouterr().out
    assert note in json.loads((folder / "conversion_summary.json").read_text())["notes"]


@pytest.mark.parametrize("entry", ["training", "test"])
@pytest.mark.parametrize("path", ["/etc/a.nii.gz", "../a.nii.gz", "images/../../a.nii.gz", "C:\\a.nii.gz", "..\\a", ""])
def test_a_path_that_leads_out_of_the_task_is_refused(task, raw, capsys, entry, path):
    state(task, **{entry: [pair(path, "labelsTr/liver_0.nii.gz")] if entry == "training" else [path]})
    assert run(task, raw, "--skip-bad") == 1
    told = one_error(capsys)
    assert f"{entry}/0" in told
    assert "is no path inside the task's folder" in told


@pytest.mark.parametrize("kind", ["image", "label"])
def test_what_is_listed_and_not_there_is_a_fault_of_its_case(task, raw, capsys, kind):
    entries = pair("./imagesTr/liver_0.nii.gz", "./labelsTr/liver_0.nii.gz") | {kind: f"./other/{kind}.nii.gz"}
    state(task, training=[entries, pair("./imagesTr/liver_1.nii.gz", "./labelsTr/liver_1.nii.gz")])
    assert run(task, raw) == 1
    told = capsys.readouterr().err
    assert f"other/{kind}.nii.gz is missing from Task03_Liver, whose dataset.json lists it" in told
    assert "1 of 2 cases" in told


def test_two_files_for_one_case_are_told_with_both_names(task, raw, capsys):
    save(task / "again" / "liver_0.nii.gz", ct())
    images = ("imagesTr/liver_0.nii.gz", "again/liver_0.nii.gz")
    state(task, training=[pair(image, f"labelsTr/liver_{i}.nii.gz") for i, image in enumerate(images)])
    assert run(task, raw, "--skip-bad") == 1
    told = capsys.readouterr().err
    assert f"{task / 'again/liver_0.nii.gz'} and {task / 'imagesTr/liver_0.nii.gz'} are both called liver_0" in told
    state(task, training=[pair("imagesTr/liver_0.nii.gz", "labelsTr/liver_0.nii.gz")] * 2)
    assert run(task, raw) == 0


def test_a_volume_in_another_format_is_told(task, raw, capsys):
    (task / "imagesTr" / "liver_0.nii.gz").rename(task / "imagesTr" / "liver_0.nii")
    state(task, training=[pair("imagesTr/liver_0.nii", "labelsTr/liver_0.nii.gz")])
    assert run(task, raw) == 1
    assert "imagesTr/liver_0.nii: not a .nii.gz file; store it as one" in capsys.readouterr().err


def test_a_case_that_nothing_can_be_named_after_is_a_fault(task, raw, capsys):
    save(task / "imagesTr" / "liver  2.nii.gz", ct())
    state(task, training=[pair("imagesTr/liver  2.nii.gz", "labelsTr/liver_0.nii.gz")])
    assert run(task, raw) == 1
    assert "'liver  2' cannot be a case's name" in capsys.readouterr().err


# ---------------------------------------------------------------- what a task's dataset.json states


@pytest.mark.parametrize("labels", [
    {"0": "Background", "1": "liver", "2": "cancer"}, {"1": "liver", "2": "cancer"},
    {"2": "cancer", "0": "clear", "1": "liver"},
])  # fmt: skip
def test_the_background_of_a_task_is_read_however_it_is_spelt(tmp_path, raw, labels):
    task = state(msd_task(tmp_path / "Task98_Livers", LIVER, labels=("background", "a", "b")), labels=labels)
    assert run(task, raw) == 0
    stated = json.loads((raw / "Dataset003_Livers" / "dataset.json").read_text())["labels"]
    assert stated == {"background": 0, "liver": 1, "cancer": 2}


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({"labels": None}, "labels: Field required"),
        ({"labels": {"background": 0, "liver": 1}}, "labels: MSD's form is due, value and name, e.g."),
        ({"labels": ["background", "liver"]}, "labels: MSD's form is due"),
        ({"labels": {"0": "background", "1": None}}, "labels: MSD's form is due"),
        ({"labels": {"0": "background", "1": "liver", "2": "Liver"}}, "labels 'liver' and 'Liver' differ in case"),
        ({"labels": {"0": "background", "1": "liver", "01": "cancer"}}, "'liver' and 'cancer' have the same value"),
        ({"labels": {"0": "liver", "1": "background"}}, "'background' has the value \"1\"; the background is 0"),
        ({"labels": {"0": "background", "1": "liver", "3": "cancer"}}, "must be numbered 0, 1, 2"),
        ({"labels": {"0": "background", "-1": "liver"}}, "'liver' has the value \"-1\", which is no whole number"),
        ({"labels": {"0": "background", "1.5": "liver"}}, "which is no whole number"),
        ({"training": None}, "training: Field required"),
        ({"training": []}, "training: "),
        ({"training": ["imagesTr/liver_0.nii.gz"]}, "training/0: "),
        ({"training": [{"image": "imagesTr/liver_0.nii.gz"}]}, "training/0/label: Field required"),
        ({"training": [{"image": ["a", "b"], "label": "c"}]}, "training/0/image: "),
        ({"training": {"image": "a", "label": "b"}}, "training: "),
        ({"test": 3}, "test: "),
        ({"test": [3]}, "test/0"),
        ({"modality": {"1": "CT"}}, "modality: "),
        ({"modality": "CT"}, "modality: "),
    ],
)
def test_a_task_whose_dataset_json_cannot_be_right_is_one_line(task, raw, capsys, entries, told):
    assert run(state(task, **entries), raw, "--skip-bad") == 1
    error = one_error(capsys)
    assert error.startswith(f"error: {task / 'dataset.json'}: ")
    assert told in error
    assert not raw.exists()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda text: text.replace('"labels"', '"labels": {}, "labels"'), "labels: appears twice in the same object"),
        (lambda text: text.replace('"numTraining": 2', '"numTraining": NaN'), "NaN is not valid JSON"),
        (lambda text: text[:-20], "not JSON at line 1"),
        (lambda text: "[]", "Input should be a valid dictionary"),
    ],
    ids=["twice", "NaN", "cut off", "list"],
)
def test_a_dataset_json_that_is_no_json_is_one_line(task, raw, capsys, spoil, told):
    path = task / "dataset.json"
    path.write_text(spoil(path.read_text()))
    assert run(task, raw) == 1
    assert told in one_error(capsys)


def test_encodings_with_a_mark_are_read_or_told(task, raw, capsys):
    text = (task / "dataset.json").read_text()
    (task / "dataset.json").write_text(text, encoding="utf-16")
    assert run(task, raw) == 1
    assert "is not UTF-8; save the file as UTF-8" in one_error(capsys)
    (task / "dataset.json").write_text(text, encoding="utf-8-sig")
    assert run(task, raw) == 0


def test_free_text_of_other_types_is_kept_as_text(task, raw):
    assert run(state(task, reference=["A", "B"], release=1.0, licence=None, license={"a": 1}), raw) == 0
    about = json.loads((raw / "Dataset003_Liver" / "dataset.json").read_text())
    assert (about["reference"], about["release"], about["licence"]) == ('["A", "B"]', "1.0", '{"a": 1}')


# ---------------------------------------------------------------- healthy cases and many labels


def test_healthy_cases_are_converted_and_merged_and_counted(tmp_path, raw, capsys):
    task = msd_task(tmp_path / "Task03_Liver", {"liver_0": (1, 2), "liver_1": (), "liver_2": ()})
    assert run(task, raw) == 0
    assert "2 with an empty mask, nothing but background: liver_1, liver_2" in capsys.readouterr().out
    assert merge(["-i", "3", "-d", "9", "-o", str(raw), "--holdout", ""]) == 0
    for folder in (raw / "Dataset003_Liver", raw / "Dataset009_Merged"):
        assert not stored(folder / "labelsTr" / "liver_1.nii.gz").any()
        summary = json.loads((folder / "conversion_summary.json").read_text())
        assert summary["empty_masks"] == ["liver_1", "liver_2"]
        assert summary["cases"] == {"training": 3}


def test_a_case_with_the_background_of_a_test_case_is_not_counted_as_empty(tmp_path, raw, capsys):
    assert run(msd_task(tmp_path / "Task03_Liver", LIVER, test_cases=("liver_9",)), raw) == 0
    assert "empty mask" not in capsys.readouterr().out


@pytest.mark.parametrize("top", [300, 32767])
def test_label_values_above_255_are_merged(tmp_path, raw, capsys, top):
    folder = raw / "Dataset005_Many"
    for name, values in {"a": (1, top), "b": (1,)}.items():
        save(folder / "imagesTr" / f"{name}_0000.nii.gz", ct())
        save(folder / "labelsTr" / f"{name}.nii.gz", mask(*values, dtype=np.int32))
    labels = {"background": 0, "liver": 1, "liver tumor": top}
    about = {"labels": labels, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz", "numTraining": 2}
    (folder / "dataset.json").write_text(json.dumps(about))
    assert merge(["-i", "5", "-d", "9", "-o", str(raw)]) == 0
    merged = stored(raw / "Dataset009_Merged" / "labelsTr" / "a.nii.gz")
    assert merged.dtype == np.uint8
    assert (merged == mask(1, 2)).all()
    save(folder / "labelsTr" / "b.nii.gz", mask(1, top - 1, dtype=np.int32))
    assert merge(["-i", "5", "-d", "10", "-o", str(raw)]) == 1
    assert f"label value {top - 1} (8 voxels) is not in the label map" in capsys.readouterr().err


def test_more_than_255_labels_are_stored_in_16_bits(tmp_path, raw):
    task = msd_task(tmp_path / "Task97_Many", {"a": ()}, labels=("background", *(f"part {i}" for i in range(1, 301))))
    save(task / "labelsTr" / "a.nii.gz", mask(1, 255, 256, 300, dtype=np.int16))
    assert run(task, raw) == 0
    written = stored(raw / "Dataset003_Many" / "labelsTr" / "a.nii.gz")
    assert written.dtype == np.uint16
    assert (written == mask(1, 255, 256, 300, dtype=np.int16)).all()

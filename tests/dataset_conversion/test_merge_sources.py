"""What malenia_merge takes for a data set: its cases, labels and attributes, held against each other."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_data import ct, mask, msd_task, save, stored, tree

from nnunetv2_malenia.attributes.tables import read_table
from nnunetv2_malenia.cli import convert_msd, merge

ABOUT = {
    "labels": {"background": 0, "liver": 1, "liver tumor": 2},
    "channel_names": {"0": "CT"},
    "file_ending": ".nii.gz",
    "numTraining": 2,
}
TABLE = {"lesions": {"liver tumor": {"location": "liver"}}}


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


@pytest.fixture
def liver(raw):
    """A data set with a tumor in `a` and none in `b`."""
    return dataset(raw / "Dataset003_Liver")


def dataset(folder, names="ab", **entries):
    for seed, name in enumerate(names):
        save(folder / "imagesTr" / f"{name}_0000.nii.gz", ct(seed))
        save(folder / "labelsTr" / f"{name}.nii.gz", mask(*(1, 2)[: 2 - seed]))
    (folder / "dataset.json").write_text(json.dumps(ABOUT | entries))
    return folder


def state(folder, **entries):
    content = {key: value for key, value in (ABOUT | entries).items() if value is not None}
    (folder / "dataset.json").write_text(json.dumps(content))


def attributes(folder, **entries):
    (folder / "attributes.json").write_text(json.dumps(TABLE | entries))


def run(raw, *datasets, options=()):
    return merge(["-i", *map(str, datasets), "-d", "100", "-o", str(raw), *options])


def merged_images(raw):
    return {name for name in tree(raw / "Dataset100_Merged") if name.startswith("imagesTr")}


# ---------------------------------------------------------------- cases


def test_linked_folders_and_files_are_read(tmp_path, raw, liver):
    for folder in ("imagesTr", "labelsTr"):
        shutil.move(liver / folder, tmp_path / folder)
        (liver / folder).symlink_to(tmp_path / folder)
    (tmp_path / "by_link").symlink_to(liver)
    assert run(raw, tmp_path / "by_link") == 0
    assert merged_images(raw) == {"imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz"}


def test_listed_cases_count_and_not_what_lies_in_the_folders(tmp_path, raw, liver, monkeypatch):
    save(tmp_path / "elsewhere" / "image.nii.gz", ct(7))
    save(tmp_path / "elsewhere" / "mask.nii.gz", mask(2, 1))
    monkeypatch.setenv("ELSEWHERE", str(tmp_path / "elsewhere"))
    listed = {
        "x": {"images": ["$ELSEWHERE/image.nii.gz"], "label": "../../elsewhere/mask.nii.gz"},
        "y": {"images": [str(liver / "imagesTr" / "b_0000.nii.gz")], "label": "labelsTr/b.nii.gz"},
    }
    state(liver, dataset=listed)
    assert run(raw, liver) == 0
    assert merged_images(raw) == {"imagesTr/x_0000.nii.gz", "imagesTr/y_0000.nii.gz"}
    assert (stored(raw / "Dataset100_Merged" / "imagesTr" / "x_0000.nii.gz") == ct(7)).all()
    assert (stored(raw / "Dataset100_Merged" / "labelsTr" / "x.nii.gz") == mask(2, 1)).all()


def test_a_listed_case_cannot_name_a_place_elsewhere(raw, liver, capsys):
    files = {"images": [str(liver / "imagesTr" / "b_0000.nii.gz")], "label": "labelsTr/b.nii.gz"}
    for case_id in ("../../../evil", "/evil", "a/b"):
        state(liver, dataset={case_id: files})
        assert run(raw, liver) == 1
        assert "cannot be a case's name" in capsys.readouterr().err
    assert {path.name for path in raw.iterdir()} == {"Dataset003_Liver"}


@pytest.mark.parametrize("gone", ["imagesTr/b_0000.nii.gz", "labelsTr/b.nii.gz"])
def test_half_a_case_is_a_fault_and_not_left_out(raw, liver, capsys, gone):
    (liver / gone).unlink()
    assert run(raw, liver) == 1
    told = capsys.readouterr().err
    assert "warning: b: " in told
    assert "1 of 2 cases cannot be used" in told
    assert run(raw, liver, options=["--skip-bad"]) == 0


def test_what_is_left_out_or_not_as_many_as_stated_is_a_note(raw, liver, capsys):
    save(liver / "imagesTr" / "c.nii.gz", ct())
    (liver / "imagesTr" / "._a_0000.nii.gz").write_bytes(b"macOS")
    state(liver, numTraining=40)
    assert run(raw, liver) == 0
    told = capsys.readouterr().out
    assert f"{liver / 'imagesTr/c.nii.gz'} is left out: its name does not end in a channel" in told
    assert f"{liver}: 2 training cases are there, dataset.json says 40" in told


def test_a_data_set_is_named_once_and_an_id_must_be_of_one(tmp_path, raw, liver, capsys):
    (tmp_path / "link").symlink_to(liver)
    assert run(raw, "3", tmp_path / "link") == 1
    assert f"{liver} and {tmp_path / 'link'} are one data set; name it once" in capsys.readouterr().err
    dataset(raw / "Dataset003_Other")
    assert run(raw, "3") == 1
    assert "Dataset003_Other have this id; name one of them" in capsys.readouterr().err
    one, other = (dataset(tmp_path / name / "Dataset004_Twice") for name in "xy")
    assert run(raw, one, other) == 1
    assert "are both called Dataset004_Twice_a" in capsys.readouterr().err


def test_channels_come_in_the_order_of_their_numbers(raw, capsys):
    folder = dataset(raw / "Dataset005_Two", channel_names={"1": "T2", "0": "T1"})
    for name in "ab":
        save(folder / "imagesTr" / f"{name}_0001.nii.gz", ct(5))
    assert run(raw, folder) == 0
    about = json.loads((raw / "Dataset100_Merged" / "dataset.json").read_text())
    assert about["channel_names"] == {"0": "T1", "1": "T2"}
    (folder / "imagesTr" / "b_0001.nii.gz").unlink()
    assert merge(["-i", "5", "-d", "101", "-o", str(raw)]) == 1
    assert "b: Dataset005_Two has 1 images of it for 2 channels" in capsys.readouterr().err


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("labels", [
    {"Background": 0, "liver": 1, "liver tumor": 2}, {"liver": 1, "liver tumor": 2},
    {"liver": "1", "liver tumor": [2], "bg": 0},
])  # fmt: skip
def test_the_background_stays_the_background(raw, liver, labels):
    state(liver, labels=labels)
    assert run(raw, liver) == 0
    about = json.loads((raw / "Dataset100_Merged" / "dataset.json").read_text())
    assert about["labels"] == {"background": 0, "liver": 1, "liver tumor": 2}
    assert (stored(raw / "Dataset100_Merged" / "labelsTr" / "a.nii.gz") == mask(1, 2)).all()
    table = read_table(raw / "Dataset100_Merged" / "attributes.json")
    assert table.cases["a"].annotated == ("liver", "liver tumor")


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({"labels": {"background": 0, "kidney tumor": 1, "kidney cyst": 1}}, "have the same value, 1"),
        ({"labels": {"background": 1, "liver": 2}}, "'background' has the value 1"),
        ({"labels": {"background": 0, "liver": 1, "Ignore": 2}}, "the label 'Ignore' cannot be merged"),
        ({"labels": {"background": 0, "all": [1, 2], "liver tumor": 2}}, "'all' is a region"),
        ({"labels": {"0": "background", "1": "liver"}}, "which is no whole number"),
        ({"labels": None}, "labels: Field required"),
        ({"channel_names": None}, "channel_names: Field required"),
        ({"file_ending": None}, "file_ending: Field required"),
        ({"file_ending": ["nii"]}, "file_ending: "),
        ({"dataset": 3}, "dataset: "),
    ],
)
def test_a_dataset_json_that_cannot_be_right_is_one_line(raw, liver, capsys, entries, told):
    state(liver, **entries)
    assert run(raw, liver) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {liver}")
    assert error.count("\n") == 1
    assert told in error


# ---------------------------------------------------------------- attributes


def test_annotated_labels_are_known_by_their_spellings_and_aliases(raw, liver):
    attributes(liver, cases={"a": {"annotated": ["Hepatic Tumour", "LIVER", "background"]}, "b": {"annotated": []}})
    assert run(raw, liver) == 0
    cases = read_table(raw / "Dataset100_Merged" / "attributes.json").cases
    assert cases["a"].annotated == ("liver tumor", "liver")
    assert cases["b"].annotated == ()


def test_a_table_that_cannot_be_read_is_not_taken_for_none(raw, liver, capsys):
    (liver / "attributes.json").symlink_to("gone.json")
    assert run(raw, liver) == 1
    assert f"{liver / 'attributes.json'}: does not exist" in capsys.readouterr().err


def test_a_misspelt_annotated_label_is_an_error_with_the_closest(raw, liver, capsys):
    attributes(liver, cases={"a": {"annotated": ["livr", "liver tumor"]}})
    assert run(raw, liver) == 1
    told = capsys.readouterr().err
    assert f"{liver / 'attributes.json'}: cases/a/annotated names 'livr'" in told
    assert "(closest: 'liver'" in told


def test_a_misspelt_case_is_a_note_with_the_closest(raw, liver, capsys):
    attributes(liver, cases={"A": {"annotated": ["liver"]}, "patient 7": {"annotated": []}})
    assert run(raw, liver) == 0
    told = capsys.readouterr().out
    assert (
        f"2 of 2 cases in {liver / 'attributes.json'} are not in this data set, e.g. A (closest: a), patient 7; "
        in told
    )
    assert read_table(raw / "Dataset100_Merged" / "attributes.json").cases["a"].annotated == ("liver", "liver tumor")


# ---------------------------------------------------------------- anything at all

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from([*ABOUT, "dataset", "licence", "training", "test", "modality"]), json_values, st.booleans())
def test_whatever_a_dataset_json_states_is_read_or_told_in_few_lines(capsys, key, value, is_msd):
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "raw")
        if is_msd:
            source = msd_task(Path(folder, "Task03_Liver"), {"liver_0": (1, 2)})
        else:
            source = dataset(raw / "Dataset003_Liver", "a")
        about = source / "dataset.json"
        about.write_text(json.dumps(json.loads(about.read_text()) | {key: value}))
        command = convert_msd if is_msd else merge
        status = command(["-i", str(source), "-d", "9", "-o", str(raw), "--dry-run"])
        told = capsys.readouterr().err
        assert status in (0, 1)
        assert told.count("\n") <= 3
        assert bool(told) is bool(status)
        assert os.listdir(raw if raw.exists() else folder) in (["Dataset003_Liver"], ["Task03_Liver"])

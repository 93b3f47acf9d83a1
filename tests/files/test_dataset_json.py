"""Label maps and dataset.json: value 0 is the background however it is spelt, and no two labels are one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_malenia.files import MaleniaError
from nnunetv2_malenia.files.dataset_json import MAX_LABEL, check_case_id, label_map, read_dataset_json, read_label_map

ABOUT = {"labels": {"background": 0, "liver": 1}, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}


def read(tmp_path, content, how=read_label_map):
    path = tmp_path / "d.json"
    path.write_text(json.dumps(content))
    return how(path)


@pytest.mark.parametrize("spelling", ["background", "Background", "BACKGROUND ", "bg", "Hintergrund", "0"])
def test_value_0_is_the_background_however_it_is_spelt(tmp_path, spelling):
    for content in ({spelling: 0, "liver": 1}, {"liver": 1, spelling: 0}, {"liver": 1}):
        assert list(read(tmp_path, {"labels": content}).items()) == [("background", (0,)), ("liver", (1,))]


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        ({"a": 1, "b": [2, 3]}, {"a": (1,), "b": (2, 3)}),
        ({"whole": [1, 2], "core": [2], "ignore": 3}, {"whole": (1, 2), "core": (2,), "ignore": (3,)}),
        ({"a": "1", "b": " 2 ", "c": 3.0}, {"a": (1,), "b": (2,), "c": (3,)}),
        ({"a": 300, "b": MAX_LABEL}, {"a": (300,), "b": (MAX_LABEL,)}),
        ({" kidney  tumor ": 1}, {"kidney tumor": (1,)}),
    ],
    ids=["region", "nested", "numbers", "large", "spaces"],
)  # fmt: skip
def test_labels_are_read_as_nnunet_means_them(tmp_path, labels, values):
    assert read(tmp_path, labels) == {"background": (0,), **values}


FAULTS = {
    "one value": ({"background": 0, "tumor": 1, "cyst": 1}, "'tumor' and 'cyst' have the same value, 1"),
    "one value, spelt": ({"tumor": 1, "cyst": "1"}, "'tumor' and 'cyst' have the same value"),
    "one region": ({"tumor": [1, 2], "cyst": [2, 1]}, "have the same value"),
    "two backgrounds": ({"background": 0, "liver": 0}, "'background' and 'liver' have the same value"),
    "case": ({"Liver": 1, "liver": 2}, "'Liver' and 'liver' differ in case or spaces at most"),
    "spaces": ({"kidney tumor": 1, "kidney  tumor": 2, "kidneytumor": 3}, "differ in case or spaces"),
    "background 1": ({"liver": 0, "background": 1}, "'background' has the value 1; the background is 0"),
    "Background 2": ({"liver": 1, "Background": 2}, "'Background' has the value 2"),
    "region of background": ({"body": [0, 1]}, "the background is 0, and nothing else is"),
    "nothing": ({}, "no label but the background"),
    "background alone": ({"background": 0}, "no label but the background"),
    "bool": ({"a": True}, "true, which is no whole number"),
    "fraction": ({"a": 1.5}, "1.5, which is no whole number"),
    "text": ({"a": "one"}, '"one", which is no whole number'),
    "null": ({"a": None}, "null, which is no whole number"),
    "object": ({"a": {"value": 1}}, "which is no whole number"),
    "empty list": ({"a": []}, "which is no whole number"),
    "negative": ({"a": -1}, "stores numbers from 0 to 32767"),
    "huge": ({"a": 10**30}, "stores numbers from 0 to 32767"),
    "infinite": ({"labels": {"a": 1e308}}, "stores numbers from 0"),
    "MSD's form": ({"0": "background", "1": "liver"}, '"background", which is no whole number; write e.g.'),
    "empty name": ({" ": 1}, "is no name"),
    "control character": ({"a\x1b[31m": 1}, "is no name"),
    "long name": ({"a" * 101: 1}, "101 characters; at most 100"),
    "list": ([1], "Input should be a valid dictionary"),
    "list of labels": ({"labels": ["liver"]}, "no object of names and values"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_labels_that_mean_nothing_or_two_things_are_refused_in_one_line(tmp_path, fault):
    content, message = FAULTS[fault]
    with pytest.raises(MaleniaError, match=message) as error:
        read(tmp_path, content)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_whatever_json_holds_no_two_labels_share_a_name_or_value(labels):
    try:
        read = label_map(labels.items())
    except ValueError:
        return
    assert read["background"] == (0,)
    assert len({"".join(name.split()).casefold() for name in read}) == len(read)
    assert len(set(map(frozenset, read.values()))) == len(read)
    assert label_map(read.items()) == read


def test_a_dataset_json_is_read_with_channels_in_order_of_their_numbers(tmp_path):
    names = {str(i): f"MR {i}" for i in reversed(range(11))}
    about = read(tmp_path, ABOUT | {"channel_names": names, "license": ["MIT"], "numTraining": "3"}, read_dataset_json)
    assert about.channel_names == tuple(f"MR {i}" for i in range(11))
    assert (about.licence, about.num_training, about.dataset) == ('["MIT"]', 3, None)
    assert read(tmp_path, {**ABOUT, "modality": {"0": "CT"}}, read_dataset_json).channel_names == ("CT",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_names": {"1": "CT"}}, "channel_names: .* is no list of channels by number"),
        ({"channel_names": ["CT"]}, "channel_names: .*no list of channels"),
        ({"channel_names": {"0": 7}}, "channel_names: .*no list of channels"),
        ({"file_ending": None}, "file_ending: "),
        ({"numTraining": "many"}, "numTraining: "),
        ({"labels": None}, "labels: null is no object of names"),
        ({"dataset": {"../../a": {"images": ["a"], "label": "b"}}}, "dataset/.*cannot be a case's name"),
        ({"dataset": {"a": {"images": [], "label": "b"}}}, "dataset/a/images: "),
        ({"dataset": {"a": {"images": ["x\x00y"], "label": "b"}}}, "characters that no path should have"),
        ({"dataset": ["a"]}, "dataset: "),
    ],
)
def test_a_dataset_json_that_cannot_be_right_is_refused_with_the_place(tmp_path, change, message):
    with pytest.raises(MaleniaError, match=message) as error:
        read(tmp_path, ABOUT | change, read_dataset_json)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("case_id", ["../a", "a/b", "a\\b", ".a", "", "a  b", " a", "a\n", "a" * 101])
def test_a_case_that_no_file_or_table_can_be_named_after_is_refused(case_id):
    with pytest.raises(ValueError, match=r"case's name|no name|characters"):
        check_case_id(case_id)
    assert check_case_id("liver 0_a.b") == "liver 0_a.b"

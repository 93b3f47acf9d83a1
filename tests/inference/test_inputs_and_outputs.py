import pytest
import torch

from nnunetv2_malenia.attributes.schema import file_name
from nnunetv2_malenia.files import write_json, write_whole
from nnunetv2_malenia.inference.cases import find_cases
from nnunetv2_malenia.inference.model_folder import PredictionError, find_folds, load_checkpoint
from nnunetv2_malenia.inference.sliding_window import QueryLabelManager


def touch(folder, *names):
    for name in names:
        (folder / name).touch()
    return folder


def test_nnunets_names_and_plain_names_are_both_cases(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "b.nii.gz", "c_2020.txt", "D.NII.GZ", ".hidden.nii.gz")
    found = find_cases(tmp_path, ".nii.gz", 1)
    assert {case: list(files) for case, files in found.files.items()} == {"a": [0], "b": [0]}
    assert found.ignored == [".hidden.nii.gz", "D.NII.GZ", "c_2020.txt"]


def test_one_file_is_one_case(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "b_0000.nii.gz")
    assert list(find_cases(tmp_path / "b_0000.nii.gz", ".nii.gz", 1).files) == ["b"]


def test_a_case_has_its_channels_by_number(tmp_path):
    touch(tmp_path, "a_0001.nii.gz", "a_0000.nii.gz", "b_0002.nii.gz")
    found = find_cases(tmp_path, ".nii.gz", 2).files
    assert {number: path.name for number, path in found["a"].items()} == {0: "a_0000.nii.gz", 1: "a_0001.nii.gz"}
    assert list(found["b"]) == [2]


@pytest.mark.parametrize(
    ("names", "channels", "said"),
    [
        ((), 1, "holds no .nii.gz file"),
        (("a.nii.gz",), 2, "lacks a channel number"),
        (("a.nii.gz", "a_0000.nii.gz"), 1, "are the same case a"),
    ],
)
def test_input_that_cannot_be_meant_is_refused(tmp_path, names, channels, said):
    with pytest.raises(PredictionError, match=said):
        find_cases(touch(tmp_path, *names), ".nii.gz", channels)


def test_folds_are_found_and_all_is_the_last_resort(tmp_path):
    for fold in ("fold_all", "fold_2", "fold_0"):
        (tmp_path / fold).mkdir()
        (tmp_path / fold / "checkpoint_final.pth").touch()
    assert find_folds(tmp_path, "checkpoint_final.pth") == ["0", "2"]
    assert find_folds(tmp_path, "checkpoint_best.pth") == []


class Hostile:
    def __reduce__(self):
        return (print, ("code from a checkpoint ran",))


def test_a_checkpoint_cannot_run_code(tmp_path, capsys):
    torch.save({"network_weights": Hostile()}, tmp_path / "checkpoint_final.pth")
    with pytest.raises(PredictionError, match="cannot be read as plain weights"):
        load_checkpoint(tmp_path / "checkpoint_final.pth")
    assert "ran" not in capsys.readouterr().out


def test_one_query_is_enough_for_a_label_manager():
    manager = QueryLabelManager(1)
    assert manager.num_segmentation_heads == 1
    assert manager.apply_inference_nonlin(torch.zeros(1, 2)).tolist() == [[0.5, 0.5]]


def test_outside_the_crop_nothing_is_probable():
    full = QueryLabelManager(1).revert_cropping_on_probabilities(
        torch.ones(1, 2, 1, 1), [[1, 3], [0, 1], [2, 3]], (4, 2, 3)
    )
    assert full.shape == (1, 4, 2, 3)
    assert full.sum() == 2
    assert full[0, 1:3, 0, 2].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("liver tumor", "liver_tumor"),
        ("../etc/x", "etc_x"),
        ("...", "query"),
        ("★", "query"),
        ("ö/ü", "ö_ü"),
        ("o\u0308", "ö"),
        ("肝腫瘍", "肝腫瘍"),
        ("ก้อนที่ตับ: 1", "ก้อนที่ตับ_1"),
        ("肝" * 100, "肝" * 66),
    ],
)
def test_a_query_cannot_choose_where_it_is_written(name, file):
    assert file_name(name) == file


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def fail(name):
        with open(name, "w") as file:
            file.write("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert "old" in path.read_text()

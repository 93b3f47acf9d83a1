"""What a user points -i at, and the cases that are meant."""

import os

import numpy as np
import pytest
from dicom_files import write_ct_series, write_dicomdir, write_object

from nnunetv2_malenia.files import sha256_of
from nnunetv2_malenia.inference.cases import find_cases
from nnunetv2_malenia.inference.model_folder import PredictionError

MR = "1.2.840.10008.5.1.4.1.1.4"


def touch(folder, *names):
    for name in names:
        (folder / f"{name}.nii.gz").touch()
    return folder


def channels(folder, num_channels=1):
    found = find_cases(folder, ".nii.gz", num_channels).files
    return {case_id: list(files) for case_id, files in found.items()}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("liver_0001", "liver_0002", "liver_0003"), {"liver_0001": [0], "liver_0002": [0], "liver_0003": [0]}),
        (("liver_0007",), {"liver_0007": [0]}),
        (("liver_12", "liver_7", "BraTS2021_00000"), {"BraTS2021_00000": [0], "liver_12": [0], "liver_7": [0]}),
        (("FLARE_Tr_0001_0000", "FLARE_Tr_0002_0000"), {"FLARE_Tr_0001": [0], "FLARE_Tr_0002": [0]}),
        (("a_0000", "amos_0004"), {"a": [0], "amos_0004": [0]}),
        (("_0000", "x_00²³"), {"_0000": [0], "x_00²³": [0]}),
        (("a_0000", "a_0001"), {"a": [0, 1]}),  # a channel too many, which the case is told
    ],
)
def test_numbers_are_channels_of_a_one_channel_model_beside_0000_only(tmp_path, names, expected):
    assert channels(touch(tmp_path, *names)) == expected


def test_numbers_are_always_channels_for_a_model_of_several(tmp_path):
    assert channels(touch(tmp_path, "liver_0001", "liver_0002"), 3) == {"liver": [1, 2]}


def test_one_numbered_file_is_the_case_of_its_name(tmp_path):
    touch(tmp_path, "liver_0001", "liver_0000")
    assert channels(tmp_path / "liver_0001.nii.gz") == {"liver_0001": [0]}
    assert channels(tmp_path / "liver_0000.nii.gz") == {"liver": [0]}


def test_a_plain_name_and_nnunets_name_of_it_are_one_case(tmp_path):
    with pytest.raises(PredictionError, match="are the same case liver_0001"):
        channels(touch(tmp_path, "liver_0001", "liver_0001_0000"))


def series(*places):
    for place in places:
        write_ct_series(place, np.zeros((2, 4, 4), int))


def test_each_folder_of_a_study_with_ct_is_a_case_and_the_rest_is_named(tmp_path):
    series(tmp_path / "patient_1" / "CT", tmp_path / "patient_2" / "A" / "B" / "C", tmp_path / "flat")
    write_object(tmp_path / "contours" / "rs.dcm", "1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT")
    write_ct_series(tmp_path / "mr", np.zeros((2, 4, 4), int), Modality="MR", SOPClassUID=MR)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("no image")
    os.symlink(tmp_path / "flat", tmp_path / "linked")
    found = find_cases(tmp_path, ".nii.gz", 1)
    assert {case_id: files[0].name for case_id, files in found.files.items()} == {
        each: each for each in ("flat", "linked", "patient_1", "patient_2")
    }
    assert found.ignored == ["contours", "mr"]


@pytest.mark.parametrize("place", ["", "IMAGES", "DICOM/PA000001/ST000001/SE000001"])
def test_an_export_with_a_dicomdir_is_one_case_of_its_name(tmp_path, place):
    export = tmp_path / "scan"
    series(export / "again" if place == "" else export / place)
    if place == "":
        for path in (export / "again").iterdir():
            path.rename(export / path.name)
        (export / "again").rmdir()
    write_dicomdir(export)
    (export / "README.TXT").write_text("viewer")
    found = find_cases(export, ".nii.gz", 1)
    assert {case_id: files[0] for case_id, files in found.files.items()} == {"scan": export}
    assert found.ignored == []
    assert list(find_cases(tmp_path, ".nii.gz", 1).files) == ["scan"]


def test_an_export_of_several_series_has_a_case_for_each_folder(tmp_path):
    series(tmp_path / "arterial", tmp_path / "venous")
    write_dicomdir(tmp_path)
    found = find_cases(tmp_path, ".nii.gz", 1)
    assert list(found.files) == ["arterial", "venous"]
    assert found.ignored == ["DICOMDIR"]


def test_a_relative_place_has_the_folders_own_name(tmp_path, monkeypatch):
    series(tmp_path / "scan")
    monkeypatch.chdir(tmp_path / "scan")
    assert list(find_cases(type(tmp_path)("."), ".nii.gz", 1).files) == ["scan"]
    (tmp_path / "scan" / "below").mkdir()
    monkeypatch.chdir(tmp_path / "scan" / "below")
    assert list(find_cases(type(tmp_path)(".."), ".nii.gz", 1).files) == ["scan"]


def test_what_an_earlier_run_wrote_below_is_no_part_of_a_case(tmp_path):
    series(tmp_path / "scan")
    before = sha256_of(tmp_path / "scan")
    out = tmp_path / "scan" / "out"
    write_object(out / "scan.seg.dcm", "1.2.840.10008.5.1.4.1.1.66.4", "SEG")
    assert sha256_of(tmp_path / "scan") != before
    (out / ".malenia_outputs.jsonl").touch()
    assert sha256_of(tmp_path / "scan") == before


def test_a_changed_slice_below_changes_the_case(tmp_path):
    series(tmp_path / "scan" / "CT")
    before = sha256_of(tmp_path / "scan")
    path = next((tmp_path / "scan" / "CT").iterdir())
    path.write_bytes(path.read_bytes() + b"\0")
    assert sha256_of(tmp_path / "scan") != before


@pytest.mark.parametrize(
    ("given", "said"),
    [("mr", "its DICOM files are no CT series"), ("ct/000.dcm", "is one DICOM file"), ("empty", "holds no .nii.gz")],
)
def test_without_a_case_the_error_says_what_is_there(tmp_path, given, said):
    series(tmp_path / "ct")
    write_ct_series(tmp_path / "mr", np.zeros((2, 4, 4), int), Modality="MR", SOPClassUID=MR)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PredictionError, match=said):
        find_cases(tmp_path / given, ".nii.gz", 1)


def test_a_model_of_several_channels_takes_no_dicom(tmp_path):
    series(tmp_path / "ct")
    touch(tmp_path, "a_0000", "a_0001")
    found = find_cases(tmp_path, ".nii.gz", 2)
    assert list(found.files) == ["a"]
    assert found.ignored == ["ct"]

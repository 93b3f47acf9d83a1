"""KiTS23, and data in the layout of KiTS19, through malenia_convert_kits."""

import json

import nibabel as nib
import pytest
from tiny_data import KITS, ct, kits, mask, save, stored, tree

from nnunetv2_malenia.attributes.schema import AttributeTable, CaseEntry
from nnunetv2_malenia.attributes.tables import read_table, write_table
from nnunetv2_malenia.cli import convert_kits

CASES = {"case_00000": (1, 2, 3), "case_00001": (1, 2)}


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


def run(source, raw, *options):
    return convert_kits(["-i", str(source), "-d", "220", "-o", str(raw), *options])


def test_kits23_converts(tmp_path, raw):
    assert run(kits(tmp_path / "kits23", CASES), raw) == 0
    folder = raw / "Dataset220_KiTS23"
    about = json.loads((folder / "dataset.json").read_text())
    assert about["labels"] == {"background": 0, "kidney": 1, "kidney tumor": 2, "kidney cyst": 3}
    assert about["numTraining"] == 2
    assert about["licence"] == "CC BY-NC-SA 4.0"
    assert about["overwrite_image_reader_writer"] == "NibabelIOWithReorient"
    assert (stored(folder / "labelsTr" / "case_00000.nii.gz") == mask(1, 2, 3)).all()
    assert nib.aff2axcodes(nib.load(folder / "labelsTr" / "case_00000.nii.gz").affine) == ("I", "P", "L")
    assert (folder / "imagesTr" / "case_00001_0000.nii.gz").samefile(
        tmp_path / "kits23" / "dataset" / "case_00001" / "imaging.nii.gz"
    )
    assert set(read_table(folder / "attributes.json").lesions) == {"kidney tumor", "kidney cyst"}


def test_the_folder_of_cases_and_instances_will_do(tmp_path, raw):
    source = kits(tmp_path / "kits23", CASES)
    save(source / "dataset" / "case_00000" / "instances" / "kidney_instance-1_annotation-1.nii.gz", mask(1), KITS)
    assert run(source / "dataset", raw) == 0
    assert {name for name in tree(raw / "Dataset220_KiTS23") if name.startswith("labels")} == {
        "labelsTr/case_00000.nii.gz", "labelsTr/case_00001.nii.gz"
    }  # fmt: skip


def test_clinical_metadata_is_counted_and_not_copied(tmp_path, raw, capsys):
    assert run(kits(tmp_path / "kits23", CASES), raw) == 0
    assert "kits23.json: clinical metadata of 2 cases, not copied" in capsys.readouterr().out
    texts = [path.read_text() for path in (raw / "Dataset220_KiTS23").glob("*.json")]
    assert texts
    assert not any("nephrectomy" in text for text in texts)


def test_kits19_has_no_cysts_and_its_cases_without_masks_are_for_testing(tmp_path, raw):
    source = kits(tmp_path / "kits19", {"case_00000": (1, 2)}, inside="data")
    save(source / "data" / "case_00210" / "imaging.nii.gz", ct(), KITS)
    assert run(source, raw) == 0
    folder = raw / "Dataset220_KiTS19"
    about = json.loads((folder / "dataset.json").read_text())
    assert about["labels"] == {"background": 0, "kidney": 1, "kidney tumor": 2}
    assert about["numTraining"] == 1
    assert [path.name for path in (folder / "imagesTs").iterdir()] == ["case_00210_0000.nii.gz"]


@pytest.mark.parametrize("kind", ["imaging", "segmentation"])
def test_a_case_that_is_not_complete_is_told(tmp_path, raw, capsys, kind):
    source = kits(tmp_path / "kits23", CASES)
    (source / "dataset" / "case_00001" / f"{kind}.nii.gz").unlink()
    assert run(source, raw) == 1
    assert f"warning: case_00001: {kind}.nii.gz is missing" in capsys.readouterr().err
    assert not raw.exists()


def test_a_folder_without_cases_and_one_with_both_editions_are_told(tmp_path, raw, capsys):
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", raw) == 1
    assert "give the cloned kits23 repository" in capsys.readouterr().err
    source = kits(kits(tmp_path / "both", CASES), CASES, inside="data")
    assert run(source, raw) == 1
    assert "cases in data and dataset; give one of these folders" in capsys.readouterr().err


def test_folders_that_are_no_cases_are_named(tmp_path, raw, capsys):
    source = kits(tmp_path / "kits23", CASES)
    (source / "dataset" / "case_00000").rename(source / "dataset" / "case_2")
    (source / "dataset" / "case_00009" / "instances").mkdir(parents=True)
    (source / "dataset" / "__MACOSX").mkdir()
    assert run(source, raw) == 0
    told = capsys.readouterr().out
    assert "2 folders are no case_00000 with imaging.nii.gz, and left out: case_00009, case_2\n" in told


def test_no_folder_is_named_where_all_are_cases(tmp_path, raw, capsys):
    assert run(kits(tmp_path / "kits23", CASES) / "dataset", raw) == 0
    assert "left out" not in capsys.readouterr().out


def test_cases_of_a_given_table_that_are_none_are_told(tmp_path, raw, capsys):
    table = AttributeTable(
        lesions={"kidney cyst": {"shape": "round-like"}}, cases={"case_000000": CaseEntry(), "case_00001": CaseEntry()}
    )
    write_table(table, tmp_path / "table.json")
    assert run(kits(tmp_path / "kits23", CASES), raw, "--annotations", str(tmp_path / "table.json")) == 0
    told = capsys.readouterr().out
    assert (
        f"1 of 2 cases in {tmp_path / 'table.json'} are not in this data set, e.g. case_000000 (closest: case_00000)"
        in told
    )

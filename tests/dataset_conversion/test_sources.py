"""Where the files of a data set are found: through links, in folders and tars, and never two for one."""

import io
import os
import shutil
import tarfile

import pytest
from tiny_data import KITS, ct, kits, mask, msd_task, save, stored

from nnunetv2_malenia.cli import convert_kits, convert_msd
from nnunetv2_malenia.dataset_conversion.sources import ConversionError, source_files

CASES = {"case_00000": (1, 2, 3), "case_00001": (1, 2), "case_00002": (1, 3)}
LIVER = {"liver_0": (1, 2), "liver_1": (1,)}


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


def run(source, raw, *options):
    return convert_kits(["-i", str(source), "-d", "220", "-o", str(raw), *options])


def convert_liver(task, raw, *options):
    return convert_msd(["-i", str(task), "-d", "3", "-o", str(raw), *options])


def moved_and_linked(path, elsewhere):
    """Move a file or folder, and leave a link to it."""
    elsewhere.mkdir(parents=True, exist_ok=True)
    shutil.move(path, elsewhere / path.name)
    path.symlink_to(elsewhere / path.name)


def training_masks(folder):
    return {path.name.removesuffix(".nii.gz") for path in (folder / "labelsTr").iterdir()}


@pytest.fixture(params=["folder", "tar"])
def packed(request, tmp_path):
    """A function that gives a folder as it is, or as a tar with its links."""

    def pack(folder):
        if request.param == "folder":
            return folder
        with tarfile.open(tmp_path / f"{folder.name}.tar", "w") as tar:
            tar.add(folder, folder.name)
        return tmp_path / f"{folder.name}.tar"

    return pack


# ---------------------------------------------------------------- links


def test_linked_folders_of_cases_are_cases(tmp_path, raw):
    source = kits(tmp_path / "kits23", CASES)
    moved_and_linked(source / "dataset" / "case_00001", tmp_path / "elsewhere")
    moved_and_linked(source / "dataset" / "case_00002" / "imaging.nii.gz", tmp_path / "images")
    assert run(source, raw) == 0
    assert training_masks(raw / "Dataset220_KiTS23") == set(CASES)
    assert (stored(raw / "Dataset220_KiTS23" / "labelsTr" / "case_00001.nii.gz") == mask(1, 2)).all()


@pytest.mark.parametrize("what", ["dataset", "kits23"])
def test_the_folder_of_cases_may_be_a_link_of_any_name(tmp_path, raw, what):
    source = kits(tmp_path / "kits23", CASES)
    (tmp_path / "store").mkdir()
    shutil.move(source / "dataset", tmp_path / "store" / "k23")
    (source / "dataset").symlink_to(tmp_path / "store" / "k23")
    (tmp_path / "link").symlink_to(source)
    assert run(tmp_path / "link" / "dataset" if what == "dataset" else tmp_path / "link", raw) == 0
    assert training_masks(raw / "Dataset220_KiTS23") == set(CASES)


def test_links_that_lead_round_in_circles_are_walked_once(tmp_path, raw):
    source = kits(tmp_path / "kits23", CASES)
    (source / "dataset" / "case_00000" / "up").symlink_to(source)
    (source / "dataset" / "case_00000" / "beside").symlink_to("../case_00001")
    (source / "dataset" / "case_00001" / "beside").symlink_to("../case_00000")
    (source / "self").symlink_to("self")
    assert run(source, raw) == 0
    assert training_masks(raw / "Dataset220_KiTS23") == set(CASES)


@pytest.mark.parametrize("what", ["case_00001", "case_00001/imaging.nii.gz", "case_00001/segmentation.nii.gz"])
def test_a_link_that_leads_nowhere_is_a_fault_of_its_case(tmp_path, raw, capsys, what):
    source = kits(tmp_path / "kits23", CASES)
    path = source / "dataset" / what
    moved_and_linked(path, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere")
    assert run(source, raw) == 1
    told = capsys.readouterr().err
    assert "warning: case_00001: " in told
    assert "1 of 3 cases cannot be used" in told


@pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
def test_linked_folders_of_a_task_are_read(tmp_path, raw, folder):
    task = msd_task(tmp_path / "Task03_Liver", LIVER)
    moved_and_linked(task / folder, tmp_path / "elsewhere")
    assert convert_liver(task, raw) == 0
    assert training_masks(raw / "Dataset003_Liver") == set(LIVER)


# ---------------------------------------------------------------- tars


def test_links_inside_are_followed_in_a_tar_as_in_a_folder(tmp_path, raw, packed):
    task = msd_task(tmp_path / "Task03_Liver", LIVER)
    (task / "store").mkdir()
    shutil.move(task / "imagesTr", task / "store" / "images")
    (task / "imagesTr").symlink_to("store/images")
    os.link(task / "store" / "images" / "liver_0.nii.gz", task / "a_hard_link.nii.gz")
    (task / "labelsTr" / "liver_1.nii.gz").unlink()
    (task / "labelsTr" / "liver_1.nii.gz").symlink_to("../a_mask.nii.gz")
    (task / "a_mask.nii.gz").symlink_to("store/a_mask.nii.gz")
    save(task / "store" / "a_mask.nii.gz", mask(2, 1))
    (task / "store" / "up").symlink_to("..")
    assert convert_liver(packed(task), raw) == 0
    folder = raw / "Dataset003_Liver"
    assert training_masks(folder) == set(LIVER)
    assert (stored(folder / "labelsTr" / "liver_1.nii.gz") == mask(2, 1)).all()
    assert (stored(folder / "imagesTr" / "liver_0_0000.nii.gz") == ct(0)).all()


def test_a_link_to_what_is_hidden_is_followed_as_data_managers_have_it(tmp_path, raw, packed):
    task = msd_task(tmp_path / "Task03_Liver", LIVER)
    hidden = task / ".git" / "annex" / "objects"
    hidden.mkdir(parents=True)
    for path in [each for each in task.rglob("*.nii.gz") if not each.name.startswith(".")]:
        shutil.move(path, hidden / f"{path.parent.name}_{path.name}")
        path.symlink_to(f"../.git/annex/objects/{path.parent.name}_{path.name}")
    assert convert_liver(packed(task), raw) == 0
    assert (stored(raw / "Dataset003_Liver" / "imagesTr" / "liver_1_0000.nii.gz") == ct(1)).all()


@pytest.mark.parametrize("target", ["/etc/hostname", "../../../outside.nii.gz", "gone.nii.gz", "liver_0.nii.gz"])
def test_a_link_in_a_tar_that_leads_to_nothing_in_it_is_a_fault_of_its_case(tmp_path, raw, capsys, target):
    task = msd_task(tmp_path / "Task03_Liver", LIVER)
    save(tmp_path / "outside.nii.gz", ct())
    image = task / "imagesTr" / "liver_0.nii.gz"
    image.unlink()
    image.symlink_to(target)
    with tarfile.open(tmp_path / "Task03_Liver.tar", "w") as tar:
        tar.add(task, task.name)
    assert convert_liver(tmp_path / "Task03_Liver.tar", raw) == 1
    told = capsys.readouterr().err
    assert f"a link to {target}, which is not in the archive: make the tar with tar -h" in told
    assert "1 of 2 cases cannot be used" in told


def test_of_two_members_with_one_name_the_last_counts_as_when_it_is_unpacked(tmp_path, raw):
    task = msd_task(tmp_path / "Task03_Liver", LIVER)
    tar_file = tmp_path / "Task03_Liver.tar"
    with tarfile.open(tar_file, "w") as tar:
        tar.add(task, task.name)
    save(task / "labelsTr" / "liver_0.nii.gz", mask(2, 1))
    with tarfile.open(tar_file, "a") as tar:
        tar.add(task / "labelsTr" / "liver_0.nii.gz", "Task03_Liver/labelsTr/liver_0.nii.gz")
    assert convert_liver(tar_file, raw) == 0
    assert (stored(raw / "Dataset003_Liver" / "labelsTr" / "liver_0.nii.gz") == mask(2, 1)).all()


def test_a_tar_that_ends_between_two_members_is_not_whole(tmp_path, raw, capsys):
    source = kits(tmp_path / "kits23", CASES)
    with tarfile.open(tmp_path / "kits23.tar", "w") as tar:
        tar.add(source, source.name)
    with tarfile.open(tmp_path / "kits23.tar") as tar:
        middle = tar.getmembers()[7].offset
    assert run(tmp_path / "kits23.tar", raw) == 0
    os.truncate(tmp_path / "kits23.tar", middle)
    assert convert_kits(["-i", str(tmp_path / "kits23.tar"), "-d", "1", "-o", str(raw), "--skip-bad"]) == 1
    assert "whole, uncompressed tar (its end is missing); download it again" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["/etc/evil.nii.gz", "Task/../../evil.nii.gz"])
def test_a_member_that_would_be_unpacked_elsewhere_is_refused(tmp_path, name):
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    with pytest.raises(ConversionError, match="points outside the archive"):
        source_files(tmp_path / "t.tar")


# ---------------------------------------------------------------- what is no file, and two for one


def test_pipes_and_litter_are_no_files_and_names_that_no_json_could_hold_are_told(tmp_path):
    os.mkfifo(tmp_path / "imaging.nii.gz")
    (tmp_path / ".git").mkdir()
    for name in ("._a.nii.gz", ".git/b.nii.gz", "c.nii.gz"):
        (tmp_path / name).touch()
    assert list(source_files(tmp_path)) == ["c.nii.gz"]
    (tmp_path / os.fsdecode(b"liver_\xff.nii.gz")).touch()
    with pytest.raises(ConversionError, match=r"'liver_\\udcff\.nii\.gz' has bytes that are no UTF-8 text"):
        source_files(tmp_path)


@pytest.mark.parametrize("place", ["old/dataset/case_00001", "backup/case_00001"])
def test_two_copies_of_a_case_are_told_with_both_names(tmp_path, raw, capsys, place):
    source = kits(tmp_path / "kits23", CASES)
    save(source / place / "segmentation.nii.gz", mask(2), KITS)
    assert run(source, raw, "--skip-bad") == 1
    told = capsys.readouterr().err
    for where in ("dataset/case_00001", place):
        assert str(source / where / "segmentation.nii.gz") in told
    assert "are two copies of case_00001; keep one of them" in told
    assert not raw.exists()


def test_one_file_under_two_names_is_one_copy(tmp_path, raw):
    source = kits(tmp_path / "kits23", CASES)
    (source / "first_ten").mkdir()
    (source / "first_ten" / "case_00000").symlink_to("../dataset/case_00000")
    assert run(source, raw) == 0
    assert training_masks(raw / "Dataset220_KiTS23") == set(CASES)


def test_a_case_outside_the_folder_of_cases_is_told(tmp_path, raw, capsys):
    source = kits(tmp_path / "kits23", CASES)
    save(source / "new" / "case_00009" / "imaging.nii.gz", ct(), KITS)
    assert run(source, raw) == 1
    assert "a case lies in dataset/case_00009, for KiTS19 in data; move it there" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"3", b'{"case_id": 1}', b"[", b"\xff"])
def test_metadata_that_is_no_list_of_cases_is_one_line(tmp_path, raw, capsys, content):
    source = kits(tmp_path / "kits23", CASES)
    (source / "dataset" / "kits23.json").write_bytes(content)
    assert run(source, raw) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: {source / 'dataset' / 'kits23.json'}: ")
    assert told.count("\n") == 1

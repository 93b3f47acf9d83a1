"""Files whose names are no UTF-8 text are read, or named in a line."""

import os
import shutil

import numpy as np
import pytest
from fuzzed import ends_well
from tiny_data import kits, msd_task
from tiny_model import AFFINE, save_ct

from nnunetv2_malenia import cli

GARBLED = os.fsdecode(b"Br\xfcckner")  # as systems wrote it before UTF-8


@pytest.fixture
def folder(tmp_path):
    """A volume of a garbled name in `in`, a table, the names of labels."""
    (tmp_path / "in").mkdir()
    try:
        save_ct(tmp_path / "in" / f"{GARBLED}.nii.gz", np.zeros((14, 12, 10), np.uint8), AFFINE)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    (tmp_path / "t.json").write_text('{"lesions": {"liver tumor": {"location": "liver"}}}')
    (tmp_path / "names.json").write_text('{"background": 0, "liver": 1, "liver tumor": 2}')
    return tmp_path


def test_an_image_of_a_garbled_name_is_not_predicted(folder, model):
    how = ["-m", model, "--attributes", folder / "t.json", "-device", "cpu", "-npp", "0", "-nps", "0"]
    for source in ("in", f"in/{GARBLED}.nii.gz"):
        arguments = ["-i", folder / source, "-o", folder / "out", *how]
        assert not ends_well(cli.predict_zeroshot, *arguments, folder=folder)


def test_a_reference_of_a_garbled_name_is_not_evaluated(folder):
    (folder / "in" / "dataset.json").write_text('{"labels": {"background": 0, "liver tumor": 2}}')
    assert not ends_well(cli.evaluate, "-i", folder / "in", "-g", folder / "in", "--labels", folder / "names.json",
                         "-np", "1", folder=folder)  # fmt: skip


@pytest.mark.parametrize("command", ["render", "insert"])
def test_a_volume_of_a_garbled_name_is_not_drawn_on(folder, command):
    file = folder / "in" / f"{GARBLED}.nii.gz"
    source = ["--labels", file.parent] if command == "render" else ["--image", file, "--organs", file]
    assert not ends_well(cli.phantom, command, *source, "--attributes", folder / "t.json", "--names",
                         folder / "names.json", "-o", folder / "Dataset001_Out", folder=folder)  # fmt: skip


def test_a_case_of_a_garbled_name_is_not_converted(folder):
    task, repository = msd_task(folder / "Task03_Liver", {"a": (1,)}), kits(folder / "kits", {"case_00000": (1,)})
    for path in (task / "imagesTr" / "a.nii.gz", repository / "dataset" / "case_00000"):
        path.rename(path.with_name(GARBLED + "".join(path.suffixes)))
    for command, source in ((cli.convert_msd, task), (cli.convert_kits, repository), (cli.merge, task)):
        assert not ends_well(command, "-i", source, "-d", "3", "-o", folder / "raw", folder=folder)


def test_a_report_of_a_garbled_name_is_not_read(folder):
    shutil.rmtree(folder / "in")
    (folder / "in").mkdir()
    (folder / "in" / f"{GARBLED}__liver tumor.txt").write_text("A hypodense mass.")
    assert not ends_well(cli.attributes, "from-reports", folder / "in", "-o", folder / "r.json", folder=folder)


def test_an_argument_of_a_garbled_name_is_refused(folder):
    assert not ends_well(cli.attributes, "schema", "-o", folder / f"{GARBLED}.json", folder=folder)

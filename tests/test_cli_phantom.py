"""malenia_phantom: what its commands write and how they end."""

import json
import shutil

import header_faults
import nibabel as nib
import numpy as np
import pytest
from oriented import middle_ras, store

from nnunetv2_malenia import cli
from nnunetv2_malenia.attributes.tables import read_table
from nnunetv2_malenia.demo import real_anatomy
from nnunetv2_malenia.phantom import ORGANS
from nnunetv2_malenia.phantom import lesions as words
from nnunetv2_malenia.phantom.anatomy import Grid, draw_anatomy
from nnunetv2_malenia.phantom.rendering import Scanner, render

GRID = Grid((40, 48, 64), (5.0, 4.5, 4.5))
TABLE = {
    "lesions": {
        "kidney tumor": {"location": ["left kidney", "right kidney"], "density": "hyperdense"},
        "kidney cyst": {"density": "fluid density", "specific_features": "thin wall"},
    },
    "cases": {"case_2": {"lesions": {"kidney tumor": {"density": "calcific density"}}}},
}


def kits(folder, orders=("IPL", "LPS"), names=("case_1", "case_2")):
    """KiTS-like label maps of two cases, in KiTS's layout."""
    for order, name in zip(orders, names, strict=True):
        labels = np.zeros((16, 40, 56), np.uint8)
        labels[3:13, 14:26, 8:20] = labels[3:13, 14:26, 36:48] = 1
        labels[6:10, 17:23, 39:45] = 2  # larger x: the patient's right
        (folder / name).mkdir(parents=True)
        store(labels, Grid(labels.shape, (5.0, 5.0, 5.0)).affine, order, folder / name / "segmentation.nii.gz")
    return folder


def write(path, content):
    path.write_text(json.dumps(content))
    return str(path)


def run(*arguments):
    return cli.phantom([str(argument) for argument in arguments])


def test_render_makes_a_data_set_in_the_geometry_of_the_label_maps(tmp_path, capsys):
    labels, out = kits(tmp_path / "kits"), tmp_path / "Dataset005_Rendered"
    table = write(tmp_path / "table.json", TABLE)
    assert run("render", "--labels", labels, "--attributes", table, "-o", out) == 0
    assert capsys.readouterr() == (f"{out}: 2 cases\n", "")
    for name in ("case_1", "case_2"):
        source = nib.load(labels / name / "segmentation.nii.gz")
        image, mask = nib.load(out / "imagesTr" / f"{name}_0000.nii.gz"), nib.load(out / "labelsTr" / f"{name}.nii.gz")
        assert image.get_data_dtype() == np.int16
        for each in (image, mask):
            assert each.shape == source.shape
            assert np.allclose(each.affine, source.affine)
        assert (np.asarray(mask.dataobj) == np.asarray(source.dataobj)).all()
        assert middle_ras(mask, 2)[0] > 20  # right
    described = json.loads((out / "dataset.json").read_text())
    assert described["labels"] == {"background": 0, "kidney": 1, "kidney tumor": 2, "kidney cyst": 3}
    assert (described["numTraining"], described["channel_names"]) == (2, {"0": "CT"})
    drawn = read_table(out / "attributes.json")
    assert drawn.attributes_of("kidney tumor", "case_1").density == ("hyperdense",)
    assert drawn.attributes_of("kidney tumor", "case_2").density == ("calcific density",)
    assert drawn.attributes_of("kidney tumor", "case_1").location == ("right kidney",)


def test_render_takes_names_from_a_dataset_json_above_the_label_maps(tmp_path):
    kits(tmp_path / "kits")
    (tmp_path / "d" / "labelsTr").mkdir(parents=True)
    (tmp_path / "kits" / "case_1" / "segmentation.nii.gz").rename(tmp_path / "d" / "labelsTr" / "a.nii.gz")
    write(tmp_path / "d" / "dataset.json", {"labels": {"background": 0, "kidney": 1, "kidney cyst": 2}})
    table = write(tmp_path / "table.json", TABLE)
    assert run("render", "--labels", tmp_path / "d" / "labelsTr", "--attributes", table, "-o", tmp_path / "out") == 0
    assert list(read_table(tmp_path / "out" / "attributes.json").cases["a"].lesions) == ["kidney cyst"]


def test_label_values_with_gaps_and_beyond_a_byte_become_consecutive_as_nnunet_wants_them(tmp_path, capsys):
    labels = np.zeros((16, 40, 56), np.int16)
    labels[3:13, 14:26, 8:20] = 1
    labels[6:10, 17:23, 11:17] = 258  # would be 2 in a byte
    (tmp_path / "labels").mkdir()
    store(labels, Grid(labels.shape, (5.0, 5.0, 5.0)).affine, "LPS", tmp_path / "labels" / "a.nii.gz")
    names = write(tmp_path / "names.json", {"kidney": 1, "kidney cyst": 2, "kidney tumor": 258})
    table = write(tmp_path / "table.json", TABLE)
    out = tmp_path / "out"
    assert run("render", "--labels", tmp_path / "labels", "--attributes", table, "--names", names, "-o", out) == 0
    told = json.loads((out / "dataset.json").read_text())["labels"]
    assert told == {"background": 0, "kidney": 1, "kidney cyst": 2, "kidney tumor": 3}
    stored = nib.load(out / "labelsTr" / "a.nii.gz").get_fdata()
    assert np.unique(stored).tolist() == [0, 1, 3]
    assert (stored == 3).sum() == (labels == 258).sum()
    assert "label values have gaps, which nnU-Net does not take; they are renumbered" in capsys.readouterr().err


def test_a_lesion_that_the_table_lacks_is_not_drawn_as_healthy_organ(tmp_path, capsys):
    labels, out = kits(tmp_path / "kits"), tmp_path / "out"
    table = write(tmp_path / "table.json", {"lesions": {"kidney cyst": {"density": "fluid density"}}})
    assert run("render", "--labels", labels, "--attributes", table, "-o", out) == 1
    error = capsys.readouterr().err
    assert "'kidney tumor' is no lesion of the attribute table, and would be drawn as a healthy organ; add it" in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_label_map_without_labels_is_named(tmp_path, capsys):
    labels = kits(tmp_path / "kits")
    path = labels / "case_2" / "segmentation.nii.gz"
    store(np.zeros((16, 40, 56), np.uint8), np.eye(4), "RAS", path)
    table = write(tmp_path / "table.json", TABLE)
    assert run("render", "--labels", labels, "--attributes", table, "-o", tmp_path / "out") == 1
    assert capsys.readouterr().err == f"error: {path}: nothing is labelled in it; take it out\n"


def test_label_maps_of_organs_alone_are_drawn_and_it_is_said(tmp_path, capsys):
    labels, out = kits(tmp_path / "kits", ("RAS",), ("case_1",)), tmp_path / "out"
    names = write(tmp_path / "names.json", {"kidney": 1, "spleen": 2})
    table = write(tmp_path / "table.json", TABLE)
    assert run("render", "--labels", labels, "--attributes", table, "--names", names, "-o", out) == 0
    assert "no label is a lesion of the table; organs are drawn alone" in capsys.readouterr().err
    assert (out / "imagesTr" / "case_1_0000.nii.gz").is_file()
    assert not (out / "attributes.json").exists()


def test_a_case_that_cannot_be_drawn_leaves_nothing_behind(tmp_path, capsys):
    labels = kits(tmp_path / "kits")
    bad = TABLE["cases"] | {"case_2": {"lesions": {"kidney tumor": {"density": "speckled"}}}}
    table = write(tmp_path / "table.json", TABLE | {"cases": bad})
    before = sorted(tmp_path.iterdir())
    assert run("render", "--labels", labels, "--attributes", table, "-o", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: case_2: kidney tumor: density 'speckled' cannot be drawn here")
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A CT in LPS order with its organs in RAS order, and their names."""
    folder = tmp_path_factory.mktemp("patient")
    body = draw_anatomy(GRID, np.random.default_rng(3))
    image = render(body, [], words.ENHANCED, Scanner(supersampling=1), np.random.default_rng(4))
    store(np.rint(image).astype(np.int16), GRID.affine, "LPS", folder / "ct_0000.nii.gz")
    store(body.organs, GRID.affine, "RAS", folder / "organs.nii.gz")
    write(folder / "names.json", {name: 1 + i for i, name in enumerate(ORGANS)})
    return folder


def insert(patient, tmp_path, table, *more):
    path = write(tmp_path / "table.json", table)
    files = ("--image", patient / "ct_0000.nii.gz", "--organs", patient / "organs.nii.gz")
    return run("insert", *files, "--attributes", path, "--names", patient / "names.json", "-o", tmp_path / "out", *more)


def test_insert_writes_image_mask_and_what_was_drawn(patient, tmp_path, capsys):
    table = {"lesions": {"kidney cyst": {"location": "left kidney"}, "liver tumor": {"location": "liver"}}}
    assert insert(patient, tmp_path, table) == 0
    assert capsys.readouterr() == (f"{tmp_path / 'out'}: ct, 2 lesions\n", "")
    before = nib.load(patient / "ct_0000.nii.gz")
    image, mask = (nib.load(tmp_path / "out" / name) for name in ("ct_0000.nii.gz", "ct.nii.gz"))
    for each in (image, mask):
        assert each.shape == before.shape
        assert np.allclose(each.affine, before.affine)
    assert middle_ras(mask, 1)[0] < -20  # left kidney
    assert middle_ras(mask, 2)[0] > 0  # liver
    drawn = read_table(tmp_path / "out" / "ct.json").attributes_of("kidney cyst", "ct")
    assert drawn.location == ("left kidney",)
    assert drawn.enhancement == ("contrast-enhanced ct",)
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == {"ct.json", "ct.nii.gz", "ct_0000.nii.gz"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"lesions": {"a": {"location": "uterus"}}}, "ct: a: location 'uterus' cannot be drawn here"),
        ({"lesions": {"a": {"locatoin": "liver"}}}, 'unknown aspect "locatoin"'),
    ],
)
def test_what_insert_cannot_do_is_one_line_and_nothing_is_written(patient, tmp_path, capsys, table, message):
    assert insert(patient, tmp_path, table) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", header_faults.REFUSED)
def test_a_header_without_sense_is_one_line_in_every_command(tmp_path, capsys, fault):
    voxels = np.ones((6, 7, 8), np.int16)
    bad = header_faults.with_fault(tmp_path / "labelsTr" / "ct.nii.gz", voxels, GRID.affine, fault)
    image = header_faults.with_fault(tmp_path / "imagesTr" / "ct_0000.nii.gz", voxels, GRID.affine, fault)
    table = write(tmp_path / "t.json", {"lesions": {"liver cyst": {"location": "liver"}}})
    labels = {"background": 0, "liver": 1}
    write(tmp_path / "dataset.json", {"labels": labels, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"})
    for command in (
        ("insert", "--image", image, "--organs", bad, "--attributes", table, "-o", tmp_path / "out"),
        ("render", "--labels", bad.parent, "--attributes", table, "-o", tmp_path / "out"),
        ("augment", "-d", tmp_path, "-o", tmp_path / "out"),
        ("sheet", tmp_path, "-o", tmp_path / "out.png"),
    ):
        assert run(*command) == 1, command
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert "ct" in error
    assert not (tmp_path / "out").exists()


def test_sides_that_are_a_guess_are_told_and_refused_where_one_is_drawn(patient, tmp_path, capsys):
    guess = tmp_path / "guess"
    guess.mkdir()
    for name in ("ct_0000.nii.gz", "organs.nii.gz"):
        voxels = np.asarray(nib.as_closest_canonical(nib.load(patient / name)).dataobj)
        header_faults.without_form_codes(guess / name, voxels[::-1], GRID.affine)  # as nibabel guesses: x grows to left
    shutil.copy(patient / "names.json", guess)
    assert insert(guess, tmp_path, {"lesions": {"liver cyst": {"location": "liver"}}}) == 0
    assert "ct_0000.nii.gz: the header has no sform and no qform code: left and right are" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "out")
    assert insert(guess, tmp_path, {"lesions": {"kidney cyst": {"location": "left kidney"}}}) == 1
    error = capsys.readouterr().err
    assert "does not say where left and right are, and a lesion's location names a side" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["ct_0000.nii.gz", "ct.nii.gz", "ct.json"])
def test_insert_writes_over_its_own_files_and_no_others(patient, tmp_path, capsys, name):
    table = {"lesions": {"liver cyst": {"location": "liver"}}}
    assert [insert(patient, tmp_path, table), insert(patient, tmp_path, table)] == [0, 0]
    (tmp_path / "out" / name).write_bytes(b"by hand")
    assert insert(patient, tmp_path, table) == 1
    assert f"{name} was not written by an earlier run, or was changed since" in capsys.readouterr().err
    assert (tmp_path / "out" / name).read_bytes() == b"by hand"


def test_insert_writes_all_three_files_or_none(patient, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(real_anatomy, "write_table", fail)
    assert insert(patient, tmp_path, {"lesions": {"liver cyst": {"location": "liver"}}}) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_sheet_takes_regions_and_tells_what_it_cannot_show(patient, tmp_path, capsys):
    out, png = tmp_path / "d", tmp_path / "sheet.png"
    assert insert(patient, tmp_path, {"lesions": {"kidney cyst": {"location": "left kidney"}}}) == 0
    for kind, name in (("images", "ct_0000.nii.gz"), ("labels", "ct.nii.gz")):
        (out / f"{kind}Tr").mkdir(parents=True)
        (tmp_path / "out" / name).rename(out / f"{kind}Tr" / name)
    regions = {"background": 0, "kidney": [1, 2], "kidney cyst": [1]}
    write(out / "dataset.json", {"labels": regions, "regions_class_order": [2, 1]})
    write(out / "attributes.json", {"lesions": {"kidney cyst": {"location": "left kidney"}}})
    assert run("sheet", out, "-o", png) == 0
    png.unlink()
    store(
        np.zeros((20, 24, 32), np.uint8),
        Grid((20, 24, 32), (10.0, 9.0, 9.0)).affine,
        "RAS",
        out / "labelsTr" / "ct.nii.gz",
    )
    assert run("sheet", out, "-o", png) == 1
    write(out / "dataset.json", {"name": "no labels"} | {"labels": 3})
    assert run("sheet", out, "-o", png) == 1
    (out / "dataset.json").write_text("{")
    assert run("sheet", out, "-o", png) == 1
    told = capsys.readouterr().err.splitlines()
    assert f"ct.nii.gz is of shape (32, 24, 20), {out / 'imagesTr' / 'ct_0000.nii.gz'} of (64, 48, 40)" in told[0]
    assert [line.split(": ")[2].split(";")[0].split(" (")[0] for line in told[1:]] == [
        "3 is no object of names and values",
        "not JSON at line 1, column 2",
    ]
    assert not png.exists()


def test_make_writes_a_data_set_and_sheet_a_picture_of_it(tmp_path, capsys):
    out, png = tmp_path / "Dataset001_P", tmp_path / "sheet.png"
    more = ("--split", "one-value-unknown", "--distractors", 3, "--further_features", 1)
    assert run("make", "-o", out, "-n", 2, "--test_cases", 1, *more) == 0
    assert "gallbladder tumor" in json.loads((out / "labelsTs.json").read_text())
    assert run("sheet", out, "-o", png, "-n", 1) == 0
    assert png.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"{out}: 2 training cases, 1 test case\n{png}: 1 case\n"


def test_splits_prints_the_composition_of_each(capsys):
    assert run("splits") == 0
    out = capsys.readouterr().out
    assert "| density | calcific density | kidney stone | pancreas tumor, liver tumor, lung tumor |" in out
    assert out.count("**none**") == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("make", "-o", "x", "--split", "other"), "no split 'other'"),
        (("sheet", ".", "-o", "x.png"), "no *_0000.nii.gz in it or its imagesTr"),
        (("render", "--labels", "none", "--attributes", "t.json", "-o", "x"), "none: no such folder"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.json", TABLE)
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("insert", "--image", "a", "--organs", "b", "--diameter", "30", "10"), "FROM must be above 0 and at most TO"),
        (("insert", "--image", "a", "--organs", "b", "--diameter", "0", "10"), "FROM must be above 0 and at most TO"),
        (("render", "--labels", "a", "--slice_thickness", "-3"), "argument --slice_thickness: -3 is not 0 or more"),
    ],
)
def test_sizes_that_cannot_be_are_wrong_arguments(arguments, message, tmp_path, capsys):
    table = write(tmp_path / "t.json", TABLE)
    with pytest.raises(SystemExit) as ended:
        run(*arguments, "--attributes", table, "-o", tmp_path / "out")
    assert ended.value.code == 2
    assert message in capsys.readouterr().err

"""The inputs on which earlier versions failed, made from real CTs by ../shared/faults, give what its README says."""

import csv
import gzip
import json
import runpy
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_model import bright_is_lesion

from nnunetv2_malenia import cli
from nnunetv2_malenia.attributes.schema import AttributeTable
from nnunetv2_malenia.attributes.tables import read_table
from nnunetv2_malenia.inference.export import OutputOptions
from nnunetv2_malenia.inference.predictor import MaleniaPredictor

MAKE = Path(__file__).parents[1] / ".." / "shared" / "faults" / "make_inputs.py"
pytestmark = pytest.mark.skipif(not MAKE.is_file(), reason="needs ../shared/faults and the CTs beside it")

HEADERS = {  # file -> why it is refused; "" if it is read
    "rounded_quaternion": "", "no_form_codes": "", "datatype_0": "voxels of type none", "rgb": "voxels of type RGB",
}  # fmt: skip
TILTED = ("tilted.nii.gz", "tilted.nrrd", "tilted.mha")
GUESS = "left and right are a guess"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(MAKE), str(folder)])
        runpy.run_path(str(MAKE), run_name="__main__")
    return folder


@pytest.fixture
def inputs(made, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(made, tmp_path / "faults", symlinks=True)


@pytest.fixture
def ends(capsys):
    """Call a console command -> its exit status and what it said on stderr."""

    def call(command, *arguments):
        capsys.readouterr()
        status = command([str(argument) for argument in arguments])
        return status, capsys.readouterr().err

    return call


@pytest.fixture
def refused(ends):
    """Call a console command that must refuse its input -> why, in one line, and a line for each bad case before."""

    def call(command, *arguments):
        status, said = ends(command, *arguments)
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        assert status == 1
        assert len(lines) == 1
        return lines[0]

    return call


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(path, **lesion):
    return write(path, {"lesions": {"liver tumor": {"density": "hypodense", **lesion}}})


@pytest.fixture
def predict(tmp_path):
    """The arguments with which malenia_predict_zeroshot asks for a liver tumor, in this process."""

    def arguments(source, output, *more, **lesion):
        asked = ["--attributes", table(tmp_path / "asked.json", **lesion), "-m", "phantom", "-device", "cpu"]
        how = ["-npp", "0", "-nps", "0", "--disable_tta", "-step_size", "1", "--disable_progress_bar"]
        return [cli.predict_zeroshot, "-i", source, "-o", output, *asked, *how, *more]

    return arguments


@pytest.mark.parametrize(("images", "outputs", "named"), [
    ("links", "scans", "scans/patient1.nii.gz is read by this command"),
    ("bad", "labels", "labels/patient1.nii.gz was not written by an earlier run"),
])  # fmt: skip
def test_files_of_the_users_stay_and_are_named_before_work_starts(inputs, predict, refused, images, outputs, named):
    folder = inputs / "user_files"
    before = tree(folder)
    assert named in refused(*predict(folder / images, folder / outputs))
    assert tree(folder) == before


def test_results_go_beside_the_users_masks(inputs, predict, ends, monkeypatch):
    monkeypatch.chdir(inputs / "user_files" / "project")
    before = tree(Path())
    status, _ = ends(*predict("images", ".", "--save_masks"))
    assert status == 0
    assert before.items() <= tree(Path()).items()
    assert Path("patient1.nii.gz").is_file()


def test_linked_cases_are_four(inputs, ends, tmp_path):
    status, _ = ends(cli.convert_kits, "-i", inputs / "kits_linked" / "kits23", "-d", "5", "-o", tmp_path / "raw")
    assert status == 0
    assert len(list((tmp_path / "raw" / "Dataset005_KiTS23" / "labelsTr").iterdir())) == 4


def test_a_link_that_leads_back_up_is_no_loop(inputs, ends, tmp_path):
    dataset = inputs / "kits_linked" / "kits23" / "dataset"
    (next(dataset.glob("case_*")) / "up").symlink_to(dataset)
    assert ends(cli.convert_kits, "-i", dataset.parent, "-d", "5", "-o", tmp_path / "raw", "--dry-run")[0] == 0


def test_two_copies_of_a_case_are_both_named(inputs, refused, tmp_path):
    source = inputs / "kits_twice" / "kits23"
    (older,) = (source / "old_download" / "dataset").iterdir()
    said = refused(cli.convert_kits, "-i", source, "-d", "5", "-o", tmp_path / "raw")
    assert all(str(source / part / older.name) in said for part in ("dataset", "old_download/dataset"))
    assert not (tmp_path / "raw").exists()


def save_case(folder, image, mask, labels=None):
    """A case of the KiTS mask's size, of which labels has the values of `labels`."""
    voxels = np.zeros((8, 9, 10), np.int16)
    for path, content in ((image, voxels - 1000), (mask, voxels)):
        for value in labels if content is voxels and labels else ():
            content[2 * value, 2:5, 3:6] = value
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(content, np.diag([3.0, 3, 3, 1])), folder / path)


MSD = [
    ("v2_form_where_msd_is_due", "needs no conversion"), ("no_labels", "labels: "), ("test_as_dicts", None),
    ("labels_in_another_folder", None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "why"), MSD)
def test_a_dataset_json_of_msd_is_read_or_refused_in_a_line(inputs, ends, refused, tmp_path, name, why):
    task, raw = tmp_path / "Task03_Liver", tmp_path / "raw"
    save_case(task, "imagesTr/liver_0.nii.gz", "labelsTr/liver_0.nii.gz", [1])
    save_case(task, "imagesTs/liver_1.nii.gz", "labelsTr2/liver_0.nii.gz", [1, 2])
    shutil.copy(inputs / "dataset_jsons" / f"{name}.json", task / "dataset.json")
    arguments = [cli.convert_msd, "-i", task, "-d", "3", "-o", raw]
    if why:
        assert why in refused(*arguments)
        assert not raw.exists()
        return
    assert ends(*arguments)[0] == 0
    stored = np.asarray(nib.load(raw / "Dataset003_Liver" / "labelsTr" / "liver_0.nii.gz").dataobj)
    assert set(np.unique(stored)) == ({0, 1, 2} if name == "labels_in_another_folder" else {0, 1})
    assert (raw / "Dataset003_Liver" / "imagesTs").exists() is (name == "test_as_dicts")


def merged(inputs, tmp_path, name):
    source = tmp_path / "Dataset001_A"
    save_case(source, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", [1, 2])
    shutil.copy(inputs / "dataset_jsons" / f"{name}.json", source / "dataset.json")
    return cli.merge, "-i", source, "-d", "7", "-o", tmp_path / "raw"


def test_background_is_background_however_it_is_spelt(inputs, ends, tmp_path):
    assert ends(*merged(inputs, tmp_path, "background_spelt_Background"))[0] == 0
    (folder,) = (tmp_path / "raw").iterdir()
    labels = json.loads((folder / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "kidney": 1, "kidney tumor": 2}
    stored, source = (nib.load(path / "labelsTr" / "a.nii.gz") for path in (folder, tmp_path / "Dataset001_A"))
    assert np.array_equal(stored.dataobj, source.dataobj)


def test_one_value_for_two_labels_is_refused(inputs, refused, tmp_path):
    said = refused(*merged(inputs, tmp_path, "one_value_for_two_labels"))
    assert "'kidney tumor' and 'kidney cyst' have the same value, 1" in said


@pytest.mark.parametrize("name", [name for name, _ in MSD])
def test_a_dataset_json_of_msd_is_no_raw_data_set(inputs, ends, refused, tmp_path, name):
    arguments = merged(inputs, tmp_path, name)
    if name == "v2_form_where_msd_is_due":
        assert ends(*arguments)[0] == 0
    else:
        assert "dataset.json: " in refused(*arguments)


def as_labels(header, target):
    """A label map with a header of `headers`: soft tissue is 1."""
    raw = bytearray(gzip.decompress(header.read_bytes()))
    if "rgb" not in header.name:
        voxels = np.frombuffer(bytes(raw[352:]), "<i2")
        raw[352:] = ((voxels > -200) & (voxels < 200)).astype("<i2").tobytes()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress(bytes(raw), 1))
    return target


def test_headers_are_read_or_refused_by_prediction(inputs, predict, ends, tmp_path):
    status, said = ends(*predict(inputs / "headers", tmp_path / "out"))
    assert status == 1
    for name, why in HEADERS.items():
        assert (tmp_path / "out" / f"{name}.nii.gz").is_file() is (not why)
        assert not why or f"error: case {name}: {name}.nii.gz: {why}" in said
    assert GUESS in said
    image, answer = (nib.load(path / "no_form_codes.nii.gz") for path in (inputs / "headers", tmp_path / "out"))
    assert image.shape == answer.shape
    assert np.array_equal(image.affine, answer.affine)
    assert int(answer.header["sform_code"]) == int(answer.header["qform_code"]) == 0


def test_a_query_that_names_a_side_is_refused_where_left_is_a_guess(inputs, predict, ends, tmp_path):
    image = inputs / "headers" / "no_form_codes.nii.gz"
    status, said = ends(*predict(image, tmp_path / "out", location="left liver lobe"))
    assert status == 1
    assert "the header does not say where left and right are, and a query names a side" in said


@pytest.mark.parametrize("name", HEADERS)
def test_headers_are_read_or_refused_by_evaluation(inputs, ends, tmp_path, name):
    for folder in ("predicted", "references"):
        as_labels(inputs / "headers" / f"{name}.nii.gz", tmp_path / folder / "a.nii.gz")
    labels = {"background": 0, "liver tumor": 1}
    write(tmp_path / "predicted" / "dataset.json", {"labels": labels, "file_ending": ".nii.gz"})
    status, said = ends(cli.evaluate, "-i", tmp_path / "predicted", "-g", tmp_path / "references", "-np", "1",
                        "--labels", write(tmp_path / "labels.json", labels), "--disable_progress_bar")  # fmt: skip
    assert_read_or_refused(name, status, said)


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("command", ["insert", "render"])
def test_headers_are_read_or_refused_where_phantoms_are_drawn(inputs, ends, tmp_path, name, command):
    image = inputs / "headers" / f"{name}.nii.gz"
    organs = as_labels(image, tmp_path / "labels" / "a.nii.gz")
    source = ["--labels", organs.parent] if command == "render" else ["--image", image, "--organs", organs]
    names = write(tmp_path / "names.json", {"background": 0, "liver": 1})
    out = tmp_path / "Dataset001_Out"
    asked = table(tmp_path / "t.json", location="liver")
    status, said = ends(cli.phantom, command, *source, "--attributes", asked, "--names", names, "-o", out)
    assert_read_or_refused(name, status, said)
    assert out.exists() is (status == 0)


def assert_read_or_refused(name, status, said):
    why = HEADERS[name]
    assert status == (1 if why else 0)
    assert why in said
    assert (said.count("\n") == 1) or not why
    assert (GUESS in said) is (name == "no_form_codes")


def test_a_lesion_is_not_put_on_a_side_where_left_is_a_guess(inputs, refused, tmp_path):
    image = inputs / "headers" / "no_form_codes.nii.gz"
    organs = as_labels(image, tmp_path / "labels" / "a.nii.gz")
    names = write(tmp_path / "names.json", {"background": 0, "kidney": 1})
    asked = write(tmp_path / "t.json", {"lesions": {"kidney tumor": {"location": "left kidney"}}})
    said = refused(cli.phantom, "insert", "--image", image, "--organs", organs, "--attributes", asked, "--names", names,
                   "-o", tmp_path / "out")  # fmt: skip
    assert "does not say where left and right are" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("lesion", [False, True])
def test_headers_are_read_or_refused_by_conversion(inputs, capsys, tmp_path, name, lesion):
    image = inputs / "headers" / f"{name}.nii.gz"
    labels = ["background", "kidney", "kidney tumor"] if lesion else ["background", "spleen"]
    task, raw, kits = tmp_path / "Task20_Own", tmp_path / "Dataset020_Own", tmp_path / "kits" / "dataset"
    pairs = [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}]
    by_value = {str(value): label for value, label in enumerate(labels)}
    write(task / "dataset.json", {"modality": {"0": "CT"}, "labels": by_value, "training": pairs})
    by_name = {label: value for value, label in enumerate(labels)}
    about = {"channel_names": {"0": "CT"}, "labels": by_name, "numTraining": 1, "file_ending": ".nii.gz"}
    write(raw / "dataset.json", about)
    sources = {cli.convert_msd: (task, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz"),
               cli.merge: (raw, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")}  # fmt: skip
    if lesion:
        sources[cli.convert_kits] = (kits, "case_00000/imaging.nii.gz", "case_00000/segmentation.nii.gz")
    for convert, (source, scan, mask) in sources.items():
        as_labels(image, source / mask)
        (source / scan).parent.mkdir(exist_ok=True)
        shutil.copy(image, source / scan)
        status = convert(["-i", str(source), "-d", "30", "-o", str(tmp_path / "raw"), "--dry-run"])
        printed, said = capsys.readouterr()
        names_a_side = lesion and convert is not cli.merge  # a source without attributes has no sides to mix up
        why = HEADERS[name] or ("attributes name a side" if name == "no_form_codes" and names_a_side else "")
        assert status == (1 if why else 0)
        assert why in said
        assert (GUESS in printed) is (name == "no_form_codes" and not why)


def test_a_tilted_ct_gives_the_same_result_in_the_same_place_in_every_format(inputs, tmp_path):
    predictor = MaleniaPredictor.from_model_folder("phantom", device="cpu", use_mirroring=False, tile_step_size=1)
    asked = {"liver tumor": {"density": "hypodense"}, "liver cyst": {"density": "fluid density"}}
    predictor.ask(AttributeTable.model_validate({"lesions": asked}))
    bright_is_lesion(predictor)
    answers = []
    for name in TILTED:
        out = tmp_path / name.replace(".", "_")
        source = inputs / "sheared" / name
        predictor.predict_cases(source, out, OutputOptions(), num_processes_preprocessing=0, num_processes_export=0)
        answers.append(nib.load(out / "tilted.nii.gz"))
    tilted = nib.load(inputs / "sheared" / "tilted.nii.gz")
    for answer in answers:
        np.testing.assert_allclose(answer.affine, tilted.affine, rtol=1e-6, atol=1e-4)
        np.testing.assert_array_equal(answer.dataobj, answers[0].dataobj)
    assert np.asarray(answers[0].dataobj).any()


def test_reports_say_what_they_say(inputs, tmp_path):
    reports, paths = inputs / "reports", [tmp_path / name for name in ("t.json", "review.csv", "evidence.csv")]
    arguments = ["from-reports", reports / "reports.csv", "-o", paths[0], "--review", paths[1], "--evidence", paths[2]]
    assert cli.attributes([str(argument) for argument in arguments]) == 0
    cases = read_table(paths[0]).cases
    for case_id, aspect, value in json.loads((reports / "expected.json").read_text()):
        stated = [values.stated for values in cases[case_id].lesions.values()]
        if aspect is None:
            assert stated == []
        elif value is None:
            assert all(aspect not in values for values in stated), case_id
        else:
            assert value in stated[0][aspect], case_id
    with paths[1].open() as file:
        review = {row["case"]: row["why"] for row in csv.DictReader(file)}
    assert "denies this lesion" in review["denied"]

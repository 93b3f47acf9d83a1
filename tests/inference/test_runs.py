"""Runs over folders of images: what is written, what a failing case does, what a resume trusts."""

import csv
import json
import os
import shutil
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest
import torch
from dies_on import DiesOn
from tiny_model import AFFINE, SHAPE_XYZ, BrightIsLesion, bright_is_lesion, save_ct, tiny_ct

from nnunetv2_malenia.attributes.schema import AttributeTable
from nnunetv2_malenia.cli import predict_zeroshot
from nnunetv2_malenia.inference.batch import Workers
from nnunetv2_malenia.inference.export import OutputOptions, read_findings
from nnunetv2_malenia.inference.findings import findings_schema_text
from nnunetv2_malenia.inference.model_folder import PredictionError
from nnunetv2_malenia.inference.predictor import MaleniaPredictor
from nnunetv2_malenia.inference.run_record import standing_answer

TABLE = AttributeTable(
    lesions={"liver tumor": {"location": "liver", "density": "hypodense"}, "kidney stone": {"density": "hyperdense"}}
)
HERE = {"num_processes_preprocessing": 0, "num_processes_export": 0}
SCHEMA = Path(__file__).parents[2] / "docs" / "case_findings.schema.json"


def predictor_of(model, folds=(0,), table=TABLE):
    predictor = MaleniaPredictor(device=torch.device("cpu"), use_mirroring=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), folds)
    predictor.ask(table)
    return predictor


@pytest.fixture
def bright(model):
    predictor = predictor_of(model)
    bright_is_lesion(predictor)
    return predictor


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for case_id in "abc":
        save_ct(folder / f"{case_id}_0000.nii.gz", tiny_ct(ord(case_id)))
    return folder


def run_of(folder):
    return json.loads((folder / "run.json").read_text())


def states(folder):
    return {case_id: case["state"] for case_id, case in run_of(folder)["cases"].items()}


def tree(folder):
    """All files but the record of what was written."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith(".malenia_outputs")}


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def test_a_run_writes_every_case_and_says_what_it_did(model, images, tmp_path):
    out = tmp_path / "out"
    (images / "notes.txt").write_text("not an image")
    options = OutputOptions(save_masks=True, save_probabilities=True)
    predictor_of(model).predict_cases(images, out, options, **HERE)
    run = run_of(out)
    assert states(out) == dict.fromkeys("abc", "DONE")
    assert run["finished"] is not None
    assert run["ignored_files"] == ["notes.txt"]
    assert set(run["settings"]["model_files_sha256"]) == {"plans.json", "fold_0/checkpoint_final.pth"}
    assert tree(out) == {"run.json", "queries.json", "findings.csv"} | {
        name
        for case in "abc"
        for name in (f"{case}.json", f"{case}.nii.gz", f"{case}.npz",
                     f"masks/{case}/liver_tumor.nii.gz", f"masks/{case}/kidney_stone.nii.gz")
    }  # fmt: skip
    stored = np.load(out / "a.npz")
    assert stored["probabilities"].shape == (2, *SHAPE_XYZ[::-1])
    np.testing.assert_allclose(stored["affine_xyz_ras"], AFFINE)
    mask = nib.load(out / "masks" / "a" / "liver_tumor.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj).T, stored["probabilities"][0] > 0.5)


def test_bad_cases_fail_in_one_line_each_and_the_others_are_done(model, images, tmp_path, capsys):
    out, table = tmp_path / "out", tmp_path / "table.json"
    table.write_text(json.dumps({"lesions": {"liver tumor": {"location": "liver"}}}))
    truncate(images / "a_0000.nii.gz")
    (images / "b_0000.nii.gz").write_bytes(b"")
    save_ct(images / "d_0000.nii.gz", tiny_ct()[..., 0])
    for channel in range(2):
        shutil.copy(images / "c_0000.nii.gz", images / f"e_{channel:04d}.nii.gz")
    status = predict_zeroshot(
        ["-i", str(images), "-o", str(out), "--attributes", str(table), "-m", str(model), "-f", "0", "-device", "cpu",
         "-npp", "1", "-nps", "1", "--disable_progress_bar", "--disable_tta"]
    )  # fmt: skip
    said = capsys.readouterr()
    assert status == 1
    assert "5 cases: 1 done, 4 failed" in said.out
    errors = [line for line in said.err.splitlines() if line.startswith("error: case ")]
    assert [line.split()[2] for line in errors] == ["a:", "b:", "d:", "e:"]
    assert "Traceback" not in said.err
    assert states(out) == {"a": "FAILED", "b": "FAILED", "c": "DONE", "d": "FAILED", "e": "FAILED"}
    assert len(run_of(out)["cases"]["a"]["inputs"]["a_0000.nii.gz"]) == 64
    assert tree(out) == {"run.json", "queries.json", "findings.csv", "c.json", "c.nii.gz"}


def test_a_case_that_fails_now_loses_what_an_earlier_run_left(bright, images, tmp_path):
    out = tmp_path / "out"
    options = OutputOptions(save_masks=True, save_probabilities=True)
    bright.predict_cases(images, out, options, **HERE)
    truncate(images / "a_0000.nii.gz")
    bright.predict_cases(images, out, options, **HERE)
    assert states(out) == {"a": "FAILED", "b": "DONE", "c": "DONE"}
    assert not [name for name in tree(out) if name.startswith(("a.", "masks/a/"))]


def test_a_fault_of_the_program_is_one_cases_failure_and_is_logged(bright, images, tmp_path, caplog):
    class Fails(BrightIsLesion):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 1:
                raise KeyError("a slip")
            return super().forward(x)

    bright.network = Fails()
    bright.predict_cases(images, tmp_path / "out", **HERE)
    assert states(tmp_path / "out") == {"a": "FAILED", "b": "DONE", "c": "DONE"}
    assert run_of(tmp_path / "out")["cases"]["a"]["reason"] == "unexpected KeyError: 'a slip'"
    assert "a slip" in caplog.text
    assert "Traceback" in caplog.text


def test_an_answer_that_is_not_finite_is_a_failure_and_no_empty_mask(bright, images, tmp_path):
    class Overflows(BrightIsLesion):
        def forward(self, x):
            return super().forward(x) * float("nan")

    bright.network = Overflows()
    bright.predict_cases(images, tmp_path / "out", **HERE)
    assert set(states(tmp_path / "out").values()) == {"FAILED"}
    assert tree(tmp_path / "out") == {"run.json", "queries.json", "findings.csv"}
    assert "not finite" in run_of(tmp_path / "out")["cases"]["a"]["reason"]


def test_a_process_that_dies_fails_its_case_and_the_next_gets_a_new_one():
    with Workers(1) as workers:
        with pytest.raises(BrokenProcessPool):
            workers.submit(os._exit, 1).result()
        assert workers.submit(int, "3").result() == 3


def test_a_case_that_kills_its_process_takes_no_other_case_along(bright, images, tmp_path, monkeypatch):
    killing = DiesOn(bright.preparation, "b_0000.nii.gz")
    monkeypatch.setattr(MaleniaPredictor, "preparation", killing)
    bright.predict_cases(images, tmp_path / "out", num_processes_preprocessing=1, num_processes_export=0)
    assert states(tmp_path / "out") == {"a": "DONE", "b": "FAILED", "c": "DONE"}
    assert "a background process died" in run_of(tmp_path / "out")["cases"]["b"]["reason"]


def test_a_resume_predicts_only_what_does_not_stand(bright, images, tmp_path):
    out = tmp_path / "out"
    bright.predict_cases(images, out, **HERE)
    untouched = (out / "a.nii.gz").stat().st_mtime_ns
    label_map = np.asarray(nib.load(out / "b.nii.gz").dataobj)
    (out / "b.nii.gz").unlink()
    save_ct(images / "d_0000.nii.gz")
    bright.predict_cases(images, out, continue_prediction=True, **HERE)
    assert states(out) == {"a": "SKIPPED", "b": "DONE", "c": "SKIPPED", "d": "DONE"}
    assert (out / "a.nii.gz").stat().st_mtime_ns == untouched
    np.testing.assert_array_equal(np.asarray(nib.load(out / "b.nii.gz").dataobj), label_map)
    bright.predict_cases(images, out, continue_prediction=True, **HERE)
    assert set(states(out).values()) == {"SKIPPED"}
    bright.predict_cases(images, out, **HERE)
    assert set(states(out).values()) == {"DONE"}


@pytest.fixture
def answered(bright, images, tmp_path):
    """A finished run, and a function that says whether its answer for case a still stands."""
    out = tmp_path / "out"
    asked = bright.predict_cases(images, out, OutputOptions(save_masks=True), **HERE).asked_sha256
    return out, images, asked, lambda: standing_answer(out, "a", {0: images / "a_0000.nii.gz"}, asked) is not None


@pytest.mark.parametrize("name", ["a.json", "a.nii.gz", "masks/a/liver_tumor.nii.gz", "masks/a/kidney_stone.nii.gz"])
@pytest.mark.parametrize("spoil", [Path.unlink, truncate])
def test_an_answer_whose_files_are_not_whole_does_not_stand(answered, name, spoil):
    out, _, _, stands = answered
    assert stands()
    spoil(out / name)
    assert not stands()


def test_an_answer_for_another_image_does_not_stand(answered):
    _, images, _, stands = answered
    save_ct(images / "a_0000.nii.gz", tiny_ct(seed=99))
    assert not stands()


def test_an_answer_to_another_question_has_another_hash(model, images, tmp_path):
    other_table = AttributeTable(lesions={"liver tumor": {"location": "liver"}, "kidney stone": {"shape": "round"}})
    other_step = predictor_of(model)
    other_step.tile_step_size = 1
    runs = [
        predictor_of(model).settings(OutputOptions()),
        predictor_of(model).settings(OutputOptions(threshold=0.4)),
        predictor_of(model).settings(OutputOptions(min_volume_ml=1)),
        predictor_of(model).settings(OutputOptions(save_masks=True)),
        predictor_of(model, folds=(1,)).settings(OutputOptions()),
        predictor_of(model, folds=(0, 1)).settings(OutputOptions()),
        predictor_of(model, table=other_table).settings(OutputOptions()),
        other_step.settings(OutputOptions()),
    ]
    assert len({json.dumps(settings) for settings in runs}) == len(runs)
    assert predictor_of(model).settings(OutputOptions()) == runs[0]


def test_parts_share_the_cases_and_write_records_of_their_own(bright, images, tmp_path):
    out = tmp_path / "out"
    bright.predict_cases(images, out, **HERE)
    (out / "run.sh").write_text("a user's own")
    for part in (1, 0):
        bright.predict_cases(images, out, num_parts=2, part_id=part, **HERE)
    records = [json.loads((out / f"run_part_{part}_of_2.json").read_text()) for part in (0, 1)]
    assert [list(record["cases"]) for record in records] == [["a", "c"], ["b"]]
    assert "run.json" not in tree(out)  # it told of a run that is no longer here
    bright.predict_cases(images, out, continue_prediction=True, **HERE)
    assert states(out) == dict.fromkeys("abc", "SKIPPED")
    assert not [name for name in tree(out) if "_part_" in name]
    assert "run.sh" in tree(out)


def test_folds_are_averaged(model, images, tmp_path):
    def logits(name, folds):
        predictor = predictor_of(model, folds)
        predictor.predict_cases(images / "a_0000.nii.gz", tmp_path / name, OutputOptions(save_probabilities=True),
                                **HERE)  # fmt: skip
        p = np.load(tmp_path / name / "a.npz")["probabilities"].astype(float)
        return np.log(p / (1 - p))

    first, second, both = logits("0", (0,)), logits("1", (1,)), logits("01", (0, 1))
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_allclose(both, (first + second) / 2, atol=0.02)


@pytest.mark.parametrize("name", ["queries", "run", "findings", "run_part_0_of_2"])
def test_a_case_cannot_overwrite_the_runs_own_files(bright, images, tmp_path, name):
    save_ct(images / f"{name}.nii.gz")
    with pytest.raises(PredictionError, match=f"case {name} would overwrite"):
        bright.predict_cases(images, tmp_path / "out", **HERE)
    assert not (tmp_path / "out").exists()


def test_results_cannot_go_where_the_images_are(bright, images):
    before = tree(images)
    with pytest.raises(PredictionError, match="holds the images"):
        bright.predict_cases(images, images, **HERE)
    assert tree(images) == before


def test_answers_to_other_queries_do_not_mix_in_one_folder(model, bright, images, tmp_path):
    out = tmp_path / "out"
    bright.predict_cases(images, out, **HERE)
    other = AttributeTable(lesions={"kidney cyst": {"shape": "round"}})
    with pytest.raises(PredictionError, match=r"b\.json answers other queries"):
        predictor_of(model, table=other).predict_cases(images / "a_0000.nii.gz", out, **HERE)
    predictor_of(model, table=other).predict_cases(images, out, **HERE)
    assert [finding.name for finding in read_findings(out / "a.json").findings] == ["kidney cyst"]


def long_lesion(shape=(30, 12, 10)):
    """A body with a rod of 24 voxels along x, through four tiles of 8, with one voxel beside its end."""
    ct = np.full(shape, -1000, np.int16)
    ct[2:-2, 2:-2, 2:-2] = 60
    ct[3:27, 5, 5] = 300
    ct[26, 6, 5] = 300
    return ct


@pytest.mark.parametrize("order", ["RAS", "LPS", "SAR"])
def test_a_lesion_across_tiles_is_one_finding_in_any_axis_order(bright, tmp_path, order):
    image = nib.Nifti1Image(long_lesion(), AFFINE)
    change = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(order))
    nib.save(image.as_reoriented(change), tmp_path / "rod.nii.gz")
    bright.predict_cases(tmp_path / "rod.nii.gz", tmp_path / "out", **HERE)
    tumor, stone = read_findings(tmp_path / "out" / "rod.json").findings
    (lesion,) = tumor.lesions
    assert stone.lesions == ()
    assert lesion.volume_ml == pytest.approx(25 * 80 / 1000)
    assert lesion.extent_mm == pytest.approx((96, 8, 5))
    assert lesion.longest_axial_diameter_mm == pytest.approx(np.hypot(96, 4))  # between edges of two rows
    x = (sum(range(3, 27)) + 26) / 25
    assert lesion.centre.ras_mm == pytest.approx((4 * x - 30, 4 * (5 + 1 / 25) - 20, 125))
    assert lesion.centre.lps_mm == pytest.approx((30 - 4 * x, 20 - 4 * (5 + 1 / 25), 125))
    assert not lesion.cut_by_border


def test_no_lesion_forty_lesions_and_cut_ones_come_through_a_run(bright, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    body = np.full((30, 26, 20), 60, np.int16)
    body[0] = -1000
    save_ct(images / "none.nii.gz", body)
    forty, cut = body.copy(), body.copy()
    forty[2:27:6, 3:24:6, 5:17:10] = 300  # 5 x 4 x 2
    save_ct(images / "forty.nii.gz", forty)
    cut[27:, 12, 10] = 700  # found by both queries
    cut[15, 12, 10] = 300
    save_ct(images / "cut.nii.gz", cut)
    bright.predict_cases(images, tmp_path / "out", OutputOptions(min_volume_ml=0.1), **HERE)
    findings = {name: read_findings(tmp_path / "out" / f"{name}.json").findings for name in ("none", "forty", "cut")}
    assert [len(answer.lesions) for answer in findings["none"]] == [0, 0]
    assert [answer.left_out for answer in findings["forty"]] == [40, 0]
    (lesion,) = findings["cut"][0].lesions
    assert lesion.cut_by_border
    assert [(shared.query, shared.voxels) for shared in lesion.shared_with] == [("kidney stone", 3)]
    bright.predict_cases(images, tmp_path / "out", **HERE)
    assert len(read_findings(tmp_path / "out" / "forty.json").findings[0].lesions) == 40
    with (tmp_path / "out" / "findings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["cut"] * 3 + ["forty"] * 40
    assert rows[0] | {"shared_with": "kidney stone: 3", "cut_by_border": "True", "lesion_id": "1"} == rows[0]
    assert float(rows[0]["volume_ml"]) == pytest.approx(0.24)


def test_the_published_schema_is_that_of_the_findings(bright, images, tmp_path):
    assert SCHEMA.read_text("utf-8") == findings_schema_text(), (
        "write it again: python -c 'from nnunetv2_malenia.inference.findings import findings_schema_text as t; "
        'print(t(), end="")\' > docs/case_findings.schema.json'
    )
    bright.predict_cases(images / "a_0000.nii.gz", tmp_path / "out", **HERE)
    content = json.loads((tmp_path / "out" / "a.json").read_text())
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))
    validator.validate(content)
    assert not validator.is_valid(content | {"scores": "calibrated"})

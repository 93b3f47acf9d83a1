"""From two folders to scores and results."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import header_faults
import nibabel as nib
import numpy as np
import pytest
from in_process import run_command
from references.metric_loops import nsd_loop
from tiny_study import AFFINE, LABELS, SHAPE, save, volume, write

from nnunetv2_malenia.evaluation.evaluate import evaluate_folder, write_evaluation
from nnunetv2_malenia.evaluation.volumes import EvaluationError
from nnunetv2_malenia.files import MaleniaError
from nnunetv2_malenia.volumes import InputError

VOXEL_ML = 0.03


def scores_of(study, **options):
    evaluation = evaluate_folder(study.options(**options), progress=False)
    return {(score.case_id, score.name): score for score in evaluation.scores if not score.oracle}


def test_types_are_matched_by_alias_and_scored_where_they_are(asked):
    scores = scores_of(asked)
    tumor, cyst = scores["a", "liver tumor"], scores["a", "liver cyst"]
    assert set(scores) == {(case, name) for case in "ab" for name in ("liver tumor", "liver cyst")}
    assert (tumor.seen, cyst.seen) == (True, False)
    assert tumor.dsc == pytest.approx(2 * 1 / (1 + 2))
    assert (cyst.dsc, cyst.nsd) == (1, 1)
    assert (tumor.lesions, tumor.found, tumor.false_positives) == (1, 1, 0)
    assert tumor.volume_ml == pytest.approx(VOXEL_ML)
    assert tumor.reference_volume_ml == pytest.approx(2 * VOXEL_ML)


def test_a_missed_type_scores_zero_and_an_absent_one_only_in_false_positives_and_volume(asked):
    scores = scores_of(asked)
    missed, absent = scores["b", "liver tumor"], scores["b", "liver cyst"]
    assert (missed.present, missed.dsc, missed.nsd, missed.found) == (True, 0, 0, 0)
    assert (absent.present, absent.dsc, absent.nsd, absent.lesions) == (False, None, None, 0)
    assert absent.false_positives == 1
    assert absent.volume_ml == pytest.approx(2 * VOXEL_ML)


def test_what_a_case_does_not_annotate_has_no_part_in_anything(asked):
    table = {
        "lesions": {"liver tumor": {"location": "liver"}},
        "cases": {"b": {"annotated": ["liver", "hepatic tumor"]}},
    }
    path = write(table, asked.folder / "attributes.json")
    scores = scores_of(asked, attributes=path)
    summary = evaluate_folder(asked.options(attributes=path), progress=False).summary
    assert set(scores) == {("a", "liver tumor"), ("b", "liver tumor"), ("a", "liver cyst")}
    cyst = summary.types[1]
    assert (cyst.name, cyst.cases_present, cyst.cases_absent) == ("liver cyst", 1, 0)
    assert cyst.false_positives_per_case == 0


def test_a_prediction_is_not_needed_where_nothing_is_annotated(asked):
    (asked.predictions / "b.nii.gz").unlink()
    table = {"lesions": {"liver tumor": {"location": "liver"}}, "cases": {"b": {"annotated": ["liver"]}}}
    scores = scores_of(asked, attributes=write(table, asked.folder / "attributes.json"))
    assert {case for case, _ in scores} == {"a"}


def test_an_own_table_tells_apart_what_the_clinical_knowledge_table_calls_one_type(study):
    write({"background": 0, "liver": 1, "hcc": 2, "liver metastasis": 3, "kidney cancer": 4}, study.labels)
    study.ask(hepatocellular_carcinoma=True, hepatic_metastasis=False, renal_mass=False)
    for case in "ab":
        study.predict(case, {})
    with pytest.raises(EvaluationError, match="'hcc' and 'liver metastasis' are the same lesion type"):
        scores_of(study)
    table = {
        "lesions": {
            "hepatocellular carcinoma": {"aliases": ["hcc"], "location": "liver"},
            "hepatic metastasis": {"aliases": ["liver metastasis"], "location": "liver"},
            "renal mass": {"location": "left kidney"},
        }
    }
    scores = scores_of(study, attributes=write(table, study.folder / "attributes.json"))
    assert [(name, score.seen) for (case, name), score in scores.items() if case == "a"] == [
        ("hcc", True), ("liver metastasis", False), ("kidney cancer", False)]  # fmt: skip


def test_masks_of_single_queries_are_preferred_to_the_label_map(asked):
    for case in "ab":
        for name in ("hepatic_tumor", "liver_cyst", "kidney_stone"):
            save(volume({}), asked.predictions / "masks" / case / f"{name}.nii.gz")
    save(volume({1: np.s_[0, 0, 0:2]}), asked.predictions / "masks" / "a" / "hepatic_tumor.nii.gz")
    scores = scores_of(asked)
    assert scores["a", "liver tumor"].dsc == 1
    assert scores["a", "liver cyst"].dsc == 0
    (asked.predictions / "masks" / "b" / "liver_cyst.nii.gz").unlink()
    with pytest.raises(EvaluationError, match=r"lacks predictions for 1 of 2 cases: b \(liver cyst\)"):
        scores_of(asked)


def test_an_empty_folder_of_masks_that_an_earlier_run_left_is_none(asked):
    before = scores_of(asked)
    (asked.predictions / "masks").mkdir()
    assert scores_of(asked) == before


@pytest.mark.parametrize("order", ["RAS", "LPI", "IPL", "ASR"])
def test_spacing_belongs_to_its_axis_in_whatever_order_axes_are_stored(study, order):
    """A cube moved by one voxel along x (2 mm) or z (5 mm), at a tolerance between the two."""
    change = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(order))
    cube = volume({2: np.s_[1:4, 2:5, 2:5]})
    for case, voxels in {"a": np.roll(cube, 1, 0), "b": np.roll(cube, 1, 2)}.items():
        for values, folder in ((cube, study.references), (voxels, study.predictions)):
            nib.save(nib.Nifti1Image(values, AFFINE).as_reoriented(change), folder / f"{case}.nii.gz")
    study.predict_as_nnunet(LABELS, {})
    scores = scores_of(study, tolerance_mm=2.5)
    expected = nsd_loop(cube == 2, np.roll(cube, 1, 2) == 2, (2.0, 3.0, 5.0), 2.5)
    assert expected < 0.9
    assert scores["a", "liver tumor"].nsd == 1
    assert scores["b", "liver tumor"].nsd == pytest.approx(expected, abs=1e-6)


def test_float_label_maps_are_read_and_probabilities_are_refused(asked):
    voxels = np.asarray(nib.load(asked.references / "a.nii.gz").dataobj)
    before = scores_of(asked)
    save(voxels.astype(np.float32), asked.references / "a.nii.gz")
    assert scores_of(asked) == before
    save(voxels.astype(np.float32) * 0.7, asked.references / "a.nii.gz")
    with pytest.raises(InputError, match=r"a\.nii\.gz: voxels that are no integers"):
        scores_of(asked)


def test_volumes_are_those_of_the_voxels_sheared_or_not_and_of_any_format(asked):
    before = scores_of(asked)
    sheared = AFFINE.copy()
    sheared[1, 2] = 2.0
    for path in (asked.references / "a.nii.gz", asked.predictions / "a.nii.gz"):
        voxels = np.asarray(nib.load(path).dataobj)
        path.unlink()
        header_faults.write_nrrd(path.with_name("a.nrrd"), voxels, sheared)
    after = scores_of(asked)["a", "liver tumor"]
    assert after.reference_volume_ml == pytest.approx(0.06)
    assert after.dsc == before["a", "liver tumor"].dsc


def test_a_rounded_quaternion_and_no_form_codes_are_read(asked):
    before = scores_of(asked)
    affine = nib.affines.from_matvec(header_faults.TURNED[:3, :3] / (2, 2, 3) * (2, 3, 5), (0, 0, 0))
    for path in (asked.references / "a.nii.gz", asked.predictions / "a.nii.gz"):
        header_faults.with_rounded_quaternion(path, np.asarray(nib.load(path).dataobj), affine)
    for path in (asked.references / "b.nii.gz", asked.predictions / "b.nii.gz"):
        header_faults.without_form_codes(path, np.asarray(nib.load(path).dataobj), AFFINE)
    after = scores_of(asked)
    assert {key: score.dsc for key, score in after.items()} == {key: score.dsc for key, score in before.items()}


def test_presence_auc_reads_the_findings(asked):
    tumor, cyst = evaluate_folder(asked.options(), progress=False).summary.types
    assert cyst.presence_auc == 1
    assert tumor.presence_auc is None  # in no case absent
    asked.predict("b", {}, hepatic_tumor=0.2, liver_cyst=0.9)
    assert evaluate_folder(asked.options(), progress=False).summary.types[1].presence_auc == 0
    (asked.predictions / "b.json").unlink()
    assert evaluate_folder(asked.options(), progress=False).summary.types[1].presence_auc is None


def test_a_mask_of_any_lesion_is_scored_against_every_type_and_an_oracle_leaves_those_of_others_out(study):
    study.predict_as_nnunet(
        {"background": 0, "liver": 1, "lesion": 2},
        {"a": {2: (np.s_[0, 0, 0:2])}, "b": {2: np.s_[5, 5, 5]}},
    )
    save(volume({2: np.s_[0, 0, 0:2]}) + volume({2: np.s_[3, 3, 3:5]}), study.predictions / "a.nii.gz")
    options = study.options(any_lesion="lesion", oracle=True, unseen=("liver cyst", "renal mass"))
    evaluation = evaluate_folder(options, progress=False)
    scores = {(score.case_id, score.name, score.oracle): score for score in evaluation.scores}
    assert scores["a", "liver tumor", False].dsc == pytest.approx(2 * 2 / (2 + 4))
    assert scores["a", "liver tumor", True].dsc == 1
    assert scores["a", "liver cyst", False].dsc == pytest.approx(2 * 1 / (1 + 4))
    assert scores["a", "liver cyst", True].dsc == pytest.approx(2 * 1 / (1 + 2))
    assert scores["b", "liver cyst", True].false_positives == 1  # no lesion is there: the oracle does not know
    assert scores["a", "kidney tumor", False].false_positives == 2
    assert scores["a", "kidney tumor", True].false_positives == 0
    assert [(each.name, each.seen) for each in evaluation.summary.types] == [
        ("liver tumor", True), ("liver cyst", False), ("kidney tumor", False)]  # fmt: skip
    assert evaluation.oracle_summary.types[0].dsc.mean == pytest.approx((1 + 0) / 2)
    assert "With an oracle" in evaluation.table()


def test_voxels_to_ignore_and_regions_are_taken_as_nnunet_takes_them(study):
    labels = {"background": 0, "liver": [1, 2], "liver tumor": 2, "ignore": 3}
    study.labels = write({"labels": labels}, study.folder / "dataset.json")
    study.predict_as_nnunet(labels, {"a": {2: np.s_[0, 0, 0:2]}, "b": {2: np.s_[2, 2, 2]}})
    save(volume({2: np.s_[0, 0, 0:2]}) + volume({2: np.s_[3, 3, 3]}), study.predictions / "a.nii.gz")
    assert scores_of(study)["a", "liver tumor"].dsc == 1


def test_processes_change_nothing(asked):
    one, two = (evaluate_folder(asked.options(processes=n), progress=False).scores for n in (1, 2))
    assert one == two


class TestErrors:
    """One line that names what is wrong, before anything is written."""

    def refused(self, study, match, **options):
        with pytest.raises(MaleniaError, match=match) as caught:
            evaluate_folder(study.options(**options), progress=False)
        assert "\n" not in str(caught.value)

    def test_missing_predictions_are_listed(self, asked):
        (asked.predictions / "a.nii.gz").unlink()
        self.refused(asked, r"lacks predictions for 1 of 2 cases: a; predict them")

    def test_another_affine(self, asked):
        moved = AFFINE.copy()
        moved[0, 3] += 2
        save(volume({}), asked.predictions / "b.nii.gz", moved)
        self.refused(asked, r"^b: .*predictions/b\.nii\.gz lies up to 2 mm off .*labelsTs/b\.nii\.gz; predict in")

    def test_a_rounded_affine_is_the_same(self, asked):
        before = scores_of(asked)
        save(np.asarray(nib.load(asked.predictions / "a.nii.gz").dataobj), asked.predictions / "a.nii.gz",
             AFFINE + 1e-4 * (np.arange(16).reshape(4, 4) < 12))  # fmt: skip
        assert scores_of(asked) == before

    def test_a_flipped_axis(self, asked):
        flipped = nib.load(asked.predictions / "b.nii.gz").slicer[::-1]
        nib.save(flipped, asked.predictions / "b.nii.gz")
        self.refused(asked, r"^b: .*b\.nii\.gz differ in axis order, RAS and LAS")

    def test_another_shape(self, asked):
        save(volume({}, (6, 7, 9)), asked.predictions / "b.nii.gz")
        self.refused(asked, r"^b: .*b\.nii\.gz is of shape \(6, 7, 9\), .*b\.nii\.gz of \(6, 7, 8\)")

    def test_four_axes(self, asked):
        save(np.zeros((*SHAPE, 2), np.uint8), asked.references / "a.nii.gz")
        self.refused(asked, r"a\.nii\.gz: 4-D, of shape \(6, 7, 8, 2\)")

    def test_a_damaged_file(self, asked):
        path = asked.references / "a.nii.gz"
        path.write_bytes(path.read_bytes()[:-30])
        self.refused(asked, r"a\.nii\.gz: the file is damaged")

    @pytest.mark.parametrize("fault", header_faults.REFUSED)
    @pytest.mark.parametrize("folder", ["predictions", "references"])
    def test_a_header_without_sense(self, asked, folder, fault):
        header_faults.with_fault(getattr(asked, folder) / "a.nii.gz", volume({}), AFFINE, fault)
        self.refused(asked, r"a\.nii\.gz")

    def test_the_label_map_of_another_data_set(self, asked):
        write({"background": 0, "liver tumor": 1, "liver cyst": 2}, asked.labels)
        self.refused(asked, r"a\.nii\.gz: value 3 is not among the labels; check --labels")

    def test_no_type_in_common(self, asked):
        write({"background": 0, "spleen": 1, "x": 2, "y": 3}, asked.labels)
        self.refused(asked, "no lesion type in common")

    def test_two_labels_of_one_type(self, asked):
        write({**LABELS, "hepatic tumour": 5}, asked.labels)
        self.refused(asked, "'liver tumor' and 'hepatic tumour' are the same lesion type")

    def test_a_folder_of_no_predictor(self, study):
        self.refused(study, r"has no queries\.json.*and no dataset\.json")
        self.refused(study, r"predictions has no dataset\.json", any_lesion="lesion")

    def test_an_any_lesion_label_that_is_not_there(self, study):
        study.predict_as_nnunet({"background": 0, "lesion": 1}, {})
        self.refused(study, "has no label 'lesions'; it has lesion", any_lesion="lesions")

    def test_any_lesion_without_a_word_on_training(self, study):
        study.predict_as_nnunet({"background": 0, "lesion": 1}, {})
        self.refused(study, "--unseen", any_lesion="lesion")

    def test_an_unseen_type_that_is_not_scored(self, asked):
        self.refused(asked, "--unseen: spleen tumor not among the types to score", unseen=("spleen tumor",))

    def test_the_table_of_another_data_set(self, asked):
        table = {"lesions": {"liver tumor": {"location": "liver"}}, "cases": {"c": {}}}
        path = write(table, asked.folder / "other.json")
        evaluation = evaluate_folder(asked.options(attributes=path), progress=False)
        assert f"1 of 1 cases in {path} are not in this data set, e.g. c; " in evaluation.notes[-1]

    def test_queries_that_are_not_what_the_predictor_writes(self, asked):
        write({"queries": [{"id": 1, "name": "liver tumor"}]}, asked.predictions / "queries.json")
        self.refused(asked, r"queries\.json: queries/0/seen_in_training: Field required")

    def test_lesions_of_no_type(self, study):
        study.ask(any_lesion=None)
        study.predict_as_nnunet(
            {"background": 0, "lesion": 1}, {}
        )  # a model's dataset.json beside them changes nothing
        said = "was predicted without --attributes: .* predict with --attributes TABLE into another folder"
        self.refused(study, said)
        self.refused(study, said, any_lesion="lesion", unseen=("lesion",))

    def test_labels_that_are_not_json(self, asked):
        asked.labels.write_text("{")
        self.refused(asked, r"labelsTs\.json: not JSON")

    def test_a_folder_without_references(self, asked):
        for path in asked.references.iterdir():
            path.unlink()
        self.refused(asked, r"labelsTs holds no file that ends in \.nii\.gz")


def test_references_that_do_not_say_where_left_is_are_noted(asked):
    header_faults.without_form_codes(asked.references / "b.nii.gz", volume({1: np.s_[0:3], 2: np.s_[2, 2, 2]}), AFFINE)
    header_faults.without_form_codes(asked.predictions / "b.nii.gz", volume({2: np.s_[5, 5, 5:7]}), AFFINE)
    notes = evaluate_folder(asked.options(), progress=False).notes
    assert notes[-1] == "left and right are a guess in 1 references, whose headers do not say: b"


def test_the_reader_is_told_what_is_not_scored_and_what_is_assumed(asked):
    notes = evaluate_folder(asked.options(), progress=False).notes
    assert notes[0] == "not scored, since the predictions do not have them: kidney tumor"
    assert notes[1] == "not scored, since the references do not have them: kidney stone"
    assert "every type counts as annotated in every case" in notes[2]


def test_results_are_written_as_json_csv_table_and_picture(asked, tmp_path):
    evaluation = evaluate_folder(asked.options(), progress=False)
    folder = tmp_path / "new" / "results"
    write_evaluation(evaluation, folder)
    assert sorted(path.name for path in folder.glob("[!.]*")) == [
        "cases.csv", "dsc.png", "summary.json", "table.md", "types.csv"]  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["options"]["tolerance_mm"] == 2
    assert summary["conventions"]["present but missed"] == "DSC and NSD are 0"
    assert [group["seen"] for group in summary["groups"]] == [True, False]
    assert summary["types"][0]["dsc"]["mean"] == pytest.approx((2 / 3 + 0) / 2)
    assert summary["oracle"] is None
    assert len(summary["cases"]) == 4
    with (folder / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["dsc"]) if row["dsc"] else None for row in rows] == [
        pytest.approx(case["dsc"]) if case["dsc"] is not None else None for case in summary["cases"]]  # fmt: skip
    with (folder / "types.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["liver tumor", "liver cyst"]
    assert (folder / "table.md").read_text("utf-8") == evaluation.table()
    assert (folder / "dsc.png").read_bytes().startswith(b"\x89PNG")


def test_results_replace_older_ones_and_leave_nothing_beside(asked, tmp_path):
    evaluation = evaluate_folder(asked.options(), progress=False)
    write_evaluation(evaluation, tmp_path / "results")
    newer = replace(evaluation, options=replace(evaluation.options, tolerance_mm=1.0))
    write_evaluation(newer, tmp_path / "results")
    assert json.loads((tmp_path / "results" / "summary.json").read_text())["options"]["tolerance_mm"] == 1
    assert len(list((tmp_path / "results").glob("[!.]*"))) == 5


def test_results_of_others_are_not_replaced(asked, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "summary.json").write_text("nnU-Net's own")
    with pytest.raises(MaleniaError, match=r"summary\.json was not written by an earlier run"):
        write_evaluation(evaluate_folder(asked.options(), progress=False), tmp_path / "results")
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["summary.json"]


def test_nnunet_gives_the_same_dsc_wherever_a_type_is_present(study):
    """nnUNetv2_evaluate_folder on ragged label maps. Where a type is absent, nnU-Net gives 0 to a false positive."""
    rng = np.random.default_rng(0)
    cases = ("a", "b", "c")
    for case in cases:
        truth = rng.integers(0, 4 if case == "c" else 5, SHAPE).astype(np.uint8)
        predicted = np.where(rng.random(SHAPE) < 0.4, rng.integers(0, 5, SHAPE), truth).astype(np.uint8)
        save(truth, study.references / f"{case}.nii.gz")
        save(predicted, study.predictions / f"{case}.nii.gz")
    labels = write({"labels": LABELS, "file_ending": ".nii.gz"}, study.predictions / "dataset.json")
    plans = write({"label_manager": "LabelManager"}, study.folder / "plans.json")
    theirs = nnunet_dice(study, labels, plans)
    ours = scores_of(study)
    for (case, name), score in ours.items():
        dice = theirs[case][str(LABELS[name])]["Dice"]
        assert score.dsc == (pytest.approx(dice, abs=1e-6) if score.present else None)
    assert {name for case, name in ours} == {"liver tumor", "liver cyst", "kidney tumor"}
    assert not ours["c", "kidney tumor"].present
    assert theirs["c"]["4"]["Dice"] == 0


def nnunet_dice(study, labels: Path, plans: Path) -> dict[str, dict]:
    output = study.folder / "nnunet.json"
    run_command("nnUNetv2_evaluate_folder", study.references, study.predictions, "-djfile", labels, "-pfile", plans,
                "-o", output, "-np", "1")  # fmt: skip
    per_case = json.loads(output.read_text())["metric_per_case"]
    return {Path(each["reference_file"]).name.removesuffix(".nii.gz"): each["metrics"] for each in per_case}

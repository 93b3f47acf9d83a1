"""Label names, attribute tables and voxels held against each other: a slip must not change a figure without a word."""

import json

import numpy as np
import pytest
from tiny_study import LABELS, save, volume, write

from nnunetv2_malenia import cli
from nnunetv2_malenia.attributes.schema import AttributeTableError
from nnunetv2_malenia.evaluation.evaluate import evaluate_folder
from nnunetv2_malenia.evaluation.volumes import EvaluationError

TABLE = {"lesions": {"liver tumor": {"location": "liver"}, "liver cyst": {"location": "liver"}}}


def evaluate(study, **options):
    return evaluate_folder(study.options(**options), progress=False)


def with_cases(study, **cases):
    return {"attributes": write(TABLE | {"cases": cases}, study.folder / "attributes.json")}


def scored(evaluation):
    return {(score.case_id, score.name) for score in evaluation.scores}


# ---------------------------------------------------------------- tables


def test_a_misspelt_annotated_label_is_an_error_with_the_closest(asked):
    wrong = with_cases(asked, b={"annotated": ["liver", "livr tumor", "liver cyst"]})
    with pytest.raises(AttributeTableError, match=r"cases/b/annotated names 'livr tumor'.*closest: 'liver tumor'"):
        evaluate(asked, **wrong)


def test_a_misspelt_case_is_a_note_with_the_closest(asked):
    evaluation = evaluate(asked, **with_cases(asked, B={"annotated": ["liver"]}))
    assert scored(evaluation) == {(case, name) for case in "ab" for name in ("liver tumor", "liver cyst")}
    (note,) = [note for note in evaluation.notes if "not in this data set" in note]
    assert "e.g. B (closest: b); " in note
    assert "counts as fully annotated" in note


@pytest.mark.parametrize("more", [{}, {"c": {"annotated": ["a label of other cases"]}}])
def test_the_table_of_the_whole_data_set_serves_a_part_of_its_cases(asked, more):
    evaluation = evaluate(asked, **with_cases(asked, z={"annotated": []}, **more))
    assert len(scored(evaluation)) == 4
    evaluation = evaluate(asked, **with_cases(asked, b={"annotated": ["liver_cyst", "background"]}, **more))
    assert scored(evaluation) == {("a", "liver tumor"), ("a", "liver cyst"), ("b", "liver cyst")}


# ---------------------------------------------------------------- values


def test_a_value_of_a_prediction_that_its_queries_lack_is_an_error(asked):
    asked.predict("b", {2: np.s_[5, 5, 5:7], 4: np.s_[2, 2, 2]})
    with pytest.raises(EvaluationError, match=r"b\.nii\.gz: value 4 is not among the labels; check .*queries\.json"):
        evaluate(asked)


@pytest.mark.parametrize("any_lesion", [None, "liver tumor"])
def test_a_value_of_a_prediction_that_its_dataset_json_lacks_is_an_error(study, any_lesion):
    case = {2: np.s_[0, 0, 0], 3: np.s_[3, 3, 3]}
    options = {"any_lesion": any_lesion, "unseen": ()} if any_lesion else {}
    labels = {name: LABELS[name] for name in ("background", "liver", "liver tumor")}
    study.predict_as_nnunet(labels, {"a": case, "b": case})
    with pytest.raises(EvaluationError, match=r"a\.nii\.gz: value 3 is not among the labels; check .*dataset\.json"):
        evaluate(study, **options)
    study.predict_as_nnunet(LABELS, {})
    assert len(scored(evaluate(study, **options))) == 6


def test_masks_of_single_queries_may_have_any_value(asked):
    for case in "ab":
        for name in ("hepatic_tumor", "liver_cyst", "kidney_stone"):
            save(volume({255: np.s_[0, 0, 0]}), asked.predictions / "masks" / case / f"{name}.nii.gz")
    assert len(scored(evaluate(asked))) == 4


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("background", ["Background", "BG", None])
def test_the_background_is_0_however_it_is_spelt(asked, background):
    before = evaluate(asked).scores
    labels = {name: value for name, value in LABELS.items() if value}
    write({background: 0} | labels if background else labels, asked.labels)
    assert evaluate(asked).scores == before


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"liver tumor": 2, "liver cyst": 2}, "have the same value, 2"),
        ({"liver tumor": 2, "Liver  Tumor": 3}, "differ in case or spaces"),
        ({"background": 1, "liver tumor": 2}, "'background' has the value 1"),
        ({"liver tumor": True}, "which is no whole number"),
        ({"liver tumor": 10**9}, "stores numbers from 0 to 32767"),
        ({"0": "background", "1": "liver"}, "which is no whole number"),
        ({}, "no label but the background"),
        ([], "Input should be a valid dictionary"),
    ],
)
@pytest.mark.parametrize("of", ["references", "predictions"])
def test_labels_that_cannot_be_right_are_one_line(study, capsys, labels, told, of):
    study.predict_as_nnunet(LABELS, {"a": {}, "b": {}})
    path = study.labels if of == "references" else study.predictions / "dataset.json"
    path.write_text(json.dumps({"labels": labels} if labels or of == "predictions" else labels))
    arguments = ["-i", study.predictions, "-g", study.references, "--labels", study.labels, "-np", "1"]
    assert cli.evaluate([*map(str, arguments), "--disable_progress_bar"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: ")
    assert told in error or (labels == [] and "no object of names and values" in error)
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("queries", "told"),
    [
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "two queries have one id or name"),
        ([{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], "two queries have one id or name"),
        ([{"id": 0, "name": "a"}], "queries/0/id: "),
        ([], "queries: "),
        (None, "queries: "),
    ],
)
def test_queries_that_cannot_be_right_are_told(study, queries, told):
    queries = [each | {"seen_in_training": True} for each in queries] if queries is not None else None
    write({"queries": queries}, study.predictions / "queries.json")
    with pytest.raises(EvaluationError, match=told):
        evaluate(study)

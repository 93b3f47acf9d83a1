"""`--lesions` and `--attributes NAME`: what is asked on the command line, without a file written by hand."""

import json

import pytest
import torch
from tiny_model import save_ct

from nnunetv2_malenia.cli import predict_zeroshot
from nnunetv2_malenia.inference.model_folder import best_device
from nnunetv2_malenia.inference.predictor import MaleniaPredictor

FAST = ["-npp", "0", "-nps", "0", "--disable_tta", "--disable_progress_bar", "-step_size", "1"]


def run(model, tmp_path, *argv):
    image = save_ct(tmp_path / "p.nii.gz")
    return predict_zeroshot(["-i", str(image), "-o", str(tmp_path / "out"), "-m", str(model), *FAST, *argv])


def test_names_and_sentences_are_told_as_understood_and_answered(model, tmp_path, capsys):
    sentence = "round hypodense lesion with a sharp margin in the left kidney"
    assert run(model, tmp_path, "-device", "cpu", "--lesions", "Liver-Tumour", sentence, "any lesion") == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == "Liver-Tumour, which is liver tumor"
    assert "  surface            well-defined" in lines
    assert any(
        line.split() == ["case", "asked", "for", "ml", "longest", "mm", "score", "looks", "most", "like"]
        for line in lines
    )
    assert "Searching" not in said.out
    assert said.err == ""
    asked = json.loads((tmp_path / "out" / "queries.json").read_text())["queries"]
    assert [query["name"] for query in asked] == ["Liver-Tumour", sentence, "any lesion"]
    assert [query["seen_in_training"] for query in asked] == [True, False, None]
    assert asked[1]["attributes"]["location"] == ["left kidney"]


def test_a_table_that_ships_goes_by_its_name(model, tmp_path, capsys):
    assert run(model, tmp_path, "-device", "cpu", "--attributes", "clinical_knowledge_table") == 0
    assert len(json.loads((tmp_path / "out" / "queries.json").read_text())["queries"]) > 20
    assert run(model, tmp_path, "--attributes", "clinical_table") == 1
    assert "shipped: clinical_knowledge_table, msd_kits_annotations" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--lesions", "liver cyst", "dog"], "error: 'dog' is no known lesion type"),
        (["--lesions", "liver cyst", "liver cyst"], "would be written to one file"),
    ],
)
def test_what_cannot_be_asked_is_one_line(model, tmp_path, capsys, argv, told):
    assert run(model, tmp_path, "-device", "cpu", *argv) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert not (tmp_path / "out").exists()


def test_words_and_a_table_at_once_are_refused(model, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run(model, tmp_path, "--lesions", "liver cyst", "--attributes", "table.json")
    assert end.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="a machine with a GPU")
def test_without_a_device_named_the_best_one_is_taken_and_told(model, tmp_path, capsys):
    assert run(model, tmp_path, "--lesions", "liver cyst") == 0
    assert "device: cpu" in capsys.readouterr().out
    assert MaleniaPredictor.from_model_folder(model).device == best_device() == torch.device("cpu")

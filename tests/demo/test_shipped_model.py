"""malenia_demo without training, as it comes, and the model that it uses."""

import io
import json
import re
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.image import imread

from nnunetv2_malenia.attributes.tables import read_table
from nnunetv2_malenia.cli import demo, predict_zeroshot
from nnunetv2_malenia.demo.phantom_dataset import write_phantom_dataset
from nnunetv2_malenia.demo.run import PHANTOMS, VALIDATION_CASES
from nnunetv2_malenia.demo.shipped_model import CASES, MODEL, SEED
from nnunetv2_malenia.files import OutputFolder
from nnunetv2_malenia.inference.model_folder import SHIPPED_MODELS
from nnunetv2_malenia.phantom.dataset import SEEN, UNSEEN, plan_test_cases, plan_training_cases

SHIPPED = SHIPPED_MODELS / MODEL
MOST_MB = 12
SMALL = replace(PHANTOMS, shape=(24, 30, 38), scale=0.6, shape_jitter=0)  # one tile


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What one demo wrote, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    with redirect_stdout(io.StringIO()) as printed:
        assert demo(["-o", str(folder)]) == 0
    return folder / "shipped_model", printed.getvalue()


def test_the_demo_asks_for_every_type_and_finds_a_seen_one(run):
    folder, _ = run
    queries = json.loads((folder / "predictions" / "queries.json").read_text())["queries"]
    assert {query["name"]: query["seen_in_training"] for query in queries} == (
        dict.fromkeys(SEEN, True) | dict.fromkeys(UNSEEN, False)
    )
    summary = json.loads((folder / "predictions" / "evaluation" / "summary.json").read_text())
    assert {each["cases_present"] + each["cases_absent"] for each in summary["types"]} == {CASES}
    assert all(each["cases_present"] for each in summary["types"])
    assert max(each["dsc"]["mean"] for each in summary["types"] if each["seen"]) > 0.2


def test_what_is_printed_says_what_was_found_and_where_everything_is(run):
    folder, printed = run
    scores = json.loads((folder / "predictions" / "evaluation" / "summary.json").read_text())["cases"]
    for score in scores:
        line = f"{score['name']} +{score['volume_ml']:.1f}"
        if score["present"]:
            assert re.search(f"{line} of +{score['reference_volume_ml']:.1f} ml, DSC {score['dsc']:.2f}", printed)
        elif score["volume_ml"]:
            assert re.search(f"{line} ml, but there is none", printed)
    assert "| **mean, unseen** " in printed
    for path in (folder / "overlay.png", folder / "predictions", folder / "phantoms"):
        assert str(path) in printed
        assert path.exists()
    assert f"-m {MODEL}" in printed


def test_the_picture_shows_references_and_answers(run):
    picture = imread(run[0] / "overlay.png")[..., :3]
    assert picture.shape[0] > 500 < picture.shape[1]
    red, green, blue = picture.transpose(2, 0, 1)
    reference = (red < 0.2) & (green > 0.7) & (blue > 0.8)
    answer = (red - blue > 0.3) & (green > blue)
    top, bottom = (slice(None, len(picture) // 2), slice(len(picture) // 2, None))
    assert reference[top].sum() > 500 < reference[bottom].sum()
    assert answer[top].sum() > 500


@pytest.mark.parametrize("argv", [[], ["--train"]])
def test_a_folder_of_other_files_is_no_place_for_a_demo(tmp_path, capsys, argv):
    (tmp_path / "nnUNet_raw").mkdir()
    assert demo(["-o", str(tmp_path), *argv]) == 1
    assert "holds files that are not of a demo" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["nnUNet_raw"]


def test_phantoms_that_are_there_are_used(tmp_path):
    folder = tmp_path / "shipped_model"
    OutputFolder(tmp_path).open()
    folder.mkdir()
    write_phantom_dataset(folder / "phantoms", train_cases=0, test_cases=1, seed=SEED, config=SMALL)
    assert demo(["-o", str(tmp_path)]) == 0
    assert len(list((folder / "phantoms" / "imagesTs").iterdir())) == 1
    assert len(list((folder / "predictions" / "masks").iterdir())) == 1
    assert (folder / "overlay.png").is_file()


def test_the_example_runs_the_command_that_it_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        predict_zeroshot(["--example"])
    assert ended.value.code == 0
    shown = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("$ "))
    assert "-i malenia_example/CT.nii.gz" in shown
    assert "--attributes malenia_example/table.json" in shown
    asked = list(read_table("malenia_example/table.json").lesions)
    findings = json.loads(Path("malenia_example/answers/CT.json").read_text())["findings"]
    assert [finding["name"] for finding in findings] == asked
    assert all(finding["lesions"] for finding in findings)
    assert set(asked) & set(SEEN)
    assert set(asked) & set(UNSEEN)


def test_no_phantom_of_the_demo_was_trained_on():
    demonstrated = {(SEED, case.case_index) for case in plan_test_cases(CASES, SEEN, UNSEEN, SEED)}
    for seed in (0, SEED):
        trained = {(seed, case.case_index) for case in plan_training_cases(5000, SEEN, seed)}
        assert demonstrated.isdisjoint(trained)
    assert {name for case in plan_test_cases(CASES, SEEN, UNSEEN, SEED) for name in case.lesion_types} == {
        *SEEN, *UNSEEN}  # fmt: skip


@pytest.mark.parametrize("option", ["--minutes 15", "--baseline", "--train_cases 4", "--test_cases 2", "--seed 0"])
def test_options_of_training_ask_for_training(option, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        demo(["-o", str(tmp_path / "out"), *option.split()])
    assert ended.value.code == 2
    assert f"{option.split()[0]} is about training; add --train" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_training_takes_its_options(tmp_path, capsys):
    assert demo(["-o", str(tmp_path / "out"), "--train", "--minutes", "1", "--seed", "3"]) == 1
    assert "--minutes 1 is too short to train anything" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_too_few_phantoms_to_hold_some_out_are_refused_before_anything_is_made(tmp_path, capsys):
    assert demo(["-o", str(tmp_path / "out"), "--train", "--train_cases", str(VALIDATION_CASES)]) == 1
    error = capsys.readouterr().err
    assert f"give at least {VALIDATION_CASES + 1}" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_negative_seed_is_a_wrong_argument(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        demo(["-o", str(tmp_path / "out"), "--train", "--seed", "-1"])
    assert ended.value.code == 2
    assert "argument --seed: -1 is less than 0" in capsys.readouterr().err


def test_the_shipped_model_is_small_holds_no_code_and_no_path():
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".md", ".safetensors"}
    assert sum(path.stat().st_size for path in files) < MOST_MB * 1e6
    for path in files:
        if path.suffix != ".safetensors":
            assert not re.search(r"(?<![\w/.])/(tmp|home|root|work|mnt|data|Users)/", path.read_text(encoding="utf-8"))


def test_the_card_says_what_the_model_is_and_is_not():
    card = (SHIPPED / "model_card.md").read_text(encoding="utf-8")
    plans = json.loads((SHIPPED / "plans.json").read_text())
    for needed in ("Not for clinical use", "phantoms", "seed", "DSC", *plans["malenia"]["lesions"], *UNSEEN):
        assert needed in card

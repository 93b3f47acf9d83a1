"""The published tables: what is published, the commands that fill a row, the tables, and one tiny run."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from benchmarks.commands import BenchmarkError
from benchmarks.paper.__main__ import main
from benchmarks.paper.experiment import Settings, steps
from benchmarks.paper.miniature import write_miniature
from benchmarks.paper.rows import KITS, MERGED, ROWS, SOURCES, TABLES, public_types, published
from benchmarks.paper.step import main as run_step
from benchmarks.paper.tables import content, markdown
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table, read_table
from nnunetv2_malenia.cli import convert_kits, convert_msd, merge
from nnunetv2_malenia.evaluation.tables import published_results

REPOSITORY = Path(__file__).parents[1]
RECORD = {"epochs": None, "miniature": False, "tolerance_mm": 2.0}


@pytest.fixture
def settings(tmp_path) -> Settings:
    """Downloads whose tasks are empty folders: enough to plan commands."""
    for name in (*SOURCES.values(), "kits23"):
        (tmp_path / "downloads" / name).mkdir(parents=True)
    return Settings(tmp_path / "out", tmp_path / "downloads", tmp_path / "downloads" / "kits23", "cuda", None, False)


def run(table: str, settings: Settings, *options: str) -> int:
    return main([table, "--msd", str(settings.msd), "--kits", str(settings.kits), "-o", str(settings.folder), *options])


def commands(settings: Settings, row: str) -> list[tuple[str, ...]]:
    return [tuple(map(str, step.action)) for step in steps(settings, ROWS[row]) if isinstance(step.action, tuple)]


def option(command: tuple[str, ...], name: str) -> str:
    return command[command.index(name) + 1]


def write_scores(folder: Path, row: str, part: str, **dsc: float | None) -> None:
    """A summary of malenia_evaluate. dsc: type with _ for blank -> mean DSC; None: in no case. NSD is 0.1 more."""

    def statistic(mean: float | None) -> dict:
        return {"mean": mean, "std": None if mean is None else 0.05, "n": 3}

    types = [
        {"name": name.replace("_", " "), "cases_present": 0 if mean is None else 3, "dsc": statistic(mean),
         "nsd": statistic(None if mean is None else mean + 0.1)}
        for name, mean in dsc.items()
    ]  # fmt: skip
    path = folder / "scores" / row / part / "summary.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"types": types}))


def cells(text: str, title: str) -> list[list[str]]:
    """Of every line of a table that starts with a title, the other cells."""
    lines = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"]
    return [line[1:] for line in lines if line[0] == title]


def test_published_tables_are_whole_and_agree_with_what_malenia_evaluate_shows():
    shown = published_results()["types"]
    for name in ("seen", "unseen"):
        table = published()[name]
        for figures in table["rows"].values():
            assert {len(values) for values in figures.values()} == {len(table["columns"])} == {len(table["data"])}
        for i, type_name in enumerate(table["columns"]):
            assert clinical_knowledge_table().find(type_name) == type_name
            own = table["rows"]["Malenia"]
            assert (own["DSC"][i], own["NSD"][i]) == (shown[type_name]["DSC"], shown[type_name]["NSD"])
            assert shown[type_name]["seen"] is (name == "seen")
            assert shown[type_name]["data"] == table["data"][i]
    assert public_types("unseen") == ("hepatic vessel tumor", "pancreas cyst", "kidney tumor")
    assert "ICLR 2025" in published()["source"]


def test_every_row_has_its_trainer_for_any_number_of_epochs(monkeypatch, settings):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks" / "zero_shot" / "trainers"))
    import benchmark_trainers

    from nnunetv2_malenia.training import variants

    for row in ROWS.values():
        assert hasattr(variants, settings.trainer(row))
        assert hasattr(benchmark_trainers, replace(settings, epochs=3).trainer(row))


def test_a_row_is_converted_merged_trained_asked_and_scored_in_that_order(settings):
    planned = commands(settings, "malenia")

    assert [words[0] for words in planned] == [
        *["malenia_convert_msd"] * 5, "malenia_convert_kits", "malenia_merge", "nnUNetv2_plan_and_preprocess",
        "nnUNetv2_preprocess", "nnUNetv2_train", *["malenia_predict_zeroshot", "malenia_evaluate"] * 2,
    ]  # fmt: skip
    merged, training = planned[6], planned[9]
    assert option(merged, "--holdout") == "hepatic vessel tumor,pancreas cyst,kidney tumor"
    assert "--keep_seen" in merged
    assert option(training, "-tr") == "MaleniaTrainer"
    assert option(training, "-device") == "cuda"
    for part, references, (asked, scored) in (("seen", "labels", planned[10:12]), ("unseen", "labelsTs", planned[12:])):
        assert Path(option(asked, "-m")) == settings.model(ROWS["malenia"], MERGED)
        assert option(scored, "-i") == option(asked, "-o")
        assert Path(option(scored, "-g")).name == references
        assert Path(option(scored, "-o")) == settings.scores(ROWS["malenia"], part).parent


def test_plain_nnunet_is_trained_once_for_each_data_set_with_a_seen_type(settings):
    trained = [words for words in commands(settings, "nnunet") if words[0] == "nnUNetv2_train"]

    assert [words[1] for words in trained] == ["003", "006", "007", "010", "220"]
    assert {option(words, "-tr") for words in trained} == {"nnUNetTrainer"}


def test_an_interrupted_training_goes_on(settings):
    assert "--c" not in commands(settings, "malenia")[9]
    fold = settings.model(ROWS["malenia"], MERGED) / "fold_0"
    fold.mkdir(parents=True)
    (fold / "checkpoint_latest.pth").touch()
    assert commands(settings, "malenia")[9][-1] == "--c"


def test_one_in_five_cases_of_every_source_is_a_test_case_in_every_training(settings):
    own = {
        MERGED: [*(f"liver_{i}" for i in range(6)), *(f"lung_{i:03d}" for i in range(3))],
        "Dataset003_Liver": [f"liver_{i}" for i in range(8)],
    }
    for dataset, ids in own.items():
        for kind, ending in (("labels", ""), ("images", "_0000")):
            (settings.raw / dataset / f"{kind}Tr").mkdir(parents=True)
            for case_id in ids:
                (settings.raw / dataset / f"{kind}Tr" / f"{case_id}{ending}.nii.gz").write_text(case_id)
        (settings.preprocessed / dataset).mkdir(parents=True)
    for row in ("malenia", "nnunet"):
        for step in steps(settings, ROWS[row]):
            if isinstance(step.action, partial) and step.action.args[1] in own:
                step.action()

    splits = {name: json.loads((settings.preprocessed / name / "splits_final.json").read_text())[0] for name in own}
    assert splits[MERGED]["val"] == ["liver_0", "liver_5", "lung_000"]
    assert splits["Dataset003_Liver"]["val"] == ["liver_0", "liver_5"]
    for name, split in splits.items():
        assert sorted(split["train"] + split["val"]) == own[name]
        linked = settings.test_cases(name) / "images"
        assert sorted(path.read_text() for path in linked.iterdir()) == split["val"]
        assert len(list((settings.test_cases(name) / "labels").iterdir())) == len(split["val"])


def test_a_split_that_lets_trainings_read_test_cases_is_told(settings):
    """As nnU-Net writes one itself, where the printed commands were run without that for the split."""
    ids = [f"liver_{i}" for i in range(6)]
    (settings.raw / MERGED / "labelsTr").mkdir(parents=True)
    for case_id in ids:
        (settings.raw / MERGED / "labelsTr" / f"{case_id}.nii.gz").touch()
    split = settings.preprocessed / MERGED / "splits_final.json"
    split.parent.mkdir(parents=True)
    split.write_text(json.dumps([{"train": ids[:5], "val": ids[5:]}]))
    with pytest.raises(BenchmarkError, match="fold 0 does not hold out the test cases; remove it"):
        list(steps(settings, ROWS["malenia"]))

    assert run_step(["split", MERGED, "-o", str(settings.folder)]) == 0
    assert json.loads(split.read_text())[0] == {"train": ids[1:5], "val": ["liver_0", "liver_5"]}
    assert list(steps(settings, ROWS["malenia"]))


def test_the_dry_run_prints_commands_and_folders_and_writes_nothing(settings, capsys):
    assert run("seen", settings, "--dry-run") == 0

    told = capsys.readouterr().out
    assert f"export nnUNet_raw={settings.raw}" in told
    assert "nnUNetv2_train 100 3d_fullres 0 -tr MaleniaTrainer -p nnUNetPlans -device cuda\n" in told
    assert told.count("malenia_merge") == 1
    assert f"python -m benchmarks.paper.step split Dataset100_MaleniaPaper -o {settings.folder}\n" in told
    assert f"python -m benchmarks.paper.step link Dataset100_MaleniaPaper -o {settings.folder}\n" in told
    assert not settings.folder.exists()


def test_what_is_done_is_not_planned_again(settings, capsys):
    (settings.raw / "Dataset003_Liver").mkdir(parents=True)
    assert run("unseen", settings, "--dry-run", "--epochs", "7") == 0

    told = capsys.readouterr().out
    assert "Task03_Liver" not in told
    assert "Task06_Lung" in told
    assert "export ZERO_SHOT_EPOCHS=7" in told
    assert "-tr ZeroShotMaleniaTrainer" in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["seen", "-o", "x"], "give both --msd and --kits, or --miniature"),
        (["seen", "-o", "x", "--msd", "m"], "give both --msd and --kits"),
        (["seen", "-o", "x", "--msd", "m", "--kits", "k", "--miniature"], "or --miniature"),
        (["unseen", "-o", "x", "--miniature", "--rows", "nnunet"], "--rows nnunet: no row of unseen; it has malenia"),
        (["seen", "-o", "x", "--miniature", "--epochs", "0"], "0 is less than 1"),
        (["organs", "-o", "x", "--miniature"], "invalid choice: 'organs'"),
    ],
)
def test_wrong_options_are_told(options, told, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(options)
    assert told in capsys.readouterr().err


def test_missing_downloads_are_told_before_anything_is_written(settings, capsys):
    for task in ("Task06_Lung", "Task10_Colon"):
        (settings.msd / task).rmdir()
    (settings.msd / "Task10_Colon.tar").touch()
    assert run("seen", settings) == 1
    told = capsys.readouterr().err
    assert "lacks Task06_Lung, each a folder or a .tar; docs/data.md" in told
    (settings.msd / "Task06_Lung").mkdir()
    settings.kits.rmdir()
    assert run("seen", settings) == 1
    assert "is no folder; give the kits23 repository with its images" in capsys.readouterr().err
    assert not settings.folder.exists()


def test_a_command_that_fails_is_told_with_its_log(settings, capsys):
    assert run("unseen", settings) == 1  # the tasks are empty
    told = capsys.readouterr().err
    assert told.startswith("error: malenia_convert_msd failed with status 1; its output is in ")
    log = Path(told.rpartition(" ")[2].strip())
    assert "Task03_Liver: 0 files named dataset.json in it" in log.read_text()


def test_one_folder_holds_one_kind_of_run(settings, capsys):
    settings.folder.mkdir()
    (settings.folder / "settings.json").write_text(json.dumps({**RECORD, "epochs": 5}))
    assert run("seen", settings) == 1
    assert "choose another folder with -o" in capsys.readouterr().err


def test_own_figures_stand_beside_the_published_ones(tmp_path):
    write_scores(tmp_path, "malenia", "unseen", hepatic_vessel_tumor=0.6, pancreas_cyst=0.5, kidney_tumor=0.4,
                 liver_tumor=None)  # fmt: skip
    filled = content(tmp_path, "unseen", RECORD)
    text = markdown(filled)

    dsc, nsd, cases = cells(text, "MaleniaTrainer")
    assert dsc == ["60.00 ± 5.00", "50.00 ± 5.00", "40.00 ± 5.00", "n/a", "n/a", "n/a", "50.00"]
    assert nsd[:3] == ["70.00 ± 5.00", "60.00 ± 5.00", "50.00 ± 5.00"]
    assert cases == ["3", "3", "3", "n/a", "n/a", "n/a"]
    assert cells(text, "Malenia, published")[0][:3] == ["59.52", "60.91", "54.96"]
    assert cells(text, "Malenia, published")[0][-1] == "58.46"  # (59.52 + 60.91 + 54.96) / 3
    assert cells(text, "MaleniaTrainer, less published Malenia")[0] == [
        "+0.48", "-10.91", "-14.96", "n/a", "n/a", "n/a", "-8.46"
    ]  # fmt: skip
    assert "not public" in text
    assert "smoke" not in text
    assert filled["rows"]["malenia"]["kidney tumor"] == {
        "cases": 3, "DSC": 40.0, "DSC std": 5.0, "NSD": 50.0, "NSD std": 5.0
    }  # fmt: skip


def test_a_type_counts_only_in_the_test_cases_of_its_side(tmp_path):
    """nnU-Net has seen the kidney tumors that the unseen table is about; a cyst beside a tumor is no test case."""
    write_scores(tmp_path, "nnunet", KITS, kidney_tumor=0.9, kidney_cyst=0.5)
    write_scores(tmp_path, "malenia", "seen", kidney_cyst=0.4)
    write_scores(tmp_path, "malenia", "unseen", kidney_cyst=0.8)
    rows = content(tmp_path, "seen", RECORD)["rows"]

    assert list(rows) == ["malenia", "nnunet"]
    assert rows["nnunet"].keys() == {"kidney cyst"}
    assert rows["malenia"]["kidney cyst"]["DSC"] == pytest.approx(40)


def test_rows_that_are_not_run_are_named_and_a_mean_needs_every_type(tmp_path):
    write_scores(tmp_path, "malenia", "seen", liver_tumor=0.5, lung_tumor=None)
    text = markdown(content(tmp_path, "seen", RECORD))

    assert "Not run yet: nnU-Net, one a data set." in text
    dsc, _, cases = cells(text, "MaleniaTrainer")
    assert dsc == ["n/a", "n/a", "50.00 ± 5.00", "n/a", "n/a", "n/a"]
    assert cases == ["n/a", "n/a", "3", "0", "n/a"]


def test_ablations_are_means_over_seen_and_over_unseen_types(tmp_path):
    seen = dict(zip((name.replace(" ", "_") for name in public_types("seen")), (0.1, 0.2, 0.3, 0.4, 0.5), strict=True))
    for row, more in (("no_fusion", 0.0), ("malenia", 0.1)):
        write_scores(tmp_path, row, "seen", **{name: dsc + more for name, dsc in seen.items()})
        write_scores(tmp_path, row, "unseen", hepatic_vessel_tumor=0.2, pancreas_cyst=0.3, kidney_tumor=0.4 + more * 3)
    text = markdown(content(tmp_path, "ablations", RECORD))

    assert cells(text, "MaleniaTrainer") == [["40.00", "50.00", "40.00", "50.00"]]
    assert cells(text, "no fusion") == [["30.00", "40.00", "30.00", "40.00"]]
    assert cells(text, "Malenia, published") == [["56.92", "65.75", "58.46", "66.83"]]
    assert "Not run yet: single scale, no alignment loss, single-positive contrast, learned" in text


@pytest.mark.parametrize("table", TABLES)
def test_a_miniature_says_that_its_figures_mean_nothing(tmp_path, table):
    write_scores(tmp_path, "malenia", "seen", liver_tumor=0.5)
    text = markdown(content(tmp_path, table, {**RECORD, "epochs": 1, "miniature": True}))

    assert "meaningless" in text.splitlines()[2]
    assert cells(text, "smoke: MaleniaTrainer")
    assert not cells(text, "MaleniaTrainer")


def test_the_miniature_is_converted_and_merged_as_the_downloads_are(tmp_path):
    write_miniature(tmp_path / "msd", tmp_path / "kits23")
    raw = tmp_path / "raw"
    for dataset, task in SOURCES.items():
        assert convert_msd(["-i", str(tmp_path / "msd" / task), "-d", dataset, "-o", str(raw)]) == 0
    assert convert_kits(["-i", str(tmp_path / "kits23"), "-d", KITS, "-o", str(raw)]) == 0
    unseen = ",".join(public_types("unseen"))
    assert merge(["-i", *SOURCES, KITS, "-d", MERGED, "-o", str(raw), "--holdout", unseen, "--keep_seen"]) == 0

    types = json.loads((raw / MERGED / "conversion_summary.json").read_text())["types"]
    assert set(read_table(raw / MERGED / "attributes.json").lesions) == set(public_types("seen"))
    assert {name: types[name]["training"]["cases"] for name in public_types("seen")} == dict.fromkeys(
        public_types("seen"), 2
    )
    assert all(types[name].keys() == {"test"} and types[name]["test"]["cases"] == 1 for name in public_types("unseen"))


@pytest.mark.slow
def test_one_tiny_run_fills_the_tables_and_is_not_done_twice(tmp_path):
    def fill(table: str, *options: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.paper", table, "--miniature", "-o", str(tmp_path), *options],
            cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, encoding="utf-8",
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "nnUNetv2_train" in fill("seen")
    rows = json.loads((tmp_path / "seen.json").read_text())["rows"]
    assert list(rows) == ["malenia", "nnunet"]
    assert all(set(figures) == set(public_types("seen")) for figures in rows.values())
    assert "nnUNetv2_train" not in fill("unseen")
    assert set(json.loads((tmp_path / "unseen.json").read_text())["rows"]["malenia"]) == set(public_types("unseen"))
    assert "meaningless" in (tmp_path / "unseen.md").read_text()

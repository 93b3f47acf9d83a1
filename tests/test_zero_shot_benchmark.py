"""The comparison over seeds: its rows, its data, its figures, and one tiny run of the command."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks import commands
from benchmarks.commands import BenchmarkError
from benchmarks.zero_shot import datasets
from benchmarks.zero_shot.__main__ import main as zero_shot
from benchmarks.zero_shot.beds import ct_bed, kits_bed, write_bed
from benchmarks.zero_shot.datasets import BANK, CODES, OneHotEncoder, code_table, write_dataset
from benchmarks.zero_shot.experiment import Experiment
from benchmarks.zero_shot.figures import AGAIN, ORACLE, collect, over_seeds, section, type_over_seeds
from benchmarks.zero_shot.publish import publish
from benchmarks.zero_shot.rows import ALL_TYPES_NO_ORGANS, MAIN_ROWS, NO_ORGANS, ONE_HOT, PHANTOM, ROWS, SIZES
from nnunetv2_malenia.attributes.bank import EmbeddingBank
from nnunetv2_malenia.attributes.tables import read_table
from nnunetv2_malenia.phantom import ORGANS, make_phantom
from nnunetv2_malenia.phantom.dataset import SEEN, UNSEEN

REPOSITORY = Path(__file__).parents[1]


def scores(
    row: str, seed: int, *, seen: float, unseen: float | None, oracle: float | None = None, silent: float | None = 0.25
) -> dict:
    """A file of scores with one seen and one unseen type, of which only DSC matters, and one that no case holds."""

    def summary(values: dict[bool, float | None]) -> dict:
        figures = {"nsd": {"mean": 0.5, "std": None, "n": 1}, "sensitivity": 0.5, "false_positives_per_case": 1.0,
                   "presence_auc": None, "volume_present_ml": {"mean": 3.0, "std": None, "n": 1},
                   "volume_absent_ml": {"mean": 1.0, "std": None, "n": 1}}  # fmt: skip
        names = {True: "liver tumor", False: "liver cyst"}
        nowhere = {"name": "kidney stone", "seen": False, "cases_present": 0, "silent_when_absent": None,
                   "dsc": {"mean": None, "std": None, "n": 0}, **figures, "false_positives_per_case": 9.0}  # fmt: skip
        return {"types": [
            *({"name": names[is_seen], "seen": is_seen, "cases_present": 1, "silent_when_absent": silent,
               "dsc": {"mean": value, "std": None, "n": 1}, **figures} for is_seen, value in values.items()),
            nowhere,
        ]}  # fmt: skip

    return {
        "row": row,
        "seed": seed,
        "bed": "phantoms",
        "revision": "old",
        "summary": summary({True: seen, False: unseen}),
        "oracle": summary({True: seen, False: oracle}) if oracle is not None else None,
    }


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three seeds of one row, one seed of another."""
    for content in (
        scores("any_lesion", 0, seen=0.2, unseen=0.1, oracle=0.4),
        scores("malenia", 0, seen=0.5, unseen=0.1),
        scores("malenia", 1, seen=0.5, unseen=0.3),
        scores("malenia", 2, seen=0.8, unseen=None),
    ):
        path = tmp_path / f"seed_{content['seed']}" / "scores" / "phantoms" / f"{content['row']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return tmp_path


def test_every_row_has_a_trainer_that_is_seeded_and_can_do_without_augmentation(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks" / "zero_shot" / "trainers"))
    import benchmark_trainers
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    for row in ROWS.values():
        for size in SIZES.values():
            trainer = getattr(benchmark_trainers, size.trainer(row))
            assert issubclass(trainer, nnUNetTrainer)
            assert trainer.__mro__[1] is benchmark_trainers._Seeded


def test_token_rows_have_their_number_of_tokens():
    from nnunetv2_malenia.training import variants

    for number in (1, 4, 8, 32):
        assert getattr(variants, ROWS[f"tokens_{number}"].trainer).config.num_tokens == number


def test_rows_share_a_model_only_if_data_and_trainer_are_the_same(tmp_path):
    models = [Experiment(row, 0, SIZES["small"], tmp_path, "cpu").model for row in ROWS.values()]

    assert len(set(models)) == len(ROWS)
    assert set(MAIN_ROWS) <= set(ROWS)


def test_figures_come_in_the_order_of_the_rows_with_the_oracle_after_its_row(folder):
    runs = collect(folder, "small")["runs"]

    assert [(run["row"], run["seed"]) for run in runs] == [
        ("malenia", 0),
        ("malenia", 1),
        ("malenia", 2),
        ("any_lesion", 0),
        (ORACLE, 0),
    ]


def test_seeds_are_averaged_and_those_without_a_figure_do_not_count(folder):
    runs = collect(folder, "small")["runs"]

    seen = over_seeds(runs, "malenia", "dsc", seen=True)
    assert (seen.mean, seen.std, seen.n) == (pytest.approx(0.6), pytest.approx(0.03**0.5), 3)
    unseen = type_over_seeds(runs, "malenia", "liver cyst", "dsc")
    assert (unseen.mean, unseen.std, unseen.n) == (pytest.approx(0.2), pytest.approx(0.02**0.5), 2)
    assert over_seeds(runs, ORACLE, "dsc", seen=False).mean == pytest.approx(0.4)


def test_types_that_no_image_holds_are_in_no_group(folder):
    runs = collect(folder, "small")["runs"]

    assert over_seeds(runs, "malenia", "false_positives_per_case", seen=False).mean == 1


def test_a_share_that_some_seed_does_not_have_is_marked(folder):
    path = folder / "seed_2" / "scores" / "phantoms" / "malenia.json"
    path.write_text(json.dumps(scores("malenia", 2, seen=0.8, unseen=0.2, silent=None)))

    text = "\n".join(section(collect(folder, "small")))

    assert "| 1.0 ± 0.0 | 0.25 ± 0.00 ° |" in text
    assert "| (a) any-lesion nnU-Net | 0.10 | 0.50 | 0.50 | 1.00 | n/a | 3.0 | 1.0 | 0.25 |" in text


def test_the_table_shows_spread_and_warns_of_few_seeds(folder):
    text = "\n".join(section(collect(folder, "small")))

    assert "| MaleniaTrainer | 0.60 ± 0.17 |" in text
    assert "| (a) any-lesion nnU-Net | 0.20 |" in text
    assert "no claims: (a) any-lesion nnU-Net; (a) with an oracle." in text
    assert "n/a" in text  # no presence AUC


def test_what_is_published_is_stored_and_shown_with_a_picture(folder, tmp_path):
    (folder / "figures.json").write_text(json.dumps(collect(folder, "small")))
    repository = tmp_path / "repository"
    for name in ("benchmarks/results", "docs"):
        (repository / name).mkdir(parents=True)

    publish([folder], repository)

    page = (repository / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert "| MaleniaTrainer | 0.60 ± 0.17 |" in page
    assert "no clinical lesion" in page
    picture = repository / "docs" / "benchmarks_small.png"
    assert f"({picture.name})" in page
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert (repository / "benchmarks" / "results" / "zero_shot_small.json").exists()


def test_the_page_is_what_the_stored_results_make_of_it(tmp_path):
    shutil.copytree(REPOSITORY / "benchmarks" / "results", tmp_path / "benchmarks" / "results")
    (tmp_path / "docs").mkdir()
    publish([], tmp_path)
    page = (tmp_path / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert page == (REPOSITORY / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def test_published_runs_take_the_place_of_the_same_ones_and_join_the_others(folder, tmp_path):
    stored = collect(folder, "small")
    stored["runs"] = [run for run in stored["runs"] if run["seed"] < 2]  # two of malenia, any_lesion and its oracle
    results = tmp_path / "benchmarks" / "results" / "zero_shot_small.json"
    for each in (results.parent, tmp_path / "docs"):
        each.mkdir(parents=True)
    results.write_text(json.dumps(stored))
    measured = collect(folder, "small")
    measured["runs"] = [
        run | {"revision": "new"} for run in measured["runs"] if run["row"] == "malenia" and run["seed"] > 0
    ]
    (folder / "figures.json").write_text(json.dumps(measured))

    publish([folder], tmp_path)

    assert [(run["row"], run["seed"], run["revision"]) for run in json.loads(results.read_text())["runs"]] == [
        ("malenia", 0, "old"),
        ("malenia", 1, "new"),
        ("malenia", 2, "new"),
        ("any_lesion", 0, "old"),
        (ORACLE, 0, "old"),
    ]
    page = (tmp_path / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert "- Held-out phantoms, at commit new: MaleniaTrainer\n" in page
    assert "- Held-out phantoms, at commit old: MaleniaTrainer; (a) any-lesion nnU-Net; (a) with an oracle\n" in page


def test_an_unseen_type_is_held_against_what_was_aimed_at(folder):
    """0.1 against 0.1 and, with an oracle, 0.4, of the seed that all rows have; the bound has 0.2. There is no AUC."""
    path = folder / "seed_0" / "scores" / "phantoms" / "malenia_all_types.json"
    path.write_text(json.dumps(scores("malenia_all_types", 0, seen=0.5, unseen=0.2)))

    text = "\n".join(section(collect(folder, "small"), {"liver cyst": 0.75, "kidney stone": 0.25}))

    where = "finds 0.50 of its lesions, the bound 0.50, (a) 0.50; the bound is silent in 0.25 and has AUC n/a"
    limit = "a perfect reader of its description would be silent in"
    missed = "**0.00** | **-0.30** | **0.50** | 1.00 | **0.25** | n/a"
    assert f"| liver cyst | {missed} | {where}; {limit} 0.75 |" in text
    assert f"| **mean** | {missed} | {where}; {limit} 0.50 |" in text
    assert "| liver tumor | 0." not in text.split("what was aimed at")[1]  # seen


def test_a_second_training_of_the_same_seeds_is_kept_beside_the_first(folder, tmp_path):
    content = collect(folder, "small")
    results = tmp_path / "benchmarks" / "results" / "zero_shot_small.json"
    for each in (results.parent, tmp_path / "docs"):
        each.mkdir(parents=True)
    results.write_text(json.dumps(content))
    content["runs"] = [run | {"revision": "new"} for run in content["runs"]]
    (folder / "figures.json").write_text(json.dumps(content))

    publish([folder], tmp_path, again=True)

    stored = [(run["row"], run["seed"], run["revision"]) for run in json.loads(results.read_text())["runs"]]
    assert stored == [
        *(("malenia", seed, "old") for seed in range(3)),
        *((AGAIN, seed, "new") for seed in range(3)),
        ("any_lesion", 0, "old"),
        (ORACLE, 0, "old"),
    ]
    page = (tmp_path / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert "| MaleniaTrainer, trained again | 0.60 ± 0.17 |" in page


def test_a_bed_that_cannot_be_made_is_told_before_anything_is_trained(tmp_path, capsys):
    organs = tmp_path / "organs.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), organs)
    for options, message in (
        (["--kits", str(tmp_path / "none")], "none: no CASE/segmentation.nii.gz; give KiTS23's dataset folder"),
        (["--ct", str(tmp_path / "none.nii.gz"), str(organs)], "none.nii.gz: cannot be read (No such file"),
        (["--ct", str(organs), str(organs)], "organs.nii.gz: no names of organs in its header"),
    ):
        assert zero_shot(["smoke", "-o", str(tmp_path / "out"), *options]) == 1
        assert message in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["settings.json"]


def test_figures_of_a_bed_are_not_taken_for_those_of_other_files(tmp_path, capsys):
    for name in ("first", "second"):
        (tmp_path / name / "case").mkdir(parents=True)
        (tmp_path / name / "case" / "segmentation.nii.gz").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "beds.json").write_text(json.dumps({"kits": [str(tmp_path / "first")]}))
    assert zero_shot(["smoke", "-o", str(tmp_path / "out"), "--kits", str(tmp_path / "second")]) == 1
    assert f"holds runs on {tmp_path / 'first'} (" in capsys.readouterr().err


def test_without_its_history_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    assert commands.revision() == "unknown"


def test_figures_of_other_settings_are_not_joined(folder, tmp_path):
    content = collect(folder, "small")
    (folder / "figures.json").write_text(json.dumps(content))
    results = tmp_path / "benchmarks" / "results" / "zero_shot_small.json"
    results.parent.mkdir(parents=True)
    results.write_text(json.dumps(content | {"settings": content["settings"] | {"epochs": 6}}))

    with pytest.raises(BenchmarkError, match="other settings"):
        publish([folder], tmp_path)


def test_a_one_hot_code_is_near_no_other():
    encoder = OneHotEncoder(("liver tumor", "liver cyst"))

    assert encoder.encode(["location: liver cyst", "location: liver tumor"]).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(ValueError, match="not in"):
        encoder.encode(["location: liver"])


def test_codes_share_no_phrase_between_types():
    phrases = [set(entry.phrases()) for entry in code_table((*SEEN, *UNSEEN)).lesions.values()]

    assert all(len(each) == 1 for each in phrases)
    assert len(set.union(*phrases)) == len(phrases)


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for name in (ONE_HOT, NO_ORGANS, ALL_TYPES_NO_ORGANS):
        write_dataset(folder, name, SIZES["smoke"], seed=0)
    return folder


def labels_of(dataset: Path, case_id: str) -> np.ndarray:
    return np.asarray(nib.load(dataset / "labelsTr" / f"{case_id}.nii.gz").dataobj)


def test_without_organs_lesions_stay_where_they_are(raw):
    with_organs, without = labels_of(raw / PHANTOM, "phantom_0000"), labels_of(raw / NO_ORGANS, "phantom_0000")
    before = json.loads((raw / PHANTOM / "dataset.json").read_text())["labels"]
    after = json.loads((raw / NO_ORGANS / "dataset.json").read_text())["labels"]

    assert set(after) == {"background", *SEEN}
    assert not set(after) & set(ORGANS)
    for name in SEEN:
        assert np.array_equal(with_organs == before[name], without == after[name])
    assert (without > 0).any()


def test_the_upper_bound_learns_unseen_types_from_as_many_phantoms(raw):
    labels = json.loads((raw / ALL_TYPES_NO_ORGANS / "dataset.json").read_text())
    files = sorted((raw / ALL_TYPES_NO_ORGANS / "labelsTr").iterdir())
    held = set().union(*(np.unique(np.asarray(nib.load(path).dataobj)).tolist() for path in files))

    assert labels["numTraining"] == SIZES["smoke"].train_cases
    assert {labels["labels"][name] for name in UNSEEN} <= held


def test_codes_are_stored_where_the_trainer_finds_them(raw):
    bank, table = EmbeddingBank.load(raw / ONE_HOT / BANK), read_table(raw / ONE_HOT / CODES)

    assert bank.phrases == tuple(("location", name) for name in SEEN)
    assert set(table.lesions) == {*SEEN, *UNSEEN}
    assert bank.fingerprint == OneHotEncoder(tuple(table.lesions)).fingerprint


def test_what_is_there_is_not_written_again(raw, monkeypatch):
    monkeypatch.setattr(datasets, "write_phantom_dataset", None)

    write_dataset(raw, PHANTOM, SIZES["smoke"], seed=0)


def test_kits_masks_keep_their_place_on_coarse_voxels(tmp_path):
    mask = np.zeros((60, 90, 100), np.uint8)  # inferior, posterior, left, as KiTS stores them
    mask[10:50, 20:70, 60:90] = 1
    mask[20:36, 30:54, 66:84] = 2
    affine = np.array([[0, 0, -2.0, 90], [0, -2.0, 0, 80], [-3.0, 0, 0, 900], [0, 0, 0, 1]])
    source = tmp_path / "dataset" / "case_00000" / "segmentation.nii.gz"
    source.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(mask, affine), source)

    write_bed(kits_bed(tmp_path / "dataset"), tmp_path / "bed", SIZES["smoke"], seed=0)

    image = nib.load(tmp_path / "bed" / "imagesTs" / "case_00000_0000.nii.gz")
    coarse = nib.load(tmp_path / "bed" / "labelsTs" / "case_00000.nii.gz")
    assert np.allclose(image.affine, coarse.affine)
    assert not read_table(tmp_path / "bed" / "test_attributes.json").cases  # it has others than the phantoms
    drawn = np.asarray(coarse.dataobj)
    value = json.loads((tmp_path / "bed" / "labelsTs.json").read_text())["kidney tumor"]
    assert set(np.unique(drawn)) == {0, value}
    centres = [nib.affines.apply_affine(of, np.argwhere(where).mean(0))
               for of, where in ((affine, mask == 2), (coarse.affine, drawn == value))]  # fmt: skip
    assert np.abs(centres[0] - centres[1]).max() < 4
    volumes = [abs(np.linalg.det(of[:3, :3])) * where.sum()
               for of, where in ((affine, mask == 2), (coarse.affine, drawn == value))]  # fmt: skip
    assert volumes[1] == pytest.approx(volumes[0], rel=0.35)


def test_a_ct_gets_lesions_of_types_that_find_a_place(tmp_path):
    phantom = make_phantom(SIZES["smoke"].phantoms, 0, 0, ())
    for name, array in (("ct", phantom.image), ("organs", phantom.anatomy)):
        nib.save(nib.Nifti1Image(np.rint(array).astype(np.int16).transpose(2, 1, 0), phantom.affine),
                 tmp_path / f"{name}.nii.gz")  # fmt: skip
    names = {"background": 0} | {organ: 1 + i for i, organ in enumerate(ORGANS)}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": names}))

    write_bed(ct_bed(tmp_path / "ct.nii.gz", tmp_path / "organs.nii.gz"), tmp_path / "bed", SIZES["smoke"], seed=0)

    (reference,) = (tmp_path / "bed" / "labelsTs").iterdir()
    labels = json.loads((tmp_path / "bed" / "labelsTs.json").read_text())
    held = set(np.unique(np.asarray(nib.load(reference).dataobj))) - {0}
    assert held
    assert held <= {labels[name] for name in (*SEEN, *UNSEEN)}
    image = np.asarray(nib.load(tmp_path / "bed" / "imagesTs" / "ct_000_0000.nii.gz").dataobj)
    assert (image != np.rint(phantom.image).transpose(2, 1, 0)).any()


@pytest.mark.slow
def test_one_tiny_run_trains_asks_and_scores_and_is_not_done_twice(tmp_path):
    command = [sys.executable, "-m", "benchmarks.zero_shot", "smoke", "-o", str(tmp_path)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}

    first = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, encoding="utf-8", check=False)
    assert first.returncode == 0, first.stderr
    runs = json.loads((tmp_path / "figures.json").read_text())["runs"]
    assert [run["row"] for run in runs] == ["malenia", "any_lesion", ORACLE, "supervised", "one_hot"]
    assert all({each["name"] for each in run["types"]} == {*SEEN, *UNSEEN} for run in runs)

    again = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, encoding="utf-8", check=False)
    assert again.returncode == 0
    assert "nnUNetv2_train" in first.stdout
    assert "nnUNetv2_train" not in again.stdout

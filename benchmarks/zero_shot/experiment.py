"""One row of one seed: data, nnU-Net's own commands, answers, scores. What is there already is not made again."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.commands import BenchmarkError, revision, run_logged
from benchmarks.zero_shot.beds import PHANTOMS, Bed, write_bed
from benchmarks.zero_shot.datasets import CODES, write_dataset
from benchmarks.zero_shot.rows import ANY_LESION, ONE_HOT, PHANTOM, Row, Size
from nnunetv2_malenia.demo.phantom_dataset import ANY_LESION as ANY_LESION_LABEL
from nnunetv2_malenia.demo.run import (
    ALLOCATOR,
    CONFIGURATION,
    PLANS,
    QUERY_TABLE,
    REFERENCE_LABELS,
    write_small_plans,
)
from nnunetv2_malenia.evaluation.comparison import EvaluationOptions
from nnunetv2_malenia.evaluation.evaluate import evaluate_folder, write_evaluation
from nnunetv2_malenia.files import write_json
from nnunetv2_malenia.phantom.dataset import UNSEEN

OWN_PLANS = "nnUNetPlans"
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Experiment:
    """A row to be run with a seed, of phantoms and training alike. folder: of all seeds and rows of a size.

    beds: what it is tested on; training is the same for all of them. unseen: types among the tested ones that no
    training phantom holds.
    """

    row: Row
    seed: int
    size: Size
    folder: Path
    device: str
    beds: tuple[Bed, ...] = (PHANTOMS,)
    unseen: tuple[str, ...] = UNSEEN

    @property
    def home(self) -> Path:
        return self.folder / f"seed_{self.seed}"

    @property
    def raw(self) -> Path:
        return self.home / "nnUNet_raw"

    @property
    def plans(self) -> str:
        return PLANS if self.size.patch_size else OWN_PLANS

    @property
    def model(self) -> Path:
        trainer = f"{self.size.trainer(self.row)}__{self.plans}__{CONFIGURATION}"
        return self.home / "nnUNet_results" / self.row.dataset / trainer

    def test_data(self, bed: Bed) -> Path:
        """Folder with imagesTs and labelsTs."""
        return self.raw / PHANTOM if bed == PHANTOMS else self.home / "beds" / bed.name

    def predictions(self, bed: Bed) -> Path:
        return self.home / "predictions" / bed.name / self.row.name

    def scores(self, bed: Bed) -> Path:
        return self.home / "scores" / bed.name / f"{self.row.name}.json"


def run_experiment(experiment: Experiment) -> None:
    """Train, ask, score: for each bed a file with row, seed, bed, revision of the code, and
    `evaluation.summary.Summary` as a dict, that of the oracle too.

    Raises commands.BenchmarkError if a command fails; its output is in a log that the message names.
    """
    beds = [bed for bed in experiment.beds if not experiment.scores(bed).exists()]
    if not beds:
        return
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "logs"):
        (experiment.home / name).mkdir(parents=True, exist_ok=True)
    for name in (PHANTOM, experiment.row.dataset):
        write_dataset(experiment.raw, name, experiment.size, experiment.seed)
    _preprocess(experiment)
    _train(experiment)
    for bed in beds:
        if bed != PHANTOMS:
            write_bed(bed, experiment.test_data(bed), experiment.size, experiment.seed)
        predict_bed(experiment, bed)
        about = {"row": experiment.row.name, "seed": experiment.seed, "bed": bed.name, "revision": revision()}
        experiment.scores(bed).parent.mkdir(parents=True, exist_ok=True)
        write_json(experiment.scores(bed), about | score_bed(experiment, bed))


def size_of(folder: Path) -> str:
    """The size that an output folder is of. Raises BenchmarkError for another folder."""
    settings = folder / "settings.json"
    if not settings.is_file():
        raise BenchmarkError(f"{folder} has no settings.json of python -m benchmarks.zero_shot; give its output folder")
    return json.loads(settings.read_text(encoding="utf-8"))["size"]


def check_trained(experiment: Experiment, size: str) -> None:
    """Raises BenchmarkError for a row that is not trained."""
    if not (experiment.model / "fold_0" / "checkpoint_final.pth").is_file():
        raise BenchmarkError(
            f"{experiment.model} holds no finished training; run python -m benchmarks.zero_shot {size} "
            f"--rows {experiment.row.name} --seeds {experiment.seed} -o {experiment.folder}"
        )


def _preprocess(experiment: Experiment) -> None:
    """nnU-Net's planning and preprocessing; the last phantoms are held out for nnU-Net's own validation."""
    size, folder = experiment.size, experiment.home / "nnUNet_preprocessed" / experiment.row.dataset
    number, processes = _number(experiment.row.dataset), size.processes
    if (folder / "splits_final.json").exists():
        return
    _run(experiment, "nnUNetv2_plan_and_preprocess", "-d", number, "-npfp", processes, "--verify_dataset_integrity",
         "--no_pp")  # fmt: skip
    if size.patch_size:
        write_small_plans(folder, patch_size=size.patch_size, features=size.features)
    _run(experiment, "nnUNetv2_preprocess", "-d", number, "-plans_name", experiment.plans, "-c", CONFIGURATION,
         "-np", processes)  # fmt: skip
    labels = (experiment.raw / experiment.row.dataset / "labelsTr").glob("*.nii.gz")
    cases = sorted(path.name.removesuffix(".nii.gz") for path in labels)
    held_out = size.validation_cases
    write_json(folder / "splits_final.json", [{"train": cases[:-held_out], "val": cases[-held_out:]}])


def _train(experiment: Experiment) -> None:
    fold = experiment.model / "fold_0"
    if not (fold / "validation" / "summary.json").exists():
        resume = ["--c"] if any(fold.glob("checkpoint_*.pth")) else []
        _run(experiment, "nnUNetv2_train", _number(experiment.row.dataset), CONFIGURATION, "0", "-tr",
             experiment.size.trainer(experiment.row), "-p", experiment.plans, "-device", experiment.device,
             *resume)  # fmt: skip


def predict_bed(experiment: Experiment, bed: Bed) -> None:
    """Seen and unseen types in the test images, with the same queries and options for every row and bed."""
    images, predictions = experiment.test_data(bed) / "imagesTs", experiment.predictions(bed)
    predictions.parent.mkdir(parents=True, exist_ok=True)
    if not experiment.row.is_asked:
        predict_classes(experiment, images, predictions)
    elif experiment.row.dataset == ONE_HOT:
        table = experiment.raw / ONE_HOT / CODES
        _run(experiment, sys.executable, "-m", "benchmarks.zero_shot.ask_by_code", "-i", images, "-o", predictions,
             "-m", experiment.model, "--codes", table, "-device", experiment.device)  # fmt: skip
    else:
        table = experiment.raw / PHANTOM / QUERY_TABLE
        ask(experiment, images, predictions, "--attributes", table, "--save_masks")


def predict_classes(experiment: Experiment, images: Path, output_folder: Path, *arguments: object) -> None:
    """nnU-Net's own prediction of the labels that a row was trained on, with the options of all beds."""
    _run(experiment, "nnUNetv2_predict_from_modelfolder", "-i", images, "-o", output_folder, "-m", experiment.model,
         *_options(experiment), *arguments)  # fmt: skip


def ask(experiment: Experiment, images: Path, output_folder: Path, *arguments: object) -> None:
    """malenia_predict_zeroshot with a row's model, and the options of all beds."""
    _run(experiment, "malenia_predict_zeroshot", "-i", images, "-o", output_folder, "-m", experiment.model,
         *_options(experiment), *arguments)  # fmt: skip


def _options(experiment: Experiment) -> list[str]:
    return ["-f", "0", "-device", experiment.device, "-npp", "1", "-nps", "1", "--disable_tta"]


def score_bed(experiment: Experiment, bed: Bed) -> dict[str, Any]:
    test_data, is_any_lesion = experiment.test_data(bed), experiment.row.dataset == ANY_LESION
    options = EvaluationOptions(
        predictions=experiment.predictions(bed),
        references=test_data / "labelsTs",
        labels=test_data / REFERENCE_LABELS,
        attributes=test_data / QUERY_TABLE,
        any_lesion=ANY_LESION_LABEL if is_any_lesion else None,
        oracle=is_any_lesion,
        unseen=experiment.unseen,
        processes=experiment.size.processes,
    )
    evaluation = evaluate_folder(options, progress=False)
    write_evaluation(evaluation, options.predictions / "evaluation", published=False)
    oracle = evaluation.oracle_summary
    return {"summary": asdict(evaluation.summary), "oracle": asdict(oracle) if oracle else None}


def _number(dataset: str) -> str:
    return dataset.removeprefix("Dataset")[:3]


def environment(experiment: Experiment, program: str) -> dict[str, str]:
    """nnU-Net's folders, our trainers, and what these read: seed, epochs and steps.

    nnU-Net trains without loader processes, but does not plan without: it takes their number for one of threads.
    """
    size = experiment.size
    folders = {name: str(experiment.home / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    path = [str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "GLIBC_TUNABLES": ALLOCATOR,
        **os.environ,
        **folders,
        "PYTHONPATH": os.pathsep.join(path),
        "nnUNet_extTrainer": str(HERE / "trainers"),
        "nnUNet_n_proc_DA": str(size.processes if program.startswith("nnUNetv2_plan") else size.loader_processes),
        "nnUNet_def_n_proc": str(size.processes),
        "ZERO_SHOT_SEED": str(experiment.seed),
        "ZERO_SHOT_EPOCHS": str(size.epochs),
        "ZERO_SHOT_STEPS": str(size.steps),
    }


def _run(experiment: Experiment, *words: object) -> None:
    log = experiment.home / "logs" / f"{experiment.row.name}.log"
    program, *arguments = map(str, words)
    print(f"seed {experiment.seed}, {experiment.row.name}: {Path(program).name} {' '.join(arguments)}", flush=True)
    run_logged([program, *arguments], env=environment(experiment, program), log=log)

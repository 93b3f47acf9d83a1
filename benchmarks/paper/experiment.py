"""The commands that fill a row: conversion, merge, nnU-Net's own, queries, scores. What is there is not made again."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks import zero_shot
from benchmarks.commands import BenchmarkError, run_logged
from benchmarks.paper.rows import KITS, MERGED, SOURCES, Row, public_types
from benchmarks.zero_shot.rows import SIZES
from nnunetv2_malenia.demo.run import CONFIGURATION, PLANS, QUERY_TABLE, REFERENCE_LABELS, write_small_plans
from nnunetv2_malenia.files import write_json

OWN_PLANS = "nnUNetPlans"
MINIATURE = SIZES["smoke"]  # plan, epochs and steps
TEST_SHARE = 5  # one in so many cases of each source is held out, to test seen types
TOLERANCE_MM = 2.0  # of NSD; the published one is not known
FILE_ENDING = ".nii.gz"
TRAINERS = Path(zero_shot.__file__).parent / "trainers"
DOWNLOAD = "docs/data.md says where to download it"


@dataclass(frozen=True)
class Folders:
    """Where data are. folder: everything goes there."""

    folder: Path

    @property
    def raw(self) -> Path:
        return self.folder / "nnUNet_raw"

    @property
    def preprocessed(self) -> Path:
        return self.folder / "nnUNet_preprocessed"

    def test_cases(self, dataset: str) -> Path:
        """Images and labels of the data set's cases that no training of fold 0 reads."""
        return self.folder / "test_cases" / dataset


@dataclass(frozen=True)
class Settings(Folders):
    """What the command line chose. epochs: None for nnU-Net's own number of 1000.

    miniature: a plan and a training that only show that every command runs.
    """

    msd: Path
    kits: Path
    device: str
    epochs: int | None
    miniature: bool

    @property
    def plans(self) -> str:
        return PLANS if self.miniature else OWN_PLANS

    @property
    def processes(self) -> int:
        return MINIATURE.processes if self.miniature else SIZES["full"].processes

    def model(self, row: Row, dataset: str) -> Path:
        folder = f"{self.trainer(row)}__{self.plans}__{CONFIGURATION}"
        return self.folder / "nnUNet_results" / dataset / folder

    def trainer(self, row: Row) -> str:
        """The row's own trainer, whose model needs nothing of this benchmark; one of the comparison's for epochs."""
        return row.trainer if self.epochs is None else f"ZeroShot{row.trainer}"

    def scores(self, row: Row, part: str) -> Path:
        """part: "seen" and "unseen" of rows that are asked, else the data set."""
        return self.folder / "scores" / row.name / part / "summary.json"


class Step(NamedTuple):
    """A command, or one of FUNCTIONS with its folders and data set; it is not run where `done` exists.

    A command and the step after it have one `done` where only that one leaves a sign of being through.
    """

    action: tuple[object, ...] | partial[None]
    done: Path

    def __str__(self) -> str:
        if isinstance(self.action, tuple):
            return shlex.join(map(str, self.action))
        folders, dataset = self.action.args
        name = next(name for name, function in FUNCTIONS.items() if function is self.action.func)
        return shlex.join(["python", "-m", "benchmarks.paper.step", name, dataset, "-o", str(folders.folder)])


def run_row(settings: Settings, row: Row) -> None:
    """Run the steps of a row that are not done. Raises BenchmarkError if one fails; its output is in a log."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "logs"):
        (settings.folder / name).mkdir(parents=True, exist_ok=True)
    for step in steps(settings, row):
        if step.done.exists():
            continue
        print(f"{row.name}: {step}", flush=True)
        if isinstance(step.action, tuple):
            env = environment(settings, str(step.action[0]))
            run_logged(step.action, env=env, log=settings.folder / "logs" / f"{row.name}.log")
        else:
            step.action()


def steps(settings: Settings, row: Row) -> Iterator[Step]:
    """All that fills a row, in order; what rows share comes in each of them."""
    yield from _data(settings)
    for dataset in row.datasets:
        yield from _training(settings, row, dataset)
    if row.is_asked:
        yield from _questions(settings, row)
    else:
        for dataset in row.datasets:
            yield from _plain_predictions(settings, row, dataset)


def check_downloads(settings: Settings) -> None:
    """Raises BenchmarkError for tasks that are neither converted yet nor where they should be."""
    tasks = [task for dataset, task in SOURCES.items() if not (settings.raw / dataset).exists()]
    if missing := [task for task in tasks if _task(settings, task) is None]:
        raise BenchmarkError(f"{settings.msd} lacks {', '.join(missing)}, each a folder or a .tar; {DOWNLOAD}")
    if not (settings.raw / KITS).exists() and not settings.kits.is_dir():
        raise BenchmarkError(f"{settings.kits} is no folder; give the kits23 repository with its images; {DOWNLOAD}")


def _task(settings: Settings, task: str) -> Path | None:
    return next((path for path in (settings.msd / task, settings.msd / f"{task}.tar") if path.exists()), None)


def _data(settings: Settings) -> Iterator[Step]:
    """Six data sets with the published annotations, and the merge that holds out what is unseen."""
    for dataset, task in SOURCES.items():
        source = _task(settings, task) or settings.msd / task
        yield Step(("malenia_convert_msd", "-i", source, "-d", dataset), settings.raw / dataset)
    yield Step(("malenia_convert_kits", "-i", settings.kits, "-d", KITS), settings.raw / KITS)
    yield Step(
        ("malenia_merge", "-i", *SOURCES, KITS, "-d", MERGED, "--holdout", ",".join(public_types("unseen")),
         "--keep_seen"),
        settings.raw / MERGED,
    )  # fmt: skip


def _training(settings: Settings, row: Row, dataset: str) -> Iterator[Step]:
    folder, number, processes = settings.preprocessed / dataset, _number(dataset), settings.processes
    yield Step(
        ("nnUNetv2_plan_and_preprocess", "-d", number, "-npfp", processes, "--verify_dataset_integrity", "--no_pp"),
        folder / f"{OWN_PLANS}.json",
    )
    if settings.miniature:
        yield Step(partial(shrink_plans, settings, dataset), folder / f"{PLANS}.json")
    split = folder / "splits_final.json"
    yield Step(
        ("nnUNetv2_preprocess", "-d", number, "-plans_name", settings.plans, "-c", CONFIGURATION, "-np", processes),
        split,
    )
    yield Step(partial(write_split, settings, dataset), split)
    if split.exists():
        _check_split(settings, dataset)
    fold = settings.model(row, dataset) / "fold_0"
    resume = ("--c",) if any(fold.glob("checkpoint_*.pth")) else ()
    yield Step(
        ("nnUNetv2_train", number, CONFIGURATION, "0", "-tr", settings.trainer(row), "-p", settings.plans, "-device",
         settings.device, *resume),
        fold / "validation" / "summary.json",
    )  # fmt: skip


def _questions(settings: Settings, row: Row) -> Iterator[Step]:
    """Every type, seen and unseen, asked for by its attributes, in the test cases of either."""
    merged, cases = settings.raw / MERGED, settings.test_cases(MERGED)
    yield Step(partial(link_test_cases, settings, MERGED), cases)
    parts = {
        "seen": (cases / "images", cases / "labels", merged / "dataset.json", merged / "attributes.json"),
        "unseen": (merged / "imagesTs", merged / "labelsTs", merged / REFERENCE_LABELS, merged / QUERY_TABLE),
    }
    for part, (images, references, labels, table) in parts.items():
        predictions, scores = settings.folder / "predictions" / row.name / part, settings.scores(row, part)
        yield Step(
            ("malenia_predict_zeroshot", "-i", images, "-o", predictions, "--attributes", merged / QUERY_TABLE,
             "-m", settings.model(row, MERGED), *_prediction_options(settings), "--save_masks",
             "--continue_prediction"),
            scores,
        )  # fmt: skip
        yield _evaluation(settings, predictions, scores, references, labels, "--attributes", table)


def _plain_predictions(settings: Settings, row: Row, dataset: str) -> Iterator[Step]:
    """nnU-Net's label maps of a data set's test cases; all its labels are annotated in all its cases."""
    cases = settings.test_cases(dataset)
    predictions, scores = settings.folder / "predictions" / row.name / dataset, settings.scores(row, dataset)
    yield Step(partial(link_test_cases, settings, dataset), cases)
    yield Step(
        ("nnUNetv2_predict_from_modelfolder", "-i", cases / "images", "-o", predictions, "-m",
         settings.model(row, dataset), *_prediction_options(settings)),
        scores,
    )  # fmt: skip
    yield _evaluation(settings, predictions, scores, cases / "labels", settings.raw / dataset / "dataset.json")


def _prediction_options(settings: Settings) -> tuple[str, ...]:
    small = ("-npp", "1", "-nps", "1", "--disable_tta") if settings.miniature else ()
    return ("-f", "0", "-device", settings.device, *small)


def _evaluation(
    settings: Settings, predictions: Path, scores: Path, references: Path, labels: Path, *options: object
) -> Step:
    return Step(
        ("malenia_evaluate", "-i", predictions, "-g", references, "--labels", labels, *options, "-o", scores.parent,
         "--tolerance_mm", TOLERANCE_MM, "-np", settings.processes, "--disable_progress_bar"),
        scores,
    )  # fmt: skip


def shrink_plans(folders: Folders, dataset: str) -> None:
    """Write nnU-Net's plans with the miniature's patch and network."""
    folder = folders.preprocessed / dataset
    write_small_plans(folder, patch_size=MINIATURE.patch_size, features=MINIATURE.features)


def write_split(folders: Folders, dataset: str) -> None:
    """Write a split whose fold 0 leaves out the test cases of seen types."""
    tests = _test_ids(folders, dataset)
    training = [case_id for case_id in _case_ids(folders.raw / dataset) if case_id not in tests]
    write_json(folders.preprocessed / dataset / "splits_final.json", [{"train": training, "val": tests}])


def _check_split(folders: Folders, dataset: str) -> None:
    """Raises BenchmarkError for a split that is not ours: nnU-Net writes one where a training finds none."""
    split = folders.preprocessed / dataset / "splits_final.json"
    fold = json.loads(split.read_text(encoding="utf-8"))[0]
    if sorted(fold["val"]) != _test_ids(folders, dataset) or set(fold["train"]) & set(fold["val"]):
        raise BenchmarkError(
            f"{split}: fold 0 does not hold out the test cases; remove it and what was trained by it, run again"
        )


def link_test_cases(folders: Folders, dataset: str) -> None:
    """Make a folder that links to the test cases of seen types."""
    folder, raw = folders.test_cases(dataset), folders.raw / dataset
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    for kind in ("images", "labels"):
        (beside / kind).mkdir(parents=True)
    for case_id in _test_ids(folders, dataset):
        for kind, name in (("images", f"{case_id}_0000{FILE_ENDING}"), ("labels", f"{case_id}{FILE_ENDING}")):
            (beside / kind / name).symlink_to(raw / f"{kind}Tr" / name)
    beside.rename(folder)


# what `python -m benchmarks.paper.step` runs by name
FUNCTIONS: Mapping[str, Callable[[Folders, str], None]] = {
    "plans": shrink_plans,
    "split": write_split,
    "link": link_test_cases,
}


def _test_ids(folders: Folders, dataset: str) -> list[str]:
    """Of the merge's training cases, one in TEST_SHARE of each source, in sorted order; those that the data set has."""
    by_source: dict[str, list[str]] = {}
    for case_id in _case_ids(folders.raw / MERGED):
        by_source.setdefault(case_id.rpartition("_")[0], []).append(case_id)
    tests = {case_id for ids in by_source.values() for case_id in ids[::TEST_SHARE]}
    return sorted(tests.intersection(_case_ids(folders.raw / dataset)))


def _case_ids(raw: Path) -> list[str]:
    return sorted(path.name.removesuffix(FILE_ENDING) for path in (raw / "labelsTr").glob(f"*{FILE_ENDING}"))


def _number(dataset: str) -> str:
    return dataset.removeprefix("Dataset")[:3]


def environment(settings: Settings, program: str) -> dict[str, str]:
    """nnU-Net's folders and, for trainings of so many epochs, the comparison's trainers and what they read."""
    names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    env = {**os.environ, **{name: str(settings.folder / name) for name in names}}
    if settings.epochs is not None:
        env |= {
            "nnUNet_extTrainer": str(TRAINERS),
            "ZERO_SHOT_SEED": "0",
            "ZERO_SHOT_EPOCHS": str(settings.epochs),
            "ZERO_SHOT_STEPS": str(MINIATURE.steps if settings.miniature else SIZES["full"].steps),
        }
    if settings.miniature:  # nnU-Net trains without loader processes, but does not plan without
        env["nnUNet_n_proc_DA"] = "1" if program.startswith("nnUNetv2_plan") else str(MINIATURE.loader_processes)
        env["nnUNet_def_n_proc"] = "1"
    return env

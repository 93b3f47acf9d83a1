"""`malenia_demo --train`: phantoms, nnU-Net's commands, queries for types that were never seen, scores."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from nnunetv2_malenia.demo.phantom_dataset import ANY_LESION, write_any_lesion_dataset, write_phantom_dataset
from nnunetv2_malenia.evaluation.comparison import EvaluationOptions
from nnunetv2_malenia.evaluation.evaluate import Evaluation, evaluate_folder, write_evaluation
from nnunetv2_malenia.evaluation.summary import Summary
from nnunetv2_malenia.files import MaleniaError, OutputFolder, json_text, read_json, write_json
from nnunetv2_malenia.phantom import PhantomConfig, Scanner
from nnunetv2_malenia.phantom.dataset import SEEN, UNSEEN

REFERENCE_LABELS, QUERY_TABLE = "labelsTs.json", "test_attributes.json"
DATASET = "Dataset901_MaleniaPhantom"
BASELINE_DATASET = "Dataset902_MaleniaPhantomAnyLesion"
PLANS = "nnUNetMaleniaDemoPlans"
CONFIGURATION = "3d_fullres"
PHANTOMS = PhantomConfig(lesion_size=1.4, scanner=Scanner(noise_hu=(4.0, 8.0)))  # what minutes on a CPU can learn
SOFT_TISSUE_WINDOW = {"percentile_00_5": -150.0, "percentile_99_5": 350.0, "mean": 60.0, "std": 80.0}  # HU
PATCH_SIZE = (24, 40, 40)
FEATURES = (8, 32, 64, 128)
VALIDATION_CASES = 6
# glibc hands every large buffer back to the system after use: page faults are a good part of a training step on a CPU
ALLOCATOR = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=8589934592"
# minutes on two cores -> epochs of 250 steps, of the numbers that nnU-Net has trainers for
EPOCHS_BY_MINUTES = ((15, 5), (30, 10), (60, 20), (150, 50), (300, 100), (750, 250))


@dataclass(frozen=True)
class DemoOptions:
    """What the command line chose. minutes: rough time for everything on two cores; device: cpu, cuda or mps."""

    output_folder: Path
    minutes: int
    device: str
    baseline: bool
    train_cases: int
    test_cases: int
    seed: int


class DemoError(MaleniaError):
    """The demo cannot go on; the message is one line: what is wrong, where, what to do."""


def epochs_for(minutes: int) -> int:
    """Epochs of 250 steps that fit the time; raises DemoError below the least."""
    fitting = [epochs for needed, epochs in EPOCHS_BY_MINUTES if needed <= minutes]
    if not fitting:
        raise DemoError(f"--minutes {minutes} is too short to train anything; give at least {EPOCHS_BY_MINUTES[0][0]}")
    return fitting[-1]


def run_demo(options: DemoOptions) -> None:
    """Make phantoms, train, ask for seen and unseen types, score. Steps whose results are there are not run again.

    Raises DemoError for too little time or too few phantoms, when the folder holds a demo with other options, or a
    command fails.
    """
    epochs = epochs_for(options.minutes)
    if options.train_cases <= VALIDATION_CASES:
        raise DemoError(
            f"--train_cases {options.train_cases} leaves none to train on, since {VALIDATION_CASES} are held out for "
            f"validation; give at least {VALIDATION_CASES + 1}"
        )
    out = options.output_folder.resolve()
    outputs = demo_folder(out)
    _check_same_options(outputs, options)
    env = _environment(out)
    raw = out / "nnUNet_raw" / DATASET
    print(f"Phantoms: {options.train_cases} for training with {', '.join(SEEN)};")
    print(f"          {options.test_cases} for testing, also with the unseen {', '.join(UNSEEN)}.", flush=True)
    if not raw.exists():
        write_phantom_dataset(
            raw, train_cases=options.train_cases, test_cases=options.test_cases, seed=options.seed, config=PHANTOMS
        )
    model = _prepare_and_train(out, DATASET, options.device, env, f"MaleniaTrainerMirrorDA_{epochs}epochs")
    predictions = out / "predictions"
    _run("malenia_predict_zeroshot", "-i", raw / "imagesTs", "-o", predictions, "--attributes", raw / QUERY_TABLE,
         "-m", model, "-f", "0", "-device", options.device, "-npp", "1", "-nps", "1", "--save_masks", "--disable_tta",
         log=out / "predict.log", env=env)  # fmt: skip
    results = evaluate(raw, predictions)
    baseline = None
    if options.baseline:
        baseline_raw = out / "nnUNet_raw" / BASELINE_DATASET
        if not baseline_raw.exists():
            write_any_lesion_dataset(baseline_raw, raw)
        baseline_model = _prepare_and_train(
            out, BASELINE_DATASET, options.device, env, f"nnUNetTrainerAdamWMirrorDA_{epochs}epochs"
        )
        baseline_predictions = out / "predictions_any_lesion"
        _run("nnUNetv2_predict_from_modelfolder", "-i", raw / "imagesTs", "-o", baseline_predictions,
             "-m", baseline_model, "-f", "0", "-device", options.device, "-npp", "1", "-nps", "1", "--disable_tta",
             log=out / "predict_any_lesion.log", env=env)  # fmt: skip
        baseline = evaluate(raw, baseline_predictions, any_lesion=ANY_LESION, oracle=True, unseen=UNSEEN)
    outputs.write_text("results.json", json_text({
        "data": "phantoms; not clinical",
        "options": {**asdict(options), "output_folder": None},
        "epochs": epochs,
        "malenia": type_figures(results.summary),
        "any_lesion": type_figures(baseline.summary) if baseline else None,
        "any_lesion_oracle": type_figures(baseline.oracle_summary) if baseline else None,
    }))  # fmt: skip
    print("\nHeld-out phantoms (not clinical data), asked for by attributes:\n")
    print(results.table(published=False))
    if baseline:
        print("A plain nnU-Net of any lesion, its one mask scored against every type:\n")
        print(baseline.table(published=False))
    print(f"Label maps, masks and findings: {predictions}\nScores: {out / 'results.json'}")
    print(f"Model: {model}")


def _prepare_and_train(out: Path, dataset: str, device: str, env: dict[str, str], trainer: str) -> Path:
    """nnU-Net's planning and preprocessing, then nnUNetv2_train -> model folder."""
    preprocessed = out / "nnUNet_preprocessed" / dataset
    model = out / "nnUNet_results" / dataset / f"{trainer}__{PLANS}__{CONFIGURATION}"
    number = dataset.removeprefix("Dataset")[:3]
    log = out / f"prepare_{number}.log"
    if not (preprocessed / f"{PLANS}.json").exists():
        _run("nnUNetv2_plan_and_preprocess", "-d", number, "-npfp", "2", "--verify_dataset_integrity", "--no_pp",
             log=log, env=env)  # fmt: skip
        write_small_plans(preprocessed, patch_size=PATCH_SIZE, features=FEATURES)
    if not (preprocessed / f"{PLANS}_{CONFIGURATION}.done").exists():
        _run("nnUNetv2_preprocess", "-d", number, "-plans_name", PLANS, "-c", CONFIGURATION, "-np", "2",
             log=log, env=env)  # fmt: skip
        hold_out_few(preprocessed)
        (preprocessed / f"{PLANS}_{CONFIGURATION}.done").touch()
    if not (model / "fold_0" / "validation" / "summary.json").exists():
        resume = ["--c"] if any((model / "fold_0").glob("checkpoint_*.pth")) else []
        _run("nnUNetv2_train", number, CONFIGURATION, "0", "-tr", trainer, "-p", PLANS, "-device", device,
             *resume, log=out / f"train_{number}.log", env=env, show="Epoch")  # fmt: skip
    return model


def hold_out_few(preprocessed: Path) -> None:
    """A split of our own for fold 0: nnU-Net would hold out a fifth, and validate on it for minutes."""
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (preprocessed / "gt_segmentations").glob("*.nii.gz"))
    split = {"train": cases[:-VALIDATION_CASES], "val": cases[-VALIDATION_CASES:]}
    write_json(preprocessed / "splits_final.json", [split])


def write_small_plans(preprocessed: Path, *, patch_size: tuple[int, int, int], features: tuple[int, ...]) -> None:
    """nnU-Net's own plans with a patch and a network that two CPU cores can train in minutes."""
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    plans["plans_name"] = PLANS
    configuration = plans["configurations"][CONFIGURATION]
    configuration["data_identifier"] = f"{PLANS}_{CONFIGURATION}"
    configuration["patch_size"] = list(patch_size)
    configuration["batch_size"] = 2
    stages = len(features)
    configuration["architecture"]["arch_kwargs"] |= {
        "n_stages": stages,
        "features_per_stage": list(features),
        "kernel_sizes": [[3, 3, 3]] * stages,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
        "n_conv_per_stage": [1] + [2] * (stages - 1),
        "n_conv_per_stage_decoder": [2, 1, 1],
    }
    plans["configurations"] = {CONFIGURATION: configuration}
    # lungs and gas are labels too, which would make nnU-Net's own intensity statistics too wide for soft tissue
    plans["foreground_intensity_properties_per_channel"]["0"] |= SOFT_TISSUE_WINDOW
    write_json(preprocessed / f"{PLANS}.json", plans)


def evaluate(raw: Path, predictions: Path, **options: object) -> Evaluation:
    """As malenia_evaluate does, with the results in the predictions' folder; published figures are not of phantoms."""
    evaluation = evaluate_folder(
        EvaluationOptions(
            predictions=predictions,
            references=raw / "labelsTs",
            labels=raw / REFERENCE_LABELS,
            attributes=raw / QUERY_TABLE,
            **options,
        ),
        progress=False,
    )
    write_evaluation(evaluation, predictions / "evaluation", published=False)
    return evaluation


def type_figures(summary: Summary) -> list[dict]:
    """What results.json holds of each lesion type; means over the cases, volumes in ml."""
    return [
        {
            "name": each.name,
            "seen": each.seen,
            "cases_present": each.cases_present,
            "cases_absent": each.cases_absent,
            "mean_dsc": each.dsc.mean,
            "mean_nsd": each.nsd.mean,
            "volume_present_ml": each.volume_present_ml.mean,
            "volume_absent_ml": each.volume_absent_ml.mean,
            "presence_auc": each.presence_auc,
        }
        for each in summary.types
    ]


def demo_folder(folder: Path) -> OutputFolder:
    """The folder of a demo, new or of an earlier run. Raises DemoError if it holds other files."""
    outputs = OutputFolder(folder)
    if not outputs.holds_only_ours():
        raise DemoError(f"{folder} holds files that are not of a demo; choose another folder with -o")
    outputs.open()
    return outputs


def _check_same_options(outputs: OutputFolder, options: DemoOptions) -> None:
    """One folder is one demo: what was made for other options must not be taken for this one's."""
    fixed = {"train_cases": options.train_cases, "test_cases": options.test_cases, "seed": options.seed}
    record = outputs.folder / "demo.json"
    if record.exists() and (before := read_json(record)) != fixed:
        raise DemoError(f"{outputs.folder} holds a demo with {before}, not {fixed}; choose another folder with -o")
    outputs.write_text(record.name, json_text(fixed))


def _environment(out: Path) -> dict[str, str]:
    folders = {name: str(out / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    for folder in folders.values():
        Path(folder).mkdir(exist_ok=True)
    ours = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "2", "GLIBC_TUNABLES": ALLOCATOR}
    return {**ours, **os.environ, **folders}


def _run(command: str, *arguments: object, log: Path, env: dict[str, str], show: str | None = None) -> None:
    """Run a console command, output to a log; lines that contain `show` are shown too."""
    words = [command, *map(str, arguments)]
    print(f"\n$ {shlex.join(words)}", flush=True)
    executable = shutil.which(command, path=os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")]))
    if executable is None:
        raise DemoError(f"{command} is not installed beside {sys.executable}; install nnunetv2_malenia again")
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            [executable, *words[1:]],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        for line in process.stdout:
            file.write(line)
            file.flush()
            if show and show in line:
                print(f"  {line.rstrip()}", flush=True)
    if process.wait() != 0:
        raise DemoError(f"{command} failed with status {process.returncode}; its output is in {log}")

"""Time one training step of MaleniaTrainer against nnUNetTrainer's, on the same plan, in the same run.

    python benchmarks/train_step.py -d DATASET [-p PLANS] [-c CONFIGURATION] [-device cpu|cuda] [--steps 20]

The data set must be planned and preprocessed, its labels lesions with attributes. Steps of the two trainers alternate,
on the same batches, so that a machine that slows down slows both. Writes benchmarks/results/train_step_DEVICE.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch._dynamo import OptimizedModule


def processor_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return f"{names[0].split(':')[1].strip() if names else platform.processor()}, {torch.get_num_threads()} threads"


def make_trainer(name: str, args: argparse.Namespace) -> nnUNetTrainer:
    trainer = get_trainer_from_args(args.d, args.c, 0, name, args.p, device=torch.device(args.device))
    trainer.disable_checkpointing = True
    trainer.initialize()
    trainer.network.train()
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    return trainer


def timed_step(trainer: nnUNetTrainer, batch: dict) -> float:
    targets = batch["target"]
    batch = {**batch, "target": [level.clone() for level in targets] if isinstance(targets, list) else targets.clone()}
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    trainer.train_step(batch)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def summary(seconds: list[float]) -> dict[str, float]:
    return {"median_s": statistics.median(seconds), "min_s": min(seconds), "max_s": max(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", required=True, help="data set name or id")
    parser.add_argument("-p", default="nnUNetPlans", help="plans identifier")
    parser.add_argument("-c", default="3d_fullres", help="configuration")
    parser.add_argument("-device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each trainer, after 3 that are not timed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as results:  # trainers write logs; keep them out of the user's results
        os.environ["nnUNet_results"] = results  # noqa: SIM112 - nnU-Net spells it so
        trainers = {name: make_trainer(name, args) for name in ("nnUNetTrainer", "MaleniaTrainer")}
        malenia = trainers["MaleniaTrainer"]
        loader, validation_loader = malenia.get_dataloaders()
        times: dict[str, list[float]] = {name: [] for name in trainers}
        for step in range(args.steps + 3):
            batch = next(loader)
            for name, trainer in trainers.items():
                seconds = timed_step(trainer, batch)
                if step >= 3:
                    times[name].append(seconds)
        for augmenter in (loader, validation_loader):
            if hasattr(augmenter, "_finish"):
                augmenter._finish()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    result = {
        "commit": commit.stdout.strip(),
        "versions": {name: version(name) for name in ("nnunetv2_malenia", "nnunetv2", "torch")},
        "device": args.device,
        "compiled": isinstance(malenia.network, OptimizedModule),
        "processor": processor_name(malenia.device),
        "plans": args.p,
        "configuration": args.c,
        "patch_size": list(malenia.configuration_manager.patch_size),
        "batch_size": malenia.batch_size,
        "features_per_stage": malenia.configuration_manager.network_arch_init_kwargs["features_per_stage"],
        "steps": args.steps,
        **{name: summary(seconds) for name, seconds in times.items()},
        "ratio_of_medians": statistics.median(times["MaleniaTrainer"]) / statistics.median(times["nnUNetTrainer"]),
    }
    path = Path(__file__).parent / "results" / f"train_step_{args.device}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

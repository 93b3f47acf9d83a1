"""Time and count one training step of MaleniaTrainer and of nnUNetTrainer, on the same plan, in the same run.

    python benchmarks/train_step.py [--plans demo 64 128] [-device cpu|cuda] [--steps 20] [--quick]

demo: the demo's plan; 64 and 128: two patches of so many voxels a side, 31 M parameters. Patches are noise with some
lesions in it. Steps of the two trainers alternate, so that a machine that slows down slows both. Writes
benchmarks/results/train_step_DEVICE_PLAN.json. --quick counts on a tiny plan, and prints without writing.
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
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetNumpy
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import nnunetv2_malenia
from nnunetv2_malenia.training.trainer import MaleniaTrainer

RESULTS = Path(__file__).parent / "results"
SHIPPED = Path(nnunetv2_malenia.__file__).parent / "pretrained" / "phantom"  # made with the demo's plan
CONFIGURATION = "3d_fullres"
LARGE = {"features_per_stage": [32, 64, 128, 256, 320, 320], "n_conv_per_stage": [2] * 6}
PLANS: dict[str, tuple[list[int] | None, dict[str, list]]] = {
    "demo": (None, {}),
    "64": ([64] * 3, LARGE),
    "128": ([128] * 3, LARGE),
    "quick": ([8, 16, 16], {"features_per_stage": [4, 8, 8], "n_conv_per_stage": [1, 1, 1]}),
}
WARM_UP = 3
METADATA = {"detach", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh"}
ASKS_THE_DEVICE = {"cpu", "item", "tolist", "nonzero", "__bool__", "__float__", "__int__", "__index__"}


class Kernels(TorchDispatchMode):
    """Operations that compute something: neither views nor allocations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in function._schema.returns)
        self.count += not is_view and function.overloadpacket.__name__ not in METADATA
        return function(*args, **(kwargs or {}))


class HostWaits(TorchFunctionMode):
    """Calls that wait for the device where there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.count += getattr(function, "__name__", "") in ASKS_THE_DEVICE
        return function(*args, **(kwargs or {}))


def make_trainer(kind: type[nnUNetTrainer], plan: str, device: torch.device) -> nnUNetTrainer:
    plans = {**json.loads((SHIPPED / "plans.json").read_text()), "continue_training": False}
    dataset_json = json.loads((SHIPPED / "dataset.json").read_text())
    patch_size, changes = PLANS[plan]
    configuration = plans["configurations"][CONFIGURATION]
    if patch_size:
        stages = len(changes["features_per_stage"])
        configuration |= {"patch_size": patch_size, "batch_size": 2}
        configuration["architecture"]["arch_kwargs"] |= {
            "n_stages": stages,
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
            "n_conv_per_stage_decoder": changes["n_conv_per_stage"][1:],
            **changes,
        }
    folder = Path(os.environ["nnUNet_preprocessed"]) / plans["dataset_name"]  # noqa: SIM112 - nnU-Net spells it so
    cases = folder / configuration["data_identifier"]
    cases.mkdir(parents=True, exist_ok=True)
    nnUNetDatasetNumpy.save_case(np.zeros((1, 1, 1, 1)), np.zeros((1, 1, 1, 1)), {}, str(cases / "none"))
    for name in ("dataset.json", "dataset_fingerprint.json"):
        (folder / name).write_text(json.dumps(dataset_json))
    torch.manual_seed(0)
    trainer = kind(plans, CONFIGURATION, 0, dataset_json, device)
    trainer.disable_checkpointing = True
    trainer.initialize()
    trainer.network.train()
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    return trainer


def make_batch(trainer: nnUNetTrainer) -> dict:
    """As the loader gives it: noise, organs in halves, and a block of each of three lesion types."""
    rng, shape = np.random.default_rng(0), trainer.configuration_manager.patch_size
    transforms = trainer.get_validation_transforms(trainer._get_deep_supervision_scales())
    levels = []
    for sample in range(trainer.batch_size):
        labels = np.ones((1, *shape), np.int16)
        labels[:, :, shape[1] // 2 :] = 2
        for lesion in range(3):
            corner = [int(rng.integers(0, size - size // 4)) for size in shape]
            block = tuple(slice(start, start + size // 5) for start, size in zip(corner, shape, strict=True))
            labels[0][block] = max(trainer.label_manager.foreground_labels) - lesion
        target = transforms(image=None, segmentation=torch.from_numpy(labels))["segmentation"]
        if isinstance(trainer, MaleniaTrainer):
            drawn = trainer.make_targets.draw(target[0], str(sample), rng)
            target.append(trainer.make_targets.pack(**drawn))
        levels.append(target)
    image = torch.randn(trainer.batch_size, 1, *shape, generator=torch.Generator().manual_seed(0))
    return {
        "data": image,
        "target": [torch.stack(level) for level in zip(*levels, strict=True)],
        "keys": [str(sample) for sample in range(trainer.batch_size)],
    }


def counts(trainer: nnUNetTrainer, batch: dict) -> dict[str, int | None]:
    """Of one step; peak memory is known of GPUs alone."""
    sent = [batch["data"], *batch["target"]]
    found = {"megabytes_sent": sum(each.numel() * each.element_size() for each in sent) / 1e6}
    if trainer.device.type == "cuda":
        return found | cuda_counts(trainer, batch)
    with Kernels() as kernels:
        trainer.train_step(batch)
    with HostWaits() as waits:
        trainer.train_step(batch)
    return found | {"kernels": kernels.count, "host_waits": waits.count, "peak_memory_mb": None}


def cuda_counts(trainer: nnUNetTrainer, batch: dict) -> dict[str, int | None]:
    torch.cuda.reset_peak_memory_stats()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        trainer.train_step(batch)
    launches = sum(each.count for each in profile.key_averages() if "LaunchKernel" in each.key)
    with warnings.catch_warnings(record=True) as waits:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        trainer.train_step(batch)
        torch.cuda.set_sync_debug_mode("default")
    return {
        "kernels": launches,
        "host_waits": sum("synchronizing" in str(wait.message) for wait in waits),
        "peak_memory_mb": round(torch.cuda.max_memory_allocated() / 1e6),
    }


def timed(trainer: nnUNetTrainer, batch: dict) -> tuple[float, float]:
    """Seconds of a step: by the clock, and of all the process's threads."""
    synchronize = torch.cuda.synchronize if trainer.device.type == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter(), time.process_time()
    trainer.train_step(batch)
    synchronize()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def compare(plan: str, device: torch.device, steps: int) -> dict[str, Any]:
    trainers = {kind.__name__: make_trainer(kind, plan, device) for kind in (nnUNetTrainer, MaleniaTrainer)}
    batches = {name: make_batch(trainer) for name, trainer in trainers.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in trainers}
    for step in range(WARM_UP + steps if steps else 1):
        for name, trainer in trainers.items():
            seconds = timed(trainer, batches[name])
            if step >= WARM_UP:
                times[name].append(seconds)
    results: dict[str, Any] = {name: counts(trainer, batches[name]) for name, trainer in trainers.items()}
    if steps:
        for name, measured in times.items():
            clock, processor = zip(*measured, strict=True)
            results[name] |= {"median_s": statistics.median(clock), "min_s": min(clock), "max_s": max(clock)}
            results[name]["min_processor_s"] = min(processor)
        results["ratio_of_medians"] = results["MaleniaTrainer"]["median_s"] / results["nnUNetTrainer"]["median_s"]
    malenia = trainers["MaleniaTrainer"]
    return {
        "plan": plan,
        "patch_size": list(malenia.configuration_manager.patch_size),
        "batch_size": malenia.batch_size,
        "features_per_stage": malenia.configuration_manager.network_arch_init_kwargs["features_per_stage"],
        "parameters": {name: sum(w.numel() for w in each.network.parameters()) for name, each in trainers.items()},
        "compiled": malenia._do_i_compile(),
        "steps": steps,
        **results,
    }


def machine(device: torch.device) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip(),
        "versions": {name: version(name) for name in ("nnunetv2_malenia", "nnunetv2", "torch")},
        "device": device.type,
        "processor": processor_name(device),
    }


def processor_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return f"{names[0].split(':')[1].strip() if names else platform.processor()}, {torch.get_num_threads()} threads"


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plans", nargs="+", default=["demo", "64", "128"], choices=("demo", "64", "128"))
    parser.add_argument("-device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--steps", type=int, default=20, help=f"timed steps of each trainer, after {WARM_UP} others")
    parser.add_argument("--quick", action="store_true", help="count on a tiny plan, time nothing, write nothing")
    args = parser.parse_args(arguments)
    device, results = torch.device(args.device), []
    with tempfile.TemporaryDirectory() as folder:  # where trainers write logs; out of the way of the user's
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            os.environ[name] = folder
        for plan in ["quick"] if args.quick else args.plans:
            result = {**machine(device), **compare(plan, device, 0 if args.quick else args.steps)}
            results.append(result)
            print(json.dumps(result, indent=2))
            if not args.quick:
                path = RESULTS / f"train_step_{args.device}_{plan}.json"
                path.write_text(json.dumps(result, indent=2) + "\n")
    return results


if __name__ == "__main__":
    main()

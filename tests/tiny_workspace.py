"""nnU-Net's three folders with a data set of small phantoms, and the commands that prepare, train and predict it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from in_process import run_command

from nnunetv2_malenia.demo.phantom_dataset import write_phantom_dataset
from nnunetv2_malenia.demo.run import write_small_plans
from nnunetv2_malenia.phantom import PhantomConfig
from nnunetv2_malenia.phantom.dataset import SEEN

DATASET = "Dataset901_MaleniaPhantom"
TRAINER = "TwoStepMaleniaTrainer"
PLANS = "nnUNetMaleniaDemoPlans"
CONFIG = PhantomConfig(shape=(22, 26, 34), spacing_zyx=(9.0, 8.4, 8.6), shape_jitter=1)


class Workspace:
    def __init__(self, folder: Path) -> None:
        names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        for name in names:
            (folder / name).mkdir(parents=True)
        self.env = {name: str(folder / name) for name in names}
        self.env["nnUNet_extTrainer"] = str(Path(__file__).parent / "trainers")
        self.raw = folder / "nnUNet_raw" / DATASET
        self.preprocessed = folder / "nnUNet_preprocessed" / DATASET
        self.model = folder / "nnUNet_results" / DATASET / f"{TRAINER}__{PLANS}__3d_fullres"

    def run(self, command: str, *arguments: object, ok: bool = True, **env: str) -> str:
        return run_command(command, *arguments, ok=ok, **self.env | env)

    def run_alone(self, command: str, *arguments: object, ok: bool = True, **env: str) -> str:
        """Run the command itself, in a process of its own that may have background processes."""
        done = subprocess.run(
            [executable(command), *map(str, arguments)],
            env=os.environ | self.env | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
        assert (done.returncode == 0) is ok, done.stdout
        return done.stdout

    def prepare(self) -> None:
        """Draw phantoms, plan a small network, preprocess. Every case is trained on; few are held out too."""
        write_phantom_dataset(self.raw, train_cases=5, test_cases=1, seed=3, config=CONFIG)
        self.run("nnUNetv2_extract_fingerprint", "-d", "901", "-np", "1", "--verify_dataset_integrity")
        self.run("nnUNetv2_plan_experiment", "-d", "901")
        write_small_plans(self.preprocessed, patch_size=(16, 16, 24), features=(4, 4, 8, 8))
        self.run("nnUNetv2_preprocess", "-d", "901", "-plans_name", PLANS, "-c", "3d_fullres", "-np", "1")
        validation = cases_that_hold_every_type(self.raw)
        training = sorted(path.name.removesuffix(".nii.gz") for path in (self.raw / "labelsTr").iterdir())
        (self.preprocessed / "splits_final.json").write_text(json.dumps([{"train": training, "val": validation}]))

    def train(self, fold: int = 0, *arguments: str) -> str:
        """nnUNetv2_train with the trainer of two epochs of two steps; it draws its batches itself."""
        return self.run("nnUNetv2_train", *self.training(fold), *arguments, nnUNet_n_proc_DA="0")

    @staticmethod
    def training(fold: int) -> tuple[str, ...]:
        return ("901", "3d_fullres", str(fold), "-tr", TRAINER, "-p", PLANS, "-device", "cpu")

    def ask(self, images: Path, output: Path, *arguments: object, ok: bool = True) -> str:
        """malenia_predict_zeroshot about the phantoms' seen and unseen types."""
        return self.run("malenia_predict_zeroshot", "-i", images, "-o", output, "--attributes",
                        self.raw / "test_attributes.json", "-npp", "0", "-nps", "0", "-device", "cpu",
                        "--disable_progress_bar", "-step_size", "1", *arguments, ok=ok)  # fmt: skip


def executable(command: str) -> str:
    return shutil.which(command, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


def cases_that_hold_every_type(raw: Path) -> list[str]:
    """nnU-Net's mean Dice is NaN, and its choice of a best configuration fails, if validation lacks a label."""
    held = {
        case: set(entry["lesions"])
        for case, entry in json.loads((raw / "attributes.json").read_text())["cases"].items()
    }
    chosen: list[str] = []
    while missing := set(SEEN) - set().union(*(held[case] for case in chosen)):
        chosen.append(max(held, key=lambda case: len(held[case] & missing)))
    return chosen

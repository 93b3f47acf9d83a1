"""Every trainer of the comparison with the seed, epochs and steps that the environment names, as nnU-Net finds them.

Seeded: Python, NumPy and torch before the network and the loaders are made, and the queries that a MaleniaTrainer
composes. Not seeded: what nnU-Net's loader processes draw (with nnUNet_n_proc_DA=0 there are none, and one process
draws everything), and the order in which a GPU adds up. A training that was interrupted and resumed draws its
numbers from the beginning again.
"""

import os
import random

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_malenia.training import variants
from nnunetv2_malenia.training.trainer import CUDA

BASES = (
    "nnUNetTrainer",
    "nnUNetTrainerAdamW",
    "MaleniaTrainer",
    "MaleniaTrainerSingleScale",
    "MaleniaTrainerNoAlignment",
    "MaleniaTrainerSinglePositive",
    "MaleniaTrainerNoAttributeDropout",
    "MaleniaTrainerNoFusion",
    "MaleniaTrainerNoEvidence",
    "MaleniaTrainerExtremes",
    "MaleniaTrainerMaskBranch",
    "MaleniaTrainerTextBranch",
    "MaleniaTrainer1Token",
    "MaleniaTrainer4Tokens",
    "MaleniaTrainer8Tokens",
    "MaleniaTrainer32Tokens",
)


class _Seeded(nnUNetTrainer):
    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = CUDA):
        super().__init__(plans, configuration, fold, dataset_json, device)
        seed = int(os.environ["ZERO_SHOT_SEED"])
        self.num_epochs = int(os.environ["ZERO_SHOT_EPOCHS"])
        self.num_iterations_per_epoch = int(os.environ["ZERO_SHOT_STEPS"])
        self.num_val_iterations_per_epoch = max(1, self.num_iterations_per_epoch // 5)  # as nnU-Net: 50 of 250
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - nnU-Net's loaders draw from the global generator
        torch.manual_seed(seed)
        if hasattr(self, "rng"):
            self.rng = np.random.default_rng([seed, self.local_rank])


for _base in BASES:
    _trainer = getattr(variants, _base)
    for _suffix, _parents in (("", (_Seeded, _trainer)), ("MirrorDA", (_Seeded, variants._MirrorDA, _trainer))):
        _name = f"ZeroShot{_base}{_suffix}"
        globals()[_name] = type(_name, _parents, {"__module__": __name__, "__doc__": f"{_base}, seeded."})

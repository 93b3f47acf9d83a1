"""A trainer of two steps an epoch, in a folder of its own: what a user's own nnUNet_extTrainer looks like."""

import random

import numpy as np
import torch

from nnunetv2_malenia.training.trainer import MaleniaTrainer


class TwoStepMaleniaTrainer(MaleniaTrainer):
    """Seeded, so that every test that asks the trained model asks the same one."""

    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):  # noqa: B008
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 2
        self.num_iterations_per_epoch = 2
        self.num_val_iterations_per_epoch = 1
        self.save_every = 1
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002 - nnU-Net's loaders draw from the global generator
        torch.manual_seed(0)

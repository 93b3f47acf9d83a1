"""A trainer of two steps an epoch, in a folder of its own: what a user's own nnUNet_extTrainer looks like."""

import torch

from nnunetv2_malenia.training.trainer import MaleniaTrainer


class TwoStepMaleniaTrainer(MaleniaTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):  # noqa: B008
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 2
        self.num_iterations_per_epoch = 2
        self.num_val_iterations_per_epoch = 1
        self.save_every = 1

"""Trainers that nnU-Net finds by name. Names are written into checkpoints and folders: never rename one."""

from __future__ import annotations

from dataclasses import replace

import torch

from nnunetv2_malenia.training.trainer import MaleniaTrainer


class _Epochs(MaleniaTrainer):
    epochs: int

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = self.epochs


class MaleniaTrainer_1epoch(_Epochs):
    epochs = 1


class MaleniaTrainer_5epochs(_Epochs):
    epochs = 5


class MaleniaTrainer_10epochs(_Epochs):
    epochs = 10


class MaleniaTrainer_20epochs(_Epochs):
    epochs = 20


class MaleniaTrainer_50epochs(_Epochs):
    epochs = 50


class MaleniaTrainer_100epochs(_Epochs):
    epochs = 100


class MaleniaTrainer_250epochs(_Epochs):
    epochs = 250


class MaleniaTrainerSingleScale(MaleniaTrainer):
    """Ablation: tokens read, and are aligned at, the finest of the three levels only."""

    config = replace(MaleniaTrainer.config, num_scales=1)


class MaleniaTrainerNoAlignment(MaleniaTrainer):
    """Ablation: without the MP-NCE loss."""

    loss_weights = {**MaleniaTrainer.loss_weights, "mp_nce": 0.0}


class MaleniaTrainerNoFusion(MaleniaTrainer):
    """Ablation: without the deep-fusion layers."""

    config = replace(MaleniaTrainer.config, num_fusion_layers=0)


class MaleniaTrainerMaskBranch(MaleniaTrainer):
    """Ablation: queries are answered by the mask branch alone."""

    config = replace(MaleniaTrainer.config, text_weight=0.0)


class MaleniaTrainerTextBranch(MaleniaTrainer):
    """Ablation: queries are answered by the text branch alone."""

    config = replace(MaleniaTrainer.config, text_weight=1.0)

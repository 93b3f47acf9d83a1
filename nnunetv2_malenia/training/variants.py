"""Trainers that nnU-Net finds by name. Names are written into checkpoints and folders: never rename one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_malenia.training.trainer import CUDA, MaleniaTrainer, nnUNetTrainerAdamW


class _Epochs(nnUNetTrainer):
    epochs: int

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = CUDA):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = self.epochs


class MaleniaTrainer_1epoch(_Epochs, MaleniaTrainer):
    epochs = 1


class MaleniaTrainer_5epochs(_Epochs, MaleniaTrainer):
    epochs = 5


class MaleniaTrainer_10epochs(_Epochs, MaleniaTrainer):
    epochs = 10


class MaleniaTrainer_20epochs(_Epochs, MaleniaTrainer):
    epochs = 20


class MaleniaTrainer_50epochs(_Epochs, MaleniaTrainer):
    epochs = 50


class MaleniaTrainer_100epochs(_Epochs, MaleniaTrainer):
    epochs = 100


class MaleniaTrainer_250epochs(_Epochs, MaleniaTrainer):
    epochs = 250


class nnUNetTrainerAdamW_1epoch(_Epochs, nnUNetTrainerAdamW):
    epochs = 1


class nnUNetTrainerAdamW_5epochs(_Epochs, nnUNetTrainerAdamW):
    epochs = 5


class nnUNetTrainerAdamW_10epochs(_Epochs, nnUNetTrainerAdamW):
    epochs = 10


class nnUNetTrainerAdamW_20epochs(_Epochs, nnUNetTrainerAdamW):
    epochs = 20


class nnUNetTrainerAdamW_50epochs(_Epochs, nnUNetTrainerAdamW):
    epochs = 50


class nnUNetTrainerAdamW_100epochs(_Epochs, nnUNetTrainerAdamW):
    epochs = 100


class nnUNetTrainerAdamW_250epochs(_Epochs, nnUNetTrainerAdamW):
    epochs = 250


class MaleniaTrainerSingleScale(MaleniaTrainer):
    """Ablation: tokens read, and are aligned at, the finest of the three levels only."""

    config = replace(MaleniaTrainer.config, num_scales=1)


class MaleniaTrainerNoAlignment(MaleniaTrainer):
    """Ablation: without the MP-NCE loss."""

    loss_weights: ClassVar[Mapping[str, float]] = {**MaleniaTrainer.loss_weights, "mp_nce": 0.0}


class MaleniaTrainerNoFusion(MaleniaTrainer):
    """Ablation: without the deep-fusion layers."""

    config = replace(MaleniaTrainer.config, num_fusion_layers=0)


class MaleniaTrainerMaskBranch(MaleniaTrainer):
    """Ablation: queries are answered by the mask branch alone."""

    config = replace(MaleniaTrainer.config, text_weight=0.0)


class MaleniaTrainerTextBranch(MaleniaTrainer):
    """Ablation: queries are answered by the text branch alone."""

    config = replace(MaleniaTrainer.config, text_weight=1.0)

"""Trainers that nnU-Net finds by name. Names are written into checkpoints and folders: never rename one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_malenia.training.criterion import single_positive_contrast
from nnunetv2_malenia.training.trainer import CUDA, MaleniaTrainer, nnUNetTrainerAdamW


class _Epochs(nnUNetTrainer):
    epochs: int

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = CUDA):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = self.epochs


class _MirrorDA(nnUNetTrainer):
    """Mirroring is the only augmentation: for data of which there is enough, and processors that have better to do."""

    @staticmethod
    def get_training_transforms(
        patch_size: Any,
        rotation_for_DA: Any,
        deep_supervision_scales: list | tuple | None,
        mirror_axes: tuple[int, ...] | None,
        do_dummy_2d_data_aug: bool,
        use_mask_for_norm: list[bool] | None = None,
        is_cascaded: bool = False,
        foreground_labels: tuple[int, ...] | list[int] | None = None,
        regions: list | None = None,
        ignore_label: int | None = None,
    ) -> ComposeTransforms:
        """nnU-Net's validation transforms behind a mirroring."""
        transforms = nnUNetTrainer.get_validation_transforms(
            deep_supervision_scales, is_cascaded, foreground_labels, regions, ignore_label
        )
        mirroring = [MirrorTransform(allowed_axes=mirror_axes)] if mirror_axes else []
        return ComposeTransforms([*mirroring, *transforms.transforms])

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):
        rotation, dummy_2d, _, mirror_axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        return rotation, dummy_2d, self.configuration_manager.patch_size, mirror_axes


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


class MaleniaTrainerMirrorDA_5epochs(_MirrorDA, MaleniaTrainer_5epochs):
    pass


class MaleniaTrainerMirrorDA_10epochs(_MirrorDA, MaleniaTrainer_10epochs):
    pass


class MaleniaTrainerMirrorDA_20epochs(_MirrorDA, MaleniaTrainer_20epochs):
    pass


class MaleniaTrainerMirrorDA_50epochs(_MirrorDA, MaleniaTrainer_50epochs):
    pass


class MaleniaTrainerMirrorDA_100epochs(_MirrorDA, MaleniaTrainer_100epochs):
    pass


class MaleniaTrainerMirrorDA_250epochs(_MirrorDA, MaleniaTrainer_250epochs):
    pass


class nnUNetTrainerAdamWMirrorDA_5epochs(_MirrorDA, nnUNetTrainerAdamW_5epochs):
    pass


class nnUNetTrainerAdamWMirrorDA_10epochs(_MirrorDA, nnUNetTrainerAdamW_10epochs):
    pass


class nnUNetTrainerAdamWMirrorDA_20epochs(_MirrorDA, nnUNetTrainerAdamW_20epochs):
    pass


class nnUNetTrainerAdamWMirrorDA_50epochs(_MirrorDA, nnUNetTrainerAdamW_50epochs):
    pass


class nnUNetTrainerAdamWMirrorDA_100epochs(_MirrorDA, nnUNetTrainerAdamW_100epochs):
    pass


class nnUNetTrainerAdamWMirrorDA_250epochs(_MirrorDA, nnUNetTrainerAdamW_250epochs):
    pass


class MaleniaTrainerSingleScale(MaleniaTrainer):
    """Ablation: tokens read, and are aligned at, the finest of the three levels only."""

    config = replace(MaleniaTrainer.config, num_scales=1)


class MaleniaTrainerNoAlignment(MaleniaTrainer):
    """Ablation: without the MP-NCE loss."""

    loss_weights: ClassVar[Mapping[str, float]] = {**MaleniaTrainer.loss_weights, "mp_nce": 0.0}


class MaleniaTrainerSinglePositive(MaleniaTrainer):
    """Ablation: an ordinary contrastive loss, one positive a token, in place of MP-NCE."""

    contrast = staticmethod(single_positive_contrast)


class MaleniaTrainerNoAttributeDropout(MaleniaTrainer):
    """Ablation: lesions are never asked for by a part of their description."""

    query_kinds = ("full", "absent", "changed")


class MaleniaTrainerNoFusion(MaleniaTrainer):
    """Ablation: without the deep-fusion layers."""

    config = replace(MaleniaTrainer.config, num_fusion_layers=0)


class MaleniaTrainerNoEvidence(MaleniaTrainer):
    """Ablation: every aspect is read from learned features, as published."""

    config = replace(MaleniaTrainer.config, evidence=False)


class MaleniaTrainerExtremes(MaleniaTrainer):
    """Specific features are read from the evidence near a lesion, to which its extremes are added."""

    config = replace(MaleniaTrainer.config, extremes=True)


class MaleniaTrainerMaskBranch(MaleniaTrainer):
    """Ablation: queries are answered by the mask branch alone."""

    config = replace(MaleniaTrainer.config, text_weight=0.0)


class MaleniaTrainerTextBranch(MaleniaTrainer):
    """Ablation: queries are answered by the text branch alone."""

    config = replace(MaleniaTrainer.config, text_weight=1.0)


class MaleniaTrainer1Token(MaleniaTrainer):
    """Ablation: one mask token."""

    config = replace(MaleniaTrainer.config, num_tokens=1)


class MaleniaTrainer4Tokens(MaleniaTrainer):
    """Ablation: four mask tokens."""

    config = replace(MaleniaTrainer.config, num_tokens=4)


class MaleniaTrainer8Tokens(MaleniaTrainer):
    """Ablation: eight mask tokens."""

    config = replace(MaleniaTrainer.config, num_tokens=8)


class MaleniaTrainer32Tokens(MaleniaTrainer):
    """Ablation: 32 mask tokens."""

    config = replace(MaleniaTrainer.config, num_tokens=32)

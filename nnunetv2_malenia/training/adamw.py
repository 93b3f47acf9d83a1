"""nnU-Net's trainer as the baseline of ours, and its foundation: the same optimiser, patches and safety of files."""

from __future__ import annotations

from pathlib import Path

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn

from nnunetv2_malenia.files import read_json
from nnunetv2_malenia.training.attribute_files import LESION_WORDS, label_values
from nnunetv2_malenia.training.checkpoints import CUDA, SafeCheckpoints
from nnunetv2_malenia.training.preprocessed_files import check_preprocessed
from nnunetv2_malenia.training.sampling import LesionFirst


class nnUNetTrainerAdamW(SafeCheckpoints):
    """nnU-Net with MaleniaTrainer's optimiser and patches: AdamW, as mask tokens are trained everywhere, the poly
    schedule, and oversampled foreground that is a lesion where there is one.

    A plain baseline of equal tuning is trained with this.
    """

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = CUDA):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr, self.weight_decay = 1e-3, 1e-2

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """Weight decay is for the weights of linear layers and convolutions: not for norms, biases, tokens, gates."""
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in self.network.named_parameters():
            groups[name.endswith("weight") and parameter.ndim > 1].append(parameter)
        optimizer = torch.optim.AdamW(
            [{"params": groups[True]}, {"params": groups[False], "weight_decay": 0.0}],
            self.initial_lr,
            weight_decay=self.weight_decay,
            fused=self.device.type != "mps",
        )
        optimizer.register_load_state_dict_pre_hook(self._own_state_for_older)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def _own_state_for_older(self, optimizer: torch.optim.Optimizer, state: dict) -> dict | None:
        """Checkpoints of earlier versions, which decayed all parameters, are loaded without their moments."""
        if len(state["param_groups"]) == len(optimizer.param_groups):
            return None
        self.print_to_log_file("The checkpoint is of an earlier version: AdamW's moments start anew")
        return optimizer.state_dict()

    def lesion_names(self) -> list[str]:
        """The labels that are lesions."""
        return [name for name in label_values(self.dataset_json["labels"]) if LESION_WORDS.search(name.lower())]

    def get_tr_and_val_datasets(self) -> tuple[LesionFirst, LesionFirst]:
        """nnU-Net's, all of whose files are there, with lesions as the foreground that is oversampled."""
        labels = label_values(self.dataset_json["labels"])
        values = frozenset(value for name in self.lesion_names() for value in labels[name])
        if (splits := Path(self.preprocessed_dataset_folder_base) / "splits_final.json").is_file():
            read_json(splits)
        training, validation = super().get_tr_and_val_datasets()
        if self.local_rank == 0:
            case_ids = sorted({*training.identifiers, *validation.identifiers})
            check_preprocessed(Path(self.preprocessed_dataset_folder), case_ids)
        return LesionFirst(training, values), LesionFirst(validation, values)

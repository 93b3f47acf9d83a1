"""MaleniaTrainer: nnU-Net's loop, optimiser, augmentation and checkpoints around a network that answers queries."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from nnunetv2.paths import nnUNet_raw
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.collate_outputs import collate_outputs
from nnunetv2.utilities.helpers import dummy_context
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, autocast, nn
from torch._dynamo import OptimizedModule

from nnunetv2_malenia.attributes.bank import aspect_means
from nnunetv2_malenia.attributes.plans import MaleniaPlans
from nnunetv2_malenia.attributes.schema import ASPECTS, AttributeTable, has_laterality
from nnunetv2_malenia.network.config import MaleniaConfig
from nnunetv2_malenia.network.malenia_net import MaleniaNet
from nnunetv2_malenia.network.mirroring import REORIENTING_READER, axes_without_left_right
from nnunetv2_malenia.training.attribute_files import (
    LESION_WORDS,
    find_attribute_files,
    keep_copies,
    label_values,
    resolve_plans,
    resolve_table,
    unknown_cases,
)
from nnunetv2_malenia.training.criterion import LOSS_WEIGHTS, aspect_contrast, marginalise, query_terms, token_terms
from nnunetv2_malenia.training.losses import combine
from nnunetv2_malenia.training.sampling import LesionFirst
from nnunetv2_malenia.training.targets import KINDS, AttributeSpace, build_targets, label_map

CUDA = torch.device("cuda")


class nnUNetTrainerAdamW(nnUNetTrainer):
    """nnU-Net with MaleniaTrainer's optimiser and patches: AdamW, as mask tokens are trained everywhere, the poly
    schedule, and oversampled foreground that is a lesion where there is one.

    A plain baseline of equal tuning is trained with this.
    """

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = CUDA):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr, self.weight_decay = 1e-3, 1e-2

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        optimizer = torch.optim.AdamW(
            self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay, fused=self.device.type != "mps"
        )
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def lesion_names(self) -> list[str]:
        """The labels that are lesions."""
        return [name for name in label_values(self.dataset_json["labels"]) if LESION_WORDS.search(name.lower())]

    def get_tr_and_val_datasets(self) -> tuple[LesionFirst, LesionFirst]:
        """nnU-Net's, with lesions as the foreground that is oversampled."""
        labels = label_values(self.dataset_json["labels"])
        values = frozenset(value for name in self.lesion_names() for value in labels[name])
        training, validation = super().get_tr_and_val_datasets()
        return LesionFirst(training, values), LesionFirst(validation, values)


class MaleniaTrainer(nnUNetTrainerAdamW):
    """Trains on any 3-D nnU-Net data set whose labels include lesions with known attributes.

    Attributes come from `attributes.json` beside dataset.json, or from the Clinical Knowledge Table by label name.
    """

    config = MaleniaConfig()
    loss_weights: ClassVar[Mapping[str, float]] = LOSS_WEIGHTS
    num_queries = 8
    query_kinds: Sequence[str] = KINDS
    contrast = staticmethod(aspect_contrast)

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = CUDA,
    ):
        asked = PlansManager(plans).get_configuration(configuration)
        if len(asked.patch_size) != 3:
            raise ValueError(
                f"{type(self).__name__} trains 3-D configurations only, not {configuration}; "
                "use 3d_fullres or 3d_lowres"
            )
        if asked.previous_stage_name is not None:
            raise ValueError(f"{type(self).__name__} does not train the second stage of a cascade; use 3d_fullres")
        plans = {key: value for key, value in deepcopy(plans).items() if key != "malenia"}  # resolved anew, or loaded
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.rng = np.random.default_rng([12345, self.local_rank])
        self.space: AttributeSpace | None = None
        # the layout in which 3-D convolutions run backwards fastest on processors
        self.memory_format = torch.channels_last_3d if self.device.type == "cpu" else torch.preserve_format
        for term in self.loss_weights:
            self.logger.local_logger.my_fantastic_logging.setdefault(f"train_{term}", [])

    def initialize(self) -> None:
        """Resolve the attributes, then let nnU-Net build the network, optimiser and loss."""
        plans = self.plans_manager.plans
        table_path, bank_path = self._attribute_files()
        labels = label_values(self.dataset_json["labels"])
        self.table = table = resolve_table(labels, table_path)
        bank = None
        if "malenia" not in plans:
            resolved, bank = resolve_plans(
                table,
                labels,
                has_regions=self.label_manager.has_regions,
                network=self.config.to_dict(),
                bank_path=bank_path,
            )
            plans["malenia"] = resolved.model_dump(mode="json")
        malenia_plans = MaleniaPlans.model_validate(plans["malenia"])
        self.space = AttributeSpace.build(malenia_plans, table, labels)
        super().initialize()
        self._malenia_net().to(memory_format=self.memory_format)
        if bank is not None:
            vectors, means = torch.from_numpy(bank.vectors), torch.from_numpy(aspect_means(bank))
            self._malenia_net().set_phrase_vectors(vectors.to(self.device), means.to(self.device))
        self.print_to_log_file(
            f"Malenia: attributes of {', '.join(malenia_plans.lesions)} from "
            f"{table_path or 'the Clinical Knowledge Table'}; {len(table.cases)} cases with attributes of their own; "
            f"text encoder {malenia_plans.encoder}"
        )
        if unknown := unknown_cases(table, self.dataset_class.get_identifiers(self.preprocessed_dataset_folder)):
            self.print_to_log_file(f"Malenia: {unknown}")

    def _attribute_files(self) -> tuple[Path | None, Path | None]:
        """The raw data set's files, copied to the preprocessed one, which may be all that the next machine gets."""
        preprocessed = Path(self.preprocessed_dataset_folder_base)
        raw = Path(nnUNet_raw.get()) / self.plans_manager.dataset_name if nnUNet_raw.is_set() else preprocessed
        if self.local_rank == 0:
            keep_copies(raw, preprocessed)
        return find_attribute_files([raw, preprocessed])

    def lesion_names(self) -> list[str]:
        return list(self.table.lesions)

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The backbone of the plans, then the parts that `plans["malenia"]` describes."""
        backbone = nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )
        plans = MaleniaPlans.model_validate(plans_manager.plans["malenia"])
        return MaleniaNet(
            backbone,
            MaleniaConfig.from_dict(plans.network),
            num_input_channels=num_input_channels,
            patch_size=list(configuration_manager.patch_size),
            phrase_aspect=[ASPECTS.index(aspect) for aspect, _ in plans.phrases],
            trained_phrases=plans.trained_index(),
            text_dim=plans.text_dim,
            own_queries=plans.own_queries(),
            own_rivals=plans.own_rivals(),
            lesion_channels=plans.channel_lesions(),
            has_regions=plans.has_regions,
        )

    def _malenia_net(self) -> MaleniaNet:
        net = self.network.module if self.is_ddp else self.network
        return net._orig_mod if isinstance(net, OptimizedModule) else net

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):
        """nnU-Net's choice without left-right mirroring where attributes name a side.

        Only NibabelIOWithReorient says which axis that is; with another reader, nothing is mirrored.
        """
        rotation, dummy_2d, initial_patch_size, mirror_axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if names_a_side(self.table):
            reader = self.plans_manager.image_reader_writer_class.__name__
            mirror_axes = axes_without_left_right(mirror_axes, reader, self.plans_manager.transpose_forward)
            if reader != REORIENTING_READER:
                self.print_to_log_file(
                    f"Malenia: attributes name a side and {reader} does not say which axis is left-right, so nothing "
                    f'is mirrored; set "overwrite_image_reader_writer": "{REORIENTING_READER}" in dataset.json'
                )
            self.inference_allowed_mirroring_axes = mirror_axes or None
            self.print_to_log_file(f"Malenia: mirroring axes {mirror_axes}")
        return rotation, dummy_2d, initial_patch_size, mirror_axes

    def train_step(self, batch: dict) -> dict:
        """nnU-Net 2.8's step, with queries handed to the network and more loss terms."""
        data, target = batch["data"], batch["target"]
        finest = target[0] if isinstance(target, list) else target
        targets = build_targets(
            label_map(finest, self.label_manager.regions_class_order if self.label_manager.has_regions else None),
            batch["keys"],
            self.space,
            num_queries=self.num_queries,
            query_kinds=self.query_kinds,
            ignore_label=-1 if self.label_manager.has_regions else self.label_manager.ignore_label,
            rng=self.rng,
            device=self.device,
        )
        data = data.to(self.device, non_blocking=True, memory_format=self.memory_format)
        target = (
            [level.to(self.device, non_blocking=True) for level in target]
            if isinstance(target, list)
            else target.to(self.device, non_blocking=True)
        )
        net = self._malenia_net()
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device.type, enabled=True) if self.device.type == "cuda" else dummy_context():
            output = self.network(data, net.trained_queries(targets.is_asked, targets.is_rival))
            terms = {
                "segmentation": self._segmentation_loss(output.class_logits, target, targets.annotated_labels),
                **token_terms(output, targets, net.trained_aspect, self.config.temperature, self.contrast),
                **query_terms(output, targets, net.lesion_channels),
            }
            loss = combine(terms, self.loss_weights)
        if self.grad_scaler is not None:
            self.grad_scaler.scale(loss).backward()
            self.grad_scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), 12)
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        else:
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 12)
            self.optimizer.step()
        values = torch.stack([loss, *terms.values()]).detach().cpu().numpy()
        return dict(zip(["loss", *terms], values, strict=True))

    def _segmentation_loss(
        self, class_logits: list[Tensor], target: list[Tensor] | Tensor, annotated: Tensor | None
    ) -> Tensor:
        """nnU-Net's own loss on the ordinary head; what a case does not annotate is unknown to it."""
        if annotated is not None:
            class_logits = self._silent_about_unannotated(class_logits, annotated)
        return self.loss(class_logits if isinstance(target, list) else class_logits[0], target)

    def _silent_about_unannotated(self, class_logits: list[Tensor], annotated: Tensor) -> list[Tensor]:
        """annotated: (B, L) bool, of label values; a region is annotated when all of its values are."""
        has_regions = self.label_manager.has_regions
        if has_regions:
            members = [list(r) if isinstance(r, tuple) else [r] for r in self.label_manager.foreground_regions]
            annotated = torch.stack([annotated[:, values].all(1) for values in members], dim=1)
        return [marginalise(level, annotated, has_regions=has_regions) for level in class_logits]

    def validation_step(self, batch: dict) -> dict:
        """nnU-Net's, in which a prediction of what a case does not annotate counts as background, not as an error."""
        annotated = torch.from_numpy(np.stack([self.space.annotated_labels(case_id) for case_id in batch["keys"]]))
        if annotated.all():
            return super().validation_step(batch)
        network, annotated = self.network, annotated.to(self.device)

        def silent_network(data: Tensor) -> Tensor | list[Tensor]:
            output = network(data)
            levels = self._silent_about_unannotated(output if isinstance(output, list) else [output], annotated)
            return levels if isinstance(output, list) else levels[0]

        self.network = silent_network
        try:
            return super().validation_step(batch)
        finally:
            self.network = network

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """nnU-Net's log of the loss, and ours of each term."""
        super().on_train_epoch_end(train_outputs)
        outputs = collate_outputs(train_outputs)
        for term in self.loss_weights:
            self.logger.log(f"train_{term}", float(np.mean(outputs[term])), self.current_epoch)

    def on_epoch_end(self) -> None:
        terms = [f"{term} {self.logger.get_value(f'train_{term}', step=-1):.4f}" for term in self.loss_weights]
        self.print_to_log_file("train_loss terms:", ", ".join(terms))
        super().on_epoch_end()

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint with plain Python numbers only, so that `torch.load(weights_only=True)` takes it.

        Written beside and renamed: an interrupted save leaves the previous checkpoint in place.
        """
        logging = self.logger.local_logger.my_fantastic_logging
        logging.update({key: plain_numbers(values) for key, values in logging.items()})
        self._best_ema = plain_numbers(self._best_ema)
        super().save_checkpoint(filename + ".tmp")
        if self.local_rank == 0 and not self.disable_checkpointing:
            os.replace(filename + ".tmp", filename)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """Rebuild the network from the checkpoint's own `malenia` entry, then load as nnU-Net does."""
        if not self.was_initialized:
            checkpoint = filename_or_checkpoint
            if isinstance(checkpoint, str):
                checkpoint = torch.load(checkpoint, map_location="cpu", weights_only=True)
            self.plans_manager.plans["malenia"] = checkpoint["init_args"]["plans"]["malenia"]
        super().load_checkpoint(filename_or_checkpoint)
        for term in self.loss_weights:
            self.logger.local_logger.my_fantastic_logging.setdefault(f"train_{term}", [])


def names_a_side(table: AttributeTable) -> bool:
    """Whether an attribute of any lesion type or case tells left from right."""
    return has_laterality(
        [*table.lesions.values(), *(v for case in table.cases.values() for v in case.lesions.values())]
    )


def plain_numbers(value: object) -> object:
    """numpy scalars, also inside lists, as Python floats."""
    if isinstance(value, list):
        return [plain_numbers(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value

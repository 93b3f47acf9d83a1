"""MaleniaTrainer: nnU-Net's loop, optimiser, augmentation and checkpoints around a network that answers queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from pickle import UnpicklingError
from typing import ClassVar

import numpy as np
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.paths import nnUNet_raw
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.collate_outputs import collate_outputs
from nnunetv2.utilities.helpers import dummy_context
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, autocast, nn
from torch import distributed as dist
from torch._dynamo import OptimizedModule

from nnunetv2_malenia.attributes.bank import aspect_means
from nnunetv2_malenia.attributes.plans import MaleniaPlans
from nnunetv2_malenia.attributes.resolution import unmatched_cases
from nnunetv2_malenia.attributes.schema import ASPECTS, AttributeTable, has_laterality
from nnunetv2_malenia.files import MaleniaError
from nnunetv2_malenia.network.config import MaleniaConfig
from nnunetv2_malenia.network.malenia_net import MaleniaNet, MaleniaOutput
from nnunetv2_malenia.network.mirroring import REORIENTING_READER, axes_without_left_right
from nnunetv2_malenia.training.adamw import nnUNetTrainerAdamW
from nnunetv2_malenia.training.attribute_files import (
    find_attribute_files,
    keep_copies,
    label_values,
    resolve_plans,
    resolve_table,
)
from nnunetv2_malenia.training.checkpoints import CUDA, errors_in_one_line
from nnunetv2_malenia.training.criterion import (
    LOSS_WEIGHTS,
    Pairs,
    aspect_contrast,
    marginalise,
    pair_terms,
    query_terms,
    token_terms,
    without_unannotated,
)
from nnunetv2_malenia.training.losses import combine, over_ranks
from nnunetv2_malenia.training.matcher import assign
from nnunetv2_malenia.training.patch_targets import MakeTargets, PatchTargets
from nnunetv2_malenia.training.sampling import LesionFirst
from nnunetv2_malenia.training.targets import KINDS, AttributeSpace

MAX_SKIPPED = 10  # steps in a row


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
        errors_in_one_line()
        asked = PlansManager(plans).get_configuration(configuration)
        if len(asked.patch_size) != 3:
            raise MaleniaError(
                f"{type(self).__name__} trains 3-D configurations only, not {configuration}; "
                "use 3d_fullres or 3d_lowres"
            )
        if asked.previous_stage_name is not None:
            raise MaleniaError(f"{type(self).__name__} does not train the second stage of a cascade; use 3d_fullres")
        plans = {key: value for key, value in deepcopy(plans).items() if key != "malenia"}  # resolved anew, or loaded
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_skipped = 0  # the latest steps, without a good one between them
        self.space: AttributeSpace | None = None
        self.make_targets: MakeTargets | None = None
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
        net = self._malenia_net()
        self.make_targets = MakeTargets(
            self.space,
            patch_size=self.configuration_manager.patch_size,
            level_size=net.finest_level,
            num_queries=self.num_queries,
            query_kinds=self.query_kinds,
            regions_class_order=self.label_manager.regions_class_order if self.label_manager.has_regions else None,
            has_ignore_label=self.label_manager.has_ignore_label,
        )
        if self._do_i_compile():
            parts = self._unmatched_terms, self._matched_terms
            self._unmatched_terms, self._matched_terms = (torch.compile(part, fullgraph=True) for part in parts)
        if bank is not None:
            vectors, means = torch.from_numpy(bank.vectors), torch.from_numpy(aspect_means(bank))
            net.set_phrase_vectors(vectors, means)
            # they stay whatever is loaded: weights that training starts from may be of a model with other phrases
            net.register_load_state_dict_post_hook(lambda loaded, _: loaded.set_phrase_vectors(vectors, means))
        self.print_to_log_file(
            f"Malenia: attributes of {', '.join(malenia_plans.lesions)} from "
            f"{table_path or 'the Clinical Knowledge Table'}; {len(table.cases)} cases with attributes of their own; "
            f"text encoder {malenia_plans.encoder}"
        )
        case_ids = self.dataset_class.get_identifiers(self.preprocessed_dataset_folder)
        if note := unmatched_cases(table, case_ids, table_path):
            self.print_to_log_file(f"Malenia: {note}")

    def _attribute_files(self) -> tuple[Path | None, Path | None]:
        """The raw data set's files, copied to the preprocessed one, which may be all that the next machine gets."""
        preprocessed = Path(self.preprocessed_dataset_folder_base)
        raw = Path(nnUNet_raw.get()) / self.plans_manager.dataset_name if nnUNet_raw.is_set() else preprocessed
        if self.local_rank == 0:
            for note in keep_copies(raw, preprocessed):
                self.print_to_log_file(f"Malenia: {note}")
        if self.is_ddp:
            dist.barrier()
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

    def _num_ranks(self) -> int:
        return dist.get_world_size() if self.is_ddp else 1

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

    def get_dataloaders(self):
        """nnU-Net's, in whose workers our targets are made last, whatever transforms training patches have."""
        transforms_of = self.get_training_transforms
        self.get_training_transforms = lambda *args, **kwargs: ComposeTransforms(
            [transforms_of(*args, **kwargs), self.make_targets]
        )
        try:
            return super().get_dataloaders()
        finally:
            del self.get_training_transforms

    def get_tr_and_val_datasets(self) -> tuple[LesionFirst, LesionFirst]:
        training, validation = super().get_tr_and_val_datasets()
        self.make_targets.cases = training
        return training, validation

    def train_step(self, batch: dict) -> dict:
        """nnU-Net 2.8's step, with queries handed to the network and more loss terms.

        The host waits for the device twice: for the costs of the assignment, and for the values of the loss.
        """
        *target, packed = batch["target"]
        is_present = self.make_targets.unpack(packed).is_present.numpy()
        data = batch["data"].to(self.device, non_blocking=True)
        target = [level.to(self.device, non_blocking=True) for level in target]
        targets = self.make_targets.unpack(packed.to(self.device, non_blocking=True))
        is_partial = not all(self.space.annotated_channels(case_id).all() for case_id in batch["keys"])
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device.type, enabled=True) if self.device.type == "cuda" else dummy_context():
            queries = self._malenia_net().trained_queries(targets.is_asked, targets.is_rival)
            output = self.network(data, queries)
            terms = {"segmentation": self._segmentation_loss(output.class_logits, target, targets, is_partial)}
            unmatched, pairs = self._unmatched_terms(output, targets, is_partial)
            is_matched = assign(pairs.costs, is_present)
            terms |= unmatched | self._matched_terms(output, targets, pairs, is_matched)
            loss = combine(terms, self.loss_weights)
        names, values = ["loss", *terms], over_ranks(torch.stack([loss, *terms.values()]).detach()) / self._num_ranks()
        # a loss that is not finite on one rank makes every gradient NaN on all of them, and all skip the step
        loss = loss * (1 + 0 * values[0])
        if self.grad_scaler is not None:
            self.grad_scaler.scale(loss).backward()
            self.grad_scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), 12)
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        else:
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        *values, norm = torch.cat([values, norm[None]]).cpu().numpy()
        if self.grad_scaler is None and np.isfinite(norm):
            self.optimizer.step()
        self._count_skipped(values[0], norm, batch["keys"])
        return dict(zip(names, values, strict=True))

    def _unmatched_terms(
        self, output: MaleniaOutput, targets: PatchTargets, is_partial: bool
    ) -> tuple[dict[str, Tensor], Pairs]:
        """What can be computed before tokens are assigned to lesions, and what the assignment reads."""
        wanted, known, lesions, ignored = targets.pooled()
        channels = self._malenia_net().lesion_channels
        terms = query_terms(output, targets, wanted, known, channels, is_partial=is_partial)
        return terms, pair_terms(output, lesions, ignored)

    def _matched_terms(
        self, output: MaleniaOutput, targets: PatchTargets, pairs: Pairs, is_matched: Tensor
    ) -> dict[str, Tensor]:
        net = self._malenia_net()
        return token_terms(
            output, targets, pairs, is_matched, net.trained_aspect, net.config.temperature, self.contrast
        )

    def _count_skipped(self, loss: float, norm: float, case_ids: Sequence[str]) -> None:
        """Stop after MAX_SKIPPED steps in a row that taught nothing.

        A gradient that overflows is the scaler's business, as long as it has a scale left to lower.
        """
        if np.isfinite(norm):
            self.num_skipped = 0
            return
        if np.isfinite(loss) and self.grad_scaler is not None and self.grad_scaler.get_scale() > 1:
            return
        self.num_skipped += 1
        self.print_to_log_file(f"Malenia: step skipped, loss {loss}, gradient {norm}, cases {', '.join(case_ids)}")
        if self.num_skipped == MAX_SKIPPED:
            raise MaleniaError(
                f"loss or gradient was not finite in {MAX_SKIPPED} steps in a row, last with {', '.join(case_ids)}; "
                f"nothing of it is in the checkpoints in {self.output_folder}: look at the images of these cases, then "
                "go on with --c"
            )

    def _segmentation_loss(
        self, class_logits: list[Tensor], target: list[Tensor], targets: PatchTargets, is_partial: bool
    ) -> Tensor:
        """nnU-Net's own loss on the ordinary head; what a case does not annotate is unknown to it."""
        output = class_logits
        if is_partial:
            output = self._of_annotated(marginalise, output, targets.annotated_channels)
            target = self._of_annotated(without_unannotated, target, targets.annotated_channels)
        return self.loss(output, target) if self.enable_deep_supervision else self.loss(output[0], target[0])

    def _of_annotated(
        self, part: Callable[..., Tensor], levels: list[Tensor] | Tensor, annotated: Tensor
    ) -> list[Tensor] | Tensor:
        """`part` of each level, or of the only one; annotated: (B, K) bool."""
        if isinstance(levels, list):
            return [self._of_annotated(part, level, annotated) for level in levels]
        return part(levels, annotated, has_regions=self.label_manager.has_regions)

    def validation_step(self, batch: dict) -> dict:
        """nnU-Net's, in which what a case does not annotate is background in prediction and target: no error."""
        annotated = torch.from_numpy(np.stack([self.space.annotated_channels(case_id) for case_id in batch["keys"]]))
        if annotated.all():
            return super().validation_step(batch)
        batch = {**batch, "target": self._of_annotated(without_unannotated, batch["target"], annotated)}
        network, annotated = self.network, annotated.to(self.device)
        self.network = lambda data: self._of_annotated(marginalise, network(data), annotated)
        try:
            return super().validation_step(batch)
        finally:
            self.network = network

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """nnU-Net's log of the loss, and ours of each term, over the steps that were not skipped."""
        taken = [step for step in train_outputs if np.isfinite(step["loss"])] or train_outputs
        super().on_train_epoch_end(taken)
        outputs = collate_outputs(taken)
        for term in self.loss_weights:
            self.logger.log(f"train_{term}", float(np.mean(outputs[term])), self.current_epoch)

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """nnU-Net's; an epoch without a Dice, as no class was there, leaves the moving average as it was."""
        super().on_validation_epoch_end(val_outputs)
        logged = self.logger.local_logger.my_fantastic_logging
        dice, averages = logged["mean_fg_dice"][-1], logged["ema_fg_dice"]
        if np.isnan(averages[-1]):
            averages[-1] = averages[-2] if np.isnan(dice) and len(averages) > 1 else dice

    def on_epoch_end(self) -> None:
        terms = [f"{term} {self.logger.get_value(f'train_{term}', step=-1):.4f}" for term in self.loss_weights]
        self.print_to_log_file("train_loss terms:", ", ".join(terms))
        best = self._best_ema
        super().on_epoch_end()
        if not self._may_be_best():
            self._best_ema = best

    def _may_be_best(self) -> bool:
        """Not after steps or a validation without a finite loss."""
        measured = [self.logger.get_value(key, step=None)[-1:] for key in ("val_losses", "ema_fg_dice")]
        return self.num_skipped == 0 and bool(np.isfinite(measured).all())

    def save_checkpoint(self, filename: str) -> None:
        if Path(filename).name == "checkpoint_best.pth" and not self._may_be_best():
            self.print_to_log_file("Malenia: not saved as best, as a loss was not finite")
            return
        super().save_checkpoint(filename)

    def before_loading(self, filename_or_checkpoint: dict | str) -> None:
        """Only weights and numbers are loaded; the network is rebuilt from the checkpoint's own `malenia` entry."""
        checkpoint = filename_or_checkpoint
        try:
            if isinstance(checkpoint, str):
                checkpoint = torch.load(checkpoint, map_location="cpu", weights_only=True)
            malenia = checkpoint["init_args"]["plans"]["malenia"]
        except (UnpicklingError, KeyError, TypeError):
            raise MaleniaError(
                f"{filename_or_checkpoint} is not a checkpoint that {type(self).__name__} wrote, so it is not loaded; "
                "give one that is, or train anew without --c"
            ) from None
        if not self.was_initialized:
            self.plans_manager.plans["malenia"] = malenia

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        super().load_checkpoint(filename_or_checkpoint)
        for term in self.loss_weights:
            self.logger.local_logger.my_fantastic_logging.setdefault(f"train_{term}", [])


def names_a_side(table: AttributeTable) -> bool:
    """Whether an attribute of any lesion type or case tells left from right."""
    return has_laterality(
        [*table.lesions.values(), *(v for case in table.cases.values() for v in case.lesions.values())]
    )

"""What a patch should teach, made in the loader's workers and sent to the training device as one row of bools.

At full resolution only the lesions and the voxels to ignore are sent. For the levels that the tokens read it is which
labels each block of voxels holds: times a table of answers, this gives every query's and every lesion's pooled target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import SegOnlyTransform
from torch import Tensor

from nnunetv2_malenia.training.targets import (
    KINDS,
    UNKNOWN,
    YES,
    AttributeSpace,
    compose_queries,
    fit,
    query_answers,
)


class PatchTargets(NamedTuple):
    """Targets of a batch, all of them bool; every lesion type of the data set has its place among the M = T targets.

    is_asked, is_rival (B, Q, V); query_fits, query_knows (B, Q, T): a lesion of the type fits the query, the
    description says whether; has_phrase, holds_phrase (B, T, V): the type's own phrases, and these with what overlaps
    them; is_present, annotated_types (B, T): lesions of the type are in the patch, are annotated in its case;
    annotated_channels (B, K); answers (B, 2 Q + T + 1, G): for each group of labels, whether each query's answer is
    YES, is UNKNOWN, whether it shows a lesion of each type, whether it is to be ignored; presence (B, G, z, y, x):
    which groups each block of the finest token level holds; any_lesion (B, Z, Y, X); ignored, the same, None for data
    without an ignore label.
    """

    is_asked: Tensor
    is_rival: Tensor
    query_fits: Tensor
    query_knows: Tensor
    has_phrase: Tensor
    holds_phrase: Tensor
    is_present: Tensor
    annotated_types: Tensor
    annotated_channels: Tensor
    answers: Tensor
    presence: Tensor
    any_lesion: Tensor
    ignored: Tensor | None

    def pooled(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """On the finest token level, where a block is what any of its voxels is.

        -> each query's target and what is known of it (B, Q, S) bool; each type's lesions (B, T, z, y, x) and what is
        to be ignored (B, 1, z, y, x) or None, float in {0, 1}.
        """
        shape, num_queries = self.presence.shape[2:], self.is_asked.shape[1]
        with torch.autocast(self.presence.device.type, enabled=False):
            held = (self.answers.float() @ self.presence.flatten(2).float()).clamp(max=1)
        wanted, unknown, lesions, ignored = held.split([num_queries] * 2 + [self.is_present.shape[1], 1], dim=1)
        ignored = None if self.ignored is None else ignored.unflatten(2, shape)
        return wanted > 0, unknown == 0, lesions.unflatten(2, shape), ignored


class Cases(Protocol):
    """Where a worker's transforms learn whose patch they are given: `sampling.LesionFirst`."""

    current: str


class MakeTargets(SegOnlyTransform):
    """The last transform of a training patch: nnU-Net's target becomes a list that ends in the packed targets.

    As in batchgeneratorsv2, queries are drawn apart from where they are applied. Each call draws from numpy's global
    generator, which nnU-Net seeds in every worker.
    """

    cases: Cases

    def __init__(
        self,
        space: AttributeSpace,
        *,
        patch_size: Sequence[int],
        level_size: Sequence[int],
        num_queries: int,
        query_kinds: Sequence[str] = KINDS,
        regions_class_order: Sequence[int] | None = None,
        has_ignore_label: bool = False,
    ) -> None:
        """patch_size, level_size: zyx, of the patch and of the finest token level."""
        super().__init__()
        self.space, self.num_queries, self.query_kinds = space, num_queries, query_kinds
        self.regions_class_order, self.has_ignore_label = regions_class_order, has_ignore_label
        # labels that show the same lesion types are one group; the ignore label, which follows the others, is the last
        _, self.label_of, group_of = np.unique(space.type_has_label, axis=1, return_index=True, return_inverse=True)
        num_groups = len(self.label_of) + 1
        self.group_of = np.append(group_of, num_groups - 1)
        self.level_size = tuple(level_size)
        self.block_of = _block_of(patch_size, level_size)
        queries, (types, phrases) = num_queries, space.class_values.shape
        self.shapes = PatchTargets(
            is_asked=(queries, phrases),
            is_rival=(queries, phrases),
            query_fits=(queries, types),
            query_knows=(queries, types),
            has_phrase=(types, phrases),
            holds_phrase=(types, phrases),
            is_present=(types,),
            annotated_types=(types,),
            annotated_channels=(len(space.channel_has_label),),
            answers=(2 * queries + types + 1, num_groups),
            presence=(num_groups, *level_size),
            any_lesion=tuple(patch_size),
            ignored=tuple(patch_size) if has_ignore_label else None,
        )

    def get_parameters(self, **data: Tensor) -> dict:
        rng = np.random.default_rng(np.random.randint(2**32, size=4, dtype=np.uint32))  # noqa: NPY002 - see above
        finest = data["segmentation"][0] if isinstance(data["segmentation"], list) else data["segmentation"]
        return self.draw(finest, self.cases.current, rng)

    def draw(self, finest: Tensor, case_id: str, rng: np.random.Generator) -> dict:
        """Queries for what nnU-Net's finest target (K, Z, Y, X) shows, and what else `pack` needs."""
        groups = self.group_of[label_map(finest, self.regions_class_order, len(self.group_of) - 1)]
        presence = np.zeros((self.shapes.presence[0], math.prod(self.level_size)), dtype=bool)
        presence[groups.ravel(), self.block_of] = True
        seen, annotated = presence[:-1].any(1), self.space.annotated_types(case_id)
        is_present = (self.space.type_has_label[:, self.label_of] & seen).any(1) & annotated
        values = self.space.values_of(case_id)
        is_asked = compose_queries(values, is_present, annotated, self.space, self.num_queries, rng, self.query_kinds)
        return {"case_id": case_id, "groups": groups, "presence": presence, "is_present": is_present,
                "is_asked": is_asked}  # fmt: skip

    def _apply_to_segmentation(self, segmentation: Tensor | list[Tensor], **drawn: object) -> list[Tensor]:
        levels = segmentation if isinstance(segmentation, list) else [segmentation]
        return [*levels, self.pack(**drawn)]

    def pack(
        self, case_id: str, groups: np.ndarray, presence: np.ndarray, is_present: np.ndarray, is_asked: np.ndarray
    ) -> Tensor:
        """One sample's PatchTargets, without its axis B, as one row of bools."""
        space = self.space
        values, annotated = space.values_of(case_id), space.annotated_types(case_id)
        known_values = np.where(annotated[:, None], values, space.class_values)
        answer = query_answers(is_asked, known_values, annotated, space)[:, self.label_of]
        fits = fit(is_asked[:, None], values, space)
        shows = space.type_has_label[:, self.label_of] & is_present[:, None]
        table = np.zeros(self.shapes.answers, dtype=bool)
        table[:-1, :-1] = np.concatenate([answer == YES, answer == UNKNOWN, shows])
        table[self.num_queries : 2 * self.num_queries, -1] = table[-1, -1] = True
        targets = PatchTargets(
            is_asked=is_asked,
            is_rival=space.rivals(is_asked),
            query_fits=fits == YES,
            query_knows=fits != UNKNOWN,
            has_phrase=values,
            holds_phrase=space.holds(values),
            is_present=is_present,
            annotated_types=annotated,
            annotated_channels=space.annotated_channels(case_id),
            answers=table,
            presence=presence,
            any_lesion=np.append(shows.any(0), False)[groups],
            ignored=groups == len(table[0]) - 1 if self.has_ignore_label else None,
        )
        return torch.from_numpy(np.concatenate([each.ravel() for each in targets if each is not None]))

    def unpack(self, packed: Tensor) -> PatchTargets:
        """(B, any) bool, rows of `pack` -> views of it."""
        shapes = [shape or (0,) for shape in self.shapes]
        parts = packed.split([math.prod(shape) for shape in shapes], dim=1)
        targets = PatchTargets(*(part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)))
        return targets if self.has_ignore_label else targets._replace(ignored=None)


def _block_of(patch_size: Sequence[int], level_size: Sequence[int]) -> np.ndarray:
    """(Z * Y * X,): the voxel of the level, counted along its rows, in which each voxel of the patch lies."""
    steps = [size // level for size, level in zip(patch_size, level_size, strict=True)]
    z, y, x = (np.arange(size) // step for size, step in zip(patch_size, steps, strict=True))
    return ((z[:, None, None] * level_size[1] + y[:, None]) * level_size[2] + x).ravel()


def label_map(finest: Tensor, regions_class_order: Sequence[int] | None, ignore_label: int) -> np.ndarray:
    """nnU-Net's finest target of a sample (K, Z, Y, X) -> label map (Z, Y, X).

    With regions the target has one channel a region, and an ignore channel last if there is one: labels are painted in
    the order of `regions_class_order`, as nnU-Net does with its predictions, and then `ignore_label`.
    """
    channels = finest.numpy()
    if regions_class_order is None:
        return channels[0]
    labels = np.zeros(channels.shape[1:], dtype=np.int16)
    for channel, label in zip(channels, [*regions_class_order, ignore_label], strict=False):
        labels[channel.astype(bool)] = label
    return labels

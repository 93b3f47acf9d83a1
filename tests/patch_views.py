"""A batch's targets taken apart, as tests and plain loops want them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from nnunetv2_malenia.training.patch_targets import MakeTargets, PatchTargets
from nnunetv2_malenia.training.targets import NO, UNKNOWN, YES


def made(maker: MakeTargets, labels: np.ndarray, case_ids: list[str], seed: int) -> PatchTargets:
    """The targets of a batch, from label maps (B, Z, Y, X) or, with regions, from nnU-Net's (B, K, Z, Y, X)."""
    rng = np.random.default_rng(seed)
    finest = torch.as_tensor(labels).unflatten(0, (-1, 1) if labels.ndim == 4 else (-1,))
    rows = [maker.pack(**maker.draw(each, case_id, rng)) for each, case_id in zip(finest, case_ids, strict=True)]
    return maker.unpack(torch.stack(rows))


def by_sample(targets: PatchTargets) -> SimpleNamespace:
    """Per sample the masks of its M lesions (M, z, y, x), their phrases (M, V) and which queries they fit (Q, M); of
    the batch each query's target, what is known of it, and which voxels are: all on the finest token level."""
    wanted, known, lesions, ignored = targets.pooled()
    shape, present = targets.presence.shape[2:], targets.is_present
    fits = torch.where(targets.query_knows, torch.where(targets.query_fits, YES, NO), UNKNOWN)
    return SimpleNamespace(
        is_asked=targets.is_asked,
        query_target=wanted.unflatten(2, shape),
        query_known=known.unflatten(2, shape),
        lesion_masks=[masks[here] > 0 for masks, here in zip(lesions, present, strict=True)],
        known=lesions[:, 0] >= 0 if ignored is None else ignored[:, 0] == 0,
        has_phrase=[has[here] for has, here in zip(targets.has_phrase, present, strict=True)],
        holds_phrase=[holds[here] for holds, here in zip(targets.holds_phrase, present, strict=True)],
        query_fits=[fit[:, here] for fit, here in zip(fits, present, strict=True)],
        annotated_types=targets.annotated_types,
        annotated_channels=targets.annotated_channels,
    )


def pool_any(masks: Tensor, shape_zyx: torch.Size) -> Tensor:
    """(M, Z, Y, X) bool -> (M, S) bool: a coarse voxel is in a mask if any of its voxels is."""
    steps = [size // coarse for size, coarse in zip(masks.shape[1:], shape_zyx, strict=True)]
    for axis, step in zip((1, 3, 5), steps, strict=True):
        masks = masks.unflatten(axis, (-1, step))
    return masks.amax((2, 4, 6)).flatten(1) if len(masks) else masks.new_zeros(0, shape_zyx.numel())

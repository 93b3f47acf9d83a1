"""Which mask token answers for which lesion: the pairing that costs least (Cheng et al., Mask2Former, CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

BCE_WEIGHT, DICE_WEIGHT, LESION_WEIGHT = 5.0, 5.0, 2.0  # as in Mask2Former
DICE_SMOOTHING = 1.0
FAR = 1e4  # beyond any honest logit, yet finite: its sigmoid and softplus are exact, and 0 * FAR is 0
WORST = 1e6  # cost of a token that says NaN, above 5 * FAR: such a token is matched last


@torch.no_grad()
def match_costs(mask_logits: Tensor, targets: Tensor, known: Tensor | None, lesion_logits: Tensor) -> Tensor:
    """Price every token for every target of its sample at one scale, on the device and without waiting for it.

    cost = 5 * mean over voxels of BCE + 5 * (1 - Dice) - 2 * sigmoid(lesion), with
    Dice = (2 sum p t + 1) / (sum p + sum t + 1), p = sigmoid(mask); Cheng et al. 2022. BCE over all pairs is
    softplus(-x) t^T + softplus(x) (1 - t)^T, so nothing of shape (N, M, S) is made.
    For one sample, or with a leading axis B for a batch, whose targets are then padded to the same M:
    mask_logits: (N, S) any float, S the voxels in one row. targets: (M, S) bool, or float in {0, 1}. known: (S,) bool;
    voxels where it is false count nowhere; None: all are known. lesion_logits: (N,) any float.
    Returns (N, M) float32 without gradient, always finite: mask logits are limited to +-1e4, a row with a NaN costs
    1e6. M = 0 gives (N, 0); without a known voxel only the lesion score counts.
    """
    with torch.autocast(mask_logits.device.type, enabled=False):
        x, t = mask_logits.float().clamp(-FAR, FAR), targets.float()
        if known is None:
            num_voxels = x.shape[-1]
        else:  # surely outside both masks: adds nothing to any of the sums below
            unknown = ~known[..., None, :]
            x, t = x.masked_fill(unknown, -FAR), t.masked_fill(unknown, 0)
            num_voxels = known.sum(-1).clamp(min=1)[..., None, None]
        p = x.sigmoid()
        bce = (F.softplus(-x) @ t.mT + F.softplus(x) @ (1 - t).mT) / num_voxels
        total = p.sum(-1, keepdim=True) + t.sum(-1)[..., None, :]  # (N, M)
        dice = (2 * p @ t.mT + DICE_SMOOTHING) / (total + DICE_SMOOTHING)
        lesion = lesion_logits.float().sigmoid()[..., None]
        return (BCE_WEIGHT * bce + DICE_WEIGHT * (1 - dice) - LESION_WEIGHT * lesion).nan_to_num(nan=WORST)


def assign(costs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Pair tokens with targets, one to one, at the least total cost (Hungarian matching; Kuhn 1955).

    costs: finite matrices (N, M), one for each sample and scale, all on one device; N and M may differ between them.
    Give it a whole step's matrices at once: together they cross to the host in one transfer.
    Returns for each matrix (token_index, target_index), int64 of length min(N, M), on the device of the costs, token
    indices ascending; empty for M = 0. With M > N the dearest targets stay without a token. Raises ValueError for NaN.
    """
    if not costs:
        return []
    on_host = torch.cat([cost.detach().flatten() for cost in costs]).cpu().split([cost.numel() for cost in costs])
    pairs = [
        np.stack(linear_sum_assignment(values.view(cost.shape).numpy()))  # (2, P)
        for values, cost in zip(on_host, costs, strict=True)
    ]
    indices = torch.from_numpy(np.concatenate(pairs, axis=1)).to(costs[0].device, non_blocking=True)
    return [pair.unbind() for pair in indices.split([pair.shape[1] for pair in pairs], dim=1)]

"""Which mask token answers for which lesion: the pairing that costs least (Cheng et al., Mask2Former, CVPR 2022)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

BCE_WEIGHT, DICE_WEIGHT, LESION_WEIGHT = 5.0, 5.0, 2.0  # as in Mask2Former
DICE_SMOOTHING = 1.0
FAR = 1e4  # beyond any honest logit, yet finite: its sigmoid and softplus are exact, and 0 * FAR is 0
WORST = 1e6  # cost of a token that says NaN, above 5 * FAR: such a token is matched last


def pair_sums(mask_logits: Tensor, targets: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Every token of a sample against every target: sums over voxels of BCE, of p t, and of p + t -> (..., N, M) each.

    p = sigmoid(mask), t target. BCE over all pairs is sum softplus(x) - x t^T, so nothing of shape (N, M, S) is made.
    mask_logits: (..., N, S) any float, S the voxels in one row, limited to +-1e4 here. targets: (..., M, S) bool, or
    float in {0, 1}. known: (..., S) bool; voxels where it is false count nowhere; None: all are known.
    """
    with torch.autocast(mask_logits.device.type, enabled=False):
        x, t = F.hardtanh(mask_logits.float(), -FAR, FAR), targets.float()
        if known is not None:  # surely outside both masks: adds nothing to any of the sums below
            unknown = ~known[..., None, :]
            x, t = x.masked_fill(unknown, -FAR), t.masked_fill(unknown, 0)
        p = x.sigmoid()
        bce = F.softplus(x).sum(-1, keepdim=True) - x @ t.mT
        return bce, p @ t.mT, p.sum(-1, keepdim=True) + t.sum(-1)[..., None, :]


def dice_loss(overlap: Tensor, total: Tensor) -> Tensor:
    """1 - (2 sum p t + 1) / (sum p + sum t + 1) of the sums; Cheng et al. 2022."""
    return 1 - (2 * overlap + DICE_SMOOTHING) / (total + DICE_SMOOTHING)


@torch.no_grad()
def match_costs(bce: Tensor, dice: Tensor, num_voxels: Tensor | float, lesion_logits: Tensor) -> Tensor:
    """Price every token for every target of its sample, on the device and without waiting for it.

    cost = 5 * mean over voxels of BCE + 5 * (1 - Dice) - 2 * sigmoid(lesion); Cheng et al. 2022.
    bce, dice: (..., N, M), of `pair_sums` and `dice_loss`. num_voxels: known ones, a number or (..., 1, 1).
    lesion_logits: (..., N) any float.
    Returns (..., N, M) float32 without gradient, always finite: a row with a NaN costs 1e6. M = 0 gives (..., N, 0);
    without a known voxel only the lesion score counts.
    """
    lesion = lesion_logits.float().sigmoid()[..., None]
    cost = BCE_WEIGHT * bce / num_voxels + DICE_WEIGHT * dice - LESION_WEIGHT * lesion
    return cost.nan_to_num(nan=WORST)


def assign(costs: Tensor, is_present: np.ndarray) -> Tensor:
    """Pair tokens with targets, one to one, at the least total cost (Hungarian matching; Kuhn 1955).

    costs: finite (I, B, N, M), of a whole step's scales and samples: together they cross to the host in one transfer.
    is_present: (B, M) bool, the targets that a sample has.
    Returns (I, B, N, M) bool on the device of the costs, true for min(N, targets of the sample) pairs of each scale and
    sample. With more targets than tokens the dearest targets stay without one. Raises ValueError for NaN.
    """
    on_host = costs.detach().cpu().numpy()
    is_matched = np.zeros(on_host.shape, dtype=bool)
    for scale, sample in np.ndindex(on_host.shape[:2]):
        present = np.flatnonzero(is_present[sample])
        token, target = linear_sum_assignment(on_host[scale, sample][:, present])
        is_matched[scale, sample, token, present[target]] = True
    return torch.from_numpy(is_matched).to(costs.device, non_blocking=True)

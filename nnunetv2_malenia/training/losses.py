"""What each output is wrong by: named scalars, in float32 whatever the precision of the input, and their weighted sum.

BCE (binary cross-entropy) is computed as softplus(x) where the target is false and softplus(-x) where it is true: the
same as -log of the probability given to the truth, without a logarithm of 0. Logits of unknown voxels become -inf,
which is exactly "absent", and "absent" is their target: they add 0 to every sum and get a gradient of exactly 0.

Where several processes train together, sums and counts are of all their samples: a rank without a lesion does not
make those of the others weigh less.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

DICE_SMOOTHING = 1.0  # as in Mask2Former; makes an empty mask right where nothing was wanted
LEAST_COUNT = 1e-6  # below every weight that is not 0
GATE_EPS = 1e-6  # a log-probability above -GATE_EPS counts as -GATE_EPS: log(1 - p) stays finite


def mp_nce(similarity: Tensor, is_positive: Tensor, is_negative: Tensor, *, temperature: float) -> Tensor:
    """Pull each matched token to every attribute of its lesion, one positive at a time.

    Per positive p: -log(e^p / (e^p + sum over negatives of e^n)), computed as softplus(logsumexp(n) - p); MP-NCE, Lee
    et al. 2022 (UniCLIP).
    similarity: (..., P, V) float, cosine in [-1, 1], divided by temperature (> 0) here.
    is_positive, is_negative: (..., P, V) bool, never both; a phrase in neither neither pulls nor pushes.
    Returns (...) float32: mean over positives, then over rows; rows without one do not count, and
    with none left the result is a 0 that still backpropagates. A row without negatives has nothing to lose: 0.
    Raises ValueError on unequal shapes, or temperature <= 0.
    """
    _require_same_shape(similarity=similarity, is_positive=is_positive, is_negative=is_negative)
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} must be positive, e.g. temperature=0.1")
    scaled = similarity.float() / temperature
    away = scaled.masked_fill(~is_negative, -torch.inf).logsumexp(-1, keepdim=True)  # (..., P, 1)
    num_positive = is_positive.sum(-1)
    per_row = (F.softplus(away - scaled) * is_positive).sum(-1) / num_positive.clamp(min=1)
    return _mean(per_row.sum(-1), (num_positive > 0).sum(-1))


def mask_loss(logits: Tensor, targets: Tensor, known: Tensor | None = None) -> Tensor:
    """`pooled_dice_loss` plus `masked_bce`."""
    x, t, num_known = _at_known(logits, targets, known)
    return _pooled_dice(x, t) + _mean(_bce(x, t).sum((-2, -1)), num_known)


def pooled_dice_loss(logits: Tensor, targets: Tensor, known: Tensor | None = None) -> Tensor:
    """One Dice for all rows together, so that rows whose target is empty count without a penalty of their own.

    1 - (2 sum p t + 1) / (sum p + sum t + 1) over all K and S, p = sigmoid(logits); Dice loss, Milletari et al. 2016
    (V-Net), with plain sums below the line, as in nnU-Net, and pooled over the batch.
    logits: (..., K, S) any float; targets, known: the same, bool, where known is false a voxel does not count; None:
    all known.
    Returns (...) float32 in [0, 1]; nothing wanted and nothing found, no rows, or no known voxel: a 0 that still
    backpropagates. Raises ValueError on unequal shapes.
    """
    return _pooled_dice(*_at_known(logits, targets, known)[:2])


def masked_bce(logits: Tensor, targets: Tensor, known: Tensor | None = None) -> Tensor:
    """Binary cross-entropy, mean over the known voxels of all rows.

    Per voxel: -log sigmoid(x) where the target is true, -log(1 - sigmoid(x)) where it is false.
    logits: (..., K, S) any float; targets, known: the same, bool, where known is false a voxel does not count; None:
    all known.
    Returns (...) float32 >= 0; no known voxel gives a 0 that still backpropagates. Raises ValueError on unequal shapes.
    """
    x, t, num_known = _at_known(logits, targets, known)
    return _mean(_bce(x, t).sum((-2, -1)), num_known)


def pair_loss(bce: Tensor, dice: Tensor, is_matched: Tensor, num_voxels: Tensor) -> Tensor:
    """Teach matched tokens their lesions' masks: mean over pairs of 1 - Dice plus mean over their voxels of BCE.

    bce, dice: (..., B, N, M), of `matcher.pair_sums` and `dice_loss`; is_matched: the same, bool; num_voxels:
    (..., B, 1, 1), how many are known of each sample.
    Returns (...) float32 >= 0; no pair gives a 0 that still backpropagates.
    """
    pairs, weight = (-3, -2, -1), is_matched.float()
    of_pair = _mean((dice * weight).sum(pairs), weight.sum(pairs))
    return of_pair + _mean((bce * weight).sum(pairs), (num_voxels * weight).sum(pairs))


def lesion_loss(
    lesion_logits: Tensor, is_matched: Tensor, counts: Tensor | None = None, *, unmatched_weight: float = 0.1
) -> Tensor:
    """Teach a token to say whether it found a lesion: yes if it was matched, no otherwise.

    Weighted mean of BCE; unmatched tokens, the many, weigh unmatched_weight against 1, the "no object" coefficient of
    Mask2Former, Cheng et al. 2022.
    lesion_logits: (..., B, N) any float. is_matched, counts: the same, bool; tokens where counts is false say nothing,
    such as unmatched ones of a case that may hold lesions nobody annotated; None: all count.
    Returns (...) float32 >= 0; no token that counts gives a 0 that still backpropagates. Raises ValueError on unequal
    shapes.
    """
    counts = torch.ones_like(is_matched) if counts is None else counts
    _require_same_shape(lesion_logits=lesion_logits, is_matched=is_matched, counts=counts)
    weight = torch.where(is_matched, 1.0, unmatched_weight) * counts
    return _mean((_bce(lesion_logits.float(), is_matched) * weight).sum((-2, -1)), weight.sum((-2, -1)))


def match_loss(log_gate: Tensor, fits: Tensor, known: Tensor) -> Tensor:
    """Teach the match between query and token: its probability is to be 1 where the token's lesion fits the query.

    BCE from a log-probability g: -g where it fits, -log(1 - e^g) where it does not; mean over the known pairs.
    log_gate: (R,) any float, <= 0, one entry a pair of query and matched token. fits, known: (R,) bool; known is false
    where the description leaves open whether the lesion fits.
    Returns () float32 >= 0; no known pair gives a 0 that still backpropagates. Raises ValueError on unequal shapes.
    """
    _require_same_shape(log_gate=log_gate, fits=fits, known=known)
    log_gate = log_gate.float()
    log_rest = (-log_gate.clamp(max=-GATE_EPS).expm1()).log()
    return _mean(-torch.where(fits, log_gate, log_rest).masked_fill(~known, 0).sum(), known.sum())


def combine(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Weighted sum of one or more named terms, each () -> ().

    Raises ValueError that names every term without a weight and every weight without a term: a misspelt name would
    otherwise train without its loss.
    """
    unweighted, unused = sorted(terms.keys() - weights.keys()), sorted(weights.keys() - terms.keys())
    if unweighted or unused:
        raise ValueError(
            f"loss terms and weights differ: terms without a weight {unweighted}, weights without a term {unused}; "
            "name each term once in both, and switch one off with the weight 0"
        )
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def over_ranks(sums: Tensor) -> Tensor:
    """Add up over all processes that train together; in a single one, the sums themselves.

    Every rank gets the same values. The gradient is that of the rank's own part, times the number of ranks, by which
    DDP divides when it averages gradients.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return sums
    total, part = sums.detach().clone(), sums * dist.get_world_size()
    dist.all_reduce(total)
    return total + (part - part.detach())


def _mean(total: Tensor, count: Tensor) -> Tensor:
    """total / count, both over all ranks; 0 if nothing counts."""
    total, count = over_ranks(torch.stack([total, count.to(total.dtype)]))
    return total / count.detach().clamp(min=LEAST_COUNT)


def _pooled_dice(x: Tensor, t: Tensor) -> Tensor:
    p = x.sigmoid()
    overlap, total = over_ranks(torch.stack([(p * t).sum((-2, -1)), p.sum((-2, -1)) + t.sum((-2, -1))]))
    return 1 - (2 * overlap + DICE_SMOOTHING) / (total + DICE_SMOOTHING)


def _at_known(logits: Tensor, targets: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Logits in float32 and targets, with unknown voxels made surely and rightly absent, and how many are known.

    Absent are a logit of -inf and a target that is false.
    """
    if known is None:
        _require_same_shape(logits=logits, targets=targets)
        num_voxels = logits.new_full(logits.shape[:-2], logits.shape[-2:].numel(), dtype=torch.float32)
        return logits.float(), targets, num_voxels
    _require_same_shape(logits=logits, targets=targets, known=known)
    return logits.float().masked_fill(~known, -torch.inf), targets & known, known.sum((-2, -1))


def _bce(x: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of each element: float32, finite for finite logits."""
    return F.softplus(x * torch.where(targets, -1.0, 1.0))


def _require_same_shape(**tensors: Tensor) -> None:
    """Broadcasting would otherwise count a voxel or a token more than once."""
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"shapes must be equal: {shapes}; expand them first, e.g. known[:, None].expand_as(targets)")

"""One batch's loss terms: tokens at every scale, the match, and both branches of every query."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunetv2_malenia.network.aspect_heads import of_each_aspect
from nnunetv2_malenia.network.malenia_net import MaleniaOutput, logit_of
from nnunetv2_malenia.network.mask_decoder import blocks
from nnunetv2_malenia.training.losses import lesion_loss, mask_loss, masked_bce, match_loss, mp_nce, pair_loss
from nnunetv2_malenia.training.matcher import dice_loss, match_costs, pair_sums
from nnunetv2_malenia.training.patch_targets import PatchTargets

LOSS_WEIGHTS: Mapping[str, float] = {
    "segmentation": 1.0,
    "any_lesion": 1.0,
    "token_mask": 1.0,
    "lesion": 0.5,
    "mp_nce": 0.5,
    "match": 0.5,
    "text_match": 0.5,
    "mask_branch": 1.0,
    "text_branch": 1.0,
}
LOGIT_EPS = 1e-6
Contrast = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


class Pairs(NamedTuple):
    """Every token beside every lesion type of its sample, before the assignment, and what it needs of the targets.

    bce, dice (I, B, N, T): `matcher.pair_sums` and `dice_loss` at each scale; num_voxels (I, B, 1, 1): the known ones;
    costs (I, B, N, T), without gradient; under_lesions (B, T, S): weights of a mean over each lesion's known voxels.
    """

    bce: Tensor
    dice: Tensor
    num_voxels: Tensor
    costs: Tensor
    under_lesions: Tensor


def pair_terms(output: MaleniaOutput, lesions: Tensor, ignored: Tensor | None) -> Pairs:
    """All that the assignment reads; lesions (B, T, z, y, x), ignored (B, 1, z, y, x) or None, as
    `PatchTargets.pooled`."""
    sums, num_voxels = [], []
    for scale in output.scales:
        shape = scale.mask_logits.shape[2:]
        targets, known = pool(lesions, shape), None if ignored is None else pool(ignored, shape)[:, 0] == 0
        sums.append(pair_sums(scale.mask_logits.flatten(2), targets, known))
        num_voxels.append(targets.new_full((len(targets),), shape.numel()) if known is None else known.sum(1))
    bce, overlap, total = (torch.stack(of_scales) for of_scales in zip(*sums, strict=True))
    dice, num_voxels = dice_loss(overlap, total), torch.stack(num_voxels)[..., None, None]
    lesion_logits = torch.stack([scale.lesion_logits for scale in output.scales])
    costs = match_costs(bce, dice, num_voxels.clamp(min=1), lesion_logits)
    under = targets if known is None else targets * known[:, None]
    return Pairs(bce, dice, num_voxels, costs, under / under.sum(2, keepdim=True).clamp(min=1))


def token_terms(
    output: MaleniaOutput,
    targets: PatchTargets,
    pairs: Pairs,
    is_matched: Tensor,
    phrase_aspect: Tensor,
    temperature: float,
    contrast_loss: Contrast,
) -> dict[str, Tensor]:
    """Losses of matched tokens: masks, lesion score and MP-NCE (means over scales), and the match at the last scale.

    is_matched (I, B, N, T) bool: `matcher.assign`. contrast_loss: `aspect_contrast`, or what takes its place in an
    ablation. Reference masks teach as well: it has one more scale, the mean similarity of the voxels under each mask.
    """
    lesion_logits = torch.stack([scale.lesion_logits for scale in output.scales])
    token_is_matched = is_matched.any(3)
    counts = token_is_matched | targets.annotated_types.all(1, keepdim=True)
    found = is_matched.any(2)  # (I, B, T)
    with torch.autocast(lesion_logits.device.type, enabled=False):
        of_lesion = is_matched.mT.float()  # (I, B, T, N), one token or none a row
        similarity = of_lesion @ torch.stack(output.similarity).float()
        under = pairs.under_lesions @ output.dense_similarity.float()
        log_gate = output.log_gate.float() @ of_lesion[-1].mT  # (B, Q, T)
    similarity = torch.cat([similarity, under[None]])  # (I + 1, B, T, V)
    has = torch.cat([found, targets.is_present[None]])[..., None] & targets.has_phrase
    lacks = ~targets.holds_phrase.expand_as(has)
    contrast = contrast_loss(*(each.flatten(1, 2) for each in (similarity, has, lacks)), phrase_aspect, temperature)
    return {
        "token_mask": pair_loss(pairs.bce, pairs.dice, is_matched, pairs.num_voxels).mean(),
        "lesion": lesion_loss(lesion_logits, token_is_matched, counts).mean(),
        "mp_nce": contrast.mean(),
        "match": match_loss(log_gate, targets.query_fits, targets.query_knows & found[-1][:, None]),
    }


def pool(volume: Tensor, shape_zyx: torch.Size) -> Tensor:
    """(B, C, Z, Y, X) -> (B, C, S): the largest value in each block of a coarser level."""
    return F.max_pool3d(volume, blocks(volume.shape[2:], shape_zyx)).flatten(2)


def aspect_contrast(
    similarity: Tensor, has: Tensor, lacks: Tensor, phrase_aspect: Tensor, temperature: float
) -> Tensor:
    """MP-NCE aspect by aspect: similarity (..., P, V), has and lacks the same, bool, one row a matched token -> (...).

    Every phrase that a lesion has is pulled, contrasted against the phrases of the same aspect that it lacks; an aspect
    that the lesion leaves unspecified neither pulls nor pushes.
    """
    of_aspect = of_each_aspect(phrase_aspect).T  # (A, V)
    positive = has[..., None, :] & of_aspect  # (..., P, A, V)
    negative = lacks[..., None, :] & of_aspect & positive.any(-1, keepdim=True)
    rows = similarity[..., None, :].expand_as(positive)
    return mp_nce(*(each.flatten(-3, -2) for each in (rows, positive, negative)), temperature=temperature)


def single_positive_contrast(
    similarity: Tensor, has: Tensor, lacks: Tensor, phrase_aspect: Tensor, temperature: float
) -> Tensor:
    """InfoNCE with one positive a row, van den Oord et al. 2018, in place of MP-NCE; arguments of `aspect_contrast`.

    The positive is one of the lesion's phrases at random; every other phrase is a negative, the lesion's own included.
    """
    drawn = torch.rand(has.shape, device=has.device).masked_fill(~has, -1).argmax(-1, keepdim=True)
    positive = torch.zeros_like(has).scatter(-1, drawn, True) & has
    return mp_nce(similarity, positive, ~positive, temperature=temperature)


def query_terms(
    output: MaleniaOutput,
    targets: PatchTargets,
    wanted: Tensor,
    known: Tensor,
    lesion_channels: Mapping[int, Sequence[int]],
    *,
    is_partial: bool,
) -> dict[str, Tensor]:
    """Where any lesion is, at full resolution; and each branch's answers, on the finest token level.

    wanted, known (B, Q, S) bool: each query's target, as `PatchTargets.pooled`. lesion_channels: channels of the
    ordinary head that show lesions -> their types. is_partial: a case of the batch lacks some annotation. A branch's
    answer is "a lesion is here" times "it fits": Dice pooled over every query of the batch, present and absent
    together, plus BCE, with the evidence for a lesion taken as given; and, of the text branch, BCE of the fit alone
    inside lesions, where nothing else counts.
    """
    any_lesion, shape = output.any_lesion, output.scales[-1].mask_logits.shape[2:]
    evidence = pool(any_lesion.detach().float()[:, None], shape)  # (B, 1, S)
    text_fit = output.text_fit.float()
    log_fit = torch.stack([output.mask_fit.float().clamp(min=LOGIT_EPS).log(), F.logsigmoid(text_fit)])
    of_branch = logit_of(F.logsigmoid(evidence) + log_fit)  # (2, B, Q, S)
    of_both = (each.expand_as(of_branch).flatten(1, 2) for each in (of_branch, wanted, known))
    branches = mask_loss(*of_both)
    if is_partial:
        any_lesion = annotated_lesion(any_lesion, output.class_logits[0], targets.annotated_types, lesion_channels)
    anywhere = None if targets.ignored is None else ~targets.ignored.flatten(1)
    return {
        "any_lesion": mask_loss(any_lesion.flatten(1), targets.any_lesion.flatten(1), anywhere),
        "mask_branch": branches[0],
        "text_branch": branches[1],
        "text_match": masked_bce(*(each.flatten(0, 1) for each in (text_fit, wanted, known & wanted[:, :1]))),
    }


def annotated_lesion(
    any_lesion: Tensor, class_logits: Tensor, annotated_types: Tensor, lesion_channels: Mapping[int, Sequence[int]]
) -> Tensor:
    """Log-odds of a lesion of a type that is annotated in its case, (B, Z, Y, X) float32.

    any_lesion (B, Z, Y, X) logits; class_logits (B, K, Z, Y, X), the ordinary head's; annotated_types (B, T) bool.
    p = sigmoid(any_lesion) times the share of annotated types among all types that the ordinary head sees there.
    Background denies this product and not the lesion: what looks like a type that nobody drew in this case may be one,
    while what looks like a type that was drawn is none. The share is taken as given.
    """
    type_of = {channel: types[0] for channel, types in lesion_channels.items() if len(types) == 1}
    logits = class_logits[:, list(type_of)].detach().float()
    is_drawn = annotated_types[:, list(type_of.values())]
    share = logits.masked_fill(~is_drawn[:, :, None, None, None], -torch.inf).logsumexp(1) - logits.logsumexp(1)
    return logit_of(F.logsigmoid(any_lesion.float()) + share.clamp(min=-30))


def marginalise(logits: Tensor, annotated: Tensor, *, has_regions: bool) -> Tensor:
    """Let a case be silent about labels that are not annotated in it.

    logits (B, K, Z, Y, X); annotated (B, K) bool. With a softmax, the probability of an unannotated class counts as
    background (marginal loss, Shi et al. 2021); a region that is not fully annotated says "absent", without a gradient.
    """
    missing = ~annotated[:, :, None, None, None]
    logits = logits.float()
    if has_regions:
        return logits.masked_fill(missing, -30.0)
    background = logits.masked_fill(~missing, -torch.inf)
    background = torch.cat([logits[:, :1], background[:, 1:]], dim=1).logsumexp(1, keepdim=True)
    absent = logits.detach().logsumexp(1, keepdim=True) - 30.0
    return torch.cat([background, torch.where(missing[:, 1:], absent, logits[:, 1:])], dim=1)


def without_unannotated(target: Tensor, annotated: Tensor, *, has_regions: bool) -> Tensor:
    """nnU-Net's target without what its case does not annotate, which becomes background, as `marginalise` wants it.

    target (B, 1, Z, Y, X) label values, or (B, K, Z, Y, X) regions, an ignore channel last if there is one; annotated
    (B, K) bool. Voxels to ignore stay so.
    """
    is_kept = F.pad(annotated, (0, 1), value=True)  # the ignore label follows the others, and so does its channel
    if has_regions:
        return target * is_kept[:, : target.shape[1], None, None, None]
    return torch.where(is_kept.gather(1, target.flatten(1).long()).view_as(target), target, 0)

"""One batch's loss terms: tokens at every scale, the match, and both branches of every query."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nnunetv2_malenia.network.config import NUM_ASPECTS
from nnunetv2_malenia.network.malenia_net import MaleniaOutput, logit_of
from nnunetv2_malenia.network.mask_decoder import blocks
from nnunetv2_malenia.training.losses import (
    lesion_loss,
    masked_bce,
    match_loss,
    mp_nce,
    pooled_dice_loss,
    rowwise_dice_loss,
)
from nnunetv2_malenia.training.matcher import assign, match_costs
from nnunetv2_malenia.training.targets import UNKNOWN, YES, PatchTargets

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


def token_terms(
    output: MaleniaOutput,
    targets: PatchTargets,
    phrase_aspect: Tensor,
    temperature: float,
    contrast_loss: Contrast,
) -> dict[str, Tensor]:
    """Losses of matched tokens: masks, lesion score and MP-NCE (means over scales), and the match at the last scale.

    contrast_loss: `aspect_contrast`, or what takes its place in an ablation. Reference masks teach as well: it has one
    more row a lesion, the mean similarity of the voxels under its mask.
    """
    counts = [len(masks) for masks in targets.lesion_masks]
    lesions = torch.cat(targets.lesion_masks)  # (M, Z, Y, X), M lesions of the whole batch
    has, holds = torch.cat(targets.has_phrase), torch.cat(targets.holds_phrase)  # (M, V)
    fits = torch.cat(targets.query_fits, dim=1).T  # (M, Q)
    masks, known, costs = [], [], []
    for scale in output.scales:
        shape = scale.mask_logits.shape[2:]
        masks.append(pool(lesions, shape))  # (M, S)
        known.append(~pool(~targets.known, shape))
        of_sample = pad_sequence(masks[-1].split(counts), batch_first=True)  # (B, most of a sample, S)
        cost = match_costs(scale.mask_logits.flatten(2), of_sample, known[-1], scale.lesion_logits)
        costs += [of_one[:, :count] for of_one, count in zip(cost, counts, strict=True)]
    pairs = assign(costs)

    num_tokens = output.scales[0].lesion_logits.shape[1]
    sample = np.repeat(np.arange(len(counts)), [min(num_tokens, count) for count in counts])
    firsts = np.stack([sample, sample * num_tokens, np.cumsum([0, *counts])[sample]])
    sample, first_token, first_lesion = torch.from_numpy(firsts).to(lesions.device, non_blocking=True)
    token_mask, lesion_score, contrast = [], [], []
    for i, scale in enumerate(output.scales):
        tokens, found = zip(*pairs[i * len(counts) : (i + 1) * len(counts)], strict=True)
        token, lesion = torch.cat(tokens) + first_token, torch.cat(found) + first_lesion  # (P,), in the whole batch
        chosen, wanted, where = scale.mask_logits.flatten(2).flatten(0, 1)[token], masks[i][lesion], known[i][sample]
        token_mask.append(rowwise_dice_loss(chosen, wanted, where) + masked_bce(chosen, wanted, where))

        is_matched = torch.zeros_like(scale.lesion_logits, dtype=torch.bool)
        is_matched.view(-1)[token] = True
        counted = is_matched | targets.annotated_types.all(1, keepdim=True)
        lesion_score.append(lesion_loss(scale.lesion_logits, is_matched, counted))

        similarity = output.similarity[i].flatten(0, 1)[token]
        contrast.append(contrast_loss(similarity, has[lesion], ~holds[lesion], phrase_aspect, temperature))

    voxels = of_sample & known[-1][:, None]
    under = voxels.float() / voxels.sum(2, keepdim=True).clamp(min=1)
    is_one = np.arange(of_sample.shape[1]) < np.array(counts)[:, None]  # and no padding
    ones = torch.from_numpy(np.flatnonzero(is_one)).to(lesions.device, non_blocking=True)
    similarity = (under @ output.dense_similarity).flatten(0, 1)[ones]
    contrast.append(contrast_loss(similarity, has, ~holds, phrase_aspect, temperature))

    gates, answers = output.log_gate.transpose(1, 2).flatten(0, 1)[token].flatten(), fits[lesion].flatten()
    return {
        "token_mask": torch.stack(token_mask).mean(),
        "lesion": torch.stack(lesion_score).mean(),
        "mp_nce": torch.stack(contrast).mean(),
        "match": match_loss(gates, answers == YES, answers != UNKNOWN),
    }


def pool(masks: Tensor, shape_zyx: torch.Size) -> Tensor:
    """(M, Z, Y, X) bool -> (M, S) bool: a coarse voxel is in a mask if any of its voxels is."""
    if len(masks) == 0:
        return masks.new_zeros(0, shape_zyx.numel())
    return F.max_pool3d(masks.float()[:, None], blocks(masks.shape[1:], shape_zyx)).flatten(1).bool()


def aspect_contrast(
    similarity: Tensor, has: Tensor, lacks: Tensor, phrase_aspect: Tensor, temperature: float
) -> Tensor:
    """MP-NCE aspect by aspect: similarity (P, V), has and lacks (P, V) bool, one row a matched token -> ().

    Every phrase that a lesion has is pulled, contrasted against the phrases of the same aspect that it lacks; an aspect
    that the lesion leaves unspecified neither pulls nor pushes.
    """
    of_aspect = F.one_hot(phrase_aspect, NUM_ASPECTS).T.bool()  # (A, V)
    positive = has[:, None] & of_aspect  # (P, A, V)
    negative = lacks[:, None] & of_aspect & positive.any(-1, keepdim=True)
    rows = similarity[:, None].expand_as(positive)
    return mp_nce(rows.flatten(0, 1), positive.flatten(0, 1), negative.flatten(0, 1), temperature=temperature)


def single_positive_contrast(
    similarity: Tensor, has: Tensor, lacks: Tensor, phrase_aspect: Tensor, temperature: float
) -> Tensor:
    """InfoNCE with one positive a row, van den Oord et al. 2018, in place of MP-NCE; arguments of `aspect_contrast`.

    The positive is one of the lesion's phrases at random; every other phrase is a negative, the lesion's own included.
    """
    drawn = torch.rand(has.shape, device=has.device).masked_fill(~has, -1).argmax(1)
    positive = F.one_hot(drawn, has.shape[1]).bool() & has
    return mp_nce(similarity, positive, ~positive, temperature=temperature)


def query_terms(
    output: MaleniaOutput, targets: PatchTargets, lesion_channels: Mapping[int, Sequence[int]]
) -> dict[str, Tensor]:
    """Where any lesion is, at full resolution; and each branch's answers, on the finest token level.

    lesion_channels: channels of the ordinary head that show lesions -> their types. A branch's answer is "a lesion is
    here" times "it fits": Dice pooled over every query of the batch, present and absent together, plus BCE, with the
    evidence for a lesion taken as given; and, of the text branch, BCE of the fit alone inside lesions, where nothing
    else counts.
    """
    shape = output.scales[-1].mask_logits.shape[2:]
    wanted = pool(targets.query_target.flatten(0, 1), shape)  # (B * Q, S)
    known = ~pool(~targets.query_known.flatten(0, 1), shape)
    any_lesion = output.any_lesion
    evidence = F.max_pool3d(any_lesion.detach().float(), blocks(any_lesion.shape[1:], shape)).flatten(1)
    log_lesion = F.logsigmoid(evidence).repeat_interleave(output.mask_fit.shape[1], dim=0)
    in_lesion = wanted.unflatten(0, output.mask_fit.shape[:2])[:, :1].expand(output.mask_fit.shape).flatten(0, 1)
    fits = {
        "mask_branch": output.mask_fit.flatten(0, 1).float().clamp(min=LOGIT_EPS).log(),
        "text_branch": F.logsigmoid(output.text_fit.flatten(0, 1).float()),
    }
    if targets.annotated_channels is not None:
        any_lesion = annotated_lesion(any_lesion, output.class_logits[0], targets.annotated_types, lesion_channels)
    drawn = torch.stack([masks.any(0) for masks in targets.lesion_masks])
    terms = {"any_lesion": mask_loss(any_lesion.flatten(1), drawn.flatten(1), targets.known.flatten(1))}
    for name, log_fit in fits.items():
        terms[name] = mask_loss(logit_of(log_lesion + log_fit), wanted, known)
    terms["text_match"] = masked_bce(output.text_fit.flatten(0, 1), wanted, known & in_lesion)
    return terms


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


def mask_loss(logits: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """Pooled Dice plus BCE -> ()."""
    return pooled_dice_loss(logits, wanted, known) + masked_bce(logits, wanted, known)


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

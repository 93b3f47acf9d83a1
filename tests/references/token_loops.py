"""Golden twin of training/criterion.py's `token_terms`: sample by sample, one Hungarian matching at a time."""

from __future__ import annotations

import numpy as np
import torch
from patch_views import pool_any as pool
from references.matcher_loops import match_costs_loop
from scipy.optimize import linear_sum_assignment

from nnunetv2_malenia.training.losses import lesion_loss, masked_bce, match_loss, pooled_dice_loss
from nnunetv2_malenia.training.targets import UNKNOWN, YES


def token_terms_loop(output, targets, phrase_aspect, temperature, contrast_loss):
    """targets: as `patch_views.by_sample`."""
    token_mask, lesion, contrast = [], [], []
    batch = range(len(targets.lesion_masks))
    for scale, similarity in zip(output.scales, output.similarity, strict=True):
        chosen, wanted, where, read, has, lacks, gates, fits = ([] for _ in range(8))
        is_matched = torch.zeros_like(scale.lesion_logits, dtype=torch.bool)
        for b in batch:
            shape, logits = scale.mask_logits.shape[2:], scale.mask_logits[b].flatten(1)
            masks, known = pool(targets.lesion_masks[b], shape), ~pool(~targets.known[b][None], shape)[0]
            cost = match_costs_loop(*(each.tolist() for each in (logits, masks, known, scale.lesion_logits[b])))
            for token, target in zip(*linear_sum_assignment(np.reshape(cost, (len(logits), -1))), strict=True):
                chosen.append(logits[token])
                wanted.append(masks[target])
                where.append(known)
                is_matched[b, token] = True
                read.append(similarity[b, token])
                has.append(targets.has_phrase[b][target])
                lacks.append(~targets.holds_phrase[b][target])
                gates.append(output.log_gate[b, :, token])
                fits.append(targets.query_fits[b][:, target])
        chosen, wanted, where, has, lacks = map(torch.stack, (chosen, wanted, where, has, lacks))
        rows = [pooled_dice_loss(*(each[None] for each in row)) for row in zip(chosen, wanted, where, strict=True)]
        token_mask.append(torch.stack(rows).mean() + masked_bce(chosen, wanted, where))
        counts = is_matched | targets.annotated_types.all(1, keepdim=True)
        lesion.append(lesion_loss(scale.lesion_logits, is_matched, counts))
        contrast.append(contrast_loss(torch.stack(read), has, lacks, phrase_aspect, temperature))
    under, has, lacks = [], [], []
    for b in batch:
        shape = output.scales[-1].mask_logits.shape[2:]
        known = ~pool(~targets.known[b][None], shape)[0]
        for i, mask in enumerate(pool(targets.lesion_masks[b], shape)):
            inside = output.dense_similarity[b][mask & known]
            under.append(inside.mean(0) if len(inside) else torch.zeros_like(output.dense_similarity[b][0]))
            has.append(targets.has_phrase[b][i])
            lacks.append(~targets.holds_phrase[b][i])
    contrast.append(contrast_loss(*map(torch.stack, (under, has, lacks)), phrase_aspect, temperature))
    gates, fits = torch.cat(gates), torch.cat(fits)
    return {
        "token_mask": torch.stack(token_mask).mean(),
        "lesion": torch.stack(lesion).mean(),
        "mp_nce": torch.stack(contrast).mean(),
        "match": match_loss(gates, fits == YES, fits != UNKNOWN),
    }

"""Golden twins of training/losses.py: float64 loops over lists, written from the papers, one element at a time."""

from __future__ import annotations

import math

from references.matcher_loops import cross_entropy, sigmoid


def mp_nce_loop(similarity, is_positive, is_negative, temperature):
    """MP-NCE, Lee et al. 2022 (UniCLIP): each positive on its own against the negatives of its row."""
    rows = []
    for s, p, n in zip(similarity, is_positive, is_negative, strict=True):
        away = sum(math.exp(x / temperature) for x, is_n in zip(s, n, strict=True) if is_n)
        hits = []
        for x, is_p in zip(s, p, strict=True):
            if is_p:
                towards = math.exp(x / temperature)
                hits.append(-math.log(towards / (towards + away)))
        if hits:
            rows.append(sum(hits) / len(hits))
    return sum(rows) / len(rows) if rows else 0.0


def pooled_dice_loop(logits, targets, known):
    """Soft Dice, Milletari et al. 2016, with plain sums and 1 added above and below, over all rows at once."""
    overlap = size = 0.0
    for row, target, seen in zip(logits, targets, known, strict=True):
        for x, t, k in zip(row, target, seen, strict=True):
            if k:
                overlap += sigmoid(x) * t
                size += sigmoid(x) + t
    return 1 - (2 * overlap + 1) / (size + 1)


def rowwise_dice_loop(logits, targets, known):
    """The same, row by row, then the mean; Cheng et al. 2022 (Mask2Former)."""
    rows = [pooled_dice_loop([x], [t], [k]) for x, t, k in zip(logits, targets, known, strict=True)]
    return sum(rows) / len(rows) if rows else 0.0


def masked_bce_loop(logits, targets, known):
    values = [
        cross_entropy(x, t)
        for row, target, seen in zip(logits, targets, known, strict=True)
        for x, t, k in zip(row, target, seen, strict=True)
        if k
    ]
    return sum(values) / len(values) if values else 0.0


def lesion_loop(lesion_logits, is_matched, counts, unmatched_weight):
    """Cross-entropy as a weighted mean, "no object" weighing less; Cheng et al. 2022 (Mask2Former)."""
    total = weights = 0.0
    for row, matched, counted in zip(lesion_logits, is_matched, counts, strict=True):
        for x, m, c in zip(row, matched, counted, strict=True):
            weight = (1.0 if m else unmatched_weight) * c
            total += weight * cross_entropy(x, m)
            weights += weight
    return total / weights if weights else 0.0


def match_loop(log_gate, fits, known):
    """Binary cross-entropy of the probability e^g, where 1 - e^g is at least 1 - e^-0.000001."""
    values = [
        -g if fit else -math.log(-math.expm1(min(g, -1e-6)))
        for g, fit, k in zip(log_gate, fits, known, strict=True)
        if k
    ]
    return sum(values) / len(values) if values else 0.0

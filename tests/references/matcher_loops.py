"""Golden twins of training/matcher.py: float64 loops, and every pairing tried in turn."""

from __future__ import annotations

import math
from itertools import permutations


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def cross_entropy(x: float, is_true: bool) -> float:
    """-log of the probability that a logit gives to the truth; log1p keeps what exp would round away."""
    x = -x if is_true else x
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def match_costs_loop(mask_logits, targets, known, lesion_logits):
    """Lists of rows -> cost[token][target]; Mask2Former's weights: BCE 5, Dice 5, lesion 2."""
    costs = []
    for row, lesion in zip(mask_logits, lesion_logits, strict=True):
        costs.append([])
        for target in targets:
            entropy = overlap = size = count = 0.0
            for x, t, k in zip(row, target, known, strict=True):
                if not k:
                    continue
                count += 1
                entropy += cross_entropy(x, t)
                overlap += sigmoid(x) * t
                size += sigmoid(x) + t
            dice = (2 * overlap + 1) / (size + 1)
            costs[-1].append(5 * entropy / max(count, 1) + 5 * (1 - dice) - 2 * sigmoid(lesion))
    return costs


def least_total_cost(cost, num_tokens, num_targets):
    """The smallest sum over all one-to-one pairings of min(N, M) tokens with as many targets."""
    if num_tokens >= num_targets:
        pairings = (list(zip(p, range(num_targets), strict=True)) for p in permutations(range(num_tokens), num_targets))
    else:
        pairings = (list(enumerate(p)) for p in permutations(range(num_targets), num_tokens))
    return min(sum(cost[n][m] for n, m in pairs) for pairs in pairings)

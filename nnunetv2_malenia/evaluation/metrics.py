"""Overlap of two masks."""

from __future__ import annotations

import numpy as np


def dsc(mask: np.ndarray, reference: np.ndarray) -> float:
    """Dice similarity coefficient, 2 |A and B| / (|A| + |B|), of two bool arrays of one shape, in [0, 1].

    Both empty: NaN, as in nnU-Net's evaluation; such a case says nothing about overlap. Raises ValueError on unequal
    shapes.
    """
    if mask.shape != reference.shape:
        raise ValueError(f"mask has shape {mask.shape}, reference {reference.shape}; compare them in one geometry")
    total = int(mask.sum()) + int(reference.sum())
    return 2 * int((mask & reference).sum()) / total if total else float("nan")

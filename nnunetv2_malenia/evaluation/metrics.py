"""How two masks of one lesion type compare, and how well a score tells presence. Arrays in, numbers out.

Masks are bool arrays of one shape, axes in any order; a spacing is in mm, in the order of the arrays' axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cc3d
import numpy as np
import surface_distance
from scipy.stats import rankdata

CONNECTIVITY = 26  # voxels that share a corner are one lesion


class LesionCounts(NamedTuple):
    """Connected components: of the reference, those of them that were found, and predicted ones that are no lesion."""

    lesions: int
    found: int
    false_positives: int


def dsc(mask: np.ndarray, reference: np.ndarray) -> float:
    """Dice similarity coefficient, 2 |A and B| / (|A| + |B|), of two bool arrays of one shape, in [0, 1].

    Both empty: NaN, as in nnU-Net's evaluation; such a case says nothing about overlap. Raises ValueError on unequal
    shapes.
    """
    _check_same_shape(mask, reference)
    total = int(mask.sum()) + int(reference.sum())
    return 2 * int((mask & reference).sum()) / total if total else float("nan")


def nsd(mask: np.ndarray, reference: np.ndarray, spacing: Sequence[float], *, tolerance_mm: float) -> float:
    """Normalised surface distance, also called surface Dice, of two 3-D bool arrays of one shape, in [0, 1].

    The share of both surfaces that lies within `tolerance_mm` of the other one, by area: (|A near B| + |B near A|) /
    (|A| + |B|); Nikolov et al., JMIR 2021;23(7):e26151, computed by their library. Both empty: NaN; one empty: 0.
    Raises ValueError on unequal shapes.
    """
    _check_same_shape(mask, reference)
    if not (mask.any() and reference.any()):
        return 0.0 if mask.any() or reference.any() else float("nan")
    distances = surface_distance.compute_surface_distances(reference, mask, spacing)
    return float(surface_distance.compute_surface_dice_at_tolerance(distances, tolerance_mm))


def count_lesions(mask: np.ndarray, reference: np.ndarray) -> LesionCounts:
    """Lesions of two 3-D bool arrays of one shape, as 26-connected components.

    A lesion of the reference is found if a predicted voxel lies in it. A predicted component that touches no voxel of
    the reference is a false positive. Raises ValueError on unequal shapes.
    """
    _check_same_shape(mask, reference)
    lesions, num_lesions = cc3d.connected_components(reference, connectivity=CONNECTIVITY, return_N=True)
    predicted, num_predicted = cc3d.connected_components(mask, connectivity=CONNECTIVITY, return_N=True)
    overlap = mask & reference
    return LesionCounts(
        lesions=num_lesions,
        found=np.unique(lesions[overlap]).size,
        false_positives=num_predicted - np.unique(predicted[overlap]).size,
    )


def without_other_lesions(mask: np.ndarray, reference: np.ndarray, others: np.ndarray) -> np.ndarray:
    """What an oracle leaves of a mask of any lesion when one type is asked for; 3-D bool arrays of one shape.

    26-connected components that touch `others`, the reference of all other types, and not `reference`, that of the
    type, are taken away. Components that touch neither stay: the oracle knows types, not false positives.
    """
    components = cc3d.connected_components(mask, connectivity=CONNECTIVITY)
    of_others = np.setdiff1d(components[mask & others], components[mask & reference])
    return mask & ~np.isin(components, of_others)


def presence_auc(scores: Sequence[float], present: Sequence[bool]) -> float:
    """Area under the ROC curve of a score for presence: P(present scores higher) + P(tie) / 2, over all pairs.

    The Mann-Whitney U statistic over the number of pairs (Hanley and McNeil, Radiology 1982). NaN unless there are
    present and absent cases.
    """
    is_present = np.asarray(present, dtype=bool)
    num_present, num_absent = int(is_present.sum()), int((~is_present).sum())
    if not (num_present and num_absent):
        return float("nan")
    ranks = rankdata(np.asarray(scores, dtype=np.float64))  # ties share their mean rank
    wins = ranks[is_present].sum() - num_present * (num_present + 1) / 2
    return float(wins / (num_present * num_absent))


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds every voxel of a bool array, to crop with; a box of one voxel if there is none."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        places = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(places[0]), int(places[-1]) + 1) if places.size else slice(0, 1))
    return tuple(box)


def _check_same_shape(mask: np.ndarray, reference: np.ndarray) -> None:
    if mask.shape != reference.shape:
        raise ValueError(f"mask has shape {mask.shape}, reference {reference.shape}; compare them in one geometry")

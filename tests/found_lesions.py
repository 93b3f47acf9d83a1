"""What masks show, without a network: the steps of inference that measure lesions, one after the other."""

from collections.abc import Sequence

import numpy as np

from nnunetv2_malenia.attributes.schema import LesionQuery
from nnunetv2_malenia.inference.findings import LesionFinding
from nnunetv2_malenia.inference.lesions import find_components, least_voxels, measure_lesions


def find_lesions(
    queries: Sequence[LesionQuery],
    seen: Sequence[bool | None],
    probabilities: np.ndarray,
    affine: np.ndarray,
    *,
    threshold: float = 0.5,
    min_volume_ml: float = 0.0,
) -> tuple[np.ndarray, list[LesionFinding]]:
    """Masks (Q, Z, Y, X) bool of probabilities (Q, Z, Y, X), and for each query what its mask shows."""
    masks = probabilities > threshold
    components = [find_components(mask, least_voxels(min_volume_ml, affine)) for mask in masks]
    return masks, measure_lesions(queries, seen, probabilities, masks, components, affine)

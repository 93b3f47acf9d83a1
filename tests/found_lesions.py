"""What given probability maps show, by the steps of inference that follow the network, on the image's own grid."""

from collections.abc import Sequence

import numpy as np
import torch
from tiny_model import tiny_preparation

from nnunetv2_malenia.attributes.schema import LesionQuery
from nnunetv2_malenia.inference.answers import Answers, CaseAnswers
from nnunetv2_malenia.inference.reading import SimilarityMap


def find_lesions(
    queries: Sequence[LesionQuery],
    seen: Sequence[bool | None],
    probabilities: np.ndarray,
    affine: np.ndarray,
    *,
    threshold: float = 0.5,
    min_volume_ml: float = 0.0,
) -> Answers:
    """probabilities (Q, Z, Y, X), one map a query; nothing is read of the aspects."""
    preparation, shape = tiny_preparation(), probabilities.shape[1:]
    configuration = preparation.configuration_manager
    answers = CaseAnswers(
        preparation.plans_manager, configuration, list(queries), list(seen), None, False, threshold, min_volume_ml
    )
    maps = torch.logit(torch.from_numpy(probabilities.astype(np.float64)), eps=1e-9)
    nothing = SimilarityMap(np.full(shape, -1, np.int32), np.zeros((0, 1)), np.zeros((0, 2), int), (1, 1, 1), shape)
    properties = {
        "spacing": configuration.spacing,  # so that nothing is resampled
        "shape_before_cropping": shape,
        "bbox_used_for_cropping": [[0, size] for size in shape],
        "affine": affine,
    }
    return answers.render(answers.find(torch.cat([maps, maps.amax(0, keepdim=True)]), nothing), properties)


def masks_of(answers: Answers) -> np.ndarray:
    """(Q, Z, Y, X) bool."""
    return np.stack([answers.mask(i) for i in range(len(answers.findings))])

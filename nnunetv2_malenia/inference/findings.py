"""What was found for each query, as numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from nnunetv2_malenia.attributes.schema import AspectValues, LesionQuery


class LesionFinding(BaseModel):
    """The answer to one query in one case.

    presence_score: highest probability in the query's blended probability map, in [0, 1], not calibrated.
    volume_ml: volume of the query's own mask, which may share voxels with another query's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    query_id: int
    name: str
    seen_in_training: bool
    presence_score: float
    volume_ml: float
    attributes: AspectValues


def measure(
    queries: Sequence[LesionQuery], seen: Sequence[bool], probabilities: np.ndarray, spacing_zyx: Sequence[float]
) -> list[LesionFinding]:
    """probabilities (Q, Z, Y, X) in [0, 1] in the image's own geometry; spacing in mm."""
    voxel_ml = float(np.prod(spacing_zyx)) / 1000
    return [
        LesionFinding(
            query_id=i + 1,
            name=query.name,
            seen_in_training=is_seen,
            presence_score=float(volume.max()),
            volume_ml=float((volume > 0.5).sum()) * voxel_ml,
            attributes=query.attributes,
        )
        for i, (query, is_seen, volume) in enumerate(zip(queries, seen, probabilities, strict=True))
    ]

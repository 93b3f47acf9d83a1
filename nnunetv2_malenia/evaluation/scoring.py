"""Scores of one case: a prediction against the reference, type by type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2_malenia.evaluation.comparison import Case, LesionType, ScoringRules
from nnunetv2_malenia.evaluation.metrics import bounding_box, count_lesions, dsc, nsd, without_other_lesions
from nnunetv2_malenia.evaluation.volumes import EvaluationError, Volume, read_volume


@dataclass(frozen=True)
class TypeScore:
    """One lesion type in one case in which it was annotated.

    oracle: of the mask that an oracle left, see `metrics.without_other_lesions`. dsc, nsd: in [0, 1]; None where the
    type is absent, 0 where it is present and missed. lesions, found, false_positives: see `metrics.count_lesions`.
    volume_ml: of the prediction. presence_score: in [0, 1], if known.
    """

    case_id: str
    name: str
    seen: bool
    oracle: bool
    present: bool
    dsc: float | None
    nsd: float | None
    lesions: int
    found: int
    false_positives: int
    volume_ml: float
    reference_volume_ml: float
    presence_score: float | None


def score_case(case: Case, rules: ScoringRules) -> list[TypeScore]:
    """Score every type that was annotated in the case, with an oracle a second time.

    Raises InputError for a damaged file, EvaluationError for a label map with a value that has no name.
    """
    reference = read_volume(case.reference)
    _check_values(case.reference, reference.voxels, rules.known_values, "--labels")
    scores, path, voxels = [], None, None
    for each in rules.types:
        if each.name not in case.predictions:
            continue
        if case.predictions[each.name] != path:  # a label map is read once; of single masks one is held at a time
            path = case.predictions[each.name]
            voxels = read_volume(path).voxels
            if each.predicted_values is not None:
                _check_values(path, voxels, rules.predicted_values, rules.predicted_names)
        scores += _score_type(each, voxels, reference, case.presence_scores.get(each.name), case.case_id, rules)
    return scores


def _check_values(path: Path, voxels: np.ndarray, known: frozenset[int], names: object) -> None:
    if unknown := set(np.unique(voxels.ravel(order="K")).tolist()) - known:
        raise EvaluationError(f"{path}: value {min(unknown)} is not among the labels; check {names}")


def _score_type(
    each: LesionType,
    predicted: np.ndarray,
    reference: Volume,
    presence_score: float | None,
    case_id: str,
    rules: ScoringRules,
) -> list[TypeScore]:
    truth = _is_one_of(reference.voxels, each.reference_values)
    mask = predicted != 0 if each.predicted_values is None else _is_one_of(predicted, each.predicted_values)
    if rules.ignore:
        mask &= ~_is_one_of(reference.voxels, rules.ignore)
    box = bounding_box(mask | truth)
    masks = {False: np.ascontiguousarray(mask[box])}
    truth = np.ascontiguousarray(truth[box])
    if rules.oracle:
        others = [value for other in rules.types if other is not each for value in other.reference_values]
        masks[True] = without_other_lesions(masks[False], truth, _is_one_of(reference.voxels[box], others))
    present = bool(truth.any())
    return [
        TypeScore(
            case_id=case_id,
            name=each.name,
            seen=each.seen,
            oracle=oracle,
            present=present,
            dsc=dsc(mask, truth) if present else None,
            nsd=nsd(mask, truth, reference.spacing, tolerance_mm=rules.tolerance_mm) if present else None,
            **count_lesions(mask, truth)._asdict(),
            volume_ml=int(mask.sum()) * reference.voxel_ml,
            reference_volume_ml=int(truth.sum()) * reference.voxel_ml,
            presence_score=presence_score,
        )
        for oracle, mask in masks.items()
    ]


def _is_one_of(voxels: np.ndarray, values: Sequence[int]) -> np.ndarray:
    return voxels == values[0] if len(values) == 1 else np.isin(voxels, values)

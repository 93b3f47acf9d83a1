"""How well asked lesion types are found, and how much is returned when the type is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel
import numpy as np

from nnunetv2_malenia.evaluation.metrics import dsc


@dataclass(frozen=True)
class TypeResult:
    """One lesion type over a set of cases.

    mean_dsc: over the cases that hold the type; NaN without one. volumes: mean over cases, in ml, of what asking for
    the type returns where it is present (volume_present_ml) and where it is not (volume_absent_ml).
    """

    name: str
    seen: bool
    cases_present: int
    cases_absent: int
    mean_dsc: float
    volume_present_ml: float
    volume_absent_ml: float

    def to_dict(self) -> dict:
        return {key: None if value != value else value for key, value in asdict(self).items()}


def evaluate_types(
    reference_files: Sequence[Path],
    labels: dict[str, int],
    seen: Iterable[str],
    read_mask: Callable[[Path, str], np.ndarray],
) -> list[TypeResult]:
    """Score each lesion type of `labels` (name -> label value in the references).

    read_mask(reference_file, name) gives the predicted mask of that type, bool, in the reference's array order.
    """
    seen = set(seen)
    scores: dict[str, list[tuple[float, float, bool]]] = {name: [] for name in labels}
    for file in reference_files:
        image = nibabel.load(file)
        voxel_ml = float(np.prod(image.header.get_zooms()[:3])) / 1000
        reference = np.asarray(image.dataobj)
        for name, label in labels.items():
            mask, truth = read_mask(file, name), reference == label
            scores[name].append((dsc(mask, truth), float(mask.sum()) * voxel_ml, bool(truth.any())))
    return [
        TypeResult(
            name=name,
            seen=name in seen,
            cases_present=sum(present for *_, present in rows),
            cases_absent=sum(not present for *_, present in rows),
            mean_dsc=_mean([score for score, _, present in rows if present]),
            volume_present_ml=_mean([volume for _, volume, present in rows if present]),
            volume_absent_ml=_mean([volume for _, volume, present in rows if not present]),
        )
        for name, rows in scores.items()
    ]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def format_table(results: Sequence[TypeResult], baseline: Sequence[TypeResult] | None = None) -> str:
    """A plain-text table, seen types first, never averaged together with unseen ones."""
    others = {result.name: result for result in baseline or ()}
    header = f"{'lesion type':<22}{'training':<10}{'cases':>6}{'DSC':>7}{'ml, present':>13}{'ml, absent':>12}"
    lines = [header + (f"{'any-lesion DSC':>17}" if others else "")]
    for is_seen in (True, False):
        group = [result for result in results if result.seen is is_seen]
        for result in group:
            line = (
                f"{result.name:<22}{'seen' if is_seen else 'unseen':<10}"
                f"{result.cases_present:>6}{result.mean_dsc:>7.2f}"
                f"{result.volume_present_ml:>13.1f}{result.volume_absent_ml:>12.1f}"
            )
            lines.append(line + (f"{others[result.name].mean_dsc:>17.2f}" if others else ""))
        if group:
            mean = np.nanmean([result.mean_dsc for result in group])
            line = f"{'mean, ' + ('seen' if is_seen else 'unseen') + ' types':<38}{mean:>7.2f}{'':>25}"
            if others:
                line += f"{np.nanmean([others[result.name].mean_dsc for result in group]):>17.2f}"
            lines.append(line)
    return "\n".join(lines)

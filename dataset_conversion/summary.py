"""What a data set holds: cases, lesions and volumes of every type, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cc3d
import numpy as np

from nnunetv2_malenia.dataset_conversion.nnunet_raw import APART, TEST, TRAINING

_LISTED_AT_MOST = 5
PART_NAMES = {TRAINING: "training", TEST: "test", APART: "kept apart"}


@dataclass(frozen=True)
class CaseSummary:
    """One case. voxels, volume_ml: of every label name with at least one voxel; lesions: components of lesion types."""

    part: str
    voxels: Mapping[str, int] = field(default_factory=dict)
    volume_ml: Mapping[str, float] = field(default_factory=dict)
    lesions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """A data set. labels: all its label names in order; empty: ids of cases whose mask shows none of them; apart,
    left_out: case id -> why."""

    dataset: str
    labels: tuple[str, ...]
    cases: Mapping[str, CaseSummary]
    empty: tuple[str, ...]
    apart: Mapping[str, str]
    left_out: Mapping[str, str]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """What conversion_summary.json holds."""
        return {
            "dataset": self.dataset,
            "cases": {name: len(self._of(part)) for part, name in PART_NAMES.items() if self._of(part)},
            "types": {
                label: {PART_NAMES[part]: self._totals(label, part) for part in PART_NAMES if self._shows(label, part)}
                for label in self.labels
            },
            "empty_masks": list(self.empty),
            "kept_apart": dict(self.apart),
            "left_out": dict(self.left_out),
            "notes": list(self.notes),
            "by_case": {
                case_id: {"part": PART_NAMES[case.part], "volume_ml": case.volume_ml, "lesions": case.lesions}
                for case_id, case in self.cases.items()
            },
        }

    def to_table(self) -> str:
        """Lines for people: case counts, then one row for every label of every part, then what to know."""
        counts = [f"{len(self._of(part))} {name}" for part, name in PART_NAMES.items() if self._of(part)]
        rows = [("type", "part", "cases", "lesions", "ml")]
        for label in self.labels:
            for part in PART_NAMES:
                if part == TRAINING or self._shows(label, part):
                    row = self._totals(label, part)
                    lesions = str(row["lesions"]) if "lesions" in row else ""
                    rows.append((label, PART_NAMES[part], str(row["cases"]), lesions, f"{row['volume_ml']:.1f}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            [
                f"{self.dataset}: {', '.join(counts) or 'no'} cases",
                *(_aligned(row, widths) for row in rows),
                *self._listed_lines(),
                *self.notes,
            ]
        )

    def _listed_lines(self) -> list[str]:
        by_what: dict[str, list[str]] = {"with an empty mask, nothing but background": list(self.empty)}
        for case_id, why in self.apart.items():
            by_what.setdefault(f"kept apart, {why}", []).append(case_id)
        return [
            f"{len(ids)} {what}: {', '.join(ids[:_LISTED_AT_MOST])}{', …' * (len(ids) > _LISTED_AT_MOST)}"
            for what, ids in by_what.items()
            if ids
        ]

    def _of(self, part: str) -> list[CaseSummary]:
        return [case for case in self.cases.values() if case.part == part]

    def _shows(self, label: str, part: str) -> bool:
        return any(label in case.voxels for case in self._of(part))

    def _totals(self, label: str, part: str) -> dict[str, Any]:
        shown = [case for case in self._of(part) if label in case.voxels]
        counted = [case.lesions[label] for case in shown if label in case.lesions]
        lesions = {"lesions": sum(counted)} if counted else {}
        return {"cases": len(shown), **lesions, "volume_ml": round(sum(case.volume_ml[label] for case in shown), 3)}


def _aligned(row: Iterable[str], widths: Iterable[int]) -> str:
    type_, part, *numbers = zip(row, widths, strict=True)
    cells = [f"{text:<{width}}" for text, width in (type_, part)] + [f"{text:>{width}}" for text, width in numbers]
    return "  ".join(cells).rstrip()


def count_lesions(voxels: np.ndarray, value: int) -> int:
    """Components of one label value in a label map (X, Y, Z) uint8, voxels touching at corners included; 0 if absent.

    Only the box around the value is worked on, since the components' own array takes four bytes a voxel.
    """
    inside = voxels == value
    for axis in (2, 1, 0):  # slowest first, as the file stores them
        inside = _cropped(inside, axis)
    return int(cc3d.connected_components(np.asfortranarray(inside), connectivity=26, return_N=True)[1])


def _cropped(inside: np.ndarray, axis: int) -> np.ndarray:
    """Without the empty slices at both ends of an axis; empty itself if all are."""
    shown = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
    start, stop = (shown[0], shown[-1] + 1) if len(shown) else (0, 0)
    return inside[(slice(None),) * axis + (slice(start, stop),)]

"""A picture of answers: CT, reference and what asking for each lesion type returned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from nnunetv2_malenia.attributes.schema import file_name
from nnunetv2_malenia.dataset_conversion.nnunet_raw import FILE_ENDING
from nnunetv2_malenia.demo.run import REFERENCE_LABELS
from nnunetv2_malenia.evaluation.scoring import TypeScore
from nnunetv2_malenia.phantom.sheet import middle_of_largest, window_at
from nnunetv2_malenia.phantom.volume import read_volume

_REFERENCE, _ANSWER = "#00e5ff", "#ff9100"
_LINE_WIDTH, _OPACITY = 1.6, 0.5
_AIR_HU, _MARGIN = -500.0, 2


def write_overlay(raw: Path, predictions: Path, scores: Sequence[TypeScore], path: str) -> None:
    """Write a PNG with a column for each lesion type, seen ones above, unseen ones below: the bare CT, and with masks.

    Each type is shown in the first case that holds it, in the axial slice through its largest lesion; the patient's
    right is on the left. raw: the data set in whose test cases the predictions were scored.
    """
    first = {score.name: score for score in reversed(scores) if score.present}
    shown = [first[name] for name in dict.fromkeys(score.name for score in scores) if name in first]
    groups = [[score for score in shown if score.seen is seen] for seen in (True, False)]
    columns = max(map(len, groups))
    figure = Figure(figsize=(3 * columns, 10.5), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    for half, group, title in zip(
        figure.subfigures(2), groups, ("Seen in training", "Not seen in training"), strict=True
    ):
        half.set_facecolor("black")
        half.suptitle(title, color="white", fontsize=14, weight="bold", x=0.005, ha="left")
        panels = half.subplots(2, columns, squeeze=False)
        for axes in panels.flat:
            axes.set_axis_off()
        for above, below, score in zip(*panels, group, strict=False):
            _draw(above, below, score, raw, predictions)
    figure.legend(
        handles=[
            Line2D([], [], color=_REFERENCE, linewidth=_LINE_WIDTH, label="reference"),
            Patch(facecolor=_ANSWER, alpha=_OPACITY, label="answer"),
        ],
        loc="outside upper right", ncols=2, frameon=False, labelcolor="white", fontsize=12,
    )  # fmt: skip
    figure.savefig(path, dpi=100)


def _draw(above: Axes, below: Axes, score: TypeScore, raw: Path, predictions: Path) -> None:
    """Of one lesion type in one case, the bare slice above, and with reference and answer below."""
    image = read_volume(raw / "imagesTs" / f"{score.case_id}_0000{FILE_ENDING}")
    value = json.loads((raw / REFERENCE_LABELS).read_text(encoding="utf-8"))[score.name]
    reference = read_volume(raw / "labelsTs" / f"{score.case_id}{FILE_ENDING}").array == value
    answer = read_volume(predictions / "masks" / score.case_id / f"{file_name(score.name)}{FILE_ENDING}").array > 0
    middle = middle_of_largest(reference)
    low, high = window_at(image.array, middle)
    _, dy, dx = image.grid.spacing_zyx
    body = image.array[middle[0]] > _AIR_HU
    box = tuple(_extent(body.any(axis=axis)) for axis in (1, 0))
    cut, cut_reference, cut_answer = (a[middle[0]][box][::-1, ::-1] for a in (image.array, reference, answer))
    for axes in (above, below):
        axes.imshow(cut, cmap="gray", vmin=low, vmax=high, aspect=dy / dx, interpolation="bicubic")
    if cut_answer.any():
        below.contourf(cut_answer, levels=[0.5, 1.5], colors=_ANSWER, alpha=_OPACITY)
    below.contour(cut_reference, levels=[0.5], colors=_REFERENCE, linewidths=_LINE_WIDTH)
    above.set_title(f"{score.name}\n{score.case_id}", color="white", fontsize=11)
    below.set_title(
        f"DSC {score.dsc:.2f}: {score.volume_ml:.1f} of {score.reference_volume_ml:.1f} ml", color="white", fontsize=11
    )


def _extent(holds_body: np.ndarray) -> slice:
    """Where to cut an axis so that the body fills the picture; holds_body (n,) bool."""
    inside = np.flatnonzero(holds_body)
    return slice(max(0, inside[0] - _MARGIN), inside[-1] + 1 + _MARGIN)

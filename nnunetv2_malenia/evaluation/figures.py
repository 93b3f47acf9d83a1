"""Results as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nnunetv2_malenia.evaluation.scoring import TypeScore
from nnunetv2_malenia.evaluation.summary import Summary

_COLOURS = {True: "#0072b2", False: "#d55e00"}  # Okabe and Ito's blue and vermilion
_JITTER = 0.16


def plot_dsc(summary: Summary, scores: Sequence[TypeScore], path: Path) -> None:
    """Write a PNG: types in rows, seen ones on top; a dot for the DSC of every case that holds the type, and a box."""
    names = [each.name for each in summary.types]
    by_type = [[score.dsc for score in scores if score.name == name and score.present] for name in names]
    figure = Figure(figsize=(7, 1.4 + 0.42 * len(names)), layout="constrained")
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for row, (each, values) in enumerate(zip(summary.types, by_type, strict=True)):
        colour = _COLOURS[each.seen]
        if values:
            axes.boxplot(values, positions=[row], orientation="horizontal", widths=0.6, showfliers=False,
                         medianprops={"color": colour, "linewidth": 2}, boxprops={"color": colour},
                         whiskerprops={"color": colour}, capprops={"color": colour})  # fmt: skip
        heights = row + rng.uniform(-_JITTER, _JITTER, len(values))
        axes.scatter(values, heights, s=14, color=colour, alpha=0.6, linewidths=0, zorder=3)
    for group in summary.groups:
        label = "seen in training" if group.seen else "unseen"
        axes.scatter([], [], s=14, color=_COLOURS[group.seen], label=label)
        if group.dsc.mean is not None:
            axes.axvline(group.dsc.mean, color=_COLOURS[group.seen], linewidth=1, linestyle="--", zorder=0)
    axes.set_yticks(range(len(names)), [f"{name} ({len(values)})" for name, values in zip(names, by_type, strict=True)])
    axes.set(
        xlim=(-0.02, 1.02),
        ylim=(len(names) - 0.5, -0.5),
        xlabel="DSC (dashed: mean over types; in brackets: cases that hold the type)",
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)

"""Results as text: a Markdown table that can stand beside the published one, and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Any

from nnunetv2_malenia.attributes.tables import clinical_knowledge_table
from nnunetv2_malenia.evaluation.scoring import TypeScore
from nnunetv2_malenia.evaluation.summary import GroupSummary, Statistic, Summary, TypeSummary

NOT_THERE = "n/a"
_HEADER = ("lesion type", "training", "cases", "DSC", "NSD", "lesions found", "FP a case", "ml, present", "ml, absent",
           "presence AUC")  # fmt: skip


@cache
def published_results() -> dict[str, Any]:
    """The published figures of Malenia, in percent, with their source: `types` is lesion type -> DSC, NSD, data."""
    return json.loads(files(__package__).joinpath("published_results.json").read_text(encoding="utf-8"))


def results_table(summary: Summary, *, tolerance_mm: float, published: bool) -> str:
    """Lesion types in rows, seen ones first, each group followed by its mean; DSC and NSD in percent, mean ± std.

    published: add the published figures of the types that have some, and where they are from.
    """
    beside = _published_by_type([each.name for each in summary.types]) if published else {}
    header = [*_HEADER, *(("published DSC", "published NSD") if beside else ())]
    rows = []
    for group in summary.groups:
        for each in summary.types:
            if each.seen is group.seen:
                rows.append([*_type_cells(each), *(_published_cells(beside.get(each.name)) if beside else ())])
        rows.append([*_group_cells(group), *(("", "") if beside else ())])
    lines = [
        *_markdown([header, *rows]),
        "",
        f"DSC and NSD ({tolerance_mm:g} mm) in percent, mean ± standard deviation over the cases that hold the type; a "
        "missed lesion type is 0, an absent one has no part. cases: that hold the type, of those in which it was "
        "annotated. FP: predicted components that touch no lesion of the type. ml: volume predicted, where the type is "
        "present and where it is absent. Means of groups: over types.",
    ]
    if beside:
        about = published_results()
        data = ", ".join(sorted({each["data"] for each in beside.values()}))
        lines += ["", f"published: {about['method']}, on real data ({data}). {about['remark']} {about['source']}."]
    return "\n".join(lines) + "\n"


def to_csv(rows: Iterable[TypeScore | TypeSummary]) -> str:
    """One row each, a column for every figure, fractions and ml as they are; what is not known is empty."""
    flat = [_flat(row) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: TypeScore | TypeSummary) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for key, value in asdict(row).items():
        cells |= {f"{key}_{part}": each for part, each in value.items()} if isinstance(value, dict) else {key: value}
    return cells


def _published_by_type(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    types = published_results()["types"]
    found = {name: types.get(clinical_knowledge_table().find(name)) for name in names}
    return {name: figures for name, figures in found.items() if figures}


def _type_cells(each: TypeSummary) -> list[str]:
    found = f"{each.lesions_found} of {each.lesions}" if each.lesions else NOT_THERE
    return [
        each.name,
        _training(each.seen),
        f"{each.cases_present} of {each.cases_present + each.cases_absent}",
        _percent(each.dsc),
        _percent(each.nsd),
        found + (f" ({each.sensitivity:.0%})" if each.sensitivity is not None else ""),
        f"{each.false_positives_per_case:.2f}",
        _number(each.volume_present_ml.mean, 1),
        _number(each.volume_absent_ml.mean, 1),
        _number(each.presence_auc, 3),
    ]


def _group_cells(group: GroupSummary) -> list[str]:
    sensitivity = group.sensitivity.mean
    return [
        f"**mean, {_training(group.seen)}**",
        "",
        "",
        _percent(group.dsc),
        _percent(group.nsd),
        f"{sensitivity:.0%}" if sensitivity is not None else NOT_THERE,
        _number(group.false_positives_per_case.mean, 2),
        _number(group.volume_present_ml.mean, 1),
        _number(group.volume_absent_ml.mean, 1),
        _number(group.presence_auc.mean, 3),
    ]


def _published_cells(figures: Mapping[str, Any] | None) -> list[str]:
    return [f"{figures['DSC']:.2f}", f"{figures['NSD']:.2f}"] if figures else ["", ""]


def _training(seen: bool) -> str:
    return "seen" if seen else "unseen"


def _percent(statistic: Statistic) -> str:
    if statistic.mean is None:
        return NOT_THERE
    return f"{100 * statistic.mean:.2f}" + (f" ± {100 * statistic.std:.2f}" if statistic.std is not None else "")


def _number(value: float | None, digits: int) -> str:
    return NOT_THERE if value is None else f"{value:.{digits}f}"


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns padded to one width, so that the table reads well in a terminal too."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    header, *lines = [f"| {' | '.join(row)} |" for row in padded]
    return [header, f"|{'|'.join('-' * (width + 2) for width in widths)}|", *lines]

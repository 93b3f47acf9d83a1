"""From the scores of every row and seed to one JSON file, tables of mean ± std over seeds, and a plot."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from operator import sub, truediv
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from benchmarks.zero_shot.beds import BEDS, PHANTOMS
from benchmarks.zero_shot.rows import ROWS, SIZES
from nnunetv2_malenia.evaluation.summary import SILENT_SHARE, Statistic
from nnunetv2_malenia.phantom.dataset import SEEN, UNSEEN, plan_training_cases

NOT_THERE, PARTIAL = "n/a", "°"
ORACLE = "any_lesion_oracle"
AGAIN = "malenia_again"
BOUND = "malenia_all_types"
COMPARED = ("malenia", "any_lesion", ORACLE, BOUND)
AIMED_AT = ("dsc", "nsd", "sensitivity", "silent_when_absent", "presence_auc")
# aimed at for unseen types: DSC above the any-lesion nnU-Net and not below its oracle, share of the bound, silence, AUC
LEAD, NEAR, SHARE_OF_BOUND, AIM = 0.10, -0.03, 0.75, 0.9
TITLES: dict[str, str] = {}
for _name, _row in ROWS.items():
    TITLES[_name] = _row.title
    if _name == "malenia":
        TITLES[AGAIN] = f"{_row.title}, trained again"
    if _name == "any_lesion":
        TITLES[ORACLE] = "(a) with an oracle"
GROUPS = {True: "seen", False: "unseen"}
COLOURS = {True: "#0072b2", False: "#d55e00"}  # Okabe and Ito's blue and vermilion, as evaluation's plot


class Column(NamedTuple):
    """A figure of `evaluation.summary`, and how a table shows it."""

    title: str
    figure: str
    digits: int


COLUMNS = (
    Column("DSC", "dsc", 2),
    Column("NSD", "nsd", 2),
    Column("lesions found", "sensitivity", 2),
    Column("FP a case", "false_positives_per_case", 2),
    Column("presence AUC", "presence_auc", 2),
    Column("ml, present", "volume_present_ml", 1),
    Column("ml, absent", "volume_absent_ml", 1),
    Column("silent, absent", "silent_when_absent", 2),
)


def collect(folder: Path, size: str) -> dict[str, Any]:
    """All scores below a folder -> the content of figures.json: a run for each bed, row and seed, in this order."""
    runs = []
    for path in folder.glob("seed_*/scores/*/*.json"):
        scores = json.loads(path.read_text(encoding="utf-8"))
        runs.append(_run(scores, scores["row"], scores["summary"]))
        if scores["oracle"]:
            runs.append(_run(scores, ORACLE, scores["oracle"]))
    return {
        "data": "phantoms; not clinical",
        "size": size,
        "settings": asdict(SIZES[size]),
        "versions": {name: version(name) for name in ("nnunetv2_malenia", "nnunetv2", "torch")},
        "python": platform.python_version(),
        "runs": sorted(runs, key=place),
    }


def place(run: Mapping[str, Any]) -> tuple[int, int, int]:
    """Of a run among others."""
    return list(BEDS).index(run["bed"]), list(TITLES).index(run["row"]), run["seed"]


def _run(scores: Mapping[str, Any], row: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """types: as `evaluation.summary` has them, of each statistic the mean."""
    return {
        "bed": scores["bed"],
        "row": row,
        "seed": scores["seed"],
        "revision": scores["revision"],
        "types": [
            {key: value["mean"] if isinstance(value, dict) else value for key, value in each.items()}
            for each in summary["types"]
        ],
    }


def over_seeds(runs: Iterable[Mapping[str, Any]], row: str, figure: str, *, seen: bool) -> Statistic:
    """Mean and sample std over seeds of a group's figure in a row; seeds without it do not count.

    A group is the mean of those of its types that the test images hold.
    """
    return Statistic.of(
        Statistic.of(each[figure] for each in group).mean
        for group in (_group(run, seen=seen) for run in runs if run["row"] == row)
    )


def _group(run: Mapping[str, Any], *, seen: bool) -> list[Mapping[str, Any]]:
    return [each for each in run["types"] if each["seen"] is seen and each["cases_present"]]


def type_over_seeds(runs: Iterable[Mapping[str, Any]], row: str, name: str, figure: str) -> Statistic:
    """The same for one lesion type."""
    return Statistic.of(
        each[figure] for run in runs if run["row"] == row for each in run["types"] if each["name"] == name
    )


def section(content: Mapping[str, Any], silence: Mapping[str, float] = MappingProxyType({})) -> list[str]:
    """Markdown: what was run; for each bed unseen and seen types by row, and every type.

    silence: lesion type -> share of silent cases that its description allows, of `limits.descriptions`.
    """
    runs, settings = content["runs"], content["settings"]
    rows = list(dict.fromkeys(run["row"] for run in runs))
    seeds = sorted({run["seed"] for run in runs})
    patch = f"patch {settings['patch_size']}" if settings["patch_size"] else "nnU-Net's own plan"
    lines = [
        f"## `python -m benchmarks.zero_shot {content['size']}`",
        "",
        f"Seeds {', '.join(map(str, seeds))} of phantoms and training; {settings['train_cases']} phantoms to train on, "
        f"{settings['test_cases']} held out, {settings['epochs']} epochs of {settings['steps']} steps, {patch}, "
        f"answered with torch {content['versions']['torch']}. Mean ± std over seeds; a group is the mean of those of "
        "its types that the images hold. silent, absent: share of the cases without a type in which at most "
        f"{SILENT_SHARE:.0%} of the ml returned where it is present is returned. {PARTIAL}: not of all types and "
        "seeds, since there is no such share where nothing is returned for the cases with a type. (a): the one mask of "
        "any lesion, scored against every type, as it is and after an oracle took away what lies on lesions of other "
        "types, and nothing else.",
    ]
    if BOUND in rows:
        lines += ["", _shares_of_phantoms(settings["train_cases"], seeds)]
    if single := [TITLES[row] for row in rows if len({run["seed"] for run in runs if run["row"] == row}) < 3]:
        lines += ["", f"Fewer than three seeds, so directions and no claims: {'; '.join(single)}."]
    lines += ["", *_revisions(runs)]
    for bed in dict.fromkeys(run["bed"] for run in runs):
        there = [run for run in runs if run["bed"] == bed]
        for is_seen in (False, True):
            title = f"### {BEDS[bed]}: {GROUPS[is_seen]} types"
            lines += ["", title, "", *_group_table(there, seen=is_seen)]
        lines += ["", f"### {BEDS[bed]}: DSC by type", "", *_type_table(there)]
        if {run["row"] for run in there}.issuperset(COMPARED):
            lines += ["", *_targets(there, bed, silence)]
    return [*lines, ""]


def _revisions(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was measured by which commit."""
    rows: dict[str, list[str]] = {}
    for run in runs:
        rows.setdefault(f"{BEDS[run['bed']]}, at commit {run['revision']}", []).append(TITLES[run["row"]])
    return [f"- {measured}: {'; '.join(dict.fromkeys(titles))}" for measured, titles in rows.items()]


def _group_table(runs: Sequence[Mapping[str, Any]], *, seen: bool) -> Iterator[str]:
    yield from head(["", *(column.title for column in COLUMNS)])
    for row in dict.fromkeys(run["row"] for run in runs):
        cells = [_group_cell(runs, row, column, seen=seen) for column in COLUMNS]
        yield f"| {TITLES[row]} | {' | '.join(cells)} |"


def _group_cell(runs: Sequence[Mapping[str, Any]], row: str, column: Column, *, seen: bool) -> str:
    shown = cell(over_seeds(runs, row, column.figure, seen=seen), column.digits)
    types = [each for run in runs if run["row"] == row for each in _group(run, seen=seen)]
    is_partial = shown != NOT_THERE and any(each[column.figure] is None for each in types)
    return f"{shown} {PARTIAL}" if is_partial else shown


def _shares_of_phantoms(count: int, seeds: Sequence[int]) -> str:
    """How many training phantoms hold a type: fewer of the bound, whose lesions are of more types."""

    def numbers(types: Sequence[str]) -> str:
        plans = [plan_training_cases(count, types, seed) for seed in seeds]
        of_types = [sum(name in case.lesion_types for case in plan) for plan in plans for name in types]
        return f"{min(of_types)} to {max(of_types)}"

    return (
        f"A type is in {numbers(SEEN)} of the {count} training phantoms where only seen types are, and in "
        f"{numbers((*SEEN, *UNSEEN))} where all are: the rows that saw all types had fewer lesions of each."
    )


def _type_table(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Types that a bed does not have are left out."""
    rows = list(dict.fromkeys(run["row"] for run in runs))
    yield from head(["lesion type", "", *(TITLES[row] for row in rows)])
    for name, seen in {each["name"]: each["seen"] for run in runs for each in run["types"]}.items():
        statistics = [type_over_seeds(runs, row, name, "dsc") for row in rows]
        if any(each.n for each in statistics):
            yield f"| {name} | {GROUPS[seen]} | {' | '.join(cell(each, 2) for each in statistics)} |"


def _targets(runs: Sequence[Mapping[str, Any]], bed: str, silence: Mapping[str, float]) -> Iterator[str]:
    """Every unseen type against what was aimed at; where it falls short, what was seen of it. silence: of `section`."""
    yield from (f"### {BEDS[bed]}: unseen types against what was aimed at", "")
    yield (
        f"MaleniaTrainer: DSC above (a) by at least {LEAD:.2f} and below (a) with an oracle by at most {-NEAR:.2f}; "
        f"{SHARE_OF_BOUND:.0%} of the MaleniaTrainer that saw all types (the bound) in DSC and NSD; silent in "
        f"{AIM:.0%} of the cases without the type, and presence AUC {AIM}. What is missed is in bold. Means over seeds."
    )
    yield ""
    columns = ("DSC - (a)", "DSC - oracle", "DSC / bound", "NSD / bound", "silent", "AUC", "where it falls short")
    yield from head(["lesion type", *columns])
    seeds = set.intersection(*({run["seed"] for run in runs if run["row"] == row} for row in COMPARED))
    same = [run for run in runs if run["seed"] in seeds]
    for name in dict.fromkeys(each["name"] for run in runs for each in run["types"] if not each["seen"]):
        figures = {row: {key: type_over_seeds(same, row, name, key).mean for key in AIMED_AT} for row in COMPARED}
        yield f"| {name} | {' | '.join(_target_cells(figures, silence.get(name)))} |"
    figures = {row: {key: over_seeds(same, row, key, seen=False).mean for key in AIMED_AT} for row in COMPARED}
    yield f"| **mean** | {' | '.join(_target_cells(figures, Statistic.of(silence.values()).mean))} |"


def _target_cells(figures: Mapping[str, Mapping[str, float | None]], silence: float | None) -> Iterator[str]:
    """figures: row -> figure -> mean of one type, or of all. silence: what the description allows."""
    own, any_lesion, oracle, bound = (figures[row] for row in COMPARED)
    drawn = [
        (_with(sub, own["dsc"], any_lesion["dsc"]), LEAD),
        (_with(sub, own["dsc"], oracle["dsc"]), NEAR),
        (_with(truediv, own["dsc"], bound["dsc"] or None), SHARE_OF_BOUND),
        (_with(truediv, own["nsd"], bound["nsd"] or None), SHARE_OF_BOUND),
    ]
    silent, auc = (own["silent_when_absent"], AIM), (own["presence_auc"], AIM)
    for value, least in (*drawn, silent, auc):
        yield f"**{_two_digits(value)}**" if _is_short(value, least) else _two_digits(value)
    seen = []
    if any(_is_short(*each) for each in drawn):
        found = [_two_digits(each["sensitivity"]) for each in (own, bound, any_lesion)]
        seen.append(f"finds {found[0]} of its lesions, the bound {found[1]}, (a) {found[2]}")
    if _is_short(*silent) or _is_short(*auc):
        of_bound = [_two_digits(bound[figure]) for figure in ("silent_when_absent", "presence_auc")]
        seen.append(f"the bound is silent in {of_bound[0]} and has AUC {of_bound[1]}")
    if silence is not None and _is_short(*silent):
        seen.append(f"a perfect reader of its description would be silent in {silence:.2f}")
    yield "; ".join(seen) or "nowhere"


def _with(operation: Callable[[float, float], float], a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else operation(a, b)


def _is_short(value: float | None, least: float) -> bool:
    """As shown: a value that is rounded to what was aimed at has reached it."""
    return value is not None and round(value, 2) < least


def _two_digits(value: float | None) -> str:
    return NOT_THERE if value is None else f"{value:.2f}"


def head(titles: Sequence[str]) -> list[str]:
    """The first two lines of a Markdown table."""
    return [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]


def cell(statistic: Statistic, digits: int) -> str:
    """mean ± std, or what is known of them."""
    if statistic.mean is None:
        return NOT_THERE
    spread = "" if statistic.std is None else f" ± {statistic.std:.{digits}f}"
    return f"{statistic.mean:.{digits}f}{spread}"


def plot(content: Mapping[str, Any], path: Path) -> None:
    """Write a PNG: DSC of seen and unseen types in phantoms by row, a dot a seed and a bar at their mean."""
    runs = [run for run in content["runs"] if run["bed"] == PHANTOMS.name]
    rows = list(dict.fromkeys(run["row"] for run in runs))
    figure = Figure(figsize=(7, 1.2 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for seen, offset in ((True, -0.18), (False, 0.18)):
        heights = [i + offset for i in range(len(rows))]
        means = [over_seeds(runs, row, "dsc", seen=seen).mean or 0.0 for row in rows]
        axes.barh(heights, means, height=0.32, color=COLOURS[seen], alpha=0.5, label=f"{GROUPS[seen]} types")
        for run in runs:
            if (value := over_seeds([run], run["row"], "dsc", seen=seen).mean) is not None:
                axes.scatter(value, heights[rows.index(run["row"])], s=12, color=COLOURS[seen], zorder=3)
    axes.set_yticks(range(len(rows)), [TITLES[row] for row in rows])
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xlabel="DSC on phantoms, mean over types; a dot is a seed")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(path, dpi=100)

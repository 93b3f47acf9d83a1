"""From the answers of one row and seed to figures; from those of all to one JSON file, and to tables over seeds."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.aspects.answers import Answers, Phantoms
from benchmarks.aspects.calibration import calibration_error, fit_temperature, tempered
from benchmarks.aspects.measures import (
    aspect_accuracy,
    discovery,
    disease_accuracy,
    groups,
    readings,
    side_verdicts,
)
from benchmarks.aspects.pairing import Pairing, pair_lesions, read_cases
from benchmarks.zero_shot.figures import TITLES, cell, head
from benchmarks.zero_shot.rows import ROWS
from nnunetv2_malenia.attributes.schema import ASPECTS
from nnunetv2_malenia.evaluation.summary import Statistic

GROUPS = ("seen", "unseen")
# what a table shows of a run, for seen and for unseen types: title, and the keys that lead to it
MEASURES = (
    ("lesions found by their query", ("aspects", "{group}", "found_share")),
    ("disease first, query", ("diseases", "query", "{group}", "top_1")),
    ("disease among the first three, query", ("diseases", "query", "{group}", "top_3")),
    ("disease first of the nine types, query", ("diseases", "query", "{group}", "first_of_types")),
    ("lesions touched, discover", ("discovery", "{group}", "found")),
    ("disease first, discover", ("diseases", "discover", "{group}", "top_1")),
    ("disease among the first three, discover", ("diseases", "discover", "{group}", "top_3")),
    ("disease first of the nine types, discover", ("diseases", "discover", "{group}", "first_of_types")),
    ("both sides asked: right one selected, wrong one discarded", ("sides", "{group}", "resolved")),
    ("both sides asked: right one discarded", ("sides", "{group}", "reversed")),
    ("wrong side asked: discarded", ("sides", "{group}", "wrong_discarded")),
    ("right side asked: discarded", ("sides", "{group}", "right_discarded")),
    ("calibration error of aspects", ("calibration", "aspects", "{group}", "error")),
    ("the same with a temperature", ("calibration", "aspects", "{group}", "error_tempered")),
    ("calibration error of lesions' presence", ("calibration", "presence", "{group}", "error")),
    ("the same with a temperature", ("calibration", "presence", "{group}", "error_tempered")),
)
ONCE = (
    ("false positives a case, discover", ("discovery", "false_positives_per_case")),
    ("temperature of aspects", ("calibration", "aspects", "temperature")),
    ("temperature of presence", ("calibration", "presence", "temperature")),
)


def measure(answers: Answers, test: Phantoms, validation: Phantoms, unseen: Sequence[str]) -> dict[str, Any]:
    """All figures of one row and seed."""
    query = pair_lesions(answers.query, test, discover=False)
    discovered = pair_lesions(answers.discover, test, discover=True)
    types = tuple(test.values)
    return {
        "aspects": {name: aspect_accuracy(each) for name, each in groups(query.drawn, unseen).items()},
        "diseases": {
            mode: {name: disease_accuracy(each, types) for name, each in groups(pairing.drawn, unseen).items()}
            for mode, pairing in (("query", query), ("discover", discovered))
        },
        "sides": side_verdicts(
            read_cases(answers.query, test), read_cases(answers.side, test), test.table, unseen
        ),
        "discovery": discovery(discovered, unseen),
        "calibration": _calibration(query, pair_lesions(answers.validation, validation, discover=False), unseen),
    }  # fmt: skip


def _calibration(test: Pairing, validation: Pairing, unseen: Sequence[str]) -> dict[str, Any]:
    """Of the aspects of lesions that were found, and of predicted lesions; temperatures from validation alone. An
    aspect of which no value excludes another has no score to speak of and is left out."""

    def figures(fitted_on: Sequence[tuple[float, bool]], tested: Mapping[str, Sequence[tuple[float, bool]]]) -> dict:
        temperature = fit_temperature(*_columns(fitted_on))
        figures: dict[str, Any] = {"fitted_on": len(fitted_on), "temperature": temperature}
        for group, pairs in tested.items():
            scores, right = _columns(pairs)
            after = None if temperature is None else calibration_error(tempered(scores, temperature), right)
            figures[group] = {
                "scores": len(scores), "error": calibration_error(scores, right), "error_tempered": after
            }  # fmt: skip
        return figures

    def of_aspects(lesions: Sequence) -> list[tuple[float, bool]]:
        return [(each.reading.score, each.is_right) for each in readings(lesions) if each.reading.runner_up]

    def of_presence(pairing: Pairing, group: str | None = None) -> list[tuple[float, bool]]:
        return [
            (each.lesion.presence_score, each.is_real)
            for each in pairing.predicted
            if group is None or (each.name in unseen) == (group == "unseen")
        ]

    return {
        "aspects": figures(
            of_aspects(validation.drawn),
            {name: of_aspects(lesions) for name, lesions in groups(test.drawn, unseen).items()},
        ),
        "presence": figures(of_presence(validation), {group: of_presence(test, group) for group in GROUPS}),
    }


def _columns(pairs: Sequence[tuple[float, bool]]) -> tuple[list[float], list[bool]]:
    return [score for score, _ in pairs], [right for _, right in pairs]


def collect(folder: Path, size: str) -> dict[str, Any]:
    """The figures of all rows and seeds below a folder -> the content of aspects_SIZE.json."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("seed_*/aspects/*.json")]
    runs.sort(key=lambda run: (list(ROWS).index(run["row"]), run["seed"]))
    return {
        "data": "phantoms; not clinical",
        "size": size,
        "versions": {name: version(name) for name in ("nnunetv2_malenia", "nnunetv2", "torch")},
        "python": platform.python_version(),
        "runs": runs,
    }


def section(content: Mapping[str, Any]) -> list[str]:
    """Markdown: what was measured, and for each row its aspects and its other figures, seen and unseen types apart."""
    lines = [
        f"## `python -m benchmarks.aspects`, size {content['size']}",
        "",
        "What is read of the lesions in the held-out phantoms, mean ± std over seeds. A lesion counts as found when a "
        "predicted lesion of its own query holds a voxel of it; the one that shares most voxels is read. A value is "
        "right when it is, or can be true together with, the value drawn (`hypodense` with `fluid density`); `same` "
        "asks for the very value; `majority` is the accuracy of the one value that is right most often in the same "
        "lesions. Diseases are ranked among the nine types and those of the Clinical Knowledge Table, and in query "
        "mode the own type is one of those asked for; of the nine types alone only those are known that are among the "
        "first five listed. Sides: lesions of lung and kidney, in phantoms with no other lesion in the opposite organ. "
        "Calibration: expected calibration error in 15 bins, before and after a temperature on the log-odds, fitted on "
        "other phantoms with seen types only.",
    ]
    for row in dict.fromkeys(run["row"] for run in content["runs"]):
        runs = [run for run in content["runs"] if run["row"] == row]
        seeds = ", ".join(str(run["seed"]) for run in runs)
        commits = dict.fromkeys(run["revision"] for run in runs if "revision" in run)
        by = f", commit {', '.join(commits)}" if commits else ""
        lines += ["", f"### {TITLES[row]}: aspects, seeds {seeds}{by}", "", *_aspect_table(runs)]
        lines += ["", f"### {TITLES[row]}: diseases, sides, discovery, calibration", "", *_measure_table(runs)]
    return [*lines, ""]


def _aspect_table(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    columns = [(group, key) for group in GROUPS for key in ("accuracy", "same", "majority")]
    yield from head(["aspect", *(key if key != "accuracy" else f"{group}: right" for group, key in columns)])
    for aspect in ASPECTS:
        cells = [over_seeds(runs, ("aspects", group, "aspects", aspect, key)) for group, key in columns]
        yield f"| {aspect} | {' | '.join(cells)} |"
    yield f"| **mean** | {' | '.join(over_seeds(runs, ('aspects', group, 'mean', key)) for group, key in columns)} |"


def _measure_table(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from head(["", *GROUPS])
    for title, keys in MEASURES:
        cells = [over_seeds(runs, [key.format(group=group) for key in keys]) for group in GROUPS]
        yield f"| {title} | {' | '.join(cells)} |"
    for title, keys in ONCE:
        yield f"| {title} | {over_seeds(runs, keys)} | |"


def over_seeds(runs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> str:
    return cell(Statistic.of(_at(run, keys) for run in runs), 2)


def _at(figures: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    """None where a run has no such figure."""
    for key in keys:
        figures = figures.get(key, {})
    return figures or None if isinstance(figures, dict) else figures

"""Scores of the rows to a table beside the published one: Markdown, and the same figures as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.paper.rows import ROWS, TABLES, public_types, published
from nnunetv2_malenia.cli.messages import counted

NOT_THERE = "n/a"
MALENIA = "Malenia"  # the published method that this project implements
MINIATURE = (
    "**A miniature: two or three phantoms a source, a tiny network, a few training steps. It shows that the commands "
    "run. Every figure of a row marked *smoke* is meaningless.**"
)
NNUNET_EPOCHS = 1000  # nnUNetTrainer's own number
_METRICS = {"DSC": "dsc", "NSD": "nsd"}

Figures = dict[str, dict[str, float | int | None]]  # lesion type -> cases, and DSC, NSD in percent with their std


def collect(folder: Path, table: str) -> dict[str, Figures]:
    """Row -> figures of the rows of a table that are scored so far, from the summaries of malenia_evaluate."""
    return {name: figures for name in TABLES[table].rows if (figures := _read_row(folder / "scores" / name))}


def _read_row(folder: Path) -> Figures:
    """Seen types as scored in the test cases of seen types, unseen ones in the others."""
    unseen, figures = public_types("unseen"), {}
    for path in sorted(folder.glob("*/summary.json")):
        for each in json.loads(path.read_text(encoding="utf-8"))["types"]:
            if (each["name"] in unseen) == (path.parent.name == "unseen"):
                figures[each["name"]] = {"cases": each["cases_present"]} | {
                    f"{metric}{suffix}": None if each[key][part] is None else 100 * each[key][part]
                    for metric, key in _METRICS.items()
                    for suffix, part in (("", "mean"), (" std", "std"))
                }
    return figures


def content(folder: Path, table: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is written as JSON. settings: of the run, as `settings.json` holds them."""
    return {
        "table": table,
        "data": "phantoms; smoke figures, meaningless" if settings["miniature"] else "MSD and KiTS23",
        "settings": dict(settings),
        "versions": {name: version(name) for name in ("nnunetv2_malenia", "nnunetv2", "torch")},
        "python": platform.python_version(),
        "rows": collect(folder, table),
        "published": published().get(table),
        "source": published()["source"],
    }


def markdown(content: Mapping[str, Any]) -> str:
    """The table of a `content`, with what a reader must know."""
    table, rows = TABLES[content["table"]], content["rows"]
    lines = [f"# {table.title}", ""]
    if content["settings"]["miniature"]:
        lines += [MINIATURE, ""]
    mark = "smoke: " if content["settings"]["miniature"] else ""
    titles = {name: f"{mark}{ROWS[name].title}" for name in rows}
    fill = _ablations if content["published"] is None else _beside_published
    lines += fill(content, titles)
    if not_run := [ROWS[name].title for name in table.rows if name not in rows]:
        lines += ["", f"Not run yet: {', '.join(not_run)}."]
    lines += ["", table.not_here, "", *_notes(content)]
    return "\n".join(lines) + "\n"


def _beside_published(content: Mapping[str, Any], titles: Mapping[str, str]) -> Iterator[str]:
    """Methods in rows, lesion types in columns; a mean over the types with public data, so that all compare."""
    table, rows, types = content["table"], content["rows"], content["published"]["columns"]
    public = public_types(table)
    for metric in _METRICS:
        yield from (f"## {metric}", "")
        yield from _head(["", *types, "mean" if len(public) == len(types) else "mean of public data"])
        for method in content["published"]["rows"]:
            values = _published_values(table, method, metric)
            yield _line([f"{method}, published", *map(_number, values.values()), _number(_mean(values, public))])
        for name, title in titles.items():
            cells = [_spread(rows[name].get(each, {}), metric) for each in types]
            yield _line([f"**{title}**", *cells, _number(_mean(_values(rows[name], metric), public))])
        for name, title in ({} if content["settings"]["miniature"] else titles).items():
            cells = [_number(value, sign="+") for value in _differences(rows[name], table, metric)]
            yield _line([f"{title}, less published {MALENIA}", *cells])
        yield ""
    yield from _head(["test cases", *types])
    yield _line(["data, published", *content["published"]["data"]])
    for name, title in titles.items():
        yield _line([title, *(str(rows[name].get(each, {}).get("cases", NOT_THERE)) for each in types)])


def _differences(figures: Figures, table: str, metric: str) -> list[float | None]:
    """Figures less published Malenia's, type by type, then of the means over public types."""
    ours, theirs, public = _values(figures, metric), _published_values(table, MALENIA, metric), public_types(table)
    pairs = [*((ours.get(name), theirs[name]) for name in theirs), (_mean(ours, public), _mean(theirs, public))]
    return [None if own is None else own - other for own, other in pairs]


def _ablations(content: Mapping[str, Any], titles: Mapping[str, str]) -> Iterator[str]:
    """Means over seen and over unseen types with public data; the full method's published ones on top."""
    groups = [(part, metric) for part in ("seen", "unseen") for metric in _METRICS]
    yield from _head(["mean over types", *(f"{part} {metric}" for part, metric in groups)])
    means = (_mean(_published_values(part, MALENIA, metric), public_types(part)) for part, metric in groups)
    yield _line([f"{MALENIA}, published", *map(_number, means)])
    for name, title in titles.items():
        means = (_mean(_values(content["rows"][name], metric), public_types(part)) for part, metric in groups)
        yield _line([f"**{title}**", *map(_number, means)])


def _notes(content: Mapping[str, Any]) -> Iterator[str]:
    settings = content["settings"]
    epochs = counted(settings["epochs"] or NNUNET_EPOCHS, "epoch")
    yield (
        "DSC and NSD in percent: of a type, mean ± standard deviation over the test cases that hold it; NSD at "
        f"{settings['tolerance_mm']:g} mm; published: its tolerance and its test cases are not known. Own rows: "
        f"{epochs}, fold 0, one training each; data: {content['data']}. How cases are split, and what else is "
        "not known of the published experiments: docs/paper.md."
    )
    yield ""
    yield f"Published: {content['source']}."


def _published_values(table: str, method: str, metric: str) -> dict[str, float]:
    content = published()[table]
    return dict(zip(content["columns"], content["rows"][method][metric], strict=True))


def _values(figures: Figures, metric: str) -> dict[str, float | None]:
    return {name: each[metric] for name, each in figures.items()}


def _mean(values: Mapping[str, float | None], types: Iterable[str]) -> float | None:
    """Over the types, each counting once; None unless all of them have a figure."""
    known = [values.get(name) for name in types]
    return None if None in known else sum(known) / len(known)


def _spread(figures: Mapping[str, float | None], metric: str) -> str:
    std = figures.get(f"{metric} std")
    return _number(figures.get(metric)) + (f" ± {std:.2f}" if std is not None else "")


def _number(value: float | None, sign: str = "") -> str:
    return NOT_THERE if value is None else f"{value:{sign}.2f}"


def _head(titles: Sequence[str]) -> Iterator[str]:
    yield _line(titles)
    yield "|---" * len(titles) + "|"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"

"""What attribute tables allow: how often a query would be silent if every lesion and aspect were read perfectly.

    python -m benchmarks.limits.descriptions FOLDER

FOLDER: output of `python -m benchmarks.zero_shot`, of which only the tables of the held-out phantoms are read. Figures
go to benchmarks/results/descriptions_SIZE.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.aspects.measures import share
from benchmarks.commands import BenchmarkError, revision
from benchmarks.zero_shot.experiment import size_of
from benchmarks.zero_shot.rows import PHANTOM
from nnunetv2_malenia.attributes.schema import AspectValues, AttributeTable, LesionEntry
from nnunetv2_malenia.attributes.tables import read_table
from nnunetv2_malenia.attributes.vocabulary import vocabulary
from nnunetv2_malenia.cli.messages import fail, one_line_errors
from nnunetv2_malenia.demo.run import QUERY_TABLE
from nnunetv2_malenia.files import write_json
from nnunetv2_malenia.phantom.dataset import SEEN, UNSEEN

RESULTS = Path(__file__).parents[1] / "results"
TABLE = Path(PHANTOM) / QUERY_TABLE
Fits = Callable[[str, str, str], bool]  # aspect, a value drawn, a value asked for


def can_coincide(aspect: str, drawn: str, asked: str) -> bool:
    """As the package takes them: a lesion of fluid density can be hypodense too."""
    return vocabulary().overlap(aspect, drawn, asked)


def is_the_same(aspect: str, drawn: str, asked: str) -> bool:
    """As if each lesion had been given the one value that fits it best."""
    return drawn == asked


def fits_query(entry: LesionEntry, drawn: AspectValues, fits: Fits) -> bool:
    """Whether each aspect that both state has a value drawn that fits one asked for."""
    return all(
        any(fits(aspect, value, asked) for value in values for asked in getattr(entry, aspect))
        for aspect, values in drawn.stated.items()
        if getattr(entry, aspect)
    )


def silent_share(table: AttributeTable, name: str, fits: Fits) -> float | None:
    """Share of the cases without a type in which no lesion of another type fits the type's query."""
    return share(
        not any(fits_query(table.lesions[name], drawn, fits) for drawn in case.lesions.values())
        for case in table.cases.values()
        if name not in case.lesions
    )


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int | None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.limits.descriptions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args(argv).folder.resolve()
    try:
        size = size_of(folder)
    except BenchmarkError as error:
        return fail(str(error))
    runs = [
        {"seed": int(home.name.removeprefix("seed_")), "types": _types(read_table(home / "nnUNet_raw" / TABLE))}
        for home in sorted(folder.glob("seed_*"))
    ]
    result = RESULTS / f"descriptions_{size}.json"
    write_json(result, {"data": "phantoms; not clinical", "size": size, "commit": revision(), "runs": runs})
    print(f"written: {result}")
    return 0


def _types(table: AttributeTable) -> list[dict[str, Any]]:
    ways = {"can_coincide": can_coincide, "the_same": is_the_same}
    return [
        {"name": name, "seen": name in SEEN, **{way: silent_share(table, name, fits) for way, fits in ways.items()}}
        for name in (*SEEN, *UNSEEN)
    ]


if __name__ == "__main__":
    raise SystemExit(main())

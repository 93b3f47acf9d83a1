"""How well `report_parser` agrees with the codes that annotators gave the same lesions.

    python benchmarks/report_agreement.py WORKBOOK [--half development|check]

WORKBOOK is the published annotation workbook. For every row with free text and a case id, per coded aspect: whether the
text states it; whether every stated value fits the code ("agreeing": equal to it, or a value that the vocabulary lets
coincide with it); whether the code's own value is among those stated ("same_value"). Worked examples, whose texts and
codes need not belong together, are counted apart. The rules were written with one fixed half of the rows in sight
("development"), and the other ("check") unseen.

Writes counts and the rows that differ, no text, to benchmarks/results/report_agreement.json, and the tables of
docs/reports.md. With --half, shows the counts of that half and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from nnunetv2_malenia import __version__
from nnunetv2_malenia.attributes.report_parser import parse_report
from nnunetv2_malenia.attributes.sheet_codes import CODED_ASPECTS
from nnunetv2_malenia.attributes.sheet_importer import ReportedText, read_texts
from nnunetv2_malenia.attributes.vocabulary import vocabulary

HALVES = ("development", "check")
RESULT = Path(__file__).parent / "results" / "report_agreement.json"
DOCUMENT = Path(__file__).parents[1] / "docs" / "reports.md"


class Comparison(NamedTuple):
    """One aspect of one row: "silent", "same", "fits" or "differs"."""

    text: ReportedText
    aspect: str
    outcome: str

    @property
    def half(self) -> str:
        """A fixed half for every row, whatever the workbook holds beside it."""
        return HALVES[crc32(f"{self.text.lesion}/{self.text.row}".encode()) % 2]


def compare(text: ReportedText) -> list[Comparison]:
    """Every coded aspect of a row."""
    stated = parse_report(text.text, text.lesion).attributes
    return [
        Comparison(text, aspect, outcome(aspect, getattr(stated, aspect), text.coded[aspect])) for aspect in text.coded
    ]


def outcome(aspect: str, stated: tuple[str, ...], coded: tuple[str, ...]) -> str:
    """How the values stated in a text stand to those of the code."""
    if not stated:
        return "silent"
    overlap = vocabulary().overlap
    if not all(any(overlap(aspect, value, code) for code in coded) for value in stated):
        return "differs"
    return "same" if set(stated) & set(coded) else "fits"


def counts(compared: Iterable[Comparison]) -> dict[str, dict[str, int | float | None]]:
    """Per aspect the counts, and the agreement over the texts that state it, null when none does."""
    outcomes = {aspect: Counter() for aspect in CODED_ASPECTS}
    for each in compared:
        outcomes[each.aspect][each.outcome] += 1
    return {aspect: _row(outcomes[aspect]) for aspect in CODED_ASPECTS}


def _row(count: Counter[str]) -> dict[str, int | float | None]:
    stated = count["same"] + count["fits"] + count["differs"]
    agreeing = stated - count["differs"]
    return {
        "texts": stated + count["silent"],
        "silent": count["silent"],
        "stated": stated,
        "agreeing": agreeing,
        "same_value": count["same"],
        "agreement": round(agreeing / stated, 4) if stated else None,
    }


def table(title: str, rows: dict[str, dict[str, dict]]) -> str:
    """A Markdown table: agreeing / stated of texts, per row and aspect."""
    lines = [f"| {title} | {' | '.join(CODED_ASPECTS)} |", f"|---|{'---|' * len(CODED_ASPECTS)}"]
    for name, cells in rows.items():
        shown = [f"{c['agreeing']}/{c['stated']} of {c['texts']}" for c in (cells[aspect] for aspect in CODED_ASPECTS)]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines)


def percentages(rows: dict[str, dict[str, dict]]) -> str:
    """A Markdown table of the agreement in percent, per row and aspect."""
    lines = [f"| agreement, % | {' | '.join(CODED_ASPECTS)} |", f"|---|{'---|' * len(CODED_ASPECTS)}"]
    for name, cells in rows.items():
        shown = [f"{100 * cells[aspect]['agreement']:.1f}" for aspect in CODED_ASPECTS]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines)


def write_document(result: dict) -> None:
    """Put the tables between the markers of docs/reports.md."""
    begin, end = "<!-- agreement -->\n", "<!-- end of agreement -->"
    document = DOCUMENT.read_text(encoding="utf-8")
    head, rest = document.split(begin)
    _, tail = rest.split(end)
    halves = result["halves"] | {"both": result["all"]}
    tables = f"{percentages(halves)}\n\n{table('agreeing / stated of texts', result['sheets'])}\n"
    DOCUMENT.write_text(f"{head}{begin}{tables}{end}{tail}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workbook", type=Path, help="XLSX file")
    parser.add_argument("--half", choices=HALVES, help="show the counts of this half and write nothing")
    args = parser.parse_args()
    everything = [each for text in read_texts(args.workbook) for each in compare(text)]
    compared = [each for each in everything if not each.text.is_worked_example]
    if args.half:
        print(json.dumps(counts(each for each in compared if each.half == args.half), indent=2))
        return
    differing = [each for each in everything if each.outcome == "differs"]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    lesions = dict.fromkeys(each.text.lesion for each in compared)
    result = {
        "commit": commit.stdout.strip(),
        "version": __version__,
        "halves": {half: counts(each for each in compared if each.half == half) for half in HALVES},
        "all": counts(compared),
        "sheets": {lesion: counts(each for each in compared if each.text.lesion == lesion) for lesion in lesions},
        "worked_examples": counts(each for each in everything if each.text.is_worked_example),
        "differing": [
            {"sheet": each.text.lesion, "row": each.text.row, "aspect": each.aspect, "half": each.half}
            for each in differing
        ],
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    write_document(result)
    print(percentages(result["halves"] | {"both": result["all"]}))
    print("\n".join(f"{each.text.lesion}, row {each.text.row}: {each.aspect}" for each in differing))


if __name__ == "__main__":
    main()

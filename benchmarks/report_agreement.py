"""How well `report_parser` agrees with the codes that annotators gave the same lesions.

    python benchmarks/report_agreement.py WORKBOOK

WORKBOOK is the published annotation workbook. For every row with free text, per aspect: is the aspect stated in the
text; is the code's value among the values stated ("same"); does every stated value fit the code ("agrees": equal, or a
value that the vocabulary lets coincide with it). The rules were written with one half of the rows in sight
("development"); the other half ("check") was left alone until they were done. Writes counts, and the rows that
disagree by sheet and row, to benchmarks/results/report_agreement.json; no text is stored.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections import Counter
from pathlib import Path
from zlib import crc32

from nnunetv2_malenia import __version__
from nnunetv2_malenia.attributes.report_parser import parse_report
from nnunetv2_malenia.attributes.sheet_codes import CODED_ASPECTS
from nnunetv2_malenia.attributes.sheet_importer import ReportedText, read_texts
from nnunetv2_malenia.attributes.vocabulary import vocabulary

HALVES = ("development", "check")
RESULT = Path(__file__).parent / "results" / "report_agreement.json"


def half_of(text: ReportedText) -> str:
    """A fixed half for every row, whatever the workbook holds beside it."""
    return HALVES[crc32(f"{text.lesion}/{text.row}".encode()) % 2]


def compare(text: ReportedText) -> dict[str, str]:
    """Per coded aspect of a row: "silent", "same", "agrees" or "differs"; an aspect without a code is left out."""
    stated = parse_report(text.text, text.lesion).attributes
    return {aspect: outcome(aspect, getattr(stated, aspect), coded) for aspect, coded in text.coded.items()}


def outcome(aspect: str, stated: tuple[str, ...], coded: tuple[str, ...]) -> str:
    """How the values stated in a text stand to those of the code."""
    if not stated:
        return "silent"
    overlap = vocabulary().overlap
    if not all(any(overlap(aspect, value, code) for code in coded) for value in stated):
        return "differs"
    return "same" if set(stated) & set(coded) else "agrees"


def summary(counts: Counter[str]) -> dict[str, int | float | None]:
    """Counts of one cell of the result; agreement is over the texts that state the aspect, null when none does."""
    stated = counts["same"] + counts["agrees"] + counts["differs"]
    agreeing = counts["same"] + counts["agrees"]
    return {
        "texts": stated + counts["silent"],
        "silent": counts["silent"],
        "stated": stated,
        "agreeing": agreeing,
        "same_value": counts["same"],
        "agreement": round(agreeing / stated, 4) if stated else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workbook", type=Path, help="XLSX file")
    parser.add_argument("--half", choices=HALVES, help="only show the rows of this half that differ; write nothing")
    args = parser.parse_args()
    texts = [text for text in read_texts(args.workbook) if args.half in (None, half_of(text))]
    compared = [(text, half_of(text), aspect, how) for text in texts for aspect, how in compare(text).items()]
    differing = [f"{text.lesion}, row {text.row}: {aspect}" for text, _, aspect, how in compared if how == "differs"]
    if args.half:
        print("\n".join(differing))
    lesions = list(dict.fromkeys(text.lesion for text in texts))
    halves = HALVES if args.half is None else (args.half,)

    def count(half: str | None, lesion: str | None, aspect: str) -> dict[str, int | float | None]:
        return summary(
            Counter(
                how
                for text, its_half, its_aspect, how in compared
                if its_aspect == aspect and half in (None, its_half) and lesion in (None, text.lesion)
            )
        )

    result = {
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "version": __version__,
        "texts": len(texts),
        "halves": {half: {aspect: count(half, None, aspect) for aspect in CODED_ASPECTS} for half in halves},
        "all": {aspect: count(None, None, aspect) for aspect in CODED_ASPECTS},
        "sheets": {lesion: {aspect: count(None, lesion, aspect) for aspect in CODED_ASPECTS} for lesion in lesions},
        "differing": differing,
    }
    for half in halves:
        for aspect in CODED_ASPECTS:
            print(half, aspect, result["halves"][half][aspect])
    if args.half is None:
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

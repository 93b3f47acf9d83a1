"""`malenia_evaluate`: predictions against references, from two folders to a folder of results."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunetv2_malenia.evaluation.comparison import Case, EvaluationOptions, ScoringRules, plan_comparison
from nnunetv2_malenia.evaluation.figures import plot_dsc
from nnunetv2_malenia.evaluation.metrics import CONNECTIVITY
from nnunetv2_malenia.evaluation.scoring import TypeScore, score_case
from nnunetv2_malenia.evaluation.summary import Summary, summarise
from nnunetv2_malenia.evaluation.tables import results_table, to_csv
from nnunetv2_malenia.files import OutputFolder, stage

RESULTS = ("summary.json", "cases.csv", "types.csv", "table.md", "dsc.png")
CONVENTIONS = {
    "DSC": "2 |A and B| / (|A| + |B|), a fraction",
    "NSD": "share of both surfaces within the tolerance of the other, by area, at the spacing of the files; a fraction",
    "present but missed": "DSC and NSD are 0",
    "absent but annotated": "no DSC and no NSD; counts in false positives and in the volume where absent",
    "not annotated": "no part in anything",
    "lesions": f"{CONNECTIVITY}-connected components; found if a predicted voxel lies in it; a predicted component "
    "that touches no lesion of the type is a false positive",
    "means": "of a type over cases, std with n - 1; of seen and of unseen types over types; never over both",
    "oracle": "predicted components that touch a lesion of another type and none of this one are left out",
}


@dataclass(frozen=True)
class Evaluation:
    """What was measured: scores of every case, type and, if asked for, oracle; notes for the reader."""

    options: EvaluationOptions
    scores: tuple[TypeScore, ...]
    notes: tuple[str, ...]

    @property
    def summary(self) -> Summary:
        return summarise(self.scores_of(oracle=False))

    @property
    def oracle_summary(self) -> Summary | None:
        return summarise(self.scores_of(oracle=True)) if self.options.oracle else None

    def scores_of(self, *, oracle: bool) -> list[TypeScore]:
        return [score for score in self.scores if score.oracle is oracle]

    def table(self, *, published: bool = True) -> str:
        """Markdown; the oracle's table, if there is one, comes second. published: see `tables.results_table`."""
        text = results_table(self.summary, tolerance_mm=self.options.tolerance_mm, published=published)
        if oracle := self.oracle_summary:
            text += f"\nWith an oracle: {CONVENTIONS['oracle']}.\n\n"
            text += results_table(oracle, tolerance_mm=self.options.tolerance_mm, published=published)
        return text

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: conventions, options, notes, figures per type and group, and the scores of every case."""
        options = asdict(self.options)
        return {
            "conventions": CONVENTIONS,
            "options": {key: os.fspath(each) if isinstance(each, Path) else each for key, each in options.items()},
            "versions": {name: version(name) for name in ("nnunetv2_malenia", "surface-distance")},
            "notes": list(self.notes),
            **asdict(self.summary),
            "oracle": asdict(self.oracle_summary) if self.oracle_summary else None,
            "cases": [asdict(score) for score in self.scores],
        }


def evaluate_folder(options: EvaluationOptions, *, progress: bool = True) -> Evaluation:
    """Score every annotated lesion type in every reference of a folder. Writes nothing.

    Raises EvaluationError, in one line, for what does not fit together, before any voxel is read where that can be
    known; AttributeTableError for a bad table.
    """
    comparison = plan_comparison(options)
    scored = _score_cases(comparison.cases, comparison.rules, options.processes)
    bar = tqdm(scored, total=len(comparison.cases), desc="cases", disable=not progress)
    return Evaluation(options, tuple(score for scores in bar for score in scores), comparison.notes)


def claim_results(folder: Path, inputs: Iterable[Path] = (), *, overwrite: bool = False) -> OutputFolder:
    """Where results go. Raises MaleniaError if a file that we did not write is in the way, unless it may go, or one of
    `inputs` is."""
    outputs = OutputFolder(folder)
    outputs.claim(RESULTS, inputs, overwrite=overwrite)
    return outputs


def write_evaluation(evaluation: Evaluation, folder: Path, *, published: bool = True, overwrite: bool = False) -> None:
    """Write RESULTS, of which all are made before the first appears. Raises MaleniaError as `claim_results` does.

    published: see `tables.results_table`.
    """
    options = evaluation.options
    inputs = [path for path in (options.labels, options.attributes) if path]
    outputs = claim_results(folder, inputs, overwrite=overwrite)
    oracle_types = evaluation.oracle_summary.types if evaluation.oracle_summary else ()
    texts = {
        "summary.json": json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        "cases.csv": to_csv(evaluation.scores),
        "types.csv": to_csv([*evaluation.summary.types, *oracle_types]),
        "table.md": evaluation.table(published=published),
    }
    writes = {name: partial(_write_text, text=text) for name, text in texts.items()}
    writes["dsc.png"] = lambda place: plot_dsc(evaluation.summary, evaluation.scores_of(oracle=False), Path(place))
    with closing(outputs):
        outputs.open()
        outputs.publish({name: stage(outputs.staging, name, write) for name, write in writes.items()})


def _write_text(place: str, text: str) -> None:
    Path(place).write_text(text, encoding="utf-8", newline="")


def _score_cases(cases: Sequence[Case], rules: ScoringRules, processes: int) -> Iterator[list[TypeScore]]:
    """Scores in the order of the cases."""
    score = partial(score_case, rules=rules)
    if processes == 1:
        yield from map(score, cases)
        return
    with multiprocessing.get_context("spawn").Pool(min(processes, len(cases))) as pool:
        yield from pool.imap(score, cases)

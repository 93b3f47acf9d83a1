"""`malenia_evaluate`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_malenia.cli.messages import one_line_errors, tell
from nnunetv2_malenia.cli.numeric import at_least_one, not_negative


@one_line_errors
def evaluate(argv: Sequence[str] | None = None) -> int | None:
    """malenia_evaluate: predictions against references."""
    parser = argparse.ArgumentParser(
        prog="malenia_evaluate",
        description="Score predictions of malenia_predict_zeroshot, or of nnUNetv2_predict, against references: DSC, "
        "NSD, lesions found and false positives per lesion type, seen and unseen apart.",
    )
    parser.add_argument("-i", required=True, type=Path, metavar="FOLDER", help="predictions")
    parser.add_argument("-g", required=True, type=Path, metavar="FOLDER", help="references, e.g. labelsTs")
    parser.add_argument("--labels", required=True, type=Path, metavar="JSON",
                        help="label names of the references: labelsTs.json or a dataset.json")  # fmt: skip
    parser.add_argument("-o", type=Path, metavar="FOLDER", help="results (default: evaluation in the folder of -i)")
    parser.add_argument("--attributes", type=Path, metavar="TABLE",
                        help="attribute table whose cases list what was annotated in them, and that names lesion types "
                        "(default: every type counts as annotated in every case)")  # fmt: skip
    parser.add_argument("--tolerance_mm", type=not_negative, default=2.0, metavar="MM",
                        help="of NSD (default: %(default)g, as in FLARE 2023 for tumors; the published figures state "
                        "none)")  # fmt: skip
    parser.add_argument("--unseen", type=_names, metavar="TYPES", help="lesion types, separated by commas, that "
                        "training did not show (default: as queries.json says)")  # fmt: skip
    parser.add_argument("--any_lesion", metavar="LABEL", help="score this one predicted label against every type")
    parser.add_argument("--oracle", action="store_true", help="score a second time without predicted components that "
                        "lie in lesions of other types; needs --any_lesion")  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace files of others where results go")
    parser.add_argument("-np", type=at_least_one, default=3, help="processes (default: %(default)s)")
    parser.add_argument("--disable_progress_bar", action="store_true")
    args = parser.parse_args(argv)
    if args.oracle and not args.any_lesion:
        parser.error("--oracle needs --any_lesion")

    from nnunetv2_malenia.evaluation.comparison import EvaluationOptions
    from nnunetv2_malenia.evaluation.evaluate import claim_results, evaluate_folder, write_evaluation

    options = EvaluationOptions(
        predictions=args.i,
        references=args.g,
        labels=args.labels,
        attributes=args.attributes,
        any_lesion=args.any_lesion,
        oracle=args.oracle,
        unseen=args.unseen,
        tolerance_mm=args.tolerance_mm,
        processes=args.np,
    )
    folder = args.o or args.i / "evaluation"
    inputs = [path for path in (args.labels, args.attributes) if path and path.exists()]
    claim_results(folder, inputs, overwrite=args.overwrite)  # before the work
    evaluation = evaluate_folder(options, progress=not args.disable_progress_bar)
    write_evaluation(evaluation, folder, overwrite=args.overwrite)
    for note in evaluation.notes:
        tell("note", note)
    print(evaluation.table())
    print(f"written: {folder}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())

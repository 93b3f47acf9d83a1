"""`malenia_convert_msd`, `malenia_convert_kits`, `malenia_merge`: public data to nnU-Net raw data sets."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_malenia.cli.messages import one_line_errors, warn

if TYPE_CHECKING:
    from nnunetv2_malenia.dataset_conversion.conversion import Options
    from nnunetv2_malenia.dataset_conversion.summary import Summary


_CONVERSION = (
    "Images are linked where the file system can. All cases are checked before anything is written; the data set "
    "appears when it is complete, and after an interruption the same command goes on."
)


@one_line_errors
def convert_msd(argv: Sequence[str] | None = None) -> int | None:
    """malenia_convert_msd: a task of the Medical Segmentation Decathlon to an nnU-Net raw data set."""
    parser = argparse.ArgumentParser(
        prog="malenia_convert_msd",
        description="Convert a task of the Medical Segmentation Decathlon to an nnU-Net raw data set whose "
        "lesions have the names of the Clinical Knowledge Table. " + _CONVERSION,
    )
    parser.add_argument("-i", required=True, type=Path, metavar="TASK", help="folder or tar, e.g. Task03_Liver.tar")
    _add_annotations(parser, "; Task07_Pancreas is split into tumor and cyst by it")
    args = _parse_conversion(parser, argv)

    from nnunetv2_malenia.dataset_conversion.conversion import convert
    from nnunetv2_malenia.dataset_conversion.msd import plan_msd

    return _print_summary(args, lambda: convert(plan_msd(args.i, args.o, args.d, args.annotations), _options(args)))


@one_line_errors
def convert_kits(argv: Sequence[str] | None = None) -> int | None:
    """malenia_convert_kits: KiTS23 to an nnU-Net raw data set."""
    parser = argparse.ArgumentParser(
        prog="malenia_convert_kits",
        description="Convert KiTS23, or KiTS19, to an nnU-Net raw data set. " + _CONVERSION,
    )
    parser.add_argument("-i", required=True, type=Path, metavar="FOLDER",
                        help="the kits23 repository with its images, or its folder dataset")  # fmt: skip
    _add_annotations(parser)
    args = _parse_conversion(parser, argv)

    from nnunetv2_malenia.dataset_conversion.conversion import convert
    from nnunetv2_malenia.dataset_conversion.kits import plan_kits

    return _print_summary(args, lambda: convert(plan_kits(args.i, args.o, args.d, args.annotations), _options(args)))


@one_line_errors
def merge(argv: Sequence[str] | None = None) -> int | None:
    """malenia_merge: several raw data sets into one, partly labelled."""
    parser = argparse.ArgumentParser(
        prog="malenia_merge",
        description="Merge the training cases of several nnU-Net raw data sets by the names of their labels; "
        "attributes.json says which labels each case annotates. " + _CONVERSION,
    )
    parser.add_argument("-i", required=True, nargs="+", metavar="DATASET", help="ids, names or folders of data sets")
    parser.add_argument("--holdout", default="", metavar="TYPES", help="lesion types, separated by commas, that "
                        "training must not show: cases that do become test cases")  # fmt: skip
    parser.add_argument("--keep_seen", action="store_true", help="with --holdout: cases that show a lesion of another "
                        "type too stay in training, and held-out lesions are ignored there")  # fmt: skip
    args = _parse_conversion(parser, argv)

    from nnunetv2_malenia.dataset_conversion.merge import find_dataset
    from nnunetv2_malenia.dataset_conversion.merge import merge as merge_datasets

    sources = [find_dataset(args.o, text) for text in args.i]
    holdout = [name.strip() for name in args.holdout.split(",") if name.strip()]
    if args.keep_seen and not holdout:
        parser.error("--keep_seen needs --holdout")
    return _print_summary(
        args,
        lambda: merge_datasets(sources, args.o, args.d, _options(args), holdout, keep_seen=args.keep_seen),
    )


def _add_annotations(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument("--annotations", type=Path, metavar="TABLE",
                        help=f"attribute table of single cases (default: the one that ships){more}")  # fmt: skip


def _parse_conversion(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    parser.add_argument("-d", required=True, metavar="DATASET", help="id or name to make, e.g. 3 or Dataset003_Liver")
    parser.add_argument("-o", type=Path, default=os.environ.get("nnUNet_raw"), metavar="FOLDER",  # noqa: SIM112
                        help="raw data folder (default: nnUNet_raw)")  # fmt: skip
    parser.add_argument("--copy", action="store_true", help="copy images instead of linking them")
    parser.add_argument("--skip-bad", action="store_true", help="leave out cases that cannot be used, and list them")
    parser.add_argument("--dry-run", action="store_true", help="check and count everything, write nothing")
    args = parser.parse_args(argv)
    if args.o is None:
        parser.error("give the raw data folder by -o, or set nnUNet_raw")
    return args


def _options(args: argparse.Namespace) -> Options:
    from nnunetv2_malenia.dataset_conversion.conversion import Options

    return Options(copy=args.copy, skip_bad=args.skip_bad, dry_run=args.dry_run)


def _print_summary(args: argparse.Namespace, run: Callable[[], Summary]) -> None:
    """Run a conversion and print what it made; what is wrong with single cases goes to stderr, a line each."""
    from nnunetv2_malenia.dataset_conversion.conversion import BadCasesError

    try:
        summary = run()
    except BadCasesError as error:
        for case_id, reason in error.faults:
            warn(f"{case_id}: {reason}")
        raise
    for case_id, reason in summary.left_out.items():
        warn(f"{case_id} is left out: {reason}")
    print(summary.to_table())
    print("dry run: nothing was written" if args.dry_run else f"written: {args.o / summary.dataset}")

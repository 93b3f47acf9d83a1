"""`malenia_phantom`: phantom CTs, CTs of real label maps, lesions in real CTs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_malenia.cli.messages import counted, one_line_errors, warn
from nnunetv2_malenia.cli.numeric import at_least_one, count_from_zero, not_negative, part, share
from nnunetv2_malenia.files import check_free


@one_line_errors
def phantom(argv: Sequence[str] | None = None) -> int | None:
    """malenia_phantom: phantom CTs, CTs of real label maps, lesions in real CTs."""
    parser = argparse.ArgumentParser(
        prog="malenia_phantom",
        description="Draw CTs whose lesions look as an attribute table says. What is drawn is not clinical data.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_make(commands)
    _add_render(commands)
    _add_insert(commands)
    _add_augment(commands)

    sheet = commands.add_parser("sheet", help="a PNG to look at: three planes through the largest lesion of each case")
    sheet.add_argument("folder", type=Path, help="nnU-Net raw data set, or what insert wrote")
    sheet.add_argument("-o", "--output", type=Path, required=True, metavar="PNG", help="file to write")
    sheet.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    sheet.add_argument("-n", type=at_least_one, default=6, metavar="CASES", help="at most (default: %(default)s)")
    sheet.add_argument(
        "--cases", default="*", metavar="PATTERN", help="of their ids, e.g. '*_synthetic' (default: all)"
    )
    sheet.set_defaults(run=_phantom_sheet)

    splits = commands.add_parser("splits", help="for each split: where the values of unseen types are seen")
    splits.set_defaults(run=_phantom_splits)

    args = parser.parse_args(argv)
    return args.run(args)


def _add_make(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "make",
        help="phantoms as an nnU-Net raw data set",
        description="Write phantoms as an nnU-Net raw data set: training cases with seen lesion types, test cases with "
        "unseen ones beside them, their attributes.",
    )
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="data set folder to make")
    command.add_argument(
        "-n", type=at_least_one, default=120, metavar="CASES", help="to train on (default: %(default)s)"
    )
    command.add_argument("--test_cases", type=at_least_one, default=16, metavar="N", help="default: %(default)s")
    command.add_argument("--split", default="compositional", metavar="NAME", help="see splits (default: %(default)s)")
    command.add_argument("--distractors", type=count_from_zero, default=0, metavar="N",
                         help="more things that only look like lesions, per case (default: %(default)s)")  # fmt: skip
    command.add_argument("--further_features", type=part, default=0.0, metavar="SHARE", help="share of lesions that "
                         "get a further feature, such as dilated ducts (default: %(default)s)")  # fmt: skip
    _add_seed(command)
    command.set_defaults(run=_phantom_make)


def _add_render(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "render",
        help="CTs of real label maps",
        description="Draw a CT of every label map of a folder: organs and lesions lie where the label maps have them, "
        "lesions look as the table says. Writes an nnU-Net raw data set.",
    )
    command.add_argument("--labels", type=Path, required=True, metavar="FOLDER",
                         help="label maps CASE.nii.gz, or KiTS's CASE/segmentation.nii.gz")  # fmt: skip
    _add_table_and_names(command)
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="data set folder to make")
    command.add_argument("--kernel", choices=("soft", "standard", "sharp"), default="standard",
                         help="blur and noise (default: %(default)s)")  # fmt: skip
    command.add_argument("--slice_thickness", type=not_negative, default=0.0, metavar="MM", help="where slices overlap")
    _add_seed(command)
    command.set_defaults(run=_phantom_render)


def _add_insert(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "insert",
        help="lesions into a real CT",
        description="Put a lesion of each type of a table into a CT whose organs are labelled. Writes the image "
        "CASE_0000.nii.gz, the mask CASE.nii.gz and CASE.json, which says how each lesion was drawn.",
    )
    command.add_argument("--image", type=Path, required=True, metavar="CT", help="NIfTI file, HU")
    command.add_argument("--organs", type=Path, required=True, metavar="SEG", help="label map on the grid of the image")
    _add_table_and_names(command)
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="made if it is not there")
    command.add_argument("--diameter", type=float, nargs=2, metavar=("FROM", "TO"), help="mm; default: by lesion type")
    _add_seed(command)
    command.set_defaults(run=_phantom_insert, usage_error=command.error)


def _add_augment(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "augment",
        help="a data set with synthetic lesions beside its own",
        description="Write a raw data set's training cases and, of a share of them, copies with synthetic lesions "
        "whose organ and attributes are drawn evenly. Its labels must name organs.",
    )
    command.add_argument("-d", "--dataset", type=Path, required=True, metavar="FOLDER", help="nnU-Net raw data set")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="data set folder to make")
    command.add_argument("--per_case", type=at_least_one, default=2, metavar="N", help="default: %(default)s")
    command.add_argument("--share", type=share, default=0.5, help="of cases that get a copy (default: %(default)s)")
    command.add_argument("--replace", action="store_true", help="a copy takes the place of its case")
    command.add_argument("--exclude", type=Path, metavar="TABLE", help="never location and density of its types (JSON)")
    command.add_argument("--types", nargs="+", default=(), metavar="TYPE", help="of --exclude (default: all of them)")
    _add_seed(command)
    command.set_defaults(run=_phantom_augment)


def _add_table_and_names(command: argparse.ArgumentParser) -> None:
    command.add_argument("--attributes", type=Path, required=True, metavar="TABLE", help="attribute table (JSON)")
    command.add_argument("--names", type=Path, metavar="JSON", help="label names and values, as in a dataset.json "
                         "(default: one beside or above, else names in the file as of TotalSegmentator)")  # fmt: skip


def _add_seed(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed", type=count_from_zero, default=0, help="default: %(default)s")


def _phantom_make(args: argparse.Namespace) -> None:
    from nnunetv2_malenia.demo.phantom_dataset import write_phantom_dataset
    from nnunetv2_malenia.phantom import PhantomConfig
    from nnunetv2_malenia.phantom.composition import split

    seen, unseen = split(args.split)
    write_phantom_dataset(
        args.output,
        train_cases=args.n,
        test_cases=args.test_cases,
        seen=seen,
        unseen=unseen,
        seed=args.seed,
        config=PhantomConfig(further_features=args.further_features, distractors=args.distractors),
    )
    print(f"{args.output}: {counted(args.n, 'training case')}, {counted(args.test_cases, 'test case')}")


def _phantom_render(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from nnunetv2_malenia.attributes.tables import read_table
    from nnunetv2_malenia.demo.real_anatomy import render_dataset
    from nnunetv2_malenia.phantom.rendering import KERNELS

    scanner = replace(KERNELS[args.kernel], slice_thickness_mm=args.slice_thickness)
    count, remarks = render_dataset(
        args.labels, read_table(args.attributes), args.output, names_file=args.names, scanner=scanner, seed=args.seed
    )
    for remark in remarks:
        warn(remark)
    print(f"{args.output}: {counted(count, 'case')}")


def _phantom_insert(args: argparse.Namespace) -> None:
    from nnunetv2_malenia.attributes.tables import read_table
    from nnunetv2_malenia.demo.real_anatomy import insert_into_image

    if args.diameter and not 0 < args.diameter[0] <= args.diameter[1]:
        args.usage_error("--diameter FROM TO: FROM must be above 0 and at most TO, e.g. 10 30")
    table = read_table(args.attributes)
    case_id, remarks = insert_into_image(
        args.image,
        args.organs,
        table,
        args.output,
        names_file=args.names,
        diameter_mm=tuple(args.diameter) if args.diameter else None,
        seed=args.seed,
    )
    for remark in remarks:
        warn(remark)
    print(f"{args.output}: {case_id}, {counted(len(table.lesions), 'lesion')}")


def _phantom_augment(args: argparse.Namespace) -> None:
    from nnunetv2_malenia.attributes.tables import read_table
    from nnunetv2_malenia.demo.augmentation import augment_dataset

    count, added, remarks = augment_dataset(
        args.dataset,
        args.output,
        per_case=args.per_case,
        share=args.share,
        replace=args.replace,
        excluded=read_table(args.exclude) if args.exclude else None,
        types=args.types,
        seed=args.seed,
    )
    for remark in remarks:
        warn(remark)
    print(f"{args.output}: {counted(count, 'case')}, {counted(added, 'case')} with synthetic lesions")


def _phantom_sheet(args: argparse.Namespace) -> None:
    from nnunetv2_malenia.phantom.sheet import write_sheet

    check_free([args.output], overwrite=args.overwrite)
    print(f"{args.output}: {counted(write_sheet(args.folder, args.output, count=args.n, pattern=args.cases), 'case')}")


def _phantom_splits(args: argparse.Namespace) -> None:
    from nnunetv2_malenia.phantom.composition import SPLITS, composition_table

    for name, (seen, unseen) in SPLITS.items():
        print(f"{name}\n\n{composition_table(seen, unseen)}\n")

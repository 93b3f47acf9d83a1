"""`malenia_predict_zeroshot`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_malenia import __version__
from nnunetv2_malenia.cli.messages import counted, fail, one_line_errors, print_table, warn
from nnunetv2_malenia.cli.numeric import at_least_one, count_from_zero, not_negative, probability, share

if TYPE_CHECKING:
    from nnunetv2_malenia.attributes.schema import LesionQuery
    from nnunetv2_malenia.inference.run_record import RunRecord


MAX_ROWS = 40  # of the table of lesions on the terminal
_OF_TRAINING = {
    "p": ("plans", "nnUNetPlans"),
    "tr": ("trainer", "MaleniaTrainer"),
    "c": ("configuration", "3d_fullres"),
}


class _Example(argparse.Action):
    """Like --help, it needs no other argument."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from nnunetv2_malenia.demo.example import write_example

        folder = Path("malenia_example")
        image, table = write_example(folder)
        options = f"-o {folder / 'answers'} --attributes {table} -m phantom -npp 0 -nps 0 --disable_tta"
        print(f"$ {parser.prog} -i {image} {options}", flush=True)
        if (status := predict_zeroshot(["-i", str(image), *options.split()])) == 0:
            print("CT.nii.gz is the label map, CT.json has the findings. This phantom was chosen because all three "
                  "lesions are found, if only in part; malenia_demo shows four, with what is missed. For your own CT, "
                  f"give it with -i, and change a copy of {table} to what you look for.")  # fmt: skip
        parser.exit(status)


@one_line_errors
def predict_zeroshot(argv: Sequence[str] | None = None) -> int | None:
    """malenia_predict_zeroshot: segment every lesion type of an attribute table."""
    parser = argparse.ArgumentParser(
        prog="malenia_predict_zeroshot",
        description="Segment lesion types from their attributes, seen in training or not. Options that "
        "nnUNetv2_predict has too mean the same here.",
    )
    parser.add_argument("-i", required=True, type=Path, metavar="FOLDER", help="images, or one image")
    parser.add_argument("-o", required=True, type=Path, metavar="FOLDER", help="output folder, made if it is not there")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--lesions", nargs="+", metavar="WORDS", help="what to find, by names of lesion types or in the "
                       'words of a report: "liver cyst" "round hypodense lesion in the left kidney"')  # fmt: skip
    asked.add_argument("--attributes", metavar="TABLE", help="what to find, as an attribute table: JSON, or the name of"
                       " one that comes with the package; without it, any lesion is found and named")  # fmt: skip
    parser.add_argument("-m", metavar="FOLDER", help="model folder, or the name of a model that comes with the package "
                        "(phantom); instead of -d, -p, -tr and -c")  # fmt: skip
    parser.add_argument("-d", metavar="DATASET", help="data set name or id that the model was trained on")
    for flag, (name, default) in _OF_TRAINING.items():
        parser.add_argument(f"-{flag}", metavar=name.upper(), help=f"{name}; with -d (default: {default})")
    parser.add_argument("-f", nargs="+", metavar="FOLD", help="folds to ensemble (default: all that are trained)")
    parser.add_argument("-chk", default="checkpoint_final.pth", metavar="NAME", help="default: %(default)s")
    parser.add_argument("-step_size", type=share, default=0.5, help="tile step as share of a tile, in (0, 1]")
    parser.add_argument("--disable_tta", action="store_true", help="no mirroring at test time")
    parser.add_argument("--threshold", type=probability, default=0.5, metavar="P",
                        help="probability above which a voxel belongs to a query (default: %(default)s)")  # fmt: skip
    parser.add_argument("--min_volume", type=not_negative, default=0.0, metavar="ML",
                        help="leave out connected components of fewer ml than this (default: %(default)s)")  # fmt: skip
    parser.add_argument("--save_masks", action="store_true", help="write each query's own mask to masks/CASE/")
    parser.add_argument("--save_dicom_seg", action="store_true",
                        help="write the masks to CASE.seg.dcm (DICOM-SEG) too; for DICOM series")  # fmt: skip
    parser.add_argument("--save_probabilities", action="store_true", help="write all probability maps to CASE.npz")
    parser.add_argument("--report", action="store_true", help="write report.html: all answers and images to look at")
    parser.add_argument("--continue_prediction", action="store_true",
                        help="keep answers of an earlier run that still hold: same image, model, queries and options, "
                        "files intact")  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace files of others where results go; without "
                        "it, they are an error before work starts")  # fmt: skip
    parser.add_argument("-num_parts", type=at_least_one, default=1, metavar="N",
                        help="runs that share the cases, side by side (default: %(default)s)")  # fmt: skip
    parser.add_argument("-part_id", type=int, default=0, metavar="I", help="which of them this is, from 0")
    parser.add_argument(
        "-npp", type=count_from_zero, default=3, help="preprocessing processes, or 0 (default: %(default)s)"
    )
    parser.add_argument("-nps", type=count_from_zero, default=3, help="export processes (default: %(default)s)")
    parser.add_argument("-device", "--device", choices=("cuda", "cpu", "mps"),
                        help="default: cuda where there is such a device, else mps, else cpu")  # fmt: skip
    parser.add_argument("--disable_progress_bar", action="store_true")
    parser.add_argument("--version", action="version", version=f"nnunetv2_malenia {__version__}")
    parser.add_argument("--example", nargs=0, action=_Example, help="write a phantom CT and a table to malenia_example/"
                        ", ask the model that comes with the package, show the command")  # fmt: skip
    args = parser.parse_args(argv)
    if (args.m is None) == (args.d is None):
        parser.error("give the model by -m FOLDER, or by -d DATASET with -p, -tr and -c")
    if args.m is not None and (given := [flag for flag in _OF_TRAINING if getattr(args, flag) is not None]):
        parser.error(f"-{given[0]} goes with -d; -m names the whole model, and lesions are asked for by --lesions")
    trained_by = {flag: getattr(args, flag) or default for flag, (_, default) in _OF_TRAINING.items()}
    if not 0 <= args.part_id < args.num_parts:
        parser.error(f"-part_id {args.part_id} is not in 0 to {args.num_parts - 1}; parts are counted from 0")

    from nnunetv2_malenia.attributes.tables import read_table, table_file

    # before torch: what cannot be asked is told at once
    table = read_table(table_file(args.attributes)) if args.attributes else None
    questions = _understood(args.lesions) if args.lesions else table
    from nnunetv2_malenia.inference.export import OutputOptions
    from nnunetv2_malenia.inference.model_folder import SHIPPED_MODELS, model_folder, set_up_device
    from nnunetv2_malenia.inference.predictor import MaleniaPredictor

    device = set_up_device(args.device)
    if args.device is None:
        print(f"device: {device.type}", flush=True)
    predictor = MaleniaPredictor.from_model_folder(
        args.m or model_folder(args.d, trained_by["tr"], trained_by["p"], trained_by["c"]),
        folds=args.f,
        checkpoint_name=args.chk,
        device=device,
        tile_step_size=args.step_size,
        use_mirroring=not args.disable_tta,
        show_progress=not args.disable_progress_bar,
    )
    if SHIPPED_MODELS in predictor.model_folder.parents:
        warn(
            f"the shipped model {args.m} has seen nothing but phantoms, which are synthetic CTs; on a patient's CT its "
            f"answers are untested, and not for clinical use: {predictor.model_folder / 'model_card.md'}"
        )
    predictor.ask(questions) if questions else predictor.discover()
    run = predictor.predict_cases(
        args.i,
        args.o,
        OutputOptions(args.threshold, args.min_volume, args.save_masks, args.save_probabilities, args.save_dicom_seg),
        continue_prediction=args.continue_prediction,
        overwrite=args.overwrite,
        writes_report=args.report,
        reads=[table_file(args.attributes)] if args.attributes else [],
        num_parts=args.num_parts,
        part_id=args.part_id,
        num_processes_preprocessing=args.npp,
        num_processes_export=args.nps,
        arguments={name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
    )
    if args.report:
        from nnunetv2_malenia.report.html import write_report

        page = write_report(args.o / f"run{run.part}.json", args.i, overwrite=args.overwrite)
        print(f"report: {page}")
    _print_lesions(run, args.o)
    return _report_run(run, args.o)


def _print_lesions(run: RunRecord, output_folder: Path) -> None:
    """The lesions of all cases as a table; findings.csv has the rest."""
    from nnunetv2_malenia.inference.export import read_findings

    rows = [("case", "asked for", "ml", "longest mm", "score", "looks most like")]
    for case_id in run.cases:
        findings = read_findings(output_folder / f"{case_id}.json")
        for answer in findings.findings if findings else ():
            rows += [
                (case_id, answer.name, f"{lesion.volume_ml:.1f}", f"{lesion.longest_axial_diameter_mm:.0f}",
                 f"{lesion.presence_score:.2f}", lesion.diseases[0].name if lesion.diseases else "")
                for lesion in answer.lesions
            ] or [(case_id, answer.name, "nothing", "", "", "")]  # fmt: skip
    print_table(rows, most=MAX_ROWS)


def _understood(lesions: Sequence[str]) -> list[LesionQuery]:
    """What was asked in words, told as it was understood."""
    from nnunetv2_malenia.attributes.asking import understand

    questions = [understand(words) for words in lesions]
    for question in questions:
        print("\n".join(question.lines()))
    print(flush=True)
    return [question.query for question in questions]


def _report_run(run: RunRecord, output_folder: Path) -> int:
    """Say how a run's cases ended, in a line each where a person should look -> exit status."""
    for name in run.ignored_files:
        warn(f"{name} is no image of the model's kind; it is ignored")
    for case_id, case in run.cases.items():
        for warning in case.warnings:
            warn(f"case {case_id}: {warning}")
        if case.discarded:
            print(f"case {case_id}: the image contradicts {'; '.join(case.discarded)}")
    for case_id, reason in run.failed.items():
        fail(f"case {case_id}: {reason}")
    states = [case.state for case in run.cases.values()]
    skipped = f", {states.count('SKIPPED')} kept from an earlier run" if "SKIPPED" in states else ""
    print(f"{counted(len(states), 'case')}: {states.count('DONE')} done{skipped}, {len(run.failed)} failed; "
          f"{output_folder}")  # fmt: skip
    return 1 if run.failed else 0

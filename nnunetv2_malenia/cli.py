"""The console commands: arguments and exit codes. Libraries are imported by the command that needs them, not here."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunetv2_malenia.attributes.schema import AttributeTable, LesionEntry
    from nnunetv2_malenia.dataset_conversion.conversion import Options
    from nnunetv2_malenia.dataset_conversion.summary import Summary
    from nnunetv2_malenia.inference.run_record import RunRecord

Command = Callable[[Sequence[str] | None], int | None]
_PAIRS_NAMED_AT_MOST = 10
_CONVERSION = (
    "Images are linked where the file system can. All cases are checked before anything is written; the data set "
    "appears when it is complete, and after an interruption the same command goes on."
)


def one_line_errors(command: Command) -> Command:
    """Make a command end in an exit status: 0, or 1 with one line on stderr for what the user can put right.

    That is any ValueError that this package defines, and any OSError. Other exceptions are faults of the program and
    keep their traceback. argparse exits with 2 on wrong arguments by itself; an interrupt gives 130.
    """

    @wraps(command)
    def run(argv: Sequence[str] | None = None) -> int:
        try:
            status = command(argv) or 0
            sys.stdout.flush()
            return status
        except KeyboardInterrupt:
            return _fail("interrupted", status=130)
        except BrokenPipeError:  # the reader, e.g. `| head`, has seen enough; keep the interpreter from flushing again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except OSError as error:
            return _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
        except ValueError as error:
            if not type(error).__module__.startswith("nnunetv2_malenia."):
                raise
            return _fail(str(error))

    return run


def _fail(message: str, *, status: int = 1) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


@one_line_errors
def attributes(argv: Sequence[str] | None = None) -> int | None:
    """malenia_attributes: check, show and embed attribute tables."""
    parser = argparse.ArgumentParser(prog="malenia_attributes", description="Check, show and embed attribute tables.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    validate = commands.add_parser("validate", help="check tables, name what is wrong and where")
    validate.add_argument("tables", nargs="+", type=Path, metavar="TABLE", help="attribute table (JSON)")
    validate.set_defaults(run=_validate)

    show = commands.add_parser("show", help="print a table, one of its lesions, or the vocabulary")
    show.add_argument("table", nargs="?", type=Path, help="attribute table; default: the Clinical Knowledge Table")
    only = show.add_mutually_exclusive_group()
    only.add_argument("--lesion", metavar="NAME", help="only this lesion type, by name or alias")
    only.add_argument("--vocabulary", action="store_true", help="the known values of every aspect and their synonyms")
    show.set_defaults(run=_show)

    schema = commands.add_parser("schema", help="the JSON Schema of a table, for editors")
    schema.add_argument("-o", "--output", type=Path, metavar="FILE", help="write here instead of to the terminal")
    schema.set_defaults(run=_schema)

    embed = commands.add_parser(
        "embed",
        help="make the text embeddings of a table's phrases",
        description="Embed a table's phrases, and the whole vocabulary with them. Without --encoder by the encoder of "
        "the embeddings that ship with the package, which is loaded only if the table has free text.",
    )
    embed.add_argument("table", type=Path, help="attribute table (JSON)")
    embed.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="safetensors file to write")
    embed.add_argument("--encoder", metavar="ID_OR_FOLDER", help="hub id or local folder of a transformers model")
    embed.add_argument("--revision", help="branch, tag or commit of the encoder on the hub; needs --encoder")
    embed.add_argument("--pooling", choices=("mean", "cls"), help="default: mean; needs --encoder")
    embed.set_defaults(run=_embed)

    separability = commands.add_parser("separability", help="values that the text encoder cannot tell apart")
    separability.add_argument("--bank", type=Path, metavar="FILE", help="embedding bank; default: the one that ships")
    separability.add_argument("--threshold", type=float, default=0.9, help="least cosine (default: %(default)s)")
    separability.set_defaults(run=_separability)

    _add_import(commands)
    _add_from_reports(commands)

    args = parser.parse_args(argv)
    if args.run is _show and args.vocabulary and args.table:
        show.error("argument --vocabulary: not allowed with a table")
    if args.run is _embed and not args.encoder and (args.revision or args.pooling):
        embed.error("--revision and --pooling need --encoder")
    return args.run(args)


def _add_import(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "import",
        help="make a table from an annotation workbook (XLSX)",
        description="Make an attribute table from an annotation workbook: one sheet per lesion type, one row per case, "
        "coded cells. Every cell that is not used as it stands is named, with the reason.",
    )
    command.add_argument("workbook", type=Path, help="XLSX file")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="attribute table to write")
    command.add_argument("--sheet", type=_title_and_lesion, action="append", default=[], metavar="TITLE=LESION",
                         help="the lesion type of a sheet whose title does not say it; may be repeated")  # fmt: skip
    command.set_defaults(run=_import)


def _add_from_reports(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "from-reports",
        help="make a table from free-text radiology reports",
        description="Make an attribute table from radiology reports in English: per case what they state, in the "
        "vocabulary; what a report does not state stays unspecified.",
    )
    command.add_argument("reports", type=Path, help="CSV, XLSX or JSONL with case, lesion, report; or a folder of "
                         "CASE__LESION.txt")  # fmt: skip
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="attribute table to write")
    command.add_argument("--review", type=Path, metavar="CSV", help="write what is unsure here, for a person to check")
    command.add_argument("--evidence", type=Path, metavar="CSV", help="write every value here, with its words")
    command.set_defaults(run=_from_reports, usage_error=command.error)


def _title_and_lesion(text: str) -> tuple[str, str]:
    title, equals, lesion = text.rpartition("=")
    if not (title and equals and lesion):
        raise argparse.ArgumentTypeError(f'{text!r} is not TITLE=LESION, e.g. "Sheet1=kidney tumor"')
    return title, lesion


def _import(args: argparse.Namespace) -> None:
    from nnunetv2_malenia.attributes.sheet_importer import describe, import_sheet
    from nnunetv2_malenia.attributes.tables import write_table

    table, reported = import_sheet(args.workbook, sheets=dict(args.sheet))
    write_table(table, args.output)
    for line in describe(reported):
        _warn(line)
    counts = f"{_count(len(table.cases), 'case')}, {_count(len(table.lesions), 'lesion type')}"
    print(f"{args.output}: {counts}; {_count(len(reported), 'cell')} reported")


def _from_reports(args: argparse.Namespace) -> None:
    from nnunetv2_malenia.attributes.report_files import checked_values_csv, read_reports, table_of_reports
    from nnunetv2_malenia.attributes.tables import write_table, write_text

    outputs = [path.resolve() for path in (args.output, args.review, args.evidence) if path]
    if len(set(outputs)) < len(outputs):
        args.usage_error("-o, --review and --evidence need three different files")
    table, checked = table_of_reports(read_reports(args.reports))
    unsure = [each for each in checked if each.why]
    for path, values in ((args.evidence, checked), (args.review, unsure)):
        if path:
            write_text(checked_values_csv(values), path)
    write_table(table, args.output)
    counts = f"{_count(len(table.cases), 'case')}, {_count(len(table.lesions), 'lesion type')}"
    where = args.review or "--review writes them down" if unsure else ""
    print(f"{args.output}: {counts}; {len(unsure)} to review{f': {where}' if where else ''}")


def _validate(args: argparse.Namespace) -> int:
    from nnunetv2_malenia.attributes.schema import AttributeTableError
    from nnunetv2_malenia.attributes.tables import read_table

    status = 0
    for path in args.tables:
        try:
            table = read_table(path)
        except AttributeTableError as error:
            status = _fail(str(error))
            continue
        counts = (
            _count(len(table.lesions), "lesion type"),
            _count(len(table.cases), "case"),
            _count(len(table.phrases()), "phrase"),
        )
        print(f"{path}: OK, {', '.join(counts)}")
        for warning in _doubts(table):
            _warn(f"{path}: {warning}")
    return status


def _doubts(table: AttributeTable) -> Iterable[str]:
    """What is allowed in a table and may still be a slip."""
    from nnunetv2_malenia.attributes.tables import indistinguishable_lesions, vocabulary

    for aspect, phrase in table.phrases():
        if phrase not in vocabulary().values(aspect):
            near = vocabulary().closest(aspect, phrase)
            hint = f"closest: {', '.join(near)}" if near else "see `malenia_attributes show --vocabulary`"
            yield f"{aspect}: {phrase!r} is free text, not in the vocabulary ({hint})"
    pairs = indistinguishable_lesions(table)
    for a, b in pairs[:_PAIRS_NAMED_AT_MOST]:
        yield f"no aspect tells {a!r} from {b!r}; state one in which they differ"
    if len(pairs) > _PAIRS_NAMED_AT_MOST:
        yield f"{_count(len(pairs) - _PAIRS_NAMED_AT_MOST, 'more pair')} of lesions that no aspect tells apart"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _show(args: argparse.Namespace) -> None:
    from nnunetv2_malenia.attributes.tables import clinical_knowledge_table, read_table

    if args.vocabulary:
        _show_vocabulary()
        return
    table = read_table(args.table) if args.table else clinical_knowledge_table()
    if args.lesion:
        entry = table.entry(args.lesion)
        _show_lesion(table.find(args.lesion), entry)
        return
    title = table.name or (args.table.name if args.table else "")
    print(_wrapped(f"{title}: {table.description}" if table.description else title))
    for name, entry in table.lesions.items():
        print()
        _show_lesion(name, entry)
    if table.cases:
        own = sum(bool(case.lesions) for case in table.cases.values())
        print(f"\n{_count(len(table.cases), 'case')}, {own} with attributes of their own")


def _show_lesion(name: str, entry: LesionEntry) -> None:
    print(name)
    rows = {"also called": entry.aliases, **entry.stated}
    for head, values in rows.items():
        if values:
            print(_wrapped(f"  {head:<18} {' | '.join(values)}", indent=21))
    for reference in entry.references:
        print(_wrapped(f"  {'reference':<18} {reference}", indent=21))


def _show_vocabulary() -> None:
    from nnunetv2_malenia.attributes.tables import vocabulary

    for aspect, content in vocabulary().aspects.items():
        print(_wrapped(f"{aspect}: {content.about}"))
        for value, synonyms in content.values.items():
            print(_wrapped(f"  {value}" + (f" (also: {', '.join(synonyms)})" if synonyms else ""), indent=4))
        print()


def _wrapped(text: str, *, indent: int = 0) -> str:
    width = max(60, shutil.get_terminal_size((120, 24)).columns)
    return fill(text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def _schema(args: argparse.Namespace) -> None:
    from nnunetv2_malenia.attributes.tables import json_schema_text, write_text

    if args.output is None:
        print(json_schema_text(), end="")
    else:
        write_text(json_schema_text(), args.output)


def _embed(args: argparse.Namespace) -> None:
    from nnunetv2_malenia.attributes.bank import EmbeddingBank, default_bank, embed_phrases
    from nnunetv2_malenia.attributes.tables import clinical_knowledge_table, read_table, vocabulary
    from nnunetv2_malenia.attributes.text_encoder import TransformersEncoder, minilm_encoder

    table = read_table(args.table)
    phrases = [*vocabulary().phrases(), *clinical_knowledge_table().phrases(), *table.phrases()]
    if args.encoder:
        encoder = TransformersEncoder(args.encoder, revision=args.revision, pooling=args.pooling or "mean")
        bank = EmbeddingBank.build(phrases, encoder)
    else:
        bank = embed_phrases(phrases, default_bank(), minilm_encoder)
    bank.save(args.output)
    print(f"{args.output}: {_count(len(bank), 'phrase')}, {bank.vectors.shape[1]} numbers each, by {bank.fingerprint}")


def _separability(args: argparse.Namespace) -> None:
    from nnunetv2_malenia.attributes.bank import EmbeddingBank, default_bank
    from nnunetv2_malenia.attributes.separability import centred, confusable_pairs, separability_summary

    bank = EmbeddingBank.load(args.bank) if args.bank else default_bank()
    print(f"{bank.fingerprint}\n\n{separability_summary(bank, threshold=args.threshold)}")
    for how, each in (("raw", bank), ("centred", centred(bank))):
        print()
        for pair in confusable_pairs(each, threshold=args.threshold):
            print(f"{how} {pair.cosine:.2f} {pair.aspect}: {pair.value_a} / {pair.value_b}")


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
    parser.add_argument("--attributes", required=True, type=Path, metavar="TABLE", help="attribute table (JSON)")
    parser.add_argument("-m", type=Path, metavar="FOLDER", help="model folder; instead of -d, -p, -tr and -c")
    parser.add_argument("-d", metavar="DATASET", help="data set name or id that the model was trained on")
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans identifier (default: %(default)s)")
    parser.add_argument("-tr", default="MaleniaTrainer", metavar="TRAINER", help="trainer (default: %(default)s)")
    parser.add_argument("-c", default="3d_fullres", metavar="CONFIGURATION", help="default: %(default)s")
    parser.add_argument("-f", nargs="+", metavar="FOLD", help="folds to ensemble (default: all that are trained)")
    parser.add_argument("-chk", default="checkpoint_final.pth", metavar="NAME", help="default: %(default)s")
    parser.add_argument("-step_size", type=_step_size, default=0.5, help="tile step as share of a tile, in (0, 1]")
    parser.add_argument("--disable_tta", action="store_true", help="no mirroring at test time")
    parser.add_argument("--threshold", type=_probability, default=0.5, metavar="P",
                        help="probability above which a voxel belongs to a query (default: %(default)s)")  # fmt: skip
    parser.add_argument("--min_volume", type=_not_negative, default=0.0, metavar="ML",
                        help="leave out connected components of fewer ml than this (default: %(default)s)")  # fmt: skip
    parser.add_argument("--save_masks", action="store_true", help="write each query's own mask to masks/CASE/")
    parser.add_argument("--save_probabilities", action="store_true", help="write all probability maps to CASE.npz")
    parser.add_argument("--continue_prediction", action="store_true",
                        help="keep answers of an earlier run that still hold: same image, model, queries and options, "
                        "files intact")  # fmt: skip
    parser.add_argument("-num_parts", type=_at_least_one, default=1, metavar="N",
                        help="runs that share the cases, side by side (default: %(default)s)")  # fmt: skip
    parser.add_argument("-part_id", type=int, default=0, metavar="I", help="which of them this is, from 0")
    parser.add_argument(
        "-npp", type=_count_from_zero, default=3, help="preprocessing processes, or 0 (default: %(default)s)"
    )
    parser.add_argument("-nps", type=_count_from_zero, default=3, help="export processes (default: %(default)s)")
    parser.add_argument("-device", choices=("cuda", "cpu", "mps"), default="cuda", help="default: %(default)s")
    parser.add_argument("--disable_progress_bar", action="store_true")
    args = parser.parse_args(argv)
    if (args.m is None) == (args.d is None):
        parser.error("give the model by -m FOLDER, or by -d DATASET with -p, -tr and -c")
    if not 0 <= args.part_id < args.num_parts:
        parser.error(f"-part_id {args.part_id} is not in 0 to {args.num_parts - 1}; parts are counted from 0")

    from nnunetv2_malenia.attributes.tables import read_table

    table = read_table(args.attributes)  # before torch: a wrong table is told at once
    from nnunetv2_malenia.inference.export import OutputOptions
    from nnunetv2_malenia.inference.model_folder import model_folder, set_up_device
    from nnunetv2_malenia.inference.predictor import MaleniaPredictor

    predictor = MaleniaPredictor.from_model_folder(
        args.m or model_folder(args.d, args.tr, args.p, args.c),
        folds=args.f,
        checkpoint_name=args.chk,
        device=set_up_device(args.device),
        tile_step_size=args.step_size,
        use_mirroring=not args.disable_tta,
        show_progress=not args.disable_progress_bar,
    )
    predictor.ask(table)
    run = predictor.predict_cases(
        args.i,
        args.o,
        OutputOptions(args.threshold, args.min_volume, args.save_masks, args.save_probabilities),
        overwrite=not args.continue_prediction,
        num_parts=args.num_parts,
        part_id=args.part_id,
        num_processes_preprocessing=args.npp,
        num_processes_export=args.nps,
        arguments={name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
    )
    return _report_run(run, args.o)


def _report_run(run: RunRecord, output_folder: Path) -> int:
    """Say how a run's cases ended, in a line each where a person should look -> exit status."""
    for name in run.ignored_files:
        _warn(f"{name} is no image of the model's kind; it is ignored")
    for case_id, case in run.cases.items():
        for warning in case.warnings:
            _warn(f"case {case_id}: {warning}")
    for case_id, reason in run.failed.items():
        _fail(f"case {case_id}: {reason}")
    states = [case.state for case in run.cases.values()]
    skipped = f", {states.count('SKIPPED')} kept from an earlier run" if "SKIPPED" in states else ""
    print(f"{_count(len(states), 'case')}: {states.count('DONE')} done{skipped}, {len(run.failed)} failed; "
          f"{output_folder}")  # fmt: skip
    return 1 if run.failed else 0


def _count_from_zero(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return value


def _probability(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1)")
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return value


def _step_size(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in (0, 1]")
    return value


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


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
    args = _parse_conversion(parser, argv)

    from nnunetv2_malenia.dataset_conversion.merge import find_dataset
    from nnunetv2_malenia.dataset_conversion.merge import merge as merge_datasets

    sources = [find_dataset(args.o, text) for text in args.i]
    holdout = [name.strip() for name in args.holdout.split(",") if name.strip()]
    return _print_summary(args, lambda: merge_datasets(sources, args.o, args.d, _options(args), holdout))


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
            _warn(f"{case_id}: {reason}")
        raise
    for case_id, reason in summary.left_out.items():
        _warn(f"{case_id} is left out: {reason}")
    print(summary.to_table())
    print("dry run: nothing was written" if args.dry_run else f"written: {args.o / summary.dataset}")


@one_line_errors
def demo(argv: Sequence[str] | None = None) -> int | None:
    """malenia_demo: the whole path on phantoms."""
    parser = argparse.ArgumentParser(
        prog="malenia_demo",
        description="Make phantom CTs, train a MaleniaTrainer on them through nnU-Net's own commands, ask for lesion "
        "types that it never saw, and score the answers. Needs no data, GPU or download.",
    )
    parser.add_argument("-o", type=Path, default=Path("malenia_demo_output"), metavar="FOLDER",
                        help="everything goes here; run again to go on (default: %(default)s)")  # fmt: skip
    parser.add_argument("--minutes", type=int, default=15, help="rough time on two cores (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu", help="default: %(default)s")
    parser.add_argument("--baseline", action="store_true", help="train an any-lesion nnU-Net of the same budget too")
    parser.add_argument("--train_cases", type=_at_least_one, default=120, help="phantoms (default: %(default)s)")
    parser.add_argument("--test_cases", type=_at_least_one, default=16, help="phantoms (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the phantoms (default: %(default)s)")
    args = parser.parse_args(argv)

    from nnunetv2_malenia.demo.run import DemoOptions, run_demo

    run_demo(
        DemoOptions(
            output_folder=args.o,
            minutes=args.minutes,
            device=args.device,
            baseline=args.baseline,
            train_cases=args.train_cases,
            test_cases=args.test_cases,
            seed=args.seed,
        )
    )


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

    sheet = commands.add_parser("sheet", help="a PNG to look at: three planes through the largest lesion of each case")
    sheet.add_argument("folder", type=Path, help="nnU-Net raw data set, or what insert wrote")
    sheet.add_argument("-o", "--output", type=Path, required=True, metavar="PNG", help="file to write")
    sheet.add_argument("-n", type=_at_least_one, default=6, metavar="CASES", help="at most (default: %(default)s)")
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
        "-n", type=_at_least_one, default=120, metavar="CASES", help="to train on (default: %(default)s)"
    )
    command.add_argument("--test_cases", type=_at_least_one, default=16, metavar="N", help="default: %(default)s")
    command.add_argument("--split", default="compositional", metavar="NAME", help="see splits (default: %(default)s)")
    command.add_argument("--distractors", type=_not_negative, default=0, metavar="N", help="more things that look like "
                         "lesions and are none, in each case (default: %(default)s)")  # fmt: skip
    command.add_argument("--further_features", type=float, default=0.0, metavar="SHARE", help="share of lesions that "
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
    command.add_argument("--slice_thickness", type=float, default=0.0, metavar="MM", help="where slices overlap")
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
    command.set_defaults(run=_phantom_insert)


def _add_table_and_names(command: argparse.ArgumentParser) -> None:
    command.add_argument("--attributes", type=Path, required=True, metavar="TABLE", help="attribute table (JSON)")
    command.add_argument("--names", type=Path, metavar="JSON", help="label names and values, as in a dataset.json "
                         "(default: one beside or above, else names in the file as of TotalSegmentator)")  # fmt: skip


def _add_seed(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed", type=_not_negative, default=0, help="default: %(default)s")


def _not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


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
    print(f"{args.output}: {_count(args.n, 'training case')}, {_count(args.test_cases, 'test case')}")


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
        _warn(remark)
    print(f"{args.output}: {_count(count, 'case')}")


def _phantom_insert(args: argparse.Namespace) -> None:
    from nnunetv2_malenia.attributes.tables import read_table
    from nnunetv2_malenia.demo.real_anatomy import insert_into_image

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
        _warn(remark)
    print(f"{args.output}: {case_id}, {_count(len(table.lesions), 'lesion')}")


def _phantom_sheet(args: argparse.Namespace) -> None:
    from nnunetv2_malenia.phantom.sheet import write_sheet

    print(f"{args.output}: {_count(write_sheet(args.folder, args.output, count=args.n), 'case')}")


def _phantom_splits(args: argparse.Namespace) -> None:
    from nnunetv2_malenia.phantom.composition import SPLITS, composition_table

    for name, (seen, unseen) in SPLITS.items():
        print(f"{name}\n\n{composition_table(seen, unseen)}\n")


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
    parser.add_argument("--tolerance_mm", type=_millimetres, default=2.0, metavar="MM",
                        help="of NSD (default: %(default)g, as in FLARE 2023 for tumors; the published figures state "
                        "none)")  # fmt: skip
    parser.add_argument("--unseen", type=_names, metavar="TYPES", help="lesion types, separated by commas, that "
                        "training did not show (default: as queries.json says)")  # fmt: skip
    parser.add_argument("--any_lesion", metavar="LABEL", help="score this one predicted label against every type")
    parser.add_argument("--oracle", action="store_true", help="score a second time without predicted components that "
                        "lie in lesions of other types; needs --any_lesion")  # fmt: skip
    parser.add_argument("-np", type=_at_least_one, default=3, help="processes (default: %(default)s)")
    parser.add_argument("--disable_progress_bar", action="store_true")
    args = parser.parse_args(argv)
    if args.oracle and not args.any_lesion:
        parser.error("--oracle needs --any_lesion")

    from nnunetv2_malenia.evaluation.comparison import EvaluationOptions
    from nnunetv2_malenia.evaluation.evaluate import evaluate_folder, write_evaluation

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
    evaluation = evaluate_folder(options, progress=not args.disable_progress_bar)
    folder = args.o or args.i / "evaluation"
    write_evaluation(evaluation, folder)
    for note in evaluation.notes:
        print(f"note: {note}", file=sys.stderr)
    print(evaluation.table())
    print(f"written: {folder}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _millimetres(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a distance in mm")
    return value

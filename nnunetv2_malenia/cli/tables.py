"""`malenia_attributes`: attribute tables, their vocabulary, embeddings and sources."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from nnunetv2_malenia.cli.messages import counted, fail, one_line_errors, warn
from nnunetv2_malenia.cli.numeric import part
from nnunetv2_malenia.files import check_free

if TYPE_CHECKING:
    from nnunetv2_malenia.attributes.schema import AttributeTable, LesionEntry


_PAIRS_NAMED_AT_MOST = 10


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
    separability.add_argument("--threshold", type=part, default=0.9, help="least cosine (default: %(default)s)")
    separability.set_defaults(run=_separability)

    _add_import(commands)
    _add_from_reports(commands)
    for command in (schema, embed, commands.choices["import"], commands.choices["from-reports"]):
        command.add_argument("--overwrite", action="store_true", help="replace files that are there")

    args = parser.parse_args(argv)
    if args.run is _show and args.vocabulary and args.table:
        show.error("argument --vocabulary: not allowed with a table")
    if args.run is _embed and not args.encoder and (args.revision or args.pooling):
        embed.error("--revision and --pooling need --encoder")
    named = [path for option in ("output", "review", "evidence") if (path := getattr(args, option, None))]
    read = [path for option in ("table", "workbook", "reports") if (path := getattr(args, option, None))]
    check_free(named, read, overwrite=getattr(args, "overwrite", False))
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
        warn(line)
    counts = f"{counted(len(table.cases), 'case')}, {counted(len(table.lesions), 'lesion type')}"
    print(f"{args.output}: {counts}; {counted(len(reported), 'cell')} reported")


def _from_reports(args: argparse.Namespace) -> None:
    from nnunetv2_malenia.attributes.report_files import checked_values_csv, read_reports, table_of_reports
    from nnunetv2_malenia.attributes.tables import write_table
    from nnunetv2_malenia.files import write_text

    outputs = [path.resolve() for path in (args.output, args.review, args.evidence) if path]
    if len(set(outputs)) < len(outputs):
        args.usage_error("-o, --review and --evidence need three different files")
    table, checked = table_of_reports(read_reports(args.reports))
    unsure = [each for each in checked if each.why]
    for path, values in ((args.evidence, checked), (args.review, unsure)):
        if path:
            write_text(path, checked_values_csv(values))
    write_table(table, args.output)
    counts = f"{counted(len(table.cases), 'case')}, {counted(len(table.lesions), 'lesion type')}"
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
            status = fail(str(error))
            continue
        counts = (
            counted(len(table.lesions), "lesion type"),
            counted(len(table.cases), "case"),
            counted(len(table.phrases()), "phrase"),
        )
        print(f"{path}: OK, {', '.join(counts)}")
        for warning in _doubts(table):
            warn(f"{path}: {warning}")
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
        yield f"{counted(len(pairs) - _PAIRS_NAMED_AT_MOST, 'more pair')} of lesions that no aspect tells apart"


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
        print(f"\n{counted(len(table.cases), 'case')}, {own} with attributes of their own")


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
    from nnunetv2_malenia.attributes.tables import json_schema_text
    from nnunetv2_malenia.files import write_text

    if args.output is None:
        print(json_schema_text(), end="")
    else:
        write_text(args.output, json_schema_text())


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
    print(f"{args.output}: {counted(len(bank), 'phrase')}, {bank.vectors.shape[1]} numbers each, by {bank.fingerprint}")


def _separability(args: argparse.Namespace) -> None:
    from nnunetv2_malenia.attributes.bank import EmbeddingBank, default_bank
    from nnunetv2_malenia.attributes.separability import centred, confusable_pairs, separability_summary

    bank = EmbeddingBank.load(args.bank) if args.bank else default_bank()
    print(f"{bank.fingerprint}\n\n{separability_summary(bank, threshold=args.threshold)}")
    for how, each in (("raw", bank), ("centred", centred(bank))):
        print()
        for pair in confusable_pairs(each, threshold=args.threshold):
            print(f"{how} {pair.cosine:.2f} {pair.aspect}: {pair.value_a} / {pair.value_b}")

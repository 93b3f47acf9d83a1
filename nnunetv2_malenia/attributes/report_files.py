"""Files of reports (CSV, XLSX, JSONL, a folder of .txt) -> attribute table, and what a person should check."""

import csv
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from nnunetv2_malenia.attributes.report_parser import ParsedReport, parse_report
from nnunetv2_malenia.attributes.schema import (
    ASPECTS,
    AspectValues,
    AttributeTable,
    CaseEntry,
    LesionEntry,
    Name,
    lesion_key,
)
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table
from nnunetv2_malenia.attributes.workbooks import read_workbook
from nnunetv2_malenia.files import MaleniaError
from nnunetv2_malenia.files.json_files import parse_json

COLUMNS = ("case", "lesion", "report")
_SUFFIXES = ".csv, .xlsx, .jsonl, or a folder of .txt files"
_TEXT_NAME = "CASE__LESION.txt, e.g. case_00001__kidney tumor.txt"


class ReportFileError(MaleniaError):
    """Reports that cannot be read; the message is one line: file, row, what is wrong, what to do."""


class Report(BaseModel):
    """One report about one lesion type of one case."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    case: Name
    lesion: Name
    report: str


class CheckedValue(NamedTuple):
    """One value of a report, for a person to check: the words that gave it, where they stand, how sure it is, and why
    to look at it ("" if there is no need). Without an aspect it is about the report as a whole."""

    case: str
    lesion: str
    aspect: str
    value: str
    confidence: str
    words: str
    start: str
    end: str
    why: str


def read_reports(path: str | os.PathLike[str]) -> list[Report]:
    """All reports of a file or folder, in its order.

    CSV (UTF-8) and XLSX have the columns case, lesion, report, and no others; JSONL has an object with these entries in
    each line; in a folder, CASE__LESION.txt holds one report. Raises ReportFileError, WorkbookError or OSError.
    """
    source = Path(path)
    if source.is_dir():
        found = list(_from_folder(source))
    elif not source.is_file():
        raise ReportFileError(f"{source}: no such file or folder; give {_SUFFIXES}")
    elif source.suffix.lower() == ".csv":
        found = list(_from_csv(source))
    elif source.suffix.lower() == ".xlsx":
        found = list(_from_workbook(source))
    elif source.suffix.lower() == ".jsonl":
        found = list(_from_json_lines(source))
    else:
        raise ReportFileError(f"{source}: the ending {source.suffix!r} is not known; give {_SUFFIXES}")
    if not found:
        raise ReportFileError(f"{source}: holds no report; give {_SUFFIXES}")
    return found


def table_of_reports(reports: Iterable[Report]) -> tuple[AttributeTable, list[CheckedValue]]:
    """The attribute table of the reports' cases, and every value with the words that gave it.

    A lesion type is that of the Clinical Knowledge Table if its name or an alias of it is there; any other gets the
    values of all its reports as alternatives. Reports of one lesion and case become alternatives. A case whose reports
    deny a lesion has no entry for it. Raises ReportFileError for a lesion type that is in no row of that table and of
    which no report states anything.
    """
    knowledge = clinical_knowledge_table()
    cases: dict[str, dict[str, AspectValues]] = {}
    own: dict[str, AspectValues] = {}
    checked: list[CheckedValue] = []
    names: dict[str, str] = {}
    types: dict[str, None] = {}
    for report in reports:
        lesion = knowledge.find(report.lesion) or names.setdefault(lesion_key(report.lesion), report.lesion)
        parsed = parse_report(report.report, lesion)
        types[lesion] = None
        entries = cases.setdefault(report.case, {})
        if not parsed.is_denied:
            entries[lesion] = _alternatives(entries.get(lesion, AspectValues()), parsed.attributes)
        if lesion not in knowledge.lesions:
            own[lesion] = _alternatives(own.get(lesion, AspectValues()), parsed.attributes)
        checked += _checked(report.case, lesion, parsed)
    if silent := [lesion for lesion, values in own.items() if not values.stated]:
        raise ReportFileError(
            f"no report states anything of {silent[0]!r}, which is not in the Clinical Knowledge Table either; correct "
            "the name (`malenia_attributes show` lists them) or leave its rows out"
        )
    lesions = {name: LesionEntry(**own[name].stated) if name in own else knowledge.lesions[name] for name in types}
    return (
        AttributeTable(
            name="Attributes from reports",
            description="Per case what radiology reports state, read by rules (malenia_attributes from-reports).",
            lesions=lesions,
            cases={case: CaseEntry(lesions=entries) for case, entries in cases.items()},
        ),
        checked,
    )


def checked_values_csv(checked: Iterable[CheckedValue]) -> str:
    """Checked values as CSV, with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CheckedValue._fields)
    writer.writerows(checked)
    return text.getvalue()


def _alternatives(a: AspectValues, b: AspectValues) -> AspectValues:
    return AspectValues(**{aspect: (*getattr(a, aspect), *getattr(b, aspect)) for aspect in ASPECTS})


def _checked(case: str, lesion: str, parsed: ParsedReport) -> Iterator[CheckedValue]:
    for each in parsed.evidence:
        where = (f"{each.confidence:.2f}", " ".join(each.words.split()), str(each.start), str(each.end))
        yield CheckedValue(case, lesion, each.aspect, each.value, *where, each.doubt)
    for lengths in parsed.diameters_mm:
        size = " x ".join(f"{length:g}" for length in lengths)
        yield CheckedValue(case, lesion, "diameters_mm", size, "", "", "", "", "")
    for reason in parsed.unclear:
        yield CheckedValue(case, lesion, "", "", "", "", "", "", reason)


def _report(where: str, entries: dict[str, object]) -> Report:
    """A report from what stands in a row. Raises ReportFileError with what is wrong in it."""
    missing = [column for column in COLUMNS if entries.get(column) is None]
    if missing:
        raise ReportFileError(f"{where}: no {missing[0]}; every row needs {', '.join(COLUMNS)}")
    try:
        return Report.model_validate(entries)
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0])
        if fault["type"] == "extra_forbidden":
            raise ReportFileError(f"{where}: unknown column {name!r}; keep only {', '.join(COLUMNS)}") from None
        reason = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else "not a text; write it as text"
        raise ReportFileError(f"{where}: {name}: {reason}") from None


def _text_of(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReportFileError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None


def _from_rows(path: Path, rows: Iterable[tuple[int, list[str]]], sheet: str = "") -> Iterator[Report]:
    """Reports from rows with their numbers, the first of which is the header."""
    header: list[str] | None = None
    for number, cells in rows:
        where = f"{path}: {f'sheet {sheet!r}, ' if sheet else ''}row {number}"
        if header is None:
            header = [cell.strip().lower() for cell in cells]
            if missing := [column for column in COLUMNS if column not in header]:
                raise ReportFileError(f"{where}: no column {missing[0]!r}; the header is {','.join(COLUMNS)}")
            if len(set(header)) < len(header):
                raise ReportFileError(f"{where}: two columns have the same name; keep only {', '.join(COLUMNS)}")
        elif "".join(cells).strip():
            if len(cells) > len(header):
                raise ReportFileError(
                    f"{where}: {len(cells)} cells, the header has {len(header)}; quote a report that has commas"
                )
            yield _report(where, dict(zip(header, cells, strict=False)))


def _from_csv(path: Path) -> Iterator[Report]:
    reader = csv.reader(io.StringIO(_text_of(path), newline=""), strict=True)
    try:
        yield from _from_rows(path, enumerate(reader, start=1))
    except csv.Error as error:
        raise ReportFileError(
            f"{path}: line {reader.line_num}: not CSV ({error}); put quotes round the report"
        ) from None


def _from_workbook(path: Path) -> Iterator[Report]:
    for title, rows in read_workbook(path).items():
        width = max(map(len, rows[:1]), default=0)
        texts = (["" if cell is None else str(cell) for cell in row] + [""] * (width - len(row)) for row in rows)
        yield from _from_rows(path, enumerate(texts, start=1), title)


def _from_json_lines(path: Path) -> Iterator[Report]:
    for number, line in enumerate(_text_of(path).split("\n"), start=1):
        where = f"{path}: row {number}"
        if not line.strip():
            continue
        entries = parse_json(line.encode(), Any, where, error=ReportFileError)
        if not isinstance(entries, dict):
            raise ReportFileError(
                f"{where}: not an object; write e.g. " + '{"case": "a", "lesion": "b", "report": "c"}'
            )
        yield _report(where, entries)


def _from_folder(path: Path) -> Iterator[Report]:
    for file in sorted(each for each in path.iterdir() if each.suffix.lower() == ".txt" and each.name[0] != "."):
        case, separator, lesion = file.stem.partition("__")
        if not (case and separator and lesion):
            raise ReportFileError(f"{file}: the name does not say case and lesion; name it {_TEXT_NAME}")
        yield _report(str(file), {"case": case, "lesion": lesion.replace("_", " "), "report": _text_of(file)})

"""Annotation workbook -> attribute table, with every cell that was not used as it stands, and why."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from nnunetv2_malenia.attributes.schema import AspectValues, AttributeTable, CaseEntry, lesion_key
from nnunetv2_malenia.attributes.sheet_codes import CASE, CODED_ASPECTS, REPORT, SHEETS, Codes, column_of_header
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table
from nnunetv2_malenia.attributes.workbooks import Row, read_workbook
from nnunetv2_malenia.files import MaleniaError

SOURCE_LICENSE = "MIT"
_PUBLISHED_SHA256 = "e54e227c23f0450d8eacfbf7ec213574664af2bd5a0b64bd77a8bb68268c3348"
_PUBLISHED_SOURCE = (
    " (Malenia's authors, Jiang et al., ICLR 2025, annotations_of_lesion_descriptions.xlsx, for cases of the Medical "
    "Segmentation Decathlon and KiTS)"
)
_DESCRIPTION = (
    "Lesion types as in the Clinical Knowledge Table; per case what the codes of the annotation workbook say{source}. "
    "Codes only: specific features are not coded. Not for clinical use."
)


class SheetError(MaleniaError):
    """A workbook that cannot be imported as a whole; the message is one line."""


class ReportedCell(NamedTuple):
    """A cell that was not used as it stands. `values` is what was made of it, () if nothing; row 0 is the sheet."""

    sheet: str
    row: int
    case: str
    aspect: str
    content: str
    values: tuple[str, ...]
    reason: str


class ReportedText(NamedTuple):
    """A row's free text, with where it stands and what the codes beside it say; a worked example is of no case."""

    lesion: str
    row: int
    case: str
    text: str
    coded: dict[str, tuple[str, ...]]

    @property
    def is_worked_example(self) -> bool:
        """Whether the row shows how to fill in the sheet, so that its text and codes need not belong together."""
        return bool(_fault_of_case_id(self.case))


class _SheetRow(NamedTuple):
    """One row: `values` are what its coded cells say, `reported` those of them that say nothing or not plainly."""

    lesion: str
    row: int
    case: str
    text: str
    values: dict[str, tuple[str, ...]]
    reported: list[ReportedCell]


def import_sheet(
    path: str | os.PathLike[str], *, sheets: Mapping[str, str] | None = None
) -> tuple[AttributeTable, list[ReportedCell]]:
    """An annotation workbook (XLSX) as a table whose cases state what the codes say, and every cell to look at.

    sheets: title -> lesion type, for titles that are neither the published workbook's nor a type's name or alias.
    Each coded cell (seven a row) is used, or reported with the reason, or both. A row without a case id (a worked
    example) is reported cell by cell; two rows of one case on one sheet become alternatives; a case without any
    usable cell stays in the table, with nothing stated. Lesion types are those of the Clinical Knowledge Table.
    Raises WorkbookError or SheetError, in one line, when no sheet can be read.
    """
    cases: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {}
    first_row: dict[tuple[str, str], int] = {}
    reported: list[ReportedCell] = []
    lesions: list[str] = []
    for title, lesion, rows in _sheets(path, sheets or {}):
        if lesion is None:
            reported.append(_unknown_sheet(title))
            continue
        lesions.append(lesion)
        for row in _rows(path, title, lesion, rows):
            reported += row.reported
            if _fault_of_case_id(row.case):
                continue
            stated = cases.setdefault(row.case, {}).setdefault(lesion, {})
            if (first := first_row.setdefault((row.case, lesion), row.row)) != row.row:
                reported += _repeated(title, row, first)
            for aspect, values in row.values.items():
                stated[aspect] = (*stated.get(aspect, ()), *values)
    return _table(Path(path), lesions, cases), reported


def describe(reported: Iterable[ReportedCell]) -> list[str]:
    """One line per sheet, row and reason: where, which cells, why, what to do."""
    cells: dict[tuple[str, int, str, str], list[str]] = {}
    for cell in reported:
        cells.setdefault((cell.sheet, cell.row, cell.case, cell.reason), []).append(
            " ".join(filter(None, (cell.aspect, cell.content)))
        )
    return [
        f"sheet {sheet!r}{f', row {row}' if row else ''}{f' ({case})' if case else ''}: "
        f"{', '.join(filter(None, contents))}{': ' if any(contents) else ''}{reason}"
        for (sheet, row, case, reason), contents in cells.items()
    ]


def read_texts(path: str | os.PathLike[str], *, sheets: Mapping[str, str] | None = None) -> list[ReportedText]:
    """The free texts of a workbook, worked examples included, each with its row's codes; [] where it has none."""
    return [
        ReportedText(lesion, row.row, row.case, row.text, row.values)
        for title, lesion, rows in _sheets(path, sheets or {})
        if lesion is not None
        for row in _rows(path, title, lesion, rows)
        if row.text
    ]


def _table(path: Path, lesions: list[str], cases: dict[str, dict[str, dict[str, tuple[str, ...]]]]) -> AttributeTable:
    """Only the published workbook, byte for byte, has its authors and their licence: anyone may fill in its form."""
    knowledge = clinical_knowledge_table()
    is_published = hashlib.sha256(path.read_bytes()).hexdigest() == _PUBLISHED_SHA256
    return AttributeTable(
        name="Published annotations of lesion descriptions" if is_published else path.name,
        description=_DESCRIPTION.format(source=_PUBLISHED_SOURCE if is_published else ""),
        license=SOURCE_LICENSE if is_published else "",
        lesions={lesion: knowledge.lesions[lesion] for lesion in SHEETS if lesion in lesions},
        cases={
            case: CaseEntry(lesions={lesion: AspectValues(**stated) for lesion, stated in entries.items()})
            for case, entries in sorted(cases.items())
        },
    )


def _sheets(path: str | os.PathLike[str], chosen: Mapping[str, str]) -> list[tuple[str, str | None, list[Row]]]:
    """Every sheet as (title, lesion type or None, rows). Raises SheetError when titles and types do not fit."""
    workbook = read_workbook(path)
    if missing := [title for title in chosen if title not in workbook]:
        raise SheetError(f"{path}: no sheet {missing[0]!r}; the titles are {', '.join(map(repr, workbook))}")
    found = {title: _coded_lesion(path, chosen[title]) if title in chosen else _lesion_of(title) for title in workbook}
    owner: dict[str, str] = {}
    for title, lesion in found.items():
        if lesion and (other := owner.setdefault(lesion, title)) != title:
            raise SheetError(f"{path}: sheets {other!r} and {title!r} both stand for {lesion!r}; merge or rename one")
    if not owner:
        raise SheetError(
            f"{path}: no sheet is known by its title ({', '.join(map(repr, workbook))}); say which is which, "
            'e.g. --sheet "Sheet1=kidney tumor"'
        )
    return [(title, found[title], rows) for title, rows in workbook.items()]


def _lesion_of(name: str) -> str | None:
    """The coded lesion type that a sheet's title, a type's name or one of its aliases stands for."""
    known = {lesion_key(sheet.title): lesion for lesion, sheet in SHEETS.items()}
    lesion = known.get(lesion_key(name)) or clinical_knowledge_table().find(name)
    return lesion if lesion in SHEETS else None


def _coded_lesion(path: str | os.PathLike[str], name: str) -> str:
    if (lesion := _lesion_of(name)) is None:
        raise SheetError(f"{path}: there are no codes for {name!r}; known are {', '.join(SHEETS)}")
    return lesion


def _unknown_sheet(title: str) -> ReportedCell:
    reason = f'not imported, its title is no known lesion type; add e.g. --sheet "{title}=kidney tumor" if it is one'
    return ReportedCell(title, 0, "", "", "", (), reason)


def _rows(path: str | os.PathLike[str], title: str, lesion: str, rows: list[Row]) -> Iterator[_SheetRow]:
    """Rows below the header that are not all empty."""
    columns = _columns(path, title, rows)
    for number, row in enumerate(rows[1:], start=2):
        cells = {name: row[index] if index < len(row) else None for name, index in columns.items()}
        if any(cell is not None for cell in cells.values()):
            yield _sheet_row(title, number, lesion, cells)


def _columns(path: str | os.PathLike[str], title: str, rows: list[Row]) -> dict[str, int]:
    found: dict[str, int] = {}
    for index, header in enumerate(rows[0] if rows else ()):
        name = column_of_header(header)
        if name and found.setdefault(name, index) != index:
            raise SheetError(f"{path}: sheet {title!r} has two columns for {name!r}; remove or rename one")
    if missing := [name for name in (CASE, *CODED_ASPECTS) if name not in found]:
        raise SheetError(
            f"{path}: sheet {title!r} has no column for {', '.join(missing)}; write the names into row 1, e.g. "
            f"{', '.join((CASE, *CODED_ASPECTS, REPORT))}"
        )
    return found


def _sheet_row(title: str, number: int, lesion: str, cells: dict[str, object]) -> _SheetRow:
    case = _case_id(cells[CASE])
    fault = _fault_of_case_id(case)
    values: dict[str, tuple[str, ...]] = {}
    reported: list[ReportedCell] = []
    for aspect in CODED_ASPECTS:
        content = _text(cells[aspect])
        stated, remark = _decode(content, SHEETS[lesion].codes[aspect])
        if stated:
            values[aspect] = stated
        if fault:
            reason = "; ".join(filter(None, (fault, remark)))
            reported.append(ReportedCell(title, number, case, aspect, content, (), reason))
        elif remark:
            reported.append(ReportedCell(title, number, case, aspect, content, stated, remark))
    return _SheetRow(lesion, number, case, _text(cells.get(REPORT)), values, reported)


def _text(cell: object) -> str:
    """A cell as text: full-width digits made plain, 2.0 written 2, nothing as ""."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return "" if cell is None else unicodedata.normalize("NFKC", str(cell)).strip()


def _case_id(cell: object) -> str:
    """An id as the converters write it: without the image's ending."""
    return re.sub(r"\.nii(\.gz)?$", "", _text(cell), flags=re.IGNORECASE)


def _fault_of_case_id(case: str) -> str:
    """Why an id cannot be that of an image, "" if it can: letters and digits, and nothing a file name cannot have."""
    if not case:
        return "the row has no case id; write one or remove the row"
    if case.isdigit() or re.match(r"example\b", case, re.IGNORECASE):
        return f"{case!r} is no case id but a worked example; write the case id to use the row"
    if not re.fullmatch(r"(?=.*[A-Za-z])(?=.*\d)[\w.-]+", case, re.ASCII):
        return f"{case!r} names no case; write its id, e.g. case_00000"
    return ""


def _decode(content: str, codes: Codes) -> tuple[tuple[str, ...], str]:
    """The values of a cell, and what to say about it: "" for one plain code."""
    known = f"one of {', '.join(map(str, codes))}"
    if not content:
        return (), f"no code; write {known}, or leave it empty and the lesion type's values hold"
    parts = re.split(r"\s*[、,;/&+]\s*|\s+", content)
    values = tuple(codes[int(part)] for part in parts if part.isascii() and part.isdigit() and int(part) in codes)
    if len(values) < len(parts):
        return (), f"not {known}; correct the cell"
    if len(parts) > 1:
        return tuple(dict.fromkeys(values)), "several codes, used as alternatives; leave one if only one holds"
    return values, ""


def _repeated(title: str, row: _SheetRow, first: int) -> Iterator[ReportedCell]:
    for aspect, values in row.values.items():
        reason = f"row {first} has the same case; what the two say became alternatives"
        yield ReportedCell(title, row.row, row.case, aspect, ", ".join(values), values, reason)

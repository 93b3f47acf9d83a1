"""XLSX workbooks as plain cells."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

from openpyxl import load_workbook

from nnunetv2_malenia.files import MaleniaError

if TYPE_CHECKING:
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

MAX_INFLATED_BYTES = 256 * 2**20
MAX_ROWS, MAX_CELLS = 2**20, 2**24  # in a sheet; Excel has as many rows

Row = tuple[object, ...]


class WorkbookError(MaleniaError):
    """A workbook that cannot be read; the message is one line: file, what is wrong, what to do."""


def read_workbook(path: str | os.PathLike[str]) -> dict[str, list[Row]]:
    """Every sheet's title and rows, the header among them; formulas as their stored result, empty cells as None.

    Rows end with their last cell that is not empty. Chart sheets have no cells and are left out. Raises WorkbookError
    for what is no XLSX file, or one that memory may not hold, OSError for a file that cannot be read.
    """
    if not Path(path).is_file():
        raise WorkbookError(f"{path}: no such file; give the path of an XLSX workbook")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what openpyxl could not write again
            return _sheets(path)
    except (OSError, WorkbookError):
        raise
    except Exception:  # openpyxl lets through whatever its parsers stumble over
        raise WorkbookError(f"{path}: damaged, or no XLSX workbook; save it as .xlsx") from None


def _sheets(path: str | os.PathLike[str]) -> dict[str, list[Row]]:
    with ZipFile(path) as archive:
        if sum(each.file_size for each in archive.infolist()) > MAX_INFLATED_BYTES:
            raise WorkbookError(f"{path}: larger than {MAX_INFLATED_BYTES >> 20} MB inside; is it the right file?")
    workbook = load_workbook(path, read_only=True, data_only=True, keep_links=False)
    try:
        return {sheet.title: list(_rows(path, sheet)) for sheet in workbook.worksheets}
    finally:
        workbook.close()


def _rows(path: str | os.PathLike[str], sheet: ReadOnlyWorksheet) -> Iterator[Row]:
    sheet.reset_dimensions()  # some programs state fewer rows than they write, and the rest would be left out
    cells = 0
    for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
        cells += len(row)
        if number > MAX_ROWS or cells > MAX_CELLS:
            raise WorkbookError(f"{path}: sheet {sheet.title!r} is too large; remove empty rows and columns")
        length = next((i for i in range(len(row), 0, -1) if row[i - 1] is not None), 0)
        yield tuple(row[:length])

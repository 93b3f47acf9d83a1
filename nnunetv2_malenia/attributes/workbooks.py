"""XLSX workbooks as plain cells."""

import os
from pathlib import Path
from zipfile import BadZipFile

from openpyxl import load_workbook
from openpyxl.utils.exceptions import InvalidFileException

from nnunetv2_malenia.files import MaleniaError

Row = tuple[object, ...]


class WorkbookError(MaleniaError):
    """A workbook that cannot be read; the message is one line: file, what is wrong, what to do."""


def read_workbook(path: str | os.PathLike[str]) -> dict[str, list[Row]]:
    """Every sheet's title and rows, the header among them; formulas as their stored result, empty cells as None.

    Chart sheets have no cells and are left out. Raises WorkbookError for what is no XLSX file.
    """
    if not Path(path).is_file():
        raise WorkbookError(f"{path}: no such file; give the path of an XLSX workbook")
    try:
        workbook = load_workbook(path, read_only=True, data_only=True)
    except (InvalidFileException, BadZipFile, KeyError) as error:
        reason = str(error).partition(",")[0].rstrip(".")
        raise WorkbookError(f"{path}: not an XLSX workbook ({reason}); save it as .xlsx") from None
    try:
        return {sheet.title: list(sheet.iter_rows(values_only=True)) for sheet in workbook.worksheets}
    finally:
        workbook.close()

"""Workbooks and files of reports with anything in them: a table, or a line that says why not."""

import csv
import datetime
import io
import json
import zipfile

from fuzzed import ends_well, examples, spoiled_bytes, spoiled_json
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

from nnunetv2_malenia import cli
from nnunetv2_malenia.attributes.tables import read_table

CODES = ["case", "enhancement", "location", "shape", "density", "density variation", "surface", "relationship", "text"]
CODED = ["case_00001", 2, 1, 2, 3, 2, 2, 1, "a text"]
REPORTS = ["case", "lesion", "report"]
REPORT = ["case_1", "liver tumor", "A hypodense mass with necrosis."]
TITLES = ["肾癌", "kidney tumor", "Sheet1", "liver tumor", "x"]
TEXTS = st.sampled_from([
    "", " ", "1", "1,2", "1、2", "\uff11", "²", "-1", "99999999999999999999", "=1/0", "=A1", "#N/A", "\t", "\u2028",
    "肾癌", "x" * 30_000, "case_1", "CASE_1.nii.gz", "..", "kidney tumor", "liver", "\u202e", "3 x 1e999 mm: none (-).",
])  # fmt: skip
NUMBERS = st.sampled_from([0, 1, 2, 2.0, 0.5, -1, 1e300, 10**20, True])
DATES = st.sampled_from([
    datetime.datetime(2020, 1, 2), datetime.date(1900, 1, 1), datetime.time(1), datetime.timedelta(days=99_999),
])  # fmt: skip
CELLS = st.none() | TEXTS | NUMBERS | DATES | st.text(max_size=20).map(lambda text: ILLEGAL_CHARACTERS_RE.sub("", text))
XML_VALUES = [b'"1"', b'"A1"', b'"n"', b'"A1:I2"', b'"s"']
WRONG_VALUES = [
    b'"0"', b'"-1"', b'"999999999999"', b'"XFD1048576"', b'"A1:XFD1048576"', b'"ZZZZZ9"', b'"x"', b'"e"', b'"d"', b'""',
]  # fmt: skip


def rarely(draw):
    return draw(st.integers(0, 4)) == 4


@st.composite
def edited(draw, row, cells=CELLS):
    """A row of which up to two cells have another content."""
    row = list(row)
    for _ in range(draw(st.integers(0, 2))):
        row[draw(st.integers(0, len(row) - 1))] = draw(cells)
    return row


@st.composite
def workbooks(draw, header, row):
    book = Workbook()
    book.remove(book.active)
    for title in draw(st.just(["肾癌"]) | st.lists(st.sampled_from(TITLES), unique=True, max_size=3)):
        sheet = book.create_sheet(title)
        sheet.append(draw(edited(header)) if rarely(draw) else header)
        for _ in range(draw(st.integers(1, 3))):
            sheet.append(draw(edited(row)))
        if rarely(draw):
            sheet.merge_cells(draw(st.sampled_from(["A1:B1", "A2:A3", "B1:I3"])))
    if not book.worksheets:
        book.create_chartsheet() if draw(st.booleans()) else book.create_sheet("Sheet")
    content = io.BytesIO()
    book.save(content)
    with zipfile.ZipFile(content) as archive:  # without the time of day, which openpyxl writes into it
        inside = {name: archive.read(name) for name in sorted(archive.namelist()) if name != "docProps/core.xml"}
    if rarely(draw):
        draw(spoiled_inside(inside))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, each in inside.items():
            archive.writestr(zipfile.ZipInfo(name), each)
    return draw(spoiled_bytes(content.getvalue())) if rarely(draw) else content.getvalue()


@st.composite
def spoiled_inside(draw, inside):
    """Spoil one of a workbook's files, leave it out, put another in its place, or change values of a sheet's XML."""
    name = draw(st.sampled_from(list(inside)))
    match draw(st.sampled_from(["leave out", "spoil", "other", "values", "values"])):
        case "leave out":
            del inside[name]
        case "spoil":
            inside[name] = draw(spoiled_bytes(inside[name]))
        case "other":
            inside[name] = inside[draw(st.sampled_from(list(inside)))]
        case _:
            old, new = draw(st.sampled_from(XML_VALUES)), draw(st.sampled_from(WRONG_VALUES))
            name = next((name for name in inside if "sheet1" in name), name)
            inside[name] = inside[name].replace(old, new, draw(st.integers(1, 3)))


@st.composite
def report_files(draw, ending):
    if ending == ".xlsx":
        return draw(workbooks(REPORTS, REPORT))
    rows = draw(st.lists(edited(REPORT, TEXTS | st.text(max_size=50)), min_size=1, max_size=3))
    if ending == ".jsonl":
        lines = [dict(zip(REPORTS, row, strict=True)) for row in rows]
        content = b"\n".join(draw(spoiled_json(line)) if rarely(draw) else json.dumps(line).encode() for line in lines)
    else:
        text = io.StringIO()
        csv.writer(text, delimiter=draw(st.sampled_from(",,,;\t"))).writerows([REPORTS, *rows])
        content = text.getvalue().encode("utf-8", "surrogatepass")
    return draw(spoiled_bytes(content)) if rarely(draw) else content


def becomes_a_table(command, path, *options):
    folder, table = path.parent, path.parent / "table.json"
    if ends_well(cli.attributes, command, path, "-o", table, *options, folder=folder):
        read_table(table)
    for output in ("table.json", "r.csv", "e.csv"):
        (folder / output).unlink(missing_ok=True)


@examples(40)
@given(content=workbooks(CODES, CODED), sheet=st.sampled_from(["", "", "Sheet1=liver cyst", "x=y"]))
def test_any_annotation_workbook_is_imported_or_refused(tmp_path, content, sheet):
    (tmp_path / "book.xlsx").write_bytes(content)
    becomes_a_table("import", tmp_path / "book.xlsx", *(["--sheet", sheet] if sheet else []))


@examples(60)
@given(data=st.data(), ending=st.sampled_from([".xlsx", ".csv", ".jsonl"]))
def test_any_file_of_reports_is_read_or_refused(tmp_path, data, ending):
    path = tmp_path / f"reports{ending}"
    path.write_bytes(data.draw(report_files(ending)))
    becomes_a_table("from-reports", path, "--review", tmp_path / "r.csv", "--evidence", tmp_path / "e.csv")
    path.unlink()

"""The annotation workbook becomes a table, and no coded cell is lost on the way."""

import json
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from zipfile import ZipFile

import pytest
from openpyxl import Workbook

from nnunetv2_malenia.attributes import workbooks
from nnunetv2_malenia.attributes.sheet_codes import CODED_ASPECTS, SHEETS, column_of_header
from nnunetv2_malenia.attributes.sheet_importer import SheetError, describe, import_sheet, read_texts
from nnunetv2_malenia.attributes.tables import read_table, table_to_dict, vocabulary
from nnunetv2_malenia.attributes.workbooks import WorkbookError, read_workbook

PUBLISHED = Path(__file__).parents[3] / "shared/data/annotations/annotations_of_lesion_descriptions.xlsx"
with_the_published_workbook = pytest.mark.skipif(not PUBLISHED.exists(), reason="needs the published workbook")

HEADER = ["case", "enhancement", "location", "shape", "density", "density variation", "surface", "relationship", "text"]
PLAIN = ["case_00001", 2, 1, 2, 3, 2, 2, 1, "A sentence."]


@pytest.fixture
def workbook(tmp_path):
    def save(sheets: dict[str, list[list]], header: list[str] = HEADER) -> Path:
        book = Workbook()
        book.remove(book.active)
        for title, rows in sheets.items():
            sheet = book.create_sheet(title)
            for row in [header, *rows]:
                sheet.append(row)
        book.save(tmp_path / "book.xlsx")
        return tmp_path / "book.xlsx"

    return save


def with_cell(aspect: str, content: object, case: str = "case_00001") -> list:
    row = [case, *PLAIN[1:]]
    row[HEADER.index(aspect.replace("_", " "))] = content
    return row


def stated(table, case: str, lesion: str) -> dict:
    return table.cases[case].lesions[lesion].stated


def test_a_plain_row_is_used_cell_by_cell_and_nothing_is_reported(workbook):
    table, reported = import_sheet(workbook({"kidney tumor": [PLAIN]}))
    assert reported == []
    assert stated(table, "case_00001", "kidney tumor") == {
        "location": ("left kidney",),
        "shape": ("irregular",),
        "density": ("hyperdense",),
        "density_variation": ("heterogeneous",),
        "enhancement": ("contrast-enhanced ct",),
        "surface": ("ill-defined",),
        "relationship": ("no close relationship with surrounding organs",),
    }


@pytest.mark.parametrize("lesion", SHEETS)
def test_every_code_gives_a_value_of_the_vocabulary_and_no_two_the_same(lesion):
    for aspect, codes in SHEETS[lesion].codes.items():
        assert set(codes.values()) <= set(vocabulary().values(aspect))
        assert len(set(codes.values())) == len(codes)


@pytest.mark.parametrize(
    ("title", "lesion"), [("肾囊肿", "kidney cyst"), ("Kidney Tumour", "kidney tumor"), ("renal cyst", "kidney cyst")]
)
def test_sheets_are_found_by_the_published_title_by_name_and_by_alias(workbook, title, lesion):
    table, _ = import_sheet(workbook({title: [PLAIN]}))
    assert list(table.cases["case_00001"].lesions) == [lesion]


def test_codes_mean_what_their_own_sheet_says(workbook):
    row = ["a_1", 1, 5, 1, 2, 1, 1, 2, ""]
    table, _ = import_sheet(workbook({"lung tumor": [row], "colon tumor": [row]}))
    lung, colon = stated(table, "a_1", "lung tumor"), stated(table, "a_1", "colon tumor")
    assert (lung["location"], colon["location"]) == (("right lower lung lobe",), ("rectum",))
    assert (lung["density"], colon["density"]) == (("soft-tissue density",), ("isodense",))


def test_columns_are_found_by_their_headers_in_any_order(workbook):
    order = [8, 7, 0, 5, 4, 3, 6, 2, 1]
    path = workbook({"kidney tumor": [[PLAIN[i] for i in order]]}, [HEADER[i] for i in order])
    assert import_sheet(path)[0] == import_sheet(workbook({"kidney tumor": [PLAIN]}))[0]


def test_the_published_headers_are_known_and_a_note_is_not():
    headers = [
        "ID",
        "1) 增强情况: 1. 平扫CT",
        "2)\xa0 病灶部位:1.左肾",
        "4)\xa0 病灶大部分区域相比周围",
        "5) 亮度变化: 1.均匀",
    ]
    expected = ["case", "enhancement", "location", "density", "density_variation"]
    assert [column_of_header(header) for header in headers] == expected
    assert [column_of_header(header) for header in ("reviewed by", None, "", 7)] == [None] * 4


@pytest.mark.parametrize("written", ["case_00001", "case_00001.nii", "case_00001.nii.gz", " case_00001.NII.GZ "])
def test_case_ids_come_without_the_ending_of_the_image(workbook, written):
    table, _ = import_sheet(workbook({"kidney tumor": [[written, *PLAIN[1:]]]}))
    assert list(table.cases) == ["case_00001"]


@pytest.mark.parametrize("case", ["Example 1", "1", 1, "imaging.nii", None, "patient seven", "../case_1"])
def test_a_row_without_a_case_id_is_reported_cell_by_cell(workbook, case):
    table, reported = import_sheet(workbook({"kidney tumor": [[case, *PLAIN[1:]], PLAIN]}))
    assert list(table.cases) == ["case_00001"]
    assert {(cell.row, cell.aspect, cell.values) for cell in reported} == {(2, a, ()) for a in CODED_ASPECTS}


@pytest.mark.parametrize("content", [None, "", "  ", 0, 3, 12, "12", "x", 1.5, "1、3", -1, True])
def test_a_cell_that_is_no_code_of_the_sheet_is_reported_and_its_aspect_unspecified(workbook, content):
    table, reported = import_sheet(workbook({"kidney tumor": [with_cell("shape", content)]}))
    assert "shape" not in stated(table, "case_00001", "kidney tumor")
    assert [(cell.sheet, cell.row, cell.case, cell.aspect) for cell in reported] == [
        ("kidney tumor", 2, "case_00001", "shape")
    ]
    assert "1, 2" in reported[0].reason


@pytest.mark.parametrize("content", [2, "2", 2.0, " 2 ", "２"])  # noqa: RUF001 - a full-width digit
def test_one_code_may_be_typed_in_several_ways(workbook, content):
    table, reported = import_sheet(workbook({"kidney tumor": [with_cell("shape", content)]}))
    assert reported == []
    assert stated(table, "case_00001", "kidney tumor")["shape"] == ("irregular",)


@pytest.mark.parametrize("content", ["1、2", "1,2", "1/2", "1 2", "1，2"])  # noqa: RUF001 - a full-width comma
def test_two_codes_become_alternatives_and_are_reported(workbook, content):
    table, reported = import_sheet(workbook({"kidney tumor": [with_cell("location", content)]}))
    assert stated(table, "case_00001", "kidney tumor")["location"] == ("left kidney", "right kidney")
    assert [cell.values for cell in reported] == [("left kidney", "right kidney")]
    assert "alternatives" in reported[0].reason


def test_two_rows_of_one_case_become_alternatives_and_the_second_is_reported(workbook):
    table, reported = import_sheet(workbook({"kidney tumor": [PLAIN, with_cell("location", 2)]}))
    values = stated(table, "case_00001", "kidney tumor")
    assert values["location"] == ("left kidney", "right kidney")
    assert values["shape"] == ("irregular",)
    assert {(cell.row, cell.aspect) for cell in reported} == {(3, aspect) for aspect in CODED_ASPECTS}
    assert all("row 2 has the same case" in cell.reason for cell in reported)


def test_a_case_may_be_on_two_sheets(workbook):
    table, reported = import_sheet(workbook({"kidney tumor": [PLAIN], "kidney cyst": [PLAIN]}))
    assert list(table.cases["case_00001"].lesions) == ["kidney tumor", "kidney cyst"]
    assert reported == []


def test_a_case_without_codes_stays_with_nothing_stated(workbook):
    table, reported = import_sheet(workbook({"kidney tumor": [["case_00001"]]}))
    assert stated(table, "case_00001", "kidney tumor") == {}
    assert len(reported) == len(CODED_ASPECTS)


def test_empty_rows_are_nothing(workbook):
    table, reported = import_sheet(workbook({"kidney tumor": [PLAIN, [None] * 9, []]}))
    assert len(table.cases) == 1
    assert reported == []


def test_a_sheet_with_an_unknown_title_is_reported(workbook):
    _, reported = import_sheet(workbook({"kidney tumor": [PLAIN], "Notes": [["anything"]]}))
    assert [(cell.sheet, cell.row) for cell in reported] == [("Notes", 0)]
    assert '--sheet "Notes=' in describe(reported)[0]


def test_a_sheet_is_imported_as_what_it_is_said_to_be(workbook):
    path = workbook({"Sheet1": [PLAIN]})
    table, _ = import_sheet(path, sheets={"Sheet1": "renal mass"})
    assert list(table.cases["case_00001"].lesions) == ["kidney tumor"]


@pytest.mark.parametrize(
    ("sheets", "chosen", "words"),
    [
        (["Sheet1"], {}, "no sheet is known by its title"),
        (["Sheet1"], {"Sheet2": "kidney tumor"}, "no sheet 'Sheet2'"),
        (["Sheet1"], {"Sheet1": "liver cyst"}, "no codes for 'liver cyst'"),
        (["肾癌", "kidney tumor"], {}, "both stand for 'kidney tumor'"),
    ],
)
def test_titles_that_do_not_fit_are_one_line(workbook, sheets, chosen, words):
    with pytest.raises(SheetError, match=words) as error:
        import_sheet(workbook({title: [PLAIN] for title in sheets}), sheets=chosen)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("header", "words"),
    [([*HEADER[:3], *HEADER[4:]], "no column for shape"), ([*HEADER, "shape again"], "two columns for 'shape'")],
)
def test_columns_that_do_not_fit_are_one_line(workbook, header, words):
    with pytest.raises(SheetError, match=words):
        import_sheet(workbook({"kidney tumor": [PLAIN]}, header))


def test_what_is_no_workbook_is_one_line(tmp_path):
    (tmp_path / "a.xlsx").write_text("text")
    (tmp_path / "a.xls").write_text("text")
    for name, words in (("a.xlsx", "save it as .xlsx"), ("a.xls", "save it as .xlsx"), ("b.xlsx", "no such file")):
        with pytest.raises(WorkbookError, match=words) as error:
            import_sheet(tmp_path / name)
        assert "\n" not in str(error.value)


def edit_sheet(path: Path, old: str, new: str) -> Path:
    """Replace text in the XML of a workbook's first sheet."""
    with ZipFile(path) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    assert old.encode() in inside["xl/worksheets/sheet1.xml"]
    inside["xl/worksheets/sheet1.xml"] = inside["xl/worksheets/sheet1.xml"].replace(old.encode(), new.encode())
    with ZipFile(path, "w") as archive:
        for name, content in inside.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("stated", ["A1", "A1:I1", "A1:XFD1048576"])
def test_rows_beyond_the_size_that_a_sheet_states_are_not_lost(workbook, stated):
    path = edit_sheet(workbook({"kidney tumor": [PLAIN, ["case_2", *PLAIN[1:]]]}), '"A1:I3"', f'"{stated}"')
    table, _ = import_sheet(path)
    assert list(table.cases) == ["case_00001", "case_2"]


@pytest.mark.parametrize(("old", "new", "words"), [
    ('<row r="2"', '<row r="999999999999"', "'kidney tumor' is too large"), ("</row>", "<row>", "damaged"),
    ('<c r="A2"', '<c r="ZZZZZZ2"', "damaged"), ('ref="A1:I2"', 'ref="nonsense"', "damaged"),
])  # fmt: skip
def test_a_sheet_that_makes_no_sense_is_one_line(workbook, monkeypatch, old, new, words):
    monkeypatch.setattr(workbooks, "MAX_ROWS", 1000)
    path = edit_sheet(workbook({"kidney tumor": [PLAIN]}), old, new)
    with pytest.raises(WorkbookError, match=words) as error:
        read_workbook(path)
    assert "\n" not in str(error.value)


def test_a_workbook_that_inflates_beyond_memory_is_refused(workbook, monkeypatch):
    monkeypatch.setattr(workbooks, "MAX_INFLATED_BYTES", 1000)
    with pytest.raises(WorkbookError, match="is it the right file"):
        read_workbook(workbook({"kidney tumor": [PLAIN]}))


def test_cells_of_one_row_with_one_reason_share_a_line(workbook):
    _, reported = import_sheet(workbook({"kidney tumor": [["Example 1", *PLAIN[1:]], with_cell("shape", 9)]}))
    first, second = describe(reported)
    assert "row 2 (Example 1)" in first
    assert "shape 9" in second


def test_texts_come_with_their_codes(workbook):
    (text,) = read_texts(workbook({"kidney cyst": [PLAIN, [*PLAIN[:8], None]]}))
    assert (text.lesion, text.row, text.case, text.text) == ("kidney cyst", 2, "case_00001", "A sentence.")
    assert text.coded["shape"] == ("irregular",)


@pytest.mark.parametrize("titles", [["kidney tumor"], [sheet.title for sheet in SHEETS.values()]])
def test_a_workbook_of_ones_own_has_its_own_name_and_nobodys_licence(workbook, titles):
    table, _ = import_sheet(workbook({title: [PLAIN] for title in titles}))
    assert (table.name, table.license) == ("book.xlsx", "")
    assert not any(word in table.description for word in ("Malenia", "KiTS", "annotations_of_lesion"))


@with_the_published_workbook
def test_every_coded_cell_of_the_published_workbook_is_used_or_reported_once():
    table, reported = import_sheet(PUBLISHED)
    rows = sum(len(rows) - 1 for rows in read_workbook(PUBLISHED).values())
    used = sum(len(values.stated) for case in table.cases.values() for values in case.lesions.values())
    rejected = {(cell.sheet, cell.row, cell.aspect) for cell in reported if not cell.values}
    assert rows == 432
    assert used + len(rejected) == rows * len(CODED_ASPECTS)
    assert len(rejected) == 72


@with_the_published_workbook
def test_the_quirks_of_the_published_workbook_are_reported_with_their_rows():
    _, reported = import_sheet(PUBLISHED)
    rows = {(cell.sheet, cell.row): cell for cell in reported}
    examples = {("肾癌", 2), ("肾癌", 3), ("肾囊肿", 2), ("肝癌", 2), ("肝癌", 3)} | {
        (SHEETS[lesion].title, 2) for lesion in ("pancreas tumor", "pancreas cyst", "colon tumor", "lung tumor")
    }
    assert set(rows) == examples | {("肾囊肿", 43), ("肾囊肿", 48), ("肝癌", 37), ("胰腺囊肿", 7)}
    assert rows["肾囊肿", 48].values == ("left kidney", "right kidney")
    assert rows["胰腺囊肿", 7].values == ()


@with_the_published_workbook
def test_the_shipped_annotations_are_what_the_command_makes_of_the_published_workbook():
    shipped = files("nnunetv2_malenia.attribute_tables").joinpath("msd_kits_annotations.json")
    assert json.loads(shipped.read_text(encoding="utf-8")) == table_to_dict(import_sheet(PUBLISHED)[0]), (
        "run `malenia_attributes import WORKBOOK -o attribute_tables/msd_kits_annotations.json`"
    )


def shipped_annotations():
    with_path = files("nnunetv2_malenia.attribute_tables").joinpath("msd_kits_annotations.json")
    return read_table(str(with_path))


def test_the_shipped_annotations_split_msd_pancreas_into_tumor_and_cyst():
    cases = {name: set(case.lesions) for name, case in shipped_annotations().cases.items()}
    pancreas = [lesions for name, lesions in cases.items() if name.startswith("pancreas_")]
    assert sorted(len(lesions) for lesions in pancreas) == [1] * 94
    assert sum("pancreas tumor" in lesions for lesions in pancreas) == 36
    assert sum("pancreas cyst" in lesions for lesions in pancreas) == 58


def test_the_shipped_annotations_name_licence_and_source_and_hold_no_free_text():
    table = shipped_annotations()
    assert table.license == "MIT"
    assert "Malenia" in table.description
    cases = [phrase for case in table.cases.values() for values in case.lesions.values() for phrase in values.phrases()]
    assert [(aspect, phrase) for aspect, phrase in set(cases) if phrase not in vocabulary().values(aspect)] == []
    assert all(a < b for a, b in pairwise(table.cases))

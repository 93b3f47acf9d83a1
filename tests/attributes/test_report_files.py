"""Reports from files become a table, and each fault in a file is one line that says where and what to do."""

import csv
import io
import json
from pathlib import Path

import pytest
from openpyxl import Workbook
from openpyxl.styles import Font

from nnunetv2_malenia.attributes.report_files import (
    Report,
    ReportFileError,
    checked_values_csv,
    read_reports,
    table_of_reports,
)
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table, parse_table, table_to_dict
from nnunetv2_malenia.attributes.workbooks import WorkbookError

TEXT = "Irregular mass in the left kidney,\nwith possible necrosis."
REPORTS = [
    Report(case="case_1", lesion="kidney tumor", report=TEXT),
    Report(case="case_2", lesion="kidney cyst", report=""),
]


def as_csv(folder: Path) -> Path:
    with (folder / "reports.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("Case", "lesion ", "report"), *((r.case, r.lesion, r.report) for r in REPORTS)])
    return folder / "reports.csv"


def as_xlsx(folder: Path) -> Path:
    book = Workbook()
    for row in [("lesion", "case", "report"), *((r.lesion, r.case, r.report) for r in REPORTS)]:
        book.active.append(row)
    book.save(folder / "reports.xlsx")
    return folder / "reports.xlsx"


def as_jsonl(folder: Path) -> Path:
    (folder / "reports.jsonl").write_text("\n\n".join(r.model_dump_json() for r in REPORTS), encoding="utf-8")
    return folder / "reports.jsonl"


def as_folder(folder: Path) -> Path:
    (folder / "case_1__kidney_tumor.txt").write_text(TEXT, encoding="utf-8")
    (folder / "case_2__kidney cyst.txt").write_text("", encoding="utf-8")
    (folder / "notes.md").write_text("not a report")
    return folder


@pytest.mark.parametrize("write", [as_csv, as_xlsx, as_jsonl, as_folder])
def test_all_forms_hold_the_same_reports(write, tmp_path):
    found = [report.model_copy(update={"report": report.report.strip()}) for report in read_reports(write(tmp_path))]
    assert found == REPORTS


def test_only_line_feeds_end_the_lines_of_jsonl(tmp_path):
    report = Report(case="a", lesion="liver tumor", report="Liver mass.\u2028Fat: no\u2029Gas: no\x85Irregular.")
    path = write(tmp_path, "a.jsonl", "\ufeff" + report.model_dump_json() + "\r\n\r\n" + report.model_dump_json())
    assert read_reports(path) == [report, report]


def test_a_folder_is_read_whatever_the_case_of_the_ending_and_without_hidden_files(tmp_path):
    write(tmp_path, "a__liver tumor.TXT", "\ufeffLiver mass.")
    write(tmp_path, "._a__liver tumor.TXT", b"\xff")
    assert read_reports(tmp_path) == [Report(case="a", lesion="liver tumor", report="Liver mass.")]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "case,lesion\na,b\n", "row 1: no column 'report'"),
        ("a.csv", "case,lesion,report,report\n", "row 1: two columns have the same name"),
        ("a.csv", "case,lesion,report,date\na,b,c,d\n", "row 2: unknown column 'date'"),
        ("a.csv", "case,lesion,report\n\na,b,c,d\n", "row 3: 4 cells, the header has 3; quote"),
        ("a.csv", "case,lesion,report\na,b\n", "row 2: no report"),
        ("a.csv", "case,lesion,report\n,b,c\n", "row 2: case: empty text"),
        ("a.csv", 'case,lesion,report\na,b,"c', "not CSV"),
        ("a.csv", b"case,lesion,report\na,b,\xff\n", "byte 23 is not UTF-8"),
        ("a.csv", "case,lesion,report\na,b,10 mm \u2013 c\n".encode("cp1252"), "byte 29 is not UTF-8"),
        ("a.csv", "case,lesion,report\r\n\r\n , ,\r\n", "holds no report"),
        ("a.csv", "case,lesion,report\n", "holds no report"),
        ("a.csv", "", "holds no report"),
        ("a.jsonl", '{"case": "a"\n', "row 1: not JSON"),
        ("a.jsonl", '{"case": ' + 5000 * "1" + "}", "row 1: not JSON"),
        ("a.jsonl", '\n["a"]\n', "row 2: not an object"),
        ("a.jsonl", '{"case": "a", "lesion": "b", "report": 3}', "row 1: report: not a text"),
        ("a.jsonl", '{"case": "a", "lesion": "b"}', "row 1: no report"),
        ("a.jsonl", '{"case": "a", "lesion": "b", "report": "c", "report": "d"}', "row 1: report: appears twice"),
        ("a.jsonl", '{"case": "a", "lesion": "b", "report": "c", "\\ud800": 1}', "row 1: .* half a character"),
        ("a.docx", "", "'.docx' is not known; give .csv"),
        ("a__.txt", "x", "name it CASE__LESION.txt"),
        ("case_1.txt", "x", "name it CASE__LESION.txt"),
    ],
)
def test_a_fault_is_one_line_with_file_row_and_what_to_do(tmp_path, name, content, words):
    path = write(tmp_path, name, content)
    with pytest.raises(ReportFileError, match=words) as error:
        read_reports(tmp_path if name.endswith(".txt") else path)
    assert str(error.value).startswith(str(tmp_path))
    assert "\n" not in str(error.value)


def test_empty_cells_at_the_end_of_a_row_and_beside_the_columns_are_nothing(tmp_path):
    book = Workbook()
    for row in (["case", "lesion", "report"], ["case_1", "kidney cyst"], ["case_2", "kidney cyst", "Round."]):
        book.active.append(row)
    for column in "DEF":
        book.active[f"{column}1"].font = book.active[f"{column}3"].font = Font(bold=True)
    book.save(tmp_path / "a.xlsx")
    assert [report.report for report in read_reports(tmp_path / "a.xlsx")] == ["", "Round."]


def test_a_file_that_is_not_there_or_no_workbook_is_one_line(tmp_path):
    with pytest.raises(ReportFileError, match="no such file or folder"):
        read_reports(tmp_path / "a.csv")
    with pytest.raises(WorkbookError, match="save it as"):
        read_reports(write(tmp_path, "a.xlsx", "text"))


def test_the_table_states_per_case_what_its_report_states():
    table, _ = table_of_reports(REPORTS)
    assert table.cases["case_1"].lesions["kidney tumor"].stated == {
        "location": ("left kidney",),
        "shape": ("irregular",),
    }
    assert table.cases["case_2"].lesions["kidney cyst"].stated == {}
    assert table.lesions["kidney tumor"] == clinical_knowledge_table().lesions["kidney tumor"]
    assert parse_table(json.loads(json.dumps(table_to_dict(table)))) == table


def test_an_alias_is_the_lesion_type_that_it_stands_for():
    table, _ = table_of_reports([Report(case="a", lesion="Renal Mass", report=TEXT)])
    assert list(table.cases["a"].lesions) == ["kidney tumor"]


def test_a_lesion_type_of_ones_own_gets_the_values_of_its_reports():
    reports = [
        Report(case="a", lesion="spleen infarct", report="Wedge-shaped lesion in the spleen."),
        Report(case="b", lesion="Spleen-Infarct", report="Hypodense lesion in the spleen."),
    ]
    table, _ = table_of_reports(reports)
    assert list(table.lesions) == ["spleen infarct"]
    assert table.lesions["spleen infarct"].stated == {
        "location": ("spleen",),
        "shape": ("wedge-shaped",),
        "density": ("hypodense",),
    }


def test_a_lesion_type_of_ones_own_of_which_nothing_is_stated_is_told():
    with pytest.raises(ReportFileError, match="'kidny tumor'"):
        table_of_reports([Report(case="a", lesion="kidny tumor", report="A mass.")])


def test_two_reports_of_one_lesion_become_alternatives():
    reports = [
        Report(case="a", lesion="kidney tumor", report="Round mass in the left kidney."),
        Report(case="a", lesion="renal tumor", report="Lobulated mass in the left kidney."),
    ]
    values = table_of_reports(reports)[0].cases["a"].lesions["kidney tumor"]
    assert values.location == ("left kidney",)
    assert values.shape == ("round-like", "lobulated")


def test_a_case_whose_report_denies_a_lesion_has_no_entry_for_it_and_is_on_the_review_sheet():
    table, checked = table_of_reports([Report(case="a", lesion="kidney tumor", report="No renal mass.")])
    assert list(table.lesions) == ["kidney tumor"]
    assert table.cases["a"].lesions == {}
    assert [each.why for each in checked] == ["the report denies this lesion"]


def test_every_value_comes_with_its_words_and_doubts_with_a_reason():
    _, checked = table_of_reports(REPORTS)
    rows = list(csv.DictReader(io.StringIO(checked_values_csv(checked))))
    by_value = {row["value"]: row for row in rows}
    location = by_value["left kidney"]
    assert TEXT[int(location["start"]) : int(location["end"])] == location["words"] == "left kidney"
    assert (location["case"], location["confidence"], location["why"]) == ("case_1", "0.95", "")
    assert by_value["necrosis"]["why"] == "doubted in the report"
    assert [row["why"] for row in rows if row["case"] == "case_2"] == ["the report is empty"]


def test_measurements_are_listed_in_mm():
    _, checked = table_of_reports([Report(case="a", lesion="kidney tumor", report="Mass of 2.9 x 2 cm.")])
    assert [each.value for each in checked if each.aspect == "diameters_mm"] == ["29 x 20"]

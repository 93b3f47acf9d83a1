"""malenia_attributes: what it prints and how it ends."""

import argparse
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from openpyxl import Workbook

from nnunetv2_malenia import cli
from nnunetv2_malenia.attributes import bank, tables, text_encoder
from nnunetv2_malenia.attributes.text_encoder import HashingEncoder
from nnunetv2_malenia.cli import numeric
from nnunetv2_malenia.cli.messages import one_line_errors

GOOD = {"lesions": {"a": {"location": "liver"}, "b": {"location": "kidney"}}, "cases": {"c": {}}}


@pytest.fixture
def write(tmp_path):
    def write_json(name: str, content: object) -> str:
        (tmp_path / name).write_text(json.dumps(content))
        return str(tmp_path / name)

    return write_json


def test_validate_says_ok_with_counts(write, capsys):
    path = write("good.json", GOOD)
    assert cli.attributes(["validate", path]) == 0
    assert capsys.readouterr() == (f"{path}: OK, 2 lesion types, 1 case, 2 phrases\n", "")


def test_validate_goes_on_after_a_bad_table_and_fails(write, capsys):
    bad, good = write("bad.json", {"lesions": {"a": {"densty": "x"}}}), write("good.json", GOOD)
    assert cli.attributes(["validate", bad, good]) == 1
    out, err = capsys.readouterr()
    assert "good.json: OK" in out
    assert err.splitlines() == [
        f'error: {bad}: lesions/a/densty: unknown aspect "densty" (closest: density, density_variation); '
        "rename it or take it out"
    ]


def test_validate_warns_of_free_text_and_of_lesions_that_nothing_tells_apart(write, capsys):
    table = {"lesions": {"a": {"density": "hipodense"}, "b": {"location": "kidney"}, "c": {"location": "left kidney"}}}
    assert cli.attributes(["validate", write("t.json", table)]) == 0
    warnings = capsys.readouterr().err
    assert "density: 'hipodense' is free text" in warnings
    assert "closest: hypodense" in warnings
    assert "no aspect tells 'b' from 'c'" in warnings


def test_validate_names_at_most_ten_pairs(write, capsys):
    assert cli.attributes(["validate", write("t.json", {"lesions": {c: {"location": "liver"} for c in "abcdef"}})]) == 0
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 11
    assert "5 more pairs" in warnings[-1]


def test_show_prints_the_clinical_knowledge_table(capsys):
    assert cli.attributes(["show"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{name}\n" in out for name in tables.clinical_knowledge_table().lesions)


def test_show_finds_a_lesion_by_alias(capsys):
    assert cli.attributes(["show", "--lesion", "renal mass"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("kidney tumor\n")
    assert "left kidney | right kidney" in out
    assert "kidney cyst" not in out


def test_show_prints_a_file(write, capsys):
    assert cli.attributes(["show", write("good.json", GOOD)]) == 0
    out = capsys.readouterr().out
    assert "good.json" in out
    assert "1 case, 0 with attributes of their own" in out
    assert "kidney tumor" not in out


def test_show_names_the_closest_lesion(capsys):
    assert cli.attributes(["show", "--lesion", "kidny tumor"]) == 1
    err = capsys.readouterr().err
    assert "closest: 'kidney tumor'" in err
    assert err.count("\n") == 1


def test_show_prints_values_with_synonyms(capsys):
    assert cli.attributes(["show", "--vocabulary"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "hypodense (also: hypoattenuating," in out


def test_schema_goes_to_the_terminal_or_to_a_file(tmp_path, capsys):
    assert cli.attributes(["schema"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed) == tables.json_schema()
    assert cli.attributes(["schema", "-o", str(tmp_path / "s.json")]) == 0
    assert (tmp_path / "s.json").read_text() == printed


def test_a_folder_that_does_not_exist_is_one_line(tmp_path, capsys):
    assert cli.attributes(["schema", "-o", str(tmp_path / "none" / "s.json")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'none'}: no such folder; create it first\n"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["destroy"],
        ["validate"],
        ["embed", "t.json"],
        ["embed", "t.json", "-o", "b", "--pooling", "max"],
        ["embed", "t.json", "-o", "b", "--pooling", "cls"],
        ["embed", "t.json", "-o", "b", "--revision", "main"],
        ["show", "--vocabulary", "--lesion", "x"],
        ["show", "t.json", "--vocabulary"],
        ["import", "b.xlsx"],
        ["from-reports", "r.csv"],
        ["from-reports", "r.csv", "-o", "t", "--review", "t"],
        ["import", "b.xlsx", "-o", "t.json", "--sheet", "Sheet1"],
    ],
)
def test_wrong_arguments_end_with_status_2(argv, capsys):
    with pytest.raises(SystemExit) as ending:
        cli.attributes(argv)
    assert ending.value.code == 2
    assert "usage: malenia_attributes" in capsys.readouterr().err


@pytest.fixture
def shipped_bank(monkeypatch):
    """The shipped bank, and its encoder, with a stand-in encoder."""
    phrases = [*tables.vocabulary().phrases(), *tables.clinical_knowledge_table().phrases()]
    shipped = bank.EmbeddingBank.build(phrases, HashingEncoder(dim=8))
    monkeypatch.setattr(bank, "default_bank", lambda: shipped)
    return shipped


def test_embed_without_free_text_needs_no_encoder(shipped_bank, write, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(text_encoder, "minilm_encoder", lambda: pytest.fail("the encoder was loaded"))
    output = tmp_path / "bank.safetensors"
    assert cli.attributes(["embed", write("t.json", GOOD), "-o", str(output)]) == 0
    made = bank.EmbeddingBank.load(output)
    assert made.fingerprint == shipped_bank.fingerprint
    assert set(made.phrases) == set(shipped_bank.phrases)
    assert f"{len(made)} phrases" in capsys.readouterr().out


def test_embed_adds_free_text_to_the_vocabulary(shipped_bank, write, tmp_path, monkeypatch):
    monkeypatch.setattr(text_encoder, "minilm_encoder", lambda: HashingEncoder(dim=8))
    output = tmp_path / "bank.safetensors"
    table = write("t.json", {"lesions": {"a": {"shape": "like a dumb-bell"}}})
    assert cli.attributes(["embed", table, "-o", str(output)]) == 0
    made = bank.EmbeddingBank.load(output)
    assert set(made.phrases) == {*shipped_bank.phrases, ("shape", "like a dumb-bell")}


def test_embed_with_an_encoder_embeds_everything_by_it(write, tmp_path, monkeypatch):
    built = []

    def build(source, **options):
        built.append((source, options))
        return HashingEncoder(dim=4)

    monkeypatch.setattr(text_encoder, "TransformersEncoder", build)
    output = tmp_path / "bank.safetensors"
    argv = ["embed", write("t.json", GOOD), "-o", str(output), "--encoder", "some/bert", "--revision", "r1"]
    assert cli.attributes([*argv, "--pooling", "cls"]) == 0
    assert built == [("some/bert", {"revision": "r1", "pooling": "cls"})]
    made = bank.EmbeddingBank.load(output)
    assert set(tables.vocabulary().phrases()) <= set(made.phrases)
    np.testing.assert_array_equal(
        made.subset([("location", "liver")]).vectors, HashingEncoder(dim=4).encode(["location: liver"])
    )


def test_embed_with_an_encoder_that_is_not_there_is_one_line(write, tmp_path, capsys):
    argv = ["embed", write("t.json", GOOD), "-o", str(tmp_path / "b"), "--encoder", str(tmp_path / "no such folder")]
    assert cli.attributes(argv) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "b").exists()


def test_faults_of_the_program_keep_their_traceback():
    @one_line_errors
    def command(argv=None):
        raise ValueError("not ours")

    with pytest.raises(ValueError, match="not ours"):
        command()


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (numeric.count_from_zero, {"0": 0, "7": 7}, ["-1", "0.5", "x"]),
        (numeric.at_least_one, {"1": 1}, ["0", "1.5"]),
        (numeric.not_negative, {"0": 0, "0.5": 0.5}, ["-0.1", "inf", "nan"]),
        (numeric.probability, {"0.01": 0.01, "0.99": 0.99}, ["1", "0", "-0.1", "nan"]),
        (numeric.share, {"1": 1, "0.5": 0.5}, ["0", "1.1", "nan"]),
        (numeric.part, {"0": 0, "1": 1, "0.5": 0.5}, ["-0.1", "7", "nan"]),
    ],
)
def test_numbers_out_of_range_are_refused(check, good, bad):
    assert {text: check(text) for text in good} == good
    for text in bad:
        with pytest.raises((ValueError, argparse.ArgumentTypeError)):
            check(text)


def test_a_message_is_one_line_that_no_terminal_acts_on(tmp_path, capsys):
    for name, status in (("a\x1b[31m\nb.json", 1), ("\x9b\u202eb.json", 1), ("a\udcff.json", 2)):
        assert cli.attributes(["show", str(tmp_path / name)]) == status
        said = capsys.readouterr().err
        assert said.endswith("\n")
        assert said[:-1].isprintable()


def test_what_is_printed_may_have_characters_that_the_terminal_has_not(tmp_path, monkeypatch):
    path = tmp_path / "é肾.json"
    path.write_text(json.dumps(GOOD))
    printed = io.TextIOWrapper(io.BytesIO(), "latin-1")
    monkeypatch.setattr(sys, "stdout", printed)
    assert cli.attributes(["validate", str(path)]) == 0
    assert b"\xe9\\u80be.json: OK, 2 lesion types" in printed.buffer.getvalue()


def test_an_interrupt_is_no_traceback(capsys):
    @one_line_errors
    def command(argv=None):
        raise KeyboardInterrupt

    assert command() == 130
    assert capsys.readouterr().err == "error: interrupted\n"


HELP = "import sys; from nnunetv2_malenia.cli import attributes\ntry: attributes(['--help'])\nexcept SystemExit: pass\n"
REPORT = "print([name for name in ('torch', 'nnunetv2', 'pydantic', 'transformers') if name in sys.modules])"


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)


def test_help_loads_no_library():
    assert run_python(HELP + REPORT).stdout.splitlines()[-1] == "[]"


def test_the_check_for_loaded_libraries_can_fail():
    assert run_python("import pydantic\n" + HELP + REPORT).stdout.splitlines()[-1] == "['pydantic']"


def test_show_and_validate_need_no_torch(write):
    path = write("good.json", GOOD)
    code = f"import sys; from nnunetv2_malenia.cli import attributes; attributes(['validate', {path!r}]); "
    assert run_python(code + "attributes(['show']); " + REPORT).stdout.splitlines()[-1] == "['pydantic']"


@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_terminal_is_no_error(closed):
    code = f"import os, sys; os.close({closed}); from nnunetv2_malenia.cli import attributes; "
    code += f"sys.{'stdout' if closed == 1 else 'stderr'} = None; sys.exit(attributes(['show']))"
    assert run_python(code).returncode == 0


def test_a_reader_that_has_seen_enough_is_no_error():
    code = "import sys; from nnunetv2_malenia.cli import attributes; sys.exit(attributes(['show']))"
    command = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    command.stdout.close()
    assert command.stderr.read() == b""
    command.wait()
    command.stderr.close()


def annotation_workbook(folder) -> str:
    book = Workbook()
    book.active.title = "Sheet1"
    book.active.append(["case", "enhancement", "location", "shape", "density", "variation", "surface", "relationship"])
    book.active.append(["case_00001", 2, 1, 12, 3, 2, 2, 1])
    book.save(folder / "book.xlsx")
    return str(folder / "book.xlsx")


def test_import_writes_a_table_that_can_be_used_and_names_what_it_could_not_read(tmp_path, capsys):
    output = tmp_path / "table.json"
    argv = ["import", annotation_workbook(tmp_path), "-o", str(output), "--sheet", "Sheet1=kidney tumor"]
    assert cli.attributes(argv) == 0
    out, err = capsys.readouterr()
    assert out == f"{output}: 1 case, 1 lesion type; 1 cell reported\n"
    assert "row 2 (case_00001): shape 12: not one of 1, 2" in err
    assert tables.read_table(output).attributes_of("kidney tumor", "case_00001").location == ("left kidney",)


def test_import_of_a_workbook_that_is_not_known_writes_nothing(tmp_path, capsys):
    output = tmp_path / "table.json"
    assert cli.attributes(["import", annotation_workbook(tmp_path), "-o", str(output)]) == 1
    err = capsys.readouterr().err
    assert "--sheet" in err
    assert err.count("\n") == 1
    assert not output.exists()


@pytest.fixture
def reports(tmp_path) -> str:
    text = "Irregular mass in the left kidney, possibly with necrosis."
    (tmp_path / "reports.csv").write_text(f'case,lesion,report\ncase_00001,kidney tumor,"{text}"\n')
    return str(tmp_path / "reports.csv")


def test_from_reports_writes_a_table_the_evidence_and_what_to_review(reports, tmp_path, capsys):
    table, review, evidence = (str(tmp_path / name) for name in ("t.json", "review.csv", "evidence.csv"))
    assert cli.attributes(["from-reports", reports, "-o", table, "--review", review, "--evidence", evidence]) == 0
    assert capsys.readouterr() == (f"{table}: 1 case, 1 lesion type; 1 to review: {review}\n", "")
    assert tables.read_table(table).attributes_of("kidney tumor", "case_00001").shape == ("irregular",)
    lines = (tmp_path / "review.csv").read_text().splitlines()
    assert len(lines) == 2
    assert "necrosis" in lines[1]
    assert len((tmp_path / "evidence.csv").read_text().splitlines()) == 4


def test_from_reports_with_a_fault_is_one_line_and_writes_nothing(tmp_path, capsys):
    (tmp_path / "reports.csv").write_text("case,lesion,report\ncase_00001,kidney tumor\n")
    argv = ["from-reports", str(tmp_path / "reports.csv"), "-o", str(tmp_path / "t.json"), "--review"]
    assert cli.attributes([*argv, str(tmp_path / "review.csv")]) == 1
    assert capsys.readouterr().err == f"error: {argv[1]}: row 2: no report; every row needs case, lesion, report\n"
    assert [path.name for path in tmp_path.iterdir()] == ["reports.csv"]


@pytest.mark.parametrize("file", ["t.json", "review.csv", "evidence.csv"])
def test_from_reports_replaces_no_file_unless_told_to(reports, tmp_path, capsys, file):
    (tmp_path / file).write_text("by hand")
    argv = ["from-reports", reports]
    for option, name in (("-o", "t.json"), ("--review", "review.csv"), ("--evidence", "evidence.csv")):
        argv += [option, str(tmp_path / name)]
    before = sorted(tmp_path.iterdir())
    assert cli.attributes(argv) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / file} exists; ")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / file).read_text() == "by hand"
    assert cli.attributes([*argv, "--overwrite"]) == 0
    assert (tmp_path / file).read_text() != "by hand"


def test_import_and_from_reports_need_no_torch(reports, tmp_path):
    book = annotation_workbook(tmp_path)
    output = str(tmp_path / "t.json")
    runs = [
        ["import", book, "-o", output, "--sheet", "Sheet1=kidney tumor"],
        ["from-reports", reports, "-o", output, "--overwrite"],
    ]
    code = "import sys; from nnunetv2_malenia.cli import attributes; "
    done = run_python(code + "; ".join(f"assert attributes({argv!r}) == 0" for argv in runs) + "; " + REPORT)
    assert done.stdout.splitlines()[-1] == "['pydantic']"

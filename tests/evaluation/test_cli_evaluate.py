"""malenia_evaluate: what it prints and how it ends."""

import json

import pytest

from nnunetv2_malenia import cli


@pytest.fixture
def arguments(asked) -> list[str]:
    return ["-i", str(asked.predictions), "-g", str(asked.references), "--labels", str(asked.labels), "-np", "1"]


def test_the_table_is_printed_and_results_go_beside_the_predictions(asked, arguments, capsys):
    assert cli.evaluate(arguments) == 0
    out, err = capsys.readouterr()
    assert "| liver tumor " in out
    assert "published DSC" in out
    assert "note: not scored, since the predictions do not have them: kidney tumor" in err
    folder = asked.predictions / "evaluation"
    assert out.rstrip().endswith(f"written: {folder}")
    assert (folder / "table.md").read_text("utf-8") in out


def test_options_reach_the_evaluation(arguments, tmp_path, capsys):
    more = ["-o", str(tmp_path / "out"), "--tolerance_mm", "0.5", "--unseen", "hepatic tumor, liver cyst"]
    assert cli.evaluate([*arguments, *more, "--disable_progress_bar"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["options"]["tolerance_mm"] == 0.5
    assert [each["seen"] for each in summary["types"]] == [False, False]
    assert "cases:" not in capsys.readouterr().err


def test_what_cannot_be_evaluated_is_one_line_and_leaves_nothing(asked, arguments, tmp_path, capsys):
    (asked.predictions / "b.nii.gz").unlink()
    assert cli.evaluate([*arguments, "-o", str(tmp_path / "out")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert "b; predict them" in err
    assert not (tmp_path / "out").exists()


def test_a_bad_table_and_a_folder_that_is_a_file_are_one_line(asked, arguments, tmp_path, capsys):
    bad = tmp_path / "table.json"
    bad.write_text('{"lesions": {"a": {"densty": "x"}}}')
    assert cli.evaluate([*arguments, "--attributes", str(bad)]) == 1
    assert 'unknown aspect "densty"' in capsys.readouterr().err
    assert cli.evaluate([*arguments, "-o", str(asked.labels), "--disable_progress_bar"]) == 1
    assert capsys.readouterr().err == f"error: {asked.labels}: File exists\n"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--oracle"], "--oracle needs --any_lesion"),
        (["--tolerance_mm", "-1"], "-1 is not 0 or more"),
        (["--tolerance_mm", "nan"], "nan is not 0 or more"),
        (["-np", "0"], "0 is less than 1"),
    ],
)
def test_wrong_arguments_end_with_usage(arguments, more, said, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.evaluate([*arguments, *more])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err

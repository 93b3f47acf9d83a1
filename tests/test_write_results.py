"""docs/results.md is what the stored results make of it."""

import shutil
from pathlib import Path

from benchmarks import write_results

ROOT = Path(__file__).parents[1]


def test_the_page_is_written_from_the_stored_results(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "benchmarks" / "results", tmp_path / "benchmarks" / "results")
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(write_results, "HERE", tmp_path / "benchmarks")
    write_results.main()
    assert (tmp_path / "docs" / "results.md").read_text("utf-8") == (ROOT / "docs" / "results.md").read_text("utf-8")

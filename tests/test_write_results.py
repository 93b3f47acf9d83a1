"""docs/results.md is what the stored results make of it, each figure in its place."""

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


def test_limits_stand_in_the_column_of_what_they_were_measured_of():
    def read(accuracy: float) -> dict:
        figures = {"accuracy": accuracy, "majority": 0.5}
        return {"aspects": {"mean": figures, "aspects": {"shape": figures}}, "diseases": {"top_1": accuracy + 0.01}}

    def measured(accuracy: float) -> dict:
        return {"shape": accuracy, "lesions": 3}

    run = {
        "seed": 0,
        "silent": {way: {"seen": 0.7, "unseen": 0.8} for way in ("can coincide", "the same")},
        "reference masks": {"seen": read(0.3), "unseen": read(0.2)},
        "told the masks": {"seen": read(0.4), "unseen": read(0.2)},
        "own measurements": {"seen": measured(0.6), "unseen": measured(0.2)},
        "measurements of the same": {"seen": measured(0.8), "unseen": measured(0.2)},
        "measurements": {"seen": measured(0.9), "unseen": measured(0.2)},
    }
    predicted = {"row": "malenia", "seed": 0, "aspects": {"seen": read(0.1)["aspects"]},
                 "diseases": {"query": {"seen": {"top_1": 0.15}}}}  # fmt: skip

    lines = write_results.limits_section({"runs": [run], "size": "small", "commit": "abc"}, {"runs": [predicted]})

    seen = lines[: next(i for i, line in enumerate(lines) if line.startswith("| unseen types"))]
    assert "| shape | 0.10 | 0.30 | 0.40 | 0.60 | 0.80 | 0.90 | 0.50 |" in seen
    assert "| **mean** | 0.10 | 0.30 | 0.40 | n/a | n/a | n/a | 0.50 |" in seen
    assert "| disease first | 0.15 | 0.31 | 0.41 | n/a | n/a | n/a | n/a |" in seen
    assert "Lesions a seed, measured: 3.00, 3.00, 3.00." in seen

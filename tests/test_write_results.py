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


def test_descriptions_are_averaged_over_types_and_then_over_seeds():
    def types(first: float, second: float | None) -> list[dict]:
        names = {"liver tumor": first, "kidney cyst": second}
        return [{"name": name, "seen": True, "can_coincide": share, "the_same": 1.0} for name, share in names.items()]

    runs = [{"seed": 0, "types": types(0.2, 0.6)}, {"seed": 1, "types": types(0.6, None)}]
    lines = write_results.descriptions_section({"size": "small", "runs": runs})

    assert "| liver tumor | seen | 0.40 ± 0.28 | 1.00 ± 0.00 |" in lines
    assert "| kidney cyst | seen | 0.60 | 1.00 ± 0.00 |" in lines
    assert "| **mean, seen** | seen | 0.50 ± 0.14 | 1.00 ± 0.00 |" in lines

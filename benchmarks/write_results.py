"""Write docs/results.md from the stored results.

malenia_demo --baseline -o FOLDER  (and with --minutes 60 --seed 2 --test_cases 24)
cp FOLDER/results.json benchmarks/results/demo_5_epochs.json  (demo_20_epochs.json)
python benchmarks/train_step.py -d 901 -p nnUNetMaleniaDemoPlans
python benchmarks/write_results.py
"""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent
DEFAULTS = {"minutes": 15, "seed": 0, "test_cases": 16}  # malenia_demo's


def number(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def mean_dsc(rows: list[dict], *, seen: bool) -> str:
    values = [row["mean_dsc"] for row in rows if row["seen"] is seen and row["mean_dsc"] is not None]
    return number(sum(values) / len(values), 2)


def demo_table(results: dict) -> list[str]:
    lines = [
        "| lesion type | training | cases | DSC | ml returned, present | ml returned, absent | any-lesion DSC |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, other in zip(results["malenia"], results["any_lesion"], strict=True):
        lines.append(
            f"| {row['name']} | {'seen' if row['seen'] else 'unseen'} | {row['cases_present']} | "
            f"{number(row['mean_dsc'], 2)} | {number(row['volume_present_ml'], 1)} | "
            f"{number(row['volume_absent_ml'], 1)} | {number(other['mean_dsc'], 2)} |"
        )
    for seen in (True, False):
        lines.append(
            f"| **mean, {'seen' if seen else 'unseen'}** | | | {mean_dsc(results['malenia'], seen=seen)} | | | "
            f"{mean_dsc(results['any_lesion'], seen=seen)} |"
        )
    return lines


def command(results: dict) -> str:
    options = results["options"]
    given = [f" --minutes {options['minutes']}"] if options["minutes"] != DEFAULTS["minutes"] else []
    given += [f" --{name} {options[name]}" for name in ("seed", "test_cases") if options[name] != DEFAULTS[name]]
    return "malenia_demo --baseline" + "".join(given)


def demo_section(results: dict) -> list[str]:
    options = results["options"]
    return [
        f"## `{command(results)}`: {results['epochs']} epochs of 250 steps",
        "",
        f"One run; {options['train_cases']} phantoms of seed {options['seed']}, {options['test_cases']} held out.",
        "",
        *demo_table(results),
        "",
    ]


def main() -> None:
    demos = [json.loads(path.read_text()) for path in sorted((HERE / "results").glob("demo_*.json"))]
    step = json.loads((HERE / "results" / "train_step_cpu.json").read_text())
    lines = [
        "# Results",
        "",
        "Phantoms only; not clinical data. This page is written by `benchmarks/write_results.py` from "
        "`benchmarks/results/`.",
        "",
        "DSC: mean over the cases that hold the type. The any-lesion network is a plain nnU-Net of the same plan, "
        "optimiser, sampling and number of steps, trained on one label for all seen lesion types; its one mask is "
        "scored against every type. Where the two columns of ml are alike, the answer does not depend on the query. "
        "The network's design was chosen on development phantoms of seed 777, which hold the unseen types too; the "
        "weights of the two branches (0.2 and 0.8) are an earlier model's. One training seed each: directions, no "
        "claims.",
        "",
        *(line for demo in sorted(demos, key=lambda results: results["epochs"]) for line in demo_section(demo)),
        "## One training step",
        "",
        f"Median of {step['steps']} alternating steps on the same batches, patch {step['patch_size']}, batch "
        f"{step['batch_size']}, {step['processor']}, torch {step['versions']['torch']}: nnUNetTrainer "
        f"{step['nnUNetTrainer']['median_s']:.3f} s, MaleniaTrainer {step['MaleniaTrainer']['median_s']:.3f} s, ratio "
        f"{step['ratio_of_medians']:.2f}. Not measured on a GPU.",
        "",
    ]
    (HERE.parent / "docs" / "results.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()

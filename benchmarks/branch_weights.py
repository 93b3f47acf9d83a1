"""How much each branch should say, found without looking at an unseen type: leave one seen type out and ask for it.

    python -m benchmarks.branch_weights --types "kidney cyst" "liver tumor" -o FOLDER

For each type: MaleniaTrainer on phantoms of the other seen types, size `small` of benchmarks.zero_shot; then asked for
the type in phantoms that hold it, with every share of the text branch in the ensemble. Steps whose results are there
are not run again. Writes benchmarks/results/branch_weights.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.zero_shot.beds import PHANTOMS
from benchmarks.zero_shot.experiment import Experiment, predict_bed, run_experiment, score_bed
from benchmarks.zero_shot.rows import PHANTOM, ROWS, SIZES, Size
from nnunetv2_malenia.cli.numeric import count_from_zero
from nnunetv2_malenia.demo.phantom_dataset import write_phantom_dataset
from nnunetv2_malenia.files import write_json
from nnunetv2_malenia.phantom.dataset import SEEN

RESULTS = Path(__file__).parent / "results" / "branch_weights.json"
WEIGHTS = (0.0, 0.2, 0.5, 0.8, 1.0)


def leave_out(left_out: str, folder: Path, size: Size, seed: int) -> list[dict[str, Any]]:
    """Train without one seen type -> DSC of it, and the mean of the others, for every weight."""
    home = folder / left_out.replace(" ", "_")
    experiment = Experiment(ROWS["malenia"], seed, size, home, "cpu", unseen=(left_out,))
    if not (experiment.raw / PHANTOM).exists():
        seen = tuple(name for name in SEEN if name != left_out)
        experiment.raw.mkdir(parents=True, exist_ok=True)
        write_phantom_dataset(experiment.raw / PHANTOM, train_cases=size.train_cases, test_cases=size.test_cases,
                              seen=seen, unseen=(left_out,), seed=seed, config=size.phantoms)  # fmt: skip
    run_experiment(experiment)
    rows = []
    for weight in WEIGHTS:
        weighted = _with_weight(experiment, weight)
        predict_bed(weighted, PHANTOMS)
        types = score_bed(weighted, PHANTOMS)["summary"]["types"]
        of_type = {each["name"]: each["dsc"]["mean"] for each in types}
        rows.append({"left_out": left_out, "text_weight": weight, "dsc": of_type.pop(left_out),
                     "dsc_trained": mean(of_type.values())})  # fmt: skip
    return rows


def _with_weight(experiment: Experiment, weight: float) -> Experiment:
    """The same model with another share of the text branch, in a folder beside."""
    other = replace(experiment, folder=experiment.folder / f"text_{weight}")
    if not other.model.exists():
        shutil.copytree(experiment.raw, other.raw)
        shutil.copytree(experiment.model, other.model)
        (other.home / "logs").mkdir()
        plans = json.loads((other.model / "plans.json").read_text(encoding="utf-8"))
        plans["malenia"]["network"]["text_weight"] = weight
        write_json(other.model / "plans.json", plans)
    return other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="+", choices=SEEN, default=SEEN, metavar="TYPE")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--seed", type=count_from_zero, default=0)
    parser.add_argument("-o", type=Path, required=True, metavar="FOLDER")
    args = parser.parse_args()
    rows = [row for name in args.types for row in leave_out(name, args.o.resolve(), SIZES[args.size], args.seed)]
    print(json.dumps(rows, indent=2))
    if args.size != "smoke":
        write_json(RESULTS, {"size": args.size, "seed": args.seed, "rows": rows})


if __name__ == "__main__":
    main()

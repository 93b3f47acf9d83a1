"""Measure the shipped model with the present prediction, in the place of what its own training measured.

    python -m benchmarks.measure_shipped -o FOLDER

Asks `-m phantom` for all types in the test phantoms that it was measured on before. Writes the figures into
benchmarks/results/demo_10_epochs.json, whose any-lesion network stays as it was trained, and into the model card.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from benchmarks.commands import revision, run_logged
from benchmarks.ship_model import PRETRAINED, figures_table
from benchmarks.store_demo import count_pairs
from nnunetv2_malenia.demo.phantom_dataset import write_phantom_dataset
from nnunetv2_malenia.demo.run import DATASET, PHANTOMS, QUERY_TABLE, evaluate, type_figures
from nnunetv2_malenia.files import write_json, write_text

RESULT = Path(__file__).parent / "results" / "demo_10_epochs.json"
CARD = PRETRAINED / "phantom" / "model_card.md"


def with_table(card: str, rows: list[str]) -> str:
    """The card with another table of lesion types."""
    lines = card.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| lesion type |"))
    end = lines.index("", first)
    return "\n".join([*lines[:first], *rows, *lines[end:], ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", type=Path, required=True, metavar="FOLDER")
    folder = parser.parse_args().o
    stored = json.loads(RESULT.read_text(encoding="utf-8"))
    options, raw, predictions = stored["options"], folder / "nnUNet_raw" / DATASET, folder / "predictions"
    write_phantom_dataset(
        raw, train_cases=1, test_cases=options["test_cases"], seed=options["seed"], config=PHANTOMS
    )  # test phantoms do not depend on the number of others
    run_logged(["malenia_predict_zeroshot", "-i", raw / "imagesTs", "-o", predictions, "--attributes",
                raw / QUERY_TABLE, "-m", "phantom", "-device", "cpu", "--save_masks", "--disable_tta"],
               env=dict(os.environ), log=folder / "log.txt")  # fmt: skip
    types = type_figures(evaluate(raw, predictions).summary)
    pairs = count_pairs(folder, {each["name"]: each["seen"] for each in types})
    write_json(RESULT, stored | {"malenia": types, "pairs": pairs, "measured_at": revision()})
    write_text(CARD, with_table(CARD.read_text(encoding="utf-8"), figures_table(types)))


if __name__ == "__main__":
    main()

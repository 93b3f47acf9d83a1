"""Store what malenia_demo --train measured, and count how often asking for one of two lesion types returned that one.

    python benchmarks/store_demo.py FOLDER

FOLDER is the output of malenia_demo --train --baseline. Of every test phantom and every ordered pair of types
in it, the mask that asking for the first returned is compared with the references of both by DSC. Writes
benchmarks/results/demo_N_epochs.json.
"""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import version
from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np

from nnunetv2_malenia.attributes.schema import file_name
from nnunetv2_malenia.attributes.tables import queries, read_table
from nnunetv2_malenia.demo.run import DATASET, QUERY_TABLE, REFERENCE_LABELS
from nnunetv2_malenia.evaluation.metrics import dsc

OUTCOMES = ("asked type", "other type", "neither")


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def count_pairs(folder: Path, seen: dict[str, bool]) -> dict[str, dict[str, int]]:
    """Seen and unseen asked types: pairs with a higher DSC to the asked type, to the other, or the same, which is 0."""
    raw = folder / "nnUNet_raw" / DATASET
    values = json.loads((raw / REFERENCE_LABELS).read_text())
    counts = {group: dict.fromkeys(OUTCOMES, 0) for group in ("seen", "unseen")}
    for reference_file in sorted((raw / "labelsTs").glob("*.nii.gz")):
        reference = voxels(reference_file)
        present = [query.name for query in queries(read_table(raw / QUERY_TABLE)) if values[query.name] in reference]
        case_id = reference_file.name.removesuffix(".nii.gz")
        for asked, other in permutations(present, 2):
            mask = voxels(folder / "predictions" / "masks" / case_id / f"{file_name(asked)}.nii.gz") > 0
            scores = [dsc(mask, reference == values[name]) for name in (asked, other)]
            outcome = OUTCOMES[2] if scores[0] == scores[1] else OUTCOMES[int(scores[1] > scores[0])]
            counts["seen" if seen[asked] else "unseen"][outcome] += 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="output folder of malenia_demo --train --baseline")
    folder = parser.parse_args().folder
    results = json.loads((folder / "results.json").read_text())
    results["pairs"] = count_pairs(folder, {row["name"]: row["seen"] for row in results["malenia"]})
    results["versions"] = {name: version(name) for name in ("nnunetv2_malenia", "nnunetv2", "torch")}
    results["python"] = platform.python_version()
    path = Path(__file__).parent / "results" / f"demo_{results['epochs']}_epochs.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results["pairs"]))


if __name__ == "__main__":
    main()

"""A study of two cases, small enough to count by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

from nnunetv2_malenia.evaluation.comparison import EvaluationOptions

LABELS = {"background": 0, "liver": 1, "liver tumor": 2, "liver cyst": 3, "kidney tumor": 4}
SHAPE = (6, 7, 8)
AFFINE = np.array([[-2.0, 0, 0, 30], [0, 3.0, 0, -20], [0, 0, 5.0, 10], [0, 0, 0, 1]])  # a voxel is 0.03 ml


def volume(values: Mapping[int, tuple], shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Label value -> index of its voxels."""
    voxels = np.zeros(shape, dtype=np.uint8)
    for value, index in values.items():
        voxels[index] = value
    return voxels


def save(voxels: np.ndarray, path: Path, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)


def write(content: object, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


class Study:
    """References of cases `a` (a tumor of 2 voxels, a cyst of 1) and `b` (a tumor of 1), and room for the rest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.predictions, self.references = folder / "predictions", folder / "labelsTs"
        self.labels = write(LABELS, folder / "labelsTs.json")
        save(volume({1: np.s_[0:3], 2: np.s_[0, 0, 0:2], 3: np.s_[3, 3, 3]}), self.references / "a.nii.gz")
        save(volume({1: np.s_[0:3], 2: np.s_[2, 2, 2]}), self.references / "b.nii.gz")
        self.predictions.mkdir()

    def options(self, **others: object) -> EvaluationOptions:
        return EvaluationOptions(self.predictions, self.references, self.labels, **others)

    def ask(self, **names_and_seen: bool) -> None:
        """Write queries.json; names with underscores instead of spaces."""
        queries = [
            {"id": i + 1, "name": name.replace("_", " "), "seen_in_training": seen, "attributes": {}}
            for i, (name, seen) in enumerate(names_and_seen.items())
        ]
        write({"queries": queries}, self.predictions / "queries.json")

    def predict(self, case_id: str, values: Mapping[int, tuple], **presence_scores: float) -> None:
        save(volume(values), self.predictions / f"{case_id}.nii.gz")
        findings = [
            {"name": name.replace("_", " "), "presence_score": score} for name, score in presence_scores.items()
        ]
        write({"case": case_id, "findings": findings}, self.predictions / f"{case_id}.json")

    def predict_as_nnunet(self, labels: Mapping[str, object], cases: Mapping[str, Mapping[int, tuple]]) -> None:
        write({"labels": labels, "file_ending": ".nii.gz"}, self.predictions / "dataset.json")
        for case_id, values in cases.items():
            save(volume(values), self.predictions / f"{case_id}.nii.gz")

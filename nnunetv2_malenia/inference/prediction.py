"""One image, asked from Python: arrays in, arrays out, through the same steps as files."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from nnunetv2_malenia.inference.answers import image_probabilities
from nnunetv2_malenia.inference.export import OutputOptions
from nnunetv2_malenia.inference.findings import LesionFinding
from nnunetv2_malenia.inference.geometry import as_stored
from nnunetv2_malenia.volumes import InputError, write_volume

if TYPE_CHECKING:
    from nnunetv2_malenia.inference.predictor import MaleniaPredictor


@dataclass(frozen=True)
class Prediction:
    """The answers for one image; arrays are in the image's own axis order, x, y, z, as nibabel gives it.

    probabilities (Q, X, Y, Z) float32 in [0, 1]; masks (Q, X, Y, Z) bool; label_map (X, Y, Z) integer: 0, or the
    query's id, from 1 (the lesion's, where nothing was asked); affine (4, 4): x, y, z to RAS millimetres; findings: one
    for each query; warnings: what was odd about the image.
    """

    probabilities: np.ndarray
    masks: np.ndarray
    label_map: np.ndarray
    affine: np.ndarray
    findings: list[LesionFinding]
    warnings: list[str]


def predict_images(
    predictor: MaleniaPredictor, images: list[Path | np.ndarray], affine: np.ndarray | None, options: OutputOptions
) -> Prediction:
    """The predictor's answers for one case. images: one a channel; affine is that of arrays. Raises InputError."""
    with tempfile.TemporaryDirectory(prefix="malenia_") as folder:
        files = {i: _as_file(image, affine, Path(folder) / f"image_{i}.nii") for i, image in enumerate(images)}
        case = predictor.preparation(files)
        if case.fault is not None:
            raise InputError(case.fault)
    logits, reading = predictor.say(torch.from_numpy(case.data), options.threshold)
    case_answers = predictor.case_answers(options)
    answers = case_answers.render(case_answers.find(logits, reading), case.properties)
    probabilities = image_probabilities(
        logits[:-1].numpy(), case.properties, predictor.plans_manager, predictor.configuration_manager
    )
    masks = [answers.mask(i) for i in range(len(answers.findings))]
    stored_affine = case.properties["stored_affine"]
    return Prediction(
        probabilities=np.stack([as_stored(each, answers.affine, stored_affine) for each in probabilities]),
        masks=np.stack([as_stored(each, answers.affine, stored_affine) for each in masks]),
        label_map=as_stored(answers.label_map, answers.affine, stored_affine),
        affine=stored_affine,
        findings=answers.findings,
        warnings=case.warnings,
    )


def _as_file(image: Path | np.ndarray, affine: np.ndarray | None, path: Path) -> Path:
    if isinstance(image, (str, Path)):
        return Path(image)
    if affine is None:
        raise InputError("an array needs its place in the patient: give affine, (4, 4), x, y, z to RAS millimetres")
    write_volume(np.asarray(image, dtype=np.float32), affine, path)
    return path

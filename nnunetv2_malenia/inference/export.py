"""From query logits on the preprocessed grid to files in the image's own geometry, each written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunetv2_malenia.attributes.schema import LesionQuery, file_name
from nnunetv2_malenia.inference.findings import measure
from nnunetv2_malenia.inference.sliding_window import QueryLabelManager


def write_whole(path: Path, write: Callable[[str], object]) -> None:
    """Call `write` with a name beside `path` that has the same ending, then rename."""
    beside = path.with_name(f".partial_{os.getpid()}_{path.name}")
    try:
        write(str(beside))
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    write_whole(path, lambda name: Path(name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8"))


def export_case(
    logits: np.ndarray,
    properties: dict,
    configuration_manager: ConfigurationManager,
    plans_manager: PlansManager,
    queries: Sequence[LesionQuery],
    seen: Sequence[bool],
    output_folder: Path,
    case_id: str,
    file_ending: str,
    save_masks: bool,
) -> None:
    """Write CASE.nii.gz (label map), CASE.json (findings) and, if asked, masks/CASE/QUERY.nii.gz.

    logits (Q, Z, Y, X) on the preprocessed grid. Resampling, cropping and transposing are undone by nnU-Net.
    """
    label_map, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        plans_manager,
        configuration_manager,
        QueryLabelManager(len(queries)),
        properties,
        return_probabilities=True,
    )
    if not np.isfinite(probabilities).all():
        raise ValueError(f"{case_id}: the network's output is not finite; check the image for NaN or infinite voxels")
    writer = plans_manager.image_reader_writer_class()
    findings = measure(queries, seen, probabilities, properties["spacing"])
    if save_masks:
        folder = output_folder / "masks" / case_id
        folder.mkdir(parents=True, exist_ok=True)
        for query, probability in zip(queries, probabilities, strict=True):
            mask = (probability > 0.5).astype(np.uint8)
            path = folder / f"{file_name(query.name)}{file_ending}"
            write_whole(path, lambda name, mask=mask: writer.write_seg(mask, name, properties))
    write_json(
        output_folder / f"{case_id}.json",
        {
            "case": case_id,
            "findings": [finding.model_dump(mode="json") for finding in findings],
        },
    )
    write_whole(output_folder / f"{case_id}{file_ending}", lambda name: writer.write_seg(label_map, name, properties))

"""From query logits on the preprocessed grid to files in the image's own geometry."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from nnunetv2_malenia.attributes.schema import file_name
from nnunetv2_malenia.files import sha256_of, write_json, write_whole
from nnunetv2_malenia.inference.answers import CaseAnswers
from nnunetv2_malenia.inference.dicom_seg import write_dicom_seg
from nnunetv2_malenia.inference.findings import CaseFindings
from nnunetv2_malenia.inference.geometry import as_stored
from nnunetv2_malenia.inference.preparation import PreparedCase
from nnunetv2_malenia.inference.reading import SimilarityMap


@dataclass(frozen=True)
class OutputOptions:
    """What counts as found, and which files are written beside CASE.nii.gz and CASE.json.

    threshold: probability above which a voxel belongs to a query; min_volume_ml: smaller connected components are left
    out; save_masks: masks/CASE/QUERY.nii.gz; save_probabilities: CASE.npz; save_dicom_seg: CASE.seg.dcm, for DICOM.
    """

    threshold: float = 0.5
    min_volume_ml: float = 0.0
    save_masks: bool = False
    save_probabilities: bool = False
    save_dicom_seg: bool = False


@dataclass(frozen=True)
class CaseExport:
    """Write a case's results. CASE.json comes last: where it is, everything that it lists is complete."""

    answers: CaseAnswers
    options: OutputOptions
    output_folder: Path
    file_ending: str
    asked_sha256: str

    def __call__(self, case_id: str, case: PreparedCase, logits: np.ndarray, reading: SimilarityMap) -> CaseFindings:
        """logits (Q + 1, Z, Y, X) on the preprocessed grid. Raises InputError when they are not finite."""
        try:
            return self._write(case_id, case, logits, reading)
        except BaseException:
            remove_outputs(self.output_folder, case_id, self.file_ending)
            raise

    def _write(self, case_id: str, case: PreparedCase, logits: np.ndarray, reading: SimilarityMap) -> CaseFindings:
        probabilities, masks, labels, affine, findings = self.answers(logits, reading, case.properties)
        writer = case.properties["writer"]()
        written = [self.output_folder / f"{case_id}{self.file_ending}"]
        write_whole(written[0], lambda name: writer.write_seg(labels, name, case.properties))
        if self.options.save_masks:
            folder = self.output_folder / "masks" / case_id
            folder.mkdir(parents=True, exist_ok=True)
            for query, mask in zip(self.answers.queries, masks, strict=True):
                written.append(folder / f"{file_name(query.name)}{self.file_ending}")
                voxels = mask.astype(np.uint8)
                write_whole(written[-1], lambda name, v=voxels: writer.write_seg(v, name, case.properties))
        if self.options.save_probabilities:
            written.append(self.output_folder / f"{case_id}.npz")
            write_whole(
                written[-1], lambda name: np.savez_compressed(name, probabilities=probabilities, affine_xyz_ras=affine)
            )
        if self.options.save_dicom_seg:
            written.append(self.output_folder / f"{case_id}.seg.dcm")
            folder, stored_affine = case.properties["dicom_folder"], case.properties["stored_affine"]
            stored = np.stack([as_stored(mask, affine, stored_affine) for mask in masks])
            write_whole(
                written[-1],
                lambda name: write_dicom_seg(
                    name, folder, stored, self.answers.queries, asked_sha256=self.asked_sha256
                ),
            )
        report = CaseFindings(
            case=case_id,
            threshold=self.options.threshold,
            min_volume_ml=self.options.min_volume_ml,
            warnings=tuple(case.warnings),
            findings=tuple(findings),
            inputs=case.inputs,
            outputs={path.relative_to(self.output_folder).as_posix(): sha256_of(path) for path in written},
            asked_sha256=self.asked_sha256,
        )
        write_json(self.output_folder / f"{case_id}.json", report.model_dump(mode="json"))
        return report


def read_findings(path: Path) -> CaseFindings | None:
    """CASE.json, or None where there is none that this version wrote."""
    try:
        return CaseFindings.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def remove_outputs(output_folder: Path, case_id: str, file_ending: str) -> None:
    """Take away what an earlier run left for a case, so that a failure now cannot be mistaken for its answer."""
    for ending in (".json", file_ending, ".npz", ".seg.dcm"):
        (output_folder / f"{case_id}{ending}").unlink(missing_ok=True)
    masks = output_folder / "masks" / case_id
    if masks.is_dir():
        shutil.rmtree(masks)

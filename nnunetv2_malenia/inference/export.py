"""From query logits on the preprocessed grid to files in the image's own geometry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from nnunetv2_malenia.attributes.schema import LesionQuery, file_name
from nnunetv2_malenia.files import OutputFolder, json_text, stage
from nnunetv2_malenia.inference.answers import Answers, CaseAnswers, FoundCase, image_probabilities
from nnunetv2_malenia.inference.dicom_seg import write_dicom_seg
from nnunetv2_malenia.inference.findings import CaseFindings
from nnunetv2_malenia.inference.geometry import as_stored
from nnunetv2_malenia.inference.preparation import PreparedCase


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

    def file_names(self, case_id: str, file_ending: str, queries: Sequence[LesionQuery]) -> list[str]:
        """A case's files, relative to the output folder, in the order in which they appear."""
        masks = [f"masks/{case_id}/{file_name(query.name)}{file_ending}" for query in queries if self.save_masks]
        return [
            f"{case_id}{file_ending}",
            *masks,
            *([f"{case_id}.npz"] if self.save_probabilities else []),
            *([f"{case_id}.seg.dcm"] if self.save_dicom_seg else []),
            f"{case_id}.json",
        ]


@dataclass(frozen=True)
class CaseExport:
    """Write a case's files in the staging folder of a run's OutputFolder, from which they are published together."""

    answers: CaseAnswers
    options: OutputOptions
    staging: Path
    file_ending: str
    asked_sha256: str

    def __call__(
        self, case_id: str, case: PreparedCase, found: FoundCase, logits: np.ndarray | None
    ) -> tuple[CaseFindings, dict[str, str]]:
        """-> findings, and name -> SHA-256 of the staged files. logits (Q, Z, Y, X): to save probabilities, else None.

        CASE.json is the last of them, and lists the others. After an exception no file of the case is left in the
        staging folder.
        """
        names = self.options.file_names(case_id, self.file_ending, self.answers.queries)
        try:
            return self._stage(names, case_id, case, self.answers.render(found, case.properties), logits)
        except BaseException:
            for name in names:
                (self.staging / name).unlink(missing_ok=True)
            raise

    def _stage(
        self, names: Sequence[str], case_id: str, case: PreparedCase, answers: Answers, logits: np.ndarray | None
    ) -> tuple[CaseFindings, dict[str, str]]:
        writes = self._writes(answers, case, logits)
        staged = {name: stage(self.staging, name, write) for name, write in zip(names[:-1], writes, strict=True)}
        findings = CaseFindings(
            case=case_id,
            threshold=self.options.threshold,
            min_volume_ml=self.options.min_volume_ml,
            warnings=tuple(case.warnings),
            findings=tuple(answers.findings),
            inputs=case.inputs,
            outputs=dict(staged),
            asked_sha256=self.asked_sha256,
        )
        text = json_text(findings.model_dump(mode="json"))
        staged[names[-1]] = stage(self.staging, names[-1], lambda place: Path(place).write_bytes(text.encode("utf-8")))
        return findings, staged

    def _writes(
        self, answers: Answers, case: PreparedCase, logits: np.ndarray | None
    ) -> Iterator[Callable[[str], object]]:
        """What writes each of the case's files but CASE.json, in the order of `OutputOptions.file_names`."""
        properties = case.properties
        writer = properties["writer"]()
        yield partial(writer.write_seg, answers.label_map, properties=properties)
        for i in range(len(answers.findings) if self.options.save_masks else 0):
            yield partial(writer.write_seg, answers.mask(i).astype(np.uint8), properties=properties)
        if self.options.save_probabilities:
            plans = self.answers.plans_manager, self.answers.configuration_manager
            probabilities = image_probabilities(logits, properties, *plans)
            arrays = {"probabilities": probabilities, "affine_xyz_ras": answers.affine}
            yield lambda place: np.savez_compressed(place, **arrays)
        if self.options.save_dicom_seg:
            masks = [answers.mask(i) for i in range(len(answers.findings))]
            stored = np.stack([as_stored(mask, answers.affine, properties["stored_affine"]) for mask in masks])
            yield partial(
                write_dicom_seg,
                folder=properties["dicom_folder"],
                masks=stored,
                queries=self.answers.queries,
                asked_sha256=self.asked_sha256,
                notes=case.warnings,
            )


def read_findings(path: Path) -> CaseFindings | None:
    """CASE.json, or None where there is none that this version wrote."""
    try:
        return CaseFindings.model_validate_json(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError, ValidationError):
        return None


def earlier_files(outputs: OutputFolder, case_id: str, file_ending: str) -> list[str]:
    """The names that an earlier run may have written a case's files under."""
    masks = [name for name in outputs.written() if name.startswith(f"masks/{case_id}/")]
    return [*(f"{case_id}{ending}" for ending in (".json", file_ending, ".npz", ".seg.dcm")), *masks]

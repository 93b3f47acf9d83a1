"""The output folder of a finished run, made of given masks instead of a network's answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from found_lesions import find_lesions, masks_of

from nnunetv2_malenia.attributes.schema import AttributeTable, file_name
from nnunetv2_malenia.attributes.tables import queries
from nnunetv2_malenia.files import OutputFolder, write_json
from nnunetv2_malenia.inference.findings import CaseFindings
from nnunetv2_malenia.inference.run_record import CaseRecord, RunFiles, RunRecord, now

TABLE = AttributeTable(
    lesions={
        "liver tumor": {"location": "liver", "density": ["hypodense", "hyperdense"], "shape": "round-like"},
        "kidney stone": {"location": "left kidney", "density": "hyperdense"},
    }
)
LEFT_OVER = {"threshold": 0.5, "min_volume_ml": 0.0}


class TinyRun:
    """Images in `source`, answers in `output`; of TABLE's queries, the first is seen and the second unseen."""

    def __init__(self, folder: Path, table: AttributeTable = TABLE, *, discovers: bool = False) -> None:
        self.source, self.output = folder / "images", folder / "preds"
        for each in (self.source, self.output):
            each.mkdir(parents=True)
        self.queries = queries(table)
        settings = {
            "discovers": discovers,
            "options": LEFT_OVER,
            "versions": {"nnunetv2_malenia": "1.2.3", "nnunetv2": "2.8"},
        }
        outputs = OutputFolder(self.output)
        outputs.open()
        self.files = RunFiles(
            outputs,
            RunRecord(model_folder="/models/Dataset9_Tiny/MaleniaTrainer__p__3d", settings=settings, arguments={},
                      device="cpu", part_id=0, num_parts=1, ignored_files=[], started=now()),
        )  # fmt: skip

    @property
    def run_json(self) -> Path:
        return self.output / "run.json"

    def answer(
        self,
        case_id: str,
        image: nib.Nifti1Image,
        masks: Mapping[str, np.ndarray],
        *,
        save_masks: bool = False,
        more: Mapping[str, dict] | None = None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        """Store a case. masks: query -> (X, Y, Z) bool in the image's axes; more: query -> what CASE.json has further,
        for the finding under `checked`, for its first lesion under the other names."""
        nib.save(image, self.source / f"{case_id}_0000.nii.gz")
        none = np.zeros(image.shape, bool)
        probabilities = np.stack([np.where(masks.get(q.name, none), 0.9, 0.1).T for q in self.queries])
        seen = [i == 0 for i in range(len(self.queries))]
        found = find_lesions(self.queries, seen, probabilities, image.affine)
        outputs = {f"{case_id}.nii.gz": ""}
        nib.save(nib.Nifti1Image(found.label_map.T, image.affine), self.output / f"{case_id}.nii.gz")
        if save_masks:
            for query, mask in zip(self.queries, masks_of(found), strict=True):
                path = self.output / "masks" / case_id / f"{file_name(query.name)}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                nib.save(nib.Nifti1Image(mask.T.astype(np.uint8), image.affine), path)
                outputs[path.relative_to(self.output).as_posix()] = ""
        answers = CaseFindings(
            case=case_id, warnings=warnings, findings=tuple(found.findings), inputs={f"{case_id}_0000.nii.gz": ""},
            outputs=outputs, asked_sha256="", **LEFT_OVER,
        ).model_dump(mode="json")  # fmt: skip
        for finding in answers["findings"]:
            for key, value in (more or {}).get(finding["name"], {}).items():
                (finding if key == "checked" else finding["lesions"][0])[key] = value
        write_json(self.output / f"{case_id}.json", answers)
        self.files.add(case_id, CaseRecord(state="DONE", warnings=warnings, started=now(), finished=now()))

    def fail(self, case_id: str, reason: str) -> None:
        self.files.add(case_id, CaseRecord(state="FAILED", reason=reason, started=now(), finished=now()))


RECOGNISED = {
    "liver tumor": {
        "aspects": [
            {"aspect": "location", "value": "liver", "score": 0.91, "runner_up": "spleen", "runner_up_score": 0.2},
            {"aspect": "shape", "value": "round-like", "score": 0.74, "runner_up": "irregular", "runner_up_score": 0.6},
            {"aspect": "density", "value": "hypodense", "score": 0.83, "runner_up": "isodense", "runner_up_score": 0.4},
            {
                "aspect": "surface",
                "value": "ill-defined",
                "score": -0.05,
                "runner_up": "smooth",
                "runner_up_score": -0.1,
            },
        ],
        "diseases": [
            {"name": "liver tumor", "score": 0.81, "seen_in_training": True},
            {"name": "liver cyst", "score": 0.55, "seen_in_training": False},
        ],
        "checked": [
            {"aspect": "location", "value": "liver", "score": 0.88, "verdict": "kept"},
            {"aspect": "density", "value": "hypodense", "score": 0.8, "verdict": "selected"},
            {"aspect": "density", "value": "hyperdense", "score": 0.11, "verdict": "discarded"},
        ],
    }
}

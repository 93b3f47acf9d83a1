"""What was found for each query, as numbers: what CASE.json and findings.csv hold."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from nnunetv2_malenia.attributes.schema import AspectValues

Triple = tuple[float, float, float]
_RAS = "Millimetres along NIfTI's axes: right, anterior, superior are positive."
_LPS = "Millimetres along DICOM's and ITK's axes: left, posterior, superior are positive."


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Position(_Record):
    """A point in patient coordinates."""

    ras_mm: Triple = Field(description=_RAS)
    lps_mm: Triple = Field(description=_LPS)


class Corners(_Record):
    """Two opposite corners of a box."""

    min: Triple
    max: Triple


class BoundingBox(_Record):
    """The least box along the patient's axes that holds a lesion's voxels, to their outer corners."""

    ras_mm: Corners = Field(description=_RAS)
    lps_mm: Corners = Field(description=_LPS)


class SharedVoxels(_Record):
    """Voxels of a lesion that the mask of another query has too."""

    query: str
    voxels: int


class AspectReading(_Record):
    """What the network reads of one aspect of a lesion."""

    aspect: str
    value: str = Field(description="The best of the values that the model was trained with.")
    score: float = Field(description="Softmax over the value and those that exclude it, in [0, 1]. Not calibrated.")
    runner_up: str | None = Field(description="The best value that cannot be true together with it; null: none.")
    runner_up_score: float | None


class DiseaseMatch(_Record):
    """How well a lesion's aspects fit a lesion type, among all that are known."""

    name: str
    score: float = Field(description="Probability among all types, by its aspects, in [0, 1]. Not calibrated.")
    seen_in_training: bool


class CheckedAttribute(_Record):
    """A value that the query states, held against the image where the query's lesion is, or would be."""

    aspect: str
    value: str
    score: float = Field(description="Softmax over the value and those that exclude it, in [0, 1]. Not calibrated.")
    verdict: Literal["discarded", "selected", "kept"] = Field(
        description="discarded: the image contradicts it; selected: the fitting one where an alternative is discarded."
    )


class Lesion(_Record):
    """One connected component of a query's mask; voxels that touch in a corner are connected."""

    id: int = Field(description="1 for the query's largest lesion in the case.")
    volume_ml: float
    longest_axial_diameter_mm: float = Field(
        description="Longest distance in one axial slice, between middles of outer voxel edges. Where slices are "
        "tilted, in the slices nearest to axial."
    )
    extent_mm: Triple = Field(
        description="Edges of the bounding box: right-left, anterior-posterior, superior-inferior."
    )
    centre: Position = Field(description="Mean of the voxel centres.")
    bounding_box: BoundingBox
    presence_score: float = Field(description="Highest probability in the lesion, in [0, 1]. Not calibrated.")
    cut_by_border: bool = Field(description="Whether it reaches the image's border, so that part of it may be missing.")
    shared_with: tuple[SharedVoxels, ...] = Field(description="Other queries whose masks hold voxels of this lesion.")
    aspects: tuple[AspectReading, ...] = Field(default=(), description="In the order of the eight aspects.")
    diseases: tuple[DiseaseMatch, ...] = Field(
        default=(),
        description="Lesion types of the table and of the Clinical Knowledge Table, best first, five at most.",
    )


class LesionFinding(_Record):
    """The answer to one query in one case."""

    query_id: int = Field(
        description="The query's value in the label map; where no type was asked for, 1, and the map holds lesion ids."
    )
    name: str
    seen_in_training: bool | None = Field(
        description="Whether the model was trained with masks of this type; null where no type was asked for."
    )
    presence_score: float = Field(
        description="Highest probability in the image, but for components of another type, in [0, 1]. Not calibrated."
    )
    volume_ml: float = Field(description="Of the query's own mask, which may share voxels with another's.")
    lesions: tuple[Lesion, ...] = Field(description="Largest first.")
    left_out: int = Field(description="Connected components below the least volume, which are in no mask.")
    other_type: int = Field(
        default=0, description="Connected components in no mask because, as a whole, they do not fit the query."
    )
    attributes: AspectValues
    checked: tuple[CheckedAttribute, ...] = Field(
        default=(), description="Empty where nothing is stated, and where no lesion of any type is found."
    )


class CaseFindings(_Record):
    """CASE.json: all answers for one case, and what they were made of."""

    case: str
    scores: Literal["uncalibrated"] = Field(
        default="uncalibrated", description="Scores order findings; they are not probabilities of being right."
    )
    threshold: float = Field(description="Probability above which a voxel belongs to a query's mask.")
    min_volume_ml: float
    warnings: tuple[str, ...] = Field(description="What was odd about the input.")
    findings: tuple[LesionFinding, ...] = Field(description="One for each query, in the order of queries.json.")
    inputs: dict[str, str] = Field(description="Image file -> SHA-256.")
    outputs: dict[str, str] = Field(description="Other files of this case, relative to the output folder -> SHA-256.")
    asked_sha256: str = Field(description="Of the run's settings: model, queries, options and versions.")


def findings_schema_text() -> str:
    """The JSON Schema of CASE.json, as the text of a file."""
    schema = CaseFindings.model_json_schema(mode="serialization")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema, indent=2) + "\n"


CSV_COLUMNS = (
    "case", "query_id", "query", "seen_in_training", "lesion_id", "volume_ml", "longest_axial_diameter_mm",
    "extent_right_left_mm", "extent_anterior_posterior_mm", "extent_superior_inferior_mm",
    "centre_ras_r_mm", "centre_ras_a_mm", "centre_ras_s_mm", "centre_lps_l_mm", "centre_lps_p_mm", "centre_lps_s_mm",
    "presence_score_uncalibrated", "cut_by_border", "shared_with", "aspects_uncalibrated",
    "diseases_uncalibrated",
)  # fmt: skip


def findings_csv(cases: Iterable[CaseFindings]) -> str:
    """One row for each lesion of each case, as the text of a file; lists as `name: number; ...`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for case in cases:
        for answer in case.findings:
            for lesion in answer.lesions:
                numbers = (lesion.volume_ml, lesion.longest_axial_diameter_mm, *lesion.extent_mm,
                           *lesion.centre.ras_mm, *lesion.centre.lps_mm, lesion.presence_score)  # fmt: skip
                shared = "; ".join(f"{other.query}: {other.voxels}" for other in lesion.shared_with)
                aspects = "; ".join(f"{each.aspect}={each.value}: {each.score:.2f}" for each in lesion.aspects)
                diseases = "; ".join(f"{each.name}: {each.score:.2f}" for each in lesion.diseases)
                writer.writerow([case.case, answer.query_id, answer.name, answer.seen_in_training, lesion.id,
                                 *(f"{number:.6g}" for number in numbers), lesion.cut_by_border, shared, aspects,
                                 diseases])  # fmt: skip
    return text.getvalue()

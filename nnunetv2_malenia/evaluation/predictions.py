"""A folder of predictions, by malenia_predict_zeroshot or by nnUNetv2_predict, and the label names that go with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from nnunetv2_malenia.attributes.schema import file_name
from nnunetv2_malenia.evaluation.volumes import EvaluationError, find_volume
from nnunetv2_malenia.files import read_json
from nnunetv2_malenia.files.dataset_json import BACKGROUND, IGNORE, read_label_map

NOT_LESIONS = (BACKGROUND, IGNORE)


class _Query(BaseModel):
    id: int = Field(ge=1)
    name: str
    seen_in_training: bool | None  # null: no type was asked for


def _all_different(queries: list[_Query]) -> list[_Query]:
    for values in ([query.id for query in queries], [query.name for query in queries]):
        if len(set(values)) < len(values):
            raise ValueError(f"two queries have one id or name, among {values}; predict again")
    return queries


class _Queries(BaseModel):
    queries: Annotated[list[_Query], Field(min_length=1), AfterValidator(_all_different)]


class _Finding(BaseModel):
    name: str
    presence_score: float


class _Findings(BaseModel):
    findings: list[_Finding]


@dataclass(frozen=True)
class Predictions:
    """A folder of predictions. names_file: says which types or labels were predicted; values: type or label -> its
    values in label maps; known_values: all that label maps may hold; seen: {} where it is not told."""

    folder: Path
    names_file: Path
    values: Mapping[str, tuple[int, ...]]
    known_values: frozenset[int]
    seen: Mapping[str, bool]
    has_masks: bool

    @classmethod
    def read(cls, folder: Path, any_lesion: str | None) -> Predictions:
        """Raises EvaluationError for a folder of neither malenia_predict_zeroshot nor nnUNetv2_predict, and for answers
        that are of no type."""
        if not folder.is_dir():
            raise EvaluationError(f"{folder} is not a folder; give the folder that the predictions were written to")
        queries, labels = folder / "queries.json", folder / "dataset.json"
        asked = read_json(queries, _Queries, error=EvaluationError).queries if queries.is_file() else []
        if any(each.seen_in_training is None for each in asked):
            raise EvaluationError(
                f"{folder} was predicted without --attributes: its label maps number lesions of any type, and there is "
                "no type to score; predict with --attributes TABLE into another folder"
            )
        if asked and not any_lesion:
            values, seen = {query.name: (query.id,) for query in asked}, {q.name: q.seen_in_training for q in asked}
            known = frozenset({0, *(query.id for query in asked)})
            return cls(folder, queries, values, known, seen, any((folder / "masks").glob("*/*")))
        if not labels.is_file():
            missing = "dataset.json" if any_lesion else "queries.json of malenia_predict_zeroshot and no dataset.json"
            raise EvaluationError(
                f"{folder} has no {missing} of nnUNetv2_predict, which names what was predicted; copy the model's there"
            )
        named = read_label_map(labels, error=EvaluationError)
        known = frozenset(value for each in named.values() for value in each)
        values = {name: each for name, each in named.items() if name not in NOT_LESIONS}
        if any_lesion and any_lesion not in values:
            raise EvaluationError(f"{labels} has no label {any_lesion!r}; it has {', '.join(values)}")
        wanted = {any_lesion: values[any_lesion]} if any_lesion else values
        return cls(folder, labels, wanted, known, {}, False)

    def file(self, case_id: str, name: str) -> Path | None:
        if self.has_masks:
            return find_volume(self.folder / "masks" / case_id, file_name(name))
        return find_volume(self.folder, case_id)

    def presence_scores(self, case_id: str) -> dict[str, float]:
        path = self.folder / f"{case_id}.json"
        if not (self.seen and path.is_file()):
            return {}
        findings = read_json(path, _Findings, error=EvaluationError).findings
        return {finding.name: finding.presence_score for finding in findings}

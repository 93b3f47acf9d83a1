"""A folder of predictions, by malenia_predict_zeroshot or by nnUNetv2_predict, and the label names that go with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from nnunetv2_malenia.attributes.schema import file_name
from nnunetv2_malenia.evaluation.volumes import EvaluationError, find_volume

NOT_LESIONS = ("background", "ignore")  # nnU-Net's names for what is no class
_T = TypeVar("_T")


class _Query(BaseModel):
    id: int
    name: str
    seen_in_training: bool | None  # null: no type was asked for


class _Queries(BaseModel):
    queries: list[_Query] = Field(min_length=1)


class _Finding(BaseModel):
    name: str
    presence_score: float


class _Findings(BaseModel):
    findings: list[_Finding]


_Labels = dict[str, int | tuple[int, ...]]


@dataclass(frozen=True)
class Predictions:
    """A folder of predictions. values: type or label -> its values in label maps; seen: {} where it is not told."""

    folder: Path
    values: Mapping[str, tuple[int, ...]]
    seen: Mapping[str, bool]
    has_masks: bool

    @classmethod
    def read(cls, folder: Path, any_lesion: str | None) -> Predictions:
        """Raises EvaluationError for a folder of neither malenia_predict_zeroshot nor nnUNetv2_predict, and for answers
        that are of no type."""
        if not folder.is_dir():
            raise EvaluationError(f"{folder} is not a folder; give the folder that the predictions were written to")
        queries, labels = folder / "queries.json", folder / "dataset.json"
        asked = _read_json(queries, _Queries).queries if queries.is_file() else []
        if any(each.seen_in_training is None for each in asked):
            raise EvaluationError(
                f"{folder} was predicted without --attributes: its label maps number lesions of any type, and there is "
                "no type to score; predict with --attributes TABLE into another folder"
            )
        if asked and not any_lesion:
            values, seen = {query.name: (query.id,) for query in asked}, {q.name: q.seen_in_training for q in asked}
            return cls(folder, values, seen, any((folder / "masks").glob("*/*")))
        if not labels.is_file():
            missing = "dataset.json" if any_lesion else "queries.json of malenia_predict_zeroshot and no dataset.json"
            raise EvaluationError(
                f"{folder} has no {missing} of nnUNetv2_predict, which names what was predicted; copy the model's there"
            )
        values = {name: each for name, each in read_labels(labels).items() if name not in NOT_LESIONS}
        if any_lesion and any_lesion not in values:
            raise EvaluationError(f"{labels} has no label {any_lesion!r}; it has {', '.join(values)}")
        return cls(folder, {any_lesion: values[any_lesion]} if any_lesion else values, {}, False)

    def file(self, case_id: str, name: str) -> Path | None:
        if self.has_masks:
            return find_volume(self.folder / "masks" / case_id, file_name(name))
        return find_volume(self.folder, case_id)

    def presence_scores(self, case_id: str) -> dict[str, float]:
        path = self.folder / f"{case_id}.json"
        if not (self.seen and path.is_file()):
            return {}
        return {finding.name: finding.presence_score for finding in _read_json(path, _Findings).findings}


def read_labels(path: Path) -> dict[str, tuple[int, ...]]:
    """Label name -> values; a region has several. Takes a label map, or a dataset.json that holds one as `labels`."""
    content = _read_json(path, dict[str, Any])
    labels = _validated(content.get("labels", content), _Labels, path)
    return {name: (value,) if isinstance(value, int) else value for name, value in labels.items()}


def _read_json(path: Path, kind: type[_T]) -> _T:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise EvaluationError(f"{path}: not JSON ({error}); write or copy it again") from error
    return _validated(content, kind, path)


def _validated(content: object, kind: type[_T], path: Path) -> _T:
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = "/".join(map(str, first["loc"]))
        raise EvaluationError(f"{path}: {f'{where}: ' if where else ''}{first['msg']}") from error

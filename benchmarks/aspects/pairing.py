"""Predicted lesions beside the lesions that phantoms were drawn with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cc3d
import numpy as np

from benchmarks.aspects.answers import Phantoms
from nnunetv2_malenia.attributes.schema import AspectValues, file_name
from nnunetv2_malenia.evaluation.metrics import CONNECTIVITY
from nnunetv2_malenia.evaluation.volumes import find_volume, read_volume, volumes_in
from nnunetv2_malenia.inference.findings import CaseFindings, Lesion
from nnunetv2_malenia.inference.lesions import find_components, number_lesions


@dataclass(frozen=True)
class Drawn:
    """A lesion of a phantom. found: the predicted lesion that shares most voxels with it, None where none does."""

    name: str
    attributes: AspectValues
    found: Lesion | None


@dataclass(frozen=True)
class Predicted:
    """A predicted lesion. is_real: whether it holds a voxel of a drawn lesion of the type asked for, or of any type
    where none was."""

    name: str
    lesion: Lesion
    is_real: bool


@dataclass(frozen=True)
class Pairing:
    """All lesions of a run's cases, drawn and predicted."""

    drawn: tuple[Drawn, ...]
    predicted: tuple[Predicted, ...]
    cases: int


def read_cases(folder: Path, phantoms: Phantoms) -> Iterator[CaseFindings]:
    """CASE.json of every phantom. Raises FileNotFoundError for one without."""
    for case_id in volumes_in(phantoms.references):
        yield CaseFindings.model_validate_json((folder / f"{case_id}.json").read_bytes())


def pair_lesions(folder: Path, phantoms: Phantoms, *, discover: bool) -> Pairing:
    """Pair what a run wrote, in discover mode or with masks of its queries, which are named like the drawn types."""
    table, values = phantoms.table, phantoms.values
    drawn, predicted, cases = [], [], list(read_cases(folder, phantoms))
    for case in cases:
        reference = read_volume(find_volume(phantoms.references, case.case)).voxels
        for finding in case.findings:
            types = values if discover else {finding.name: values[finding.name]}
            if discover:
                ids = read_volume(find_volume(folder, case.case)).voxels
            else:
                ids = lesion_ids(read_volume(find_volume(folder / "masks" / case.case, file_name(finding.name))).voxels)
            lesions, touched = {lesion.id: lesion for lesion in finding.lesions}, set()
            for name, value in types.items():
                truth = reference == value
                touched |= set(np.unique(ids[truth]).tolist())
                attributes = table.attributes_of(name, case.case)
                drawn += [Drawn(name, attributes, lesions.get(best)) for best in best_ids(ids, truth)]
            predicted += [Predicted(finding.name, each, number in touched) for number, each in lesions.items()]
    return Pairing(tuple(drawn), tuple(predicted), len(cases))


def lesion_ids(mask: np.ndarray) -> np.ndarray:
    """A query's mask (X, Y, Z) as its file holds it -> its lesions' ids as CASE.json has them, 0 outside."""
    zyx = np.ascontiguousarray(mask.T != 0)
    return number_lesions(find_components(zyx), zyx.shape).T


def best_ids(ids: np.ndarray, truth: np.ndarray) -> list[int]:
    """For each 26-connected component of `truth` (X, Y, Z) bool the id that shares most voxels with it, the lowest of
    several; 0 where no id does."""
    components, number = cc3d.connected_components(np.ascontiguousarray(truth), connectivity=CONNECTIVITY,
                                                   return_N=True)  # fmt: skip
    shared = (np.bincount(ids[components == i], minlength=2) for i in range(1, number + 1))
    return [1 + int(counts[1:].argmax()) if counts[1:].any() else 0 for counts in shared]

"""Phantom data sets on disk: made by the generator, written as nnU-Net raw data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunetv2_malenia.dataset_conversion.nnunet_raw import RawDataset, new_raw_dataset
from nnunetv2_malenia.phantom.anatomy import ORGANS
from nnunetv2_malenia.phantom.case import Phantom, PhantomConfig, make_phantom
from nnunetv2_malenia.phantom.dataset import PlannedCase, phantom_table, plan_test_cases, plan_training_cases

ANY_LESION = "lesion"
REFERENCE_LABELS = "labelsTs.json"
QUERY_TABLE = "test_attributes.json"


@dataclass(frozen=True)
class PhantomData:
    """How many phantoms, of which seed, with which lesion types on either side."""

    train_cases: int
    test_cases: int
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    seed: int


def write_phantom_dataset(folder: Path, data: PhantomData, config: PhantomConfig, *, any_lesion: bool = False) -> None:
    """Write an nnU-Net raw data set of phantoms.

    Training cases hold seen types only; dataset.json knows organs and seen types. Test cases hold seen and unseen
    types; labelsTs.json names the label values of their references. attributes.json describes the training lesions, per
    case too; test_attributes.json all types, for asking. With `any_lesion`, all lesions of training cases share one
    label, for a baseline that finds lesions without knowing types. Raises FileExistsError if the folder is there.
    """
    lesion_labels = [ANY_LESION] if any_lesion else list(data.seen)
    names = ["background", *ORGANS, *lesion_labels]
    labels = {name: value for value, name in enumerate(names)}
    reference_types = [*data.seen, *data.unseen]
    stated = {}
    with new_raw_dataset(folder, labels, description="Phantom CTs, not clinical data") as dataset:
        for case in _progress(plan_training_cases(data.train_cases, data.seen, data.seed), "training phantoms"):
            phantom = _make(case, data, config)
            stated[case.case_id] = phantom.attributes
            types = [ANY_LESION] * len(case.lesion_types) if any_lesion else case.lesion_types
            _add(dataset.add_training_case, case, phantom, [labels[name] for name in types])
        if not any_lesion:
            dataset.write_attributes(phantom_table(data.seen, stated, name="phantom training cases"))
        stated = {}
        test_plan = plan_test_cases(data.test_cases, data.seen, data.unseen, data.seed)
        for case in _progress(test_plan, "test phantoms"):
            phantom = _make(case, data, config)
            stated[case.case_id] = phantom.attributes
            _add(dataset.add_test_case, case, phantom, [_reference_value(name, reference_types) for name in case.lesion_types])
        dataset.write_attributes(phantom_table(reference_types, stated, name="phantom test cases"), QUERY_TABLE)
        dataset.write_json(REFERENCE_LABELS, {name: _reference_value(name, reference_types) for name in reference_types})


def _reference_value(name: str, reference_types: Sequence[str]) -> int:
    """References of test cases have all organs first, then seen and unseen lesion types."""
    return 1 + len(ORGANS) + reference_types.index(name)


def _make(case: PlannedCase, data: PhantomData, config: PhantomConfig) -> Phantom:
    return make_phantom(config, data.seed, case.case_index, case.lesion_types)


def _add(add: object, case: PlannedCase, phantom: Phantom, lesion_values: Sequence[int]) -> None:
    values = np.array([0, *lesion_values], dtype=np.uint8)
    labels = np.where(phantom.lesion > 0, values[phantom.lesion], phantom.anatomy)
    add(case.case_id, [phantom.image.astype(np.int16)], labels, phantom.affine)


def _progress(cases: list[PlannedCase], what: str) -> tqdm:
    return tqdm(cases, desc=what, unit="case")

"""Phantoms as nnU-Net raw data sets: one to train on seen lesion types and ask for unseen ones, one as a baseline."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from nnunetv2_malenia.dataset_conversion.nnunet_raw import FILE_ENDING, new_raw_dataset
from nnunetv2_malenia.phantom import ORGANS, Phantom, PhantomConfig, make_phantom
from nnunetv2_malenia.phantom.dataset import (
    SEEN,
    UNSEEN,
    PlannedCase,
    phantom_table,
    plan_test_cases,
    plan_training_cases,
)

ABOUT = {
    "description": "Phantom CTs drawn by nnunetv2_malenia; not clinical data.",
    "license": "Apache-2.0",
    "reference": "nnunetv2_malenia.phantom",
}
ANY_LESION = "lesion"


def write_phantom_dataset(
    dataset_folder: str | os.PathLike[str],
    *,
    train_cases: int,
    test_cases: int,
    seen: Sequence[str] = SEEN,
    unseen: Sequence[str] = UNSEEN,
    seed: int = 0,
    config: PhantomConfig | None = None,
) -> None:
    """Write a phantom data set in nnU-Net's raw format; the same arguments write the same voxels.

    Training cases hold seen types only; labelsTr: background, organs, seen types. Each test case holds at least one
    unseen type; labelsTs uses the label map of `labelsTs.json`, which goes on with the unseen types.
    `attributes.json`: seen types and every training case. `test_attributes.json`: all types, to query with, and every
    test case. Raises FileExistsError if the folder exists, ValueError for unknown types.
    """
    config = config or PhantomConfig()
    training, test = plan_training_cases(train_cases, seen, seed), plan_test_cases(test_cases, seen, unseen, seed)
    labels = {name: value for value, name in enumerate(("background", *ORGANS, *seen))}
    test_labels = labels | {name: len(labels) + i for i, name in enumerate(unseen)}
    with new_raw_dataset(dataset_folder, labels, **ABOUT) as raw:
        drawn = _add_cases(raw.add_training_case, training, labels, seed, config)
        raw.write_attributes(phantom_table(seen, drawn, name="phantoms, training"))
        drawn = _add_cases(raw.add_test_case, test, test_labels, seed, config)
        raw.write_attributes(phantom_table((*seen, *unseen), drawn, name="phantoms, test"), "test_attributes.json")
        raw.write_json("labelsTs.json", test_labels)


def write_any_lesion_dataset(dataset_folder: str | os.PathLike[str], phantom_folder: str | os.PathLike[str]) -> None:
    """The same images as a phantom data set's, with all lesion types merged into one label, `lesion`, the only one.

    Organs are left out: with ten more labels to learn, a plain nnU-Net finds no lesion within a demo's steps. Images
    are hard-linked where the file system can, else copied. labelsTs gets the merged labels too.
    """
    source = Path(phantom_folder)
    labels = {"background": 0, ANY_LESION: 1}
    with new_raw_dataset(dataset_folder, labels, **ABOUT) as raw:
        _merge_cases(source, "Tr", raw.add_training_case)
        _merge_cases(source, "Ts", raw.add_test_case)
        raw.write_json("labelsTs.json", labels)


def phantom_labels(phantom: Phantom, labels: Mapping[str, int]) -> np.ndarray:
    """Organs with the lesions on top, (Z, Y, X) uint8, in a label map that names every organ and lesion type."""
    lesion_values = np.array([0, *(labels[name] for name in phantom.lesion_types)], np.uint8)
    organ_values = np.array([0, *(labels[name] for name in ORGANS)], np.uint8)
    return np.where(phantom.lesion > 0, lesion_values[phantom.lesion], organ_values[phantom.anatomy])


def _add_cases(
    add: Callable[..., None], cases: Sequence[PlannedCase], labels: Mapping[str, int], seed: int, config: PhantomConfig
) -> dict[str, dict[str, dict[str, list[str]]]]:
    """Make and store the phantoms. Returns their attributes by case."""
    drawn = {}
    for case in cases:
        phantom = make_phantom(config, seed, case.case_index, case.lesion_types)
        image = np.rint(phantom.image).astype(np.int16)
        add(case.case_id, [image], phantom_labels(phantom, labels), phantom.affine)
        drawn[case.case_id] = phantom.attributes
    return drawn


def _merge_cases(source: Path, suffix: str, add: Callable[..., None]) -> None:
    for path in sorted((source / f"labels{suffix}").glob(f"*{FILE_ENDING}")):
        case_id = path.name.removesuffix(FILE_ENDING)
        stored = nib.load(path)
        merged = (np.asarray(stored.dataobj) > len(ORGANS)).astype(np.uint8).transpose(2, 1, 0)
        add(case_id, [source / f"images{suffix}" / f"{case_id}_0000{FILE_ENDING}"], merged, stored.affine)

"""The raw data sets of one seed: what the rows learn from, all with the same number of phantoms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.zero_shot.rows import ALL_TYPES, ALL_TYPES_NO_ORGANS, ANY_LESION, NO_ORGANS, ONE_HOT, PHANTOM, Size
from nnunetv2_malenia.attributes.bank import EmbeddingBank
from nnunetv2_malenia.attributes.schema import AttributeTable, LesionEntry
from nnunetv2_malenia.attributes.tables import read_table
from nnunetv2_malenia.dataset_conversion.nnunet_raw import FILE_ENDING, new_raw_dataset
from nnunetv2_malenia.demo.phantom_dataset import (
    ABOUT,
    phantom_labels,
    write_any_lesion_dataset,
    write_phantom_dataset,
)
from nnunetv2_malenia.phantom import ORGANS, make_phantom
from nnunetv2_malenia.phantom.dataset import SEEN, UNSEEN, phantom_table, plan_training_cases

CODES = "one_hot_codes.json"  # the table that asks by code
BANK = "attributes.safetensors"


class OneHotEncoder:
    """A text encoder that knows lesion types by name only: type i of n is the i-th unit vector, and nothing is near."""

    def __init__(self, types: Sequence[str]) -> None:
        self.types, self.dim = tuple(types), len(types)
        self.fingerprint = f"one-hot;{','.join(types)}"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """V texts "location: TYPE" -> (V, n) float32. Raises ValueError for another text."""
        return np.eye(self.dim, dtype=np.float32)[[self.types.index(text.removeprefix("location: ")) for text in texts]]


def write_dataset(raw: Path, name: str, size: Size, seed: int) -> None:
    """Make a data set below nnUNet_raw, and first those that it is made from; what is there already stays."""
    if (raw / name).exists():
        return
    if name == PHANTOM:
        write_phantom_dataset(
            raw / name, train_cases=size.train_cases, test_cases=size.test_cases, seed=seed, config=size.phantoms
        )
    elif name == ALL_TYPES:
        _write_all_types(raw / name, size, seed)
    else:
        source, write = DERIVED[name]
        write_dataset(raw, source, size, seed)
        write(raw / name, raw / source)


def code_table(types: Sequence[str]) -> AttributeTable:
    """Types described by nothing but their own name, each with a phrase that no other type has."""
    return AttributeTable(name="one-hot codes", lesions={name: LesionEntry(location=name) for name in types})


def _write_all_types(dataset_folder: Path, size: Size, seed: int) -> None:
    """Training phantoms of seen and unseen types: as many as the others, other ones."""
    types = (*SEEN, *UNSEEN)
    labels = {name: value for value, name in enumerate(("background", *ORGANS, *types))}
    drawn = {}
    with new_raw_dataset(dataset_folder, labels, **ABOUT) as raw:
        for case in plan_training_cases(size.train_cases, types, seed):
            phantom = make_phantom(size.phantoms, seed, case.case_index, case.lesion_types)
            image = np.rint(phantom.image).astype(np.int16)
            raw.add_training_case(case.case_id, [image], phantom_labels(phantom, labels), phantom.affine)
            drawn[case.case_id] = phantom.attributes
        raw.write_attributes(phantom_table(types, drawn, name="phantoms, training with all types"))


def _write_without_organs(dataset_folder: Path, source: Path) -> None:
    """The same images and attributes, with organs as background."""
    table = read_table(source / "attributes.json")
    labels = {name: value for value, name in enumerate(("background", *table.lesions))}
    with new_raw_dataset(dataset_folder, labels, **ABOUT) as raw:
        _copy_training_cases(
            source, raw.add_training_case, lambda old: np.where(old > len(ORGANS), old - len(ORGANS), 0)
        )
        raw.write_attributes(table)


def _write_one_hot(dataset_folder: Path, source: Path) -> None:
    """The same images and labels; the attributes are one code a type, seen and unseen types alike."""
    labels = {name: value for value, name in enumerate(("background", *ORGANS, *SEEN))}
    types = (*SEEN, *UNSEEN)
    with new_raw_dataset(dataset_folder, labels, **ABOUT) as raw:
        _copy_training_cases(source, raw.add_training_case, lambda old: old)
        raw.write_attributes(code_table(SEEN))
        raw.write_attributes(code_table(types), CODES)
        EmbeddingBank.build(code_table(SEEN).phrases(), OneHotEncoder(types)).save(raw.folder / BANK)


def _copy_training_cases(source: Path, add: Callable[..., None], relabel: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in sorted((source / "labelsTr").glob(f"*{FILE_ENDING}")):
        case_id, stored = path.name.removesuffix(FILE_ENDING), nib.load(path)
        labels = relabel(np.asarray(stored.dataobj)).astype(np.uint8).transpose(2, 1, 0)
        add(case_id, [source / "imagesTr" / f"{case_id}_0000{FILE_ENDING}"], labels, stored.affine)


DERIVED: Mapping[str, tuple[str, Callable[[Path, Path], None]]] = {
    ANY_LESION: (PHANTOM, write_any_lesion_dataset),
    ALL_TYPES_NO_ORGANS: (ALL_TYPES, _write_without_organs),
    NO_ORGANS: (PHANTOM, _write_without_organs),
    ONE_HOT: (PHANTOM, _write_one_hot),
}

"""An nnU-Net raw data set, written beside its place and renamed when it is complete."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from nnunetv2_malenia.attributes.schema import AttributeTable
from nnunetv2_malenia.attributes.tables import write_table

FILE_ENDING = ".nii.gz"
FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")


def write_nifti(array: np.ndarray, affine: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Store a (Z, Y, X) array; affine: (4, 4), voxel indices x, y, z to RAS+ millimetres. The dtype is kept."""
    image = nib.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


@contextmanager
def new_raw_dataset(
    dataset_folder: str | os.PathLike[str],
    labels: Mapping[str, int],
    *,
    channel_names: Sequence[str] = ("CT",),
    image_reader_writer: str = "NibabelIOWithReorient",
    **about: Any,
) -> Iterator[RawDataset]:
    """Open a data set folder for writing; on leaving, dataset.json is added and the folder appears under its name.

    labels: name -> value for labelsTr, with "background": 0. about: `description`, `license`, `reference`, … as in
    nnU-Net's generate_dataset_json. After an exception inside, nothing is left behind.
    Raises FileExistsError if the folder is there already.
    """
    target = Path(dataset_folder)
    if target.exists():
        raise FileExistsError(f"{target} exists; remove it or choose another name, e.g. {target.name}_2")
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    for name in FOLDERS:
        (beside / name).mkdir(parents=True)
    try:
        dataset = RawDataset(beside, len(channel_names))
        yield dataset
        _write_dataset_json(dataset, labels, channel_names, image_reader_writer, about)
        for name in FOLDERS:
            if not any((beside / name).iterdir()):
                (beside / name).rmdir()
        os.replace(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write_dataset_json(
    dataset: RawDataset,
    labels: Mapping[str, int],
    channel_names: Sequence[str],
    image_reader_writer: str,
    about: Mapping[str, Any],
) -> None:
    from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json  # imports torch

    generate_dataset_json(
        str(dataset.folder),
        channel_names={str(i): name for i, name in enumerate(channel_names)},
        labels=dict(labels),
        num_training_cases=len(dataset.training_cases),
        file_ending=FILE_ENDING,
        overwrite_image_reader_writer=image_reader_writer,
        converted_by="nnunetv2_malenia",
        **about,
    )


@dataclass
class RawDataset:
    """A data set that is being written. Images: one (Z, Y, X) array per channel; labels: (Z, Y, X) integers."""

    folder: Path
    num_channels: int
    training_cases: list[str] = field(default_factory=list)
    test_cases: list[str] = field(default_factory=list)

    def add_training_case(
        self, case_id: str, images: Sequence[np.ndarray] | Sequence[Path], labels: np.ndarray, affine: np.ndarray
    ) -> None:
        """Add a case to imagesTr and labelsTr. Images that are paths to .nii.gz files are hard-linked, else copied."""
        self._add(case_id, images, labels, affine, suffix="Tr")
        self.training_cases.append(case_id)

    def add_test_case(
        self, case_id: str, images: Sequence[np.ndarray] | Sequence[Path], labels: np.ndarray, affine: np.ndarray
    ) -> None:
        """Add a case to imagesTs and its reference to labelsTs."""
        self._add(case_id, images, labels, affine, suffix="Ts")
        self.test_cases.append(case_id)

    def write_json(self, name: str, content: Any) -> None:
        """Add a JSON file beside dataset.json."""
        (self.folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def write_attributes(self, table: AttributeTable, name: str = "attributes.json") -> None:
        """Add an attribute table beside dataset.json."""
        write_table(table, self.folder / name)

    def _add(self, case_id: str, images: Sequence, labels: np.ndarray, affine: np.ndarray, *, suffix: str) -> None:
        if case_id in self.training_cases or case_id in self.test_cases:
            raise ValueError(f"case {case_id} is added twice; case ids must differ, also between training and test")
        if len(images) != self.num_channels:
            raise ValueError(f"case {case_id} has {len(images)} images for {self.num_channels} channels; give one each")
        for channel, image in enumerate(images):
            place = self.folder / f"images{suffix}" / f"{case_id}_{channel:04d}{FILE_ENDING}"
            if isinstance(image, np.ndarray):
                _check_shape(case_id, image, labels)
                write_nifti(image, affine, place)
            else:
                _link_or_copy(image, place)
        write_nifti(labels, affine, self.folder / f"labels{suffix}" / f"{case_id}{FILE_ENDING}")


def _check_shape(case_id: str, image: np.ndarray, labels: np.ndarray) -> None:
    if image.shape != labels.shape:
        raise ValueError(f"case {case_id}: image {image.shape} and labels {labels.shape} differ in shape")


def _link_or_copy(source: Path, place: Path) -> None:
    try:
        os.link(source, place)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, place)

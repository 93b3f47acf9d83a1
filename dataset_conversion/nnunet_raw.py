"""An nnU-Net raw data set, written beside its place and renamed when it is complete."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_malenia.attributes.schema import AttributeTable
from nnunetv2_malenia.attributes.tables import write_table
from nnunetv2_malenia.dataset_conversion.nifti_files import FILE_ENDING, link_or_copy, write_nifti
from nnunetv2_malenia.files import write_json, write_text

try:
    import fcntl
except ImportError:  # Windows: two runs into one folder are not told apart there
    fcntl = None

TRAINING, TEST, APART = "Tr", "Ts", "Apart"  # as folders spell it; nnU-Net leaves alone what is kept apart
FOLDERS = tuple(f"{kind}{part}" for part in (TRAINING, TEST, APART) for kind in ("images", "labels"))
_PLAN, _LOCK, _DATASET, _PLAN_OF = ".plan", ".lock", "dataset", "nnunetv2_malenia "
_OWN = re.compile(r"dataset|\.plan|\.lock|\.partial_[0-9a-f]{8}_\.plan")  # all that leftovers hold


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
    target = _free(dataset_folder)
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    beside.mkdir(parents=True)
    try:
        dataset = RawDataset(beside, len(channel_names))
        dataset.make_folders()
        yield dataset
        _write_dataset_json(dataset, labels, channel_names, image_reader_writer, about)
        dataset.move_to(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def resumable_raw_dataset(
    dataset_folder: str | os.PathLike[str],
    labels: Mapping[str, int],
    plan: str,
    *,
    channel_names: Sequence[str] = ("CT",),
    image_reader_writer: str = "NibabelIOWithReorient",
    **about: Any,
) -> Iterator[RawDataset]:
    """Like `new_raw_dataset`, but what an interruption leaves is kept, hidden beside, and gone on with next time.

    plan: says what is going to be written; the leftovers of another plan are removed.
    Raises FileExistsError too if what is called like leftovers is not ours, or another run is writing there.
    """
    target = _free(dataset_folder)
    beside = target.with_name(f".{target.name}.partial")
    _check_own(beside)
    beside.mkdir(parents=True, exist_ok=True)
    with _locked(beside / _LOCK, target):
        _free(target)  # another run may have finished meanwhile
        _open_leftovers(beside, plan)
        dataset = RawDataset(beside / _DATASET, len(channel_names))
        dataset.make_folders()
        yield dataset
        _write_dataset_json(dataset, labels, channel_names, image_reader_writer, about)
        dataset.move_to(target)
    shutil.rmtree(beside)


@contextmanager
def _locked(lock: Path, target: Path) -> Iterator[None]:
    """Hold a lock that the kernel releases when the process ends, however it ends."""
    with lock.open("ab") as file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                why = f"another run is writing {target}; wait for its end, or choose another name with -d"
                raise FileExistsError(why) from None
            except OSError:  # a file system without locks, as some clusters have
                pass
        yield


def _check_own(beside: Path) -> None:
    """Raise FileExistsError unless it is free, or what a run left.

    What holds anything else, or a data set without a plan, is not ours: the plan is written first, and removed last.
    """
    plan_file, dataset = beside / _PLAN, beside / _DATASET
    if os.path.lexists(beside):
        is_folder = beside.is_dir() and not beside.is_symlink()
        others = [path.name for path in beside.iterdir() if not _OWN.fullmatch(path.name)] if is_folder else [beside]
        before = plan_file.read_text(encoding="utf-8", errors="replace") if plan_file.is_file() else _PLAN_OF
        if others or not before.startswith(_PLAN_OF) or (dataset.exists() and not plan_file.is_file()):
            raise FileExistsError(f"{beside} is in the way, and is not what an interrupted run left; move it away")


def _open_leftovers(beside: Path, plan: str) -> None:
    """Write the plan; of what an interruption left, keep the whole files of cases if the plan is one."""
    plan_file, dataset = beside / _PLAN, beside / _DATASET
    if dataset.exists() and plan_file.read_text(encoding="utf-8", errors="replace") != f"{_PLAN_OF}{plan}":
        shutil.rmtree(dataset)
    write_text(plan_file, f"{_PLAN_OF}{plan}")
    for path in (*beside.glob("*"), *beside.glob(f"{_DATASET}/*"), *beside.glob(f"{_DATASET}/*/.*")):
        if path not in (plan_file, beside / _LOCK) and not path.is_dir():  # half-written, or written anew at the end
            path.unlink()


def _free(dataset_folder: str | os.PathLike[str]) -> Path:
    target = Path(dataset_folder)
    if os.path.lexists(target):
        raise FileExistsError(f"{target} exists; remove it or choose another name, e.g. {target.name}_2")
    return target


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

    def make_folders(self) -> None:
        for name in FOLDERS:
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def move_to(self, target: Path) -> None:
        """Drop empty folders and take the data set's own name."""
        for name in FOLDERS:
            if not any((self.folder / name).iterdir()):
                (self.folder / name).rmdir()
        os.replace(self.folder, target)

    def image_path(self, case_id: str, part: str, channel: int) -> Path:
        return self.folder / f"images{part}" / f"{case_id}_{channel:04d}{FILE_ENDING}"

    def mask_path(self, case_id: str, part: str) -> Path:
        return self.folder / f"labels{part}" / f"{case_id}{FILE_ENDING}"

    def count(self, case_id: str, part: str) -> None:
        """Take a stored case into account. Raises ValueError for an id that is there already."""
        if case_id in self.training_cases or case_id in self.test_cases:
            raise ValueError(f"case {case_id} is added twice; case ids must differ, also between training and test")
        if part != APART:
            (self.training_cases if part == TRAINING else self.test_cases).append(case_id)

    def add_training_case(
        self, case_id: str, images: Sequence[np.ndarray] | Sequence[Path], labels: np.ndarray, affine: np.ndarray
    ) -> None:
        """Add a case to imagesTr and labelsTr. Images that are paths to .nii.gz files are linked."""
        self._add(case_id, images, labels, affine, part=TRAINING)

    def add_test_case(
        self, case_id: str, images: Sequence[np.ndarray] | Sequence[Path], labels: np.ndarray, affine: np.ndarray
    ) -> None:
        """Add a case to imagesTs and its reference to labelsTs."""
        self._add(case_id, images, labels, affine, part=TEST)

    def write_json(self, name: str, content: Any) -> None:
        """Add a JSON file beside dataset.json."""
        write_json(self.folder / name, content)

    def write_attributes(self, table: AttributeTable, name: str = "attributes.json") -> None:
        """Add an attribute table beside dataset.json."""
        write_table(table, self.folder / name)

    def _add(self, case_id: str, images: Sequence, labels: np.ndarray, affine: np.ndarray, *, part: str) -> None:
        self.count(case_id, part)
        if len(images) != self.num_channels:
            raise ValueError(f"case {case_id} has {len(images)} images for {self.num_channels} channels; give one each")
        for channel, image in enumerate(images):
            place = self.image_path(case_id, part, channel)
            if isinstance(image, np.ndarray):
                _check_shape(case_id, image, labels)
                write_nifti(image, affine, place)
            else:
                link_or_copy(image, place)
        write_nifti(labels, affine, self.mask_path(case_id, part))


def _check_shape(case_id: str, image: np.ndarray, labels: np.ndarray) -> None:
    if image.shape != labels.shape:
        raise ValueError(f"case {case_id}: image {image.shape} and labels {labels.shape} differ in shape")

"""Preprocessed files that are missing or half-written are named before the first epoch."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import blosc2
import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_pickle

from nnunetv2_malenia.files import MaleniaError


def _open_npz(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for name in ("data.npy", "seg.npy"):
            archive.getinfo(name)


# each looks at the beginning and the end, and reads no voxel; properties are nnU-Net's, the only pickles ever loaded
OPENERS: dict[str, Callable[[Path], object]] = {
    ".b2nd": lambda path: blosc2.open(str(path), mode="r"),
    ".npz": _open_npz,
    ".npy": lambda path: np.load(path, mmap_mode="r"),
    ".pkl": lambda path: load_pickle(str(path))["class_locations"],
}


def check_preprocessed(folder: Path, case_ids: Iterable[str]) -> None:
    """Raise MaleniaError with the number of damaged or missing files, and the first of them.

    nnU-Net writes a case's properties last, so a case that was interrupted lacks them.
    """
    is_blosc2 = any(folder.glob("*.b2nd"))
    endings = ("_seg.b2nd", ".b2nd", ".pkl") if is_blosc2 else (".npz", ".pkl", "_seg.npy", ".npy")
    faults = []
    for case_id in case_ids:
        for path in (folder / f"{case_id}{ending}" for ending in endings):
            if not path.is_file():
                if path.suffix != ".npy":  # unpacked when training starts
                    faults.append(f"{path} (missing)")
                continue
            try:
                OPENERS[path.suffix](path)
            except Exception as error:  # a cut pickle may raise anything
                faults.append(f"{path} ({path.stat().st_size} bytes, {type(error).__name__})")
    if faults:
        raise MaleniaError(
            f"{len(faults)} preprocessed files are missing or damaged, e.g. {faults[0]}; run nnUNetv2_preprocess again"
        )

"""Tiny data sets in the layouts that MSD and KiTS are published in."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (6, 7, 8)
LPI = np.array([[-0.8, 0, 0, 30], [0, -0.7, 0, 20], [0, 0, 2.5, -40], [0, 0, 0, 1]])
KITS = np.array([[0, 0, -0.8, 0], [0, -0.7, 0, 0], [-2.5, 0, 0, 0], [0, 0, 0, 1]])  # I, P, L, as KiTS23 is stored
MSD_LABELS = {
    "Task03_Liver": ("background", "liver", "cancer"),
    "Task06_Lung": ("background", "cancer"),
    "Task07_Pancreas": ("background", "pancreas", "cancer"),
    "Task08_HepaticVessel": ("background", "Vessel", "Tumour"),
    "Task10_Colon": ("background", "colon cancer primaries"),
}


def save(path: Path, array: np.ndarray, affine: np.ndarray = LPI) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    nib.save(image, path)
    return path


def ct(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, shape, dtype=np.int16)


def mask(*values: int, shape: tuple[int, ...] = SHAPE, dtype: type = np.uint8) -> np.ndarray:
    """A label map with a 2x2x2 cube of each value, in a corner of its own."""
    labels = np.zeros(shape, dtype)
    for value, corner in zip(values, np.ndindex(2, 2, 2), strict=False):
        labels[tuple(slice(4 * i, 4 * i + 2) for i in corner)] = value
    return labels


def msd_task(
    folder: Path,
    cases: Mapping[str, tuple[int, ...]],
    *,
    test_cases: tuple[str, ...] = (),
    labels: tuple[str, ...] | None = None,
) -> Path:
    """A task as MSD publishes it, `._` litter included. cases: case id -> values in its mask."""
    labels = labels or MSD_LABELS[folder.name]
    for seed, (case_id, values) in enumerate(cases.items()):
        save(folder / "imagesTr" / f"{case_id}.nii.gz", ct(seed))
        save(folder / "labelsTr" / f"{case_id}.nii.gz", mask(*values))
        for kind in ("imagesTr", "labelsTr"):
            (folder / kind / f"._{case_id}.nii.gz").write_bytes(b"\x00\x05\x16\x07 macOS")
    (folder / "imagesTs").mkdir(parents=True, exist_ok=True)
    for case_id in test_cases:
        save(folder / "imagesTs" / f"{case_id}.nii.gz", ct(99))
    about = {
        "name": folder.name.partition("_")[2],
        "description": "a miniature",
        "reference": "nobody",
        "licence": "CC-BY-SA 4.0",
        "release": "1.0 04/05/2018",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {str(value): name for value, name in enumerate(labels)},
        "numTraining": len(cases),
        "numTest": len(test_cases),
        "training": [{"image": f"./imagesTr/{i}.nii.gz", "label": f"./labelsTr/{i}.nii.gz"} for i in cases],
        "test": [f"./imagesTs/{i}.nii.gz" for i in test_cases],
    }
    (folder / "dataset.json").write_text(json.dumps(about))
    (folder / "._dataset.json").write_bytes(b"\x00\x05\x16\x07 macOS")
    return folder


def kits(folder: Path, cases: Mapping[str, tuple[int, ...]], *, inside: str = "dataset") -> Path:
    """The KiTS23 repository after the download of images, or that of KiTS19 with inside="data"."""
    for seed, (case_id, values) in enumerate(cases.items()):
        save(folder / inside / case_id / "imaging.nii.gz", ct(seed), KITS)
        save(folder / inside / case_id / "segmentation.nii.gz", mask(*values), KITS)
    metadata = [{"case_id": case_id, "age_at_nephrectomy": 49} for case_id in cases]
    (folder / inside / "kits23.json").write_text(json.dumps(metadata))
    return folder


def stored(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def damage_the_middle(path: Path) -> None:
    """Spoil the compressed voxels, so that decompressing fails; header and trailer stay as they are."""
    content = bytearray(path.read_bytes())
    middle = slice(len(content) * 2 // 5, len(content) * 3 // 5)
    content[middle] = bytes(len(content[middle]))
    path.write_bytes(content)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def as_two_gzip_members(path: Path) -> None:
    """The same content as some parallel compressors write it: the last member's length is not that of the file."""
    content = gzip.decompress(path.read_bytes())
    half = len(content) // 2
    path.write_bytes(gzip.compress(content[:half]) + gzip.compress(content[half:]))


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

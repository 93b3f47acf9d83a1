"""Label maps and masks in a folder, and whether two of them lie on one grid."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np

from nnunetv2_malenia import volumes
from nnunetv2_malenia.files import MaleniaError, is_unicode


class EvaluationError(MaleniaError):
    """What cannot be evaluated; the message is one line: what is wrong, where, what to do."""


class Volume(NamedTuple):
    """voxels: (X, Y, Z) integers in the file's own axis order; spacing: mm, in the same order."""

    voxels: np.ndarray
    spacing: tuple[float, float, float]
    voxel_ml: float


def volumes_in(folder: Path) -> dict[str, Path]:
    """Case id -> file, of the volumes in a folder. Raises EvaluationError for none, or two of one case."""
    if not folder.is_dir():
        raise EvaluationError(f"{folder} is not a folder; give the folder that holds one label map per case")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.name.endswith(volumes.ENDINGS):
            continue
        if not is_unicode(path.name):
            raise EvaluationError(f"{path}: the name is no UTF-8 text; rename the file")
        if (other := found.setdefault(volumes.stem_of(path), path)) != path:
            raise EvaluationError(f"{path} and {other.name} are the same case; keep one of them")
    if not found:
        raise EvaluationError(f"{folder} holds no file that ends in {', '.join(volumes.ENDINGS)}")
    return found


def find_volume(folder: Path, stem: str) -> Path | None:
    """The volume of that name, whatever its ending; None if there is none."""
    return next((path for ending in volumes.ENDINGS if (path := folder / f"{stem}{ending}").is_file()), None)


def read_volume(path: Path) -> Volume:
    """Read a label map or mask. Raises InputError if it is damaged or has voxels that are no integers."""
    volume = volumes.open_volume(path)
    voxel_ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000
    return Volume(volume.labels(), tuple(nibabel.affines.voxel_sizes(volume.affine).tolist()), voxel_ml)


def grid_difference(path: Path, reference: Path) -> str | None:
    """How the grids of two files differ, from their headers alone; None if they do not. Raises InputError."""
    return volumes.grid_difference(volumes.open_volume(path), volumes.open_volume(reference))

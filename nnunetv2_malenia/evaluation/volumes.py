"""Label maps and masks as NIfTI files, and whether two of them lie on one grid."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np

from nnunetv2_malenia.files import MaleniaError

FILE_ENDINGS = (".nii.gz", ".nii")
GRID_TOLERANCE = 0.1  # of the smallest voxel edge: how far a voxel of one file may lie from its twin in the other


class EvaluationError(MaleniaError):
    """What cannot be evaluated; the message is one line: what is wrong, where, what to do."""


class Volume(NamedTuple):
    """voxels: (X, Y, Z) integers in the file's own axis order; spacing: mm, in the same order."""

    voxels: np.ndarray
    spacing: tuple[float, float, float]


def volumes_in(folder: Path) -> dict[str, Path]:
    """Case id -> file, of the NIfTI files of a folder. Raises EvaluationError for none, or two of one case."""
    if not folder.is_dir():
        raise EvaluationError(f"{folder} is not a folder; give the folder that holds one label map per case")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.name.endswith(FILE_ENDINGS):
            continue
        if (other := found.setdefault(case_id_of(path), path)) != path:
            raise EvaluationError(f"{path} and {other.name} are the same case; keep one of them")
    if not found:
        raise EvaluationError(f"{folder} holds no file that ends in {' or '.join(FILE_ENDINGS)}")
    return found


def case_id_of(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def find_volume(folder: Path, stem: str) -> Path | None:
    """The NIfTI file of that name, whatever its ending; None if there is none."""
    return next((path for ending in FILE_ENDINGS if (path := folder / f"{stem}{ending}").is_file()), None)


def read_volume(path: Path) -> Volume:
    """Read a label map or mask. Raises EvaluationError if it is damaged or has voxels that are no integers."""
    image = _open(path)
    try:
        voxels = np.asarray(image.dataobj)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise _unreadable(path, error) from error
    if voxels.dtype.kind == "f":  # some programs store labels as floats
        with np.errstate(invalid="ignore"):
            rounded = voxels.astype(np.int32)
        if not np.array_equal(rounded, voxels):
            raise EvaluationError(f"{path}: voxels that are no integers; give label maps or masks, not probabilities")
        voxels = rounded
    return Volume(voxels, tuple(nibabel.affines.voxel_sizes(image.affine).tolist()))


def grid_difference(path: Path, reference: Path) -> str | None:
    """How the grids of two files differ, from their headers alone; None if they do not.

    Shapes must be equal, and no voxel may lie further from its twin than GRID_TOLERANCE of a voxel along any world
    axis; rounding in headers does not move one that far. Raises EvaluationError if a file is damaged or not 3-D.
    """
    image, other = _open(path), _open(reference)
    if image.shape != other.shape:
        return f"{path.name} has shape {_plain(image.shape)}, the reference {_plain(other.shape)}"
    drift_mm = np.abs(image.affine - other.affine)[:3] @ [*other.shape, 1]
    if drift_mm.max() > GRID_TOLERANCE * nibabel.affines.voxel_sizes(other.affine).min():
        return f"the affines of {path.name} and the reference differ; voxels lie up to {drift_mm.max():.3g} mm apart"
    return None


def _open(path: Path) -> nibabel.Nifti1Image:
    try:
        image = nibabel.load(path)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    if len(image.shape) != 3:
        raise EvaluationError(f"{path}: a volume of shape {_plain(image.shape)}; store one 3-D label map per file")
    return image


def _unreadable(path: Path, error: Exception) -> EvaluationError:
    return EvaluationError(f"{path}: cannot be read ({str(error) or type(error).__name__}); write or copy it again")


def _plain(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(size) for size in shape)

"""Can an image be used, and is it what the model was trained on? Faults stop a case, doubts become warnings."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from nnunetv2_malenia.volumes import InputError

MAX_RESAMPLED_VOXELS = 2**29  # a whole-body CT of 512 x 512 x 1800 voxels, unresampled, is below it
EXTENT_MM = (20.0, 3000.0)  # of the longest edge of a volume: outside, spacing is not in millimetres
ORTHONORMAL_TOLERANCE = 1e-4
ZOOM_TOLERANCE = 0.01  # share by which voxel sizes may differ from those of the affine
GRID_TOLERANCE = 0.1  # of the smallest voxel edge: how far apart the corners of two grids may lie
NO_AIR_HU = -500.0
_SAMPLED_VOXELS = 1_000_000
_CHUNK = 2**20


def check_channels(channels: Mapping[int, Path], num_channels: int) -> list[Path]:
    """A case's files in the order of their channels. Raises InputError unless they are 0 to num_channels - 1."""
    if sorted(channels) != list(range(num_channels)):
        name = next(iter(channels.values())).name
        raise InputError(
            f"{name}: the case has channels {sorted(channels)}, the model needs {list(range(num_channels))}; add what "
            "is missing, one file a channel"
        )
    return [channels[i] for i in range(num_channels)]


def open_nifti(path: Path) -> nib.Nifti1Image:
    """Open a NIfTI file of one volume whose every byte is there; voxels are not decoded.

    A .nii.gz is read to its end, where gzip keeps checksum and length. Raises InputError for a damaged or other file,
    fewer than three axes or more (those of length 1 do not count), voxels that are not real numbers.
    """
    with _faults_of(path):
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):  # Nifti2Image is one too
            raise InputError(f"{path.name}: not a NIfTI file; convert the image to NIfTI")
        length = image.dataobj.offset + prod(image.shape) * image.get_data_dtype().itemsize
        if _length(path) < length:
            raise EOFError("it ends before its last voxel")
    shape = image.shape
    if len(shape) < 3:
        raise InputError(f"{path.name}: a 2-D image of shape {shape}; the model needs a 3-D volume")
    if prod(shape[3:]) != 1:
        raise InputError(f"{path.name}: {len(shape)}-D, of shape {shape}; store one 3-D file for each volume of it")
    if prod(shape) == 0:
        raise InputError(f"{path.name}: of shape {shape}, without a voxel; export the image again")
    if image.get_data_dtype().kind not in "iuf":
        raise InputError(f"{path.name}: voxels of type {image.get_data_dtype()}; store intensities as real numbers")
    return image


def check_grid(name: str, image: nib.Nifti1Image, target_spacing: Sequence[float]) -> None:
    """Raise InputError unless the affine is a voxel grid in millimetres, of a size that can be resampled.

    target_spacing: mm, what nnU-Net resamples to.
    """
    affine = image.affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise InputError(f"{name}: its affine is no voxel grid; correct spacing and directions in the header")
    extents = np.array(image.shape[:3]) * nib.affines.voxel_sizes(affine)
    if not EXTENT_MM[0] <= extents.max() <= EXTENT_MM[1]:
        size = " x ".join(f"{extent:.3g}" for extent in extents)
        raise InputError(f"{name}: {size} mm large by its header; the spacing must be in millimetres, correct it")
    voxels = prod(extents.tolist()) / prod(target_spacing)
    if voxels > MAX_RESAMPLED_VOXELS:
        raise InputError(
            f"{name}: {voxels:.3g} voxels after resampling to {', '.join(f'{s:.3g}' for s in target_spacing)} mm, more "
            f"than the {MAX_RESAMPLED_VOXELS:.3g} that fit into memory; check the spacing, or crop the image"
        )


def check_same_grid(names: Sequence[str], images: Sequence[nib.Nifti1Image]) -> None:
    """Raise InputError unless all channels of a case lie on the first one's grid."""
    first = images[0]
    for name, image in zip(names[1:], images[1:], strict=True):
        if image.shape[:3] != first.shape[:3]:
            raise InputError(f"{name} is of shape {image.shape}, {names[0]} of {first.shape}; resample to one grid")
        distance = _corner_distance_mm(image.affine, first.affine, image.shape)
        if distance > GRID_TOLERANCE * nib.affines.voxel_sizes(first.affine).min():
            raise InputError(f"{name} lies up to {distance:.3g} mm off {names[0]}; resample the channels to one grid")


def is_orthonormal(affine: np.ndarray) -> bool:
    """Whether the axes of a voxel grid are at right angles; SimpleITK reads no other images."""
    cosines = affine[:3, :3] / nib.affines.voxel_sizes(affine)
    return bool(np.abs(cosines.T @ cosines - np.eye(3)).max() <= ORTHONORMAL_TOLERANCE)


def doubts_about_header(image: nib.Nifti1Image) -> list[str]:
    """What is odd about a NIfTI header and can be lived with: its affine is used, and nothing else."""
    doubts = []
    affine, header = image.affine, image.header
    sizes = nib.affines.voxel_sizes(affine)
    if not is_orthonormal(affine):
        doubts.append("the axes are not at right angles (sheared affine); results keep the affine as it is")
    zooms = np.array(header.get_zooms()[:3])
    if (np.abs(zooms - sizes) > ZOOM_TOLERANCE * sizes).any():
        doubts.append(
            f"pixdim says a spacing of {_numbers(zooms)} mm, the affine {_numbers(sizes)} mm; the affine is used"
        )
    if header["sform_code"] > 0 and header["qform_code"] > 0:
        distance = _corner_distance_mm(header.get_sform(), header.get_qform(), image.shape)
        if not distance <= GRID_TOLERANCE * sizes.min():
            doubts.append(f"sform and qform disagree by up to {distance:.3g} mm; the sform is used")
    unit = header.get_xyzt_units()[0]
    if unit in ("meter", "micron"):
        doubts.append(f"the header gives {unit} as unit; the spacing is taken as millimetres")
    if min(image.shape[:3]) == 1:
        doubts.append(f"a single slice, of shape {image.shape}; the model was trained on volumes")
    return doubts


def replace_non_finite(name: str, channel: np.ndarray) -> list[str]:
    """Put numbers where a channel has none, in place: the least for NaN, the least or greatest for infinity.

    channel (Z, Y, X) float32. Returns a warning with the count. Raises InputError if no voxel is finite.
    """
    finite = np.isfinite(channel)
    count = channel.size - int(finite.sum())
    if count == 0:
        return []
    if count == channel.size:
        raise InputError(f"{name}: no voxel is a finite number; export the image again")
    low, high = (float(end(channel, where=finite, initial=channel[finite][0])) for end in (np.min, np.max))
    np.nan_to_num(channel, copy=False, nan=low, posinf=high, neginf=low)
    return [f"{count} voxels are NaN or infinite; they are read as {low:.6g} (infinity as {high:.6g})"]


def doubts_about_intensities(channel: np.ndarray, is_ct: bool, foreground: Mapping[str, float]) -> list[str]:
    """Whether a channel looks like what the model was trained on.

    channel (Z, Y, X), finite. foreground: nnU-Net's intensity statistics of the training labels, in its names; they are
    compared with for CT only, since other intensities have no scale. The first doubt that applies is told.
    """
    sample = channel.reshape(-1)[:: max(1, channel.size // _SAMPLED_VOXELS)]
    least, greatest = float(channel.min()), float(channel.max())
    if least == greatest:
        return [f"every voxel is {least:.6g}: the image is empty"]
    if not is_ct:
        return []
    darkest, brightest = (float(value) for value in np.percentile(sample, (0.5, 99.5)))
    seen = f"the model was trained on {foreground['percentile_00_5']:.0f} to {foreground['percentile_99_5']:.0f} HU"
    if least >= 0:
        return [f"no voxel is negative ({least:.6g} to {greatest:.6g}): not Hounsfield units? {seen}, and air is -1000"]
    if darkest > min(NO_AIR_HU, foreground["percentile_00_5"]):
        return [f"the darkest voxels are at {darkest:.6g}: windowed, or cropped to the body? {seen}, and air is -1000"]
    if brightest < foreground["mean"]:
        return [f"the brightest voxels are at {brightest:.6g}: not Hounsfield units? {seen}"]
    return []


def _length(path: Path) -> int:
    """Bytes in the file, decompressed to the end if it is compressed."""
    if path.suffix != ".gz":
        return path.stat().st_size
    length = 0
    with gzip.open(path) as file:
        while chunk := file.read(_CHUNK):
            length += len(chunk)
    return length


def _corner_distance_mm(affine: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    corners = np.array(np.meshgrid(*([0, size - 1] for size in shape[:3]))).reshape(3, -1).T
    moved = nib.affines.apply_affine(affine, corners) - nib.affines.apply_affine(other, corners)
    return float(np.linalg.norm(moved, axis=1).max())


def _numbers(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    """Tell what gzip, zlib, nibabel and the disk find wrong with a file as an InputError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, ImageFileError, HeaderDataError, WrapStructError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"{path.name}: the file is damaged or no NIfTI ({why}); export or copy it again") from None
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read ({error.strerror or error}); check the disk") from None

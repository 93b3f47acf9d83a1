"""Can an image be used, and is it what the model was trained on? Faults stop a case, doubts become warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import nibabel as nib
import numpy as np

from nnunetv2_malenia.volumes import InputError, Volume

MAX_RESAMPLED_VOXELS = 2**29  # a whole-body CT of 512 x 512 x 1800 voxels, unresampled, is below it
EXTENT_MM = (20.0, 3000.0)  # of the longest edge of a volume: outside, spacing is not in millimetres
NO_AIR_HU = -500.0
_SAMPLED_VOXELS = 1_000_000


def check_channels(channels: Mapping[int, Path], num_channels: int) -> list[Path]:
    """A case's files in the order of their channels. Raises InputError unless they are 0 to num_channels - 1."""
    if sorted(channels) != list(range(num_channels)):
        name = next(iter(channels.values())).name
        raise InputError(
            f"{name}: the case has channels {sorted(channels)}, the model needs {list(range(num_channels))}; add what "
            "is missing, one file a channel"
        )
    return [channels[i] for i in range(num_channels)]


def check_extent(volume: Volume, target_spacing: Sequence[float]) -> None:
    """Raise InputError unless the volume's spacing is in millimetres, and its size one that can be resampled.

    target_spacing: mm, what nnU-Net resamples to.
    """
    extents = np.array(volume.shape) * nib.affines.voxel_sizes(volume.affine)
    if not EXTENT_MM[0] <= extents.max() <= EXTENT_MM[1]:
        size = " x ".join(f"{extent:.3g}" for extent in extents)
        raise InputError(
            f"{volume.name}: {size} mm large by its header; the spacing must be in millimetres, correct it"
        )
    voxels = prod(extents.tolist()) / prod(target_spacing)
    if voxels > MAX_RESAMPLED_VOXELS:
        raise InputError(
            f"{volume.name}: {voxels:.3g} voxels after resampling to {', '.join(f'{s:.3g}' for s in target_spacing)} "
            f"mm, more than the {MAX_RESAMPLED_VOXELS:.3g} that fit into memory; check the spacing, or crop the image"
        )


def check_content(name: str, data: np.ndarray, spacing: Sequence[float], target_spacing: Sequence[float]) -> None:
    """Raise InputError if nnU-Net, which crops zeros away and then resamples, would have no voxel left.

    data (C, Z, Y, X); spacing, target_spacing: mm, of its axes.
    """
    if not (content := data.any(0)).any():
        return  # nnU-Net does not crop it
    for axis, (step, target) in enumerate(zip(spacing, target_spacing, strict=True)):
        used = np.flatnonzero(content.any(tuple({0, 1, 2} - {axis})))
        if round((length := (used[-1] - used[0] + 1) * step) / target) < 1:
            raise InputError(
                f"{name}: only {length:.3g} mm of it hold other values than 0, less than half a voxel of {target:.3g} "
                "mm, of which the model sees one each; give a whole CT"
            )


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

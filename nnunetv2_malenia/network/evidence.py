"""What the image itself shows in and around a lesion, without learned features: evidence for some aspects."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunetv2_malenia.network.config import EVIDENCE_ASPECTS, SPECIFIC_FEATURES, MaleniaConfig
from nnunetv2_malenia.network.mask_decoder import blocks

# windows in voxels of the level: of everything there, of what may be lesion, of what may be none
_LESION_WINDOWS = (1, 3, 5)
_WINDOWS = ((1, 3), _LESION_WINDOWS, (3, 5, 7))
_LEVELS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)  # of an image normalised to unit variance
_LEAST_WEIGHT = 1e-3  # of a window without lesion, or without anything else: its plain statistics
_LEAST_VARIANCE = 1e-3  # of an image normalised to unit variance


def evidence_dims(config: MaleniaConfig, num_channels: int) -> dict[tuple[int, ...], int]:
    """Groups of aspects that are read from evidence, and the channels of `intensity_evidence` for each."""
    if not config.evidence:
        return {}
    (near, patch), per_channel = EVIDENCE_ASPECTS, 2 * sum(map(len, _WINDOWS))
    if config.extremes:
        near, per_channel = (*near, SPECIFIC_FEATURES), per_channel + 2 * len(_LESION_WINDOWS)
    return {near: num_channels * per_channel, patch: num_channels * len(_LEVELS)}


@torch.no_grad()
def intensity_evidence(config: MaleniaConfig, image: Tensor, any_lesion: Tensor, shape_zyx: torch.Size) -> Tensor:
    """Evidence for each group of `evidence_dims` at every voxel of a level.

    image (B, C, Z, Y, X), normalised; any_lesion (B, Z, Y, X): log-odds of a lesion
    -> (B, sum of evidence_dims, *shape_zyx) float32.
    """
    near = [local_statistics(image, any_lesion, shape_zyx)]
    if config.extremes:
        near.append(local_extremes(image, any_lesion, shape_zyx))
    return torch.cat([*near, intensity_distribution(image)[..., None, None, None].expand(-1, -1, *shape_zyx)], dim=1)


def intensity_distribution(image: Tensor) -> Tensor:
    """The share of a patch's voxels above each of some levels: contrast medium makes organs bright -> (B, C * L)."""
    voxels = image.float().flatten(2)
    return torch.stack([(voxels > level).float().mean(2) for level in _LEVELS], dim=2).flatten(1)


def local_statistics(image: Tensor, any_lesion: Tensor, shape_zyx: torch.Size) -> Tensor:
    """Mean and log standard deviation of the image in windows around every voxel of a level.

    The voxels of a window weigh all alike, by the probability of a lesion, or by that of no lesion. Density is a matter
    of the inside against the outside, its variation of the spread inside, and a surface is ill-defined where both mix;
    none of them depends on which organ this is.
    """
    with torch.autocast(image.device.type, enabled=False):
        image = image.float()
        lesion = any_lesion.float().sigmoid()[:, None]
        plain = _block_sums(torch.ones_like(lesion), image, shape_zyx)
        statistics = []
        for weight, windows in zip((None, lesion, 1 - lesion), _WINDOWS, strict=True):
            sums = plain if weight is None else _block_sums(weight, image, shape_zyx) + _LEAST_WEIGHT * plain
            for window in windows:
                total, first, second = _window_sums(sums, window).split([1, image.shape[1], image.shape[1]], dim=1)
                mean = first / total
                variance = (second / total - mean.square()).clamp(min=0)
                statistics += [mean, (variance + _LEAST_VARIANCE).log() / 2]
        return torch.cat(statistics, dim=1)


def local_extremes(image: Tensor, any_lesion: Tensor, shape_zyx: torch.Size) -> Tensor:
    """The largest and the smallest of p (x - m) in windows around every voxel of a level -> (B, 2 C W, *shape_zyx).

    p: probability of a lesion; m: the image's mean in the largest window around the level's voxel, weighted by p plus a
    little. What is small and unlike the rest of a lesion, such as calcification, hardly shows in its mean and spread.
    Where the border of p is soft, the organ around counts as well, the more the softer.
    """
    with torch.autocast(image.device.type, enabled=False):
        image = image.float()
        lesion = any_lesion.float().sigmoid()[:, None]
        weight = lesion + _LEAST_WEIGHT
        sums = _window_sums(_block_sums(weight, image, shape_zyx), max(_LESION_WINDOWS))
        total, first, _ = sums.split([1, image.shape[1], image.shape[1]], dim=1)
        deviation = lesion * (image - F.interpolate(first / total, size=image.shape[2:], mode="nearest"))
        extremes = []
        for sign in (1, -1):
            peak = F.max_pool3d(sign * deviation, blocks(image.shape[2:], shape_zyx))
            extremes += [sign * F.max_pool3d(peak, each, stride=1, padding=each // 2) for each in _LESION_WINDOWS]
        return torch.cat(extremes, dim=1)


def _block_sums(weight: Tensor, image: Tensor, shape_zyx: torch.Size) -> Tensor:
    """Per voxel of the level, the averages of w, w x and w x² -> (B, 1 + 2 C, *shape_zyx)."""
    moments = torch.cat([weight, weight * image, weight * image.square()], dim=1)
    return F.avg_pool3d(moments, blocks(image.shape[2:], shape_zyx))


def _window_sums(sums: Tensor, window: int) -> Tensor:
    """Zeros beyond the border add nothing to any of the sums, so their ratios are those of what is inside."""
    return F.avg_pool3d(F.pad(sums, [window // 2] * 6), window, stride=1)

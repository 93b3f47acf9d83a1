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
def intensity_evidence(
    config: MaleniaConfig, image: Tensor, any_lesion: Tensor, shape_zyx: torch.Size
) -> tuple[Tensor, Tensor]:
    """Evidence for each group of `evidence_dims`: at every voxel of a level, and of the whole patch.

    image (B, C, Z, Y, X), normalised; any_lesion (B, Z, Y, X): log-odds of a lesion
    -> (B, evidence_dims, *shape_zyx) and (B, evidence_dims) float32.
    """
    near = local_statistics(image, any_lesion, shape_zyx)
    if config.extremes:
        near = torch.cat([near, local_extremes(image, any_lesion, shape_zyx)], dim=1)
    return near, intensity_distribution(image)


def intensity_distribution(image: Tensor) -> Tensor:
    """The share of a patch's voxels above each of some levels: contrast medium makes organs bright -> (B, C * L)."""
    voxels = image.float().flatten(2)
    return torch.stack([(voxels > level).mean(2, dtype=torch.float32) for level in _LEVELS], dim=2).flatten(1)


def local_statistics(image: Tensor, any_lesion: Tensor, shape_zyx: torch.Size) -> Tensor:
    """Mean and log standard deviation of the image in windows around every voxel of a level.

    The voxels of a window weigh all alike, by the probability of a lesion, or by that of no lesion. Density is a matter
    of the inside against the outside, its variation of the spread inside, and a surface is ill-defined where both mix;
    none of them depends on which organ this is.
    """
    with torch.autocast(image.device.type, enabled=False):
        image = image.float()
        lesion = any_lesion.float().sigmoid()[:, None]
        weights = torch.cat([torch.ones_like(lesion), lesion, 1 - lesion], dim=1)
        plain, *others = _block_sums(weights, image, shape_zyx).unbind(1)
        sums = [plain, *(each + _LEAST_WEIGHT * plain for each in others)]
        chosen = [_window_sums(sums[i], window) for i, windows in enumerate(_WINDOWS) for window in windows]
        total, first, second = torch.stack(chosen, dim=1).split([1, image.shape[1], image.shape[1]], dim=2)
        mean = first / total
        variance = (second / total - mean.square()).clamp(min=0)
        return torch.stack([mean, (variance + _LEAST_VARIANCE).log() / 2], dim=2).flatten(1, 3)


def local_extremes(image: Tensor, any_lesion: Tensor, shape_zyx: torch.Size) -> Tensor:
    """The largest and the smallest of p (x - m) in windows around every voxel of a level -> (B, 2 C W, *shape_zyx).

    p: probability of a lesion; m: the image's mean in the largest window around the level's voxel, weighted by p plus a
    little. What is small and unlike the rest of a lesion, such as calcification, hardly shows in its mean and spread.
    Where the border of p is soft, the organ around counts as well, the more the softer.
    """
    with torch.autocast(image.device.type, enabled=False):
        image = image.float()
        lesion = any_lesion.float().sigmoid()[:, None]
        sums = _block_sums(lesion + _LEAST_WEIGHT, image, shape_zyx)[:, 0]
        sums = _window_sums(sums, max(_LESION_WINDOWS))
        total, first, _ = sums.split([1, image.shape[1], image.shape[1]], dim=1)
        deviation = lesion * (image - F.interpolate(first / total, size=image.shape[2:], mode="nearest"))
        extremes = []
        for sign in (1, -1):
            peak = F.max_pool3d(sign * deviation, blocks(image.shape[2:], shape_zyx))
            extremes += [sign * F.max_pool3d(peak, each, stride=1, padding=each // 2) for each in _LESION_WINDOWS]
        return torch.cat(extremes, dim=1)


def _block_sums(weights: Tensor, image: Tensor, shape_zyx: torch.Size) -> Tensor:
    """Per voxel of the level, the averages of w, w x and w x² -> (B, W, 1 + 2 C, *shape_zyx)."""
    moments = torch.cat([torch.ones_like(image[:, :1]), image, image.square()], dim=1)
    products = (weights[:, :, None] * moments[:, None]).flatten(1, 2)
    sums = F.avg_pool3d(products, blocks(image.shape[2:], shape_zyx))
    return sums.unflatten(1, (weights.shape[1], moments.shape[1]))


def _window_sums(sums: Tensor, window: int) -> Tensor:
    """Zeros beyond the border add nothing to any of the sums, so their ratios are those of what is inside."""
    return F.avg_pool3d(F.pad(sums, [window // 2] * 6), window, stride=1)

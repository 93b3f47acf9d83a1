"""Statistics of the image in windows, by plain loops over the fine voxels of each, in float64."""

from __future__ import annotations

import itertools
import math

LEAST_WEIGHT, LEAST_VARIANCE = 1e-3, 1e-3


def window_voxels(centre, window, stride, level_shape):
    """Fine voxels (z, y, x) of the level's voxels in a window around one of them, cut off at the border."""
    reach = window // 2
    ranges = [
        range(max(0, c - reach) * s, min(n, c + reach + 1) * s)
        for c, s, n in zip(centre, stride, level_shape, strict=True)
    ]
    return list(itertools.product(*ranges))


def deviations_loop(image, p, widest, stride, level_shape):
    """Fine voxel -> p (x - m) of one channel, m the lesion's mean around the level's voxel that holds it."""
    deviations = {}
    for centre in itertools.product(*map(range, level_shape)):
        around = window_voxels(centre, widest, stride, level_shape)
        weights = [float(p[v]) + LEAST_WEIGHT for v in around]
        mean = sum(w * float(image[v]) for w, v in zip(weights, around, strict=True)) / sum(weights)
        for v in window_voxels(centre, 1, stride, level_shape):
            deviations[v] = float(p[v]) * (float(image[v]) - mean)
    return deviations


def statistics_loop(image, weight, centre, window, stride, level_shape):
    """Weighted mean and log standard deviation of one channel in one window; image, weight indexed z, y, x."""
    voxels = window_voxels(centre, window, stride, level_shape)
    weights = [float(weight[v]) for v in voxels]
    values = [float(image[v]) for v in voxels]
    total = sum(weights)
    mean = sum(w * x for w, x in zip(weights, values, strict=True)) / total
    variance = sum(w * x * x for w, x in zip(weights, values, strict=True)) / total - mean**2
    return mean, math.log(variance + LEAST_VARIANCE) / 2

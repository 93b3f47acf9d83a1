"""Dilated ducts: fluid-filled tubes through the organ, upstream of the lesion that blocks them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage
from skimage.graph import route_through_array

from nnunetv2_malenia.phantom import lesions as words
from nnunetv2_malenia.phantom.anatomy import Anatomy, Grid, Tissue
from nnunetv2_malenia.phantom.placement import Lesion

_ORGAN = {words.PANCREATIC_DUCT: "pancreas", words.BILE_DUCTS: "liver"}
_RADIUS_MM = {words.PANCREATIC_DUCT: (2.5, 4.0), words.BILE_DUCTS: (2.2, 3.2)}
_BRANCHES = 5
_LEAST_MM = 25.0
_STEP_MM = 2.0  # of the lattice on which a duct finds its way


def dilate_ducts(anatomy: Anatomy, lesions: Sequence[Lesion], rng: np.random.Generator) -> None:
    """Fill the ducts that lesions dilate with BILE in `anatomy.tissue`, in place; no such lesion, no change."""
    for lesion in lesions:
        for share in dilated_ducts(anatomy, lesion, rng):
            anatomy.tissue[share > 0.5] = Tissue.BILE


def dilated_ducts(anatomy: Anatomy, lesion: Lesion, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """For each duct system that a lesion's features name: (Z, Y, X) float32, share of each voxel in its tubes.

    Pancreatic duct: from the lesion to the tail, the patient's left end of the organ; from a lesion in the tail to the
    head, so that there is something to see. Bile ducts: from the lesion, or the point of the liver next to it, to far
    points of the liver. Nothing where the organ is missing.
    """
    for feature in words.PANCREATIC_DUCT, words.BILE_DUCTS:
        if feature not in lesion.attributes["specific_features"]:
            continue
        organ = anatomy.organ(_ORGAN[feature])
        if organ.any():
            yield _tubes(organ, _centre(lesion), feature, anatomy.grid, rng)


def _centre(lesion: Lesion) -> np.ndarray:
    """The lesion's deepest voxel in the anatomy's array."""
    depth = np.where(lesion.allowed, lesion.depth_mm, -np.inf)
    return np.add(np.unravel_index(depth.argmax(), depth.shape), [part.start for part in lesion.box])


def _tubes(organ: np.ndarray, start: np.ndarray, feature: str, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    box = ndimage.find_objects(organ.view(np.uint8))[0]
    stride = [max(1, round(_STEP_MM / step)) for step in grid.spacing_zyx]
    thin = organ[box][:: stride[0], :: stride[1], :: stride[2]]
    step = np.array(grid.spacing_zyx) * stride
    depth = ndimage.distance_transform_edt(np.pad(thin, 1), step)[1:-1, 1:-1, 1:-1]
    cost = np.where(thin, 1 / np.maximum(depth, 0.5) ** 2, 1e3)  # along the middle of the organ
    points = np.argwhere(thin)
    origin = (start - [part.start for part in box]) / stride
    first = points[np.linalg.norm((points - origin) * step, axis=1).argmin()]
    centreline = np.zeros(thin.shape, bool)
    for goal in _goals(points, first, depth, step, feature):
        path, _ = route_through_array(cost, first, goal, geometric=True)
        centreline[tuple(np.transpose(path))] = True
    low, high = _RADIUS_MM[feature]
    away = ndimage.distance_transform_edt(~centreline, step)
    fine = ndimage.zoom(away, [n / m for n, m in zip(organ[box].shape, thin.shape, strict=True)], order=1)
    tubes = np.zeros(organ.shape, np.float32)
    tubes[box] = organ[box] * np.clip(0.5 + (rng.uniform(low, high) - fine) / np.mean(grid.spacing_zyx), 0, 1)
    return tubes


def _goals(
    points: np.ndarray, first: np.ndarray, depth: np.ndarray, step: np.ndarray, feature: str
) -> list[np.ndarray]:
    """Where the ducts end: an end of the pancreas; points of the liver far from the lesion and each other."""
    inner = points[depth[tuple(points.T)] >= min(2 * step.min(), depth.max() / 2)]
    if feature == words.PANCREATIC_DUCT:
        left, right = inner[inner[:, 2].argmin()], inner[inner[:, 2].argmax()]
        return [left if np.linalg.norm((left - first) * step) >= _LEAST_MM else right]
    goals, nearest = [], np.linalg.norm((inner - first) * step, axis=1)
    for _ in range(_BRANCHES):
        goals.append(inner[nearest.argmax()])
        nearest = np.minimum(nearest, np.linalg.norm((inner - goals[-1]) * step, axis=1))
    return goals

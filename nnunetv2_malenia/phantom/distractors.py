"""Things that look like lesions and are none of the lesion types: what a network must learn to leave alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from nnunetv2_malenia.phantom.anatomy import Anatomy, Tissue
from nnunetv2_malenia.phantom.placement import Lesion

_STRIDE = 2  # places are sought on every second voxel


def add_distractors(anatomy: Anatomy, lesions: Sequence[Lesion], count: int, rng: np.random.Generator) -> None:
    """Put about `count` distractors into `anatomy.tissue`, in place; the organs' label map does not change.

    In fat: lymph nodes (round, soft tissue), fluid-filled bowel loops, vessels with calcified walls. In the spleen,
    which has no lesion type of its own: cysts, calcified granulomas. None comes near a lesion; one without room is
    left out.
    """
    if not count:
        return
    free = np.ones(anatomy.grid.shape, bool)
    for lesion in lesions:
        free[lesion.box] = False
    kinds: tuple[Callable[..., None], ...] = (_node, _loop, _calcified_vessel, _spleen_cyst, _granuloma)
    for i in rng.permutation(count):
        kinds[i % len(kinds)](anatomy, free, rng)


def _node(anatomy: Anatomy, free: np.ndarray, rng: np.random.Generator) -> None:
    _ball(anatomy, free & (anatomy.tissue == Tissue.FAT), rng.uniform(4.5, 8), Tissue.MUSCLE, rng)


def _spleen_cyst(anatomy: Anatomy, free: np.ndarray, rng: np.random.Generator) -> None:
    _ball(anatomy, free & (anatomy.tissue == Tissue.SPLEEN), rng.uniform(6, 11), Tissue.BILE, rng)


def _granuloma(anatomy: Anatomy, free: np.ndarray, rng: np.random.Generator) -> None:
    _ball(anatomy, free & (anatomy.tissue == Tissue.SPLEEN), rng.uniform(3, 4.5), Tissue.CALCIFICATION, rng)


def _loop(anatomy: Anatomy, free: np.ndarray, rng: np.random.Generator) -> None:
    radius = rng.uniform(7, 9.5)
    away = _tube(anatomy, free, radius, rng.uniform(18, 30), rng)
    if away is not None:
        anatomy.tissue[away < radius] = Tissue.BOWEL_WALL
        anatomy.tissue[away < radius - 3] = Tissue.BOWEL_FLUID


def _calcified_vessel(anatomy: Anatomy, free: np.ndarray, rng: np.random.Generator) -> None:
    """A vessel whose wall is calcified along about half of its length."""
    radius = rng.uniform(3.5, 5)
    away = _tube(anatomy, free, radius, rng.uniform(24, 40), rng)
    if away is not None:
        z, y, x = (axis.reshape([-1 if a == i else 1 for a in range(3)]) for i, axis in enumerate(anatomy.grid.axes()))
        patches = np.sin((z + y + x) / 6 + rng.uniform(0, 2 * np.pi)) > 0
        anatomy.tissue[away < radius] = Tissue.VESSEL
        anatomy.tissue[(away < radius) & (away > radius - 2) & patches] = Tissue.CALCIFICATION


def _ball(anatomy: Anatomy, where: np.ndarray, radius: float, tissue: Tissue, rng: np.random.Generator) -> None:
    """A ball in a region, and in nothing but it."""
    centre = _place(anatomy, where, radius, rng)
    if centre is not None:
        axes = zip(anatomy.grid.axes(), centre, strict=True)
        z, y, x = (((axis - c) / radius) ** 2 for axis, c in axes)
        anatomy.tissue[where & (z[:, None, None] + y[:, None] + x < 1)] = tissue


def _tube(
    anatomy: Anatomy, free: np.ndarray, radius: float, length: float, rng: np.random.Generator
) -> np.ndarray | None:
    """Distance in mm to a straight line in fat, inf outside fat; None if there is no room."""
    fat = free & (anatomy.tissue == Tissue.FAT)
    centre = _place(anatomy, fat, radius, rng)
    if centre is None:
        return None
    way = rng.standard_normal(3)
    way /= np.linalg.norm(way)
    z, y, x = (axis - c for axis, c in zip(anatomy.grid.axes(), centre, strict=True))
    z, y = z[:, None, None], y[:, None]
    along = np.clip(way[0] * z + way[1] * y + way[2] * x, -length / 2, length / 2)
    away = np.sqrt((z - along * way[0]) ** 2 + (y - along * way[1]) ** 2 + (x - along * way[2]) ** 2)
    return np.where(fat, away, np.inf)


def _place(anatomy: Anatomy, where: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray | None:
    """A random point (z, y, x) in mm that lies `radius` deep in a region; None if there is none."""
    thin = (slice(None, None, _STRIDE),) * 3
    step = [s * _STRIDE for s in anatomy.grid.spacing_zyx]
    points = np.argwhere(ndimage.distance_transform_edt(where[thin], step) >= radius)
    if not len(points):
        return None
    index = points[rng.integers(len(points))] * _STRIDE
    return np.array([axis[i] for axis, i in zip(anatomy.grid.axes(), index, strict=True)])

"""The body around organs of a real label map where that has no label: a plain one, and no more than scenery."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from nnunetv2_malenia.phantom.anatomy import ORGANS, Anatomy, Grid, Tissue, smooth_noise

_SKIN_TO_SPINE_MM = 72.0
_HALF_WIDTH_MM, _HALF_DEPTH_MM = 165.0, 112.0
_MARGIN_MM = 28.0  # fat and muscle between an organ and the skin
_COARSE_MM = 3.0
_CLEAR_MM = 6.0  # fat around organs, into which no clutter reaches


def add_backdrop(anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Fill what is AIR in `anatomy.tissue`, in place: fat, a wall of muscle, a spine, clutter of soft tissue.

    The body is a cylinder along z. Its spine is level with the kidneys, where there are any; without kidneys the body
    is centred on what is labelled. Bones, great vessels and bowel are left out where the label map has its own.
    """
    grid, tissue = anatomy.grid, anatomy.tissue
    labelled = tissue != Tissue.AIR
    z, y, x = (axis.reshape([-1 if a == i else 1 for a in range(3)]) for i, axis in enumerate(grid.axes()))
    (front, back), (right, left) = _extent(labelled.any((0, 2)), y.ravel()), _extent(labelled.any((0, 1)), x.ravel())
    middle_x, spine_y = _spine(anatomy)
    half_width = max(_HALF_WIDTH_MM, right - middle_x + _MARGIN_MM, middle_x - left + _MARGIN_MM)
    back_y = min(spine_y - _SKIN_TO_SPINE_MM, back - _MARGIN_MM)
    half_depth = max(_HALF_DEPTH_MM, (front + _MARGIN_MM - back_y) / 2)
    middle_y = back_y + half_depth
    bend = 4 * smooth_noise(grid, 140.0, rng)
    r = (np.abs((x - middle_x) / half_width) ** 2.4 + np.abs((y - middle_y) / half_depth) ** 2.4) ** (1 / 2.4)
    depth = (1 - r) * min(half_width, half_depth) + bend  # mm under the skin, roughly
    fat, rim = rng.uniform(12, 20), rng.uniform(9, 13)
    body, cavity = depth > 0, depth > fat + rim
    free = ~labelled
    tissue[free & body] = Tissue.FAT
    tissue[free & (depth > fat) & ~cavity] = Tissue.MUSCLE
    inside = free & cavity & ~_near(labelled, grid)
    if not np.isin(tissue, (Tissue.BOWEL_WALL, Tissue.BOWEL_FLUID)).any():
        loops = smooth_noise(grid, 42.0, rng)
        anterior = inside & (y > spine_y + 25)
        tissue[anterior & (loops > 0.7)] = Tissue.BOWEL_WALL
        tissue[anterior & (loops > 1.15)] = Tissue.BOWEL_FLUID
    if not (tissue == Tissue.BONE).any():
        _add_spine(tissue, inside, x - middle_x, y - spine_y, z + rng.uniform(0, 34))
    if not (tissue == Tissue.AORTA).any():
        for side, radius, vessel in ((-1, 10.0, Tissue.AORTA), (1, 11.0, Tissue.VESSEL)):
            round_ = (x - middle_x - 14 * side) ** 2 + (y - spine_y - 32) ** 2 < radius**2
            tissue[inside & round_] = vessel


def _near(labelled: np.ndarray, grid: Grid) -> np.ndarray:
    """(Z, Y, X) bool: within _CLEAR_MM of a label, measured on every few voxels where they are small."""
    stride = [max(1, round(_COARSE_MM / step)) for step in grid.spacing_zyx]
    step = [s * n for s, n in zip(grid.spacing_zyx, stride, strict=True)]
    thin = labelled[:: stride[0], :: stride[1], :: stride[2]]
    near = ndimage.distance_transform_edt(~thin, step) <= _CLEAR_MM
    for axis, n in enumerate(stride):
        near = near.repeat(n, axis)
    z, y, x = labelled.shape
    return near[:z, :y, :x]


def _extent(used: np.ndarray, axis: np.ndarray) -> tuple[float, float]:
    """Largest and smallest coordinate where anything is."""
    return float(axis[used].max()), float(axis[used].min())


def _spine(anatomy: Anatomy) -> tuple[float, float]:
    """Where the middle of a vertebra is, x and y in mm."""
    _, y, x = anatomy.grid.axes()
    kidneys = np.isin(anatomy.organs, [1 + ORGANS.index(f"{side} kidney") for side in ("left", "right")])
    if not kidneys.any():
        labelled = anatomy.tissue != Tissue.AIR
        front, back = _extent(labelled.any((0, 2)), y)
        return 0.0, (front + back) / 2 - 40
    right, left = _extent(kidneys.any((0, 1)), x)
    rows = kidneys.sum((0, 2))
    both = right - left > 150
    return (right + left) / 2 if both else 0.0, float((rows * y).sum() / rows.sum()) - 5


def _add_spine(tissue: np.ndarray, inside: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
    """Vertebrae with discs and processes, muscle beside them; x, y from the middle of a vertebra, z along the spine."""
    disc = z % 34 < 7
    for side in (-1, 1):
        tissue[inside & (((x - 34 * side) / 26) ** 2 + ((y + 36) / 18) ** 2 < 1)] = Tissue.MUSCLE
        tissue[inside & (((x - 32 * side) / 15) ** 2 + ((y - 2) / 17) ** 2 < 1)] = Tissue.MUSCLE  # psoas
    r = (x / 22) ** 2 + (y / 17) ** 2
    tissue[inside & (r < 1)] = Tissue.BONE
    tissue[inside & (r < 0.7)] = Tissue.MARROW
    tissue[inside & (r < 1) & disc] = Tissue.MUSCLE
    tissue[inside & ((x / 6) ** 2 + ((y + 40) / 16) ** 2 < 1) & ~disc] = Tissue.BONE
    tissue[inside & ((x / 9) ** 2 + ((y + 24) / 8) ** 2 < 1)] = Tissue.MUSCLE  # canal

"""The body without lesions: which organ and which tissue lies where.

Everything is drawn in millimetres, so any voxel spacing shows the same body. Coordinates are RAS+ as in NIfTI: x grows
towards the patient's right, y towards the front, z towards the head; the origin is the middle of the volume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from scipy import ndimage

from nnunetv2_malenia.files import MaleniaError

Point: TypeAlias = Sequence[float]
Box: TypeAlias = tuple[slice, ...]

ORGANS: tuple[str, ...] = (
    "liver",
    "spleen",
    "pancreas",
    "left kidney",
    "right kidney",
    "left lung",
    "right lung",
    "colon",
    "gallbladder",
    "aorta",
)


class PhantomError(MaleniaError):
    """A phantom, or a lesion, that cannot be made as asked; the message is one line: what is wrong, what to do."""


class Tissue(IntEnum):
    """What a voxel is made of; `rendering` gives each one its Hounsfield value."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    BONE = 3
    MARROW = 4
    HEART = 5
    VESSEL = 6
    AORTA = 7
    LUNG = 8
    LUNG_VESSEL = 9
    LIVER = 10
    HEPATIC_VESSEL = 11
    SPLEEN = 12
    PANCREAS = 13
    RENAL_CORTEX = 14
    RENAL_MEDULLA = 15
    BILE = 16
    BOWEL_WALL = 17
    BOWEL_FLUID = 18
    STOOL = 19
    GAS = 20
    CALCIFICATION = 21


@dataclass(frozen=True)
class Grid:
    """Voxels in millimetres, arrays in Z, Y, X order, centred on the body's origin."""

    shape: tuple[int, int, int]
    spacing_zyx: tuple[float, float, float]

    def axes(self) -> tuple[np.ndarray, ...]:
        """Voxel centres in mm along z, y and x, float32."""
        return tuple(
            ((np.arange(n) - (n - 1) / 2) * step).astype(np.float32)
            for n, step in zip(self.shape, self.spacing_zyx, strict=True)
        )

    def refined(self, factor: int) -> Grid:
        """The same field of view with `factor` times as many voxels along each axis."""
        return Grid(tuple(n * factor for n in self.shape), tuple(step / factor for step in self.spacing_zyx))

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) float64: voxel indices x, y, z (the array transposed) to RAS+ millimetres."""
        step_xyz = np.array(self.spacing_zyx[::-1], float)
        affine = np.diag([*step_xyz, 1.0])
        affine[:3, 3] = -(np.array(self.shape[::-1]) - 1) / 2 * step_xyz
        return affine


@dataclass(frozen=True)
class Anatomy:
    """A body on a grid. `organs`: 0, or 1 + index into ORGANS; `tissue`: `Tissue`; both (Z, Y, X) uint8.

    parts: name of a part of an organ, such as "pancreas head" -> (Z, Y, X) bool, where it is known.
    """

    grid: Grid
    organs: np.ndarray
    tissue: np.ndarray
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)

    def organ(self, name: str) -> np.ndarray:
        """(Z, Y, X) bool: where the organ is."""
        return self.organs == 1 + ORGANS.index(name)


def block_fraction(mask: np.ndarray, factor: int) -> np.ndarray:
    """Mean of each factor**3 block of a (Z, Y, X) array, float32: partial volume on the coarse grid."""
    z, y, x = (n // factor for n in mask.shape)
    return mask.reshape(z, factor, y, factor, x, factor).mean(axis=(1, 3, 5), dtype=np.float32)


def coarsen_labels(labels: np.ndarray, factor: int) -> np.ndarray:
    """The most frequent label of each factor**3 block, the lowest one in a tie, (Z, Y, X) of the input's dtype."""
    best = np.zeros(tuple(n // factor for n in labels.shape), np.float32)
    coarse = np.zeros(best.shape, labels.dtype)
    for label in np.flatnonzero(np.bincount(labels.ravel())):
        fraction = block_fraction(labels == label, factor)
        coarse[fraction > best] = label
        np.maximum(best, fraction, out=best)
    return coarse


def smooth_noise(grid: Grid, wavelength_mm: float, rng: np.random.Generator) -> np.ndarray:
    """A random field that varies over about `wavelength_mm`: mean 0, standard deviation 1, (Z, Y, X) float32.

    Drawn on a lattice of half a wavelength and interpolated: cheap on fine grids, and the same body at any spacing.
    """
    step = wavelength_mm / 2
    extent = [n * spacing for n, spacing in zip(grid.shape, grid.spacing_zyx, strict=True)]
    field = rng.standard_normal([int(e / step) + 2 for e in extent], dtype=np.float32)
    for axis, (n, spacing) in enumerate(zip(grid.shape, grid.spacing_zyx, strict=True)):
        position = np.arange(n) * (spacing / step)
        low = position.astype(int)
        weight = (position - low).astype(np.float32)
        weight = (weight * weight * (3 - 2 * weight)).reshape([-1 if a == axis else 1 for a in range(3)])
        field = field.take(low, axis) * (1 - weight) + field.take(low + 1, axis) * weight
    field -= field.mean()
    return field / max(float(field.std()), 1e-6)


def draw_anatomy(grid: Grid, rng: np.random.Generator, *, scale: float = 1.0) -> Anatomy:
    """One random person on `grid`, without lesions.

    scale: 1 is a body about 250 mm wide, of which the default field of view shows the lower chest and the abdomen.
    What lies outside the field of view is cut off.
    """
    body = _Body(_Canvas(grid, rng, scale=scale), rng)
    for part in (
        body.wall, body.spine, body.chest, body.liver, body.stomach, body.spleen, body.small_bowel, body.kidneys,
        body.great_vessels, body.mesentery, body.pancreas, body.colon, body.gallbladder,
    ):  # fmt: skip
        part()
    return Anatomy(grid, body.canvas.organs, body.canvas.tissue)


class _Canvas:
    """Draws solids on a grid whose coordinates are gently bent, so that no two people have the same outlines."""

    def __init__(self, grid: Grid, rng: np.random.Generator, *, scale: float, bend_mm: float = 2.5):
        self.axes = tuple(axis / scale for axis in grid.axes())
        z, y, x = self.axes
        self.z, self.y, self.x = (
            axis + bend_mm * smooth_noise(grid, 80.0 * scale, rng) for axis in (z[:, None, None], y[:, None], x)
        )
        self.reach = 3.5 * bend_mm
        self.organs = np.zeros(grid.shape, np.uint8)
        self.tissue = np.zeros(grid.shape, np.uint8)

    def box(self, low_xyz: Point, high_xyz: Point) -> Box:
        """Slices that hold every voxel between two corners, bending included."""
        return tuple(
            slice(*np.searchsorted(axis, (low - self.reach, high + self.reach)))
            for axis, low, high in zip(self.axes, low_xyz[::-1], high_xyz[::-1], strict=True)
        )

    def ellipsoid(self, centre_xyz: np.ndarray, radius_xyz: np.ndarray) -> tuple[Box, np.ndarray]:
        """A box, and in it the squared radius: below 1 is inside."""
        box = self.box(centre_xyz - radius_xyz, centre_xyz + radius_xyz)
        parts = zip((self.x, self.y, self.z), centre_xyz, radius_xyz, strict=True)
        return box, sum(((axis[box] - centre) / half) ** 2 for axis, centre, half in parts)

    def tube(self, path_xyz: np.ndarray, radius: float) -> tuple[Box, np.ndarray]:
        """A box, and in it the distance in mm to the polyline `path_xyz` (n, 3): right up to `radius`, inf far off."""
        box = self.box(path_xyz.min(0) - radius, path_xyz.max(0) + radius)
        squared = np.full(self.tissue[box].shape, np.inf, np.float32)
        for start, end in pairwise(path_xyz):
            part = self.box(np.minimum(start, end) - radius, np.maximum(start, end) + radius)
            local = tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(part, box, strict=True))
            offset = [axis[part] - s for axis, s in zip((self.x, self.y, self.z), start, strict=True)]
            along = end - start
            t = sum(o * a for o, a in zip(offset, along, strict=True)) / max(float(along @ along), 1e-6)
            t = np.clip(t, 0, 1)
            nearest = sum((o - t * a) ** 2 for o, a in zip(offset, along, strict=True))
            squared[local] = np.minimum(squared[local], nearest)
        return box, np.sqrt(squared)

    def paint(self, box: Box, where: np.ndarray, tissue: Tissue, organ: str | None = None) -> None:
        self.tissue[box][where] = tissue
        self.organs[box][where] = 0 if organ is None else 1 + ORGANS.index(organ)

    def stain(self, box: Box, where: np.ndarray, tissue: Tissue) -> None:
        """Change the tissue and leave the organ: a vessel in the liver is still liver."""
        self.tissue[box][where] = tissue


class _Body:
    """One person. The proportions are drawn once; each method adds a part, over those that came before."""

    def __init__(self, canvas: _Canvas, rng: np.random.Generator):
        self.canvas = canvas
        self.rng = rng
        self.all: Box = (slice(None),) * 3
        half_width, half_depth = rng.uniform(120, 130), rng.uniform(84, 94)
        self.fat, self.rim = rng.uniform(6, 14), rng.uniform(8, 11)
        self.side, self.back = (half - self.fat - self.rim for half in (half_width, half_depth))
        r = (np.abs(canvas.x / half_width) ** 2.4 + np.abs(canvas.y / half_depth) ** 2.4) ** (1 / 2.4)
        self.depth = np.hypot(canvas.x, canvas.y) * (1 / np.maximum(r, 1e-3) - 1)  # mm under the skin
        self.cavity = self.depth > self.fat + self.rim
        self.lung_base = rng.uniform(38, 48)

    def _at(self, *xyz: float, shift_mm: float = 3.0) -> np.ndarray:
        return np.array(xyz) + self.rng.uniform(-shift_mm, shift_mm, 3)

    def _size(self, *xyz: float, stretch: float = 0.08) -> np.ndarray:
        return np.array(xyz) * self.rng.uniform(1 - stretch, 1 + stretch, 3)

    def _curve(self, *points_xyz: Point, shift_mm: float = 3.0, n: int = 10) -> np.ndarray:
        """A smooth path near the points, (n, 3)."""
        points = np.array(points_xyz, float) + self.rng.uniform(-shift_mm, shift_mm, (len(points_xyz), 3))
        at, t = np.linspace(0, 1, n), np.linspace(0, 1, len(points))
        path = np.stack([np.interp(at, t, axis) for axis in points.T], -1)
        return ndimage.gaussian_filter1d(path, 0.7, axis=0, mode="nearest")

    def _solid(self, centre, radius, tissue: Tissue, organ: str | None = None, *, fat_mm: float = 0.0) -> None:
        """An ellipsoid in the cavity, in a layer of fat."""
        if fat_mm:
            box, r = self.canvas.ellipsoid(centre, radius + fat_mm)
            self.canvas.paint(box, (r < 1) & self.cavity[box], Tissue.FAT)
        box, r = self.canvas.ellipsoid(centre, radius)
        self.canvas.paint(box, (r < 1) & self.cavity[box], tissue, organ)

    def _tube(self, path, radius: float, tissue: Tissue, organ: str | None = None, *, fat_mm: float = 0.0) -> None:
        box, d = self.canvas.tube(path, radius + fat_mm)
        if fat_mm:
            self.canvas.paint(box, (d < radius + fat_mm) & self.cavity[box], Tissue.FAT)
        self.canvas.paint(box, (d < radius) & self.cavity[box], tissue, organ)

    def _vessel_in(self, path, radius: float, host: Tissue, vessel: Tissue) -> None:
        box, d = self.canvas.tube(path, radius)
        self.canvas.stain(box, (d < radius) & (self.canvas.tissue[box] == host), vessel)

    def wall(self) -> None:
        """Fat under the skin, a rim of muscle, ribs in it."""
        c, rim = self.canvas, self.depth - self.fat
        c.paint(self.all, self.depth > 0, Tissue.FAT)
        c.paint(self.all, (rim > 0) & ~self.cavity, Tissue.MUSCLE)
        slant = c.z + 0.4 * c.y
        ribs = (rim > 2) & ~self.cavity & (np.abs(c.x) > 18) & (slant > -25)
        c.paint(self.all, ribs & ((slant + self.rng.uniform(0, 26)) % 26 < 8), Tissue.BONE)

    def spine(self) -> None:
        c, phase = self.canvas, self.rng.uniform(0, 34)
        for side in (-1, 1):
            box, r = c.ellipsoid(np.array([side * 30, -self.back - 2, 0]), np.array([24, 15, 400]))
            c.paint(box, (r < 1) & (self.depth[box] > self.fat), Tissue.MUSCLE)
            box, r = c.ellipsoid(np.array([side * 28, 22 - self.back, -100]), np.array([14, 14, 85]))  # psoas
            c.paint(box, (r < 1) & self.cavity[box], Tissue.MUSCLE)
        spine = np.array([0, 20 - self.back, 0])
        box, r = c.ellipsoid(spine, np.array([19, 15, 1e4]))
        disc = (c.z[box] + phase) % 34 < 7
        c.paint(box, r < 1, Tissue.BONE)
        c.paint(box, r < 0.7, Tissue.MARROW)
        c.paint(box, (r < 1) & disc, Tissue.MUSCLE)
        box, r = c.ellipsoid(spine - [0, 26, 0], np.array([5, 13, 1e4]))
        c.paint(box, (r < 1) & ((c.z[box] + phase) % 34 > 14), Tissue.BONE)
        box, r = c.ellipsoid(spine - [0, 19, 0], np.array([8, 7, 1e4]))
        c.paint(box, r < 1, Tissue.MUSCLE)

    def chest(self) -> None:
        """Lungs above the domes of the diaphragm, vessels in them, the heart between."""
        c, rng = self.canvas, self.rng
        room = (self.depth > self.fat + self.rim + 1) & np.isin(c.tissue, (Tissue.FAT, Tissue.AIR))
        for name, side in (("right lung", 1), ("left lung", -1)):
            fall = ((c.x - side * 52) / 60) ** 2 + ((c.y - 8) / 62) ** 2
            dome = self.lung_base + 3 * side - 50 * np.clip(fall, 0, 1.2) ** 1.5
            c.paint(self.all, room & (c.z > dome) & (side * c.x > 14 - 0.1 * c.y), Tissue.LUNG, name)
            for _ in range(rng.integers(6, 10)):
                root = np.array([side * 22, rng.uniform(-25, 0), self.lung_base + rng.uniform(25, 60)])
                tip = np.array(
                    [side * rng.uniform(50, 95), rng.uniform(-55, 50), self.lung_base + rng.uniform(-30, 60)]
                )
                path = self._curve(root, (root + tip) / 2, tip, shift_mm=8, n=6)
                self._vessel_in(path, rng.uniform(1.8, 3.4), Tissue.LUNG, Tissue.LUNG_VESSEL)
        heart = self._at(-24, 24, self.lung_base + 48)
        self._solid(heart, self._size(44, 38, 42), Tissue.HEART, fat_mm=5)

    def liver(self) -> None:
        """The right lobe under the right dome, the left lobe across the midline, veins in both."""
        lobes = [
            (self._at(57, 4, self.lung_base - 37), self._size(52, 60, 47)),
            (self._at(52, -4, self.lung_base - 60), self._size(40, 48, 46)),
            (self._at(4, 38, self.lung_base - 22), self._size(54, 28, 26)),
        ]
        for centre, radius in lobes:
            box, r = self.canvas.ellipsoid(centre, radius)
            under = self.cavity[box] & (self.canvas.tissue[box] != Tissue.LUNG)
            under &= np.isin(self.canvas.tissue[box], (Tissue.FAT, Tissue.AIR, Tissue.LIVER))
            self.canvas.paint(box, (r < 1) & under, Tissue.LIVER, "liver")
        hilum = np.array([24, 6, self.lung_base - 40])
        for x, y, z in ((84, 30, -20), (80, -28, -28), (70, 8, -66), (-18, 44, -18), (60, 10, -8), (52, 36, -30)):
            tip = np.array([x, y, self.lung_base + z])
            path = self._curve(hilum, (hilum + tip) / 2, tip, shift_mm=7, n=7)
            self._vessel_in(path, self.rng.uniform(2.2, 4.2), Tissue.LIVER, Tissue.HEPATIC_VESSEL)

    def stomach(self) -> None:
        """Wall, fluid and a bubble of gas in front."""
        c, centre, radius = self.canvas, self._at(-46, 26, self.lung_base - 30), self._size(32, 30, 30, stretch=0.15)
        box, r = c.ellipsoid(centre, radius)
        free = (r < 1) & self.cavity[box] & np.isin(c.tissue[box], (Tissue.FAT, Tissue.AIR))
        c.paint(box, free, Tissue.BOWEL_WALL)
        gas = c.y[box] > centre[1] + self.rng.uniform(0.1, 0.7) * radius[1]
        c.paint(box, free & (r < 0.68), Tissue.BOWEL_FLUID)
        c.paint(box, free & (r < 0.68) & gas, Tissue.GAS)

    def spleen(self) -> None:
        self._solid_under_lung(self._at(-80, -28, self.lung_base - 36), self._size(24, 38, 36), Tissue.SPLEEN, "spleen")

    def _solid_under_lung(self, centre, radius, tissue: Tissue, organ: str) -> None:
        box, r = self.canvas.ellipsoid(centre, radius)
        where = (r < 1) & self.cavity[box] & (self.canvas.tissue[box] != Tissue.LUNG)
        self.canvas.paint(box, where, tissue, organ)

    def small_bowel(self) -> None:
        """Loops of unlabelled bowel with fluid or gas in them."""
        for _ in range(self.rng.integers(5, 8)):
            start = self.rng.uniform((-55, 0, -105), (55, 48, self.lung_base - 90))
            loop = self._curve(*start + np.array([(0, 0, 0), (22, 6, 8), (10, 14, -14), (-18, 2, -18)]), shift_mm=12)
            content = Tissue.GAS if self.rng.random() < 0.2 else Tissue.BOWEL_FLUID
            radius = self.rng.uniform(8, 11)
            self._tube(loop, radius, Tissue.BOWEL_WALL)
            self._tube(loop, radius - 3.5, content)

    def kidneys(self) -> None:
        """Cortex around medulla around fat, each kidney in a fat capsule."""
        for name, x, z in (("left kidney", -58, -86), ("right kidney", 58, -96)):
            centre, radius = self._at(x, 26 - self.back, self.lung_base + z), self._size(25, 23, 42)
            self._solid(centre, radius, Tissue.RENAL_CORTEX, name, fat_mm=5)
            for shift, shrink, tissue in ((0, 0.68, Tissue.RENAL_MEDULLA), (-10, 0.36, Tissue.FAT)):
                middle = centre + np.array([np.sign(x) * shift, 4 if shift else 0, 0])
                box, r = self.canvas.ellipsoid(middle, radius * shrink)
                self.canvas.stain(box, (r < 1) & (self.canvas.organs[box] == 1 + ORGANS.index(name)), tissue)

    def great_vessels(self) -> None:
        """Aorta, often with calcified plaques in its wall, and vena cava."""
        c, front = self.canvas, 38 - self.back
        aorta = self._curve((-9, front + 4, -120), (-8, front, 0), (-12, front - 4, 120), n=7)
        radius = self.rng.uniform(9, 11.5)
        self._tube(aorta, radius, Tissue.AORTA, "aorta", fat_mm=3)
        for _ in range(self.rng.integers(0, 6)):
            angle, up = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(-15, 15)
            at = aorta[self.rng.integers(1, len(aorta) - 1)]
            at = at + np.array([np.cos(angle) * radius, np.sin(angle) * radius, up])
            box, r = c.ellipsoid(at, self._size(3.5, 3.5, 6, stretch=0.3))
            c.stain(box, (r < 1) & (c.tissue[box] == Tissue.AORTA), Tissue.CALCIFICATION)
        cava = self._curve((16, front + 4, -120), (18, front + 6, -10), (20, front + 16, 60), n=7)
        self._tube(cava, self.rng.uniform(8, 11), Tissue.VESSEL)

    def mesentery(self) -> None:
        """Vessels that cross the fat: round bright spots on a slice that are no lesions."""
        front = 38 - self.back
        root = np.array([-4, front + 12, self.lung_base - 55])
        for x, y, z in ((-6, 26, -135), (6, 30, -135), (30, 34, -115), (-40, 30, -110), (-62, 6, -47), (40, 12, -59)):
            tip = np.array([x, y, self.lung_base + z])
            path = self._curve(root, (root + tip) / 2, tip, shift_mm=7)
            self._tube(path, self.rng.uniform(2.5, 5), Tissue.VESSEL)

    def pancreas(self) -> None:
        """Head beside the duodenum, body across the spine, tail at the spleen."""
        z = self.lung_base - 66
        path = self._curve((32, 4, z - 16), (26, 8, z), (4, 18, z + 6), (-26, 12, z + 12), (-60, -10, z + 20), n=12)
        for start, end, radius in ((0, 5, 14.5), (4, 9, 12), (8, 12, 11)):
            self._tube(path[start:end], radius * self.rng.uniform(0.92, 1.08), Tissue.FAT)
        for start, end, radius in ((0, 5, 13), (4, 9, 11), (8, 12, 10)):
            self._tube(path[start:end], radius * self.rng.uniform(0.92, 1.08), Tissue.PANCREAS, "pancreas")

    def colon(self) -> None:
        """A frame of three parts, filled with stool and gas."""
        c, x, z = self.canvas, self.side - 20, self.lung_base
        path = self._curve(
            (x, -12, -115), (x, -8, z - 120), (x - 2, 4, z - 92), (52, 42, z - 92), (0, 54, z - 98),
            (-50, 44, z - 84), (3 - x, 10, z - 62), (-x, -14, z - 90), (-x, -12, -115), n=26,
        )  # fmt: skip
        radius = self.rng.uniform(14, 17)
        self._tube(path, radius, Tissue.BOWEL_WALL, "colon", fat_mm=2)
        box, d = c.tube(path, radius - 4.5)
        lumen = (d < radius - 4.5) & (c.organs[box] == 1 + ORGANS.index("colon"))
        c.stain(box, lumen, Tissue.STOOL)
        grid = Grid(d.shape, tuple(float(np.diff(axis).mean()) for axis in c.axes))
        bubbles = smooth_noise(grid, 16.0, self.rng) + 0.4 * smooth_noise(grid, 90.0, self.rng)
        c.stain(box, lumen & (bubbles > self.rng.uniform(0.1, 1.0)), Tissue.GAS)

    def gallbladder(self) -> None:
        centre, radius = self._at(36, 38, self.lung_base - 66), self._size(14, 20, 17, stretch=0.12)
        self._solid(centre, radius, Tissue.BOWEL_WALL, "gallbladder")
        self._solid(centre, radius - 2, Tissue.BILE, "gallbladder")

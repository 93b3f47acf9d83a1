"""Label maps and attributes to CT: Hounsfield values of tissues, lesions as their attributes say, the scanner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from nnunetv2_malenia.phantom import lesions as words
from nnunetv2_malenia.phantom.anatomy import Anatomy, Grid, Tissue, block_fraction, smooth_noise
from nnunetv2_malenia.phantom.placement import Lesion

# tissue: mean HU without contrast, mean HU with contrast (portal venous), spread between people, texture within
_HOUNSFIELD: Mapping[Tissue, tuple[float, float, float, float]] = MappingProxyType(
    {
        Tissue.AIR: (-1000, -1000, 0, 0),
        Tissue.FAT: (-105, -102, 4, 5),
        Tissue.MUSCLE: (54, 62, 4, 4),
        Tissue.BONE: (420, 430, 60, 40),
        Tissue.MARROW: (170, 180, 40, 25),
        Tissue.HEART: (42, 125, 8, 4),
        Tissue.VESSEL: (42, 148, 10, 2),
        Tissue.AORTA: (43, 165, 14, 2),
        Tissue.LUNG: (-835, -825, 20, 25),
        Tissue.LUNG_VESSEL: (40, 110, 10, 2),
        Tissue.LIVER: (57, 108, 5, 4),
        Tissue.HEPATIC_VESSEL: (42, 145, 8, 2),
        Tissue.SPLEEN: (48, 120, 5, 4),
        Tissue.PANCREAS: (42, 96, 5, 6),
        Tissue.RENAL_CORTEX: (33, 185, 10, 3),
        Tissue.RENAL_MEDULLA: (31, 150, 10, 3),
        Tissue.BILE: (8, 9, 4, 2),
        Tissue.BOWEL_WALL: (38, 78, 6, 4),
        Tissue.BOWEL_FLUID: (15, 16, 8, 6),
        Tissue.STOOL: (35, 38, 12, 40),
        Tissue.GAS: (-930, -930, 20, 0),
        Tissue.CALCIFICATION: (700, 750, 120, 60),
    }
)
_PARENCHYMA: Mapping[str, tuple[Tissue, ...]] = MappingProxyType(
    {
        "liver": (Tissue.LIVER,),
        "pancreas": (Tissue.PANCREAS,),
        "left kidney": (Tissue.RENAL_CORTEX, Tissue.RENAL_MEDULLA),
        "right kidney": (Tissue.RENAL_CORTEX, Tissue.RENAL_MEDULLA),
        "left lung": (Tissue.LUNG,),
        "right lung": (Tissue.LUNG,),
        "colon": (Tissue.BOWEL_WALL,),
        "gallbladder": (Tissue.BOWEL_WALL,),
        "spleen": (Tissue.SPLEEN,),
    }
)
# density that does not depend on the organ -> range of HU without contrast, and with
_ABSOLUTE_HU: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = MappingProxyType(
    {
        words.FLUID: ((2, 15), (2, 15)),
        words.CALCIFIC: ((400, 1000), (400, 1000)),
        words.SOFT: ((30, 50), (60, 95)),
        words.BLOODY: ((52, 70), (52, 70)),
        words.FATTY: ((-105, -80), (-105, -80)),
        words.GASEOUS: ((-960, -900), (-960, -900)),
        words.GROUND_GLASS: ((-640, -520), (-640, -520)),
        words.MIXED: ((-640, -520), (-640, -520)),  # around a core of soft tissue
    }
)
# specific feature that is an area inside the lesion -> its HU, absolute or against the rest of the lesion
_AREAS: Mapping[str, tuple[float, bool]] = MappingProxyType(
    {
        words.DARK_AREAS: (-40, False),
        words.BRIGHT_AREAS: (55, False),
        words.CYSTIC: (8, True),
        words.BLEEDING: (65, True),
        words.FAT_INSIDE: (-90, True),
        words.GAS_INSIDE: (-900, True),
    }
)
DRAWN_DENSITIES = (words.HYPO, words.ISO, words.HYPER, *_ABSOLUTE_HU)
DRAWN_FEATURES = (
    words.CALCIFICATION, words.NECROSIS, words.SEPTATION, words.CAVITY, words.RIM, words.THICK_WALL, words.WALL,
    words.SPICULATION, words.CAPSULE, words.MURAL_NODULE, words.THIN_WALL, words.PANCREATIC_DUCT, words.BILE_DUCTS,
    *_AREAS,
)  # fmt: skip


@dataclass(frozen=True)
class Scanner:
    """What the scanner adds: blur of the kernel (sigma, mm), noise (standard deviation, HU; grain: sigma, voxels).

    supersampling: the image's voxels are averages of this many voxels of the anatomy along each axis.
    slice_thickness_mm: of the slice profile, where slices are thicker than the anatomy's voxels; 0: no thicker.
    """

    supersampling: int = 2
    blur_mm: float = 1.6
    noise_hu: tuple[float, float] = (6.0, 13.0)
    noise_grain: float = 0.45
    slice_thickness_mm: float = 0.0

    def sigma(self, grid: Grid) -> list[float]:
        """Blur along z, y and x in voxels; of the slice profile, a box, the standard deviation counts."""
        z, y, x = grid.spacing_zyx
        along = (
            float(np.hypot(self.blur_mm, self.slice_thickness_mm / 12**0.5))
            if self.slice_thickness_mm
            else self.blur_mm
        )
        return [along / z, self.blur_mm / y, self.blur_mm / x]


# reconstruction kernels at the voxel size of real label maps: the sharper, the more and the finer the noise
KERNELS: Mapping[str, Scanner] = MappingProxyType(
    {
        "soft": Scanner(supersampling=1, blur_mm=0.9, noise_hu=(7.0, 11.0), noise_grain=0.9),
        "standard": Scanner(supersampling=1, blur_mm=0.7, noise_hu=(11.0, 17.0), noise_grain=0.7),
        "sharp": Scanner(supersampling=1, blur_mm=0.45, noise_hu=(28.0, 45.0), noise_grain=0.4),
    }
)


def render(
    anatomy: Anatomy, lesions: Sequence[Lesion], phase: str, scanner: Scanner, rng: np.random.Generator
) -> np.ndarray:
    """CT of an anatomy with lesions: (Z, Y, X) float32 HU, coarser than the anatomy by `scanner.supersampling`.

    phase: NON_CONTRAST or ENHANCED, for the whole scan.
    """
    hounsfield, texture = _draw_hounsfield(phase, rng)
    image = hounsfield[anatomy.tissue]
    image += texture[anatomy.tissue] * smooth_noise(anatomy.grid, 22.0, rng)
    for lesion in lesions:
        tissues = _PARENCHYMA.get(lesion.organ, (Tissue.MUSCLE,))
        parenchyma = float(np.mean([hounsfield[tissue] for tissue in tissues]))
        _add_lesion(image, lesion, parenchyma, phase, anatomy.grid, rng)
    image = ndimage.gaussian_filter(image, scanner.sigma(anatomy.grid), truncate=3.0)
    image = block_fraction(image, scanner.supersampling)
    noise = ndimage.gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), scanner.noise_grain)
    image += noise * (rng.uniform(*scanner.noise_hu) / float(noise.std()))
    return np.clip(image, -1024, 3071)


def _draw_hounsfield(phase: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """This person's HU and texture by tissue, each (number of tissues,) float32."""
    enhanced = phase == words.ENHANCED
    values, textures = np.zeros((2, len(Tissue)), np.float32)
    strength = rng.uniform(0.85, 1.15)  # of the contrast agent
    for tissue, (plain, bright, spread, within) in _HOUNSFIELD.items():
        gain = strength * (bright - plain) if enhanced else 0.0
        values[tissue] = plain + gain + spread * np.clip(rng.standard_normal(), -2, 2)
        textures[tissue] = within
    return values, textures


def _ramp(x: np.ndarray) -> np.ndarray:
    """Smooth step from 0 at x <= 0 to 1 at x >= 1."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


class Layers(NamedTuple):
    """A lesion to be blended into an image, on its own grid.

    coverage: part of each voxel that the lesion replaces, 0 to 1. interior: HU of what replaces it. spikes: voxels that
    its spicules fill, bool, or None; base: their HU.
    """

    coverage: np.ndarray
    interior: np.ndarray
    spikes: np.ndarray | None
    base: float


def _add_lesion(
    image: np.ndarray, lesion: Lesion, parenchyma: float, phase: str, grid: Grid, rng: np.random.Generator
) -> None:
    """Blend one lesion into the image, in place."""
    layers = lesion_layers(lesion, parenchyma, phase, Grid(lesion.depth_mm.shape, grid.spacing_zyx), rng)
    view = image[lesion.box]
    view += layers.coverage * (layers.interior - view)
    if layers.spikes is not None:
        view[layers.spikes] = layers.base


def lesion_layers(lesion: Lesion, parenchyma: float, phase: str, grid: Grid, rng: np.random.Generator) -> Layers:
    """What a lesion puts into an image: density, variation, border and specific features as its attributes say.

    parenchyma: HU of the organ around it, which relative densities refer to. grid: of `lesion.depth_mm`.
    """
    base = _base_hu(lesion, parenchyma, phase, rng)
    interior = np.full(grid.shape, base, np.float32)
    if lesion.attributes["density_variation"][0] == words.HETEROGENEOUS:
        spread = rng.uniform(14, 20) if lesion.attributes["density"][0] == words.FLUID else rng.uniform(26, 38)
        texture = smooth_noise(grid, max(0.8 * lesion.radius_mm, 9.0), rng)
        inside = texture[lesion.mask]
        interior += spread / max(float(inside.std()), 0.2) * (texture - inside.mean())
    else:
        interior += 2 * smooth_noise(grid, 12.0, rng)
    _add_features(interior, lesion, base, phase, grid, rng)
    coverage = _coverage(lesion, grid, rng)
    spikes = None
    if words.SPICULATION in lesion.attributes["specific_features"]:
        spikes = _rays(lesion, grid, rng) & lesion.allowed & (lesion.depth_mm <= 0)
    return Layers(coverage, interior, spikes, base)


def _base_hu(lesion: Lesion, parenchyma: float, phase: str, rng: np.random.Generator) -> float:
    """Mean HU of a lesion from its density, absolute or against the organ's parenchyma."""
    density = lesion.attributes["density"][0]
    enhanced = phase == words.ENHANCED
    if density == words.ISO:
        return parenchyma + rng.uniform(-4, 4)
    if density in _ABSOLUTE_HU:
        return rng.uniform(*_ABSOLUTE_HU[density][enhanced])
    in_lung = parenchyma < -500
    if density == words.HYPO:
        if in_lung:
            return max(parenchyma - rng.uniform(60, 100), -980)
        return max(parenchyma - (rng.uniform(40, 70) if enhanced else rng.uniform(28, 42)), rng.uniform(6, 14))
    if in_lung:
        return rng.uniform(50, 90) if enhanced else rng.uniform(20, 50)
    return parenchyma + (rng.uniform(45, 80) if enhanced else rng.uniform(32, 55))


def _coverage(lesion: Lesion, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Part of each voxel that the lesion replaces, 0 to 1: a step at a sharp edge, 18 mm of slope at a blurred one."""
    if lesion.attributes["surface"][0] == words.WELL:
        return lesion.allowed * np.clip(0.5 + lesion.depth_mm / 1.6, 0, 1)
    width = min(9.0, 0.85 * lesion.radius_mm)
    ragged = 2.0 * smooth_noise(grid, 10.0, rng)
    return lesion.allowed * _ramp(0.5 + (lesion.depth_mm + ragged) / (2 * width))


def _add_features(
    interior: np.ndarray, lesion: Lesion, base: float, phase: str, grid: Grid, rng: np.random.Generator
) -> None:
    """Draw what the specific features name into the lesion's interior, in place."""
    features, depth, radius = lesion.attributes["specific_features"], lesion.depth_mm, lesion.radius_mm
    bright = rng.uniform(50, 75) if phase == words.ENHANCED else rng.uniform(32, 48)
    if words.NECROSIS in features:
        core = _ramp((depth / radius - 0.25) / 0.25)
        interior += core * (min(base - 25, 18) - interior)
    if words.CAVITY in features:
        interior += _ramp((depth - max(3.0, 0.3 * radius)) / 1.5) * (-940 - interior)
    if words.RIM in features or words.THICK_WALL in features:
        interior[depth < max(3.0, 0.2 * radius)] += bright
    if words.SEPTATION in features:
        for plane in _planes(lesion, grid, rng):
            interior[np.abs(plane) < 2.0] += bright
    if words.CALCIFICATION in features:
        for distance in _specks(lesion, grid, rng):
            interior[distance < np.clip(0.2 * radius, 2.1, 3.5)] = rng.uniform(450, 750)
    if words.CAPSULE in features or words.THIN_WALL in features:
        thin = 0.6 * min(grid.spacing_zyx)  # the outermost voxels, where these are larger than the wall
        interior[depth < max(thin, 1.2 if words.THIN_WALL in features else 2.0)] += 0.6 * bright
    if words.MURAL_NODULE in features:
        interior[_nodule(lesion, grid, rng)] = max(base, 20.0) + bright
    if lesion.attributes["density"][0] == words.MIXED:
        interior += _ramp((depth - 0.35 * radius) / 2) * (35 - interior)
    for feature, (hounsfield, absolute) in _AREAS.items():
        if feature in features:
            interior[_area(lesion, grid, rng)] = hounsfield if absolute else base + hounsfield


def _offsets(grid: Grid, centre_zyx: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Open grids of the distance to a voxel of the box, in mm."""
    z, y, x = ((np.arange(n) - c) * s for n, c, s in zip(grid.shape, centre_zyx, grid.spacing_zyx, strict=True))
    return z[:, None, None], y[:, None], x


def _deepest(lesion: Lesion) -> np.ndarray:
    """Voxel of the box that is farthest from the lesion's surface."""
    depth = np.where(lesion.allowed, lesion.depth_mm, -np.inf)
    return np.array(np.unravel_index(depth.argmax(), depth.shape))


def _planes(lesion: Lesion, grid: Grid, rng: np.random.Generator) -> list[np.ndarray]:
    """Signed distances in mm to one to three planes across the lesion."""
    z, y, x = _offsets(grid, _deepest(lesion))
    planes = []
    for _ in range(rng.integers(1, 4)):
        normal = rng.standard_normal(3)
        normal /= np.linalg.norm(normal)
        planes.append(normal[0] * z + normal[1] * y + normal[2] * x - rng.uniform(-0.35, 0.35) * lesion.radius_mm)
    return planes


def _specks(lesion: Lesion, grid: Grid, rng: np.random.Generator) -> list[np.ndarray]:
    """Distances in mm to two or three points in the lesion."""
    inside = np.argwhere(lesion.mask & (lesion.depth_mm > 0.25 * lesion.radius_mm))
    if not len(inside):
        inside = _deepest(lesion)[None]
    points = inside[rng.integers(len(inside), size=rng.integers(2, 4))]
    return [np.sqrt(z**2 + y**2 + x**2) for z, y, x in (_offsets(grid, point) for point in points)]


def _nodule(lesion: Lesion, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """(z, y, x) bool: a ball of a third of the lesion's radius that sits on the inside of its wall."""
    points = np.argwhere(lesion.mask & (np.abs(lesion.depth_mm - 0.3 * lesion.radius_mm) < 1.5))
    point = points[rng.integers(len(points))] if len(points) else _deepest(lesion)
    z, y, x = _offsets(grid, point)
    return z**2 + y**2 + x**2 < max(0.33 * lesion.radius_mm, 2.5) ** 2


def _area(lesion: Lesion, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """(z, y, x) bool: patches that make up a quarter of the lesion, away from its surface."""
    field = smooth_noise(grid, max(0.9 * lesion.radius_mm, 6.0), rng)
    inner = lesion.mask & (lesion.depth_mm > min(2.0, 0.2 * lesion.radius_mm))
    if not inner.any():
        return lesion.mask
    return inner & (field > np.quantile(field[inner], 0.7))


def _rays(lesion: Lesion, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """(z, y, x) bool: thin spikes that leave the lesion in all directions."""
    z, y, x = _offsets(grid, _deepest(lesion))
    rays = np.zeros(grid.shape, bool)
    for _ in range(rng.integers(11, 17)):
        way = rng.standard_normal(3)
        way /= np.linalg.norm(way)
        along = way[0] * z + way[1] * y + way[2] * x
        aside = np.sqrt(np.maximum(z**2 + y**2 + x**2 - along**2, 0))
        end = lesion.radius_mm + rng.uniform(7, 12)
        rays |= (along > 0) & (along < end) & (aside < 3.6 * (1 - 0.6 * along / end))
    return rays

"""Label maps and attributes to CT: Hounsfield values of tissues, lesions as their attributes say, the scanner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy import ndimage

from nnunetv2_malenia.phantom import lesions as words
from nnunetv2_malenia.phantom.anatomy import Anatomy, Grid, Tissue, block_fraction, smooth_noise
from nnunetv2_malenia.phantom.lesions import Lesion

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
    }
)


@dataclass(frozen=True)
class Scanner:
    """What the scanner adds: blur of the kernel (sigma, mm), noise (standard deviation, HU), voxel averaging."""

    supersampling: int = 2
    blur_mm: float = 1.6
    noise_hu: tuple[float, float] = (6.0, 13.0)


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
        parenchyma = float(np.mean([hounsfield[tissue] for tissue in _PARENCHYMA[lesion.organ]]))
        _add_lesion(image, lesion, parenchyma, phase, anatomy.grid, rng)
    sigma = [scanner.blur_mm / step for step in anatomy.grid.spacing_zyx]
    image = block_fraction(ndimage.gaussian_filter(image, sigma, truncate=3.0), scanner.supersampling)
    noise = ndimage.gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), 0.45)
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


def _add_lesion(
    image: np.ndarray, lesion: Lesion, parenchyma: float, phase: str, grid: Grid, rng: np.random.Generator
) -> None:
    """Blend one lesion into the image, in place."""
    local = Grid(lesion.depth_mm.shape, grid.spacing_zyx)
    base = _base_hu(lesion, parenchyma, phase, rng)
    interior = np.full(local.shape, base, np.float32)
    if lesion.attributes["density_variation"][0] == words.HETEROGENEOUS:
        spread = rng.uniform(14, 20) if lesion.attributes["density"][0] == words.FLUID else rng.uniform(26, 38)
        texture = smooth_noise(local, max(0.8 * lesion.radius_mm, 9.0), rng)
        inside = texture[lesion.mask]
        interior += spread / max(float(inside.std()), 0.2) * (texture - inside.mean())
    else:
        interior += 2 * smooth_noise(local, 12.0, rng)
    _add_features(interior, lesion, base, phase, local, rng)
    view = image[lesion.box]
    coverage = _coverage(lesion, local, rng)
    view += coverage * (interior - view)
    if words.SPICULATION in lesion.attributes["specific_features"]:
        rays = _rays(lesion, local, rng) & lesion.allowed & (lesion.depth_mm <= 0)
        view[rays] = base


def _base_hu(lesion: Lesion, parenchyma: float, phase: str, rng: np.random.Generator) -> float:
    """Mean HU of a lesion from its density against the organ's parenchyma."""
    density = lesion.attributes["density"][0]
    enhanced = phase == words.ENHANCED
    if density == words.ISO:
        return parenchyma + rng.uniform(-4, 4)
    if density == words.FLUID:
        return rng.uniform(2, 15)
    if density == words.CALCIFIC:
        return rng.uniform(400, 1000)
    if density == words.HYPO:
        return max(parenchyma - (rng.uniform(40, 70) if enhanced else rng.uniform(28, 42)), rng.uniform(6, 14))
    if parenchyma < -500:
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

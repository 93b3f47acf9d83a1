"""Lesion types of the phantom: which attributes each one can take, and where such a lesion lies in a given anatomy.

Attributes are drawn once per case and lesion type, so that a case's attribute set holds for every lesion of that type.
Shape, place and contact are decided here; density, texture, border and details are left to `rendering`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from scipy import ndimage

from nnunetv2_malenia.attributes.schema import ASPECTS
from nnunetv2_malenia.phantom.anatomy import ORGANS, Anatomy, Box, Grid, Tissue, smooth_noise

Attributes: TypeAlias = Mapping[str, tuple[str, ...]]

NON_CONTRAST, ENHANCED = "non-contrast ct", "contrast-enhanced ct"
ROUND, IRREGULAR = "round-like", "irregular"
HYPO, ISO, HYPER, FLUID, CALCIFIC = "hypodense", "isodense", "hyperdense", "fluid density", "calcific density"
HOMOGENEOUS, HETEROGENEOUS = "homogeneous", "heterogeneous"
WELL, ILL = "well-defined", "ill-defined"
APART = "no close relationship with surrounding organs"
CLOSE = "close relationship with surrounding organs"
TO_VESSELS = "close relationship with vessels"
CALCIFICATION, NECROSIS, SEPTATION, CAVITY = "calcification", "necrosis", "septation", "cavity"
RIM, THICK_WALL, WALL, SPICULATION = "rim enhancement", "thick wall", "wall thickening", "spiculation"


@dataclass(frozen=True)
class Picture:
    """One way in which a lesion type can look: per aspect the values it may take, independently of the other aspects.

    The specific feature None is a lesion without any: the aspect is then unspecified.
    """

    density: tuple[str, ...]
    density_variation: tuple[str, ...] = (HOMOGENEOUS, HETEROGENEOUS)
    shape: tuple[str, ...] = (ROUND, IRREGULAR)
    surface: tuple[str, ...] = (WELL, ILL)
    relationship: tuple[str, ...] = (APART, CLOSE)
    specific_features: tuple[str | None, ...] = (None,)
    enhancement: tuple[str, ...] = (NON_CONTRAST, ENHANCED)


@dataclass(frozen=True)
class LesionType:
    """Where a lesion type arises, how large it is, and its pictures, of which each case draws one."""

    locations: tuple[str, ...]
    diameter_mm: tuple[float, float]
    pictures: tuple[Picture, ...]

    def alternatives(self, aspect: str) -> tuple[str, ...]:
        """Every value of an aspect that this type can take in the phantom, in order of first use."""
        if aspect == "location":
            return self.locations
        values = dict.fromkeys(value for picture in self.pictures for value in getattr(picture, aspect))
        return tuple(value for value in values if value is not None)

    @property
    def always_stated(self) -> tuple[str, ...]:
        """The aspects that every lesion of this type has a value for."""
        optional = any(None in picture.specific_features for picture in self.pictures)
        return tuple(aspect for aspect in ASPECTS if not (optional and aspect == "specific_features"))


_HET = (HETEROGENEOUS,)
_KIDNEYS = ("left kidney", "right kidney")
_SIMPLE_CYST = Picture((FLUID,), (HOMOGENEOUS,), (ROUND,), (WELL,))
_SEPTATED_CYST = Picture((FLUID,), _HET, surface=(WELL,), specific_features=(SEPTATION,))
_NECROTIC = Picture((HYPO,), _HET, specific_features=(NECROSIS,))
_PARTLY_CALCIFIED = Picture((HYPO, ISO, HYPER), _HET, specific_features=(CALCIFICATION,))
_CALCIFIED = Picture((CALCIFIC,), (HOMOGENEOUS,), surface=(WELL,), relationship=(APART,))
# an isodense lesion needs something else to be seen by
_SOLID = (Picture((HYPO, HYPER)), Picture((ISO,), _HET))
_RIMMED = Picture((HYPO, ISO), surface=(WELL,), specific_features=(RIM,), enhancement=(ENHANCED,))

LESION_TYPES: Mapping[str, LesionType] = MappingProxyType(
    {
        "colon tumor": LesionType(
            ("colon",),
            (20, 40),
            (
                Picture((ISO, HYPER), shape=(IRREGULAR,), specific_features=(WALL,)),
                Picture((HYPO, ISO, HYPER)),
                Picture((FLUID,), _HET, specific_features=(None, CALCIFICATION)),  # mucinous
                _NECROTIC,
                _PARTLY_CALCIFIED,
            ),
        ),
        "pancreas tumor": LesionType(
            ("pancreas",), (16, 38), (*_SOLID, _RIMMED, _NECROTIC, _PARTLY_CALCIFIED, _CALCIFIED)
        ),
        "liver tumor": LesionType(("liver",), (16, 45), (*_SOLID, _RIMMED, _NECROTIC, _PARTLY_CALCIFIED, _CALCIFIED)),
        "lung tumor": LesionType(
            ("left lung", "right lung"),
            (14, 42),
            (
                Picture((HYPER,)),
                Picture((HYPER,), shape=(IRREGULAR,), specific_features=(SPICULATION,)),
                Picture((HYPER,), _HET, specific_features=(CAVITY, NECROSIS, CALCIFICATION)),
                Picture((FLUID,), specific_features=(None, THICK_WALL)),
                _CALCIFIED,
            ),
        ),
        "kidney cyst": LesionType(
            _KIDNEYS,
            (16, 40),
            (
                _SIMPLE_CYST,
                _SEPTATED_CYST,
                Picture((HYPER,), (HOMOGENEOUS,), (ROUND,), (WELL,), enhancement=(NON_CONTRAST,)),  # haemorrhagic
                Picture((FLUID,), _HET, (ROUND,), specific_features=(CALCIFICATION, THICK_WALL)),
            ),
        ),
        "kidney tumor": LesionType(_KIDNEYS, (18, 45), (*_SOLID, _RIMMED, _NECROTIC, _PARTLY_CALCIFIED)),
        "liver cyst": LesionType(("liver",), (14, 45), (_SIMPLE_CYST, _SEPTATED_CYST)),
        "pancreas cyst": LesionType(
            ("pancreas",),
            (14, 36),
            (
                _SIMPLE_CYST,
                _SEPTATED_CYST,
                Picture((FLUID,), _HET, surface=(WELL,), specific_features=(CALCIFICATION, THICK_WALL)),
            ),
        ),
        "kidney stone": LesionType(_KIDNEYS, (9, 18), (_CALCIFIED,)),
        "hepatic vessel tumor": LesionType(
            ("hepatic vessels",),
            (16, 38),
            (Picture((HYPO,), relationship=(TO_VESSELS,)), Picture((ISO,), _HET, relationship=(TO_VESSELS,))),
        ),
        "gallbladder tumor": LesionType(
            ("gallbladder",),
            (14, 30),
            (Picture((ISO, HYPER), shape=(IRREGULAR,), specific_features=(WALL,)), Picture((ISO, HYPER)), _NECROTIC),
        ),
    }
)


@dataclass(frozen=True)
class Lesion:
    """One lesion in an anatomy.

    depth_mm: depth under the lesion's surface in `box` of the anatomy's grid, negative outside, (z, y, x) float32.
    allowed: the voxels of `box` that the lesion may replace, bool.
    """

    type_name: str
    attributes: Attributes
    organ: str
    radius_mm: float
    box: Box
    depth_mm: np.ndarray
    allowed: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """(z, y, x) bool in `box`: where the lesion is."""
        return (self.depth_mm > 0) & self.allowed


def draw_attributes(type_name: str, phase: str, rng: np.random.Generator) -> Attributes:
    """One attribute set of a lesion type in a scan of the given phase: per aspect one value, or none: unspecified.

    Raises ValueError for a type that the phantom cannot draw.
    """
    kind = lesion_type(type_name)
    pictures = [picture for picture in kind.pictures if phase in picture.enhancement]
    picture = pictures[rng.integers(len(pictures))]

    chosen = {}
    for aspect in ASPECTS:
        values = kind.locations if aspect == "location" else getattr(picture, aspect)
        value = phase if aspect == "enhancement" else values[rng.integers(len(values))]
        chosen[aspect] = () if value is None else (value,)
    return chosen


def draw_distinct_attributes(
    type_names: Sequence[str], phase: str, rng: np.random.Generator, *, attempts: int = 20
) -> list[tuple[str, Attributes]]:
    """Attributes of each type of a case, such that no two types have location and density in common if avoidable.

    Otherwise a description could fit the lesions of another type just as well.
    """
    chosen: list[tuple[str, Attributes]] = []
    taken: set[tuple[str, ...]] = set()
    for name in type_names:
        for _ in range(attempts):
            attributes = draw_attributes(name, phase, rng)
            key = (*attributes["location"], *attributes["density"])
            if key not in taken:
                break
        taken.add(key)
        chosen.append((name, attributes))
    return chosen


def lesion_type(type_name: str) -> LesionType:
    """The phantom's description of a lesion type. Raises ValueError, naming the known ones, if there is none."""
    try:
        return LESION_TYPES[type_name]
    except KeyError:
        known = ", ".join(LESION_TYPES)
        raise ValueError(f"the phantom cannot draw {type_name!r}; choose from: {known}") from None


def place_lesions(
    anatomy: Anatomy,
    wanted: Sequence[tuple[str, Attributes]],
    rng: np.random.Generator,
    *,
    size: float = 1.0,
    repeat: float = 0.4,
) -> list[Lesion]:
    """Put each wanted lesion type into the anatomy at least once, and a second time with probability `repeat`.

    size: factor on the diameters of all lesion types. First lesions shrink until they fit beside the others; a second
    one that finds no room is left out.
    Raises ValueError if a lesion's organ is outside the field of view.
    """
    sites = _Sites(anatomy, size)
    lesions = [sites.place(name, attributes, rng) for name, attributes in wanted]
    for name, attributes in wanted:
        if rng.random() < repeat and (second := sites.place(name, attributes, rng, optional=True)):
            lesions.append(second)
    return lesions


@dataclass(frozen=True)
class _Host:
    """How lesions sit in an organ. `embedded`: least depth of the centre, in radii, of a lesion that is apart."""

    organ: str
    embedded: float
    bulges: bool = True
    only_in: tuple[Tissue, ...] = ()


_HOSTS: Mapping[str, _Host] = MappingProxyType(
    {
        "colon": _Host("colon", 0.0, only_in=(Tissue.BOWEL_WALL,)),
        "pancreas": _Host("pancreas", 0.0),
        "liver": _Host("liver", 0.8, bulges=False),
        "left lung": _Host("left lung", 1.0, bulges=False),
        "right lung": _Host("right lung", 1.0, bulges=False),
        "left kidney": _Host("left kidney", 0.3),
        "right kidney": _Host("right kidney", 0.3),
        "hepatic vessels": _Host("liver", 0.4, bulges=False, only_in=(Tissue.HEPATIC_VESSEL,)),
        "gallbladder": _Host("gallbladder", 0.0, only_in=(Tissue.BOWEL_WALL,)),
    }
)
_YIELDING = (Tissue.FAT, Tissue.VESSEL)  # tissue that a lesion displaces without coming close to an organ
_HARD = (Tissue.AIR, Tissue.BONE, Tissue.MARROW, Tissue.AORTA, Tissue.CALCIFICATION)
_THINNING = 2
_SMALLEST_RADIUS_MM = 5.0
_CONTACT_MM = 5.0  # how far a close lesion grows into the next organ
_LARGEST_CALCIFIED_MM = 26.0
_ATTEMPTS = 6


class _Sites:
    """Where the next lesion can go: distances in each organ, on a thinned-out grid, and the places already taken."""

    def __init__(self, anatomy: Anatomy, size: float):
        self.anatomy = anatomy
        self.size = size
        self.axes = anatomy.grid.axes()
        self.thin = tuple(slice(None, None, _THINNING) for _ in range(3))
        self.spacing = tuple(step * _THINNING for step in anatomy.grid.spacing_zyx)
        self.taken: list[tuple[np.ndarray, float]] = []
        self.distances: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def place(
        self, type_name: str, attributes: Attributes, rng: np.random.Generator, *, optional: bool = False
    ) -> Lesion | None:
        """A lesion with these attributes that touches no earlier one; None if it is optional and there is no room."""
        kind = lesion_type(type_name)
        host = _HOSTS[attributes["location"][0]]
        points, depth, clearance = self._candidates(attributes["location"][0])
        apart = attributes["relationship"][0] != CLOSE
        smallest_mm, largest_mm = kind.diameter_mm
        if attributes["density"][0] == CALCIFIC:
            largest_mm = min(largest_mm, _LARGEST_CALCIFIED_MM)
        radius = self.size * rng.uniform(smallest_mm, largest_mm) / 2
        smallest = min(_SMALLEST_RADIUS_MM, smallest_mm / 2)
        room = np.min([np.linalg.norm(points - c, axis=1) - r - 5 for c, r in self.taken] or [np.inf], axis=0)
        while True:
            if apart:
                misfit = np.maximum(radius + 3 - clearance, 0) + np.maximum(host.embedded * radius - depth, 0)
            else:
                misfit = np.maximum(np.abs(clearance - 0.45 * radius) - 0.25 * radius, 0)
            misfit = misfit + 3 * np.maximum(1.2 * radius - room, 0)
            if misfit.min() < 1e-3 or radius * 0.88 < smallest:
                break
            radius *= 0.88
        if optional and misfit.min() >= 1e-3:
            return None
        best = np.flatnonzero(misfit <= misfit.min() + 1e-3)
        grown = []
        for _ in range(_ATTEMPTS):
            centre = points[best[rng.integers(len(best))]]
            lesion = self._grow(type_name, attributes, host, centre, radius, rng)
            grown.append((self._lead(lesion), lesion, centre))
            if grown[-1][0] >= 1.5:
                break
        _, lesion, centre = max(grown, key=lambda one: one[0])
        self.taken.append((centre, radius))
        return lesion

    def _lead(self, lesion: Lesion) -> float:
        """How many times more of the lesion lies in its organ than in the organ that comes next."""
        counts = np.bincount(self.anatomy.organs[lesion.box][lesion.mask], minlength=len(ORGANS) + 1)
        own = 1 + ORGANS.index(lesion.organ)
        return float(counts[own] / max(1, *np.delete(counts, [0, own])))

    def _candidates(self, location: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Possible centres (n, 3) zyx in mm, their depth in the organ and their distance to the next other organ."""
        if location not in self.distances:
            host = _HOSTS[location]
            organ, tissue = self.anatomy.organ(host.organ)[self.thin], self.anatomy.tissue[self.thin]
            start = organ & np.isin(tissue, host.only_in) if host.only_in else organ
            if not start.any():
                raise ValueError(
                    f"no {location} in the field of view for a lesion; enlarge the phantom, e.g. PhantomConfig()"
                )
            yielding = (Tissue.AIR,) if host.organ.endswith("lung") else (Tissue.AIR, *_YIELDING)
            crowd = ~organ & ~np.isin(tissue, yielding)
            depth = ndimage.distance_transform_edt(organ, self.spacing)
            clearance = ndimage.distance_transform_edt(~crowd, self.spacing)
            index = np.nonzero(start)
            points = np.stack([axis[::_THINNING][i] for axis, i in zip(self.axes, index, strict=True)], -1)
            self.distances[location] = points, depth[index], clearance[index]
        return self.distances[location]

    def _grow(
        self, type_name: str, attributes: Attributes, host: _Host, centre: np.ndarray, radius: float,
        rng: np.random.Generator,
    ) -> Lesion:  # fmt: skip
        """Shape a lesion around its centre: an ellipsoid, or lobes; limited to what it may replace."""
        reach = 1.5 * radius + 12
        box = tuple(slice(*np.searchsorted(a, (c - reach, c + reach))) for a, c in zip(self.axes, centre, strict=True))
        tissue, organ = self.anatomy.tissue[box], self.anatomy.organ(host.organ)[box]
        if attributes["relationship"][0] == CLOSE:
            contact = ndimage.distance_transform_edt(~organ, self.anatomy.grid.spacing_zyx) < _CONTACT_MM
            allowed = organ | np.isin(tissue, _YIELDING) | (contact & ~np.isin(tissue, _HARD))
        elif host.bulges:
            allowed = organ | np.isin(tissue, _YIELDING)
        else:
            allowed = organ
        offsets = [a[b] - c for a, b, c in zip(self.axes, box, centre, strict=True)]
        depth = _solid_depth(offsets, radius, attributes["shape"][0], self.anatomy.grid.spacing_zyx, rng)
        if WALL in attributes["specific_features"]:
            wall = organ & (tissue == Tissue.BOWEL_WALL)
            along = ndimage.distance_transform_edt(~wall, self.anatomy.grid.spacing_zyx)
            depth = np.minimum(depth, rng.uniform(4, 6) - along)
        inside = (depth > 0) & allowed
        parts, count = ndimage.label(inside)
        if count > 1:
            largest = 1 + int(np.bincount(parts.ravel())[1:].argmax())
            depth = np.where(inside & (parts != largest), -radius, depth)
        return Lesion(type_name, attributes, host.organ, radius, box, depth.astype(np.float32), allowed)


def _solid_depth(
    offsets: Sequence[np.ndarray], radius: float, shape: str, spacing_zyx: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Depth in mm under the surface of a round-like or irregular solid, (z, y, x); offsets: from its centre, in mm."""
    spread = 0.1 if shape == ROUND else 0.25
    stretch = rng.uniform(1 - spread, 1 + spread, 3)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0] / stretch[:, None]
    z, y, x = offsets[0][:, None, None], offsets[1][:, None], offsets[2]
    distance = np.sqrt(sum((row[0] * z + row[1] * y + row[2] * x) ** 2 for row in turn)) / radius
    if shape == IRREGULAR:
        grid = Grid(distance.shape, tuple(spacing_zyx))
        lobes = np.clip(smooth_noise(grid, max(1.3 * radius, 9.0), rng), -1.6, 1.6)
        distance = distance + 0.28 * lobes * np.clip(2 * distance, 0, 1)
    return (1 - distance) * radius

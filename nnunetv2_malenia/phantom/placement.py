"""Where lesions lie in an anatomy: place, size, shape and contact, as their attributes say.

Density, texture, border and details are left to `rendering`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy import ndimage

from nnunetv2_malenia.phantom.anatomy import ORGANS, Anatomy, Box, Grid, PhantomError, Tissue, smooth_noise
from nnunetv2_malenia.phantom.lesions import CALCIFIC, CLOSE, LESION_TYPES, ROUND, WALL, Attributes


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
    Raises PhantomError if a lesion's organ is outside the field of view.
    """
    sites = _Sites(anatomy, size)
    lesions = [sites.place(name, attributes, rng) for name, attributes in wanted]
    for name, attributes in wanted:
        if rng.random() < repeat and (second := sites.place(name, attributes, rng, optional=True)):
            lesions.append(second)
    return lesions


def fit_lesions(
    anatomy: Anatomy,
    wanted: Sequence[tuple[str, Attributes]],
    rng: np.random.Generator,
    *,
    diameter_mm: tuple[float, float] | None = None,
) -> list[Lesion]:
    """Put each wanted lesion type into the anatomy once, whole, and only where its location and relationship hold.

    diameter_mm: for all of them; default: that of the phantom's type, or 15 to 35 for other types.
    Raises PhantomError for a lesion that finds no such place.
    """
    sites = _Sites(anatomy, 1.0, diameter_mm, whole=True)
    lesions = []
    for name, attributes in wanted:
        tried = (sites.place(name, attributes, rng, optional=True) for _ in range(_ATTEMPTS))
        lesion = next((each for each in tried if each and sites.is_sound(each)), None)
        if lesion is None:
            (place,), (relationship,) = attributes["location"], attributes["relationship"]
            raise PhantomError(
                f"{name}: no room in the {place} for a lesion with {relationship}; ask for a smaller one"
            )
        lesions.append(lesion)
    return lesions


@dataclass(frozen=True)
class _Host:
    """How lesions sit in an organ. `embedded`: least depth of the centre, in radii, of a lesion that is apart."""

    organ: str
    embedded: float
    bulges: bool = True
    only_in: tuple[Tissue, ...] = ()


# location -> how lesions sit there
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
        "spleen": _Host("spleen", 0.8, bulges=False),
    }
)
# part of an organ, see `Anatomy.parts` -> the location that it belongs to
_PARTS: Mapping[str, str] = MappingProxyType(
    {f"pancreas {part}": "pancreas" for part in ("head", "body", "tail")}
    | {f"{side} liver lobe": "liver" for side in ("left", "right")}
    | {f"{side} {level} lung lobe": f"{side} lung" for side in ("left", "right") for level in ("upper", "lower")}
    | {"right middle lung lobe": "right lung"}
)


_YIELDING = (Tissue.FAT, Tissue.VESSEL)  # tissue that a lesion displaces without coming close to an organ
_HARD = (Tissue.AIR, Tissue.BONE, Tissue.MARROW, Tissue.AORTA, Tissue.CALCIFICATION)
_THINNING = 2
_SMALLEST_RADIUS_MM = 5.0
_CONTACT_MM = 5.0  # how far a close lesion grows into the next organ
_LARGEST_CALCIFIED_MM = 26.0
_ATTEMPTS = 6
_LEAST_OF_BALL = 0.3
_OTHER_DIAMETER_MM = (15.0, 35.0)


def _host(location: str) -> _Host:
    return _HOSTS[_PARTS.get(location, location)]


def locations_in(anatomy: Anatomy) -> list[str]:
    """The locations that `fit_lesions` can use in an anatomy: whole organs, then parts of organs."""
    sites = _Sites(anatomy, 1.0)
    places = [*_HOSTS, *(part for part in _PARTS if part in anatomy.parts)]
    return [place for place in places if sites.has(place)]


def whole_organs(locations: Sequence[str]) -> list[str]:
    """Those locations that are no part of another."""
    return [place for place in locations if place in _HOSTS]


class _Sites:
    """Where the next lesion can go: distances in each organ, on a thinned-out grid, and the places already taken."""

    def __init__(
        self, anatomy: Anatomy, size: float, diameter_mm: tuple[float, float] | None = None, *, whole: bool = False
    ):
        self.anatomy = anatomy
        self.size = size
        self.diameter_mm = diameter_mm
        self.axes = anatomy.grid.axes()
        self.reach = np.array([axis[-1] if whole else np.inf for axis in self.axes])  # of lesions that are not cut off
        self.thin = tuple(slice(None, None, _THINNING) for _ in range(3))
        self.spacing = tuple(step * _THINNING for step in anatomy.grid.spacing_zyx)
        self.taken: list[tuple[np.ndarray, float]] = []
        self.distances: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def place(
        self, type_name: str, attributes: Attributes, rng: np.random.Generator, *, optional: bool = False
    ) -> Lesion | None:
        """A lesion with these attributes that touches no earlier one; None if it is optional and there is no room."""
        host = _host(attributes["location"][0])
        points, depth, clearance = self._candidates(attributes["location"][0])
        apart = attributes["relationship"][0] != CLOSE
        known = LESION_TYPES[type_name].diameter_mm if type_name in LESION_TYPES else _OTHER_DIAMETER_MM
        smallest_mm, largest_mm = self.diameter_mm or known
        if attributes["density"][0] == CALCIFIC:
            largest_mm = min(largest_mm, _LARGEST_CALCIFIED_MM)
        radius = self.size * rng.uniform(smallest_mm, largest_mm) / 2
        smallest = smallest_mm / 2 if self.diameter_mm else min(_SMALLEST_RADIUS_MM, smallest_mm / 2)
        to_edge = (self.reach - np.abs(points)).min(1)
        room = np.min([np.linalg.norm(points - c, axis=1) - r - 5 for c, r in self.taken] or [np.inf], axis=0)
        while True:
            if apart:
                misfit = np.maximum(radius + 3 - clearance, 0) + np.maximum(host.embedded * radius - depth, 0)
            else:
                misfit = np.maximum(np.abs(clearance - 0.45 * radius) - 0.25 * radius, 0)
            misfit = misfit + 3 * np.maximum(1.2 * radius - room, 0) + np.maximum(1.2 * radius - to_edge, 0)
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
            grown.append((self.lead(lesion), lesion, centre))
            if grown[-1][0] >= 1.5:
                break
        _, lesion, centre = max(grown, key=lambda one: one[0])
        self.taken.append((centre, radius))
        return lesion

    def is_sound(self, lesion: Lesion) -> bool:
        """Whether at least half of a lesion is in its organ, and its surroundings have not cut most of it away."""
        inside = self.anatomy.organ(lesion.organ)[lesion.box][lesion.mask].mean()
        volume = lesion.mask.sum() * np.prod(self.anatomy.grid.spacing_zyx)
        along_wall = WALL in lesion.attributes["specific_features"]
        return inside >= 0.5 and (along_wall or volume >= _LEAST_OF_BALL * 4.19 * lesion.radius_mm**3)

    def lead(self, lesion: Lesion) -> float:
        """How many times more of the lesion lies in its organ than in the organ that comes next."""
        counts = np.bincount(self.anatomy.organs[lesion.box][lesion.mask], minlength=len(ORGANS) + 1)
        own = 1 + ORGANS.index(lesion.organ)
        return float(counts[own] / max(1, *np.delete(counts, [0, own])))

    def has(self, location: str) -> bool:
        """Whether a lesion could start at a location."""
        return bool(self._start(location).any())

    def _start(self, location: str) -> np.ndarray:
        """Where the centre of a lesion may lie, on the thinned-out grid."""
        host = _host(location)
        start = self.anatomy.organ(host.organ)[self.thin]
        if host.only_in:
            start = start & np.isin(self.anatomy.tissue[self.thin], host.only_in)
        return start & self.anatomy.parts[location][self.thin] if location in _PARTS else start

    def _candidates(self, location: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Possible centres (n, 3) zyx in mm, their depth in the organ and their distance to the next other organ."""
        if location not in self.distances:
            host = _host(location)
            organ, tissue = self.anatomy.organ(host.organ)[self.thin], self.anatomy.tissue[self.thin]
            start = self._start(location)
            if not start.any():
                raise PhantomError(
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
    if shape != ROUND:
        grid = Grid(distance.shape, tuple(spacing_zyx))
        lobes = np.clip(smooth_noise(grid, max(1.3 * radius, 9.0), rng), -1.6, 1.6)
        distance = distance + 0.28 * lobes * np.clip(2 * distance, 0, 1)
    return (1 - distance) * radius

"""Lesions with balanced attributes for training: organ and appearance are drawn apart, so that they come apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
from scipy import ndimage

from nnunetv2_malenia.attributes.schema import ASPECTS, AspectValues
from nnunetv2_malenia.attributes.vocabulary import vocabulary
from nnunetv2_malenia.phantom import lesions as words
from nnunetv2_malenia.phantom.anatomy import Anatomy, PhantomError, Tissue
from nnunetv2_malenia.phantom.insertion import InsertedLesions, draw_lesion, scan_anatomy, scan_phase
from nnunetv2_malenia.phantom.lesions import Attributes
from nnunetv2_malenia.phantom.looks import DRAWN
from nnunetv2_malenia.phantom.placement import fit_lesions, locations_in, whole_organs
from nnunetv2_malenia.phantom.volume import Volume

_ATTEMPTS = 12
_MARGIN_MM = 3.0  # around lesions that are there
_AIRY = (words.GROUND_GLASS, words.MIXED)
_SOLID = (words.HYPO, words.ISO, words.HYPER, words.SOFT)
_SOLID_FEATURES = (words.CALCIFICATION, words.NECROSIS, words.DARK_AREAS, words.BRIGHT_AREAS, words.FAT_INSIDE)
_FLUID_FEATURES = (words.SEPTATION, words.THICK_WALL, words.MURAL_NODULE)


class BalancedLooks:
    """Draws attribute sets in which each value that an organ allows comes up equally often: the rarest so far first.

    excluded: attribute sets whose pairs of location and density are never drawn; an aspect that one of them does not
    state excludes every value of it.
    """

    def __init__(self, excluded: Iterable[AspectValues] = ()):
        self.excluded = [(each.location, each.density) for each in excluded]
        self.uses: Counter[tuple[str, str]] = Counter()

    def draw(
        self, locations: Sequence[str], phase: str, taken: Iterable[tuple[str, str]], rng: np.random.Generator
    ) -> Attributes | None:
        """One value per aspect, or none for specific features; None if no pair of location and density is left.

        taken: pairs of location and density that this case has already.
        """
        pairs = [p for p in product(locations, DRAWN["density"]) if p not in set(taken) and self._is_allowed(*p)]
        if not pairs:
            return None
        location = self._rarest("location", list(dict.fromkeys(place for place, _ in pairs)), rng)
        density = self._rarest("density", [density for place, density in pairs if place == location], rng)
        feature = self._rarest("specific_features", ["", *_features(location, density, phase)], rng)
        varied = (words.HETEROGENEOUS,) if density == words.ISO or feature else DRAWN["density_variation"]
        relationships = (words.TO_VESSELS,) if location == "hepatic vessels" else (words.APART, words.CLOSE)
        return {
            "location": (location,),
            "shape": (self._rarest("shape", (words.ROUND, words.IRREGULAR), rng),),
            "density": (density,),
            "density_variation": (self._rarest("density_variation", varied, rng),),
            "enhancement": (phase,),
            "surface": (self._rarest("surface", DRAWN["surface"], rng),),
            "relationship": (self._rarest("relationship", relationships, rng),),
            "specific_features": (feature,) if feature else (),
        }

    def count(self, attributes: Attributes) -> None:
        """Take a lesion that found its place into account."""
        for aspect in ASPECTS:
            self.uses[aspect, (*attributes[aspect], "")[0]] += 1

    def _is_allowed(self, location: str, density: str) -> bool:
        foreign = (words.HYPO, words.ISO) if location.endswith("lung") else _AIRY
        overlap = vocabulary().overlap
        return density not in foreign and not any(
            (not places or any(overlap("location", location, place) for place in places))
            and (not densities or any(overlap("density", density, each) for each in densities))
            for places, densities in self.excluded
        )

    def _rarest(self, aspect: str, options: Sequence[str], rng: np.random.Generator) -> str:
        fewest = min(self.uses[aspect, value] for value in options)
        rare = [value for value in options if self.uses[aspect, value] == fewest]
        return rare[rng.integers(len(rare))]


def _features(location: str, density: str, phase: str) -> tuple[str, ...]:
    if density == words.FLUID:
        return _FLUID_FEATURES
    if density not in _SOLID:
        return ()
    rim = (words.RIM,) if phase == words.ENHANCED and density in (words.HYPO, words.ISO) else ()
    lung = (words.SPICULATION, words.CAVITY) if location.endswith("lung") else ()
    return (*_SOLID_FEATURES, *rim, *lung)


def synthesise(
    image: Volume,
    labels: Volume,
    organs: Mapping[str, int],
    kept: Sequence[int],
    names: Sequence[str],
    looks: BalancedLooks,
    rng: np.random.Generator,
) -> InsertedLesions:
    """Put a lesion of each name into a CT; no two of them have location and density in common.

    organs: label name -> value in `labels`, which is on the image's grid; kept: values of lesions that are there, which
    are not drawn over. Names are given in turn to lesions that find room; for the others there is a remark. The mask's
    values are 1 + index in names.
    Raises PhantomError for grids that differ, and without a labelled organ that a lesion can lie in.
    """
    hounsfield, anatomy, smooth, remarks = scan_anatomy(image, labels, organs, kept, rng)
    there = np.isin(labels.array, kept)
    before = hounsfield.copy()
    _block(anatomy, there)
    known_phase = scan_phase(anatomy, smooth)
    phase = known_phase or words.ENHANCED
    if not whole_organs(locations_in(anatomy)):
        raise PhantomError(
            f"{labels.source}: no organ is labelled that a lesion can lie in; label one, e.g. liver, pancreas, kidney"
        )
    mask = np.zeros(hounsfield.shape, np.uint8)
    attributes: dict[str, dict[str, list[str]]] = {}
    taken: list[tuple[str, str]] = []
    for _ in names:
        name, value = names[len(attributes)], 1 + len(attributes)
        for _ in range(_ATTEMPTS):
            look = looks.draw(whole_organs(locations_in(anatomy)), phase, taken, rng)
            if look is None:
                continue
            try:
                (lesion,) = fit_lesions(anatomy, [(name, look)], rng)
            except PhantomError:
                continue
            where = draw_lesion(hounsfield, lesion, anatomy, phase, rng) & lesion.allowed
            mask[lesion.box][where] = value
            _block(anatomy, mask == value)
            looks.count(look)
            taken.append((*look["location"], *look["density"]))
            stated = look if known_phase else look | {"enhancement": ()}
            attributes[name] = {aspect: list(values) for aspect, values in stated.items() if values}
            break
        else:
            remarks.append(f"{image.source.name}: no room for one of {len(names)} synthetic lesions; it is left out")
    hounsfield[there] = before[there]
    return InsertedLesions(np.rint(hounsfield).astype(np.int16), mask, attributes, remarks)


def _block(anatomy: Anatomy, where: np.ndarray) -> None:
    """Keep later lesions away from these voxels and a margin around them, in place."""
    if not where.any():
        return
    near = ndimage.distance_transform_edt(~where, anatomy.grid.spacing_zyx) <= _MARGIN_MM
    anatomy.tissue[near], anatomy.organs[near] = Tissue.CALCIFICATION, 0

"""Lesion types of the phantom, and which attributes each one can take.

Attributes are drawn once per case and lesion type, so that a case's attribute set holds for every lesion of that type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from nnunetv2_malenia.attributes.schema import ASPECTS
from nnunetv2_malenia.phantom.anatomy import PhantomError

Attributes: TypeAlias = Mapping[str, tuple[str, ...]]

NON_CONTRAST, ENHANCED = "non-contrast ct", "contrast-enhanced ct"
ROUND, IRREGULAR, LOBULATED = "round-like", "irregular", "lobulated"
HYPO, ISO, HYPER, FLUID, CALCIFIC = "hypodense", "isodense", "hyperdense", "fluid density", "calcific density"
SOFT, FATTY, BLOODY, GASEOUS = "soft-tissue density", "fat density", "blood density", "gas density"
GROUND_GLASS, MIXED = "ground-glass density", "mixed density"
HOMOGENEOUS, HETEROGENEOUS = "homogeneous", "heterogeneous"
WELL, ILL = "well-defined", "ill-defined"
APART = "no close relationship with surrounding organs"
CLOSE = "close relationship with surrounding organs"
TO_VESSELS = "close relationship with vessels"
CALCIFICATION, NECROSIS, SEPTATION, CAVITY = "calcification", "necrosis", "septation", "cavity"
RIM, THICK_WALL, WALL, SPICULATION = "rim enhancement", "thick wall", "wall thickening", "spiculation"
CAPSULE, MURAL_NODULE, THIN_WALL = "capsule", "mural nodule", "thin wall"
DARK_AREAS, BRIGHT_AREAS, CYSTIC = "hypodense areas", "hyperdense areas", "cystic component"
FAT_INSIDE, GAS_INSIDE, BLEEDING = "intralesional fat", "intralesional gas", "hemorrhage"
PANCREATIC_DUCT, BILE_DUCTS = "pancreatic duct dilatation", "bile duct dilatation"


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

# features beside those of a type's pictures, for phantoms that ask for them
FURTHER_FEATURES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "pancreas tumor": (PANCREATIC_DUCT,),
        "liver tumor": (BILE_DUCTS, CAPSULE),
        "kidney cyst": (THIN_WALL, MURAL_NODULE),
        "colon tumor": (DARK_AREAS,),
        "kidney tumor": (DARK_AREAS, CAPSULE),
        "liver cyst": (THIN_WALL,),
        "pancreas cyst": (PANCREATIC_DUCT, MURAL_NODULE),
        "gallbladder tumor": (BILE_DUCTS,),
    }
)


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


def add_features(
    wanted: Sequence[tuple[str, Attributes]], share: float, rng: np.random.Generator
) -> list[tuple[str, Attributes]]:
    """The same attribute sets, of which about a share `share` gets one of its type's further features as well."""
    added = []
    for name, attributes in wanted:
        further = FURTHER_FEATURES.get(name, ())
        if further and rng.random() < share:
            features = (*attributes["specific_features"], further[rng.integers(len(further))])
            attributes = {**attributes, "specific_features": features}
        added.append((name, attributes))
    return added


def lesion_type(type_name: str) -> LesionType:
    """The phantom's description of a lesion type. Raises ValueError, naming the known ones, if there is none."""
    try:
        return LESION_TYPES[type_name]
    except KeyError:
        known = ", ".join(LESION_TYPES)
        raise PhantomError(f"the phantom cannot draw {type_name!r}; choose from: {known}") from None

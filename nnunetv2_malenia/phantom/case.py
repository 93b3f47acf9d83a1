"""One phantom CT with everything that is known about it: assembly of anatomy, lesions and rendering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nnunetv2_malenia.phantom.anatomy import Anatomy, Grid, PhantomError, block_fraction, coarsen_labels, draw_anatomy
from nnunetv2_malenia.phantom.distractors import add_distractors
from nnunetv2_malenia.phantom.ducts import dilate_ducts
from nnunetv2_malenia.phantom.lesions import (
    ENHANCED,
    NON_CONTRAST,
    add_features,
    draw_distinct_attributes,
)
from nnunetv2_malenia.phantom.placement import Lesion, place_lesions
from nnunetv2_malenia.phantom.rendering import Scanner, render


@dataclass(frozen=True)
class PhantomConfig:
    """Size and look of the phantoms.

    shape: voxels along Z, Y, X, of which each case has up to `shape_jitter` more or less along each axis.
    scale: size of the body; at 1 it is about 250 mm wide and the default field of view shows the lower chest and the
    abdomen. With another field of view, change the scale along, or organs are cut off. lesion_size: factor on the
    diameters of all lesion types. further_features: share of the attribute sets that get one of FURTHER_FEATURES.
    distractors: how many more things that look like lesions and are none, see `add_distractors`.
    """

    shape: tuple[int, int, int] = (40, 48, 64)
    spacing_zyx: tuple[float, float, float] = (5.0, 4.5, 4.5)
    shape_jitter: int = 2
    scale: float = 1.0
    lesion_size: float = 1.0
    enhanced_share: float = 0.6
    further_features: float = 0.0
    distractors: int = 0
    scanner: Scanner = field(default_factory=Scanner)


@dataclass(frozen=True)
class Phantom:
    """A phantom CT and its truth. Arrays are (Z, Y, X); transposed, they belong to `affine`, RAS+ in mm.

    image: float32 HU. anatomy: uint8, 1 + index into ORGANS, as it was before lesions. lesion: uint8, 1 + index into
    `lesion_types`. attributes: lesion type -> stated aspect -> values, valid for every lesion of that type
    in this case.
    """

    image: np.ndarray
    anatomy: np.ndarray
    lesion: np.ndarray
    lesion_types: tuple[str, ...]
    attributes: dict[str, dict[str, list[str]]]
    spacing_zyx: tuple[float, float, float]
    affine: np.ndarray


def make_phantom(config: PhantomConfig, seed: int, case_index: int, lesion_types: Sequence[str]) -> Phantom:
    """The phantom number `case_index` of a seed, with at least one lesion of each of the given types.

    The same arguments give the same phantom; the anatomy does not depend on the lesion types.
    Raises ValueError for an unknown or repeated type, or when an organ is outside the field of view.
    """
    if len(set(lesion_types)) != len(lesion_types):
        raise PhantomError(f"lesion types repeat in {list(lesion_types)}; name each type once")
    streams = np.random.SeedSequence([seed, case_index]).spawn(6)
    body_rng, attribute_rng, lesion_rng, scan_rng, feature_rng, distractor_rng = (
        np.random.default_rng(stream) for stream in streams
    )
    jitter = body_rng.integers(-config.shape_jitter, config.shape_jitter + 1, 3)
    grid = Grid(tuple(int(n + j) for n, j in zip(config.shape, jitter, strict=True)), config.spacing_zyx)
    factor = config.scanner.supersampling
    anatomy = draw_anatomy(grid.refined(factor), body_rng, scale=config.scale)
    phase = ENHANCED if attribute_rng.random() < config.enhanced_share else NON_CONTRAST
    wanted = draw_distinct_attributes(lesion_types, phase, attribute_rng)
    wanted = add_features(wanted, config.further_features, feature_rng)
    lesions = place_lesions(anatomy, wanted, lesion_rng, size=config.lesion_size)
    add_distractors(anatomy, lesions, config.distractors, distractor_rng)
    dilate_ducts(anatomy, lesions, feature_rng)
    return Phantom(
        image=render(anatomy, lesions, phase, config.scanner, scan_rng),
        anatomy=coarsen_labels(anatomy.organs, factor),
        lesion=_lesion_labels(anatomy, lesions, list(lesion_types), factor),
        lesion_types=tuple(lesion_types),
        attributes={name: {aspect: list(v) for aspect, v in chosen.items() if v} for name, chosen in wanted},
        spacing_zyx=config.spacing_zyx,
        affine=grid.affine,
    )


def _lesion_labels(anatomy: Anatomy, lesions: Sequence[Lesion], lesion_types: list[str], factor: int) -> np.ndarray:
    """Voxels at least half of which a lesion fills; of a lesion that nowhere does, the voxel that it fills most."""
    labels = np.zeros(tuple(n // factor for n in anatomy.grid.shape), np.uint8)
    for lesion in lesions:
        fine = np.zeros(anatomy.grid.shape, bool)
        fine[lesion.box] = lesion.mask
        share = block_fraction(fine, factor)
        labels[share >= min(0.5, float(share.max()))] = 1 + lesion_types.index(lesion.type_name)
    return labels

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import ConvexHull

from nnunetv2_malenia.attributes.schema import ASPECTS
from nnunetv2_malenia.attributes.tables import vocabulary
from nnunetv2_malenia.phantom import lesions as words
from nnunetv2_malenia.phantom.anatomy import ORGANS, Anatomy, Grid, Tissue, draw_anatomy
from nnunetv2_malenia.phantom.dataset import SEEN, UNSEEN
from nnunetv2_malenia.phantom.lesions import LESION_TYPES, draw_attributes, draw_distinct_attributes
from nnunetv2_malenia.phantom.placement import place_lesions

GRID = Grid((80, 96, 128), (2.5, 2.25, 2.25))
ELEVEN = {
    "colon tumor", "pancreas tumor", "liver tumor", "lung tumor", "kidney cyst", "hepatic vessel tumor",
    "pancreas cyst", "kidney tumor", "liver cyst", "kidney stone", "gallbladder tumor",
}  # fmt: skip


@pytest.fixture(scope="module")
def bodies():
    return [draw_anatomy(GRID, np.random.default_rng(seed)) for seed in range(3)]


def liver_block() -> Anatomy:
    """Nothing but liver, 120 mm wide, with muscle around it."""
    grid = Grid((64, 60, 62), (2.0, 2.1, 2.2))
    tissue = np.full(grid.shape, Tissue.MUSCLE, np.uint8)
    organs = np.zeros(grid.shape, np.uint8)
    inside = (slice(4, -4),) * 3
    tissue[inside], organs[inside] = Tissue.LIVER, 1 + ORGANS.index("liver")
    return Anatomy(grid, organs, tissue)


def chosen(type_name, seed, **fixed):
    """An attribute set with some aspects fixed."""
    attributes = dict(draw_attributes(type_name, words.ENHANCED, np.random.default_rng(seed)))
    return attributes | {aspect: (value,) for aspect, value in fixed.items()}


def test_all_published_types_are_there():
    assert set(LESION_TYPES) == ELEVEN


@pytest.mark.parametrize("type_name", LESION_TYPES)
def test_phrases_are_canonical_values_of_the_vocabulary(type_name):
    for aspect in ASPECTS:
        for value in LESION_TYPES[type_name].alternatives(aspect):
            assert value in vocabulary().values(aspect)


def test_unseen_types_recombine_values_of_seen_types():
    for aspect in ASPECTS:
        known = {value for name in SEEN for value in LESION_TYPES[name].alternatives(aspect)}
        for name in UNSEEN:
            assert set(LESION_TYPES[name].alternatives(aspect)) <= known, (name, aspect)


@pytest.mark.parametrize("aspect", ["shape", "density", "density_variation", "surface", "relationship"])
def test_values_come_with_more_than_one_organ_among_seen_types(aspect):
    for value in {value for name in SEEN for value in LESION_TYPES[name].alternatives(aspect)}:
        assert sum(value in LESION_TYPES[name].alternatives(aspect) for name in SEEN) >= 2, value


@pytest.mark.parametrize("type_name", LESION_TYPES)
def test_drawn_attributes_are_alternatives_and_fit_the_phase(type_name):
    kind, rng = LESION_TYPES[type_name], np.random.default_rng(0)
    for phase in (words.NON_CONTRAST, words.ENHANCED):
        for _ in range(30):
            attributes = draw_attributes(type_name, phase, rng)
            assert tuple(attributes) == ASPECTS
            assert attributes["enhancement"] == (phase,)
            for aspect, values in attributes.items():
                assert set(values) <= set(kind.alternatives(aspect))
                assert len(values) == 1 or aspect not in kind.always_stated


def test_unknown_type_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'brain tumor'.*kidney stone"):
        draw_attributes("brain tumor", words.ENHANCED, np.random.default_rng(0))


@pytest.mark.parametrize("type_name", LESION_TYPES)
def test_lesions_lie_in_their_organ(bodies, type_name):
    for seed, body in enumerate(bodies):
        rng = np.random.default_rng(seed)
        wanted = [(type_name, draw_attributes(type_name, words.ENHANCED, rng))]
        location = wanted[0][1]["location"][0]
        host = "liver" if location == "hepatic vessels" else location
        for lesion in place_lesions(body, wanted, rng, repeat=1.0):
            under = body.organs[lesion.box][lesion.mask]
            assert lesion.mask.sum() >= 20
            assert np.bincount(under, minlength=len(ORGANS) + 1)[1:].argmax() == ORGANS.index(host)


@pytest.mark.parametrize(
    ("type_name", "fixed"),
    [
        ("liver tumor", {}),
        ("kidney cyst", {"location": "left kidney"}),
        ("lung tumor", {"location": "right lung"}),
        ("pancreas tumor", {}),
    ],
)
def test_relationship_decides_whether_a_lesion_reaches_other_organs(bodies, type_name, fixed):
    reached = {}
    for relationship in (words.APART, words.CLOSE):
        attributes = chosen(type_name, 0, shape=words.ROUND, relationship=relationship, **fixed)
        reached[relationship] = 0
        for seed, body in enumerate(bodies):
            (lesion,) = place_lesions(body, [(type_name, attributes)], np.random.default_rng(seed), repeat=0)
            other = (body.organs[lesion.box] != 1 + ORGANS.index(lesion.organ)) & ~np.isin(
                body.tissue[lesion.box], (Tissue.FAT, Tissue.VESSEL, Tissue.AIR)
            )
            reached[relationship] += int((lesion.mask & other).sum())
    assert reached[words.APART] == 0
    assert reached[words.CLOSE] > 50


def test_irregular_lesions_have_lobes_and_round_ones_do_not():
    def solidity(shape, seed):
        attributes = chosen("liver tumor", seed, shape=shape, relationship=words.APART)
        (lesion,) = place_lesions(liver_block(), [("liver tumor", attributes)], np.random.default_rng(seed), repeat=0)
        surface = np.argwhere(lesion.mask & ~ndimage.binary_erosion(lesion.mask))
        return lesion.mask.sum() / ConvexHull(surface).volume  # in voxels

    round_like, irregular = ([solidity(shape, s) for s in range(8)] for shape in (words.ROUND, words.IRREGULAR))
    assert min(round_like) > 0.95
    assert np.median(irregular) < 0.85


def test_no_two_types_of_a_case_share_location_and_density():
    rng, alone = np.random.default_rng(0), np.random.default_rng(0)
    types = ("kidney cyst", "kidney tumor")
    meet = 0
    for _ in range(200):
        keys = {(a["location"], a["density"]) for _, a in draw_distinct_attributes(types, words.NON_CONTRAST, rng)}
        assert len(keys) == 2
        drawn = [draw_attributes(name, words.NON_CONTRAST, alone) for name in types]
        meet += len({(a["location"], a["density"]) for a in drawn}) == 1
    assert meet > 0  # drawn one by one, they do


def test_lesions_do_not_overlap(bodies):
    rng = np.random.default_rng(0)
    wanted = [(name, chosen(name, 1, relationship=words.APART)) for name in ("liver tumor", "liver cyst", "lung tumor")]
    taken = np.zeros(GRID.shape, int)
    for lesion in place_lesions(bodies[0], wanted, rng, repeat=1.0):
        taken[lesion.box] += lesion.mask
    assert taken.max() == 1


def test_an_organ_outside_the_field_of_view_is_named(bodies):
    empty = replace(bodies[0], organs=np.zeros_like(bodies[0].organs))
    with pytest.raises(ValueError, match="no colon in the field of view"):
        place_lesions(empty, [("colon tumor", chosen("colon tumor", 0))], np.random.default_rng(0))

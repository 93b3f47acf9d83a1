"""What phantoms can have beside their lesions: distractors, further features. Off, they change nothing."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from nnunetv2_malenia.attributes.tables import vocabulary
from nnunetv2_malenia.phantom import PhantomConfig, make_phantom
from nnunetv2_malenia.phantom import lesions as words
from nnunetv2_malenia.phantom.anatomy import ORGANS, Grid, Tissue, draw_anatomy
from nnunetv2_malenia.phantom.distractors import add_distractors
from nnunetv2_malenia.phantom.ducts import dilate_ducts
from nnunetv2_malenia.phantom.lesions import FURTHER_FEATURES, LESION_TYPES
from nnunetv2_malenia.phantom.placement import place_lesions
from nnunetv2_malenia.phantom.rendering import DRAWN_FEATURES

CONFIG = PhantomConfig(enhanced_share=1.0)
GRID = Grid((80, 96, 128), (2.5, 2.25, 2.25))


@cache
def body(seed=0):
    return draw_anatomy(GRID, np.random.default_rng(seed))


def copy_of(anatomy):
    return replace(anatomy, tissue=anatomy.tissue.copy(), organs=anatomy.organs.copy())


def test_distractors_change_the_image_and_neither_lesions_nor_organs():
    types = ["liver tumor", "kidney cyst"]
    plain, crowded = (make_phantom(replace(CONFIG, distractors=n), 0, 0, types) for n in (0, 10))
    assert (plain.lesion == crowded.lesion).all()
    assert (plain.anatomy == crowded.anatomy).all()
    assert plain.attributes == crowded.attributes
    changed = np.abs(crowded.image - plain.image) > 60
    assert changed.sum() > 20
    assert not (changed & (plain.lesion > 0)).any()


def test_distractors_look_like_stones_cysts_and_nodules_outside_the_organs_with_lesions():
    anatomy = copy_of(body())
    add_distractors(anatomy, [], 20, np.random.default_rng(0))
    new = anatomy.tissue != body().tissue
    assert (anatomy.organs == body().organs).all()
    assert set(np.unique(anatomy.organs[new])) <= {0, 1 + ORGANS.index("spleen")}
    assert set(np.unique(anatomy.tissue[new])) >= {
        Tissue.CALCIFICATION, Tissue.BILE, Tissue.MUSCLE, Tissue.BOWEL_FLUID, Tissue.VESSEL,
    }  # fmt: skip


def test_no_distractor_comes_near_a_lesion():
    attributes = {"location": ("left kidney",), "shape": (words.ROUND,), "density": (words.FLUID,),
                  "relationship": (words.APART,), "specific_features": ()}  # fmt: skip
    lesions = place_lesions(body(), [("kidney cyst", attributes)], np.random.default_rng(0), repeat=0)
    anatomy = copy_of(body())
    add_distractors(anatomy, lesions, 40, np.random.default_rng(0))
    assert (anatomy.tissue[lesions[0].box] == body().tissue[lesions[0].box]).all()
    assert (anatomy.tissue != body().tissue).any()


@pytest.mark.parametrize("type_name", FURTHER_FEATURES)
def test_further_features_can_be_drawn_and_are_values_of_the_vocabulary(type_name):
    assert type_name in LESION_TYPES
    assert set(FURTHER_FEATURES[type_name]) <= set(vocabulary().values("specific_features")) & set(DRAWN_FEATURES)


def test_further_features_are_stated_and_leave_all_else_as_it_was():
    types = ["pancreas tumor", "kidney cyst"]
    plain, further = (make_phantom(replace(CONFIG, further_features=share), 0, 4, types) for share in (0.0, 1.0))
    assert (plain.lesion == further.lesion).all()
    for name in types:
        before, after = (each.attributes[name] for each in (plain, further))
        added = set(after["specific_features"]) - set(before.get("specific_features", ()))
        assert len(added) == 1
        assert added <= set(FURTHER_FEATURES[name])
        assert {a: v for a, v in after.items() if a != "specific_features"} == {
            a: v for a, v in before.items() if a != "specific_features"
        }
    assert (plain.image != further.image).any()


@pytest.mark.parametrize(
    ("type_name", "location", "feature", "organ"),
    [
        ("pancreas tumor", "pancreas", words.PANCREATIC_DUCT, "pancreas"),
        ("liver tumor", "liver", words.BILE_DUCTS, "liver"),
        ("gallbladder tumor", "gallbladder", words.BILE_DUCTS, "liver"),
    ],
)
def test_dilated_ducts_are_fluid_in_their_organ_and_only_with_the_feature(type_name, location, feature, organ):
    def with_features(*features):
        attributes = {"location": (location,), "shape": (words.ROUND,), "density": (words.HYPO,),
                      "relationship": (words.CLOSE,), "specific_features": features}  # fmt: skip
        anatomy = copy_of(body())
        lesions = place_lesions(anatomy, [(type_name, attributes)], np.random.default_rng(1), repeat=0)
        dilate_ducts(anatomy, lesions, np.random.default_rng(0))
        return anatomy.tissue != body().tissue, anatomy.tissue

    assert not with_features()[0].any()
    new, tissue = with_features(feature)
    assert new.sum() > 60
    assert (tissue[new] == Tissue.BILE).all()
    assert (body().organs[new] == 1 + ORGANS.index(organ)).all()
    assert max(np.ptp(np.argwhere(new), axis=0) * GRID.spacing_zyx) > 25  # a duct, not a blob

from functools import cache

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from nnunetv2_malenia.phantom import LESION_TYPES, ORGANS, PhantomConfig, make_phantom
from nnunetv2_malenia.phantom import lesions as words
from nnunetv2_malenia.phantom.dataset import SEEN, UNSEEN

CONFIG = PhantomConfig()


@cache
def phantom(case_index, *types):
    return make_phantom(CONFIG, 7, case_index, types)


def test_same_arguments_same_phantom():
    first, again = phantom(0, "kidney cyst", "liver tumor"), make_phantom(CONFIG, 7, 0, ["kidney cyst", "liver tumor"])
    assert (first.image == again.image).all()
    assert (first.lesion == again.lesion).all()
    assert first.attributes == again.attributes


def test_seed_and_case_index_both_matter():
    first = phantom(0, "liver tumor")
    for other in (make_phantom(CONFIG, 8, 0, ["liver tumor"]), phantom(1, "liver tumor")):
        assert first.image.shape != other.image.shape or (first.image != other.image).mean() > 0.5


def test_anatomy_does_not_depend_on_the_lesions():
    assert (phantom(2, "liver tumor").anatomy == phantom(2, "kidney stone", "lung tumor").anatomy).all()


def test_arrays_share_a_shape_near_the_configured_one_and_the_affine_is_theirs():
    shapes = set()
    for index in range(4):
        case = phantom(index, "liver tumor")
        assert case.image.shape == case.anatomy.shape == case.lesion.shape
        assert np.abs(np.array(case.image.shape) - CONFIG.shape).max() <= CONFIG.shape_jitter
        assert nib.aff2axcodes(case.affine) == ("R", "A", "S")
        assert np.allclose(nib.affines.voxel_sizes(case.affine), case.spacing_zyx[::-1])
        assert (case.image.dtype, case.anatomy.dtype, case.lesion.dtype) == (np.float32, np.uint8, np.uint8)
        assert case.anatomy.max() <= len(ORGANS)
        shapes.add(case.image.shape)
    assert len(shapes) > 1


@pytest.mark.parametrize("case_index", range(8))
def test_no_declared_lesion_is_lost(case_index):
    types = [(*SEEN, *UNSEEN)[(case_index + i) % 9] for i in range(4)]
    case = phantom(case_index, *types)
    counts = np.bincount(case.lesion.ravel(), minlength=5)
    assert len(counts) == 5
    for name, count in zip(types, counts[1:], strict=True):
        assert count >= (1 if name == "kidney stone" else 4), name
        assert list(case.attributes[name]) == [a for a in words.ASPECTS if a in case.attributes[name]]
        assert set(LESION_TYPES[name].always_stated) <= set(case.attributes[name])


def test_all_lesions_of_a_case_share_the_phase_and_cases_have_both():
    phases = set()
    for index in range(8):
        (phase,) = {
            values["enhancement"][0] for values in phantom(index, "liver tumor", "kidney tumor").attributes.values()
        }
        phases.add(phase)
    assert phases == {words.NON_CONTRAST, words.ENHANCED}


def test_lesions_lie_in_the_organ_that_they_state():
    names = ("liver tumor", "kidney stone", "lung tumor", "pancreas cyst")
    for index in range(4):
        case = phantom(index, *names)
        for value, name in enumerate(names, start=1):
            (location,) = case.attributes[name]["location"]
            under = np.bincount(case.anatomy[case.lesion == value], minlength=len(ORGANS) + 1)[1:]
            assert ORGANS[under.argmax()] == location


def test_hypo_and_hyperdense_lesions_differ_from_their_organ_as_stated():
    seen = set()
    names = ("liver tumor", "kidney tumor")
    for index in range(10):
        case = phantom(index, *names)
        for value, name in enumerate(names, start=1):
            attributes = case.attributes[name]
            (density,), (location,) = attributes["density"], attributes["location"]
            organ = (case.anatomy == 1 + ORGANS.index(location)) & (case.lesion == 0)
            lesion = case.lesion == value
            if lesion.sum() < 30 or density not in (words.HYPO, words.HYPER, words.FLUID, words.CALCIFIC):
                continue
            contrast = np.median(case.image[lesion]) - np.median(case.image[organ])
            seen.add(density)
            assert contrast < 0 if density == words.HYPO else contrast > 0, (index, name, density)
    assert {words.HYPO, words.HYPER} <= seen


def test_what_looks_like_a_lesion_but_is_none_has_no_label():
    case = make_phantom(PhantomConfig(enhanced_share=1.0), 1, 0, [])
    assert case.attributes == {}
    assert case.lesion.max() == 0
    smooth = ndimage.gaussian_filter(case.image, 0.5)
    in_fat = (case.anatomy == 0) & (ndimage.median_filter(case.image, 5) < -60) & (smooth > 20)
    assert in_fat.sum() > 10  # vessels in the fat
    assert (case.image[case.anatomy == 1 + ORGANS.index("colon")] < -400).any()  # gas
    lung = np.isin(case.anatomy, [1 + ORGANS.index(f"{side} lung") for side in ("left", "right")])
    assert (case.image[ndimage.binary_erosion(lung, iterations=2)] > -600).any()  # vessels in the lung


def test_repeated_types_are_refused():
    with pytest.raises(ValueError, match="repeat"):
        make_phantom(CONFIG, 0, 0, ["liver cyst", "liver cyst"])


def test_other_spacings_and_shapes_work():
    config = PhantomConfig(shape=(30, 36, 46), spacing_zyx=(6.6, 6.0, 6.2), shape_jitter=0)
    case = make_phantom(config, 0, 0, ["kidney cyst", "colon tumor"])
    assert case.image.shape == (30, 36, 46)
    assert set(np.unique(case.lesion)) == {0, 1, 2}

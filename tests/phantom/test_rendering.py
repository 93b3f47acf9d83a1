"""Each aspect in the pixels, one at a time: the same lesion in the same block of organ, with one value changed."""

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from nnunetv2_malenia.phantom import lesions as words
from nnunetv2_malenia.phantom.anatomy import ORGANS, Anatomy, Grid, Tissue, block_fraction, draw_anatomy
from nnunetv2_malenia.phantom.placement import place_lesions
from nnunetv2_malenia.phantom.rendering import Scanner, render

QUIET = Scanner(supersampling=2, blur_mm=1.0, noise_hu=(1.0, 1.0))
PLAIN = {
    "location": ("liver",),
    "shape": (words.ROUND,),
    "density": (words.HYPO,),
    "density_variation": (words.HOMOGENEOUS,),
    "enhancement": (words.ENHANCED,),
    "surface": (words.WELL,),
    "relationship": (words.APART,),
    "specific_features": (),
}
SEEDS = range(4)


@cache
def block(organ: str, tissue: Tissue) -> Anatomy:
    """Nothing but one organ, about 120 mm wide, with muscle around it; 1.8 mm voxels, twice as coarse when rendered."""
    grid = Grid((68, 66, 64), (1.8, 1.85, 1.9))
    tissues = np.full(grid.shape, Tissue.MUSCLE, np.uint8)
    organs = np.zeros(grid.shape, np.uint8)
    inside = (slice(3, -3),) * 3
    tissues[inside], organs[inside] = tissue, 1 + ORGANS.index(organ)
    return Anatomy(grid, organs, tissues)


def scan(seed: int, type_name: str = "liver tumor", phase: str = words.ENHANCED, **changed: str):
    """Image, lesion mask, distance in mm to the mask's surface (negative inside) and the parenchyma's mean HU."""
    attributes = PLAIN | {aspect: (value,) for aspect, value in changed.items()} | {"enhancement": (phase,)}
    organ = attributes["location"][0]
    anatomy = block(organ, Tissue.LUNG if "lung" in organ else Tissue.LIVER)
    (lesion,) = place_lesions(anatomy, [(type_name, attributes)], np.random.default_rng(seed), repeat=0)
    image = render(anatomy, [lesion], phase, QUIET, np.random.default_rng(seed + 100))
    fine = np.zeros(anatomy.grid.shape, bool)
    fine[lesion.box] = lesion.mask
    mask = block_fraction(fine, 2) >= 0.5
    spacing = [2 * step for step in anatomy.grid.spacing_zyx]
    distance = ndimage.distance_transform_edt(~mask, spacing) - ndimage.distance_transform_edt(mask, spacing)
    return image, mask, distance, float(image[(distance > 18) & (anatomy.organ(organ)[::2, ::2, ::2])].mean())


def inside_mean(seed, **changed):
    image, _, distance, parenchyma = scan(seed, **changed)
    return float(image[distance < -3].mean()) - parenchyma


@pytest.mark.parametrize("phase", [words.NON_CONTRAST, words.ENHANCED])
def test_density_is_relative_to_the_parenchyma(phase):
    for seed in SEEDS:
        values = {d: inside_mean(seed, phase=phase, density=d) for d in (words.HYPO, words.ISO, words.HYPER)}
        assert values[words.HYPO] < -20
        assert abs(values[words.ISO]) < 12
        assert values[words.HYPER] > 25


@pytest.mark.parametrize("phase", [words.NON_CONTRAST, words.ENHANCED])
def test_fluid_and_calcific_density_are_absolute(phase):
    for seed in SEEDS:
        image, _, distance, _ = scan(seed, phase=phase, density=words.FLUID)
        assert -5 < image[distance < -4].mean() < 22
        image, _, distance, _ = scan(seed, phase=phase, density=words.CALCIFIC)
        assert image[distance < -3].mean() > 250


def test_heterogeneous_lesions_vary_more_inside():
    for seed in SEEDS:
        spread = {}
        for variation in (words.HOMOGENEOUS, words.HETEROGENEOUS):
            image, _, distance, _ = scan(seed, density_variation=variation)
            spread[variation] = image[distance < -3].std()
        assert spread[words.HETEROGENEOUS] > 2 * spread[words.HOMOGENEOUS]


@pytest.mark.parametrize("density", [words.HYPO, words.HYPER, words.FLUID])
def test_ill_defined_borders_are_flatter_for_their_contrast(density):
    def steepness(surface, seed):
        image, mask, distance, parenchyma = scan(seed, density=density, surface=surface)
        shell = (distance > 2) & (distance < 4)
        core = image[mask][distance[mask] <= np.quantile(distance[mask], 0.3)].mean()
        return (image[shell].mean() - core) / (parenchyma - core)  # 1: the border ends where the lesion ends

    sharp, blurred = ([steepness(surface, seed) for seed in SEEDS] for surface in (words.WELL, words.ILL))
    assert min(sharp) > 0.78
    assert max(blurred) < 0.7


def test_phase_shows_in_aorta_and_kidneys():
    body = draw_anatomy(Grid((40, 48, 64), (5.0, 4.5, 4.5)), np.random.default_rng(0))
    images = {
        phase: render(body, [], phase, Scanner(supersampling=1), np.random.default_rng(1))
        for phase in (words.NON_CONTRAST, words.ENHANCED)
    }
    for organ in ("aorta", "left kidney", "right kidney", "liver"):
        means = {phase: np.median(image[body.organ(organ)]) for phase, image in images.items()}
        assert means[words.ENHANCED] > means[words.NON_CONTRAST] + 30
    fat = body.tissue == Tissue.FAT
    assert abs(np.median(images[words.ENHANCED][fat]) - np.median(images[words.NON_CONTRAST][fat])) < 15


def core_and_shell(seed, **changed):
    """Mean HU in the inner half of the lesion, and just under its surface."""
    image, mask, distance, _ = scan(seed, **changed)
    depth = np.where(mask, -distance, 0)
    return image[depth > 0.6 * depth.max()].mean(), image[mask & (depth < 0.5 * depth.max())].mean()


def test_necrosis_is_a_dark_core_and_a_rim_a_bright_shell():
    for seed in SEEDS:
        core, shell = core_and_shell(seed, density=words.HYPER, specific_features=words.NECROSIS)
        assert core < shell - 25
        for feature in (words.RIM, words.THICK_WALL):
            core, shell = core_and_shell(seed, density=words.FLUID, specific_features=feature)
            assert core < shell - 20


def test_calcification_is_bright_specks_in_a_lesion_that_keeps_its_density():
    for seed in SEEDS:
        image, mask, _, parenchyma = scan(seed, density_variation=words.HETEROGENEOUS)
        with_specks, *_ = scan(seed, density_variation=words.HETEROGENEOUS, specific_features=words.CALCIFICATION)
        assert with_specks[mask].max() > image[mask].max() + 100
        assert np.median(with_specks[mask]) < parenchyma - 10


def test_septation_crosses_the_fluid():
    for seed in SEEDS:
        plain, _, distance, _ = scan(seed, density=words.FLUID)
        septated, *_ = scan(seed, density=words.FLUID, specific_features=words.SEPTATION)
        inner = distance < -4
        assert septated[inner].max() > plain[inner].max() + 15
        assert np.quantile(septated[inner], 0.2) < 25  # still fluid between the septa


def test_cavity_is_gas_in_a_lung_lesion():
    for seed in SEEDS:
        lung = {"type_name": "lung tumor", "location": "left lung", "density": words.HYPER}
        core, shell = core_and_shell(seed, **lung, specific_features=words.CAVITY)
        solid_core, solid_shell = core_and_shell(seed, **lung)
        assert core < solid_core - 300
        assert abs(shell - solid_shell) < 150


def test_spiculation_leaves_the_lesion_but_not_its_label():
    for seed in SEEDS:
        lung = {"type_name": "lung tumor", "location": "right lung", "density": words.HYPER}
        smooth, mask, distance, _ = scan(seed, **lung)
        spiky, same_mask, *_ = scan(seed, **lung, specific_features=words.SPICULATION)
        around = (distance > 3) & (distance < 8)
        assert (mask == same_mask).all()
        assert (spiky[around] > -600).sum() > (smooth[around] > -600).sum() + 10


def test_wall_thickening_follows_the_wall_of_the_colon():
    body = draw_anatomy(Grid((80, 96, 128), (2.5, 2.25, 2.25)), np.random.default_rng(0))
    attributes = PLAIN | {"location": ("colon",), "specific_features": (words.WALL,)}
    wall = body.organ("colon") & (body.tissue == Tissue.BOWEL_WALL)
    away = ndimage.distance_transform_edt(~wall, body.grid.spacing_zyx)
    (lesion,) = place_lesions(body, [("colon tumor", attributes)], np.random.default_rng(0), repeat=0)
    assert lesion.mask.sum() > 50
    assert away[lesion.box][lesion.mask].max() < 6.5


def test_image_is_in_the_range_of_a_scanner():
    image, *_ = scan(0)
    assert image.dtype == np.float32
    assert image.min() >= -1024
    assert image.max() <= 3071

"""CTs of label maps that are given: the masks stay, the looks come from the table."""

from dataclasses import replace

import numpy as np
import pytest
from oriented import AXIS_ORDERS, store
from scipy import ndimage

from nnunetv2_malenia.attributes.tables import parse_table
from nnunetv2_malenia.phantom import lesions as words
from nnunetv2_malenia.phantom.anatomy import Anatomy, Grid, PhantomError, Tissue
from nnunetv2_malenia.phantom.from_labels import render_label_map
from nnunetv2_malenia.phantom.rendering import KERNELS, render
from nnunetv2_malenia.phantom.volume import read_volume

GRID = Grid((24, 96, 128), (3.0, 2.5, 2.5))
NAMES = {"background": 0, "kidney": 1, "kidney tumor": 2, "kidney cyst": 3}
TUMOR = {
    "location": "right kidney",
    "density": words.HYPO,
    "density_variation": words.HOMOGENEOUS,
    "enhancement": words.ENHANCED,
    "surface": words.WELL,
}


def ball(centre_zyx, radius_mm):
    z, y, x = np.indices(GRID.shape)
    offsets = [(a - c) * s for a, c, s in zip((z, y, x), centre_zyx, GRID.spacing_zyx, strict=True)]
    return sum(offset**2 for offset in offsets) < radius_mm**2


def kits_like() -> np.ndarray:
    """Two kidneys with a tumor in the right one: larger x is the patient's right."""
    labels = np.zeros(GRID.shape, np.uint8)
    for x in (36, 92):
        labels[ball((12, 40, x), 32)] = 1
    labels[ball((12, 40, 94), 15)] = 2
    return labels


def draw(
    tmp_path, labels=None, *, order="IPL", kernel="standard", case="case_1", names=NAMES, seed=0, table=None, **stated
):
    labels = kits_like() if labels is None else labels
    volume = read_volume(store(labels, GRID.affine, order, tmp_path / "labels.nii.gz"))
    table = table or {"lesions": {"kidney tumor": TUMOR | stated, "kidney cyst": {"density": words.FLUID}}}
    return render_label_map(volume, names, parse_table(table), case, scanner=KERNELS[kernel], seed=seed)


def inner(value, times=1, labels=None):
    return ndimage.binary_erosion((kits_like() if labels is None else labels) == value, iterations=times)


@pytest.mark.parametrize("order", AXIS_ORDERS)
def test_the_axis_order_of_the_file_changes_nothing_and_sides_are_the_patients(order, tmp_path):
    first, turned = draw(tmp_path, order="RAS"), draw(tmp_path, order=order)
    assert (first.image == turned.image).all()
    assert turned.attributes["kidney tumor"]["location"] == ["right kidney"]
    assert turned.remarks == []


def test_a_table_that_states_the_other_side_is_told_and_the_mask_counts(tmp_path):
    case = draw(tmp_path, location="left kidney")
    assert case.attributes["kidney tumor"]["location"] == ["right kidney"]
    assert case.remarks == ["case_1: kidney tumor: the table says left kidney, the mask is on the right"]


@pytest.mark.parametrize("phase", [words.NON_CONTRAST, words.ENHANCED])
def test_density_holds_against_the_kidney_in_both_phases(phase, tmp_path):
    for density, low, high in (
        (words.HYPO, -90, -14), (words.ISO, -20, 20), (words.HYPER, 20, 100), (words.CALCIFIC, 150, 1000),
    ):  # fmt: skip
        image = draw(tmp_path, density=density, enhancement=phase).image
        contrast = image[inner(2)].mean() - image[inner(1, 2)].mean()
        assert low < contrast < high, density
    image = draw(tmp_path, density=words.FLUID, enhancement=phase).image
    assert -5 < image[inner(2, 2)].mean() < 22


def test_contrast_agent_shows_in_kidneys_and_not_in_fat(tmp_path):
    plain, enhanced = (draw(tmp_path, enhancement=phase).image for phase in (words.NON_CONTRAST, words.ENHANCED))
    assert enhanced[inner(1, 2)].mean() > plain[inner(1, 2)].mean() + 60
    for image in (plain, enhanced):
        assert ((image > -130) & (image < -80)).mean() > 0.15  # fat
        assert image.min() < -900


def test_surface_is_sharp_or_blurred_around_the_mask_that_is_given(tmp_path):
    def slope(surface):
        image = draw(tmp_path, surface=surface, density=words.CALCIFIC, seed=1).image
        outside = ndimage.distance_transform_edt(kits_like() != 2, GRID.spacing_zyx)
        shell = image[(outside > 3) & (outside < 6) & (kits_like() == 1)].mean()
        return (shell - image[inner(1, 2)].mean()) / (image[inner(2, 3)].mean() - image[inner(1, 2)].mean())

    assert slope(words.WELL) < 0.15
    assert slope(words.ILL) > 0.18


@pytest.mark.parametrize(
    ("feature", "density", "seen"),
    [
        (words.CALCIFICATION, words.HYPO, lambda core, plain: core.max() > max(200, plain.max() + 100)),
        (words.NECROSIS, words.HYPER, lambda core, plain: np.quantile(core, 0.1) < np.quantile(plain, 0.1) - 40),
        (words.SEPTATION, words.FLUID, lambda core, plain: np.quantile(core, 0.98) > np.quantile(plain, 0.98) + 15),
        (words.DARK_AREAS, words.HYPER, lambda core, plain: core.std() > plain.std() + 5),
        (words.GAS_INSIDE, words.HYPO, lambda core, plain: core.min() < -300 < plain.min()),
        (words.BRIGHT_AREAS, words.HYPO, lambda core, plain: core.std() > plain.std() + 5),
        (words.CYSTIC, words.HYPER, lambda core, plain: np.quantile(core, 0.1) < np.quantile(plain, 0.1) - 40),
        (words.BLEEDING, words.FLUID, lambda core, plain: np.quantile(core, 0.9) > np.quantile(plain, 0.9) + 15),
        (words.FAT_INSIDE, words.HYPO, lambda core, plain: np.quantile(core, 0.1) < np.quantile(plain, 0.1) - 80),
        (words.MURAL_NODULE, words.FLUID, lambda core, plain: np.quantile(core, 0.98) > np.quantile(plain, 0.98) + 20),
    ],
)
def test_specific_features_are_in_the_pixels(feature, density, seen, tmp_path):
    quiet = {"kernel": "soft", "density": density}
    without, case = draw(tmp_path, **quiet), draw(tmp_path, specific_features=feature, **quiet)
    assert case.attributes["kidney tumor"]["specific_features"] == [feature]
    assert seen(case.image[inner(2)], without.image[inner(2)])


@pytest.mark.parametrize("feature", [words.RIM, words.THICK_WALL, words.CAPSULE, words.THIN_WALL])
def test_walls_and_rims_are_brighter_than_the_middle(feature, tmp_path):
    def shell_over_middle(**stated):
        image = draw(tmp_path, kernel="soft", density=words.FLUID, enhancement=words.NON_CONTRAST, **stated).image
        mask = kits_like() == 2
        depth = ndimage.distance_transform_edt(mask, GRID.spacing_zyx)
        return image[mask & (depth < 3.1)].mean() - image[depth > 7].mean()

    least = 8 if feature in (words.THIN_WALL, words.CAPSULE) else 20
    assert shell_over_middle(specific_features=feature) > shell_over_middle() + least


def test_spicules_leave_the_mask(tmp_path):
    around = ndimage.distance_transform_edt(kits_like() != 2, GRID.spacing_zyx)
    around = (around > 3) & (around < 9) & (kits_like() == 1)
    bright = [(draw(tmp_path, density=words.CALCIFIC, **more).image[around] > 300).sum()
              for more in ({}, {"specific_features": words.SPICULATION})]  # fmt: skip
    assert bright[1] > bright[0] + 10


def test_every_part_of_a_mask_is_drawn_and_types_keep_their_own_looks(tmp_path):
    labels = kits_like()
    labels[ball((12, 40, 36), 12)] = 3
    labels[ball((12, 40, 36), 5)] = 1
    labels[ball((4, 40, 92), 6)] = 3
    case = draw(tmp_path, labels, density=words.CALCIFIC)
    assert case.image[inner(3, 1, labels)].mean() < 60 < 150 < case.image[inner(2, 2, labels)].mean()
    assert case.attributes["kidney cyst"]["location"] == ["left kidney", "right kidney"]


def test_statements_of_the_case_win_and_unstated_shape_stays_unstated(tmp_path):
    own = {"cases": {"case_1": {"lesions": {"kidney tumor": {"density": "hyperdense", "shape": "irregular"}}}}}
    table = {"lesions": {"kidney tumor": TUMOR}} | own
    drawn = [draw(tmp_path, table=table, case=case).attributes["kidney tumor"] for case in ("case_1", "case_2")]
    assert [each["density"] for each in drawn] == [["hyperdense"], ["hypodense"]]
    assert [each.get("shape") for each in drawn] == [["irregular"], None]


def test_the_sharp_kernel_has_more_and_finer_noise(tmp_path):
    images = {kernel: draw(tmp_path, kernel=kernel).image.astype(float) for kernel in ("soft", "sharp")}
    steps = {kernel: np.diff(image, axis=2)[inner(1, 3)[..., 1:]].std() for kernel, image in images.items()}
    assert steps["sharp"] > 2.5 * steps["soft"]


def test_thick_slices_blur_along_the_body_only():
    labels = np.zeros((24, 24, 24), np.uint8)
    anatomy = Anatomy(Grid(labels.shape, (1.0, 1.0, 1.0)), labels, np.full(labels.shape, Tissue.FAT, np.uint8))
    anatomy.tissue[8:16, 8:16, 8:16] = Tissue.LIVER
    edges = {}
    for thickness in (0.0, 6.0):
        scanner = replace(KERNELS["standard"], noise_hu=(0.1, 0.1), slice_thickness_mm=thickness)
        image = render(anatomy, [], words.ENHANCED, scanner, np.random.default_rng(0))
        edges[thickness] = [image[9, 12, 12] - image[6, 12, 12], image[12, 12, 9] - image[12, 12, 6]]
    along, across = (edges[6.0][i] / edges[0.0][i] for i in (0, 1))
    assert along < 0.8 < 0.9 < across


def test_same_seed_same_image_other_seed_or_case_another(tmp_path):
    first = draw(tmp_path).image
    assert (first == draw(tmp_path).image).all()
    assert (first != draw(tmp_path, seed=1).image).mean() > 0.5
    assert (first != draw(tmp_path, case="case_2").image).mean() > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": {"background": 0, "kidney": 1}}, "no name for label 2"),
        ({"names": NAMES | {"tumour thing": 7}}, "'tumour thing' is neither a lesion of the attribute table nor"),
        ({"density": "speckled"}, "density 'speckled' cannot be drawn here"),
        ({"labels": kits_like() * 0.5}, "no whole numbers"),
        ({"labels": kits_like() * np.float32(1e30)}, "no whole numbers"),
        ({"labels": -kits_like().astype(np.int16)}, "negative"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_line(change, message, tmp_path):
    with pytest.raises(PhantomError, match=message) as raised:
        draw(tmp_path, **change)
    assert "\n" not in str(raised.value)


def test_a_phase_that_is_not_drawn_is_refused_and_not_drawn_as_another(tmp_path):
    table = {"lesions": {"kidney tumor": TUMOR | {"enhancement": "arterial phase ct"}}}
    with pytest.raises(PhantomError, match="enhancement 'arterial phase ct' cannot be drawn here; state one of: non-c"):
        draw(tmp_path, kits_like(), table=table)


def test_two_phases_in_one_scan_are_refused(tmp_path):
    labels = kits_like()
    labels[ball((12, 40, 36), 12)] = 3
    table = {"lesions": {"kidney tumor": TUMOR, "kidney cyst": {"enhancement": words.NON_CONTRAST}}}
    with pytest.raises(PhantomError, match="case_1: its lesions state different phases"):
        draw(tmp_path, labels, table=table)

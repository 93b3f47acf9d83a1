"""Lesions in a CT that was there before: a phantom's, stored as a scanner would, with its organs as the label map."""

from functools import cache

import nibabel as nib
import numpy as np
import pytest
from oriented import AXIS_ORDERS, store
from scipy import ndimage

from nnunetv2_malenia.attributes.tables import parse_table
from nnunetv2_malenia.phantom import lesions as words
from nnunetv2_malenia.phantom.anatomy import ORGANS, Grid, PhantomError, Tissue, draw_anatomy
from nnunetv2_malenia.phantom.insertion import insert_lesions
from nnunetv2_malenia.phantom.rendering import Scanner, render
from nnunetv2_malenia.phantom.volume import read_volume

NAMES = {"background": 0} | {name: 1 + i for i, name in enumerate(ORGANS)}
GRID = Grid((60, 72, 96), (3.3, 3.0, 3.0))
PLAIN = {
    "location": "liver",
    "shape": words.ROUND,
    "density": words.HYPO,
    "density_variation": words.HOMOGENEOUS,
    "surface": words.WELL,
    "relationship": words.APART,
}


@cache
def patient(phase: str = words.ENHANCED) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CT (int16), organs and tissues of one person, (Z, Y, X)."""
    body = draw_anatomy(GRID, np.random.default_rng(3))
    image = render(body, [], phase, Scanner(supersampling=1, noise_hu=(9, 9)), np.random.default_rng(4))
    return np.rint(image).astype(np.int16), body.organs, body.tissue


def insert(tmp_path, *, order="RAS", organ_order="RAS", phase=words.ENHANCED, seed=0, diameter=(24.0, 28.0), **stated):
    """The CT before, the result, and the two volumes."""
    before, organs, _ = patient(phase)
    image = read_volume(store(before, GRID.affine, order, tmp_path / "ct_0000.nii.gz"))
    segmentation = read_volume(store(organs, GRID.affine, organ_order, tmp_path / "organs.nii.gz"))
    table = parse_table({"lesions": {"lesion": PLAIN | stated}})
    return before, insert_lesions(image, segmentation, NAMES, table, "ct", diameter_mm=diameter, seed=seed), image


@pytest.mark.parametrize("order", AXIS_ORDERS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_left_and_right_are_the_patients_in_every_axis_order(order, side, tmp_path):
    location = f"{side} kidney"
    _, done, image = insert(tmp_path, order=order, organ_order=AXIS_ORDERS[-1], location=location, diameter=(12, 18))
    _, organs, _ = patient()
    inside = organs[done.mask > 0] == 1 + ORGANS.index(location)
    assert inside.mean() > 0.6
    image.save(done.mask, tmp_path / "mask.nii.gz")
    mask, ct = nib.load(tmp_path / "mask.nii.gz"), nib.load(tmp_path / "ct_0000.nii.gz")
    assert mask.shape == ct.shape
    assert np.allclose(mask.affine, ct.affine)
    x = nib.affines.apply_affine(mask.affine, np.argwhere(np.asarray(mask.dataobj))).mean(0)[0]
    assert x > 20 if side == "right" else x < -20


def test_the_axis_order_of_neither_file_changes_the_result(tmp_path):
    _, first, _ = insert(tmp_path, order="RAS", organ_order="RAS")
    _, again, _ = insert(tmp_path, order="IPL", organ_order="LPS")
    assert (first.image == again.image).all()
    assert (first.mask == again.mask).all()


@pytest.mark.parametrize("phase", [words.NON_CONTRAST, words.ENHANCED])
def test_density_is_relative_to_the_parenchyma_around_the_lesion(phase, tmp_path):
    contrast = {}
    for density in (words.HYPO, words.ISO, words.HYPER, words.FLUID, words.CALCIFIC):
        before, done, _ = insert(tmp_path, phase=phase, density=density)
        core = ndimage.binary_erosion(done.mask > 0)
        contrast[density] = done.image[core].mean() - before[core].mean()
        if density == words.FLUID:
            assert -5 < done.image[core].mean() < 22
        assert done.attributes["lesion"]["enhancement"] == [phase]
    assert contrast[words.HYPO] < -20
    assert abs(contrast[words.ISO]) < 12
    assert 25 < contrast[words.HYPER] < 100
    assert contrast[words.CALCIFIC] > 200


def test_nothing_changes_away_from_the_lesion(tmp_path):
    before, done, _ = insert(tmp_path)
    away = ndimage.distance_transform_edt(done.mask == 0, GRID.spacing_zyx) > 12
    assert (done.image[away] == before[away]).all()
    assert (done.image[done.mask > 0] != before[done.mask > 0]).mean() > 0.9


def test_the_noise_of_the_scan_goes_on_inside_the_lesion(tmp_path):
    before, done, _ = insert(tmp_path, diameter=(38.0, 42.0))
    core = ndimage.binary_erosion(done.mask > 0, iterations=2)

    def fine(image):
        image = image.astype(float)
        return (image - ndimage.gaussian_filter(image, 1.0))[core]

    assert fine(done.image).std() == pytest.approx(fine(before).std(), rel=0.25)
    assert np.corrcoef(fine(done.image), fine(before))[0, 1] > 0.8  # that very noise, not another one like it


def test_the_border_has_partial_volume_and_an_ill_defined_one_is_wider(tmp_path):
    between = {}
    for surface in (words.WELL, words.ILL):
        before, done, _ = insert(tmp_path, surface=surface, density=words.CALCIFIC)  # far above the noise
        change = done.image.astype(float) - before
        share = change / np.median(change[ndimage.binary_erosion(done.mask > 0, iterations=2)])
        between[surface] = ((share > 0.15) & (share < 0.85)).sum() / (done.mask > 0).sum()
    assert between[words.WELL] > 0.2
    assert between[words.ILL] > 1.5 * between[words.WELL]


def test_shape_and_relationship_hold(tmp_path):
    _, organs, tissue = patient()
    other = (organs != NAMES["pancreas"]) & ~np.isin(tissue, (Tissue.FAT, Tissue.VESSEL, Tissue.AIR))
    reached = {}
    for relationship in (words.APART, words.CLOSE):
        reached[relationship] = 0
        for seed in range(3):
            _, done, _ = insert(tmp_path, location="pancreas", relationship=relationship, diameter=(14, 18), seed=seed)
            reached[relationship] += int(((done.mask > 0) & other).sum())
    assert reached[words.APART] <= 5  # the label map does not tell the bowel; its HU do, up to the voxels of its border
    assert reached[words.CLOSE] > 20


@pytest.mark.parametrize(
    ("feature", "density", "look"),
    [
        (words.CALCIFICATION, words.HYPO, lambda core, plain: core.max() > plain.max() + 100),
        (words.NECROSIS, words.HYPER, lambda core, plain: np.quantile(core, 0.1) < np.quantile(plain, 0.1) - 40),
        (words.SEPTATION, words.FLUID, lambda core, plain: core.max() > plain.max() + 15),
        (words.FAT_INSIDE, words.HYPER, lambda core, plain: np.quantile(core, 0.05) < 20 < np.quantile(plain, 0.05)),
    ],
)
def test_specific_features_are_in_the_pixels(feature, density, look, tmp_path):
    size = {"diameter": (34.0, 38.0), "density": density}
    _, without, _ = insert(tmp_path, **size)
    _, done, _ = insert(tmp_path, specific_features=feature, **size)
    assert done.attributes["lesion"]["specific_features"] == [feature]
    assert look(*(each.image[ndimage.binary_erosion(each.mask > 0)] for each in (done, without)))


def test_spicules_leave_the_mask(tmp_path):
    lung = {"location": "right lung", "density": words.HYPER, "diameter": (24.0, 28.0)}
    _, smooth, _ = insert(tmp_path, **lung)
    _, spiky, _ = insert(tmp_path, specific_features=words.SPICULATION, **lung)
    distance = ndimage.distance_transform_edt(spiky.mask == 0, GRID.spacing_zyx)
    around = (distance > 4) & (distance < 9)
    assert (smooth.mask == spiky.mask).all()
    assert (spiky.image[around] > -600).sum() > (smooth.image[around] > -600).sum() + 5


def test_a_dilated_pancreatic_duct_runs_from_the_lesion_to_the_patients_left(tmp_path):
    head = {"location": "pancreas head", "density": words.HYPER, "diameter": (12.0, 14.0)}
    _, without, _ = insert(tmp_path, **head)
    _, dilated, _ = insert(tmp_path, specific_features=words.PANCREATIC_DUCT, **head)
    _, organs, _ = patient()
    assert (without.mask == dilated.mask).all()
    duct = (dilated.image < without.image - 25) & (dilated.mask == 0)
    columns = np.flatnonzero(duct.any((0, 1)))
    tail = np.flatnonzero((organs == NAMES["pancreas"]).any((0, 1)))[0]
    lesion = np.argwhere(dilated.mask)[:, 2].mean()
    assert duct.sum() > 20
    assert (organs[duct] == NAMES["pancreas"]).mean() > 0.9
    assert columns[0] <= tail + 4  # x grows to the right: small is left
    assert columns[-1] < lesion + 3


def test_parts_of_the_pancreas_are_where_they_are_in_the_patient(tmp_path):
    middles = []
    for part in ("tail", "body", "head"):
        _, done, _ = insert(tmp_path, location=f"pancreas {part}", diameter=(12.0, 14.0))
        middles.append(np.argwhere(done.mask)[:, 2].mean())
    assert middles == sorted(middles)


def test_several_types_get_a_lesion_and_a_label_each_and_the_same_seed_the_same_ones(tmp_path):
    before, organs, _ = patient()
    image = read_volume(store(before, GRID.affine, "LPS", tmp_path / "a.nii.gz"))
    segmentation = read_volume(store(organs, GRID.affine, "LPS", tmp_path / "b.nii.gz"))
    table = parse_table(
        {"lesions": {"liver cyst": {"location": "liver"}, "kidney cyst": {"location": "kidney"}, "new": PLAIN}}
    )
    first, again, other = (insert_lesions(image, segmentation, NAMES, table, "a", seed=seed) for seed in (1, 1, 2))
    assert set(np.unique(first.mask)) == {0, 1, 2, 3}
    assert (first.image == again.image).all()
    assert (first.image != other.image).any()
    assert set(np.unique(organs[first.mask == 2])) & {NAMES["left kidney"], NAMES["right kidney"]}


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"location": "uterus"}, r"lesion: location 'uterus' cannot be drawn here; state one of: .*left kidney"),
        ({"density": "speckled"}, r"density 'speckled' cannot be drawn here; state one of: hypodense"),
        ({"enhancement": "non-contrast ct"}, r"ct: this is a contrast-enhanced ct by its aorta"),
        ({"diameter": (150.0, 160.0)}, r"lesion: no room in the liver"),
    ],
)
def test_what_cannot_be_true_of_the_result_is_refused(stated, message, tmp_path):
    with pytest.raises(PhantomError, match=message):
        insert(tmp_path, **stated)


def test_a_feature_that_cannot_be_drawn_is_told_and_not_stated_of_the_result(tmp_path):
    _, done, _ = insert(tmp_path, specific_features=["central scar", "calcification"])
    assert done.remarks == ["ct: lesion: specific_features: central scar is not drawn"]
    assert done.attributes["lesion"]["specific_features"] == ["calcification"]


def test_voxels_that_are_no_numbers_become_the_least_of_the_scan_and_it_is_told(tmp_path):
    before, organs, _ = patient()
    broken = before.astype(np.float32)
    broken[:, :3], broken[0, 5, 5] = np.nan, np.inf
    image = read_volume(store(broken, GRID.affine, "LPS", tmp_path / "a_0000.nii.gz"))
    segmentation = read_volume(store(organs, GRID.affine, "RAS", tmp_path / "b.nii.gz"))
    done = insert_lesions(image, segmentation, NAMES, parse_table({"lesions": {"lesion": PLAIN}}), "a")
    least = before[:, 3:].min()
    number = (~np.isfinite(broken)).sum()
    assert (done.image[~np.isfinite(broken)] == least).all()
    assert done.remarks == [f"a_0000.nii.gz: {number} voxels are NaN or infinite; they become {least} HU"]


@pytest.mark.parametrize(("value", "kind", "said"), [
    (np.nan, np.float32, "no voxel is a finite number"), (1e300, np.float64, "no voxel is a finite number"),
    (1e30, np.float32, r"intensities up to 1e\+30, which are no HU"), (40_000, np.uint16, "intensities up to 4e"),
])  # fmt: skip
def test_an_image_that_cannot_be_a_ct_is_refused(tmp_path, value, kind, said):
    organs = patient()[1]
    image = read_volume(store(np.full(organs.shape, value, kind), GRID.affine, "LPS", tmp_path / "a_0000.nii.gz"))
    segmentation = read_volume(store(organs, GRID.affine, "RAS", tmp_path / "b.nii.gz"))
    with pytest.raises(PhantomError, match=said):
        insert_lesions(image, segmentation, NAMES, parse_table({"lesions": {"lesion": PLAIN}}), "a")


def test_organs_on_another_grid_are_refused(tmp_path):
    before, organs, _ = patient()
    moved = GRID.affine.copy()
    moved[2, 3] += 10
    image = read_volume(store(before, GRID.affine, "RAS", tmp_path / "a.nii.gz"))
    segmentation = read_volume(store(organs, moved, "RAS", tmp_path / "b.nii.gz"))
    with pytest.raises(PhantomError, match=r"b\.nii\.gz lies up to 10 mm off .*a\.nii\.gz; resample the organs"):
        insert_lesions(image, segmentation, NAMES, parse_table({"lesions": {"lesion": PLAIN}}), "a")

"""Findings from constructed probability maps, against hand-computed figures, plain loops and SimpleITK."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from found_lesions import find_lesions, masks_of
from references.lesion_loops import (
    box_loop,
    centre_loop,
    components_loop,
    longest_axial_diameter_loop,
    voxels_of,
)

from nnunetv2_malenia.attributes.schema import AspectValues, LesionQuery
from nnunetv2_malenia.inference.lesions import Component, ImageLesion, label_map

ANISOTROPIC = np.array([[0.8, 0, 0, -60], [0, 0.7, 0, 20], [0, 0, 5.0, 100], [0, 0, 0, 1]])


def oblique(degrees=20.0, spacing=(0.8, 0.7, 5.0)):
    """Turned about two axes, so that no array axis is along one of the patient's."""
    a, b = np.deg2rad(degrees), np.deg2rad(degrees / 2)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ np.diag(spacing)
    affine[:3, 3] = (-60, 20, 100)
    return affine


def query(name):
    return LesionQuery(name=name, attributes=AspectValues(density="hypodense"))


def find(*maps, affine=ANISOTROPIC, **options):
    """maps: probabilities (Z, Y, X), one a query, named a, b, ..."""
    queries = [query(chr(ord("a") + i)) for i in range(len(maps))]
    answers = find_lesions(queries, [True] * len(maps), np.stack(maps).astype(np.float32), affine, **options)
    return masks_of(answers), answers.findings, answers.label_map


def lesions_of(probability, affine=ANISOTROPIC, **options):
    return find(probability, affine=affine, **options)[1][0].lesions


def empty(shape=(6, 20, 24)):
    return np.zeros(shape)


def blob(seed, shape=(6, 14, 16)):
    """Irregular lesions."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=shape)
    for axis in range(3):
        noise = noise + np.roll(noise, 1, axis)
    return (noise > 1.2 * noise.std()).astype(float) * 0.9


def test_nothing_above_the_threshold_is_no_lesion():
    masks, (finding,), _ = find(empty() + 0.5)
    assert not masks.any()
    assert (finding.lesions, finding.volume_ml, finding.left_out) == ((), 0, 0)
    assert finding.presence_score == 0.5


def test_one_box_has_the_measures_that_a_ruler_gives():
    probability = empty()
    probability[1:3, 4:14, 6:8] = 0.8  # 2 slices, 10 rows, 2 columns: 10 x 7 x 1.6 mm
    probability[2, 5, 7] = 0.9
    (lesion,) = lesions_of(probability)
    assert lesion.volume_ml == pytest.approx(40 * 0.8 * 0.7 * 5 / 1000)
    assert lesion.extent_mm == pytest.approx((1.6, 7.0, 10.0))
    # between the middles of edges: (0.8, 7) mm between columns apart, straight down a column 7 mm
    assert lesion.longest_axial_diameter_mm == pytest.approx(np.hypot(0.8, 7.0))
    assert lesion.centre.ras_mm == pytest.approx((6.5 * 0.8 - 60, 8.5 * 0.7 + 20, 1.5 * 5 + 100))
    assert lesion.centre.lps_mm == pytest.approx((60 - 6.5 * 0.8, -20 - 8.5 * 0.7, 107.5))
    assert lesion.bounding_box.ras_mm.min == pytest.approx((5.5 * 0.8 - 60, 3.5 * 0.7 + 20, 102.5))
    assert lesion.bounding_box.lps_mm.min == pytest.approx((60 - 7.5 * 0.8, -20 - 13.5 * 0.7, 102.5))
    assert lesion.bounding_box.lps_mm.max == pytest.approx((60 - 5.5 * 0.8, -20 - 3.5 * 0.7, 112.5))
    assert lesion.presence_score == pytest.approx(0.9)
    assert not lesion.cut_by_border


@pytest.mark.parametrize("degrees", [0.0, 20.0])
def test_voxels_in_a_row_measure_as_many_spacings(degrees):
    probability = empty()
    probability[2, 7, 3:12] = 1
    assert lesions_of(probability, oblique(degrees))[0].longest_axial_diameter_mm == pytest.approx(9 * 0.8)
    probability = empty()
    probability[1:5, 7, 3] = 1  # along the slices: only the pixel's own size shows in one
    assert lesions_of(probability, oblique(degrees))[0].longest_axial_diameter_mm == pytest.approx(0.8)


def test_lesions_that_touch_are_one_in_one_mask_and_two_in_two():
    first, second = empty(), empty()
    first[2, 4:8, 4:8] = 0.7
    second[2, 8:12, 8:12] = 0.9  # touches in a corner
    assert len(lesions_of(np.maximum(first, second))) == 1
    _, findings, labels = find(first, second)
    assert [len(finding.lesions) for finding in findings] == [1, 1]
    assert [finding.lesions[0].shared_with for finding in findings] == [(), ()]
    assert (labels[2, 4, 4], labels[2, 8, 8], labels[0, 0, 0]) == (1, 2, 0)


def test_shared_voxels_are_counted_and_named_and_go_to_the_more_probable():
    first, second, third = empty(), empty(), empty()
    first[2, 4:8, 4:8] = 0.7
    second[2, 6:12, 4:8] = 0.9
    third[5, 15, 15] = 0.9
    _, findings, labels = find(first, second, third)
    for finding, other in zip(findings[:2], "ba", strict=True):
        (shared,) = finding.lesions[0].shared_with
        assert (shared.query, shared.voxels) == (other, 8)
    assert findings[2].lesions[0].shared_with == ()
    assert (labels[2, 5, 5], labels[2, 6, 5]) == (1, 2)
    assert np.bincount(labels.ravel()).tolist()[1:] == [8, 24, 1]


@pytest.mark.parametrize("where", [(0, 5, 5), (5, 5, 5), (2, 0, 5), (2, 19, 5), (2, 5, 0), (2, 5, 23)])
def test_a_lesion_at_the_border_is_marked_as_cut(where):
    probability = empty()
    probability[where] = 1
    assert lesions_of(probability)[0].cut_by_border


def test_forty_lesions_are_forty_largest_first():
    probability = empty((9, 21, 61))
    for number in range(40):
        z, y, x = 1 + 4 * (number // 20), 2 + 4 * (number % 5), 2 + 12 * (number // 5 % 4)
        probability[z, y, x : x + 1 + number % 7] = 0.6
    masks, (finding,), _ = find(probability)
    volumes = [lesion.volume_ml for lesion in finding.lesions]
    assert len(volumes) == 40
    assert [lesion.id for lesion in finding.lesions] == list(range(1, 41))
    assert volumes == sorted(volumes, reverse=True)
    assert finding.volume_ml == pytest.approx(sum(volumes)) == pytest.approx(masks.sum() * 0.0028)


def test_components_below_the_least_volume_are_in_no_mask_and_are_counted():
    probability = empty()
    probability[1, 3, 3:6] = 0.9
    probability[3, 9, 9:11] = 0.9
    probability[5, 15, 15] = 0.9
    voxel_ml = 0.8 * 0.7 * 5 / 1000
    masks, (finding,), labels = find(probability, min_volume_ml=2 * voxel_ml)
    assert [round(lesion.volume_ml / voxel_ml) for lesion in finding.lesions] == [3, 2]
    assert finding.left_out == 1
    assert masks.sum() == 5
    assert labels.sum() == 5


def test_the_threshold_is_not_part_of_the_mask():
    probability = empty()
    probability[2, 5, 5:8] = (0.2, 0.3, 0.4)
    assert find(probability, threshold=0.25)[0].sum() == 2
    assert find(probability, threshold=float(np.float32(0.3)))[0].sum() == 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("affine", [ANISOTROPIC, oblique(), oblique(35)], ids=["anisotropic", "oblique", "steep"])
def test_measures_are_those_of_plain_loops(seed, affine):
    probability = blob(seed)
    lesions = lesions_of(probability, affine)
    expected = components_loop(probability > 0.5)
    assert len(lesions) == len(expected) > 3
    by_centre = {tuple(np.round(centre_loop(voxels, affine), 3)): voxels for voxels in expected}
    for lesion in lesions:
        voxels = by_centre[tuple(np.round(lesion.centre.ras_mm, 3))]
        low, high = box_loop(voxels, affine)
        assert lesion.volume_ml == pytest.approx(len(voxels) * 0.8 * 0.7 * 5 / 1000)
        assert lesion.bounding_box.ras_mm.min == pytest.approx(low)
        assert lesion.bounding_box.ras_mm.max == pytest.approx(high)
        assert lesion.extent_mm == pytest.approx(np.subtract(high, low))
        assert lesion.longest_axial_diameter_mm == pytest.approx(longest_axial_diameter_loop(voxels, affine, 2))


@pytest.mark.parametrize("affine", [ANISOTROPIC, oblique()], ids=["anisotropic", "oblique"])
def test_volumes_centres_and_diameters_agree_with_simpleitk(affine):
    """SimpleITK measures a diameter between pixel centres: it is shorter, by at most a pixel."""
    probability = blob(5)
    image = sitk.GetImageFromArray((probability > 0.5).astype(np.uint8))
    to_lps = np.diag([-1, -1, 1.0, 1]) @ affine
    spacing = nib.affines.voxel_sizes(affine)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(to_lps[:3, 3].tolist())
    image.SetDirection((to_lps[:3, :3] / spacing).ravel().tolist())
    labels = sitk.ConnectedComponent(image, True)
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(labels)
    lesions = {tuple(np.round(lesion.centre.lps_mm, 3)): lesion for lesion in lesions_of(probability, affine)}
    assert len(lesions) == shape.GetNumberOfLabels() > 3
    for label in shape.GetLabels():
        lesion = lesions[tuple(np.round(shape.GetCentroid(label), 3))]
        assert lesion.volume_ml == pytest.approx(shape.GetPhysicalSize(label) / 1000)
        between_centres = max(feret_diameters(labels == label))
        assert between_centres + 0.7 / np.sqrt(2) <= lesion.longest_axial_diameter_mm <= between_centres + 0.8 + 1e-9


def feret_diameters(mask):
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.ComputeFeretDiameterOn()
    for z in range(mask.GetSize()[2]):
        shape.Execute(mask[:, :, z])
        if shape.GetNumberOfLabels():
            yield shape.GetFeretDiameter(1)


@pytest.mark.parametrize("order", ["RAS", "LPS", "LAS", "RPI", "IPL", "SAR", "PIR", "ASL"])
def test_stored_in_any_axis_order_a_lesion_measures_the_same_in_the_patient(order):
    """One lesion without any symmetry, so that a flipped or swapped axis shows."""
    probability = empty((7, 9, 11))
    probability[1:3, 2:5, 3:8] = 0.7
    probability[3:6, 4, 7:10] = 0.7
    probability[1, 2:8, 3] = 0.7
    image = nib.Nifti1Image(probability.transpose(2, 1, 0), ANISOTROPIC)
    change = nib.orientations.ornt_transform(nib.io_orientation(ANISOTROPIC), nib.orientations.axcodes2ornt(order))
    turned = image.as_reoriented(change)
    (expected,) = lesions_of(probability)
    (lesion,) = lesions_of(np.asarray(turned.dataobj).transpose(2, 1, 0), turned.affine)
    assert numbers(lesion) == pytest.approx(numbers(expected))
    assert expected.centre.ras_mm == pytest.approx(centre_loop(voxels_of(probability > 0), ANISOTROPIC))
    assert expected.centre.ras_mm[0] < -50 < 50 < expected.centre.lps_mm[0]


def numbers(lesion):
    box = lesion.bounding_box
    return [lesion.volume_ml, lesion.longest_axial_diameter_mm, *lesion.extent_mm, *lesion.centre.ras_mm,
            *lesion.centre.lps_mm, *box.ras_mm.min, *box.ras_mm.max, *box.lps_mm.min, *box.lps_mm.max]  # fmt: skip


def lesion(box, fit, presence_score=0.9):
    voxels = np.ones([side.stop - side.start for side in box], bool)
    return ImageLesion(Component(box, voxels), presence_score, fit)


def test_a_lesion_of_two_queries_is_in_the_label_map_as_that_which_fits_better_and_whole():
    small, large = np.s_[1:3, 2:6, 2:6], np.s_[1:3, 2:7, 2:6]
    for fits, expected in (((-1.0, -3.0), {1: 32}), ((-3.0, -1.0), {2: 40}), ((-np.inf, -9.0), {2: 40})):
        labels = label_map([[lesion(small, fits[0])], [lesion(large, fits[1], 0.6)]], (4, 10, 12))
        assert dict(zip(*np.unique(labels[labels > 0], return_counts=True), strict=True)) == expected


def test_lesions_that_share_few_voxels_are_both_in_the_label_map():
    left, right = np.s_[1:3, 2:6, 0:6], np.s_[1:3, 2:6, 5:12]
    labels = label_map([[lesion(left, -2.0)], [lesion(right, -1.0)]], (4, 10, 12))
    assert (labels == 2).sum() == 2 * 4 * 7
    assert (labels == 1).sum() == 2 * 4 * 5


def test_where_no_query_fits_better_the_more_probable_has_the_lesion():
    box = np.s_[1:3, 2:6, 2:6]
    labels = label_map([[lesion(box, -1.0, 0.7)], [lesion(box, -1.0, 0.8)]], (4, 10, 12))
    assert set(np.unique(labels)) == {0, 2}

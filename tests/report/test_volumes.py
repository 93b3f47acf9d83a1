"""What a report embeds lies where the patient's voxels lie."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from header_faults import REFUSED, with_fault, write_mha, write_nrrd
from oriented import AXIS_ORDERS, middle_ras, store
from scipy import ndimage

from nnunetv2_malenia.report.volumes import (
    Pictured,
    cropped_to_body,
    image_nifti,
    mask_nifti,
    read_pictured,
    reduced,
    without_room,
)
from nnunetv2_malenia.volumes import InputError

AFFINE = np.array([[2.0, 0, 0, -30], [0, 3.0, 0, -20], [0, 0, 5.0, 100], [0, 0, 0, 1]])
SHAPE_ZYX = (12, 22, 30)
LESION = (slice(3, 6), slice(12, 14), slice(6, 11))  # far from the middle of every axis


def oblique():
    """AFFINE turned by 20 degrees around the head-foot axis, then by 15 around the right-left axis."""
    a, b = np.radians([20, 15])
    around_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    around_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return nib.affines.from_matvec(around_x @ around_z, [5, 6, 7]) @ AFFINE


def body_with_bright_lesion():
    """(Z, Y, X): air, a body in it, and in the body a lesion of 600 HU; and the lesion's mask."""
    image = np.full(SHAPE_ZYX, -1000, np.int16)
    image[1:-1, 5:-4, 4:-6] = 40
    image[LESION] = 600
    return image, (image == 600).astype(np.uint8)


def decoded(content):
    return nib.Nifti1Image.from_bytes(gzip.decompress(content))


def stored_case(folder, order, affine):
    image, mask = body_with_bright_lesion()
    files = store(image, affine, order, folder / "i.nii.gz"), store(mask, affine, order, folder / "m.nii.gz")
    return read_pictured(*files, {}, [1]), nib.load(files[1])


@pytest.mark.parametrize("affine", [AFFINE, oblique()], ids=["along the axes", "oblique"])
@pytest.mark.parametrize("order", AXIS_ORDERS)
def test_embedded_mask_and_image_are_where_the_original_is(order, affine, tmp_path):
    case, original = stored_case(tmp_path, order, affine)
    case = cropped_to_body(case)

    mask, image = decoded(mask_nifti(case, 1)), decoded(image_nifti(case))
    bright = nib.Nifti1Image((image.get_fdata() > 500).astype(np.uint8), image.affine)

    assert np.allclose(middle_ras(mask, 1), middle_ras(original, 1), atol=1e-3)
    assert np.allclose(middle_ras(bright, 1), middle_ras(original, 1), atol=1e-3)
    assert mask.shape == image.shape


def test_both_codes_of_the_embedded_affine_agree(tmp_path):
    case, _ = stored_case(tmp_path, "LPS", AFFINE)
    image = decoded(image_nifti(case))

    assert np.allclose(image.get_qform(), image.get_sform(), atol=1e-4)


def test_air_is_cropped_but_no_mask_is_cut(tmp_path):
    image, mask = body_with_bright_lesion()
    mask[0, 0, 0] = 1  # outside the body
    paths = store(image, AFFINE, "RAS", tmp_path / "i.nii.gz"), store(mask, AFFINE, "RAS", tmp_path / "m.nii.gz")
    whole = read_pictured(*paths, {}, [1])
    cropped = cropped_to_body(whole)

    assert cropped.image.size < whole.image.size
    assert cropped.masks[1].sum() == mask.sum()


def test_room_and_table_are_emptied_but_not_the_lung_nor_the_skin_nor_a_mask():
    image = np.random.default_rng(0).normal(-995, 10, (40, 30, 12)).astype(np.float32)  # (X, Y, Z)
    body = np.zeros(image.shape, bool)
    body[5:-5, 8:-6] = True
    image[body] = 40
    image[4, 8:-6] = -600  # skin, partly air
    image[10:15, 12:20] = -850  # a lung, with vessels
    image[12, 15] = 30
    image[:, 1:3] = 60  # the table
    mask = np.zeros(image.shape, bool)
    mask[20, 5:8, 6] = True

    shown = without_room(Pictured(image, {1: mask}, AFFINE, is_ct=True)).image

    kept = ndimage.binary_dilation(body | mask)
    assert np.array_equal(shown[kept], image[kept])
    assert (shown[~kept] == -1024).all()
    assert np.array_equal(shown[4, 8:-6], image[4, 8:-6])


def test_a_lung_that_the_border_cuts_open_stays():
    image = np.full((20, 20, 8), 40, np.float32)
    image[:10, 5:15] = np.random.default_rng(0).normal(-850, 30, (10, 10, 8))  # reaches the first column
    image[3, 10] = 30  # a vessel in it

    assert np.array_equal(without_room(Pictured(image, {}, AFFINE, is_ct=True)).image, image)


@pytest.mark.parametrize("value", [40, -1000])
def test_an_image_of_one_value_stays(value):
    case = Pictured(np.full((4, 4, 4), value, np.float32), {}, AFFINE, is_ct=True)

    assert np.array_equal(without_room(case).image, case.image)


def test_reduction_keeps_to_its_limit_and_to_the_place(tmp_path):
    case, original = stored_case(tmp_path, "SLA", AFFINE)
    small = reduced(case, 500)

    assert small.image.size <= 500
    offset = middle_ras(decoded(mask_nifti(small, 1)), 1) - middle_ras(original, 1)
    assert (np.abs(offset) <= small.spacing_mm).all()


def test_a_lesion_of_one_voxel_outlives_reduction(tmp_path):
    image, mask = body_with_bright_lesion()
    mask[:] = 0
    mask[7, 11, 13] = 1
    paths = store(image, AFFINE, "RAS", tmp_path / "i.nii.gz"), store(mask, AFFINE, "RAS", tmp_path / "m.nii.gz")

    assert reduced(read_pictured(*paths, {}, [1]), 300).masks[1].sum() == 1


def test_embedded_intensities_are_within_half_a_step_of_the_image(tmp_path):
    case, _ = stored_case(tmp_path, "RAS", AFFINE)

    assert np.abs(decoded(image_nifti(case)).get_fdata() - case.image).max() <= 4.0


def test_an_image_without_hounsfield_units_keeps_its_own_range(tmp_path):
    image, mask = body_with_bright_lesion()
    paths = (
        store(np.minimum(image + 1000, 1040) / 4.0, AFFINE, "RAS", tmp_path / "i.nii.gz"),
        store(mask, AFFINE, "RAS", tmp_path / "m.nii.gz"),
    )
    case = read_pictured(*paths, {}, [1])

    assert not case.is_ct
    assert cropped_to_body(case).image.shape == case.image.shape
    assert np.abs(decoded(image_nifti(case)).get_fdata() - case.image).max() <= 0.52  # of 255 steps to 260


def test_own_mask_files_keep_voxels_that_two_queries_share(tmp_path):
    image, mask = body_with_bright_lesion()
    for name, voxels in (("i", image), ("labels", mask), ("second", mask)):
        store(voxels, AFFINE, "RAS", tmp_path / f"{name}.nii.gz")
    arguments = tmp_path / "i.nii.gz", tmp_path / "labels.nii.gz"

    assert set(read_pictured(*arguments, {}, [1, 2]).masks) == {1}
    both = read_pictured(*arguments, {2: tmp_path / "second.nii.gz"}, [1, 2]).masks
    assert both[1].sum() == both[2].sum() == mask.sum()


def test_a_label_map_of_lesions_is_the_one_query_s_mask(tmp_path):
    image, mask = body_with_bright_lesion()
    lesions = mask.copy()
    lesions[tuple(np.argwhere(mask)[0])] = 2
    paths = store(image, AFFINE, "RAS", tmp_path / "i.nii.gz"), store(lesions, AFFINE, "RAS", tmp_path / "l.nii.gz")

    assert read_pictured(*paths, {}, [1], numbers_lesions=True).masks[1].sum() == mask.sum()


@pytest.mark.parametrize("write", [write_nrrd, write_mha])
def test_a_sheared_image_of_any_format_is_shown_where_its_mask_is(write, tmp_path):
    image, mask = body_with_bright_lesion()
    sheared = AFFINE.copy()
    sheared[1, 2] = 5 * np.tan(np.radians(20))
    image_file = write(tmp_path / f"i.{write.__name__[6:]}", image.transpose(2, 1, 0), sheared)
    case = read_pictured(image_file, store(mask, sheared, "RAS", tmp_path / "m.nii.gz"), {}, [1])
    assert np.allclose(case.affine, sheared)
    assert ((case.image == 600) == case.masks[1]).all()


@pytest.mark.parametrize("fault", REFUSED)
def test_a_header_without_sense_is_refused(fault, tmp_path):
    image, mask = body_with_bright_lesion()
    whole = store(mask, AFFINE, "RAS", tmp_path / "m.nii.gz")
    bad = with_fault(tmp_path / "bad.nii.gz", image.transpose(2, 1, 0), AFFINE, fault)
    for files in ((bad, whole), (whole, bad)):
        with pytest.raises(InputError, match=r"bad\.nii\.gz"):
            read_pictured(*files, {}, [1])


def test_a_mask_on_another_grid_is_refused(tmp_path):
    image, mask = body_with_bright_lesion()
    paths = store(image, AFFINE, "RAS", tmp_path / "i.nii.gz"), store(mask[1:], AFFINE, "RAS", tmp_path / "m.nii.gz")

    with pytest.raises(InputError, match=r"m.nii.gz is of shape \(30, 22, 11\), i.nii.gz of \(30, 22, 12\); predict"):
        read_pictured(*paths, {}, [1])

"""Files as users really have them: every fault is on disk, and none of them gives a silent mask."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from tiny_model import AFFINE, SHAPE_XYZ, save_ct, tiny_ct, tiny_preparation


def prepared(path, **plans):
    return tiny_preparation(**plans)({0: path})


def fault(path, **plans):
    case = prepared(path, **plans)
    assert case.data is None
    assert case.fault is not None
    assert "\n" not in case.fault
    return case.fault


def warnings(path, **plans):
    case = prepared(path, **plans)
    assert case.fault is None
    assert np.isfinite(case.data).all()
    return case.warnings


def test_a_sound_image_is_prepared_without_a_word(tmp_path):
    case = prepared(save_ct(tmp_path / "a.nii.gz"))
    assert (case.fault, case.warnings) == (None, [])
    assert case.data.shape == (1, *SHAPE_XYZ[::-1])
    assert case.data.dtype == np.float32
    assert len(case.inputs["a.nii.gz"]) == 64


@pytest.mark.parametrize("reader", ["NibabelIO", "SimpleITKIO", "SimpleITKIOWithReorient"])
def test_no_reader_fills_a_truncated_file_with_zeros(tmp_path, reader):
    path = save_ct(tmp_path / "a.nii.gz")
    content = path.read_bytes()
    path.write_bytes(content[:-200])
    assert "damaged" in fault(path, reader=reader)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"<html>404</html>" * 50, gzip.compress(b"text" * 500)])
def test_what_is_no_image_is_not_taken_for_one(tmp_path, content):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    assert "damaged or no NIfTI" in fault(path)


def test_a_file_that_is_gone_is_a_fault_of_the_case(tmp_path):
    assert "No such file" in fault(tmp_path / "a.nii.gz")


def test_numbers_take_the_place_of_nan_and_infinity_and_are_counted(tmp_path):
    array = tiny_ct().astype(np.float32)
    array[0, 0, :3], array[5, 5, 5], array[6, 6, 6] = np.nan, np.inf, -np.inf
    (said,) = warnings(save_ct(tmp_path / "a.nii.gz", array))
    assert "5 voxels are NaN or infinite; they are read as -1000" in said


def test_an_image_without_any_number_is_refused(tmp_path):
    path = save_ct(tmp_path / "a.nii.gz", np.full(SHAPE_XYZ, np.nan, np.float32))
    assert "no voxel is a finite number" in fault(path)


@pytest.mark.parametrize("reader", ["NibabelIOWithReorient", "SimpleITKIO"])
def test_a_fourth_axis_of_length_one_is_dropped_and_a_longer_one_refused(tmp_path, reader):
    plain = prepared(save_ct(tmp_path / "a.nii.gz"), reader=reader)
    trailing = prepared(save_ct(tmp_path / "b.nii.gz", tiny_ct()[..., None]), reader=reader)
    assert trailing.fault is None
    np.testing.assert_array_equal(trailing.data, plain.data)
    assert "4-D, of shape (14, 12, 10, 2)" in fault(save_ct(tmp_path / "c.nii.gz", tiny_ct(shape=(*SHAPE_XYZ, 2))))


def test_a_2d_image_is_refused_and_a_single_slice_is_not(tmp_path):
    assert "2-D image of shape (14, 12)" in fault(save_ct(tmp_path / "a.nii.gz", tiny_ct()[..., 5]))
    (said,) = warnings(save_ct(tmp_path / "b.nii.gz", tiny_ct()[..., 5:6]))
    assert "single slice" in said


def test_channels_that_are_missing_too_many_or_on_other_grids_are_named(tmp_path):
    two = tiny_preparation(num_channels=2)
    first, second = (save_ct(tmp_path / f"a_000{i}.nii.gz") for i in range(2))
    assert two({0: first, 1: second}).fault is None
    assert "has channels [0], the model needs [0, 1]" in two({0: first}).fault
    assert "has channels [0, 1], the model needs [0]" in tiny_preparation()({0: first, 1: second}).fault
    moved = AFFINE.copy()
    moved[2, 3] += 5
    assert "a_0001.nii.gz lies up to 5 mm off a_0000.nii.gz" in two({0: first, 1: save_ct(second, affine=moved)}).fault
    short = save_ct(second, tiny_ct()[:-1])
    assert "is of shape (13, 12, 10)" in two({0: first, 1: short}).fault


def sheared():
    affine = AFFINE.copy()
    affine[0, 2] = 0.5
    return affine


@pytest.mark.parametrize("reader", ["NibabelIO", "NibabelIOWithReorient", "SimpleITKIO"])
def test_a_sheared_image_is_read_by_its_affine_with_a_warning(tmp_path, reader):
    image = nib.Nifti1Image(tiny_ct(), sheared())
    nib.save(image, tmp_path / "a.nii.gz")
    case = prepared(tmp_path / "a.nii.gz", reader=reader)
    assert case.fault is None
    assert "not at right angles" in case.warnings[0]
    np.testing.assert_allclose(case.properties["affine"], sheared())


@pytest.mark.parametrize("reader", ["NibabelIO", "NibabelIOWithReorient", "SimpleITKIO"])
def test_the_affine_is_believed_where_pixdim_says_otherwise(tmp_path, reader):
    path = save_ct(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[80:92] = np.array([1, 1, 9], "<f4").tobytes()  # pixdim[1:4]
    path.write_bytes(content)
    case = prepared(path, reader=reader)
    assert case.fault is None
    assert "pixdim says a spacing of 1 x 1 x 9 mm, the affine 4 x 4 x 5 mm" in case.warnings[0]
    assert case.properties["spacing"] == pytest.approx([5, 4, 4])
    np.testing.assert_allclose(case.properties["affine"], AFFINE)


@pytest.mark.parametrize(("scale", "size"), [(1e-3, "0.056 x 0.048 x 0.05"), (1e3, "5.6e+04 x 4.8e+04 x 5e+04")])
def test_metres_and_micrometres_are_refused(tmp_path, scale, size):
    affine = AFFINE @ np.diag([scale, scale, scale, 1])
    assert f"{size} mm large by its header" in fault(save_ct(tmp_path / "a.nii.gz", affine=affine))


def test_an_image_that_resampling_would_make_too_large_is_refused_with_the_number(tmp_path):
    path = save_ct(tmp_path / "a.nii.gz", affine=np.diag([200.0, 200.0, 200.0, 1]))
    preparation = tiny_preparation()
    preparation.configuration_manager.configuration["spacing"] = [1.0, 1.0, 1.0]
    assert "1.34e+10 voxels after resampling to 1, 1, 1 mm, more than the 5.37e+08" in preparation({0: path}).fault


@pytest.mark.parametrize(("part", "length"), [(np.s_[5, 5, 5], 1.0), (np.s_[5:9, 5:9, 5:7], 2.0)])
def test_an_image_of_which_resampling_would_leave_nothing_is_refused(tmp_path, part, length):
    array = np.zeros((30, 30, 30), np.int16)
    array[part] = 60
    said = fault(save_ct(tmp_path / "a.nii.gz", array, np.diag([1.0, 1, 1, 1])))
    assert f"only {length:g} mm of it hold other values than 0, less than half a voxel of 5 mm" in said


def test_a_slice_thinner_than_what_the_model_sees_is_refused(tmp_path):
    affine = AFFINE @ np.diag([1, 1, 0.4, 1])
    assert "only 2 mm of it" in fault(save_ct(tmp_path / "a.nii.gz", tiny_ct()[..., 5:6], affine))


def eight_bit(ct):
    return np.clip((ct + 160) / 400 * 255, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (eight_bit, "no voxel is negative (0 to"),
        (lambda ct: (ct + 1024).astype(np.uint16), "no voxel is negative (24 to"),
        (lambda ct: np.clip(ct, -160, 240), "darkest voxels are at -160: windowed"),
        (lambda ct: (ct / 1000).astype(np.float32), "darkest voxels are at -1: windowed"),
        (lambda ct: ct - 1024, "brightest voxels are at"),
        (lambda ct: np.full_like(ct, -1000), "every voxel is -1000: the image is empty"),
        (lambda ct: ct * 0, "every voxel is 0: the image is empty"),
    ],
)
def test_what_is_not_in_hounsfield_units_is_told(tmp_path, change, said):
    (warning,) = warnings(save_ct(tmp_path / "a.nii.gz", change(tiny_ct())))
    assert said in warning


def test_intensities_without_a_scale_are_not_doubted(tmp_path):
    assert warnings(save_ct(tmp_path / "a.nii.gz", eight_bit(tiny_ct())), is_ct=False) == []


def test_an_image_smaller_than_a_patch_is_prepared(tmp_path):
    path = save_ct(tmp_path / "a.nii.gz", tiny_ct(shape=(5, 6, 3)))
    assert prepared(path).data.shape == (1, 3, 6, 5)

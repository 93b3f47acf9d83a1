"""A NIfTI header is read exactly, or doubted, or refused in one line; nothing else happens, whatever its bytes are."""

import gzip
import struct

import header_faults as faults
import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnunetv2_malenia.volumes import InputError, grid_difference, open_volume, write_volume

AFFINE = np.array([[2.0, 0, 0, -20], [0, 2.0, 0, 10], [0, 0, 3.0, 30], [0, 0, 0, 1]])
VOXELS = np.arange(6 * 7 * 8, dtype=np.int16).reshape(6, 7, 8)


def edited(path, place, form, *values, voxels=VOXELS, affine=AFFINE):
    raw = faults.nifti_bytes(voxels, affine)
    struct.pack_into(form, raw, place, *values)
    return faults.store(path, raw)


def refusal(path):
    with pytest.raises(InputError) as raised:
        open_volume(path).voxels()
    message = str(raised.value)
    assert path.name in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "u2", "i4", "f4", ">f8", "i8", "u8"])
def test_every_type_of_voxel_is_read_as_it_is(tmp_path, dtype, kind, ending):
    path = faults.store(tmp_path / f"a{ending}", faults.nifti_bytes(VOXELS.astype(dtype), AFFINE, kind=kind))
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.voxels(), VOXELS.astype(dtype))
    np.testing.assert_array_equal(volume.affine, AFFINE)
    assert (volume.shape, volume.doubts, volume.tells_sides) == (VOXELS.shape, (), True)
    assert volume.is_plain == (kind is nib.Nifti1Image)


def test_a_big_endian_header_is_read_and_its_mask_is_too(tmp_path):
    image = nib.Nifti1Image(VOXELS, AFFINE, nib.Nifti1Header(endianness=">"))
    nib.save(image, tmp_path / "a.nii")
    volume = open_volume(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume.voxels(), VOXELS)
    write_volume(VOXELS.astype(np.uint16), volume.affine, tmp_path / "b.nii", volume.header)
    np.testing.assert_array_equal(open_volume(tmp_path / "b.nii").voxels(), VOXELS)


@pytest.mark.parametrize("fault", faults.REFUSED)
def test_a_header_without_sense_is_refused_in_one_line(tmp_path, fault):
    refusal(faults.with_fault(tmp_path / "a.nii.gz", VOXELS, AFFINE, fault))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "does not begin as a NIfTI file does"),
        (b"\0" * 400, "does not begin as a NIfTI file does"),
        (bytes(faults.nifti_bytes(VOXELS, AFFINE)[:200]), "does not begin"),
        (bytes(faults.nifti_bytes(VOXELS, AFFINE)).replace(b"n+1\0", b"ni1\0", 1), ".hdr/.img pair"),
        (bytes(faults.nifti_bytes(VOXELS, AFFINE)).replace(b"n+1\0", b"\0\0\0\0", 1), "does not begin"),  # Analyze
    ],
)
def test_what_is_no_single_nifti_file_is_refused(tmp_path, content, said):
    assert said in refusal(faults.store(tmp_path / "a.nii", content))


@pytest.mark.parametrize("name", ["a.hdr", "a.img", "a.dcm", "a.NII", "a"])
def test_another_kind_of_file_is_refused_by_its_name(tmp_path, name):
    assert "convert it to one of these" in refusal(faults.store(tmp_path / name, faults.nifti_bytes(VOXELS, AFFINE)))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_truncated_file_is_damaged_wherever_it_ends(tmp_path, ending, share):
    path = faults.store(tmp_path / f"a{ending}", faults.nifti_bytes(VOXELS, AFFINE))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "damaged" in refusal(path)


def test_a_checksum_that_does_not_fit_is_noticed_by_voxels_and_by_verify(tmp_path):
    path = faults.store(tmp_path / "a.nii.gz", faults.nifti_bytes(VOXELS, AFFINE))
    content = bytearray(path.read_bytes())
    content[-6] ^= 4
    path.write_bytes(content)
    assert "damaged" in refusal(path)
    with pytest.raises(InputError, match="damaged"):
        open_volume(path).verify()


def test_voxels_missing_inside_a_sound_archive_are_noticed(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(bytes(faults.nifti_bytes(VOXELS, AFFINE)[:-1])))
    assert "ends before its last voxel" in refusal(path)


def test_axes_of_length_one_beyond_the_third_are_dropped(tmp_path):
    path = faults.store(tmp_path / "a.nii", faults.nifti_bytes(VOXELS[..., None, None], AFFINE))
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.voxels(), VOXELS)
    assert not volume.is_plain


def test_a_rounded_quaternion_is_read_and_doubted(tmp_path):
    path = faults.with_rounded_quaternion(tmp_path / "a.nii.gz", VOXELS)
    with pytest.raises(ValueError, match="w2 should be positive"):
        nib.load(path)
    volume = open_volume(path)
    np.testing.assert_allclose(volume.affine, faults.TURNED, atol=1e-3)
    assert "quaternion of the qform is rounded" in volume.doubts[0]
    write_volume(VOXELS, volume.affine, tmp_path / "b.nii.gz", volume.header)
    np.testing.assert_allclose(nib.load(tmp_path / "b.nii.gz").affine, faults.TURNED, atol=1e-3)


def test_without_form_codes_left_and_right_are_a_guess_and_stay_so_in_a_mask(tmp_path):
    volume = open_volume(faults.without_form_codes(tmp_path / "a.nii.gz", VOXELS, AFFINE))
    assert not volume.tells_sides
    assert "left and right are a guess" in volume.doubts[0]
    write_volume(VOXELS, volume.affine, tmp_path / "b.nii.gz", volume.header)
    mask = open_volume(tmp_path / "b.nii.gz")
    assert not mask.tells_sides
    assert grid_difference(mask, volume) is None


@pytest.mark.parametrize("code", [-1, 9, 300])
def test_a_form_code_that_is_none_tells_no_sides(tmp_path, code):
    assert not open_volume(edited(tmp_path / "a.nii", faults.CODES, "<2h", code, code)).tells_sides


def test_a_qform_code_alone_is_enough(tmp_path):
    volume = open_volume(edited(tmp_path / "a.nii", faults.CODES, "<2h", 1, 0))
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    assert volume.doubts == ()


@pytest.mark.parametrize(("place", "values", "said"), [
    (faults.PIXDIM + 4, ("<f", 9.0), "pixdim says a spacing of 9 x 2 x 3 mm, the affine 2 x 2 x 3 mm"),
    (faults.PIXDIM + 4, ("<f", np.nan), "pixdim says a spacing of nan x 2 x 3 mm"),
    (faults.SFORM + 12, ("<f", 10.0), "sform and qform disagree by up to 30 mm; the sform is used"),
    (faults.QUATERNION, ("<f", 1e30), "sform and qform disagree"),
    (faults.UNITS, ("<B", 1), "gives metres as unit"),
    (faults.UNITS, ("<B", 3), "gives micrometres as unit"),
    (faults.SCALING, ("<2f", np.nan, 0), "scl_slope is nan; voxels are taken as they are stored"),
    (faults.SCALING, ("<2f", np.inf, 5), "scl_slope is inf; voxels are taken as they are stored"),
])  # fmt: skip
def test_what_can_be_lived_with_is_doubted(tmp_path, place, values, said):
    volume = open_volume(edited(tmp_path / "a.nii.gz", place, *values))
    assert said in volume.doubts[0]
    assert not volume.is_plain
    np.testing.assert_array_equal(volume.voxels(), VOXELS)


@pytest.mark.parametrize(("slope", "inter", "expected"), [(0, 7, VOXELS), (2, -1024, VOXELS * 2.0 - 1024)])
def test_voxels_are_scaled_as_the_standard_says(tmp_path, slope, inter, expected):
    volume = open_volume(edited(tmp_path / "a.nii.gz", faults.SCALING, "<2f", slope, inter))
    np.testing.assert_array_equal(volume.voxels(), expected)


@pytest.mark.parametrize("size", [b"\x07\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x10\0\0\0"])
def test_litter_where_extensions_may_be_is_passed_over(tmp_path, size):
    raw = faults.nifti_bytes(VOXELS, AFFINE)
    raw[348:352] = b"\1\0\0\0"
    raw[352:352] = size + b"litter, 12 b"
    struct.pack_into("<f", raw, faults.OFFSET, 352 + 16)
    volume = open_volume(faults.store(tmp_path / "a.nii", raw))
    np.testing.assert_array_equal(volume.voxels(), VOXELS)
    assert volume.extensions() == size + b"litter, 12 b"
    assert not volume.is_plain


def test_labels_stored_as_floats_are_integers_and_probabilities_are_refused(tmp_path):
    volume = open_volume(faults.store(tmp_path / "a.nii", faults.nifti_bytes(VOXELS.astype(np.float32), AFFINE)))
    assert volume.labels().dtype == np.int32
    halves = (VOXELS / 2).astype(np.float32)
    halves[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="no integers; give label maps or masks"):
        open_volume(faults.store(tmp_path / "b.nii", faults.nifti_bytes(halves, AFFINE))).labels()


def test_a_file_that_is_gone_or_a_folder_is_refused(tmp_path):
    (tmp_path / "folder.nii").mkdir()
    assert "No such file" in refusal(tmp_path / "none.nii.gz")
    refusal(tmp_path / "folder.nii")


NUMBERS = st.sampled_from([0.0, -1.0, 1e38, 1e-38, np.nan, np.inf, -np.inf])
EDITS = st.tuples(st.integers(0, 540), st.binary(max_size=8) | NUMBERS.map(lambda x: np.float32(x).tobytes()))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    kind=st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]), edits=st.lists(EDITS, max_size=4), end=st.integers(0, 99)
)
def test_any_header_is_read_as_nibabel_does_or_refused(tmp_path, kind, edits, end):
    raw = faults.nifti_bytes(VOXELS, AFFINE, kind=kind)
    for place, content in edits:
        raw[place : place + len(content)] = content
    path = faults.store(tmp_path / "a.nii", raw[: len(raw) - end] if end < 20 else raw)
    try:
        volume = open_volume(path)
        voxels = volume.voxels()
    except InputError:
        return
    assert voxels.shape == volume.shape
    write_volume(np.zeros(volume.shape, np.uint8), volume.affine, tmp_path / "b.nii", volume.header)
    assert grid_difference(open_volume(tmp_path / "b.nii"), volume) is None
    if volume.is_plain:
        np.testing.assert_allclose(nib.load(path).affine, volume.affine, rtol=1e-5)
        np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), voxels)

"""A CT series is found whatever lies beside it, and read where it lies in the patient, or refused in one line."""

import os
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import (
    AXIAL,
    FEET_FIRST_PRONE,
    OBLIQUE,
    SAGITTAL,
    change,
    slices_of,
    write_ct_series,
    write_dicomdir,
    write_object,
)
from pydicom import dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from nnunetv2_malenia.volumes import InputError
from nnunetv2_malenia.volumes.dicom import find_series, is_dicom_folder, read_series

SHAPE = (8, 5, 4)  # (K, R, C)
MR, PET, SECONDARY_CAPTURE, RAW_DATA, HTJ2K = (
    "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.66", "1.2.840.10008.1.2.4.201",
)  # fmt: skip


def hounsfield(shape=SHAPE):
    return np.random.default_rng(3).integers(-1000, 1500, shape)


@pytest.fixture
def series(tmp_path):
    return write_ct_series(tmp_path / "series", hounsfield())


def opened(folder):
    return find_series(folder, folder.name)


def fault(folder):
    with pytest.raises(InputError) as caught:
        read_series(opened(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def voxels(folder):
    return sitk.GetArrayFromImage(read_series(opened(folder)))


@pytest.mark.parametrize("orientation", [AXIAL, FEET_FIRST_PRONE, SAGITTAL, OBLIQUE])
def test_each_voxel_lies_where_its_slice_says_in_whichever_order_files_come(tmp_path, orientation):
    folder = write_ct_series(tmp_path / "a", hounsfield(), orientation, (1.5, 2.5, 3.25))
    names = np.random.default_rng(1).permutation(SHAPE[0])
    for path, number in zip(sorted(folder.iterdir()), names, strict=True):
        change(path, InstanceNumber=int(number) + 1)
        path.rename(folder / f"IM{number}")
    image = read_series(opened(folder))
    array = sitk.GetArrayFromImage(image)
    for k, path in enumerate(opened(folder).files):
        slice_ = dcmread(path)
        along_row, along_column = np.reshape(slice_.ImageOrientationPatient, (2, 3)).astype(float)
        np.testing.assert_array_equal(array[k], slice_.pixel_array.astype(float) - 1024)
        for row, column in ((0, 0), (4, 3)):
            place = np.array(slice_.ImagePositionPatient, float) + row * 2.5 * along_column + column * 1.5 * along_row
            np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((column, row, k)), place, atol=1e-3)


def beside_dicomdir(folder):
    return write_dicomdir(folder)


def beside_contours(folder):
    return write_object(folder / "rs.dcm", "1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT")


def beside_report(folder):
    return write_object(folder / "SR" / "sr", "1.2.840.10008.5.1.4.1.1.88.33", "SR")


def beside_key_images(folder):
    return write_object(folder / "ko", "1.2.840.10008.5.1.4.1.1.88.59", "KO")


def beside_pdf(folder):
    return write_object(folder / "letter", "1.2.840.10008.5.1.4.1.1.104.1", "DOC", EncapsulatedDocument=b"%PDF-1.4")


def beside_raw_data(folder):
    return write_object(folder / "raw", RAW_DATA, "CT")


def beside_pet(folder):
    return next(write_ct_series(folder / "pet", hounsfield(), Modality="PT", SOPClassUID=PET).iterdir())


def beside_dose_report(folder):
    return beside_image(folder, SOPClassUID=SECONDARY_CAPTURE, ImagePositionPatient=None, SeriesInstanceUID="1.2.7")


def beside_pages_of_a_dose_report(folder):
    return beside_image(
        folder, SOPClassUID=SECONDARY_CAPTURE, ImagePositionPatient=None, SeriesInstanceUID="1.2.7", NumberOfFrames=2,
        PixelData=bytes(4 * SHAPE[1] * SHAPE[2]),
    )  # fmt: skip


def beside_colour_image(folder):
    return beside_image(
        folder, SamplesPerPixel=3, PhotometricInterpretation="RGB", BitsAllocated=8, BitsStored=8, HighBit=7,
        PlanarConfiguration=0, PixelData=bytes(SHAPE[1] * SHAPE[2] * 3),
    )  # fmt: skip


def beside_localizers(folder):
    for z in (0, 1):
        beside_image(
            folder, f"scout_{z}", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesInstanceUID="1.2.7",
            ImageOrientationPatient=list(SAGITTAL), ImagePositionPatient=[z, 0, 0],
        )  # fmt: skip
    return folder / "scout_0"


def beside_localizer_of_the_same_series(folder):
    return beside_image(
        folder, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImageOrientationPatient=list(SAGITTAL)
    )  # fmt: skip


def beside_bolus_images(folder):
    for number in range(3):
        beside_image(folder, f"bolus_{number}", SeriesInstanceUID="1.2.7", SOPInstanceUID=f"1.2.7.{number}")
    return folder / "bolus_0"


def beside_image(folder, name="beside", **attributes):
    shutil.copy(folder / "000.dcm", folder / name)
    change(folder / name, **attributes)
    return folder / name


def beside_viewer(folder):
    (folder / "viewer").mkdir()
    (folder / "viewer" / "run.exe").write_bytes(b"MZ" + bytes(300))
    return folder / "viewer" / "run.exe"


BESIDE = [value for name, value in globals().items() if name.startswith("beside_") and name != "beside_image"]


@pytest.mark.parametrize("add", BESIDE)
def test_what_else_lies_in_the_folder_is_named_and_not_used(series, add):
    expected, slices = voxels(series), {path.name for path in series.iterdir()}
    added = add(series)
    (series / "._hidden.dcm").write_bytes(b"of a Mac")
    assert is_dicom_folder(series)
    found = opened(series)
    assert {path.name for path in found.files} == slices
    assert added not in found.files
    assert len(found.notes) == 1
    np.testing.assert_array_equal(voxels(series), expected)


def test_the_note_says_what_it_was(series):
    assert opened(series).notes == ()
    for add in BESIDE:
        add(series)
    (note,) = opened(series).notes
    for said in (
        "directory (DICOMDIR)", "RTSTRUCT (rs.dcm)", "SR (sr)", "KO (ko)", "DOC (letter)", "PT (8)",
        "localizer images (3)", "other files (run.exe)", "CT objects without an image (raw)",
    ):  # fmt: skip
        assert said in note


@pytest.mark.parametrize("with_meta", [True, False])
@pytest.mark.parametrize("is_implicit", [True, False])
def test_slices_without_preamble_are_read(series, with_meta, is_implicit):
    expected = voxels(series)
    for path in list(series.iterdir()):
        slice_ = dcmread(path)
        if is_implicit:
            slice_.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        slice_.save_as(path, implicit_vr=is_implicit, little_endian=True, enforce_file_format=True)
        content = path.read_bytes()[132:]
        if not with_meta:
            content = content[12 + int.from_bytes(content[8:12], "little") :]
        path.unlink()
        path.with_suffix("").write_bytes(content)
    assert is_dicom_folder(series)
    np.testing.assert_array_equal(voxels(series), expected)


def test_slices_in_folders_below_are_one_volume(series):
    expected = voxels(series)
    for number, path in enumerate(sorted(series.iterdir())):
        place = series / "DICOM" / f"SE{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / f"IM{number:04d}")
    write_dicomdir(series)
    os.symlink(series, series / "DICOM" / "loop")
    np.testing.assert_array_equal(voxels(series), expected)
    assert opened(series).notes == ("beside the CT series, not used: directory (DICOMDIR)",)
    holder = series.parent / "holder"
    holder.mkdir()
    os.symlink(series / "DICOM", holder / "linked")
    np.testing.assert_array_equal(voxels(holder), expected)


def test_volumes_in_folders_below_are_listed_with_their_places(series):
    for place, uid in (("arterial", "1.2.3"), ("venous", "1.2.4")):
        write_ct_series(series / place, hounsfield(), SeriesInstanceUID=uid, SeriesDescription=f"{place} Gefäße")
    said = fault(series)
    assert "3 DICOM series" in said
    assert "8 slices, venous Gef" in said
    assert "in venous" in said
    said.encode("utf-8")


def test_a_folder_without_ct_says_what_it_holds(tmp_path):
    folder = write_ct_series(tmp_path / "mr", hounsfield(), Modality="MR", SOPClassUID=MR)
    assert not is_dicom_folder(folder)
    assert "no CT volume, only MR (8)" in fault(folder)


@pytest.mark.parametrize("is_rewritten", [False, True])
def test_copies_of_slices_count_once(series, is_rewritten):
    expected = voxels(series)
    copied = sorted(series.iterdir())[:3]
    (series / "copy").mkdir()
    for path in copied:
        shutil.copy(path, series / "copy")
        if is_rewritten:
            change(series / "copy" / path.name, InstitutionName="copied")
    assert "copies of slices (3)" in opened(series).notes[0]
    np.testing.assert_array_equal(voxels(series), expected)


def test_another_image_of_the_same_identifier_is_no_copy(series):
    path = beside_image(series, "again")
    change(path, PixelData=bytes(SHAPE[1] * SHAPE[2] * 2))
    assert "0 mm apart, others 5 mm" in fault(series)


def renumbered(folder, uid, first, **attributes):
    """Move a series' files up, as slices of the same series with numbers of their own."""
    for number, path in enumerate(slices_of(folder)):
        change(path, SOPInstanceUID=f"1.2.{uid}.{number}", InstanceNumber=first + number, **attributes)
        path.rename(folder.parent / "series" / f"{uid}_{path.name}")
    folder.rmdir()


def shifted(tmp_path, mm, **attributes):
    """A second pass into the series' folder, mm further up."""
    folder = write_ct_series(tmp_path / "second", hounsfield())
    for path in folder.iterdir():
        x, y, z = dcmread(path).ImagePositionPatient
        change(path, ImagePositionPatient=[x, y, float(z) + mm])
    renumbered(folder, 9, 100, **attributes)


@pytest.mark.parametrize("mm", [2.5, 0.0, 5.0, 31.7])
@pytest.mark.parametrize("is_numbered", [True, False])
def test_two_passes_in_one_series_are_refused(tmp_path, series, mm, is_numbered):
    for number, path in enumerate(slices_of(series)):
        change(path, InstanceNumber=1 + number, **({"AcquisitionNumber": 1} if is_numbered else {}))
    shifted(tmp_path, mm, **({"AcquisitionNumber": 2} if is_numbered else {}))
    said = fault(series)
    if is_numbered and mm < 35:
        assert "acquisition number 1 and 2" in said
    else:
        assert "mm apart" in said or "slices apart" in said


def test_a_second_pass_that_goes_on_where_the_first_ends_is_the_same_volume(tmp_path, series):
    for path in series.iterdir():
        change(path, AcquisitionNumber=1)
    shifted(tmp_path, 40.0, AcquisitionNumber=2)
    image = read_series(opened(series))
    assert image.GetSize() == (4, 5, 16)
    assert image.GetSpacing() == pytest.approx((4, 4, 5))


def test_each_slice_may_be_an_acquisition_of_its_own(series):
    for number, path in enumerate(slices_of(series)):
        change(path, AcquisitionNumber=number)
    assert read_series(opened(series)).GetSize() == (4, 5, 8)


def moved(series, where):
    """where: positions (x, y, z) -> other ones, in slice order."""
    paths = slices_of(series)
    for k, path in enumerate(paths):
        place = np.array(dcmread(path).ImagePositionPatient, float)
        change(path, ImagePositionPatient=[float(f"{each:.8g}") for each in place + where(k)])


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (lambda k: (0, 0, 0.5 * max(0, k - 3)), "5 mm apart, others 5.5 mm"),  # another step in one half
        (lambda k: (0, 0.5 * k, 0), "a gantry tilt of 5.71 degrees"),
        (lambda k: (0.4 * k, 0, 0), "a gantry tilt of 4.57 degrees"),
        (lambda k: (3.0 * (k == 4), 0, 0), "slice 5 lies 3 mm beside the line"),
        (lambda k: (k, 0, -5 * k), "all 8 slices lie in one plane"),
    ],
)
def test_slices_off_a_regular_grid_are_refused(series, where, said):
    moved(series, where)
    assert said in fault(series)


def test_rounded_positions_are_a_regular_grid(series):
    moved(series, lambda k: (0, 0, 0.04 * (-1) ** k))
    assert read_series(opened(series)).GetSpacing()[2] == pytest.approx(5, abs=0.02)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"PixelSpacing": None}, "do not state their pixel spacing"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "not at right angles"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.1, 0.99, 0]}, "not at right angles"),
        ({"ImageOrientationPatient": None}, "no CT volume, only CT images without position (8)"),
    ],
)
def test_a_series_without_a_grid_is_refused(series, attributes, said):
    for path in series.iterdir():
        change(path, **attributes)
    assert said in fault(series)


def test_a_slice_without_position_is_counted(series):
    change(slices_of(series)[2], ImagePositionPatient=None)
    assert "1 of 8 slices do not state their position" in fault(series)


def test_each_slice_is_rescaled_by_itself(series):
    expected = voxels(series)
    paths = slices_of(series)
    signed = (expected[3] * 2).astype("<i2")
    change(paths[3], PixelRepresentation=1, RescaleSlope="0.5", RescaleIntercept="0", PixelData=signed.tobytes())
    change(paths[4], RescaleSlope="0.25")
    expected[4] = (expected[4] + 1024) / 4 - 1024
    np.testing.assert_array_equal(voxels(series), expected)


def test_compressed_slices_are_read(tmp_path):
    series = write_ct_series(tmp_path / "series", hounsfield((3, 14, 12)))
    expected = voxels(series)
    for path in series.iterdir():
        slice_ = dcmread(path)
        slice_.compress(RLELossless, generate_instance_uid=False)
        slice_.save_as(path)
    np.testing.assert_array_equal(voxels(series), expected)


def compressed(path, syntax):
    """A slice with one fragment of voxels, which nobody here can decode."""
    slice_ = dcmread(path)
    slice_.file_meta.TransferSyntaxUID = HTJ2K
    slice_.PixelData = b"\xfe\xff\0\xe0\0\0\0\0\xfe\xff\0\xe0\4\0\0\0\xff\x4f\xff\x51\xfe\xff\xdd\xe0\0\0\0\0"
    slice_["PixelData"].is_undefined_length = True
    slice_.save_as(path, implicit_vr=False, little_endian=True)
    path.write_bytes(path.read_bytes().replace(HTJ2K.encode(), syntax.ljust(len(HTJ2K), "\0").encode()))


@pytest.mark.parametrize(
    ("syntax", "said"),
    [
        (HTJ2K, "compressed as High-Throughput JPEG 2000"),
        ("1.2.840.10008.1.2.4.110", "compressed as JPEG XL"),
        ("1.2.840.10008.1.2.4.090", "cannot be read as a CT slice"),  # unheard of
    ],
)
def test_a_compression_that_cannot_be_read_is_named(series, syntax, said):
    for path in series.iterdir():
        compressed(path, syntax)
    assert said in fault(series)
    assert f"transfer syntax {syntax})" in fault(series)


def test_compressed_voxels_that_are_damaged_are_refused(tmp_path):
    series = write_ct_series(tmp_path / "series", hounsfield((3, 14, 12)))
    path = next(series.iterdir())
    slice_ = dcmread(path)
    slice_.compress(RLELossless, generate_instance_uid=False)
    slice_.PixelData = encapsulate([b"\2" + bytes(63) + b"\xff" * 8])
    slice_.save_as(path)
    assert f"the voxels of {path.name} cannot be decoded (transfer syntax {RLELossless})" in fault(series)


@pytest.mark.parametrize("content", [b"", bytes(4000), b"<html>not found</html>"])
def test_a_slice_that_was_overwritten_is_not_passed_over(series, content):
    slices_of(series)[-1].write_bytes(content)
    assert "is damaged, or no DICOM file" in fault(series)


def test_a_truncated_last_slice_is_not_passed_over(series):
    path = slices_of(series)[-1]
    path.write_bytes(path.read_bytes()[:-30])
    assert f"{path.name} cannot be read as a CT slice" in fault(series)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_slice_with_too_few_voxels_is_refused(series, syntax):
    expected = voxels(series)
    for path in series.iterdir():
        slice_ = dcmread(path)
        slice_.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            slice_.PixelData = np.frombuffer(slice_.PixelData, "<u2").byteswap().tobytes()
            slice_.walk(lambda *_: None)  # decodes each element, which would be written as it was read
        dcmwrite(path, slice_, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    np.testing.assert_array_equal(voxels(series), expected)
    path = slices_of(series)[3]
    change(path, PixelData=dcmread(path).PixelData[: SHAPE[1] * SHAPE[2]])
    assert f"{path.name} holds fewer voxels than its header says" in fault(series)


def test_voxels_of_unknown_type_are_read(tmp_path):
    series = write_ct_series(tmp_path / "series", hounsfield((2, 128, 96)))
    expected = voxels(series)
    for path in series.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\xe0\x7f\x10\0OW", b"\xe0\x7f\x10\0UN"))
    np.testing.assert_array_equal(voxels(series), expected)


def test_slices_of_two_patients_are_refused_and_not_named(series):
    change(slices_of(series)[3], PatientID="SECRET-2")
    assert "slices of different patients" in (said := fault(series))
    assert "SECRET" not in said


def test_a_slice_may_lack_its_patient(series):
    change(slices_of(series)[3], PatientID=None)
    assert opened(series).notes == ()


@pytest.mark.parametrize("slope", ["0", "0.000"])
def test_a_slice_without_contrast_by_its_rescaling_is_refused(series, slope):
    path = slices_of(series)[3]
    change(path, RescaleSlope=slope)
    assert f"{path.name} has the rescale slope {slope}" in fault(series)


@pytest.mark.parametrize("modality", ["MR", "PT"])
def test_ct_images_that_say_another_modality_are_no_ct(series, modality):
    for path in series.iterdir():
        change(path, Modality=modality)
    assert not is_dicom_folder(series)
    assert f"no CT volume, only {modality} (8)" in fault(series)


def test_ct_images_need_not_say_their_modality(series):
    expected = voxels(series)
    for path in series.iterdir():
        change(path, Modality=None)
    np.testing.assert_array_equal(voxels(series), expected)


def test_a_slice_to_be_shown_inverted_is_refused(series):
    path = slices_of(series)[3]
    change(path, PhotometricInterpretation="MONOCHROME1")
    assert f"{path.name} is inverted (MONOCHROME1)" in fault(series)


def padded(series, stored, is_signed, limits, vr):
    """Fill the left column of each slice, and one voxel inside, with a stored value. Returns the voxels before."""
    before = voxels(series)
    values = (before if is_signed else before + 1024).astype("<i2" if is_signed else "<u2")
    values[:, :, 0] = values[:, 2, 2] = stored
    for path, pixels in zip(opened(series).files, values, strict=True):
        slice_ = dcmread(path)
        slice_.PixelRepresentation, slice_.RescaleIntercept = int(is_signed), 0 if is_signed else -1024
        for tag, limit in zip((0x280120, 0x280121), limits, strict=False):
            slice_.add_new(tag, vr, limit)
        slice_.PixelData = pixels.tobytes()
        slice_.save_as(path)
    return before


@pytest.mark.parametrize(
    ("stored", "is_signed", "limits", "vr"),
    [(0, True, [0], "SS"), (4095, False, [4095], "US"), (4000, False, [4095, 3900], "US"), (65535, False, [-1], "SS")],
)
def test_padding_at_the_edges_is_air(series, stored, is_signed, limits, vr):
    expected = padded(series, stored, is_signed, limits, vr)
    expected[:, :, 0], expected[:, 2, 2] = -1024, stored - (0 if is_signed else 1024)
    assert opened(series).notes == ("8 slices state a padding above -1024 HU; at their edges it is read as -1024 HU",)
    np.testing.assert_array_equal(voxels(series), expected)


@pytest.mark.parametrize(
    ("stored", "is_signed", "limits", "vr"),
    [(-2000, True, [-2000], "SS"), (-2000, True, [2**16 - 2000], "US"), (0, False, [0], "US")],
)
def test_padding_that_is_no_more_than_air_is_read_as_stored(series, stored, is_signed, limits, vr):
    expected = padded(series, stored, is_signed, limits, vr)
    expected[:, :, 0] = expected[:, 2, 2] = stored - (0 if is_signed else 1024)
    assert opened(series).notes == ()
    np.testing.assert_array_equal(voxels(series), expected)

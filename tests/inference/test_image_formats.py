"""NRRD, MHA and DICOM are read as the same image in NIfTI is; what is damaged or ambiguous is refused."""

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_ct_series
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedCTImageStorage
from tiny_model import save_ct, tiny_ct, tiny_preparation, write_tiny_model

from nnunetv2_malenia.attributes.schema import AttributeTable
from nnunetv2_malenia.inference.cases import find_cases
from nnunetv2_malenia.inference.predictor import MaleniaPredictor

OBLIQUE = np.array([[0.96, 0.28, 0], [-0.28, 0.96, 0], [0, 0, 1.0]])


def image(direction=OBLIQUE):
    ct = sitk.GetImageFromArray(tiny_ct().transpose(2, 1, 0))
    ct.SetSpacing((4.0, 4.0, 5.0))
    ct.SetOrigin((-30.0, 10.0, 100.0))
    ct.SetDirection(direction.ravel().tolist())
    return ct


def as_nifti(path):
    sitk.WriteImage(image(), str(path))
    return path


def write_series(folder, *, uid="1.2.826.1", leave_out=(), shift_mm=0.0, name="abdomen"):
    """An axial CT series; shift_mm: how far each slice lies beside the one before, as with a tilted gantry."""
    folder.mkdir(parents=True, exist_ok=True)
    volume, writer = image(np.eye(3)), sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z in set(range(volume.GetSize()[2])) - set(leave_out):
        plane = volume[:, :, z]
        tags = {
            "0008|0060": "CT", "0008|0018": f"{uid}.1.{z + 1}", "0008|103e": name, "0020|000d": "1.2.826",
            "0020|000e": uid, "0020|0052": "1.2.826.9", "0020|0013": str(z + 1), "0018|0050": "5",
            "0020|0032": f"-30\\{10 + shift_mm * z}\\{100 + 5 * z}", "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|0030": "4\\4", "0028|1052": "0", "0028|1053": "1",
        }  # fmt: skip
        for tag, value in tags.items():
            plane.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{uid}_{z:03d}.dcm"))
        writer.Execute(plane)
    return folder


def prepare(path):
    return tiny_preparation()({0: path})


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_nrrd_and_mha_are_read_as_nifti_is(tmp_path, ending, compressed):
    sitk.WriteImage(image(), str(tmp_path / f"a{ending}"), compressed)
    case, expected = prepare(tmp_path / f"a{ending}"), prepare(as_nifti(tmp_path / "a.nii.gz"))
    assert case.fault is None
    np.testing.assert_array_equal(case.data, expected.data)
    np.testing.assert_allclose(case.properties["stored_affine"], expected.properties["stored_affine"])
    np.testing.assert_allclose(case.properties["stored_affine"][:3, 3], (30, -10, 100))
    assert case.warnings == []


def test_a_dicom_series_is_read_as_nifti_is(tmp_path):
    sitk.WriteImage(image(np.eye(3)), str(tmp_path / "a.nii.gz"))
    case, expected = prepare(write_series(tmp_path / "series")), prepare(tmp_path / "a.nii.gz")
    assert case.fault is None
    np.testing.assert_array_equal(case.data, expected.data)
    np.testing.assert_allclose(case.properties["stored_affine"], expected.properties["stored_affine"], atol=1e-4)
    assert len(case.inputs["series"]) == 64


def test_two_series_in_a_folder_are_named_and_none_is_chosen(tmp_path):
    write_series(tmp_path / "two", name="arterial")
    write_series(tmp_path / "two", uid="1.2.826.2", name="venous", leave_out=(9,))
    fault = prepare(tmp_path / "two").fault
    assert "2 DICOM series" in fault
    assert "10 slices, arterial" in fault
    assert "9 slices, venous" in fault


def test_a_missing_slice_is_refused_with_its_place(tmp_path):
    fault = prepare(write_series(tmp_path / "gap", leave_out=(4,))).fault
    assert "slices 4 and 5 are 10 mm apart, others 5 mm" in fault


def test_a_tilted_gantry_is_refused_with_the_angle(tmp_path):
    fault = prepare(write_series(tmp_path / "tilt", shift_mm=1.0)).fault
    assert "gantry tilt of 11.3 degrees" in fault


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"PixelSpacing": [2, 2]}, "different pixel spacing (4 x 4 and 2 x 2)"),
        ({"Rows": 7, "PixelData": bytes(2 * 7 * 12)}, "different rows (14 and 7)"),
        ({"FrameOfReferenceUID": "1.2.3"}, "different frames of reference"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "different orientation"),
        ({"ImagePositionPatient": [-30, 10, 116]}, "slices 3 and 4 are 6 mm apart, others 5 mm"),
        ({"ImagePositionPatient": [-30, 10, 120]}, "0 mm apart, others 5 mm"),
    ],
)
def test_a_slice_that_is_not_of_the_volume_is_refused(tmp_path, attributes, said):
    folder = write_ct_series(tmp_path / "series", tiny_ct(shape=(10, 14, 12)))
    assert prepare(folder).fault is None
    path = next(path for path in folder.iterdir() if dcmread(path).ImagePositionPatient[2] == 115)
    slice_ = dcmread(path)
    for keyword, value in attributes.items():
        setattr(slice_, keyword, value)
    slice_.save_as(path)
    assert said in prepare(folder).fault


def test_a_multi_frame_file_is_refused_with_what_to_do(tmp_path):
    slices = [dcmread(path) for path in write_ct_series(tmp_path / "a", tiny_ct(shape=(10, 14, 12))).iterdir()]
    enhanced = slices[0]
    enhanced.file_meta.MediaStorageSOPClassUID = enhanced.SOPClassUID = EnhancedCTImageStorage
    shared, places = Dataset(), [Dataset() for _ in slices]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [Dataset()], [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = enhanced.ImageOrientationPatient
    shared.PixelMeasuresSequence[0].PixelSpacing = enhanced.PixelSpacing
    for place, slice_ in zip(places, slices, strict=True):
        place.PlanePositionSequence = [Dataset()]
        place.PlanePositionSequence[0].ImagePositionPatient = slice_.ImagePositionPatient
    enhanced.SharedFunctionalGroupsSequence, enhanced.PerFrameFunctionalGroupsSequence = [shared], places
    enhanced.PixelData = b"".join(slice_.PixelData for slice_ in slices)
    enhanced.NumberOfFrames = len(slices)
    del enhanced.ImagePositionPatient, enhanced.ImageOrientationPatient, enhanced.PixelSpacing
    (tmp_path / "enhanced").mkdir()
    enhanced.save_as(tmp_path / "enhanced" / "all.dcm")
    assert "a multi-frame (enhanced) DICOM file" in prepare(tmp_path / "enhanced").fault


def test_a_truncated_slice_is_refused(tmp_path):
    folder = write_series(tmp_path / "series")
    path = sorted(folder.iterdir())[4]
    path.write_bytes(path.read_bytes()[:-100])
    assert prepare(folder).fault is not None
    path.write_bytes(path.read_bytes()[:200])
    assert prepare(folder).fault is not None


def test_each_folder_with_a_series_is_a_case_beside_files(tmp_path):
    write_series(tmp_path / "scan_0001")
    (tmp_path / "empty").mkdir()
    save_ct(tmp_path / "a.nii.gz")
    sitk.WriteImage(image(), str(tmp_path / "b_0000.nrrd"))
    found = find_cases(tmp_path, ".nii.gz", 1)
    assert {case: files[0].name for case, files in found.files.items()} == {
        "a": "a.nii.gz", "b": "b_0000.nrrd", "scan_0001": "scan_0001",
    }  # fmt: skip
    assert list(find_cases(tmp_path / "scan_0001", ".nii.gz", 1).files) == ["scan_0001"]


def test_results_are_nifti_in_the_images_own_geometry(tmp_path):
    predictor = MaleniaPredictor.from_model_folder(write_tiny_model(tmp_path / "model"), device="cpu")
    predictor.ask(AttributeTable(lesions={"liver tumor": {"location": "liver"}}))
    write_series(tmp_path / "images" / "series")
    sitk.WriteImage(image(), str(tmp_path / "images" / "turned.nrrd"))
    out = tmp_path / "out"
    run = predictor.predict_cases(tmp_path / "images", out, num_processes_preprocessing=0, num_processes_export=0)
    assert run.failed == {}
    for case_id, direction in (("series", np.eye(3)), ("turned", OBLIQUE)):
        result = sitk.ReadImage(str(out / f"{case_id}.nii.gz"))
        assert result.GetSize() == image().GetSize()
        np.testing.assert_allclose(result.GetOrigin(), (-30, 10, 100), atol=1e-3)
        np.testing.assert_allclose(result.GetSpacing(), (4, 4, 5), atol=1e-4)
        np.testing.assert_allclose(result.GetDirection(), direction.ravel(), atol=1e-5)

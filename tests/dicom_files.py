"""DICOM files written and read by pydicom alone, voxel by voxel in patient coordinates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MediaStorageDirectoryStorage

AXIAL = (1, 0, 0, 0, 1, 0)
FEET_FIRST_PRONE = (1, 0, 0, 0, -1, 0)  # the slices' normal points to the feet
SAGITTAL = (0, 1, 0, 0, 0, -1)
OBLIQUE = (0.96, 0.28, 0, -0.28, 0.96, 0)
SERIES_UID = "1.2.826.0.1.3680043.8.498.2"
PATIENT = {
    "PatientName": "Müstermann^Zacharias", "PatientID": "SECRET-4711", "PatientBirthDate": "19470228",
    "PatientSex": "M", "AccessionNumber": "ACC-0815", "StudyID": "STUDY-99", "StudyDate": "20200102",
    "StudyTime": "030405", "ReferringPhysicianName": "Quincy^Jack",
}  # fmt: skip


def write_ct_series(folder: Path, hounsfield: np.ndarray, orientation=AXIAL, spacing=(4.0, 4.0, 5.0), **attributes):
    """hounsfield (K, R, C): slices along the normal; spacing of columns, rows, slices. None removes an attribute.

    File names and instance numbers run against the slices, so that only their positions tell the order.
    """
    folder.mkdir(parents=True)
    along = np.reshape(orientation, (2, 3)).astype(float)
    normal = np.cross(*along)
    for k, pixels in enumerate(hounsfield):
        slice_ = Dataset()
        slice_.file_meta = FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, f"{SERIES_UID}.{1 + (7 * k) % 101}"
        slice_.SpecificCharacterSet, slice_.Modality = "ISO_IR 100", "CT"
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.1", SERIES_UID
        slice_.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.3"
        slice_.InstanceNumber, slice_.SeriesNumber = len(hounsfield) - k, 4
        slice_.SliceThickness, slice_.PixelSpacing = 3.0, [spacing[1], spacing[0]]
        slice_.ImageOrientationPatient = [float(each) for each in orientation]
        slice_.ImagePositionPatient = [
            float(f"{each:.6g}") for each in np.array([-30, 10, 100]) + k * spacing[2] * normal
        ]
        slice_.Rows, slice_.Columns = pixels.shape
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated = slice_.BitsStored = 16
        slice_.HighBit, slice_.PixelRepresentation = 15, 0
        slice_.RescaleIntercept, slice_.RescaleSlope = -1024, 1
        slice_.PixelData = (pixels + 1024).astype("<u2").tobytes()
        for keyword, value in (PATIENT | attributes).items():
            if value is None:
                delattr(slice_, keyword) if keyword in slice_ else None
            else:
                setattr(slice_, keyword, value)
        slice_.save_as(folder / f"{(5 * k) % 97:03d}.dcm", enforce_file_format=True)
    return folder


def slices_of(folder: Path) -> list[Path]:
    """The files of a series by slice position along z."""
    return sorted(folder.iterdir(), key=lambda path: dcmread(path).ImagePositionPatient[2])


def change(path: Path, **attributes) -> None:
    """Set attributes of a DICOM file; None removes one."""
    slice_ = dcmread(path)
    for keyword, value in attributes.items():
        delattr(slice_, keyword) if value is None else setattr(slice_, keyword, value)
    slice_.save_as(path)


def write_object(path: Path, sop_class: str, modality: str, **attributes) -> Path:
    """A DICOM object without pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    thing = Dataset()
    thing.file_meta = FileMetaDataset()
    thing.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    thing.SOPClassUID, thing.SOPInstanceUID = sop_class, f"{SERIES_UID}.7000"
    thing.Modality, thing.SeriesInstanceUID = modality, f"{SERIES_UID}.7"
    for keyword, value in attributes.items():
        setattr(thing, keyword, value)
    thing.save_as(path, enforce_file_format=True)
    return path


def write_dicomdir(folder: Path) -> Path:
    """A DICOMDIR that lists one series of CT images."""
    record = Dataset()
    record.DirectoryRecordType, record.Modality, record.SeriesInstanceUID = "SERIES", "CT", SERIES_UID
    directory = Dataset()
    directory.file_meta = FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = f"{SERIES_UID}.8000"
    directory.FileSetID, directory.DirectoryRecordSequence = "EXPORT", [record]
    directory.save_as(folder / "DICOMDIR", enforce_file_format=True)
    return folder / "DICOMDIR"


def segment_points(path: Path) -> dict[int, np.ndarray]:
    """Segment number -> (N, 3): its voxels' centres in the patient (LPS, mm), by the frames' own positions."""
    segmentation = dcmread(path)
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    along_row, along_column = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(
        float
    )
    row_step, column_step = shared.PixelMeasuresSequence[0].PixelSpacing
    points = {int(segment.SegmentNumber): [] for segment in segmentation.SegmentSequence}
    for groups, pixels in frames(segmentation):
        corner = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        for row, column in np.argwhere(pixels):
            place = corner + column * column_step * along_row + row * row_step * along_column
            points[groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber].append(place)
    return {number: np.reshape(places, (-1, 3)) for number, places in points.items()}


def frames(segmentation: Dataset) -> list[tuple[Dataset, np.ndarray]]:
    """Each frame's functional groups and its pixels (R, C)."""
    shape = (segmentation.NumberOfFrames, segmentation.Rows, segmentation.Columns)
    pixels = segmentation.pixel_array.reshape(shape)
    return list(zip(segmentation.PerFrameFunctionalGroupsSequence, pixels, strict=True))

"""A case's masks as a DICOM Segmentation of the series that they were found in; needs the extra `dicom`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_malenia import __version__
from nnunetv2_malenia.attributes.schema import LesionQuery
from nnunetv2_malenia.inference.model_folder import PredictionError
from nnunetv2_malenia.volumes import InputError
from nnunetv2_malenia.volumes.dicom import Series, find_series

if TYPE_CHECKING:
    from pydicom import Dataset

    from nnunetv2_malenia.inference.dicom_attributes import Attributes

PRODUCT = "nnunetv2_malenia"
SERIES_NUMBER = 300  # behind those of scanners, for where a viewer sorts by it
MAX_LABEL = 64  # characters in a value of the kind LO (long string)
_NOT_VALID = (ValueError, TypeError, KeyError, AttributeError, NotImplementedError)  # of pydicom and highdicom
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "PixelSpacing")
_OF_A_SLICE = [
    *_NEEDED, "SOPClassUID", "Modality", "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient",
]  # fmt: skip
_MAY_BE_EMPTY = (  # in a segmentation, and is not there at all in many anonymised series
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex",
    "AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


def check_dicom_seg(cases: Mapping[str, Mapping[int, Path]]) -> None:
    """Raise PredictionError when highdicom is not installed, or a case (id -> files by channel) is no DICOM series."""
    if find_spec("highdicom") is None:
        raise PredictionError("--save_dicom_seg needs highdicom; run `pip install nnunetv2_malenia[dicom]`")
    for case_id, channels in cases.items():
        for path in channels.values():
            if not path.is_dir():
                raise PredictionError(
                    f"--save_dicom_seg takes DICOM series, but case {case_id} is {path.name}; leave the option out, or "
                    "give the folder of its DICOM slices"
                )


def write_dicom_seg(
    name: str,
    folder: Path,
    masks: np.ndarray,
    queries: Sequence[LesionQuery],
    *,
    asked_sha256: str,
    notes: list[str],
) -> None:
    """Store masks as one SEG object of type BINARY: segment i + 1 is query i, empty or not; segments may overlap.

    folder: the source series, whose patient, study, frame of reference and slice positions are taken over.
    masks (Q, X, Y, Z) bool, in the order of columns, rows and sorted slices: that of `volumes.dicom.read_series`.
    Frames without a voxel are left out; when all are, the first slice's are stored. What of patient and study cannot be
    taken over as it is comes to `notes`, in words without the values. Raises InputError when the series lacks
    identifiers.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd values of the source, which they quote
        series = find_series(folder, folder.name)
        frames = masks.transpose(3, 2, 1, 0).astype(np.uint8)  # (slices, rows, columns, segments)
        try:
            attributes = _attributes(series)
            segmentation = _segmentation(series, attributes.dataset, frames, queries, asked_sha256)
            segmentation.save_as(name)
        except InputError:
            raise
        except _NOT_VALID as error:  # whose text may quote the patient's data
            raise InputError(
                f"{folder.name}: attributes of the slices are not valid DICOM ({type(error).__name__}); correct them, "
                "or leave --save_dicom_seg out"
            ) from error
        notes += _not_taken_over(attributes, segmentation)


def _attributes(series: Series) -> Attributes:
    """Of the first slice, with all that a segmentation asks for."""
    from pydicom import dcmread

    from nnunetv2_malenia.inference.dicom_attributes import Attributes

    attributes = Attributes(dcmread(series.files[0], stop_before_pixels=True, force=True))
    first = attributes.dataset
    if absent := [keyword for keyword in _NEEDED if not first.get(keyword)]:
        raise InputError(f"{series.name}: the slices have no {', '.join(absent)}, which a DICOM-SEG refers to")
    for keyword in _MAY_BE_EMPTY:
        if keyword not in first:
            setattr(first, keyword, None)
    first.SliceThickness = first.get("SliceThickness") or series.grid.spacing[2]
    return attributes


def _segmentation(
    series: Series, first: Dataset, frames: np.ndarray, queries: Sequence[LesionQuery], asked_sha256: str
) -> Dataset:
    import highdicom as hd
    from pydicom import dcmread

    planes = slice(None) if frames.any() else slice(1)
    slices = [first, *(dcmread(file, specific_tags=_OF_A_SLICE, force=True) for file in series.files[1:])]
    column_step, row_step, spacing = series.grid.spacing
    segmentation = hd.seg.Segmentation(
        source_images=slices[planes],
        pixel_array=frames[planes],
        omit_empty_frames=bool(frames.any()),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(number, query.name) for number, query in enumerate(queries, start=1)],
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=PRODUCT,
        manufacturer_model_name=PRODUCT,
        software_versions=__version__,
        device_serial_number=asked_sha256[:MAX_LABEL],  # stands for the model, its weights and options
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=(row_step, column_step), slice_thickness=first.SliceThickness, spacing_between_slices=spacing
        ),
        content_label="LESIONS",
        series_description="Lesions asked for by attributes",
    )
    segmentation.SpecificCharacterSet = first.SpecificCharacterSet
    return segmentation


def _segment(number: int, query_name: str) -> Dataset:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    text = query_name.replace("\\", "/")  # which separates values in DICOM
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=text[:MAX_LABEL],
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=PRODUCT, version=__version__, family=codes.cid7162.ArtificialIntelligence
        ),
    )
    segment.SegmentDescription = text
    return segment


def _not_taken_over(attributes: Attributes, segmentation: Dataset) -> Iterator[str]:
    for keywords, why in (
        (attributes.emptied, "values of the slices are not valid DICOM, and left empty"),
        (attributes.respelt, "texts of the slices are not in the character set that they state, and stored as UTF-8, "
         "with ? for what is lost"),
    ):  # fmt: skip
        if taken := [keyword for keyword in dict.fromkeys(keywords) if keyword in segmentation]:
            yield f"DICOM-SEG: {why}: {', '.join(taken)}"

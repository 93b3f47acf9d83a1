"""A case's masks as a DICOM Segmentation of the series that they were found in; needs the extra `dicom`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from nnunetv2_malenia import __version__
from nnunetv2_malenia.attributes.schema import LesionQuery
from nnunetv2_malenia.inference.model_folder import PredictionError
from nnunetv2_malenia.volumes import InputError
from nnunetv2_malenia.volumes.dicom import series_files

PRODUCT = "nnunetv2_malenia"
SERIES_NUMBER = 300  # behind those of scanners, for where a viewer sorts by it
MAX_LABEL = 64  # characters in a value of the kind LO (long string)
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "PixelSpacing")
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
    name: str, folder: Path, masks: np.ndarray, queries: Sequence[LesionQuery], *, asked_sha256: str
) -> None:
    """Store masks as one SEG object of type BINARY: segment i + 1 is query i, empty or not; segments may overlap.

    folder: the source series, whose patient, study, frame of reference and slice positions are taken over.
    masks (Q, X, Y, Z) bool, in the order of columns, rows and sorted slices: that in which SimpleITK reads the series.
    Frames without a voxel are left out; when all are, the first slice's are stored. Raises InputError when the series
    lacks an identifier or has attributes that are not valid DICOM.
    """
    import highdicom as hd
    from pydicom import dcmread
    from pydicom.sr.codedict import codes

    slices = [dcmread(file, stop_before_pixels=True) for file in series_files(folder)]
    first = slices[0]
    if absent := [keyword for keyword in _NEEDED if not first.get(keyword)]:
        raise InputError(f"{folder.name}: the slices have no {', '.join(absent)}, which a DICOM-SEG refers to")
    for keyword in _MAY_BE_EMPTY:
        if keyword not in first:
            setattr(first, keyword, None)
    positions = np.array([each.ImagePositionPatient for each in (first, slices[-1])], dtype=float)
    spacing = float(np.linalg.norm(positions[1] - positions[0])) / (len(slices) - 1)
    first.SliceThickness = first.get("SliceThickness") or spacing
    segments = []
    for number, query in enumerate(queries, start=1):
        text = query.name.replace("\\", "/")  # which separates values in DICOM
        algorithm = hd.AlgorithmIdentificationSequence(
            name=PRODUCT, version=__version__, family=codes.cid7162.ArtificialIntelligence
        )
        segment = hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=text[:MAX_LABEL],
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        segment.SegmentDescription = text
        segments.append(segment)
    frames = masks.transpose(3, 2, 1, 0).astype(np.uint8)  # (slices, rows, columns, segments)
    planes = slice(None) if frames.any() else slice(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names without carets and the like, which are the source's
            segmentation = hd.seg.Segmentation(
                source_images=slices[planes],
                pixel_array=frames[planes],
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=segments,
                series_instance_uid=hd.UID(),
                series_number=SERIES_NUMBER,
                sop_instance_uid=hd.UID(),
                instance_number=1,
                manufacturer=PRODUCT,
                manufacturer_model_name=PRODUCT,
                software_versions=__version__,
                device_serial_number=asked_sha256[:MAX_LABEL],  # stands for the model, its weights and options
                pixel_measures=hd.PixelMeasuresSequence(
                    pixel_spacing=first.PixelSpacing,
                    slice_thickness=first.SliceThickness,
                    spacing_between_slices=spacing,
                ),
                content_label="LESIONS",
                series_description="Lesions asked for by attributes",
            )
            segmentation.SpecificCharacterSet = "ISO_IR 192"  # UTF-8: queries may have names that the source's has not
            segmentation.save_as(name)
    except (ValueError, TypeError) as error:  # the text may quote the patient's data, and is stored in run.json
        raise InputError(
            f"{folder.name}: patient or study attributes of the slices are not valid DICOM ({type(error).__name__}); "
            "correct them, or leave --save_dicom_seg out"
        ) from error

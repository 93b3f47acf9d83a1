"""A DICOM series in, a DICOM-SEG out: read without the library that wrote it, its voxels lie where the NIfTI's do."""

import gzip
import json
import shutil
import subprocess
import sys
import warnings

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import (
    AXIAL,
    FEET_FIRST_PRONE,
    OBLIQUE,
    PATIENT,
    SAGITTAL,
    SERIES_UID,
    frames,
    segment_points,
    write_ct_series,
)
from pydicom import Dataset, dcmread
from tiny_model import bright_is_lesion, save_ct, tiny_ct

from nnunetv2_malenia import __version__
from nnunetv2_malenia.attributes.schema import AttributeTable
from nnunetv2_malenia.attributes.tables import queries
from nnunetv2_malenia.cli import predict_zeroshot
from nnunetv2_malenia.files import sha256_of
from nnunetv2_malenia.inference.dicom_seg import write_dicom_seg
from nnunetv2_malenia.inference.export import OutputOptions, read_findings
from nnunetv2_malenia.inference.predictor import MaleniaPredictor

OPTIONS = OutputOptions(save_masks=True, save_dicom_seg=True)
LIMITS_HU = {1: 140, 2: 340}  # of the queries of BrightIsLesion: the second's voxels are the first's too
SECOND = "λίθος/stone"
TABLE = {"lesions": {"liver tumor": {"location": "liver"}, SECOND: {"density": "hyperdense"}}}
SPACINGS = {AXIAL: (4, 4, 5), FEET_FIRST_PRONE: (4, 4, 5), SAGITTAL: (4, 5, 4), OBLIQUE: (4, 4, 5)}


def bright_ct(*, lesions=True):
    """(K, R, C): a body with two lesions without any symmetry; the brighter part of one is the second query's."""
    hounsfield = tiny_ct(shape=(10, 14, 12))
    if lesions:
        hounsfield[3:6, 4:9, 5:7] = 240
        hounsfield[3:6, 4:6, 5:7] = 600
        hounsfield[7, 10, 9] = 240
    return hounsfield


def predict(model, source, out, options=OPTIONS, table=TABLE):
    predictor = MaleniaPredictor.from_model_folder(model, device="cpu", use_mirroring=False)
    predictor.ask(AttributeTable.model_validate(table))
    bright_is_lesion(predictor)
    return predictor.predict_cases(source, out, options, num_processes_preprocessing=0, num_processes_export=0)


def nifti_voxels(path):
    return {tuple(index) for index in np.argwhere(np.asarray(nib.load(path).dataobj))}


def as_nifti_voxels(points_lps, path):
    """The voxels of a NIfTI image at points in the patient; the points must be voxel centres."""
    indices = nib.affines.apply_affine(np.linalg.inv(nib.load(path).affine), points_lps * [-1, -1, 1])
    np.testing.assert_allclose(indices, indices.round(), atol=1e-3)
    return {tuple(index) for index in indices.round().astype(int)}


def assert_aligned(out, case_id="series"):
    """Each segment's voxels are those of its NIfTI mask, and there are some."""
    for (_, points), name in zip(
        segment_points(out / f"{case_id}.seg.dcm").items(), ("liver_tumor", "stone"), strict=True
    ):
        mask = next((out / "masks" / case_id).glob(f"*{name}.nii.gz"))
        assert len(points) > 0
        assert as_nifti_voxels(points, mask) == nifti_voxels(mask)


@pytest.mark.parametrize("reader", ["NibabelIOWithReorient", "NibabelIO", "SimpleITKIO"])
@pytest.mark.parametrize("orientation", SPACINGS, ids=["axial", "feet first prone", "sagittal", "oblique"])
def test_segments_lie_where_the_nifti_masks_do(model, tmp_path, orientation, reader):
    shutil.copytree(model, tmp_path / "model")
    plans = json.loads((model / "plans.json").read_text()) | {"image_reader_writer": reader}
    (tmp_path / "model" / "plans.json").write_text(json.dumps(plans))
    spacing = SPACINGS[orientation] if reader == "NibabelIOWithReorient" else (4, 4, 5)
    series = write_ct_series(tmp_path / "series", bright_ct(), orientation, spacing)

    run = predict(tmp_path / "model", series, tmp_path / "out")

    assert run.failed == {}
    assert_aligned(tmp_path / "out")


@pytest.mark.parametrize("orientation", SPACINGS, ids=["axial", "feet first prone", "sagittal", "oblique"])
def test_a_frame_marks_the_bright_pixels_of_the_slice_that_it_refers_to(model, tmp_path, orientation):
    series = write_ct_series(tmp_path / "series", bright_ct(), orientation, SPACINGS[orientation])
    predict(model, series, tmp_path / "out")
    slices = {each.SOPInstanceUID: each for each in map(dcmread, series.iterdir())}
    segmentation = dcmread(tmp_path / "out" / "series.seg.dcm")
    number_of_pixels = 0
    for groups, pixels in frames(segmentation):
        reference = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        segment = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        hounsfield = slices[reference].pixel_array.astype(int) - 1024
        np.testing.assert_array_equal(pixels, hounsfield > LIMITS_HU[segment])
        assert groups.PlanePositionSequence[0].ImagePositionPatient == slices[reference].ImagePositionPatient
        number_of_pixels += pixels.sum()
    assert number_of_pixels == (3 * 5 * 2 + 1) + 3 * 2 * 2
    (referenced,) = segmentation.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == SERIES_UID
    assert {each.ReferencedSOPInstanceUID for each in referenced.ReferencedInstanceSequence} == set(slices)


def test_slices_that_must_be_resampled_for_the_network_are_aligned_too(model, tmp_path):
    large = bright_ct().repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
    series = write_ct_series(tmp_path / "series", large, SAGITTAL, (3.1, 4.4, 5.3))
    predict(model, series, tmp_path / "out")
    assert_aligned(tmp_path / "out")


def test_overlapping_queries_keep_all_their_voxels(model, tmp_path):
    predict(model, write_ct_series(tmp_path / "series", bright_ct()), tmp_path / "out")
    first, second = (set(map(tuple, points)) for points in segment_points(tmp_path / "out" / "series.seg.dcm").values())
    assert (len(first), len(second)) == (31, 12)
    assert second < first
    assert dcmread(tmp_path / "out" / "series.seg.dcm").SegmentationType == "BINARY"


@pytest.mark.parametrize("found", [(), (1,)], ids=["none", "one of two"])
def test_a_query_without_a_voxel_is_an_empty_segment(model, tmp_path, found):
    hounsfield = np.minimum(bright_ct(lesions=bool(found)), 300)
    run = predict(model, write_ct_series(tmp_path / "series", hounsfield), tmp_path / "out")
    assert run.failed == {}
    points = segment_points(tmp_path / "out" / "series.seg.dcm")
    assert list(points) == [1, 2]
    assert tuple(number for number, places in points.items() if len(places)) == found
    assert dcmread(tmp_path / "out" / "series.seg.dcm").NumberOfFrames == (4 if found else 2)


def test_segments_say_what_was_asked_and_what_answered(model, tmp_path):
    long_name = "a lesion with a name that does not fit into the sixty-four characters of a label"
    table = {"lesions": {long_name: {"location": "liver"}, SECOND.replace("/", "\\"): {"density": "hyperdense"}}}
    predict(model, write_ct_series(tmp_path / "series", bright_ct()), tmp_path / "out", table=table)
    first, second = dcmread(tmp_path / "out" / "series.seg.dcm").SegmentSequence
    assert (first.SegmentLabel, first.SegmentDescription) == (long_name[:64], long_name)
    assert (second.SegmentLabel, second.SegmentDescription) == (SECOND, SECOND)
    for segment in (first, second):
        assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "52988006"
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("nnunetv2_malenia", __version__)


def test_patient_and_study_are_the_sources_and_the_series_is_new(model, tmp_path):
    series = write_ct_series(tmp_path / "series", bright_ct())
    predict(model, series, tmp_path / "out")
    source, segmentation = dcmread(next(series.iterdir())), dcmread(tmp_path / "out" / "series.seg.dcm")
    for keyword in (*PATIENT, "StudyInstanceUID", "FrameOfReferenceUID"):
        assert segmentation[keyword].value == source[keyword].value, keyword
    assert segmentation.SeriesInstanceUID != source.SeriesInstanceUID
    assert segmentation.Modality == "SEG"


def test_nothing_of_the_patient_is_in_any_other_file(model, tmp_path):
    predict(model, write_ct_series(tmp_path / "series", bright_ct()), tmp_path / "out")
    texts = {value for keyword, value in PATIENT.items() if keyword != "PatientSex"} | {"stermann", SERIES_UID}
    for path in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        held = {text for text in texts if text.encode("latin-1") in content or text.encode() in content}
        assert bool(held) == (path.suffix == ".dcm"), (path, held)


def test_the_file_is_listed_with_its_hash_and_a_failure_takes_it_away(model, tmp_path):
    series, out = write_ct_series(tmp_path / "series", bright_ct()), tmp_path / "out"
    predict(model, series, out)
    assert read_findings(out / "series.json").outputs["series.seg.dcm"] == sha256_of(out / "series.seg.dcm")
    next(series.iterdir()).unlink()
    assert list(predict(model, series, out).failed) == ["series"]
    assert list(out.rglob("*.dcm")) == []


def test_an_anonymised_series_without_patient_attributes_will_do(model, tmp_path):
    series = write_ct_series(tmp_path / "series", bright_ct(), SliceThickness=None, **dict.fromkeys(PATIENT))
    assert predict(model, series, tmp_path / "out").failed == {}
    assert_aligned(tmp_path / "out")
    assert dcmread(tmp_path / "out" / "series.seg.dcm").PatientName == ""


def test_a_series_without_a_frame_of_reference_fails_in_one_line(model, tmp_path):
    series = write_ct_series(tmp_path / "series", bright_ct(), FrameOfReferenceUID=None)
    (reason,) = predict(model, series, tmp_path / "out").failed.values()
    assert "have no FrameOfReferenceUID" in reason
    assert not list((tmp_path / "out").glob("series*"))


def seg_of(tmp_path, *, replace=(), **attributes):
    """The SEG of a small series, read back, and the notes on it. replace: bytes -> bytes of the same length."""
    series = write_ct_series(tmp_path / "series", np.zeros((3, 4, 5), int), **attributes)
    for path in series.iterdir():
        content = path.read_bytes()
        for old, new in replace:
            assert len(old) == len(new)
            assert old in content
            content = content.replace(old, new)
        path.write_bytes(content)
    masks, notes = np.zeros((1, 5, 4, 3), bool), []
    masks[0, 1, 2, 1] = True
    asked = queries(AttributeTable(lesions={"肝腫瘍": {"location": "liver"}}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # they quote the patient's data
        write_dicom_seg(str(tmp_path / "a.dcm"), series, masks, asked, asked_sha256="0" * 64, notes=notes)
    segmentation = dcmread(tmp_path / "a.dcm")
    assert segmentation.SpecificCharacterSet == "ISO_IR 192"
    assert segmentation.SegmentSequence[0].SegmentLabel == "肝腫瘍"
    return segmentation, notes


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        (["", "ISO 2022 IR 58"], "Zhang^XiaoDong=张^小东"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("GBK", "Wang^XiaoDong=王^昞"),
        ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        ("ISO_IR 100", "Buc^Jérôme"),
        ("ISO_IR 144", "Люкс"),
        ("ISO_IR 166", "นามสกุล^ชื่อ"),
        ("ISO_IR 192", "Müller^王=王^小东"),
        (["ISO 2022 IR 6", "ISO 2022 IR 127"], "Nizar^Qabbani=قباني^لنزار"),
    ],
)
def test_names_in_any_character_set_are_taken_over(tmp_path, character_set, name):
    segmentation, notes = seg_of(tmp_path, SpecificCharacterSet=character_set, PatientName=name, StudyDescription="CT")
    assert str(segmentation.PatientName) == name
    assert segmentation.StudyDescription == "CT"
    assert notes == []


LATIN, NONE, UNKNOWN = b"CS\x0a\0ISO_IR 100", b"CS\x0a\0          ", b"CS\x0a\0FOO_BAR 99"


@pytest.mark.parametrize(
    ("character_set", "stored", "read", "is_sound"),
    [
        (b"CS\x10\0\\ISO 2022 IR 58 ", b"Zhang=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=", "Zhang=张^小东", True),
        (b"CS\x10\0\\ISO 2022 IR 149", b"Hong=\x1b$)C\xfb\xf3^\xd1\xce\xd4\xd7=\xc8\xab", "Hong=洪^吉洞=홍", True),
        (NONE, b"M\xfcller^Zac", "M?ller^Zac", False),
        (NONE, "Müller^Zac".encode(), "Müller^Zac", False),
        (NONE, b"Yamada=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada=山田^太郎", False),
        (NONE, b"Yamada=\x1b$Q;3ED", "Yamada=?$Q;3ED", False),
        (NONE, b"Muller^Zac", "Muller^Zac", True),
        (UNKNOWN, b"M\xfcller^Zac", "M?ller^Zac", False),
        (UNKNOWN, b"Muller^Zac", "Muller^Zac", True),
        (b"CS\x0a\0ISO_IR 192", b"M\xfcller^Zac", "M?ller^Zac", False),
        (b"CS\x0a\0ISO-IR 100", b"M\xfcller^Zac", "Müller^Zac", True),
        (LATIN, b"O\x92Hara^Zac", "O?Hara^Zac", False),
    ],
)  # fmt: skip
def test_names_outside_the_stated_character_set_are_noted(tmp_path, character_set, stored, read, is_sound):
    attributes = {"PatientName": "X" * 40, "SpecificCharacterSet": "A" * (len(character_set) - 4)}
    replace = [(b"X" * 40, stored.ljust(40)), (character_set[:4] + b"A" * (len(character_set) - 4), character_set)]
    segmentation, notes = seg_of(tmp_path, replace=replace, **attributes)
    assert str(segmentation.PatientName) == read
    assert [note.rpartition(": ")[2] for note in notes] == ([] if is_sound else ["PatientName"])
    assert not any("Zac" in note or "Yamada" in note for note in notes)


@pytest.mark.filterwarnings("ignore:Invalid value", "ignore:The value length")
@pytest.mark.parametrize(
    "attributes",
    [
        {"StudyInstanceUID": "1.2.003.04", "FrameOfReferenceUID": "1.2.0300.5", "SeriesInstanceUID": "1.02.3"},
        {"StudyInstanceUID": "1." + "2" * 70},
        {"StudyDate": "", "StudyTime": "", "PatientBirthDate": "", "PatientSex": ""},
        {"PatientID": "x" * 80, "AccessionNumber": "y" * 40, "PatientAge": "77"},
        {"PatientID": "007\\008"},
        {"PatientIdentityRemoved": "YES", "DeidentificationMethod": "Ersetzung der Namen durch Schlüssel"},
    ],
)
def test_odd_values_that_can_be_stored_are_taken_over(tmp_path, attributes):
    segmentation, notes = seg_of(tmp_path, **attributes)
    for keyword, value in attributes.items():
        if keyword != "SeriesInstanceUID":
            assert "\\".join(np.atleast_1d(segmentation[keyword].value)) == value
    assert notes == []


def test_sequences_are_taken_over_in_utf_8(tmp_path):
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "P1-3", "99LOCAL", "Leberdiagnose für Ärzte"
    segmentation, notes = seg_of(tmp_path, ProcedureCodeSequence=[code], PatientName="Müller")
    assert segmentation.ProcedureCodeSequence[0].CodeMeaning == code.CodeMeaning
    assert notes == []


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize(
    ("attributes", "replace"),
    [
        ({"StudyDate": "00000000"}, ()),
        ({"StudyTime": "9999"}, ()),
        ({"PatientBirthDate": "28.02.1947"}, ()),
        ({"StudyDate": ["20200101", "20200102"]}, ()),
        ({"PatientSex": "SECRET"}, ()),
        ({"PatientWeight": "70.5"}, [(b"70.5", b"70,5")]),
    ],
)
def test_values_that_cannot_be_stored_are_left_empty_and_noted(tmp_path, attributes, replace):
    segmentation, (note,) = seg_of(tmp_path, replace=replace, **attributes)
    (keyword,) = attributes
    assert not segmentation[keyword].value
    assert note.endswith(f"left empty: {keyword}")


def test_slices_without_preamble_and_with_a_strange_thickness_will_do(tmp_path):
    series = write_ct_series(tmp_path / "series", np.zeros((3, 4, 5), int), SliceThickness="1234")
    for path in series.iterdir():
        path.write_bytes(path.read_bytes()[132:].replace(b"1234", b"abcd"))
    asked = queries(AttributeTable(lesions={"liver tumor": {"location": "liver"}}))
    write_dicom_seg(str(tmp_path / "a.dcm"), series, np.ones((1, 5, 4, 3), bool), asked, asked_sha256="0", notes=[])
    assert dcmread(tmp_path / "a.dcm").pixel_array.sum() == 60


def test_what_could_not_be_taken_over_is_told_without_the_value(model, tmp_path):
    series = write_ct_series(tmp_path / "series", bright_ct(), PatientSex="SECRET")
    assert predict(model, series, tmp_path / "out").failed == {}
    told = (tmp_path / "out" / "series.json").read_text(encoding="utf-8")
    assert "left empty: PatientSex" in told
    assert "SECRET" not in told


@pytest.fixture
def command(model, tmp_path):
    (tmp_path / "table.json").write_text(json.dumps(TABLE))
    return ["-i", str(tmp_path / "images"), "-o", str(tmp_path / "out"), "--attributes", str(tmp_path / "table.json"),
            "-m", str(model), "-device", "cpu", "-npp", "0", "-nps", "0", "--save_dicom_seg"]  # fmt: skip


def test_the_command_writes_it_with_background_processes_too(command, tmp_path):
    write_ct_series(tmp_path / "images" / "a", bright_ct())
    assert predict_zeroshot([*command, "-npp", "1", "-nps", "1"]) == 0
    assert len(dcmread(tmp_path / "out" / "a.seg.dcm").SegmentSequence) == 2


def test_nifti_input_is_refused_before_anything_is_written(command, tmp_path, capsys):
    write_ct_series(tmp_path / "images" / "a", bright_ct())
    save_ct(tmp_path / "images" / "b.nii.gz")
    assert predict_zeroshot(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "--save_dicom_seg takes DICOM series, but case b is b.nii.gz" in line
    assert not (tmp_path / "out").exists()


def test_without_highdicom_the_command_names_what_to_install(command, tmp_path, capsys, monkeypatch):
    write_ct_series(tmp_path / "images" / "a", bright_ct())
    monkeypatch.setitem(sys.modules, "highdicom", None)  # as Python marks a package that cannot be imported
    assert predict_zeroshot(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install nnunetv2_malenia[dicom]" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(shutil.which("segimage2itkimage") is None, reason="dcmqi is not installed (pip install dcmqi)")
@pytest.mark.parametrize("orientation", SPACINGS, ids=["axial", "feet first prone", "sagittal", "oblique"])
def test_dcmqi_reads_the_same_voxels(model, tmp_path, orientation):
    predict(
        model, write_ct_series(tmp_path / "series", bright_ct(), orientation, SPACINGS[orientation]), tmp_path / "out"
    )
    (tmp_path / "itk").mkdir()
    subprocess.run(
        ["segimage2itkimage", "--inputDICOM", tmp_path / "out" / "series.seg.dcm", "--outputType", "nii",
         "--outputDirectory", tmp_path / "itk"], check=True, capture_output=True,
    )  # fmt: skip
    for number, name in ((1, "liver_tumor"), (2, "stone")):
        image = sitk.ReadImage(str(tmp_path / "itk" / f"{number}.nii.gz"))
        indices = np.argwhere(sitk.GetArrayFromImage(image))[:, ::-1]
        points = np.array([image.TransformIndexToPhysicalPoint(index.tolist()) for index in indices])
        mask = next((tmp_path / "out" / "masks" / "series").glob(f"*{name}.nii.gz"))
        assert as_nifti_voxels(points, mask) == nifti_voxels(mask)

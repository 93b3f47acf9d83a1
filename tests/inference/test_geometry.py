"""One grid gives the network one array and its mask one place, whatever format, axis order and reader."""

from itertools import permutations, product

import header_faults as faults
import nibabel as nib
import numpy as np
import pytest
from tiny_model import AFFINE, bright_is_lesion, save_ct, tiny_ct, tiny_preparation, write_tiny_model

from nnunetv2_malenia.attributes.schema import AttributeTable
from nnunetv2_malenia.inference.export import read_findings
from nnunetv2_malenia.inference.predictor import MaleniaPredictor
from nnunetv2_malenia.volumes import grid_difference, open_volume

READERS = ("NibabelIO", "NibabelIOWithReorient", "SimpleITKIO", "SimpleITKIOWithReorient")
SHEARED = AFFINE.copy()
SHEARED[1, 2] = 5 * np.tan(np.radians(20))
ORDERS = [np.column_stack(pair) for pair in product(permutations(range(3)), product((1, -1), repeat=3))]
WRITERS = {
    ".nii.gz": lambda path, voxels, affine: faults.store(path, faults.nifti_bytes(voxels, affine)),
    ".nrrd": faults.write_nrrd,
    ".mha": faults.write_mha,
}


def prepared(path, **plans):
    case = tiny_preparation(**plans)({0: path})
    assert case.fault is None, case.fault
    return case


def bright_voxels(path, case, reader, folder):
    """A mask of the brightest voxels, as it is stored for a case that a reader read, and those of the image itself."""
    voxels = open_volume(path).voxels()
    read = nib.orientations.apply_orientation(voxels, nib.io_orientation(open_volume(path).affine))
    seg = (read if "Reorient" in reader else voxels).transpose(2, 1, 0) > 100
    case.properties["writer"]().write_seg(seg.astype(np.uint8), str(folder / "mask.nii.gz"), case.properties)
    return open_volume(folder / "mask.nii.gz"), voxels > 100


@pytest.mark.parametrize("reader", READERS[:3])
@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_a_sheared_image_is_the_same_case_in_every_format(tmp_path, ending, reader):
    files = [WRITERS[each](tmp_path / f"a{each}", tiny_ct(), SHEARED) for each in (".nii.gz", ending)]
    expected, case = (prepared(path, reader=reader) for path in files)
    np.testing.assert_array_equal(case.data, expected.data)
    np.testing.assert_allclose(case.properties["stored_affine"], SHEARED)
    np.testing.assert_allclose(case.properties["affine"], expected.properties["affine"])
    assert case.warnings == expected.warnings
    assert "not at right angles" in case.warnings[0]
    mask, bright = bright_voxels(files[1], case, reader, tmp_path)
    assert grid_difference(mask, open_volume(files[0])) is None
    np.testing.assert_array_equal(mask.voxels(), bright)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("ending", WRITERS)
def test_every_axis_order_gets_its_mask_back_where_it_is(tmp_path, ending, reader):
    turn = nib.eulerangles.euler2mat(0.1, 0.2, 0.05)
    image = nib.Nifti1Image(tiny_ct(), nib.affines.from_matvec(turn @ AFFINE[:3, :3], AFFINE[:3, 3]))
    seen = set()
    for order in ORDERS:
        stored = image.as_reoriented(order)
        path = WRITERS[ending](tmp_path / f"a{ending}", np.asarray(stored.dataobj), stored.affine)
        case = prepared(path, reader=reader)
        seen.add(case.data.tobytes())
        mask, bright = bright_voxels(path, case, reader, tmp_path)
        assert grid_difference(mask, open_volume(path)) is None
        np.testing.assert_array_equal(mask.voxels(), bright)
    assert len(seen) == 1 or "Reorient" not in reader


def test_what_simpleitk_makes_of_pixdim_does_not_move_anything(tmp_path):
    raw = faults.nifti_bytes(tiny_ct(), AFFINE)
    raw[faults.PIXDIM + 4 : faults.PIXDIM + 8] = np.float32(4 * 1.009).tobytes()  # too little for a warning
    for reader in READERS:
        case = prepared(faults.store(tmp_path / "a.nii.gz", raw), reader=reader)
        np.testing.assert_allclose(case.properties["affine"], AFFINE, atol=1e-5)
        assert case.properties["spacing"] == pytest.approx([5, 4, 4])


@pytest.mark.parametrize("reader", READERS)
def test_a_rounded_quaternion_is_read_by_every_reader(tmp_path, reader):
    affine = nib.affines.from_matvec(faults.TURNED[:3, :3] * 2, faults.TURNED[:3, 3])
    path = faults.with_rounded_quaternion(tmp_path / "a.nii.gz", tiny_ct(), affine)
    case = prepared(path, reader=reader)
    assert "rounded" in case.warnings[0]
    mask, bright = bright_voxels(path, case, reader, tmp_path)
    np.testing.assert_array_equal(mask.voxels(), bright)
    assert grid_difference(mask, open_volume(path)) is None
    np.testing.assert_allclose(nib.load(tmp_path / "mask.nii.gz").affine, affine, atol=1e-2)


@pytest.mark.parametrize("write", [
    faults.without_form_codes,
    lambda path, *image: faults.write_nrrd(path.parent / "a.nrrd", *image, space="scanner-xyz"),
])  # fmt: skip
def test_sides_that_are_a_guess_are_told_and_refused_where_a_query_names_one(tmp_path, write):
    path = write(tmp_path / "a.nii.gz", tiny_ct(), AFFINE)
    preparation = tiny_preparation()
    assert "left and right are a guess" in preparation({0: path}).warnings[0]
    asked = type(preparation)(*(getattr(preparation, name) for name in list(preparation.__dict__)[:4]), names_side=True)
    assert "does not say where left and right are, and a query names a side" in asked({0: path}).fault
    assert asked({0: save_ct(tmp_path / "b.nii.gz")}).fault is None


@pytest.mark.parametrize("fault", faults.REFUSED)
def test_a_header_without_sense_is_a_fault_of_the_case(tmp_path, fault):
    case = tiny_preparation()({0: faults.with_fault(tmp_path / "a.nii.gz", tiny_ct(shape=(6, 7, 8)), AFFINE, fault)})
    assert case.data is None
    assert case.fault.startswith("a.nii.gz: ")
    assert "\n" not in case.fault


def test_channels_that_differ_by_rounding_are_read_on_the_first_ones_grid(tmp_path):
    nearly = AFFINE.copy()
    nearly[0, 0] += 1e-4
    files = {i: save_ct(tmp_path / f"a_000{i}.nii.gz", affine=each) for i, each in enumerate((AFFINE, nearly))}
    for reader in READERS:
        case = tiny_preparation(num_channels=2, reader=reader)(files)
        assert case.fault is None
        assert case.data.shape[0] == 2


def test_a_run_answers_what_it_can_puts_it_in_its_place_and_names_the_rest(tmp_path):
    model = write_tiny_model(tmp_path / "model")
    predictor = MaleniaPredictor.from_model_folder(model, device="cpu", use_mirroring=False)
    lesions = {"kidney tumor": {"location": "left kidney"}, "liver cyst": {"location": "liver"}}
    predictor.ask(AttributeTable(lesions=lesions))
    bright_is_lesion(predictor)
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    ct = tiny_ct()
    ct[3:6, 7:9, 2:5] = 300
    tilted = [write(images / f"tilted_{ending[1:4]}{ending}", ct, SHEARED) for ending, write in WRITERS.items()]
    faults.with_fault(images / "colours.nii.gz", tiny_ct(), AFFINE, "colours")
    faults.with_fault(images / "datatype.nii.gz", tiny_ct(), AFFINE, "datatype 0")
    faults.without_form_codes(images / "guess.nii.gz", tiny_ct(), AFFINE)
    run = predictor.predict_cases(images, out, num_processes_preprocessing=0, num_processes_export=0)
    assert {case: reason.partition(": ")[0] for case, reason in run.failed.items()} == {
        name: f"{name}.nii.gz" for name in ("colours", "datatype", "guess")
    }
    masks = [open_volume(out / f"{path.name.partition('.')[0]}.nii.gz") for path in tilted]
    for mask in masks:
        assert grid_difference(mask, open_volume(tilted[0])) is None
        np.testing.assert_array_equal(mask.labels(), masks[0].labels())
    assert masks[0].labels().any()
    first, *others = [read_findings(out / f"{path.name.partition('.')[0]}.json").findings for path in tilted]
    voxels = np.count_nonzero(masks[0].labels())
    assert first[0].volume_ml == pytest.approx(voxels * np.linalg.det(SHEARED[:3, :3]) / 1000)
    for findings in others:
        assert findings[0].volume_ml == pytest.approx(first[0].volume_ml)
        assert findings[0].lesions[0].centre.ras_mm == pytest.approx(first[0].lesions[0].centre.ras_mm, abs=1e-3)

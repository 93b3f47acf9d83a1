import nibabel as nib
import numpy as np
import pytest
from header_faults import without_form_codes, write_mha, write_nrrd
from oriented import AXIS_ORDERS, store

from nnunetv2_malenia.phantom.anatomy import PhantomError
from nnunetv2_malenia.phantom.volume import names_in_header, read_volume
from nnunetv2_malenia.volumes import InputError, grid_difference

AFFINE = np.array([[1.5, 0, 0, -20], [0, 2.0, 0, 30], [0, 0, 3.0, 7], [0, 0, 0, 1]])
ARRAY = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)  # no symmetry: every flip and swap shows


@pytest.mark.parametrize("order", AXIS_ORDERS)
def test_every_axis_order_is_read_as_the_same_volume_and_written_back_as_it_was(order, tmp_path):
    path = store(ARRAY, AFFINE, order, tmp_path / "a.nii.gz")
    volume = read_volume(path)
    assert (volume.array == ARRAY).all()
    assert np.allclose(volume.affine, AFFINE)
    assert volume.grid.spacing_zyx == pytest.approx((3.0, 2.0, 1.5))
    volume.save(volume.array, tmp_path / "b.nii.gz")
    before, after = nib.load(path), nib.load(tmp_path / "b.nii.gz")
    assert (np.asarray(before.dataobj) == np.asarray(after.dataobj)).all()
    assert np.allclose(before.affine, after.affine)
    assert (before.header.get_sform(coded=True)[1], before.header.get_qform(coded=True)[1]) == (
        after.header.get_sform(coded=True)[1],
        after.header.get_qform(coded=True)[1],
    )


def test_an_oblique_volume_is_turned_to_the_nearest_axes_and_comes_back_as_it_was(tmp_path):
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    path = store(ARRAY, AFFINE, "LPS", tmp_path / "a.nii.gz")
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), turn @ image.affine), path)
    volume = read_volume(path)
    assert (volume.array == ARRAY).all()
    assert volume.grid.spacing_zyx == pytest.approx((3.0, 2.0, 1.5))
    volume.save(volume.array, tmp_path / "b.nii.gz")
    assert np.allclose(nib.load(tmp_path / "b.nii.gz").affine, turn @ image.affine, atol=1e-5)


def test_same_grid_looks_at_places_not_at_axis_order(tmp_path):
    a = read_volume(store(ARRAY, AFFINE, "RAS", tmp_path / "a.nii.gz"))
    b = read_volume(store(ARRAY, AFFINE, "IPL", tmp_path / "b.nii.gz"))
    moved = AFFINE.copy()
    moved[0, 3] += 1.0
    c = read_volume(store(ARRAY, moved, "RAS", tmp_path / "c.nii.gz"))
    d = read_volume(store(ARRAY[1:], AFFINE, "RAS", tmp_path / "d.nii.gz"))
    assert grid_difference(a, b) is None
    assert "lies up to 1 mm off" in grid_difference(c, a)
    assert "is of shape (6, 5, 3)" in grid_difference(d, a)


def test_what_is_no_volume_is_told_in_one_line(tmp_path):
    (tmp_path / "text.nii.gz").write_text("not gzip")
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, 3), np.int16), np.eye(4)), tmp_path / "4d.nii.gz")
    whole = store(ARRAY, AFFINE, "RAS", tmp_path / "whole.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    flat = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), None)
    flat.header["srow_x"][:], flat.header["sform_code"] = 0, 1
    nib.save(flat, tmp_path / "flat.nii.gz")
    for name, message in {
        "none.nii.gz": "No such file",
        "text.nii.gz": "damaged or no NIfTI",
        "4d.nii.gz": r"shape \(2, 2, 2, 3\)",
        "cut.nii.gz": "damaged",
        "flat.nii.gz": "no voxel grid",
    }.items():
        with pytest.raises(InputError, match=message) as raised:
            read_volume(tmp_path / name)
        assert name in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_side_that_is_drawn_needs_a_header_that_tells_it(tmp_path):
    volume = read_volume(without_form_codes(tmp_path / "a.nii.gz", ARRAY.transpose(2, 1, 0), AFFINE))
    assert volume.remarks({"liver tumor": {"location": ["liver"]}}) == [
        "a.nii.gz: the header has no sform and no qform code: left and right are a guess"
    ]
    with pytest.raises(PhantomError, match="does not say where left and right are"):
        volume.remarks({"kidney cyst": {"location": ["left kidney"]}})


def test_nrrd_and_mha_are_read_in_place_and_saved_as_nifti(tmp_path):
    sheared = AFFINE.copy()
    sheared[1, 2] = 1.0
    for write, name in ((write_nrrd, "a.nrrd"), (write_mha, "a.mha")):
        volume = read_volume(write(tmp_path / name, ARRAY.transpose(2, 1, 0), sheared))
        assert (volume.array == ARRAY).all()
        volume.save(volume.array, tmp_path / "b.nii.gz")
        assert np.allclose(nib.load(tmp_path / "b.nii.gz").affine, sheared)
        assert (np.asarray(nib.load(tmp_path / "b.nii.gz").dataobj).T == ARRAY).all()


def test_names_that_totalsegmentator_writes_into_the_header_are_read(tmp_path):
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    text = (
        '<LabelTable><Label Key="1" Red="0.0" Alpha="1"><![CDATA[spleen]]></Label>'
        '<Label Key="2" Red="0.1" Alpha="1"><![CDATA[kidney_right]]></Label></LabelTable>'
    )
    image.header.extensions.append(nib.nifti1.Nifti1Extension(0, text.encode()))
    nib.save(image, tmp_path / "a.nii.gz")
    assert names_in_header(read_volume(tmp_path / "a.nii.gz")) == {"spleen": 1, "kidney_right": 2}
    assert names_in_header(read_volume(store(ARRAY, AFFINE, "RAS", tmp_path / "b.nii.gz"))) == {}

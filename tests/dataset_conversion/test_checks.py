"""What is told about damaged files, wrong label maps and grids that do not match."""

from itertools import permutations, product

import header_faults
import nibabel as nib
import numpy as np
import pytest
from tiny_data import KITS, LPI, SHAPE, as_two_gzip_members, ct, damage_the_middle, kits, mask, msd_task, save, truncate

from nnunetv2_malenia.cli import convert_kits, convert_msd
from nnunetv2_malenia.dataset_conversion.checks import (
    check_same_grid,
    open_image,
    read_mask,
)
from nnunetv2_malenia.dataset_conversion.sources import FileInFolder
from nnunetv2_malenia.volumes import InputError, open_volume

NAMES = {0: "background", 1: "kidney", 2: "kidney tumor"}


def image_of(path, volumes=1):
    return open_image(FileInFolder(path), volumes)


def the_mask(path):
    return read_mask(FileInFolder(path), NAMES)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_a_mask_of_any_type_is_read_as_nibabel_reads_it(tmp_path, dtype):
    path = save(tmp_path / "m.nii.gz", mask(1, 2, 2, dtype=dtype))
    read = the_mask(path)
    assert read.voxels.dtype == np.uint8
    assert (read.voxels == np.asarray(nib.load(path).dataobj)).all()
    assert read.counts[:3].tolist() == [np.prod(SHAPE) - 24, 8, 16]


def test_a_scaled_mask_is_read_with_its_scale(tmp_path):
    image = nib.Nifti1Image(mask(2, 4), LPI)
    image.header.set_slope_inter(0.5, 0)
    nib.save(image, tmp_path / "m.nii.gz")
    assert (np.asarray(nib.load(tmp_path / "m.nii.gz").dataobj) == mask(1, 2)).all()
    assert (the_mask(tmp_path / "m.nii.gz").voxels == mask(1, 2)).all()


def test_a_trailing_axis_of_one_is_dropped(tmp_path):
    assert the_mask(save(tmp_path / "m.nii.gz", mask(1)[..., None])).voxels.shape == SHAPE
    assert image_of(save(tmp_path / "i.nii.gz", ct()[..., None])).stored_shape == (*SHAPE, 1)


def test_labels_that_were_rounded_as_floats_are_labels(tmp_path):
    array = mask(1, dtype=np.float32) * np.float32(1.0000001)
    read = the_mask(save(tmp_path / "m.nii.gz", array))
    assert read.voxels.dtype == np.uint8
    np.testing.assert_array_equal(read.voxels, mask(1))


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (mask(1, 7, 7, 9), r"label value 7 \(16 voxels\), 9 \(8 voxels\) is not in the label map.*2 kidney tumor"),
        (mask(1, -1, dtype=np.int16), "label value -1 is not in the label map"),
        (mask(1, 300, dtype=np.int16), "label value 300 is not in the label map"),
        (mask(1, dtype=np.float32) / 2, r"0\.5 is not an integer.*nearest neighbour"),
        (np.where(mask(1), np.nan, 1).astype(np.float32), "nan is not an integer"),
        (np.stack([mask(1)] * 2, -1), r"4-D, of shape \(6, 7, 8, 2\); store one 3-D file"),
        (mask(1)[0], r"a 2-D image of shape \(7, 8\)"),
    ],
    ids=["outside", "negative", "too large", "fraction", "nan", "4-D", "2-D"],
)
def test_a_wrong_mask_is_told_with_what_to_do(tmp_path, array, told):
    with pytest.raises(InputError, match=told):
        the_mask(save(tmp_path / "m.nii.gz", array))


@pytest.mark.parametrize("read", [image_of, the_mask])
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (truncate, "damaged.*end-of-stream|damaged.*ended before"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "damaged"),
        (lambda path: path.write_bytes(b"not gzip at all, and long enough"), "damaged.*Not a gzipped file"),
        (lambda path: path.unlink(), "cannot be read.*No such file"),
    ],
    ids=["truncated", "empty", "header only", "other format", "missing"],
)
def test_a_file_that_is_not_whole_is_told(tmp_path, read, spoil, told):
    path = save(tmp_path / "x.nii.gz", mask(1, 2))
    read(path)
    spoil(path)
    with pytest.raises(InputError, match=told):
        read(path)


@pytest.mark.parametrize("at", [-5, -1], ids=["checksum", "length"])
def test_a_mask_is_compared_with_its_own_checksum_and_length(tmp_path, at):
    path = save(tmp_path / "m.nii.gz", mask(1))
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        the_mask(path)


def test_a_mask_with_fewer_voxels_than_its_header_says_is_told(tmp_path):
    path = save(tmp_path / "m.nii", mask(1))
    import gzip

    (tmp_path / "m.nii.gz").write_bytes(gzip.compress(path.read_bytes()[:-10]))
    for read in (the_mask, image_of):
        with pytest.raises(InputError, match="ends before its last voxel"):
            read(tmp_path / "m.nii.gz")


def test_an_image_is_not_decompressed(tmp_path):
    path = save(tmp_path / "i.nii.gz", ct(shape=(40, 50, 60)))
    damage_the_middle(path)
    with pytest.raises(Exception, match=r"decompressing|CRC"):
        np.asarray(nib.load(path).dataobj)
    assert image_of(path).shape == (40, 50, 60)


def test_a_whole_image_of_several_gzip_members_is_accepted_and_a_damaged_one_is_not(tmp_path):
    path = save(tmp_path / "i.nii.gz", ct(shape=(40, 50, 60)))
    as_two_gzip_members(path)
    assert image_of(path).shape == (40, 50, 60)
    damage_the_middle(path)
    with pytest.raises(InputError, match="damaged"):
        image_of(path)


def test_an_image_with_another_number_of_volumes_is_told(tmp_path):
    path = save(tmp_path / "i.nii.gz", np.stack([ct()] * 3, -1))
    assert image_of(path, volumes=3).stored_shape == (*SHAPE, 3)
    with pytest.raises(InputError, match=r"4-D, of shape \(6, 7, 8, 3\); store one 3-D file"):
        image_of(path)
    with pytest.raises(InputError, match="where 4 volumes, one a channel, are needed"):
        image_of(path, volumes=4)


def test_an_image_without_intensities_is_told(tmp_path):
    with pytest.raises(InputError, match="store intensities as real numbers"):
        image_of(save(tmp_path / "i.nii.gz", ct().astype(np.complex64)))


def test_a_singular_affine_is_told(tmp_path):
    image = nib.Nifti1Image(mask(1), np.diag([1.0, 1, 1, 1]))
    image.header.set_sform(np.diag([1.0, 0, 1, 1]), code=1)
    path = tmp_path / "x.nii.gz"
    nib.Nifti1Image(mask(1), None, image.header).to_filename(path)
    for read in (image_of, the_mask):
        with pytest.raises(InputError, match="affine is no voxel grid"):
            read(path)


def volume(folder, name, affine=LPI, shape=SHAPE):
    return image_of(save(folder / f"{name}.nii.gz", np.zeros(shape, np.uint8), affine))


def test_image_and_mask_must_share_axis_order_shape_and_affine(tmp_path):
    shifted, nearly = LPI.copy(), LPI.copy()
    shifted[2, 3] += 2.5
    nearly[:3, 3] += 0.01
    image = volume(tmp_path, "image")
    check_same_grid(image, volume(tmp_path, "mask", nearly))
    with pytest.raises(
        InputError, match=r"mask.nii.gz lies up to 2\.5 mm off .*image.nii.gz; store the mask on the im"
    ):
        check_same_grid(image, volume(tmp_path, "mask", shifted))
    with pytest.raises(InputError, match=r"mask.nii.gz is of shape \(6, 7, 9\), .*image.nii.gz of \(6, 7, 8\)"):
        check_same_grid(image, volume(tmp_path, "mask", shape=(6, 7, 9)))


def test_a_small_rotation_is_seen_at_the_far_corner(tmp_path):
    angle = 0.01
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    check_same_grid(volume(tmp_path, "i", np.eye(4)), volume(tmp_path, "m", turn))
    with pytest.raises(InputError, match="mm off"):
        check_same_grid(volume(tmp_path, "i", np.eye(4), (100, 100, 10)), volume(tmp_path, "m", turn, (100, 100, 10)))


def test_every_other_axis_order_of_the_mask_is_told(tmp_path):
    told, image = 0, volume(tmp_path, "image", shape=(5, 5, 5))
    for axes, flips in product(permutations(range(3)), product((1, -1), repeat=3)):
        ornt = np.column_stack([axes, flips])
        turned = nib.Nifti1Image(np.zeros((5, 5, 5), np.uint8), LPI).as_reoriented(ornt)
        mask = volume(tmp_path, "mask", turned.affine, (5, 5, 5))
        if (ornt == [[0, 1], [1, 1], [2, 1]]).all():
            check_same_grid(image, mask)
        else:
            with pytest.raises(InputError, match=r"differ in axis order, \w\w\w and LPS"):
                check_same_grid(image, mask)
            told += 1
    assert told == 47


@pytest.mark.parametrize("fault", header_faults.REFUSED)
@pytest.mark.parametrize("kind", ["imaging", "segmentation"])
def test_a_header_without_sense_is_a_fault_of_its_case_in_one_line(tmp_path, capsys, kind, fault):
    folder = kits(tmp_path / "kits", {"case_00000": (1, 2), "case_00001": (1, 2)})
    bad = folder / "dataset" / "case_00001" / f"{kind}.nii.gz"
    header_faults.with_fault(bad, mask(1, 2), KITS, fault)
    arguments = ["-i", str(folder), "-d", "220", "-o", str(tmp_path / "raw")]
    assert convert_kits(arguments) == 1
    error = capsys.readouterr().err.splitlines()[-2:]
    assert error[0].startswith("warning: case_00001: ")
    assert error[1].startswith("error: 1 of 2 cases cannot be used")
    assert convert_kits([*arguments, "--skip-bad"]) == 0
    assert [path.name for path in (tmp_path / "raw" / "Dataset220_KiTS23" / "labelsTr").iterdir()] == [
        "case_00000.nii.gz"
    ]


def test_what_nnunet_would_not_read_is_stored_so_that_it_does(tmp_path):
    folder = kits(tmp_path / "kits", {"case_00000": (1, 2)})
    case = folder / "dataset" / "case_00000"
    image, labels = ct(), mask(1, 2)
    header_faults.with_rounded_quaternion(case / "imaging.nii.gz", image)
    header_faults.with_rounded_quaternion(case / "segmentation.nii.gz", labels)
    assert convert_kits(["-i", str(folder), "-d", "220", "-o", str(tmp_path / "raw")]) == 0
    for path, voxels in (("imagesTr/case_00000_0000.nii.gz", image), ("labelsTr/case_00000.nii.gz", labels)):
        stored = nib.load(tmp_path / "raw" / "Dataset220_KiTS23" / path)
        np.testing.assert_array_equal(np.asarray(stored.dataobj), voxels)
        np.testing.assert_allclose(stored.affine, header_faults.TURNED, atol=1e-2)


def test_sides_that_are_a_guess_are_told_and_refused_where_attributes_name_one(tmp_path, capsys):
    tasks = {"Task07_Pancreas": "pancreas_001", "Task03_Liver": "liver_0"}  # head of the pancreas, right liver lobe
    for (task, case_id), status in zip(tasks.items(), (0, 1), strict=True):
        folder = msd_task(tmp_path / task, {case_id: (1, 2)})
        header_faults.without_form_codes(folder / "imagesTr" / f"{case_id}.nii.gz", ct(), LPI)
        header_faults.without_form_codes(folder / "labelsTr" / f"{case_id}.nii.gz", mask(1, 2), LPI)
        assert convert_msd(["-i", str(folder), "-o", str(tmp_path / "raw"), "-d", task[4:6].lstrip("0")]) == status
    out, error = capsys.readouterr()
    assert "left and right are a guess in 1 images, the first is pancreas_001" in out
    assert "liver_0.nii.gz: the header does not say where left and right are, and attributes name a side" in error
    assert not open_volume(tmp_path / "raw/Dataset007_Pancreas/labelsTr/pancreas_001.nii.gz").tells_sides

"""What is told about damaged files, wrong label maps and grids that do not match."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from tiny_data import LPI, SHAPE, as_two_gzip_members, ct, damage_the_middle, mask, save, truncate

from nnunetv2_malenia.dataset_conversion.checks import (
    CaseFaultError,
    check_same_grid,
    read_image_header,
    read_mask,
)
from nnunetv2_malenia.dataset_conversion.sources import FileInFolder

NAMES = {0: "background", 1: "kidney", 2: "kidney tumor"}


def image_header(path, volumes=1):
    return read_image_header(FileInFolder(path), volumes)


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
    assert image_header(save(tmp_path / "i.nii.gz", ct()[..., None])).get_data_shape() == (*SHAPE, 1)


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (mask(1, 7, 7, 9), r"label value 7 \(16 voxels\), 9 \(8 voxels\) is not in the label map.*2 kidney tumor"),
        (mask(1, -1, dtype=np.int16), "label value -1 is not in the label map"),
        (mask(1, 300, dtype=np.int16), "label value 300 is not in the label map"),
        (mask(1, dtype=np.float32) / 2, r"0\.5 is not an integer.*nearest neighbour"),
        (np.where(mask(1), np.nan, 1).astype(np.float32), "nan is not an integer"),
        (np.stack([mask(1)] * 2, -1), r"a mask of shape \(6, 7, 8, 2\); store one 3-D label map"),
        (mask(1)[0], r"a mask of shape \(7, 8\); store one 3-D label map"),
    ],
    ids=["outside", "negative", "too large", "fraction", "nan", "4-D", "2-D"],
)
def test_a_wrong_mask_is_told_with_what_to_do(tmp_path, array, told):
    with pytest.raises(CaseFaultError, match=told):
        the_mask(save(tmp_path / "m.nii.gz", array))


@pytest.mark.parametrize("read", [image_header, the_mask])
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
    with pytest.raises(CaseFaultError, match=told):
        read(path)


@pytest.mark.parametrize("at", [-5, -1], ids=["checksum", "length"])
def test_a_mask_is_compared_with_its_own_checksum_and_length(tmp_path, at):
    path = save(tmp_path / "m.nii.gz", mask(1))
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(CaseFaultError, match="damaged"):
        the_mask(path)


def test_a_mask_with_fewer_voxels_than_its_header_says_is_told(tmp_path):
    path = save(tmp_path / "m.nii", mask(1))
    import gzip

    (tmp_path / "m.nii.gz").write_bytes(gzip.compress(path.read_bytes()[:-10]))
    for read in (the_mask, image_header):
        with pytest.raises(CaseFaultError, match="ends before its last voxel"):
            read(tmp_path / "m.nii.gz")


def test_an_image_is_not_decompressed(tmp_path):
    path = save(tmp_path / "i.nii.gz", ct(shape=(40, 50, 60)))
    damage_the_middle(path)
    with pytest.raises(Exception, match=r"decompressing|CRC"):
        np.asarray(nib.load(path).dataobj)
    assert image_header(path).get_data_shape() == (40, 50, 60)


def test_a_whole_image_of_several_gzip_members_is_accepted_and_a_damaged_one_is_not(tmp_path):
    path = save(tmp_path / "i.nii.gz", ct(shape=(40, 50, 60)))
    as_two_gzip_members(path)
    assert image_header(path).get_data_shape() == (40, 50, 60)
    damage_the_middle(path)
    with pytest.raises(CaseFaultError, match="damaged"):
        image_header(path)


def test_an_image_with_another_number_of_volumes_is_told(tmp_path):
    path = save(tmp_path / "i.nii.gz", np.stack([ct()] * 3, -1))
    assert image_header(path, volumes=3).get_data_shape() == (*SHAPE, 3)
    with pytest.raises(CaseFaultError, match=r"shape \(6, 7, 8, 3\) where one 3-D volume is needed"):
        image_header(path)
    with pytest.raises(CaseFaultError, match="where 4 volumes, one a channel is needed"):
        image_header(path, volumes=4)


def test_an_image_without_intensities_is_told(tmp_path):
    with pytest.raises(CaseFaultError, match="store intensities as numbers"):
        image_header(save(tmp_path / "i.nii.gz", ct().astype(np.complex64)))


def test_a_singular_affine_is_told(tmp_path):
    image = nib.Nifti1Image(mask(1), np.diag([1.0, 1, 1, 1]))
    image.header.set_sform(np.diag([1.0, 0, 1, 1]), code=1)
    path = tmp_path / "x.nii.gz"
    nib.Nifti1Image(mask(1), None, image.header).to_filename(path)
    for read in (image_header, the_mask):
        with pytest.raises(CaseFaultError, match="affine is no voxel grid"):
            read(path)


def header(affine=LPI, shape=SHAPE):
    return nib.Nifti1Image(np.zeros(shape, np.uint8), affine).header


def test_image_and_mask_must_share_axis_order_shape_and_affine():
    shifted, nearly = LPI.copy(), LPI.copy()
    shifted[2, 3] += 2.5
    nearly[:3, 3] += 0.01
    check_same_grid(header(), header(nearly))
    with pytest.raises(CaseFaultError, match=r"affines of image and mask differ, by up to 2\.5 mm; resample the mask"):
        check_same_grid(header(), header(shifted))
    with pytest.raises(CaseFaultError, match=r"\(6, 7, 8\) and mask \(6, 7, 9\) differ in shape"):
        check_same_grid(header(), header(shape=(6, 7, 9)))


def test_a_small_rotation_is_seen_at_the_far_corner():
    angle = 0.01
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    check_same_grid(header(np.eye(4)), header(turn))
    with pytest.raises(CaseFaultError, match="affines of image and mask differ"):
        check_same_grid(header(np.eye(4), (100, 100, 10)), header(turn, (100, 100, 10)))


def test_every_other_axis_order_of_the_mask_is_told():
    told = 0
    for axes, flips in product(permutations(range(3)), product((1, -1), repeat=3)):
        ornt = np.column_stack([axes, flips])
        turned = nib.Nifti1Image(np.zeros((5, 5, 5), np.uint8), LPI).as_reoriented(ornt).header
        if (ornt == [[0, 1], [1, 1], [2, 1]]).all():
            check_same_grid(header(shape=(5, 5, 5)), turned)
        else:
            with pytest.raises(CaseFaultError, match="differ in axis order, LPS and"):
                check_same_grid(header(shape=(5, 5, 5)), turned)
            told += 1
    assert told == 47

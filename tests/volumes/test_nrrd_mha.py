"""NRRD and MHA are the same volume in the same place as NIfTI, sheared or not, and as SimpleITK has it."""

from itertools import permutations, product

import header_faults as faults
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnunetv2_malenia.volumes import InputError, grid_difference, itk_affine, open_volume, write_volume

SHEARED = np.array([[2.0, 0.1, 0, -20.123456789], [0, 2.0, 1.2, 10], [0.3, 0, 3.0, 30], [0, 0, 0, 1]])
AFFINE = np.diag([2.0, 2, 3, 1])
VOXELS = np.arange(6 * 7 * 8, dtype=np.int16).reshape(6, 7, 8)
WRITERS = {".nrrd": faults.write_nrrd, ".mha": faults.write_mha}
ORDERS = [np.column_stack(pair) for pair in product(permutations(range(3)), product((1, -1), repeat=3))]


def refusal(path):
    with pytest.raises(InputError) as raised:
        open_volume(path).voxels()
    assert path.name in str(raised.value)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("affine", [SHEARED, faults.TURNED], ids=["sheared", "turned"])
def test_all_48_axis_orders_are_read_with_their_exact_affine(tmp_path, ending, affine):
    for order in ORDERS:
        image = nib.Nifti1Image(VOXELS, affine).as_reoriented(order)
        voxels = np.asarray(image.dataobj)
        volume = open_volume(WRITERS[ending](tmp_path / f"a{ending}", voxels, image.affine))
        np.testing.assert_allclose(volume.affine, image.affine, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(volume.voxels(), voxels)
        assert volume.tells_sides


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii.gz"])
def test_a_sheared_volume_is_written_and_read_again_in_its_place(tmp_path, ending):
    write_volume(VOXELS, SHEARED, tmp_path / f"a{ending}")
    volume = open_volume(tmp_path / f"a{ending}")
    np.testing.assert_allclose(volume.affine, SHEARED, rtol=1e-6)
    np.testing.assert_array_equal(volume.voxels(), VOXELS)
    assert "not at right angles" in volume.doubts[0]


@pytest.mark.parametrize(("space", "signs"), [
    ("RAS", (1, 1, 1)), ("left-posterior-superior", (-1, -1, 1)), ("Left-Anterior-Superior", (-1, 1, 1)),
])  # fmt: skip
def test_a_space_says_where_left_is(tmp_path, space, signs):
    path = faults.write_nrrd(tmp_path / "a.nrrd", VOXELS, np.diag([*signs, 1]) @ SHEARED, space=space)
    volume = open_volume(path)
    np.testing.assert_allclose(volume.affine, SHEARED, rtol=1e-12)
    assert volume.tells_sides


@pytest.mark.parametrize("space", ["scanner-xyz", "3D-right-handed", ""])
def test_a_space_without_sides_is_doubted(tmp_path, space):
    volume = open_volume(faults.write_nrrd(tmp_path / "a.nrrd", VOXELS, AFFINE, space=space))
    assert not volume.tells_sides
    assert "left and right are a guess" in volume.doubts[0]


def test_an_mha_without_directions_is_doubted_and_one_without_spacing_refused(tmp_path):
    path = faults.write_mha(tmp_path / "a.mha", VOXELS, AFFINE)
    path.write_bytes(path.read_bytes().replace(b"TransformMatrix", b"Comment"))
    assert not open_volume(path).tells_sides
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing", b"Comment2"))
    assert "gives no spacing" in refusal(path)


def test_other_units_are_doubted(tmp_path):
    for unit, doubts in (("mm", 0), ("m", 1)):
        more = "space units: " + " ".join([f'"{unit}"'] * 3) + "\n"
        assert len(open_volume(faults.write_nrrd(tmp_path / "a.nrrd", VOXELS, AFFINE, more=more)).doubts) == doubts


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, ending, compressed, share):
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(path), compressed)
    open_volume(path).voxels()
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "No such file" not in refusal(path)


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("place", [-1, -4, -60])
def test_a_flipped_bit_in_compressed_voxels_is_noticed(tmp_path, ending, place):
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(path), True)
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    assert "damaged" in refusal(path)
    with pytest.raises(InputError, match="damaged"):
        open_volume(path).verify()


def test_compression_is_read(tmp_path):
    volume = open_volume(faults.write_nrrd(tmp_path / "a.nrrd", VOXELS, SHEARED, encoding="gzip"))
    np.testing.assert_array_equal(volume.voxels(), VOXELS)


@pytest.mark.parametrize("encoding", ["bzip2", "ascii", "nonsense"])
def test_an_encoding_that_is_not_what_it_says_is_refused(tmp_path, encoding):
    refusal(faults.write_nrrd(tmp_path / "a.nrrd", VOXELS, AFFINE, encoding=encoding))


def test_voxels_in_another_file_are_not_gone_after(tmp_path):
    (tmp_path / "b.raw").write_bytes(VOXELS.tobytes(order="F"))
    for line in ("data file: b.raw\n", "datafile: b.raw\n", "data file: LIST\n", "data file: b%d.raw 1 9 1\n"):
        said = refusal(faults.write_nrrd(tmp_path / "a.nrrd", VOXELS, AFFINE, more=line))
        assert "voxels are in another file" in said
    assert "in another file" in refusal(faults.write_mha(tmp_path / "a.mha", VOXELS, AFFINE, data="b.raw"))


def test_a_scale_that_would_be_left_out_is_refused(tmp_path):
    slope = "ElementToIntensityFunctionSlope = {}\n"
    open_volume(faults.write_mha(tmp_path / "a.mha", VOXELS, AFFINE, more=slope.format(1)))
    said = refusal(faults.write_mha(tmp_path / "a.mha", VOXELS, AFFINE, more=slope.format(2.5)))
    assert "ElementToIntensityFunctionSlope" in said


@pytest.mark.parametrize("ending", WRITERS)
def test_more_than_one_volume_colours_and_planes_are_refused(tmp_path, ending):
    for array, is_vector, said in (
        (np.zeros((2, 3, 4, 5), np.int16), False, "4-D"),
        (np.zeros((3, 4, 5, 3), np.uint8), True, "3 values a voxel"),
        (np.zeros((4, 5), np.int16), False, "2-D"),
    ):
        sitk.WriteImage(sitk.GetImageFromArray(array, isVector=is_vector), str(tmp_path / f"a{ending}"))
        assert said in refusal(tmp_path / f"a{ending}")
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS[None], isVector=False), str(tmp_path / f"a{ending}"))
    assert open_volume(tmp_path / f"a{ending}").voxels().shape == VOXELS.shape[::-1]


@pytest.mark.parametrize(("ending", "old", "new"), [
    (".nrrd", b"sizes: 6 7 8", b"sizes: 60000 70000 80000"),
    (".nrrd", b"sizes: 6 7 8", b"sizes: 6 0 8"),
    (".nrrd", b"sizes: 6 7 8", b"sizes: 6 -7 8"),
    (".nrrd", b"type: int16", b"type: block"),
    (".nrrd", b"(0.0,2.0,0.0)", b"(2.0,0.0,0.0)"),
    (".nrrd", b"(0.0,2.0,0.0)", b"(0.0,nan,0.0)"),
    (".nrrd", b"(0.0,2.0,0.0)", b"(0.0,0.0,0.0)"),
    (".nrrd", b"NRRD", b"DRRN"),
    (".mha", b"DimSize = 6 7 8", b"DimSize = 60000 70000 80000"),
    (".mha", b"DimSize = 6 7 8", b"DimSize = -6 7 8"),
    (".mha", b"DimSize = 6 7 8", b"DimSize = 6 7"),
    (".mha", b"MET_SHORT", b"MET_NONSENSE"),
    (".mha", b"ElementSpacing = 2.0", b"ElementSpacing = 0"),
    (".mha", b"TransformMatrix = -1.0", b"TransformMatrix = nan"),
    (".mha", b"ElementDataFile", b"Comment"),
    (".mha", b"NDims = 3", b"NDims = x"),
])  # fmt: skip
def test_a_header_without_sense_is_refused_in_one_line(tmp_path, ending, old, new):
    path = WRITERS[ending](tmp_path / f"a{ending}", VOXELS, AFFINE)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    refusal(path)


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_what_simpleitk_writes_is_read_as_simpleitk_reads_it(tmp_path, dtype, compressed, ending):
    image = sitk.GetImageFromArray(VOXELS.astype(dtype) % 100)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((1.5, -20.123456789, 300))
    image.SetDirection(nib.eulerangles.euler2mat(0.1, 0.2, 0.05).ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"), compressed)
    volume, image = open_volume(tmp_path / f"a{ending}"), sitk.ReadImage(str(tmp_path / f"a{ending}"))
    np.testing.assert_array_equal(volume.voxels().T, sitk.GetArrayFromImage(image))
    assert volume.voxels().dtype == dtype
    expected = itk_affine(image.GetDirection(), image.GetSpacing(), image.GetOrigin())
    np.testing.assert_allclose(volume.affine, expected, atol=1e-9)
    assert (volume.doubts, volume.tells_sides) == ((), True)


EDITS = st.tuples(st.integers(0, 400), st.integers(0, 9), st.sampled_from([b"", b"0", b"-1", b"nan", b"1e300", b"\n"]))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(ending=st.sampled_from(list(WRITERS)), edits=st.lists(EDITS, min_size=1, max_size=4))
def test_any_header_is_read_or_refused(tmp_path, ending, edits):
    path = WRITERS[ending](tmp_path / f"a{ending}", VOXELS, AFFINE)
    content = bytearray(path.read_bytes())
    for place, length, new in edits:
        content[place : place + length] = new
    path.write_bytes(content)
    try:
        volume = open_volume(path)
        assert volume.voxels().shape == volume.shape
    except InputError:
        return


def test_three_formats_of_one_grid_are_one_grid(tmp_path):
    files = [write(tmp_path / f"a{ending}", VOXELS, SHEARED) for ending, write in WRITERS.items()]
    files.append(faults.store(tmp_path / "a.nii", faults.nifti_bytes(VOXELS, SHEARED)))
    for a, b in product(map(open_volume, files), repeat=2):
        assert grid_difference(a, b) is None

from itertools import permutations

import nibabel as nib
import numpy as np
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient

from nnunetv2_malenia.network.mirroring import REORIENTING_READER, axes_without_left_right


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LAS", "IPL", "PSR", "SRA"])
@pytest.mark.parametrize("transpose_forward", list(permutations(range(3))))
def test_the_axis_left_out_is_left_right_however_the_file_is_stored(tmp_path, orientation, transpose_forward):
    brighter_to_the_right = np.broadcast_to(np.arange(4.0)[:, None, None], (4, 5, 6)).copy()
    stored = nib.Nifti1Image(brighter_to_the_right, np.diag([1.0, 2.0, 3.0, 1.0]))
    to = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(orientation)
    )
    nib.save(stored.as_reoriented(to), tmp_path / "image.nii.gz")
    image, _ = NibabelIOWithReorient().read_images([str(tmp_path / "image.nii.gz")])
    preprocessed = image[0].transpose(transpose_forward)  # as nnU-Net's preprocessor does
    side = next(axis for axis in range(3) if np.ptp(preprocessed, axis=axis).any())

    axes = axes_without_left_right((0, 1, 2), REORIENTING_READER, transpose_forward)
    assert axes == tuple(axis for axis in range(3) if axis != side)


def test_the_reader_has_the_name_that_nnunet_gives_it():
    assert NibabelIOWithReorient.__name__ == REORIENTING_READER


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO", "NaturalImage2DIO"])
def test_nothing_is_mirrored_when_the_reader_does_not_say_which_axis_is_left_right(reader):
    assert axes_without_left_right((0, 1, 2), reader, (0, 1, 2)) == ()


@pytest.mark.parametrize(
    ("allowed", "left"), [(None, ()), ((), ()), ((2,), ()), ((0,), (0,)), ((1, 2), (1,)), ([0, 2], (0,))]
)
def test_no_axis_is_added_to_those_that_nnunet_chose(allowed, left):
    assert axes_without_left_right(allowed, REORIENTING_READER, (0, 1, 2)) == left

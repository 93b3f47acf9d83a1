"""MaleniaPredictor.predict gives what the command writes, for files and arrays."""

import nibabel as nib
import numpy as np
import pytest
from tiny_model import AFFINE, SHAPE_XYZ, save_ct, tiny_ct

from nnunetv2_malenia.attributes.schema import AttributeTable
from nnunetv2_malenia.inference.export import OutputOptions, read_findings
from nnunetv2_malenia.inference.predictor import MaleniaPredictor
from nnunetv2_malenia.volumes import InputError

TABLE = AttributeTable(
    lesions={"liver tumor": {"location": "liver", "density": "hypodense"}, "kidney stone": {"density": "hyperdense"}}
)


@pytest.fixture(scope="module")
def predictor(model):
    return MaleniaPredictor.from_model_folder(model, device="cpu", use_mirroring=False)


@pytest.mark.parametrize("order", ["RAS", "LPS", "SAR"])
def test_a_file_and_an_array_are_answered_as_the_command_does(predictor, tmp_path, order):
    image = nib.load(save_ct(tmp_path / "a.nii.gz"))
    change = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(order))
    image = image.as_reoriented(change)
    nib.save(image, tmp_path / "a.nii.gz")
    # The weights are random: half of the voxels are above the median whatever they are.
    middle = float(np.median(predictor.predict(tmp_path / "a.nii.gz", TABLE).probabilities))
    options = OutputOptions(threshold=middle, min_volume_ml=0.2, save_masks=True)
    predictor.ask(TABLE)
    predictor.predict_cases(tmp_path / "a.nii.gz", tmp_path / "out", options, num_processes_preprocessing=0,
                            num_processes_export=0)  # fmt: skip
    written = read_findings(tmp_path / "out" / "a.json")
    from_file = predictor.predict(tmp_path / "a.nii.gz", TABLE, options=options)
    from_array = predictor.predict(np.asarray(image.dataobj), TABLE, affine=image.affine, options=options)
    for prediction in (from_file, from_array):
        np.testing.assert_allclose(prediction.affine, image.affine)
        assert prediction.probabilities.shape == (2, *image.shape)
        label_map = nib.load(tmp_path / "out" / "a.nii.gz")
        np.testing.assert_array_equal(prediction.label_map, np.asarray(label_map.dataobj))
        for name, mask in zip(("liver_tumor", "kidney_stone"), prediction.masks, strict=True):
            stored = nib.load(tmp_path / "out" / "masks" / "a" / f"{name}.nii.gz")
            np.testing.assert_array_equal(mask, np.asarray(stored.dataobj) > 0)
        assert tuple(prediction.findings) == written.findings
    assert 0 < from_file.masks.mean() < 1


def test_another_table_can_be_asked_of_the_same_model(predictor):
    ct = tiny_ct()
    first = predictor.predict(ct, TABLE, affine=AFFINE)
    one = AttributeTable(lesions={"liver tumor": {"location": "liver", "density": "hypodense"}})
    second = predictor.predict(ct, one, affine=AFFINE)
    assert second.probabilities.shape == (1, *SHAPE_XYZ)
    np.testing.assert_allclose(second.probabilities[0], first.probabilities[0], atol=1e-3)


def test_an_image_that_cannot_be_used_is_an_error_in_one_line(predictor, tmp_path):
    with pytest.raises(InputError, match="give affine"):
        predictor.predict(tiny_ct(), TABLE)
    path = save_ct(tmp_path / "a.nii.gz")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="damaged"):
        predictor.predict(path, TABLE)

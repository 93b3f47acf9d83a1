import json

import nibabel as nib
import numpy as np
import pytest

from nnunetv2_malenia.attributes.schema import AttributeTable
from nnunetv2_malenia.attributes.tables import read_table
from nnunetv2_malenia.dataset_conversion.nnunet_raw import new_raw_dataset

AFFINE = np.array([[2.0, 0, 0, -10], [0, 3.0, 0, -20], [0, 0, 5.0, -30], [0, 0, 0, 1]])
LABELS = {"background": 0, "liver": 1, "liver tumor": 2}


def case(seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(-1000, 1000, (4, 5, 6), dtype=np.int16), rng.integers(0, 3, (4, 5, 6), dtype=np.uint8)


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_data_set_is_stored_as_nnunet_reads_it(tmp_path):
    folder, (image, labels) = tmp_path / "Dataset001_Test", case()
    with new_raw_dataset(folder, LABELS, channel_names=("CT", "CT"), description="two channels") as raw:
        raw.add_training_case("a", [image, image + 1], labels, AFFINE)
        raw.add_test_case("b", [image, image], labels, AFFINE)
        raw.write_json("labelsTs.json", LABELS)
        raw.write_attributes(AttributeTable(lesions={"liver tumor": {"location": "liver"}}))
        assert not folder.exists()
    assert files(folder) == {
        "attributes.json", "dataset.json", "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz",
        "imagesTs/b_0000.nii.gz", "imagesTs/b_0001.nii.gz", "labelsTr/a.nii.gz", "labelsTs/b.nii.gz", "labelsTs.json",
    }  # fmt: skip
    about = json.loads((folder / "dataset.json").read_text())
    assert about["labels"] == LABELS
    assert about["channel_names"] == {"0": "CT", "1": "CT"}
    assert about["numTraining"] == 1
    assert about["file_ending"] == ".nii.gz"
    assert about["overwrite_image_reader_writer"] == "NibabelIOWithReorient"
    assert about["description"] == "two channels"
    assert read_table(folder / "attributes.json").attributes_of("liver tumor").location == ("liver",)
    assert list(tmp_path.iterdir()) == [folder]


def test_nifti_keeps_axes_spacing_affine_and_values(tmp_path):
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient

    folder, (image, labels) = tmp_path / "Dataset001_Test", case()
    with new_raw_dataset(folder, LABELS) as raw:
        raw.add_training_case("a", [image], labels, AFFINE)
    stored = nib.load(folder / "imagesTr" / "a_0000.nii.gz")
    assert (stored.affine == AFFINE).all()
    assert stored.header.get_zooms() == (2, 3, 5)
    assert stored.get_data_dtype() == np.int16
    assert (np.asarray(stored.dataobj).transpose(2, 1, 0) == image).all()
    read, properties = NibabelIOWithReorient().read_images([str(folder / "imagesTr" / "a_0000.nii.gz")])
    assert (read[0] == image).all()
    assert np.allclose(properties["spacing"], (5, 3, 2))


def test_nothing_is_left_behind_by_a_failure(tmp_path):
    image, labels = case()

    def write_a_case_twice():
        with new_raw_dataset(tmp_path / "Dataset001_Test", LABELS) as raw:
            raw.add_training_case("a", [image], labels, AFFINE)
            raw.add_test_case("a", [image], labels, AFFINE)

    with pytest.raises(ValueError, match="added twice"):
        write_a_case_twice()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_data_set_is_not_touched(tmp_path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(FileExistsError, match="remove it or choose another name"), new_raw_dataset(tmp_path, LABELS):
        pass
    assert (tmp_path / "mine").read_text() == "kept"


def test_wrong_channels_and_shapes_are_refused(tmp_path):
    image, labels = case()
    with pytest.raises(ValueError, match="2 images for 1 channels"), new_raw_dataset(tmp_path / "D1", LABELS) as raw:
        raw.add_training_case("a", [image, image], labels, AFFINE)
    with pytest.raises(ValueError, match="differ in shape"), new_raw_dataset(tmp_path / "D2", LABELS) as raw:
        raw.add_training_case("a", [image], labels[1:], AFFINE)


def test_images_given_as_paths_are_stored_once(tmp_path):
    image, labels = case()
    with new_raw_dataset(tmp_path / "D1", LABELS) as raw:
        raw.add_training_case("a", [image], labels, AFFINE)
    source = tmp_path / "D1" / "imagesTr" / "a_0000.nii.gz"
    with new_raw_dataset(tmp_path / "D2", LABELS) as raw:
        raw.add_training_case("a", [source], labels, AFFINE)
    copy = tmp_path / "D2" / "imagesTr" / "a_0000.nii.gz"
    assert copy.read_bytes() == source.read_bytes()
    assert copy.samefile(source)

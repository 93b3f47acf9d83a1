"""Converted masks show the same voxels at the same places in the patient, whatever the axis order."""

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
from tiny_data import save

from nnunetv2_malenia.cli import convert_kits

REAL = Path(__file__).parents[3] / "shared" / "data" / "kits23" / "dataset"
ORDERS = [np.column_stack(pair) for pair in product(permutations(range(3)), product((1, -1), repeat=3))]


def kits_case(folder, case_id, image):
    """A case with this mask, and an image made for its geometry."""
    nib.save(image, folder / "dataset" / case_id / "segmentation.nii.gz")
    save(folder / "dataset" / case_id / "imaging.nii.gz", np.zeros(image.shape, np.int16), image.affine)


def moments(labels, affine):
    """Per label value: voxels, and the mean of their places in RAS millimetres."""
    found = {}
    for value in np.unique(labels[labels > 0]).tolist():
        places = np.argwhere(labels == value)
        found[value] = len(places), nib.affines.apply_affine(affine, places).mean(0)
    return found


def assert_same_in_world_space(source, folder, case_id):
    mask = nib.load(folder / "labelsTr" / f"{case_id}.nii.gz")
    before, after = (moments(np.asarray(each.dataobj), each.affine) for each in (source, mask))
    assert before.keys() == after.keys()
    for value, (count, centre) in before.items():
        assert after[value][0] == count
        assert np.allclose(after[value][1], centre, atol=1e-3)


def convert(source, raw):
    assert convert_kits(["-i", str(source), "-d", "220", "-o", str(raw)]) == 0
    return raw / "Dataset220_KiTS23"


def in_all_orders(tmp_path, mask):
    for number, order in enumerate(ORDERS):
        (tmp_path / "kits" / "dataset" / f"case_{number:05d}").mkdir(parents=True)
        kits_case(tmp_path / "kits", f"case_{number:05d}", mask.as_reoriented(order))
    folder = convert(tmp_path / "kits", tmp_path / "raw")
    assert len({nib.aff2axcodes(nib.load(path).affine) for path in (folder / "labelsTr").iterdir()}) == 48
    return folder


def test_every_axis_order_keeps_every_voxel_in_its_place(tmp_path):
    labels = np.random.default_rng(0).integers(0, 4, (4, 5, 6), dtype=np.uint8)
    oblique = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0.05) @ np.diag([0.8, 0.7, 2.5]), [5, 6, 7])
    mask = nib.Nifti1Image(labels, oblique)
    folder = in_all_orders(tmp_path, mask)
    seen = set()
    for number in range(48):
        assert_same_in_world_space(mask, folder, f"case_{number:05d}")
        read, _ = NibabelIOWithReorient().read_seg(str(folder / "labelsTr" / f"case_{number:05d}.nii.gz"))
        seen.add(read.tobytes())
    assert len(seen) == 1, "nnU-Net reads the same array from every order"


needs_real_masks = pytest.mark.skipif(not REAL.is_dir(), reason="needs the KiTS23 masks in ../shared/data")


@needs_real_masks
def test_a_real_mask_keeps_its_places_in_every_axis_order(tmp_path):
    whole = nib.load(min(REAL.glob("case_*/segmentation.nii.gz"), key=lambda path: path.stat().st_size))
    small = whole.slicer[::2, ::8, ::8]
    folder = in_all_orders(tmp_path, nib.Nifti1Image(np.asarray(small.dataobj), small.affine))
    for number in range(48):
        assert_same_in_world_space(small, folder, f"case_{number:05d}")


@needs_real_masks
def test_real_masks_are_stored_as_they_were_published(tmp_path):
    paths = sorted(REAL.glob("case_*/segmentation.nii.gz"), key=lambda path: path.stat().st_size)[:3]
    sources = {path.parent.name: nib.load(path) for path in paths}
    for case_id, mask in sources.items():
        (tmp_path / "kits" / "dataset" / case_id).mkdir(parents=True)
        kits_case(tmp_path / "kits", case_id, mask)
    folder = convert(tmp_path / "kits", tmp_path / "raw")
    for case_id, mask in sources.items():
        assert_same_in_world_space(mask, folder, case_id)

import json

import numpy as np
import pytest

from nnunetv2_malenia.phantom.anatomy import ORGANS, Grid, PhantomError, Tissue
from nnunetv2_malenia.phantom.backdrop import add_backdrop
from nnunetv2_malenia.phantom.label_maps import label_anatomy, organ_of, read_names, tissue_of

GRID = Grid((20, 60, 80), (5.0, 4.0, 4.0))


def boxes(**placed: tuple[slice, slice, slice]) -> tuple[np.ndarray, dict[str, int]]:
    """A label map of boxes by name, numbered from 1."""
    labels, names = np.zeros(GRID.shape, np.uint8), {}
    for value, (name, box) in enumerate(placed.items(), start=1):
        labels[box], names[name] = value, value
    return labels, names


def draw(**placed):
    labels, names = boxes(**placed)
    return label_anatomy(labels, names, GRID, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "tissue", "organ"),
    [
        ("kidney_left", Tissue.RENAL_CORTEX, "left kidney"),
        ("left kidney", Tissue.RENAL_CORTEX, "left kidney"),
        ("kidney", Tissue.RENAL_CORTEX, "kidney"),
        ("lung_upper_lobe_left", Tissue.LUNG, "left lung"),
        ("Liver", Tissue.LIVER, "liver"),
        ("gallbladder", Tissue.BOWEL_WALL, "gallbladder"),
        ("urinary_bladder", Tissue.BOWEL_WALL, None),
        ("colon", Tissue.BOWEL_WALL, "colon"),
        ("small_bowel", Tissue.BOWEL_WALL, None),
        ("portal_vein_and_splenic_vein", Tissue.VESSEL, None),
        ("inferior_vena_cava", Tissue.VESSEL, None),
        ("iliac_artery_left", Tissue.AORTA, None),
        ("aorta", Tissue.AORTA, "aorta"),
        ("vertebrae_L1", Tissue.BONE, None),
        ("rib_left_7", Tissue.BONE, None),
        ("autochthon_right", Tissue.MUSCLE, None),
    ],
)
def test_names_of_different_sources_stand_for_the_same_tissue(name, tissue, organ):
    assert tissue_of(name)[0] == tissue
    assert organ_of(name) == organ


def test_a_name_that_stands_for_nothing_is_told():
    with pytest.raises(PhantomError, match=r"'tumor'.*neither a lesion of the attribute table nor a known organ"):
        draw(tumor=(slice(2, 5),) * 3)


def test_two_kidneys_under_one_label_are_told_apart_by_the_patients_side():
    anatomy = draw(kidney=(slice(4, 14), slice(20, 30), np.r_[15:25, 60:70]))
    left, right = (np.argwhere(anatomy.organ(f"{side} kidney"))[:, 2] for side in ("left", "right"))
    assert (left.min(), left.max()) == (15, 24)  # x grows to the patient's right
    assert (right.min(), right.max()) == (60, 69)


@pytest.mark.parametrize(("columns", "side"), [(slice(15, 30), "left"), (slice(34, 60), "right")])
def test_a_single_kidney_is_on_the_side_of_its_middle_and_not_cut(columns, side):
    anatomy = draw(kidney=(slice(4, 14), slice(20, 30), columns))
    assert anatomy.organ(f"{side} kidney").sum() == (anatomy.organs > 0).sum() > 0


def test_kidneys_that_are_not_level_with_the_middle_of_the_scan_are_halved_between_them():
    anatomy = draw(kidney=(slice(4, 14), slice(20, 30), np.r_[3:13, 36:46]))  # both left of the middle
    assert np.flatnonzero(anatomy.organ("right kidney").any((0, 1))).tolist() == list(range(36, 46))


def test_hollow_organs_have_a_wall_and_content():
    anatomy = draw(gallbladder=(slice(5, 12), slice(10, 20), slice(10, 20)))
    where = anatomy.organ("gallbladder")
    assert set(np.unique(anatomy.tissue[where])) == {Tissue.BOWEL_WALL, Tissue.BILE}
    assert anatomy.tissue[8, 15, 15] == Tissue.BILE
    assert anatomy.tissue[8, 10, 15] == Tissue.BOWEL_WALL


def test_parts_of_pancreas_and_liver_lie_on_the_patients_sides():
    anatomy = draw(
        pancreas=(slice(8, 11), slice(30, 36), slice(20, 50)),
        liver=(slice(12, 18), slice(10, 40), slice(20, 70)),
        gallbladder=(slice(4, 7), slice(36, 40), slice(48, 52)),
        inferior_vena_cava=(slice(0, 20), slice(14, 18), slice(42, 46)),
    )
    middle = {name: np.argwhere(part)[:, 2].mean() for name, part in anatomy.parts.items()}
    assert middle["pancreas tail"] < middle["pancreas body"] < middle["pancreas head"]
    assert middle["left liver lobe"] < middle["right liver lobe"]
    assert (sum(part for name, part in anatomy.parts.items() if "liver" in name) == anatomy.organ("liver")).all()


@pytest.mark.parametrize("content", [{"Background": 0, "liver": 1}, {"labels": {"liver": "1"}}, {"liver": 1, "bg": 0}])
def test_names_are_read_from_label_maps_and_data_sets_with_any_background(tmp_path, content):
    (tmp_path / "d.json").write_text(json.dumps(content))
    assert read_names(tmp_path / "d.json") == {"background": 0, "liver": 1}


@pytest.mark.parametrize("labels", [{"a": [1, 2]}, {"a": 1.5}, {"a": -1}, {"a": 1, "b": 1}, {"a": True}])
def test_names_without_one_whole_number_each_are_refused(tmp_path, labels):
    (tmp_path / "d.json").write_text(json.dumps(labels))
    with pytest.raises(PhantomError, match=r"d\.json.*(number|same value)"):
        read_names(tmp_path / "d.json")


def test_the_backdrop_surrounds_the_organs_and_leaves_them_alone():
    grid = Grid((20, 80, 100), (5.0, 4.0, 4.0))
    labels = np.zeros(grid.shape, np.uint8)
    labels[:, 34:42, np.r_[28:38, 62:72]] = 1
    anatomy = label_anatomy(labels, {"kidney": 1}, grid, np.random.default_rng(0))
    before = anatomy.tissue.copy()
    add_backdrop(anatomy, np.random.default_rng(0))
    assert (anatomy.tissue[labels > 0] == before[labels > 0]).all()
    around = anatomy.tissue[10, 38, :]
    assert around[0] == around[-1] == Tissue.AIR
    assert Tissue.AIR not in around[28:72]
    assert {Tissue.FAT, Tissue.MUSCLE, Tissue.BONE, Tissue.AORTA} <= set(np.unique(anatomy.tissue))
    bone = np.argwhere(anatomy.tissue == Tissue.BONE)
    assert 38 < bone[:, 2].mean() < 62  # the spine is between the kidneys
    aorta, cava = (np.argwhere(anatomy.tissue == each)[:, 2].mean() for each in (Tissue.AORTA, Tissue.VESSEL))
    assert aorta < cava  # the vena cava is on the patient's right


def test_every_organ_of_the_package_has_a_tissue():
    assert all(organ_of(name) == name and tissue_of(name) for name in ORGANS)

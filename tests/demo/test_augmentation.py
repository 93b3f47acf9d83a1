"""Synthetic lesions beside a data set's own: balance, exclusion, geometry, and the files that must stay as they are."""

import json
from collections import Counter

import nibabel as nib
import numpy as np
import pytest
from oriented import AXIS_ORDERS, store

from nnunetv2_malenia.attributes.schema import AspectValues
from nnunetv2_malenia.attributes.tables import parse_table, read_table
from nnunetv2_malenia.attributes.vocabulary import vocabulary
from nnunetv2_malenia.cli.phantoms import phantom
from nnunetv2_malenia.demo.augmentation import augment_dataset
from nnunetv2_malenia.phantom import lesions as words
from nnunetv2_malenia.phantom.anatomy import ORGANS, Grid, draw_anatomy
from nnunetv2_malenia.phantom.rendering import Scanner, render
from nnunetv2_malenia.phantom.synthesis import BalancedLooks

GRID = Grid((48, 56, 72), (4.2, 4.0, 4.0))
LABELS = {"background": 0} | {name: 1 + i for i, name in enumerate(ORGANS)} | {"liver tumor": 1 + len(ORGANS)}
LESIONS = {"liver tumor": {"location": "liver", "density": "hypodense"}}


def raw_dataset(folder, order="RAS", labels=LABELS):
    body = draw_anatomy(GRID, np.random.default_rng(3))
    image = render(body, [], words.ENHANCED, Scanner(supersampling=1), np.random.default_rng(4))
    mask = body.organs.copy()
    z, y, x = np.argwhere(mask == LABELS["liver"]).mean(0).astype(int)
    mask[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2] = LABELS["liver tumor"]
    if "liver" not in labels:
        mask = np.zeros_like(mask)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    store(np.rint(image).astype(np.int16), GRID.affine, order, folder / "imagesTr" / "a_0000.nii.gz")
    store(mask, GRID.affine, order, folder / "labelsTr" / "a.nii.gz")
    content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    table = {"lesions": LESIONS, "cases": {"a": {"annotated": ["liver", "liver tumor"]}}}
    (folder / "attributes.json").write_text(json.dumps(table))
    return folder


def test_every_value_that_is_always_allowed_comes_up_equally_often():
    looks, rng = BalancedLooks(), np.random.default_rng(0)
    places = ["liver", "left kidney", "right lung"]
    drawn = []
    for _ in range(300):
        drawn.append(looks.draw(places, words.ENHANCED, (), rng))
        looks.count(drawn[-1])
    for aspect in ("location", "shape", "surface", "relationship"):
        counts = Counter(each[aspect] for each in drawn).values()
        assert max(counts) - min(counts) <= 1
    densities = Counter(each["density"] for each in drawn)
    assert min(densities.values()) > 15
    assert max(densities.values()) < 60


def test_excluded_pairs_are_never_drawn_and_a_case_repeats_no_pair():
    excluded = [AspectValues(location="kidney", density=words.FLUID), AspectValues(location="liver")]
    looks, rng = BalancedLooks(excluded), np.random.default_rng(0)
    taken = []
    while look := looks.draw(["liver", "left kidney", "spleen"], words.ENHANCED, taken, rng):
        pair = (*look["location"], *look["density"])
        assert pair not in taken
        assert pair[0] != "liver"
        assert pair[1] != words.FLUID or not vocabulary().overlap("location", pair[0], "kidney")
        taken.append(pair)
        looks.count(look)
    assert len(taken) > 10


@pytest.mark.parametrize("order", AXIS_ORDERS)
def test_lesions_lie_in_their_organs_and_all_else_stays(order, tmp_path):
    source, target = raw_dataset(tmp_path / "source", order), tmp_path / "target"
    excluded = parse_table({"lesions": {"x": {"location": "liver"}}})
    assert augment_dataset(source, target, share=1.0, excluded=excluded)[:2] == (1, 1)
    for name in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"):
        assert (source / name).read_bytes() == (target / name).read_bytes()
    before, after = (nib.load(target / f"labelsTr/{name}.nii.gz") for name in ("a", "a_synthetic"))
    old, new = (np.asarray(each.dataobj) for each in (before, after))
    assert np.allclose(before.affine, after.affine)
    own = old == LABELS["liver tumor"]
    assert (new[own] == LABELS["liver tumor"]).all()
    images = [np.asarray(nib.load(target / f"imagesTr/{n}_0000.nii.gz").dataobj) for n in ("a", "a_synthetic")]
    assert (images[0][own] == images[1][own]).all()
    labels = json.loads((target / "dataset.json").read_text())["labels"]
    table = read_table(target / "attributes.json")
    case = table.cases["a_synthetic"]
    assert case.annotated == ("liver", "liver tumor", "synthetic lesion 1", "synthetic lesion 2")
    for name, stated in case.lesions.items():
        assert not table.lesions[name].stated
        (location,) = stated.location
        organ = {"hepatic vessels": "liver"}.get(location, location)
        assert (old[new == labels[name]] == LABELS[organ]).mean() >= 0.4
        assert location != "liver"
    assert ((new != old) == (new > LABELS["liver tumor"])).all()


def test_label_maps_of_floats_are_augmented_too(tmp_path):
    source = raw_dataset(tmp_path / "source")
    path = source / "labelsTr" / "a.nii.gz"
    mask = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(mask.dataobj, np.float32), mask.affine), path)
    assert phantom(["augment", "-d", str(source), "-o", str(tmp_path / "target"), "--share", "1"]) == 0
    copied = nib.load(tmp_path / "target" / "labelsTr" / "a_synthetic.nii.gz")
    assert copied.get_data_dtype() == np.uint8


@pytest.mark.parametrize("change", [{"labels": None}, {"channel_names": ["CT"]}])
def test_a_dataset_json_that_cannot_be_used_is_one_line(change, tmp_path, capsys):
    source = raw_dataset(tmp_path / "source")
    content = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps(content | change))
    assert phantom(["augment", "-d", str(source), "-o", str(tmp_path / "target")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {source / 'dataset.json'}: ")
    assert error.count("\n") == 1


def test_data_without_organs_is_refused_in_one_line(tmp_path, capsys):
    source = raw_dataset(tmp_path / "source", labels={"background": 0, "liver tumor": 11})
    (source / "attributes.json").unlink()
    assert phantom(["augment", "-d", str(source), "-o", str(tmp_path / "target")]) == 1
    error = capsys.readouterr().err
    assert "no organ is labelled" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "target").exists()

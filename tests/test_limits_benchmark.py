"""What stands in the way: descriptions by hand, measurements of bodies of known form, a network that is told masks."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_net import PATCH_SIZE, PHRASE_ASPECT, tiny_net

from benchmarks.aspects.answers import Phantoms
from benchmarks.limits import descriptions, measurements
from benchmarks.limits.descriptions import can_coincide, is_the_same, silent_share
from benchmarks.limits.measurements import MEASURED, OwnMasks, forest_accuracy, measure_folder, measure_lesion
from benchmarks.limits.reference_masks import CERTAIN, ToldNet
from benchmarks.zero_shot.rows import PHANTOM, SIZES
from nnunetv2_malenia.attributes.schema import ASPECTS, AspectValues, AttributeTable
from nnunetv2_malenia.attributes.tables import read_table, write_table
from nnunetv2_malenia.demo.phantom_dataset import write_phantom_dataset
from nnunetv2_malenia.demo.run import QUERY_TABLE
from nnunetv2_malenia.files import write_json
from nnunetv2_malenia.phantom.dataset import SEEN, UNSEEN

TABLE = AttributeTable.model_validate({
    "lesions": {
        "kidney tumor": {"location": "kidney", "density": "hypodense"},
        "kidney cyst": {"location": "kidney", "density": "fluid density"},
        "liver tumor": {"location": "liver", "density": "hypodense"},
    },
    "cases": {
        "a": {"lesions": {"kidney cyst": {"location": "kidney", "density": "fluid density"}}},
        "b": {"lesions": {"liver tumor": {"location": "liver", "density": "hypodense"}}},
    },
})  # fmt: skip


def test_a_query_is_silent_where_no_lesion_of_another_type_fits_it():
    """a: the cyst fits the kidney tumor if hypodense and fluid can hold together. b: nothing is in a kidney."""
    assert silent_share(TABLE, "kidney tumor", can_coincide) == 1 / 2
    assert silent_share(TABLE, "kidney tumor", is_the_same) == 1
    assert silent_share(TABLE, "kidney cyst", can_coincide) == 1


def test_descriptions_are_read_from_the_tables_of_held_out_phantoms(tmp_path, monkeypatch):
    monkeypatch.setattr(descriptions, "RESULTS", tmp_path)
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "settings.json", {"size": "small"})
    for seed in (0, 1):
        raw = tmp_path / "run" / f"seed_{seed}" / "nnUNet_raw"
        write_phantom_dataset(
            raw / PHANTOM, train_cases=1, test_cases=2 + seed, seed=seed, config=SIZES["smoke"].phantoms
        )

    assert descriptions.main([str(tmp_path / "run")]) == 0
    stored = json.loads((tmp_path / "descriptions_small.json").read_text())
    assert [run["seed"] for run in stored["runs"]] == [0, 1]
    for run in stored["runs"]:
        assert [each["name"] for each in run["types"]] == [*SEEN, *UNSEEN]
        table = read_table(tmp_path / "run" / f"seed_{run['seed']}" / "nnUNet_raw" / PHANTOM / QUERY_TABLE)
        for each in run["types"]:
            assert each["can_coincide"] == silent_share(table, each["name"], can_coincide)
        shares = [each["the_same"] for each in run["types"] if each["the_same"] is not None]
        assert all(0 <= share <= 1 for share in shares)
        assert shares


def body(distance):
    """Voxels (24, 24, 24) in which a distance of the middle is at most 6."""
    return distance(*(np.indices((24, 24, 24)) - 12)) <= 6


def test_measurements_tell_a_ball_from_a_rod_and_inside_from_outside():
    ball = body(lambda x, y, z: np.sqrt(x**2 + y**2 + z**2))
    rod = body(lambda x, y, z: np.maximum(np.abs(x), 3 * np.maximum(np.abs(y), np.abs(z))))
    labels = np.full(ball.shape, 5)
    of_ball, of_rod = (measure_lesion(np.where(each, 80.0, 20.0), labels, each) for each in (ball, rod))
    assert of_ball[0] == ball.sum()
    assert of_ball[1] == pytest.approx(1, abs=0.08)  # sphericity
    assert of_ball[2:4] == pytest.approx([1, 1], abs=0.01)  # principal axes
    assert of_rod[1] < of_ball[1] - 0.05
    assert of_rod[2] < 0.2
    assert of_ball[6:9].tolist() == [80, 0, 0]  # middle, its spread, spread inside
    assert 60 in of_ball  # contrast
    assert np.isfinite(of_ball).all()
    assert np.isfinite(of_rod).all()


@pytest.mark.parametrize("normal", [(1, 0, 0), (1, 1, 0), (1, 1, 1)])
def test_flat_lesions_are_measured_too(normal):
    """A plane, along the axes or oblique, at the border of a noisy image."""
    places = np.indices((16, 16, 16))
    plane = np.einsum("i,i...->...", normal, places) == 6
    image = np.random.default_rng(0).normal(0, 10, plane.shape)
    assert np.isfinite(measure_lesion(image, np.ones(plane.shape, int), plane)).all()


def test_surroundings_without_contrast_or_without_end_are_measured_too():
    everywhere = np.ones((8, 8, 8), bool)
    everywhere[0] = False  # no voxel is farther than one from the lesion
    ball = body(lambda x, y, z: np.sqrt(x**2 + y**2 + z**2))
    for lesion in (everywhere, ball):
        image = np.full(lesion.shape, 40.0)
        assert np.isfinite(measure_lesion(image, np.ones(lesion.shape, int), lesion)).all()


def test_a_lesion_is_measured_by_its_own_mask_or_by_that_of_the_model(tmp_path):
    """A cyst of 4 x 4 x 4 that the model finds as 4 x 4 x 6, beside the liver for it; a tumor of 3³ that it misses."""
    reference, ids, organs, image = (np.zeros((16, 16, 16), np.int16) for _ in range(4))
    reference[2:6, 2:6, 2:6], reference[10:13, 10:13, 10:13] = 2, 3
    ids[2:6, 2:6, 2:8], ids[0, 15, 15] = 7, 1
    organs[2:6, 2:6, 0:9] = 1
    image[ids == 7] = 50
    for name, array in (
        ("images/a_0000", image),
        ("references/a", reference),
        ("lesions/a", ids),
        ("organs/a", organs),
    ):
        path = tmp_path / f"{name}.nii.gz"
        path.parent.mkdir()
        nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    write_json(tmp_path / "labels.json", {"liver": 1, "kidney cyst": 2, "kidney tumor": 3})
    types = {name: TABLE.lesions[name] for name in ("kidney cyst", "kidney tumor")}
    write_table(AttributeTable(lesions=types), tmp_path / "table.json")
    phantoms = Phantoms(tmp_path / "images", tmp_path / "references", tmp_path / "labels.json", tmp_path / "table.json")

    of_reference = measure_folder(phantoms)
    assert [(name, x[0]) for name, _, x in of_reference] == [("kidney cyst", 64), ("kidney tumor", 27)]
    own = OwnMasks(tmp_path / "lesions", tmp_path / "organs", {"background": 0, "liver": 1, "kidney cyst": 2})
    (name, drawn, measured), missed = measure_folder(phantoms, own)
    assert missed is None
    assert (name, drawn.density, measured[0]) == ("kidney cyst", ("fluid density",), 96)
    assert measured[6] == 50  # middle
    lesion, labels = ids == 7, np.where(ids > 0, 3, organs)
    assert np.array_equal(measured, measure_lesion(image.astype(np.float32), labels, lesion))


def test_a_forest_reads_unseen_types_by_what_it_measured_of_seen_ones(monkeypatch):
    monkeypatch.setattr(measurements, "TREES", 20)
    rng = np.random.default_rng(0)

    def lesions(name):
        for value, level in (("homogeneous", 0.0), ("heterogeneous", 5.0)):
            for _ in range(20):
                drawn = AspectValues(shape="irregular", density="hypodense", density_variation=value,
                                     surface="well-defined", specific_features="necrosis",
                                     relationship="invasion of surrounding organs")  # fmt: skip
                yield name, drawn, np.array([level, 0.0]) + rng.normal(0, 0.1, 2)

    train = list(lesions("liver tumor"))
    test = [*lesions("liver tumor"), *lesions("kidney tumor")]
    accuracy = forest_accuracy(train, test, ["kidney tumor"])
    assert accuracy["unseen"]["density_variation"] == accuracy["seen"]["density_variation"] == 1
    assert accuracy["unseen"]["lesions"] == 40
    nothing = forest_accuracy([*train, None], [None], ["kidney tumor"])
    assert nothing["seen"] == {"lesions": 0} | dict.fromkeys(MEASURED)
    assert forest_accuracy([], test, ["kidney tumor"])["unseen"]["shape"] is None
    swapped = [(name, drawn, np.array([5.0, 0.0]) - x) for name, drawn, x in test]
    assert forest_accuracy(train, swapped, ["kidney tumor"])["unseen"]["density_variation"] == 0


@torch.inference_mode()
def test_a_network_that_is_told_the_masks_measures_evidence_in_them():
    net = tiny_net()
    image, told = torch.randn(1, 1, *PATCH_SIZE), torch.zeros(1, 1, *PATCH_SIZE)
    told[..., 2:6, 4:12, 4:16] = 1
    nothing = torch.zeros(1, 1, net.phrase_vectors.shape[0], dtype=torch.bool)
    queries = net.trained_queries(nothing, nothing)
    own = net(image, queries)
    answer = ToldNet(net)(torch.cat([image, told], dim=1), queries)
    assert torch.equal(answer.any_lesion, (2 * told[:, 0] - 1) * CERTAIN)
    moved = (answer.dense_similarity - own.dense_similarity).abs().amax((0, 1)) > 1e-3
    assert moved.tolist() == [
        ASPECTS[aspect] in ("density", "density_variation", "surface") for aspect in PHRASE_ASPECT
    ]

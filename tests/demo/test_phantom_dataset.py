import json

import nibabel as nib
import numpy as np
import pytest

from nnunetv2_malenia.attributes.tables import queries, read_table
from nnunetv2_malenia.demo.phantom_dataset import write_any_lesion_dataset, write_phantom_dataset
from nnunetv2_malenia.phantom import ORGANS, PhantomConfig, make_phantom
from nnunetv2_malenia.phantom.dataset import SEEN, UNSEEN, plan_test_cases, plan_training_cases

CONFIG = PhantomConfig(shape=(30, 36, 46), spacing_zyx=(6.6, 6.0, 6.2), shape_jitter=1)
SEED = 5


def voxels(path):
    return np.asarray(nib.load(path).dataobj).transpose(2, 1, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("raw") / "Dataset901_Phantom"
    write_phantom_dataset(path, train_cases=4, test_cases=3, seed=SEED, config=CONFIG)
    return path


@pytest.fixture(scope="module")
def baseline(folder):
    path = folder.with_name("Dataset902_AnyLesion")
    write_any_lesion_dataset(path, folder)
    return path


def test_training_labels_are_organs_and_seen_types_only(folder):
    labels = json.loads((folder / "dataset.json").read_text())["labels"]
    assert list(labels) == ["background", *ORGANS, *SEEN]
    assert list(labels.values()) == list(range(len(labels)))
    stored = {int(v) for path in (folder / "labelsTr").iterdir() for v in np.unique(voxels(path))}
    assert stored <= set(labels.values())
    assert len(list((folder / "imagesTr").iterdir())) == len(list((folder / "labelsTr").iterdir())) == 4


def test_references_hold_the_unseen_types_of_the_plan(folder):
    labels = json.loads((folder / "labelsTs.json").read_text())
    assert list(labels) == ["background", *ORGANS, *SEEN, *UNSEEN]
    for case in plan_test_cases(3, SEEN, UNSEEN, SEED):
        stored = set(np.unique(voxels(folder / "labelsTs" / f"{case.case_id}.nii.gz")))
        lesions = {name for name in (*SEEN, *UNSEEN) if labels[name] in stored}
        assert lesions == set(case.lesion_types)
        assert lesions & set(UNSEEN)


def test_tables_describe_the_cases_that_were_drawn(folder):
    training, test = read_table(folder / "attributes.json"), read_table(folder / "test_attributes.json")
    assert tuple(training.lesions) == SEEN
    assert [query.name for query in queries(test)] == [*SEEN, *UNSEEN]
    plans = plan_training_cases(4, SEEN, SEED), plan_test_cases(3, SEEN, UNSEEN, SEED)
    for table, plan in zip((training, test), plans, strict=True):
        assert list(table.cases) == [case.case_id for case in plan]
        for case in plan:
            drawn = make_phantom(CONFIG, SEED, case.case_index, case.lesion_types).attributes
            for lesion in case.lesion_types:
                stated = table.attributes_of(lesion, case.case_id).stated
                assert {aspect: list(values) for aspect, values in stated.items()} == drawn[lesion]


def test_images_are_the_phantoms_with_their_geometry(folder):
    case = plan_training_cases(1, SEEN, SEED)[0]
    phantom = make_phantom(CONFIG, SEED, case.case_index, case.lesion_types)
    path = folder / "imagesTr" / f"{case.case_id}_0000.nii.gz"
    assert np.abs(voxels(path) - phantom.image).max() <= 0.5
    assert np.allclose(nib.load(path).affine, phantom.affine, atol=1e-5)
    labels = voxels(folder / "labelsTr" / f"{case.case_id}.nii.gz")
    assert ((labels > len(ORGANS)) == (phantom.lesion > 0)).all()
    assert (labels == phantom.anatomy)[phantom.lesion == 0].all()


def test_any_lesion_data_set_has_the_same_images_and_one_lesion_label(folder, baseline):
    labels = json.loads((baseline / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "lesion": 1}
    for suffix in ("Tr", "Ts"):
        for path in (folder / f"labels{suffix}").iterdir():
            before, after = voxels(path), voxels(baseline / f"labels{suffix}" / path.name)
            assert ((before > len(ORGANS)) == after).all()
        for path in (folder / f"images{suffix}").iterdir():
            assert (baseline / f"images{suffix}" / path.name).read_bytes() == path.read_bytes()

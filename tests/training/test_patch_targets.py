"""What a loader's worker makes of a patch: label maps, coarse levels, and the row of bools that is sent."""

import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from attribute_spaces import LABELS, TABLE, patch_with, space_of, targets_of
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from patch_views import made, pool_any

from nnunetv2_malenia.training.patch_targets import MakeTargets, label_map

# ---------------------------------------------------------------- label maps


def test_a_softmax_target_is_its_own_label_map():
    patch = patch_with(1, 2)
    assert np.array_equal(label_map(torch.from_numpy(patch)[None], None, 6), patch)


@pytest.mark.parametrize("has_ignore", [False, True])
def test_regions_are_painted_back_to_the_labels_that_they_came_from(has_ignore):
    """In nnU-Net's own channel order, for regions that lie inside each other."""
    declared = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2, "liver": 4}
    manager = LabelManager(declared | ({"ignore": 5} if has_ignore else {}), [1, 3, 2, 4])
    labels = torch.from_numpy(patch_with(1, 2, 3, 4, 5 if has_ignore else 0))
    channels = [torch.isin(labels, torch.tensor(region)) for region in manager.foreground_regions]
    if has_ignore:
        channels.append(labels == manager.ignore_label)
    assert np.array_equal(label_map(torch.stack(channels), manager.regions_class_order, 5), labels.numpy())


def test_painting_agrees_with_nnunets_own_conversion():
    manager = LabelManager({"background": 0, "a": [1, 2], "b": 2, "c": [3, 1]}, [1, 2, 3])
    target = torch.from_numpy(np.random.default_rng(0).random((3, 4, 5, 6)) < 0.4)
    theirs = manager.convert_probabilities_to_segmentation(target.float())
    assert np.array_equal(label_map(target, manager.regions_class_order, 4), theirs)


# ---------------------------------------------------------------- coarse levels, and the way to the device


@pytest.mark.parametrize("has_ignore_label", [False, True])
@pytest.mark.parametrize("level_size", [(4, 6, 8), (2, 3, 4), (4, 2, 2), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_a_block_is_what_any_of_its_voxels_is(level_size, has_ignore_label, seed):
    """What label presence times a table of answers gives is, bit for bit, what pooling the voxels' answers gives."""
    lesions = {**TABLE, "mass": {"surface": "ill-defined"}}
    cases = {"partial": {"annotated": ["kidney", "kidney cyst", "mass"]}}
    space, _ = space_of(lesions, cases, {**LABELS, "mass": (2, 3)})
    rng = np.random.default_rng(seed)
    labels = rng.integers(7 if has_ignore_label else 6, size=(2, 4, 6, 8), dtype=np.int16)
    labels[rng.random(labels.shape) < 0.8] = 0
    fine, coarse = (
        targets_of(labels, ["partial", "full"], space, seed=seed, level_size=size, has_ignore_label=has_ignore_label)
        for size in (None, level_size)
    )
    assert torch.equal(fine.is_asked, coarse.is_asked)
    for sample in range(2):
        for name, sign in (("query_target", False), ("query_known", True), ("lesion_masks", False)):
            voxels, blocks = getattr(fine, name)[sample], getattr(coarse, name)[sample]
            assert torch.equal(pool_any(voxels ^ sign, level_size) ^ sign, blocks.flatten(1))
    assert torch.equal(~pool_any(~fine.known, level_size), coarse.known.flatten(1))


def transforms_for(space):
    maker = MakeTargets(space, patch_size=(4, 6, 8), level_size=(2, 3, 4), num_queries=8)
    maker.cases = SimpleNamespace(current="c")
    return maker


def asked_by(maker, patch):
    *levels, packed = maker(image=None, segmentation=[torch.from_numpy(patch)[None]])["segmentation"]
    assert len(levels) == 1
    return maker.unpack(packed[None]).is_asked


def test_queries_come_from_the_generator_that_nnunet_seeds_in_every_worker():
    maker, patch = transforms_for(space_of()[0]), patch_with(2, 3, 4)
    asked = []
    for seed in (1, 1, 2):
        np.random.seed(seed)  # noqa: NPY002 - as nnU-Net does
        asked += [asked_by(maker, patch), asked_by(maker, patch)]
    assert torch.equal(asked[0], asked[2])
    assert torch.equal(asked[1], asked[3])
    assert not any(torch.equal(asked[i], asked[j]) for i, j in ((0, 1), (0, 4), (1, 5)))


def test_a_patch_has_the_targets_of_the_case_that_was_loaded_last():
    cases = {"left": {"lesions": {"kidney tumor": {"location": "left kidney"}}}}
    space, _ = space_of(cases=cases)
    maker = pickle.loads(pickle.dumps(transforms_for(space)))  # as some systems start workers
    for case_id in ("left", "other"):
        maker.cases.current = case_id
        _, packed = maker(image=None, segmentation=torch.from_numpy(patch_with(2))[None])["segmentation"]
        has = maker.unpack(packed[None]).has_phrase[0].numpy()
        assert np.array_equal(has, space.values_of(case_id))


def test_a_sample_is_sent_as_one_row_of_a_byte_for_each_voxel_and_little_more():
    space, _ = space_of()
    for has_ignore_label in (False, True):
        maker = MakeTargets(space, patch_size=(32, 32, 32), level_size=(8, 8, 8), num_queries=8,
                            has_ignore_label=has_ignore_label)  # fmt: skip
        targets = made(maker, patch_with(2, 3, shape=(32, 32, 32))[None], ["c"], 0)
        storage = {each.untyped_storage().data_ptr() for each in targets if each is not None}
        assert len(storage) == 1
        tables = sum(math.prod(shape) for name, shape in maker.shapes._asdict().items() if shape and name not in
                     ("any_lesion", "ignored", "presence"))  # fmt: skip
        expected = (1 + has_ignore_label) * 32**3 + 6 * 8**3 + tables  # presence: background or organ, 4 types, ignored
        assert targets.is_asked.untyped_storage().nbytes() == expected
        assert tables < 2000
        assert all(each.dtype == torch.bool for each in targets if each is not None)

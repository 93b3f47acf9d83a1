import pickle

import numpy as np
import pytest

from nnunetv2_malenia.training.sampling import LesionFirst
from nnunetv2_malenia.training.variants import MaleniaTrainerMirrorDA_5epochs

ANNOTATED = (-1, 0, 1, 2, 3)  # nnU-Net's key of all that is annotated, in data with an ignore label


class OneCase:
    identifiers = ("case",)

    def __init__(self, class_locations):
        self.properties = {"spacing": [1, 1, 1], "class_locations": class_locations}

    def load_case(self, identifier):
        assert identifier == "case"
        return "data", "seg", None, self.properties


def places(**counts):
    return {int(label.removeprefix("label")): np.zeros((count, 4), int) for label, count in counts.items()}


def drawn_from(class_locations, lesions=frozenset({2, 3})):
    *_, properties = LesionFirst(OneCase(class_locations), lesions).load_case("case")
    return set(properties["class_locations"])


def test_where_a_case_holds_lesions_oversampled_foreground_is_a_lesion():
    assert drawn_from(places(label1=9, label2=4, label3=0)) == {2, 3}


def test_a_case_without_lesions_is_left_as_it_is():
    assert drawn_from(places(label1=9, label2=0)) == {1, 2}


def test_a_region_counts_as_lesion_only_if_nothing_else_is_in_it():
    kidney, masses, tumor = (1, 2, 3), (2, 3), 2
    assert drawn_from({kidney: np.zeros((9, 4)), masses: np.zeros((5, 4)), tumor: []}) == {masses, tumor}


def test_what_is_annotated_at_all_is_still_known_with_an_ignore_label():
    assert drawn_from({1: [1], 2: [1], ANNOTATED: [1]}) == {2, ANNOTATED}


def test_the_data_set_itself_is_not_changed_and_crosses_to_other_processes():
    dataset = OneCase(places(label1=9, label2=4))
    wrapped = pickle.loads(pickle.dumps(LesionFirst(dataset, frozenset({2}))))
    assert wrapped.identifiers == ("case",)
    data, seg, seg_prev, properties = wrapped.load_case("case")
    assert (data, seg, seg_prev, properties["spacing"]) == ("data", "seg", None, [1, 1, 1])
    assert set(dataset.properties["class_locations"]) == {1, 2}
    assert wrapped.current == "case"


@pytest.mark.parametrize("axes", [None, (0, 1)])
def test_mirroring_is_the_only_augmentation_of_mirror_da(axes):
    import torch

    transforms = MaleniaTrainerMirrorDA_5epochs.get_training_transforms((4, 4, 4), None, [[1, 1, 1]], axes, False)
    image = torch.arange(64, dtype=torch.float32).view(1, 4, 4, 4)
    seen = {
        tuple(transforms(image=image.clone(), segmentation=image.to(torch.int16))["image"].flatten().tolist())
        for _ in range(40)
    }
    flips = [[], [1], [2], [1, 2]] if axes else [[]]
    assert seen == {tuple(image.flip(f).flatten().tolist()) for f in flips}

from collections import Counter

import pytest

from nnunetv2_malenia.attributes.tables import parse_table, table_to_dict
from nnunetv2_malenia.phantom.dataset import SEEN, UNSEEN, phantom_table, plan_test_cases, plan_training_cases


def test_training_cases_hold_one_to_four_seen_types_equally_often():
    cases = plan_training_cases(60, SEEN, seed=0)
    assert {len(case.lesion_types) for case in cases} == {1, 2, 3, 4}
    counts = Counter(name for case in cases for name in case.lesion_types)
    assert set(counts) == set(SEEN)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_test_cases_hold_unseen_types_beside_seen_ones():
    cases = plan_test_cases(40, SEEN, UNSEEN, seed=0)
    for case in cases:
        assert 2 <= len(case.lesion_types) <= 4
        assert set(case.lesion_types) & set(UNSEEN)
        assert set(case.lesion_types) & set(SEEN)
        assert len(set(case.lesion_types)) == len(case.lesion_types)
    counts = Counter(name for case in cases for name in case.lesion_types if name in UNSEEN)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_longer_plans_begin_with_shorter_ones_and_no_phantom_is_in_both_sides():
    assert plan_training_cases(30, SEEN, 3)[:10] == plan_training_cases(10, SEEN, 3)
    assert plan_test_cases(9, SEEN, UNSEEN, 3)[:4] == plan_test_cases(4, SEEN, UNSEEN, 3)
    training = {case.case_index for case in plan_training_cases(50, SEEN, 3)}
    assert not training & {case.case_index for case in plan_test_cases(50, SEEN, UNSEEN, 3)}
    assert plan_training_cases(30, SEEN, 3) != plan_training_cases(30, SEEN, 4)


@pytest.mark.parametrize(
    ("seen", "unseen", "message"),
    [
        (SEEN, (*UNSEEN, "liver tumor"), "both seen and unseen: liver tumor"),
        (SEEN, (), "no unseen lesion types"),
        (("liver tumour",), UNSEEN, "cannot draw 'liver tumour'"),
    ],
)
def test_bad_splits_are_refused(seen, unseen, message):
    with pytest.raises(ValueError, match=message):
        plan_test_cases(1, seen, unseen, 0)


def test_table_states_types_and_cases_and_survives_json():
    stated = {"location": ["left kidney"], "density": ["fluid density"], "density_variation": ["homogeneous"]}
    table = phantom_table(("kidney cyst", "lung tumor"), {"phantom_0000": {"kidney cyst": stated}}, name="test")
    assert parse_table(table_to_dict(table)) == table
    assert table.attributes_of("kidney cyst").location == ("left kidney", "right kidney")
    assert table.attributes_of("kidney cyst", "phantom_0000").density == ("fluid density",)


def test_a_case_without_specific_features_inherits_none():
    stated = {"density": ["hyperdense"]}
    table = phantom_table(SEEN, {"phantom_0000": {"lung tumor": stated}}, name="test")
    assert table.attributes_of("lung tumor", "phantom_0000").specific_features == ()

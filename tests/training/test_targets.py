import numpy as np
import pytest
import torch
from attribute_spaces import LABELS, TABLE, asking, patch_with, space_of, targets_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from references.target_loops import answers_loop, fit_loop

from nnunetv2_malenia.training.targets import (
    KINDS,
    NO,
    UNKNOWN,
    YES,
    AttributeSpace,
    compose_queries,
    fit,
    query_answers,
)

NAMES = {NO: "no", YES: "yes", UNKNOWN: "unknown"}
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=40, deadline=None)

REGIONS = {"kidney": (1, 2, 3), "kidney tumor": (2,), "kidney cyst": (3,)}


def random_space(rng, num_types=4, num_phrases=9, num_labels=7):
    """Any space with one label value a type; phrases of aspects 0 to 3, of which a type may leave some unspecified."""
    aspect = rng.integers(0, 4, num_phrases)
    overlap = rng.random((num_phrases, num_phrases)) < 0.2
    overlap = (overlap | overlap.T) & (aspect[:, None] == aspect) | np.eye(num_phrases, dtype=bool)
    values = rng.random((num_types, num_phrases)) < 0.35
    has_label = np.zeros((num_types, num_labels), dtype=bool)
    has_label[np.arange(num_types), 1 + rng.permutation(num_labels - 1)[:num_types]] = True
    return AttributeSpace(has_label, np.eye(num_labels, dtype=bool), values, aspect, overlap, {}, {})


def as_sets(rows):
    return [set(np.flatnonzero(row).tolist()) for row in rows]


# ---------------------------------------------------------------- does a lesion fit a query


@pytest.mark.parametrize(
    ("query", "lesion", "expected"),
    [
        ({}, "kidney tumor", YES),
        ({"density": "hyperdense"}, "kidney tumor", YES),
        ({"density": "hypodense"}, "kidney tumor", NO),
        ({"location": "left kidney"}, "kidney tumor", UNKNOWN),  # or it is in the right one
        ({"location": ["left kidney", "right kidney"]}, "kidney tumor", YES),  # wherever it is
        ({"location": ["left kidney", "right kidney", "liver"]}, "kidney tumor", YES),
        ({"location": ["liver", "right kidney"]}, "kidney tumor", UNKNOWN),
        ({"location": "liver"}, "kidney tumor", NO),
        ({"shape": "irregular"}, "kidney tumor", UNKNOWN),  # its shape is not described
        ({"shape": "irregular", "density": "hyperdense"}, "kidney tumor", UNKNOWN),
        ({"shape": "irregular", "density": "hypodense"}, "kidney tumor", NO),  # one NO decides, in either order
        ({"density": "hypodense", "surface": "ill-defined"}, "kidney tumor", NO),
        ({"location": "left kidney"}, "kidney cyst", UNKNOWN),  # somewhere in the kidney: left or right
        ({"location": "left kidney", "density": "hyperdense"}, "kidney cyst", NO),
        ({"location": "lung"}, "kidney cyst", NO),
    ],
)
def test_a_lesion_fits_a_query(query, lesion, expected):
    space, phrases = space_of()
    has = space.class_values[list(TABLE).index(lesion)]
    assert fit(asking(phrases, **query), has, space) == expected


def test_a_whole_organ_is_never_denied_of_a_lesion_in_a_part_of_it():
    space, phrases = space_of()
    for query in ("kidney", ["kidney", "liver"]):
        assert fit(asking(phrases, location=query), asking(phrases, location="left kidney"), space) != NO


def test_a_lesion_has_all_specific_features_that_are_stated():
    features = {"a": {"specific_features": ["septation", "calcification"]}, "b": {"specific_features": "cavity"}}
    space, phrases = space_of(features, labels={"a": (1,), "b": (2,)})
    septation = asking(phrases, specific_features="septation")
    assert [fit(septation, has, space) for has in space.class_values] == [YES, NO]


def test_free_text_coincides_with_nothing_but_itself():
    lesions = {"a": {"shape": "like a banana"}, "b": {"shape": "irregular"}, "c": {"shape": "like a banana"}}
    space, phrases = space_of(lesions, labels={"a": (1,), "b": (2,), "c": (3,)})
    banana = asking(phrases, shape="like a banana")
    assert [fit(banana, has, space) for has in space.class_values] == [YES, NO, YES]


@given(seeds)
@few
def test_fit_agrees_with_the_loop(seed):
    rng = np.random.default_rng(seed)
    space = random_space(rng)
    aspects, queries = space.phrase_aspect.tolist(), rng.random((6, len(space.phrase_aspect))) < 0.3
    for query, phrases in zip(queries, as_sets(queries), strict=True):
        for has, own in zip(space.class_values, as_sets(space.class_values), strict=True):
            expected = fit_loop(phrases, own, aspects, lambda p, q: space.overlap[p, q])
            assert NAMES[fit(query, has, space)] == expected


@given(seeds)
@few
def test_answers_agree_with_the_loop(seed):
    rng = np.random.default_rng(seed)
    space = random_space(rng)
    annotated = rng.random(len(space.class_values)) < 0.6
    queries = rng.random((6, len(space.phrase_aspect))) < 0.3
    answers = query_answers(queries, space.class_values, annotated, space)
    assert answers.shape == (6, space.type_has_label.shape[1])
    for answer, query in zip(answers, as_sets(queries), strict=True):
        fits = [
            fit_loop(query, own, space.phrase_aspect.tolist(), lambda p, q: space.overlap[p, q])
            for own in as_sets(space.class_values)
        ]
        expected = answers_loop(fits, as_sets(space.type_has_label), annotated.tolist(), answers.shape[1])
        assert [NAMES[each] for each in answer.tolist()] == expected


# ---------------------------------------------------------------- partial labels


def test_an_unannotated_type_is_unknown_wherever_it_may_be_and_never_background():
    space, phrases = space_of()
    annotated = np.array([False, True, True, True])  # not the kidney tumor
    tumor_query = asking(phrases, location="left kidney", density="hyperdense")
    cyst_query = asking(phrases, density="fluid density")
    tumor, cyst = query_answers(np.stack([tumor_query, cyst_query]), space.class_values, annotated, space)
    assert tumor[[0, 1]].tolist() == [UNKNOWN, UNKNOWN]  # background and kidney may hide one
    assert tumor[3:].tolist() == [NO, NO, NO]  # annotated lesions answer for themselves
    assert cyst.tolist() == [NO, NO, NO, YES, UNKNOWN, NO]  # a fluid-like liver tumor is conceivable, see `overlaps`


@given(seeds)
@few
def test_a_type_that_is_not_annotated_is_never_denied(seed):
    rng = np.random.default_rng(seed)
    space = random_space(rng)
    annotated = rng.random(len(space.class_values)) < 0.5
    queries = rng.random((6, len(space.phrase_aspect))) < 0.25
    shown = space.type_has_label[annotated].any(0)
    for query, answer in zip(queries, query_answers(queries, space.class_values, annotated, space), strict=True):
        if any(fit(query, has, space) != NO for has in space.class_values[~annotated]):
            assert (answer[~shown] == UNKNOWN).all()


def test_cases_list_the_labels_that_they_annotate():
    space, _ = space_of(cases={"partial": {"annotated": ["kidney", "kidney cyst"]}, "none": {"annotated": []}})
    assert space.annotated_channels("partial").tolist() == [True, True, False, True, False, False]
    assert space.annotated_types("partial").tolist() == [False, True, False, False]
    assert space.annotated_types("none").tolist() == [False] * 4
    assert space.annotated_types("another").all()
    assert space.annotated_channels("another").all()


def test_a_case_that_names_an_unknown_label_is_refused_with_its_name():
    with pytest.raises(ValueError, match=r"cases/c1/annotated.*\['spleen'\].*kidney cyst"):
        space_of(cases={"c1": {"annotated": ["kidney", "spleen"]}})


def test_a_region_that_contains_a_lesion_does_not_annotate_it():
    """A data set with whole kidneys only: its tumors lie unseen in the kidney label."""
    lesions = {name: TABLE[name] for name in ("kidney tumor", "kidney cyst")}
    space, _ = space_of(lesions, {"organs only": {"annotated": ["kidney"]}}, REGIONS)
    assert space.annotated_types("organs only").tolist() == [False, False]
    targets = targets_of(patch_with(1)[None], ["organs only"], space)
    assert not targets.annotated_types[0].all()
    full_description = 1
    assert not targets.query_known[0, full_description].any()


def test_a_lesion_type_around_an_annotated_one_is_not_denied_on_its_voxels():
    lesions = {"mass": {"surface": "ill-defined", "shape": "irregular"}, "tumor": {"surface": "well-defined"}}
    space, phrases = space_of(lesions, labels={"mass": (1, 2), "tumor": (1,)})
    query = asking(phrases, surface="ill-defined")[None]
    annotated = np.array([False, True])
    assert query_answers(query, space.class_values, annotated, space)[0, 1] != NO


def test_a_lesion_of_an_annotated_region_may_be_of_a_narrower_type_that_nobody_annotated():
    """Masses were drawn, and which of them are tumors was not said: what their voxels are labelled decides nothing."""
    lesions = {"mass": {"surface": "ill-defined"}, "tumor": {"surface": "well-defined"}}
    labels = {"kidney": (1, 2, 3), "mass": (2, 3), "tumor": (2,)}
    space, phrases = space_of(lesions, {"c": {"annotated": ["mass"]}}, labels)
    annotated = space.annotated_types("c")
    assert annotated.tolist() == [True, False]
    queries = np.stack([asking(phrases, surface=value) for value in ("ill-defined", "well-defined")])
    of_mass, of_tumor = query_answers(queries, space.class_values, annotated, space)
    assert of_mass.tolist() == [NO, NO, YES, YES]
    assert of_tumor.tolist() == [UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]
    (mass,) = targets_of(patch_with(1, 2, 3)[None], ["c"], space).lesion_masks[0]
    assert torch.equal(mass, torch.from_numpy(patch_with(1, 2, 3) >= 2))


@pytest.mark.parametrize(
    ("drawn", "channels"),
    [
        (["kidney"], [True, False, False]),
        (["kidney", "kidney cyst"], [True, False, True]),
        (["kidney tumor", "kidney cyst"], [False, True, True]),
        ([], [False, False, False]),
    ],
)
def test_a_region_annotates_its_own_channel_and_not_those_inside_it(drawn, channels):
    lesions = {name: TABLE[name] for name in ("kidney tumor", "kidney cyst")}
    space, _ = space_of(lesions, {"c": {"annotated": drawn}}, REGIONS, has_regions=True)
    assert space.annotated_channels("c").tolist() == channels
    assert space.annotated_types("c").tolist() == channels[1:]
    assert space.annotated_channels("another").all()


def test_nothing_is_learned_from_unannotated_voxels_and_annotated_lesions_stay_known():
    space, _ = space_of(cases={"partial": {"annotated": ["kidney", "kidney cyst", "liver tumor", "lung tumor"]}})
    patch = patch_with(1, 3, 4)
    for seed in range(10):
        targets = targets_of(patch[None], ["partial"], space, seed=seed)
        queries = targets.is_asked[0].numpy()
        tumor_may_fit = np.array([fit(query, space.class_values[0], space) != NO for query in queries])
        assert tumor_may_fit.any()
        hidden = torch.from_numpy((patch == 0) | (patch == 1))
        assert not targets.query_known[0, tumor_may_fit][:, hidden].any()
        assert not targets.query_target[0, tumor_may_fit][:, hidden].any()
        for query, known in zip(queries, targets.query_known[0], strict=True):
            for label, lesion in ((3, 1), (4, 2)):
                is_open = fit(query, space.class_values[lesion], space) == UNKNOWN
                assert (known[torch.from_numpy(patch == label)] != is_open).all()
        assert not targets.annotated_types[0].all()
        assert targets.annotated_channels[0].tolist() == [True, True, False, True, True, True]
        assert len(targets.lesion_masks[0]) == 2


def test_voxels_of_an_unannotated_label_are_no_target():
    space, _ = space_of(cases={"partial": {"annotated": ["kidney"]}})
    targets = targets_of(patch_with(1, 2)[None], ["partial"], space)
    assert len(targets.lesion_masks[0]) == 0
    assert not targets.query_target.any()


# ---------------------------------------------------------------- a batch's targets


def test_each_annotated_lesion_type_of_a_patch_is_one_target():
    space, _ = space_of()
    patches = np.stack([patch_with(4, 1, 2), patch_with()])
    targets = targets_of(patches, ["c1", "c2"], space)
    tumor, liver = targets.lesion_masks[0]
    assert torch.equal(tumor, torch.from_numpy(patches[0] == 2))
    assert torch.equal(liver, torch.from_numpy(patches[0] == 4))
    assert np.array_equal(targets.has_phrase[0].numpy(), space.class_values[[0, 2]])
    assert np.array_equal(targets.holds_phrase[0].numpy(), space.holds(space.class_values[[0, 2]]))
    assert targets.known.all()
    assert targets.annotated_types.all()
    expected = [[fit(q, space.class_values[t], space) for t in (0, 2)] for q in targets.is_asked[0].numpy()]
    assert targets.query_fits[0].tolist() == expected
    assert targets.lesion_masks[1].shape == (0, 4, 6, 8)
    assert targets.query_fits[1].shape == (8, 0)
    assert not targets.query_target[1].any()


def test_two_types_that_share_a_label_are_two_targets():
    lesions = {"mass": {"surface": "ill-defined"}, "tumor": {"surface": "ill-defined", "shape": "irregular"}}
    space, _ = space_of(lesions, labels={"kidney": (1, 2, 3), "mass": (2, 3), "tumor": (2,)})
    patch = patch_with(1, 2, 3)
    mass, tumor = targets_of(patch[None], ["c"], space).lesion_masks[0]
    assert torch.equal(mass, torch.from_numpy(patch >= 2))
    assert torch.equal(tumor, torch.from_numpy(patch == 2))


def test_a_batch_asks_and_answers_per_voxel_what_query_answers_says():
    space, _ = space_of()
    patches = np.stack([patch_with(2, 3, 1), patch_with(5)])
    targets = targets_of(patches, ["a", "b"], space)
    for sample, patch in enumerate(patches):
        answers = query_answers(targets.is_asked[sample].numpy(), space.class_values, np.ones(4, dtype=bool), space)
        for query, answer in enumerate(answers):
            for voxel in np.ndindex(patch.shape):
                said = answer[patch[voxel]]
                assert targets.query_target[sample, query][voxel].item() == (said == YES)
                assert targets.query_known[sample, query][voxel].item() == (said != UNKNOWN)


def test_the_ignore_label_is_unknown_to_everyone():
    space, _ = space_of()
    ignore_label = 1 + max(value for values in LABELS.values() for value in values)  # as nnU-Net demands
    patch = patch_with(2, ignore_label, 3)
    targets = targets_of(patch[None], ["c"], space, has_ignore_label=True)
    ignored = torch.from_numpy(patch == ignore_label)
    assert torch.equal(~targets.known[0], ignored)
    assert not targets.query_known[0][:, ignored].any()
    assert not targets.query_target[0][:, ignored].any()
    assert not targets.lesion_masks[0][:, ignored].any()
    assert len(targets.lesion_masks[0]) == 2


def test_a_cases_own_attributes_replace_those_of_the_type_aspect_by_aspect():
    cases = {"left": {"lesions": {"kidney tumor": {"location": "left kidney"}}}}
    space, phrases = space_of(cases=cases)
    patches = np.stack([patch_with(2)] * 2)
    targets = targets_of(patches, ["left", "other"], space)
    own, of_type = (phrases_of[0].numpy() for phrases_of in targets.has_phrase)
    expected = asking(phrases, location="left kidney", density="hyperdense", surface="ill-defined")
    assert np.array_equal(own, expected)
    assert np.array_equal(of_type, space.class_values[0])
    right = asking(phrases, location="right kidney")
    assert fit(right, own, space) == NO
    assert fit(right, of_type, space) == UNKNOWN
    full_description = 1
    assert np.array_equal(targets.is_asked[0, full_description].numpy(), expected)


def test_targets_are_determined_by_the_generator():
    space, _ = space_of()
    patches = np.stack([patch_with(2, 3, 4), patch_with()])
    one, other, third = (targets_of(patches, ["a", "b"], space, seed=seed).is_asked for seed in (1, 1, 2))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


# ---------------------------------------------------------------- composed queries


def composed(space, present, seed, num_queries=9):
    """{kind: rows of is_asked} of one patch, and the answers at every label value."""
    present = np.array(present)
    annotated = np.ones(len(present), dtype=bool)
    queries = compose_queries(space.class_values, present, annotated, space, num_queries, np.random.default_rng(seed))
    answers = query_answers(queries, space.class_values, annotated, space)
    assert queries.shape == (num_queries, len(space.phrase_aspect))
    by_kind = {kind: list(range(1 + i, num_queries, len(KINDS))) for i, kind in enumerate(KINDS)}
    return queries, answers, by_kind


@pytest.mark.parametrize("seed", range(20))
def test_the_first_query_asks_for_any_lesion(seed):
    space, _ = space_of()
    queries, answers, _ = composed(space, [True, False, True, False], seed)
    assert not queries[0].any()
    assert answers[0].tolist() == [NO, NO, YES, YES, YES, YES]


def test_without_attribute_dropout_every_query_names_every_aspect():
    space, _ = space_of()
    present, annotated = np.array([True, False, True, False]), np.ones(4, bool)
    kinds = tuple(kind for kind in KINDS if kind != "subset")
    stated = {frozenset(space.phrase_aspect[has]) for has in space.class_values}
    rng = np.random.default_rng(0)
    queries = compose_queries(space.class_values, present, annotated, space, 30, rng, kinds)
    assert {frozenset(space.phrase_aspect[query]) for query in queries[1:]} <= stated


@pytest.mark.parametrize("seed", range(20))
def test_the_full_description_of_a_present_type_finds_it(seed):
    space, _ = space_of()
    present = [True, False, True, False]
    queries, answers, by_kind = composed(space, present, seed)
    found = set()
    for i in by_kind["full"]:
        (lesion,) = [t for t in np.flatnonzero(present) if np.array_equal(queries[i], space.class_values[t])]
        assert (answers[i][space.type_has_label[lesion]] == YES).all()
        found.add(lesion)
    assert found == {0, 2}  # with two of them, both are asked for


@pytest.mark.parametrize("seed", range(20))
def test_a_type_that_may_be_there_unlabelled_is_not_asked_for_as_absent(seed):
    space, _ = space_of()
    for present, annotated, absent in (
        ([True, False, False, False], [True, False, True, False], {2}),
        ([False] * 4, [False, True, False, False], {1}),
        ([False] * 4, [False] * 4, {0, 1, 2, 3}),  # nothing is known to be absent
    ):
        queries = compose_queries(space.class_values, np.array(present), np.array(annotated), space, 33,
                                  np.random.default_rng(seed))  # fmt: skip
        asked = [queries[i] for i in range(1 + KINDS.index("absent"), 33, len(KINDS))]
        fitting = [{t for t, has in enumerate(space.class_values) if (query <= has).all()} for query in asked]
        assert all(types & absent for types in fitting)
        assert set().union(*fitting) >= absent


@pytest.mark.parametrize("seed", range(20))
def test_asking_for_an_absent_type_returns_nothing_from_a_patch_without_it(seed):
    space, _ = space_of()
    queries, answers, by_kind = composed(space, [True, False, False, False], seed)
    for i in by_kind["absent"]:
        assert any((queries[i] <= has).all() for has in space.class_values[1:])
        assert queries[i].any()
        assert (answers[i][[0, 1, 2]] == NO).all()  # background, kidney, and the tumor that is there


@pytest.mark.parametrize("seed", range(20))
def test_a_subset_of_aspects_still_finds_its_lesion(seed):
    space, _ = space_of()
    queries, answers, by_kind = composed(space, [False, True, False, True], seed)
    for i in by_kind["subset"]:
        sources = [t for t in (1, 3) if (queries[i] <= space.class_values[t]).all()]
        assert any((answers[i][space.type_has_label[t]] == YES).all() for t in sources)


@given(seeds)
@few
def test_a_query_with_one_aspect_changed_never_finds_its_source(seed):
    rng = np.random.default_rng(seed)
    space = random_space(rng)
    source = int(rng.integers(len(space.class_values)))
    present = np.arange(len(space.class_values)) == source
    queries, answers, by_kind = composed(space, present, seed)
    has = space.class_values[source]
    assume(has.any())  # a type without a description is not asked for
    could_change = any(
        (has & (space.phrase_aspect == aspect)).any() and (~space.holds(has) & (space.phrase_aspect == aspect)).any()
        for aspect in range(4)
    )
    for i in by_kind["changed"]:
        on_source = answers[i][space.type_has_label[source]]
        if could_change:
            assert (on_source == NO).all()
            changed = set(space.phrase_aspect[queries[i] & ~has].tolist())
            assert len(changed) == 1
        else:
            assert np.array_equal(queries[i], has)


@pytest.mark.parametrize("seed", range(10))
def test_without_a_lesion_every_query_has_nowhere_to_be_found(seed):
    space, _ = space_of()
    targets = targets_of(patch_with(1)[None], ["c"], space, seed=seed)
    assert targets.query_known.all()
    assert not targets.query_target.any()
    assert targets.is_asked[0, 1:].any(1).sum() >= 6  # a subset may come out empty


def test_a_query_about_an_absent_type_states_one_value_per_aspect():
    """Alternatives exclude each other in one lesion; asking for all of them at once is asking for less."""
    space, _ = space_of()
    for seed in range(20):
        queries, _, by_kind = composed(space, [False, False, False, False], seed)
        for i in (i for kind in ("full", "absent", "subset") for i in by_kind[kind]):
            assert (np.bincount(space.phrase_aspect[queries[i]], minlength=8) <= 1).all()


def test_the_space_counts_labels_like_the_table_names_them():
    space, phrases = space_of()
    assert space.type_has_label.shape == (4, 6)
    assert as_sets(space.type_has_label) == [{2}, {3}, {4}, {5}]
    assert len(phrases) == len(space.phrase_aspect) == len(space.overlap)


def test_a_type_described_per_case_is_asked_for_there_and_never_as_absent():
    lesions = {"liver tumor": TABLE["liver tumor"], "synthetic lesion 1": {}}
    stated = {"location": "spleen", "density": "hyperdense"}
    cases = {"with": {"lesions": {"synthetic lesion 1": stated}}}
    labels = {"liver tumor": (1,), "synthetic lesion 1": (2,)}
    space, phrases = space_of(lesions, cases, labels)
    spleen, annotated = asking(phrases, **stated), np.ones(2, bool)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        there = compose_queries(space.values_of("with"), np.array([False, True]), annotated, space, 9, rng)
        assert (there == spleen).all(1).any()
        absent = compose_queries(space.values_of("other"), np.array([False, False]), annotated, space, 9, rng)
        assert not (absent & spleen).all(1).any()
        assert absent[1:3].any(1).all()  # full and absent: the liver tumor's, never the empty entry
    answers = query_answers(np.stack([spleen]), space.values_of("other"), annotated, space)
    assert answers[0].tolist() == [NO, NO, UNKNOWN]  # voxels of it in a case that states nothing: never "fits"
    answers = query_answers(np.stack([spleen]), space.values_of("with"), annotated, space)
    assert answers[0].tolist() == [NO, NO, YES]

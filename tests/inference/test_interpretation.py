"""Aspects, diseases and verdicts from similarities, against plain loops and cases computed by hand."""

import math

import numpy as np
import pytest
import torch
from references.interpretation_loops import aspects_loop, check_loop, diseases_loop, log_gate_loop

from nnunetv2_malenia.attributes.plans import MaleniaPlans
from nnunetv2_malenia.attributes.schema import ASPECTS, AspectValues, LesionQuery
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table
from nnunetv2_malenia.inference.interpretation import make_interpreter
from nnunetv2_malenia.network.aspect_heads import MatchGate

TEMPERATURE = 0.1
LOCATIONS = ("liver", "lung", "left lung", "right lung", "kidney", "left kidney", "right kidney", "spleen")
PHRASES = (
    *(("location", value) for value in LOCATIONS),
    *(("density", value) for value in ("hypodense", "isodense", "hyperdense")),
    *(("surface", value) for value in ("well-defined", "ill-defined")),
    ("specific_features", "calcification"),
)
NEVER_TRAINED = [("location", "spleen"), ("density", "isodense"), ("specific_features", "calcification")]
TRAINED = [phrase for phrase in PHRASES if phrase not in NEVER_TRAINED]


def gate_of(seed=0):
    gate = MatchGate(TEMPERATURE).requires_grad_(False)
    rng = torch.Generator().manual_seed(seed)
    for parameter in gate.parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng))
    return gate


def as_numbers(gate):
    parameters = (gate.scale.tolist(), gate.bias.tolist(), gate.raw_weight.tolist())
    return {"temperature": gate.temperature, "per_aspect": list(zip(*parameters, strict=True))}


def query(name="lesion", **stated):
    return LesionQuery(name=name, attributes=AspectValues(**stated))


def interpreter_of(*queries, gates=None, trained=TRAINED, phrases=PHRASES):
    plans = MaleniaPlans(
        network={}, encoder="none", text_dim=1, phrases=phrases, is_trained=[phrase in trained for phrase in phrases],
        lesions={"liver tumor": AspectValues(location="liver")}, lesion_channels={}, has_regions=False,
    )  # fmt: skip
    return make_interpreter(queries, phrases, plans, gates or [gate_of()])


def cosines(seed):
    return np.random.default_rng(seed).uniform(-0.2, 0.6, len(PHRASES)).astype(np.float32)


def cosines_where(of_values):
    """value -> cosine; 0 for all others."""
    return np.array([of_values.get(value, 0.0) for _, value in PHRASES], np.float32)


def by_phrase(similarity):
    return dict(zip(PHRASES, similarity.tolist(), strict=True))


def known_types(*, but=()):
    """Of the Clinical Knowledge Table, each type's phrases among PHRASES, if there are any."""
    types = {
        name: [phrase for phrase in entry.attributes.phrases() if phrase in PHRASES]
        for name, entry in clinical_knowledge_table().lesions.items()
        if name not in but
    }
    return {name: asked for name, asked in types.items() if asked}


def verdicts(checked):
    return {each.value: each.verdict for each in checked}


@pytest.mark.parametrize("seed", range(8))
def test_aspects_are_those_of_plain_loops(seed):
    similarity = cosines(seed)
    expected = aspects_loop(by_phrase(similarity), TRAINED, ASPECTS, TEMPERATURE)
    readings = interpreter_of(query(location="liver")).aspects(similarity)
    assert [(each.aspect, each.value, each.runner_up) for each in readings] == [
        (aspect, value, rival) for aspect, value, _, rival, _ in expected
    ]
    assert [each.aspect for each in readings] == ["location", "density", "surface"]
    for reading, (_, _, score, _, rival_score) in zip(readings, expected, strict=True):
        assert reading.score == pytest.approx(score, rel=1e-5)
        assert reading.runner_up_score == (None if rival_score is None else pytest.approx(rival_score, rel=1e-5))


def test_a_kidney_is_no_rival_of_a_left_kidney():
    similarity = cosines_where({"left kidney": 0.5, "kidney": 0.49, "right kidney": 0.3})
    (location, *_) = interpreter_of(query(location="liver")).aspects(similarity)
    assert (location.value, location.runner_up) == ("left kidney", "right kidney")
    # against the right kidney, 0.2 / T below, and liver and three lungs, 0.5 / T below
    total = 1 + math.exp(-2) + 4 * math.exp(-5)
    assert location.score == pytest.approx(1 / total, rel=1e-5)
    assert location.runner_up_score == pytest.approx(math.exp(-2) / total, rel=1e-5)


def test_a_value_that_nothing_trained_excludes_has_no_runner_up():
    kidneys = [phrase for phrase in TRAINED if "kidney" in phrase[1]]
    (location,) = interpreter_of(query(location="liver"), trained=kidneys).aspects(cosines_where({"kidney": 0.5}))
    assert (location.value, location.score, location.runner_up, location.runner_up_score) == ("kidney", 1, None, None)


def test_a_phrase_that_was_never_trained_is_neither_read_nor_a_rival():
    similarity = cosines_where({"spleen": 0.9, "liver": 0.5, "calcification": 0.9})
    readings = interpreter_of(query(location="spleen")).aspects(similarity)
    assert {each.aspect: each.value for each in readings}["location"] == "liver"
    assert readings[0].score == pytest.approx(1 / (1 + 6 * math.exp(-5)), rel=1e-5)  # lungs and kidneys, without spleen
    assert "specific_features" not in [each.aspect for each in readings]


STATED = [
    {"location": ["left lung", "right lung"], "density": ["hypodense", "hyperdense"], "surface": "ill-defined"},
    {"location": ["spleen", "liver", "kidney"], "density": "isodense", "specific_features": "calcification"},
    {"location": ["left kidney", "kidney"], "density": ["hypodense", "isodense", "hyperdense"]},
]


@pytest.mark.parametrize("stated", STATED)
@pytest.mark.parametrize("seed", range(8))
def test_verdicts_are_those_of_plain_loops(seed, stated):
    similarity, asked = cosines(seed), query(**stated)
    interpreter = interpreter_of(query(location="liver"), asked)
    expected = check_loop(by_phrase(similarity), asked.attributes.stated, TRAINED, TEMPERATURE)
    checked = interpreter.check(1, similarity)
    assert [(each.aspect, each.value, each.verdict) for each in checked] == [
        (aspect, value, verdict) for aspect, value, _, verdict in expected
    ]
    assert [each.score for each in checked] == pytest.approx([score for _, _, score, _ in expected], rel=1e-5)


def test_of_left_or_right_lung_the_side_that_the_image_shows_is_selected():
    similarity = cosines_where({"left lung": 0.9, "right lung": 0.3, "lung": 0.8})
    left, right = interpreter_of(query(location=["left lung", "right lung"])).check(0, similarity)
    total = 1 + math.exp(-6) + 4 * math.exp(-9)  # "lung" excludes neither; liver and three kidneys do
    assert (left.value, left.verdict, left.score) == ("left lung", "selected", pytest.approx(1 / total, rel=1e-5))
    assert (right.value, right.verdict) == ("right lung", "discarded")
    assert right.score == pytest.approx(math.exp(-6) / total, rel=1e-4)
    assert right.score < 0.01


def test_two_alternatives_that_fit_alike_are_both_kept():
    similarity = cosines_where({"left lung": 0.9, "right lung": 0.88})
    checked = interpreter_of(query(location=["left lung", "right lung"])).check(0, similarity)
    assert verdicts(checked) == {"left lung": "kept", "right lung": "kept"}


def test_where_every_alternative_is_contradicted_none_is_selected():
    checked = interpreter_of(query(location=["left lung", "right lung"])).check(0, cosines_where({"liver": 0.9}))
    assert verdicts(checked) == {"left lung": "discarded", "right lung": "discarded"}


@pytest.mark.parametrize(("behind", "verdict"), [(2.19, "kept"), (2.20, "discarded")])
def test_a_value_is_discarded_below_a_tenth_beside_its_strongest_rival(behind, verdict):
    """e^-x / (1 + e^-x) < 0.1 where x > log 9 = 2.197."""
    similarity = cosines_where({"ill-defined": 0.5 - behind * TEMPERATURE, "well-defined": 0.5})
    assert verdicts(interpreter_of(query(surface="ill-defined")).check(0, similarity)) == {"ill-defined": verdict}


def test_many_rivals_that_fit_alike_discard_nothing():
    checked = interpreter_of(query(location="liver")).check(0, np.zeros(len(PHRASES), np.float32))
    assert checked[0].score == pytest.approx(1 / 7)
    values = tuple(("shape", f"shape {i}") for i in range(20))
    (each,) = interpreter_of(query(shape="shape 0"), phrases=values, trained=values).check(0, np.zeros(20, np.float32))
    assert (each.score, each.verdict) == (pytest.approx(0.05), "kept")


def test_a_stated_value_that_was_never_trained_is_held_against_the_trained_and_its_alternatives():
    interpreter = interpreter_of(query(density="isodense"), query(density=["isodense", "hypodense"]))
    similarity = cosines_where({"isodense": 0.6, "hypodense": 0.2, "hyperdense": 0.1})
    assert verdicts(interpreter.check(0, similarity)) == {"isodense": "kept"}
    assert verdicts(interpreter.check(1, similarity)) == {"isodense": "selected", "hypodense": "discarded"}
    # another query's phrase that was never trained says nothing against this one's
    (hypodense,) = interpreter_of(query(density="hypodense"), query(density="isodense")).check(0, similarity)
    assert hypodense.verdict == "kept"
    assert hypodense.score == pytest.approx(1 / (1 + math.exp(-1)), rel=1e-5)


def test_a_stated_value_that_nothing_known_excludes_is_kept():
    (each,) = interpreter_of(query(specific_features="calcification")).check(0, cosines(0))
    assert (each.score, each.verdict) == (1, "kept")


def test_a_query_that_states_nothing_has_nothing_to_check_and_fits_everything():
    interpreter = interpreter_of(query(), query(location="liver"))
    assert interpreter.check(0, cosines(0)) == ()
    assert interpreter.match(0, cosines(0)) == 0
    assert interpreter.match(1, cosines(0)) < 0


@pytest.mark.parametrize("gates", [[gate_of(0)], [gate_of(1), gate_of(2), gate_of(3)]], ids=["one fold", "three folds"])
@pytest.mark.parametrize("seed", range(4))
def test_matches_and_diseases_are_those_of_plain_loops(seed, gates):
    similarity = cosines(seed)
    asked = query("rare tumor", location=["left lung", "spleen"], density="hyperdense")
    interpreter = interpreter_of(asked, query("Hepatic Tumour", surface="ill-defined"), gates=gates)
    numbers = [as_numbers(gate) for gate in gates]
    logs = [
        log_gate_loop(by_phrase(similarity), list(asked.attributes.phrases()), TRAINED, ASPECTS, gate)
        for gate in numbers
    ]
    assert interpreter.match(0, similarity) == pytest.approx(sum(logs) / len(logs), rel=1e-4)
    diseases = {
        "rare tumor": list(asked.attributes.phrases()),
        "Hepatic Tumour": [("surface", "ill-defined")],
    } | known_types(but=("liver tumor",))
    expected = diseases_loop(by_phrase(similarity), diseases, TRAINED, ASPECTS, TEMPERATURE, 5)
    found = interpreter.diseases(similarity)
    assert [each.score for each in found] == pytest.approx([share for _, share in expected], rel=1e-4)
    shares = dict(diseases_loop(by_phrase(similarity), diseases, TRAINED, ASPECTS, TEMPERATURE, len(diseases)))
    assert [each.score for each in found] == pytest.approx([shares[each.name] for each in found], rel=1e-4)  # ties
    assert {each.name for each in found if each.seen_in_training} <= {"Hepatic Tumour"}


def test_folds_can_disagree_and_are_averaged_as_logarithms():
    """Weights softplus(0) = log 2; scale 1; odds e^2, so each log g is -log 2 * log(1 + e^-(2 + bias))."""
    gates = [MatchGate(TEMPERATURE).requires_grad_(False) for _ in range(2)]
    for gate, bias in zip(gates, (1.0, -2.0), strict=True):
        gate.bias.fill_(bias)
    interpreter = interpreter_of(query(surface="ill-defined"), gates=gates)
    similarity = cosines_where({"ill-defined": 0.5, "well-defined": 0.3})
    expected = -math.log(2) * (math.log1p(math.exp(-3)) + math.log1p(1)) / 2
    assert interpreter.match(0, similarity) == pytest.approx(expected, rel=1e-4)


def test_the_disease_that_is_seen_under_the_lesion_comes_first():
    interpreter = interpreter_of(
        query("stone", location="left kidney", density="hyperdense"),
        query("liver tumor", location="liver", density="hypodense"),
    )
    first, *others = interpreter.diseases(cosines_where({"left kidney": 0.9, "kidney": 0.9, "hyperdense": 0.9}))
    assert (first.name, first.seen_in_training) == ("stone", False)
    assert len(others) == 4
    assert "liver tumor" not in [each.name for each in others]
    first, *_ = interpreter.diseases(cosines_where({"liver": 0.9, "hypodense": 0.9}))
    assert (first.name, first.seen_in_training) == ("liver tumor", True)


def test_of_two_diseases_that_fit_the_one_that_allows_less_comes_first():
    """A well-defined lesion, p = 1 / (1 + e^-2) against ill-defined: where both are allowed, the mean of p is 1/2."""
    broad = query("broad", location="liver", density="hypodense", surface=["well-defined", "ill-defined"])
    narrow = query("narrow", location="liver", density="hypodense", surface="well-defined")
    interpreter = interpreter_of(broad, narrow)
    similarity = cosines_where({"liver": 0.9, "hypodense": 0.9, "well-defined": 0.2})
    first, second, *_ = interpreter.diseases(similarity)
    assert (first.name, second.name) == ("narrow", "broad")
    assert second.score / first.score == pytest.approx((1 + math.exp(-2)) / 2, rel=1e-5)
    assert interpreter.match(0, similarity) > interpreter.match(1, similarity)  # contradicted by less
    first, *_ = interpreter.diseases(cosines_where({"liver": 0.9, "hypodense": 0.9, "ill-defined": 0.2}))
    assert first.name == "broad"


def test_a_type_that_no_trained_phrase_speaks_against_is_no_disease_to_choose():
    """It would fit every lesion."""
    interpreter = interpreter_of(query("calcified", specific_features="calcification"), query("anything"))
    named = [each.name for each in interpreter.candidates[interpreter.num_queries :]]
    assert named == list(known_types())  # each of them has a density or a surface
    assert set(clinical_knowledge_table().lesions) - set(named)
    lungs = [phrase for phrase in PHRASES if phrase[1] in ("lung", "left lung")]
    assert interpreter_of(query(location="lung"), trained=lungs).diseases(cosines(0))
    assert interpreter_of(query(location="lung"), phrases=lungs, trained=lungs).diseases(cosines(0)[:2]) == ()

"""Golden twin of inference/interpretation.py: float64 loops over phrases, written from the formulas in its docstrings.

A phrase is (aspect, value); `cosine`: phrase -> its mean cosine under a lesion.
"""

from __future__ import annotations

import math

PARTS = {"lung": {"left lung", "right lung"}, "kidney": {"left kidney", "right kidney"}}


def can_coincide(value, other):
    """Of locations and relative densities only: equal, or an organ and its side."""
    return value == other or other in PARTS.get(value, ()) or value in PARTS.get(other, ())


def rivals_loop(phrase, among):
    return [other for other in among if other[0] == phrase[0] and not can_coincide(other[1], phrase[1])]


def share_loop(cosine, phrase, rivals, temperature):
    """e^(c/T) of a phrase over the sum of it and its rivals."""
    total = sum(math.exp(cosine[other] / temperature) for other in [phrase, *rivals])
    return math.exp(cosine[phrase] / temperature) / total


def aspects_loop(cosine, trained, aspects, temperature):
    """(aspect, value, score, runner-up, its score), runner-up and its score None where nothing excludes the value."""
    readings = []
    for aspect in aspects:
        best = None
        for phrase in cosine:
            if phrase in trained and phrase[0] == aspect and (best is None or cosine[phrase] > cosine[best]):
                best = phrase
        if best is None:
            continue
        rivals = rivals_loop(best, trained)
        if not rivals:
            readings.append((aspect, best[1], 1.0, None, None))
            continue
        second = rivals[0]
        for rival in rivals:
            if cosine[rival] > cosine[second]:
                second = rival
        others = [best, *(rival for rival in rivals if rival != second)]
        readings.append(
            (aspect, best[1], share_loop(cosine, best, rivals, temperature), second[1],
             share_loop(cosine, second, others, temperature))
        )  # fmt: skip
    return readings


def check_loop(cosine, stated, trained, temperature):
    """(aspect, value, score, verdict) of each stated value; stated: aspect -> alternatives."""
    checked = []
    for aspect, values in stated.items():
        known = [phrase for phrase in cosine if phrase in trained or phrase in [(aspect, value) for value in values]]
        discarded = set()
        for value in values:
            for rival in rivals_loop((aspect, value), known):
                if share_loop(cosine, (aspect, value), [rival], temperature) < 0.1:
                    discarded.add(value)
        best = None
        for value in values:
            if best is None or cosine[aspect, value] > cosine[aspect, best]:
                best = value
        for value in values:
            phrase = (aspect, value)
            score = share_loop(cosine, phrase, rivals_loop(phrase, known), temperature)
            verdict = "kept"
            if value in discarded:
                verdict = "discarded"
            elif value == best and discarded:
                verdict = "selected"
            checked.append((aspect, value, score, verdict))
    return checked


def log_gate_loop(cosine, asked, trained, aspects, gate):
    """log g of one query; gate: temperature, and per aspect (scale, bias, weight before softplus)."""
    log_g = 0.0
    for aspect, (scale, bias, raw_weight) in zip(aspects, gate["per_aspect"], strict=True):
        own = [phrase for phrase in asked if phrase[0] == aspect]
        against = [
            phrase for phrase in trained
            if phrase[0] == aspect and not any(can_coincide(phrase[1], each[1]) for each in own)
        ]  # fmt: skip
        if not own or not against:
            continue
        odds = sum(math.exp(cosine[phrase] / gate["temperature"]) for phrase in own)
        odds /= sum(math.exp(cosine[phrase] / gate["temperature"]) for phrase in against)
        log_g -= math.log1p(math.exp(raw_weight)) * math.log1p(math.exp(-(scale * math.log(odds) + bias)))
    return log_g


def diseases_loop(cosine, diseases, trained, aspects, temperature, most):
    """(name, share) of the best diseases, best first; diseases: name -> phrases."""
    fits = {}
    for name, asked in diseases.items():
        fits[name] = 1.0
        for aspect in aspects:
            own = [phrase for phrase in asked if phrase[0] == aspect]
            known = [phrase for phrase in cosine if phrase[0] == aspect and (phrase in trained or phrase in own)]
            allowed = [
                phrase for phrase in known if not own or any(can_coincide(phrase[1], each[1]) for each in own)
            ]  # fmt: skip
            if known:
                among = sum(math.exp(cosine[phrase] / temperature) for phrase in known)
                probability = sum(math.exp(cosine[phrase] / temperature) / among for phrase in allowed)
                fits[name] *= probability / len(allowed)
    total = sum(fits.values())
    return sorted(((name, fit / total) for name, fit in fits.items()), key=lambda each: -each[1])[:most]

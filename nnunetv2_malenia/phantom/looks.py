"""From an attribute table to what can be drawn: one value per aspect for each lesion type of a case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from nnunetv2_malenia.attributes.schema import ASPECTS, AttributeTable
from nnunetv2_malenia.attributes.vocabulary import vocabulary
from nnunetv2_malenia.phantom import lesions as words
from nnunetv2_malenia.phantom.anatomy import PhantomError
from nnunetv2_malenia.phantom.lesions import Attributes
from nnunetv2_malenia.phantom.rendering import DRAWN_DENSITIES, DRAWN_FEATURES

# per aspect the values that pixels can show; enhancement is the phase of the scan, location depends on the organs
DRAWN: dict[str, tuple[str, ...]] = {
    "shape": (words.ROUND, words.IRREGULAR, words.LOBULATED),
    "density": DRAWN_DENSITIES,
    "density_variation": (words.HOMOGENEOUS, words.HETEROGENEOUS),
    "surface": (words.WELL, words.ILL),
    "relationship": (words.APART, words.CLOSE, words.TO_VESSELS),
    "specific_features": DRAWN_FEATURES,
}
_UNSTATED: dict[str, tuple[str, ...]] = {
    "shape": (words.ROUND, words.IRREGULAR),
    "density": (words.HYPO, words.HYPER),
    "density_variation": DRAWN["density_variation"],
    "surface": DRAWN["surface"],
    "relationship": (words.APART,),
    "specific_features": (),
}
_PHASES = {
    words.NON_CONTRAST: words.NON_CONTRAST,
    words.ENHANCED: words.ENHANCED,
    "portal venous phase ct": words.ENHANCED,
}


class Look(NamedTuple):
    """How the lesions of one type look in one case, and the stated values that could not be drawn."""

    attributes: Attributes
    left_out: tuple[str, ...]


def choose_phase(
    table: AttributeTable, lesions: Iterable[str], case_id: str, rng: np.random.Generator, *, scan: str | None = None
) -> str:
    """NON_CONTRAST or ENHANCED, as every lesion type of a case allows; by chance where both are allowed.

    scan: the phase of the CT, where it is known. Raises PhantomError if one scan cannot be what is stated.
    """
    allowed = [words.NON_CONTRAST, words.ENHANCED] if scan is None else [scan]
    for lesion in lesions:
        stated = table.attributes_of(lesion, case_id).enhancement
        phases = {_PHASES[value] for value in stated if value in _PHASES}
        if phases:
            allowed = [phase for phase in allowed if phase in phases]
        elif stated:
            raise PhantomError(
                f"{case_id}: {lesion}: enhancement {' or '.join(map(repr, stated))} cannot be drawn here; "
                f"state one of: {', '.join(_PHASES)}"
            )
    if not allowed:
        if scan:
            raise PhantomError(
                f"{case_id}: this is a {scan} by its aorta, the table states another; correct enhancement"
            )
        raise PhantomError(f"{case_id}: its lesions state different phases; one scan has one, correct enhancement")
    return allowed[rng.integers(len(allowed))]


def choose_look(
    table: AttributeTable,
    lesion: str,
    case_id: str,
    phase: str,
    rng: np.random.Generator,
    *,
    locations: Sequence[str] | None,
) -> Look:
    """Choose one value per aspect from those that a table states for a lesion type in a case and that can be drawn.

    locations: the organs, and parts of them, that there are to choose from; None for a lesion that has its place.
    What is unspecified is drawn at random, but for specific features: those stated for the case are all drawn, of
    those stated for the type one, of none none.
    Raises PhantomError for an aspect of whose values none can be drawn.
    """
    stated = table.attributes_of(lesion, case_id)
    chosen: dict[str, tuple[str, ...]] = {}
    left_out: list[str] = []
    for aspect in ASPECTS:
        values = getattr(stated, aspect)
        if aspect == "enhancement":
            chosen[aspect] = (phase,)
            continue
        if aspect == "location" and locations is None:
            chosen[aspect] = ()
            continue
        known = tuple(locations or ()) if aspect == "location" else DRAWN[aspect]
        usable = [value for value in values if value in known]
        if aspect == "location":
            narrower = vocabulary().aspects[aspect].overlaps
            usable = usable or [place for value in values for place in narrower.get(value, ()) if place in known]
        else:
            left_out += [f"{aspect}: {value}" for value in values if value not in known]
        if aspect == "specific_features":
            of_case = _stated_in_case(table, lesion, case_id, aspect)
            chosen[aspect] = tuple(usable) if of_case or not usable else (usable[rng.integers(len(usable))],)
            continue
        options = usable or (known if aspect == "location" else _UNSTATED[aspect])
        if values and not usable:
            raise PhantomError(
                f"{case_id}: {lesion}: {aspect} {' or '.join(map(repr, values))} cannot be drawn here; "
                f"state one of: {', '.join(known) or 'nothing, no organ is labelled'}"
            )
        if not options:
            raise PhantomError(f"{case_id}: {lesion}: there is no organ to draw it in; label one")
        chosen[aspect] = (options[rng.integers(len(options))],)
    return Look(chosen, tuple(left_out))


def _stated_in_case(table: AttributeTable, lesion: str, case_id: str, aspect: str) -> bool:
    case = table.cases.get(case_id)
    own = case.lesions.items() if case else ()
    return any(getattr(values, aspect) for name, values in own if table.find(name) == table.find(lesion))

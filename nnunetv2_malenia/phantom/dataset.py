"""Which phantom cases make up a data set, and what its attribute tables say; nothing is drawn or written here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_malenia.attributes.schema import AspectValues, AttributeTable, CaseEntry, LesionEntry
from nnunetv2_malenia.phantom.anatomy import PhantomError
from nnunetv2_malenia.phantom.lesions import lesion_type

SEEN: tuple[str, ...] = ("colon tumor", "pancreas tumor", "liver tumor", "lung tumor", "kidney cyst")
UNSEEN: tuple[str, ...] = ("kidney tumor", "liver cyst", "pancreas cyst", "kidney stone")
_FIRST_TEST_INDEX = 1_000_000  # test phantoms stay the same however many training phantoms there are


@dataclass(frozen=True)
class PlannedCase:
    """A phantom to be made: its name, its number for `make_phantom`, and the lesion types in it."""

    case_id: str
    case_index: int
    lesion_types: tuple[str, ...]


def plan_training_cases(count: int, seen: Sequence[str], seed: int) -> list[PlannedCase]:
    """`count` cases of one to four seen types, each type about equally often. A longer plan begins with a shorter one.

    Raises ValueError if no type is given or the phantom cannot draw one.
    """
    deal, rng = _Dealer(seen, "seen"), np.random.default_rng([seed, 1])
    return [PlannedCase(f"phantom_{i:04d}", i, deal(rng.integers(1, 5), rng)) for i in range(count)]


def plan_test_cases(count: int, seen: Sequence[str], unseen: Sequence[str], seed: int) -> list[PlannedCase]:
    """`count` cases of two to four types, at least one of them unseen and one seen, each about equally often.

    Raises ValueError if a type is both seen and unseen, or as in `plan_training_cases`.
    """
    if both := sorted(set(seen) & set(unseen)):
        raise PhantomError(f"lesion types both seen and unseen: {', '.join(both)}; keep each in one list")
    deal_seen, deal_unseen, rng = _Dealer(seen, "seen"), _Dealer(unseen, "unseen"), np.random.default_rng([seed, 2])
    cases = []
    for i in range(count):
        total = rng.integers(2, 5)
        num_unseen = rng.integers(1, total)
        types = deal_unseen(num_unseen, rng) + deal_seen(total - num_unseen, rng)
        cases.append(PlannedCase(f"phantom_test_{i:04d}", _FIRST_TEST_INDEX + i, types))
    return cases


def phantom_table(
    types: Iterable[str], cases: Mapping[str, Mapping[str, Mapping[str, Sequence[str]]]], *, name: str
) -> AttributeTable:
    """The attribute table of phantoms: per type what it can look like, per case what its lesions do look like.

    cases: case id -> lesion type -> aspect -> values, as in `Phantom.attributes`. An aspect that some lesions of a
    type leave unspecified is stated per case only, so that such a case does not inherit it.
    """
    lesions = {}
    for type_name in types:
        kind = lesion_type(type_name)
        lesions[type_name] = LesionEntry(**{aspect: kind.alternatives(aspect) for aspect in kind.always_stated})
    return AttributeTable(
        name=name,
        description="Phantom CTs: attributes as drawn by the generator. Not clinical data.",
        lesions=lesions,
        cases={
            case_id: CaseEntry(lesions={lesion: AspectValues(**values) for lesion, values in stated.items()})
            for case_id, stated in cases.items()
        },
    )


class _Dealer:
    """Deals lesion types so that each one comes up equally often: the rarest so far first, ties at random."""

    def __init__(self, types: Sequence[str], role: str):
        if not types:
            raise PhantomError(f"no {role} lesion types; name at least one, e.g. 'kidney cyst'")
        for type_name in types:
            lesion_type(type_name)
        self.uses = dict.fromkeys(types, 0)

    def __call__(self, count: int, rng: np.random.Generator) -> tuple[str, ...]:
        """`count` different types, or all of them if there are fewer."""
        ties = dict(zip(self.uses, rng.permutation(len(self.uses)), strict=True))
        chosen = sorted(self.uses, key=lambda name: (self.uses[name], ties[name]))[:count]
        for name in chosen:
            self.uses[name] += 1
        return tuple(chosen)

"""Accuracy of aspects and diseases, verdicts on sides, lesions that were discovered. Lesions in, figures out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.aspects.answers import one_side, sided_types
from benchmarks.aspects.pairing import Drawn, Pairing
from nnunetv2_malenia.attributes.schema import ASPECTS, AttributeTable
from nnunetv2_malenia.attributes.vocabulary import vocabulary
from nnunetv2_malenia.inference.findings import AspectReading, CaseFindings


class Read(NamedTuple):
    """One aspect of a lesion that was found: as it was drawn, and as it was read."""

    drawn: tuple[str, ...]
    reading: AspectReading

    @property
    def is_right(self) -> bool:
        return fits(self.reading.aspect, self.reading.value, self.drawn)


def fits(aspect: str, value: str, drawn: Sequence[str]) -> bool:
    """Whether a value is among those drawn, or can be true of a lesion together with one, as "kidney" and "left kidney"
    can, or "hypodense" and "fluid density"."""
    return any(vocabulary().overlap(aspect, value, each) for each in drawn)


def readings(lesions: Iterable[Drawn]) -> Iterator[Read]:
    """The aspects of the lesions that were found; what a lesion was not drawn with is neither right nor wrong."""
    for lesion in lesions:
        for reading in lesion.found.aspects if lesion.found else ():
            if drawn := getattr(lesion.attributes, reading.aspect):
                yield Read(drawn, reading)


def groups(lesions: Sequence[Drawn], unseen: Sequence[str]) -> dict[str, list[Drawn]]:
    return {
        "seen": [lesion for lesion in lesions if lesion.name not in unseen],
        "unseen": [lesion for lesion in lesions if lesion.name in unseen],
    }


def aspect_accuracy(lesions: Sequence[Drawn]) -> dict[str, Any]:
    """Per aspect the share of readings that fit; `same`: of those that are the very value drawn; `majority`: the same
    share for the one value that would fit most often. `mean`: over the aspects that were read. confusion: drawn value
    -> value read -> lesions."""
    by_aspect: dict[str, list[Read]] = {aspect: [] for aspect in ASPECTS}
    for each in readings(lesions):
        by_aspect[each.reading.aspect].append(each)
    figures = {aspect: _accuracy(aspect, reads) for aspect, reads in by_aspect.items() if reads}
    return {
        "lesions": len(lesions),
        "found": sum(lesion.found is not None for lesion in lesions),
        "found_share": share(lesion.found is not None for lesion in lesions),
        "aspects": figures,
        "mean": {
            key: sum(each[key] for each in figures.values()) / len(figures) if figures else None
            for key in ("accuracy", "same", "majority")
        },
    }


def _accuracy(aspect: str, reads: Sequence[Read]) -> dict[str, Any]:
    candidates = {value for each in reads for value in each.drawn}
    confusion = Counter(("; ".join(each.drawn), each.reading.value) for each in reads)
    return {
        "lesions": len(reads),
        "accuracy": share(each.is_right for each in reads),
        "same": share(each.reading.value in each.drawn for each in reads),
        "majority": max(share(fits(aspect, value, each.drawn) for each in reads) for value in candidates),
        "confusion": {
            drawn: {value: count for (other, value), count in confusion.most_common() if other == drawn}
            for drawn in sorted({drawn for drawn, _ in confusion})
        },
    }


def disease_accuracy(lesions: Sequence[Drawn], types: Sequence[str]) -> dict[str, Any]:
    """How often a lesion that was found has its own type first, or among the first three. first_of_types: first among
    those of the five listed that are among `types`; a lesion whose type is not listed counts as wrong."""
    ranked = [(each.name, [disease.name for disease in each.found.diseases]) for each in lesions if each.found]
    return {
        "lesions": len(ranked),
        "top_1": share(name in names[:1] for name, names in ranked),
        "top_3": share(name in names[:3] for name, names in ranked),
        "first_of_types": share(name in [each for each in names if each in types][:1] for name, names in ranked),
    }


def discovery(pairing: Pairing, unseen: Sequence[str]) -> dict[str, Any]:
    """Lesions of any type that a predicted one touches, and predicted ones a case that touch none."""
    false_positives = sum(not each.is_real for each in pairing.predicted)
    of = {"all": pairing.drawn} | groups(pairing.drawn, unseen)
    return {
        **{name: {"lesions": len(each), "found": share(lesion.found is not None for lesion in each)}
           for name, each in of.items()},
        "false_positives_per_case": false_positives / pairing.cases,
    }  # fmt: skip


def side_verdicts(
    both: Iterable[CaseFindings], alone: Iterable[CaseFindings], table: AttributeTable, unseen: Sequence[str]
) -> dict[str, Any]:
    """Types of paired organs, in the cases that have lesions of that pair, of any type, on one side only.

    both: answers to a table that names both sides; alone: to one with a query for either side, see `side_table`.
    resolved: the right side is selected and the wrong one discarded; reversed: the right one is discarded. Asked for on
    one side alone: wrong_discarded and, where it was the right side, right_discarded.
    """
    alone = {case.case: _location_verdicts(case) for case in alone}
    outcomes: dict[str, list[tuple[bool, ...]]] = {"seen": [], "unseen": []}
    for case in both:
        verdicts = _location_verdicts(case)
        drawn = {name: values.location for name, values in table.cases[case.case].lesions.items()}
        for name, locations in sided_types(table):
            if name not in drawn:
                continue
            (right,) = drawn[name]
            (wrong,) = set(locations) - {right}
            if any(wrong in places for places in drawn.values()):
                continue
            of_both, of_one = verdicts[name], alone[case.case]
            outcomes["unseen" if name in unseen else "seen"].append((
                of_both.get(right) == "selected" and of_both.get(wrong) == "discarded",
                of_both.get(right) == "discarded",
                of_one[one_side(name, wrong)].get(wrong) == "discarded",
                of_one[one_side(name, right)].get(right) == "discarded",
            ))  # fmt: skip
    names = ("resolved", "reversed", "wrong_discarded", "right_discarded")
    return {
        group: {"lesions": len(rows), **{name: share(row[i] for row in rows) for i, name in enumerate(names)}}
        for group, rows in outcomes.items()
    }


def _location_verdicts(case: CaseFindings) -> Mapping[str, Mapping[str, str]]:
    """Query -> location -> verdict."""
    return {
        finding.name: {each.value: each.verdict for each in finding.checked if each.aspect == "location"}
        for finding in case.findings
    }


def share(of: Iterable[bool]) -> float | None:
    """Share that is true; None of nothing."""
    outcomes = list(of)
    return sum(outcomes) / len(outcomes) if outcomes else None

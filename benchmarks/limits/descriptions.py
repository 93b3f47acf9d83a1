"""What attribute tables allow: how often a query would be silent if every lesion and aspect were read perfectly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.aspects.measures import share
from nnunetv2_malenia.attributes.schema import AspectValues, AttributeTable, LesionEntry
from nnunetv2_malenia.attributes.vocabulary import vocabulary
from nnunetv2_malenia.evaluation.summary import Statistic

Fits = Callable[[str, str, str], bool]  # aspect, a value drawn, a value asked for


def can_coincide(aspect: str, drawn: str, asked: str) -> bool:
    """As the package takes them: a lesion of fluid density can be hypodense too."""
    return vocabulary().overlap(aspect, drawn, asked)


def is_the_same(aspect: str, drawn: str, asked: str) -> bool:
    """As if each lesion had been given the one value that fits it best."""
    return drawn == asked


def fits_query(entry: LesionEntry, drawn: AspectValues, fits: Fits) -> bool:
    """Whether each aspect that both state has a value drawn that fits one asked for."""
    return all(
        any(fits(aspect, value, asked) for value in values for asked in getattr(entry, aspect))
        for aspect, values in drawn.stated.items()
        if getattr(entry, aspect)
    )


def silent_share(table: AttributeTable, types: Sequence[str], fits: Fits) -> float | None:
    """Share of the cases without a type in which no lesion of another type fits the type's query; mean over types."""
    return Statistic.of(
        share(
            not any(fits_query(table.lesions[name], drawn, fits) for drawn in case.lesions.values())
            for case in table.cases.values()
            if name not in case.lesions
        )
        for name in types
    ).mean

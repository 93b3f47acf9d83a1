"""The controlled vocabulary: the canonical values of each aspect, their synonyms, and which values can coincide."""

import difflib
import json
import re
from collections.abc import Iterator
from functools import cache, cached_property
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, model_validator

ASPECTS: tuple[str, ...] = (
    "location",
    "shape",
    "density",
    "density_variation",
    "enhancement",
    "surface",
    "relationship",
    "specific_features",
)
MAX_PHRASE_LENGTH = 200


def clean_phrase(phrase: str) -> str:
    """A phrase as it is stored: lower case, whitespace collapsed.

    Raises ValueError when nothing is left, beyond MAX_PHRASE_LENGTH, or on control characters.
    """
    cleaned = " ".join(phrase.lower().split())
    if not cleaned:
        raise ValueError("empty phrase; write a value or leave the aspect out")
    if len(cleaned) > MAX_PHRASE_LENGTH:
        raise ValueError(f"phrase of {len(cleaned)} characters; an attribute has at most {MAX_PHRASE_LENGTH}")
    if not cleaned.isprintable():
        raise ValueError(f"{cleaned!r} has control characters; remove them")
    return cleaned


def loose_key(phrase: str) -> str:
    """What two spellings of one phrase share: letters and digits as they are, no hyphens, underscores or spaces."""
    return re.sub(r"[-_\s]+", "", phrase.lower())


def closest(word: str, candidates: list[str] | tuple[str, ...], count: int = 3) -> list[str]:
    """Up to `count` candidates spelt most like `word`, best first, upper and lower case alike; [] when none is near."""
    by_key = {candidate.lower(): candidate for candidate in candidates}
    return [by_key[key] for key in difflib.get_close_matches(word.lower(), list(by_key), n=count, cutoff=0.5)]


class AspectVocabulary(BaseModel):
    """One aspect: what it describes, value -> synonyms, and value -> values that can be true of the same lesion."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    values: dict[str, tuple[str, ...]]
    overlaps: dict[str, tuple[str, ...]] = {}

    @model_validator(mode="after")
    def _one_meaning_per_phrase(self) -> "AspectVocabulary":
        owner: dict[str, str] = {}
        for value, synonyms in self.values.items():
            for phrase in (value, *synonyms):
                if phrase != clean_phrase(phrase):
                    raise ValueError(f"{phrase!r} is not in clean form; write {clean_phrase(phrase)!r}")
                if (other := owner.setdefault(loose_key(phrase), value)) != value:
                    raise ValueError(f"{phrase!r} stands for both {other!r} and {value!r}; keep it under one of them")
        for value, others in self.overlaps.items():
            if unknown := [phrase for phrase in (value, *others) if phrase not in self.values]:
                raise ValueError(f"overlaps name {unknown[0]!r}, which is not a value of this aspect")
        return self

    @cached_property
    def by_key(self) -> dict[str, str]:
        """Loose key of every value and synonym -> the value."""
        return {loose_key(phrase): value for value, synonyms in self.values.items() for phrase in (value, *synonyms)}


class Vocabulary(BaseModel):
    """The canonical values of all eight aspects. Free text stays allowed; this is what has known synonyms."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    license: str = ""
    aspects: dict[str, AspectVocabulary]

    @model_validator(mode="after")
    def _all_aspects_in_order(self) -> "Vocabulary":
        if tuple(self.aspects) != ASPECTS:
            raise ValueError(f"aspects must be {', '.join(ASPECTS)}, in this order; got {', '.join(self.aspects)}")
        return self

    def values(self, aspect: str) -> tuple[str, ...]:
        """The canonical values of an aspect. Raises KeyError for an unknown aspect, as all methods do."""
        return tuple(self.aspects[aspect].values)

    def synonyms(self, aspect: str, value: str) -> tuple[str, ...]:
        """The synonyms of a canonical value."""
        return self.aspects[aspect].values[value]

    def resolve(self, aspect: str, phrase: str) -> str:
        """The canonical value that a value or synonym stands for; any other phrase comes back cleaned.

        Case, hyphens, underscores and spaces do not matter. Raises ValueError as `clean_phrase` does.
        """
        cleaned = clean_phrase(phrase)
        return self.aspects[aspect].by_key.get(loose_key(cleaned), cleaned)

    def closest(self, aspect: str, phrase: str, count: int = 3) -> list[str]:
        """The canonical values whose spelling, or whose synonym's, is most like the phrase, best first."""
        spellings = {
            phrase: value for value in self.values(aspect) for phrase in (value, *self.synonyms(aspect, value))
        }
        found = [spellings[match] for match in closest(phrase, tuple(spellings), count)]
        return list(dict.fromkeys(found))

    def overlap(self, aspect: str, value: str, other: str) -> bool:
        """Whether both values can be true of one lesion: equal, part and whole, or relative and absolute density."""
        overlaps = self.aspects[aspect].overlaps
        return value == other or other in overlaps.get(value, ()) or value in overlaps.get(other, ())

    def phrases(self) -> list[tuple[str, str]]:
        """Every (aspect, canonical value), in the order of ASPECTS and then of the file."""
        return list(self._iter_phrases())

    def _iter_phrases(self) -> Iterator[tuple[str, str]]:
        for aspect in ASPECTS:
            for value in self.aspects[aspect].values:
                yield aspect, value


@cache
def vocabulary() -> Vocabulary:
    """The vocabulary that ships with the package."""
    text = files("nnunetv2_malenia.attribute_tables").joinpath("vocabulary.json").read_text(encoding="utf-8")
    return Vocabulary.model_validate(json.loads(text))

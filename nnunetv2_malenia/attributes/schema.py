"""What an attribute table is: lesion types in eight aspects, overrides per case, and the queries made from them."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from nnunetv2_malenia.attributes.vocabulary import ASPECTS, clean_phrase, closest, loose_key, vocabulary
from nnunetv2_malenia.files import MaleniaError

__all__ = [
    "ASPECTS",
    "AspectValues",
    "AttributeTable",
    "AttributeTableError",
    "CaseEntry",
    "LesionEntry",
    "LesionQuery",
    "file_name",
    "has_laterality",
    "lesion_key",
]
MAX_NAME_LENGTH = 100
MAX_REFERENCE_LENGTH = 500
MAX_FILE_NAME_BYTES = 200  # of the 255 that file systems allow; endings and marks of unfinished files come to it


class AttributeTableError(MaleniaError):
    """A table that cannot be used; the message is one line: file, path inside it, what is wrong, what to do."""


def lesion_key(name: str) -> str:
    """What two spellings of one lesion name share: kidney_tumour, Kidney Tumor and kidney-tumor have one key."""
    return loose_key(name).replace("tumour", "tumor")


def file_name(query_name: str) -> str:
    """A query's name as part of a file name: letters and digits of any script, dot, dash and underscore only.

    Its UTF-8 is at most MAX_FILE_NAME_BYTES long. Names of symbols alone become "query".
    """
    letters = unicodedata.normalize("NFC", query_name)
    kept = "".join(each if each in "._-" or unicodedata.category(each)[0] in "LMN" else "/" for each in letters)
    return re.sub("/+", "_", kept).encode()[:MAX_FILE_NAME_BYTES].decode(errors="ignore").strip("._") or "query"


def _clean_text(text: str, limit: int) -> str:
    cleaned = " ".join(text.split())
    if not cleaned:
        raise ValueError("empty text; write something or remove the entry")
    if len(cleaned) > limit:
        raise ValueError(f"text of {len(cleaned)} characters; at most {limit} are allowed")
    if not cleaned.isprintable():
        raise ValueError(f"{cleaned!r} has control characters; remove them")
    return cleaned


def _clean_name(name: str) -> str:
    return _clean_text(name, MAX_NAME_LENGTH)


def _clean_reference(reference: str) -> str:
    return _clean_text(reference, MAX_REFERENCE_LENGTH)


def _as_sequence(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _no_two_keys_alike(entries: Any) -> Any:
    """Cleaning must not merge two entries into one without a word."""
    seen: set[str] = set()
    for key in entries if isinstance(entries, dict) else ():
        if (cleaned := " ".join(str(key).split())) in seen:
            raise ValueError(f"{cleaned!r} appears twice, with different spaces; merge the two entries")
        seen.add(cleaned)
    return entries


Phrase = Annotated[str, AfterValidator(clean_phrase)]
Name = Annotated[str, AfterValidator(_clean_name)]
Phrases = Annotated[tuple[Phrase, ...], BeforeValidator(_as_sequence)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_as_sequence), AfterValidator(_distinct)]


References = Annotated[
    tuple[Annotated[str, AfterValidator(_clean_reference)], ...],
    BeforeValidator(_as_sequence),
    AfterValidator(_distinct),
]
ByName = BeforeValidator(_no_two_keys_alike)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AspectValues(_Entry):
    """The eight aspects, each with its alternatives; () is unspecified.

    Takes a string or a sequence of strings per aspect. Phrases are cleaned, synonyms become the vocabulary's canonical
    value, repetitions are dropped, other free text is kept as it is.
    """

    location: Phrases = ()
    shape: Phrases = ()
    density: Phrases = ()
    density_variation: Phrases = ()
    enhancement: Phrases = ()
    surface: Phrases = ()
    relationship: Phrases = ()
    specific_features: Phrases = ()

    @field_validator(*ASPECTS)
    @classmethod
    def _canonical(cls, phrases: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return _distinct(tuple(vocabulary().resolve(str(info.field_name), phrase) for phrase in phrases))

    @property
    def stated(self) -> dict[str, tuple[str, ...]]:
        """The aspects that have values, in the order of ASPECTS; {} when all are unspecified."""
        return {aspect: values for aspect in ASPECTS if (values := getattr(self, aspect))}

    def phrases(self) -> Iterator[tuple[str, str]]:
        """Every (aspect, value), in the order of ASPECTS."""
        return ((aspect, value) for aspect, values in self.stated.items() for value in values)


class LesionEntry(AspectValues):
    """One lesion type: its attributes, the other names it goes by, and where the values come from."""

    aliases: Names = ()
    references: References = Field(
        default=(), description="Where the values come from, e.g. a guideline or a textbook."
    )

    @property
    def attributes(self) -> AspectValues:
        """The eight aspects without aliases and references."""
        return AspectValues(**self.stated)


class CaseEntry(_Entry):
    """What is known of one case: which labels its annotators drew (None: all), and attributes of its own lesions."""

    annotated: Names | None = Field(default=None, description="Label names that are annotated in this case.")
    lesions: Annotated[dict[Name, AspectValues], ByName] = Field(
        default={}, description="Attributes of this case's lesions; a stated aspect replaces that of the lesion type."
    )


class AttributeTable(_Entry):
    """Lesion types and their attributes, with overrides per case.

    A lesion type states at least one aspect, or cases state theirs, as for lesions that have a label but no type.
    """

    name: str = ""
    description: str = ""
    license: str = ""
    lesions: Annotated[dict[Name, LesionEntry], ByName] = Field(min_length=1, description="Lesion type -> attributes.")
    cases: Annotated[dict[Name, CaseEntry], ByName] = Field(
        default={}, description="Case id -> what holds for that case only."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "AttributeTable":
        owner: dict[str, str] = {}
        for name, entry in self.lesions.items():
            if (other := owner.setdefault(lesion_key(name), name)) != name:
                raise ValueError(f"lesions/{name}: the same name as {other!r}; keep one of them")
            if not entry.stated and not self._stated_by_a_case(name):
                raise ValueError(f'lesions/{name}: no aspect is stated; add at least one, e.g. "location": "liver"')
        for name, entry in self.lesions.items():
            for alias in entry.aliases:
                if (other := owner.setdefault(lesion_key(alias), name)) != name:
                    raise ValueError(f"lesions/{name}/aliases: {alias!r} also stands for {other!r}; keep it at one")
        for case_id, case in self.cases.items():
            described: dict[str, str] = {}
            for name in case.lesions:
                where = f"cases/{case_id}/lesions/{name}"
                if (lesion := self.find(name)) is None:
                    raise ValueError(f"{where}: not a lesion of this table{self._hint(name)}; add it under lesions")
                if (other := described.setdefault(lesion, name)) != name:
                    raise ValueError(f"{where}: the same lesion as {other!r}; merge the two")
        return self

    def _stated_by_a_case(self, lesion: str) -> bool:
        return any(
            values.stated and lesion_key(name) == lesion_key(lesion)
            for case in self.cases.values()
            for name, values in case.lesions.items()
        )

    @cached_property
    def _lesion_of(self) -> dict[str, str]:
        names = {lesion_key(alias): name for name, entry in self.lesions.items() for alias in entry.aliases}
        return names | {lesion_key(name): name for name in self.lesions}

    def _hint(self, name: str) -> str:
        known = [*self.lesions, *(alias for entry in self.lesions.values() for alias in entry.aliases)]
        return f" (closest: {', '.join(map(repr, near))})" if (near := closest(name, known)) else ""

    def find(self, name: str) -> str | None:
        """The lesion that a name or alias stands for; None when there is none. Spelling as in `lesion_key`."""
        return self._lesion_of.get(lesion_key(name))

    def entry(self, lesion: str) -> LesionEntry:
        """The entry of a lesion, by name or alias. Raises AttributeTableError for one that is not in the table."""
        if (name := self.find(lesion)) is None:
            raise AttributeTableError(f"no lesion {lesion!r} in the table{self._hint(lesion)}; add it under lesions")
        return self.lesions[name]

    def attributes_of(self, lesion: str, case_id: str | None = None) -> AspectValues:
        """A lesion's attributes; in a case that overrides some, the aspects stated there replace the type's.

        A case without an entry has the type's attributes. Raises AttributeTableError as `entry` does.
        """
        stated = self.entry(lesion).stated
        if case_id is not None and (case := self.cases.get(case_id)):
            for name, values in case.lesions.items():
                if self.find(name) == self.find(lesion):
                    stated = stated | values.stated
        return AspectValues(**stated)

    def phrases(self) -> list[tuple[str, str]]:
        """Every distinct (aspect, value) of lesion types and cases, by aspect, then by first use."""
        entries = [
            *self.lesions.values(),
            *(values for case in self.cases.values() for values in case.lesions.values()),
        ]
        used = dict.fromkeys(pair for entry in entries for pair in entry.phrases())
        return sorted(used, key=lambda pair: ASPECTS.index(pair[0]))


class LesionQuery(_Entry):
    """What a user asks for: a lesion type by name, as attributes."""

    name: Name
    attributes: AspectValues


def has_laterality(values: Iterable[AspectValues]) -> bool:
    """Whether any value names a side, so that mirroring left and right would make it wrong. False for no values.

    The ascending colon is the right one, and the descending colon the left one.
    """
    side = re.compile(r"(?<![^\W_])(left|right|(ascending|descending)[\W_]colon)(?![^\W_])")
    return any(side.search(phrase) for entry in values for _, phrase in entry.phrases())

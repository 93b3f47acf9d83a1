"""From a user's words to lesion queries: names of lesion types, and sentences as radiologists write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from textwrap import shorten
from typing import NamedTuple

from nnunetv2_malenia.attributes.report_parser import DOUBTED, ParsedReport, parse_report
from nnunetv2_malenia.attributes.schema import MAX_NAME_LENGTH, AspectValues, LesionQuery, lesion_key
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table
from nnunetv2_malenia.attributes.vocabulary import closest
from nnunetv2_malenia.files import MaleniaError

ANY_LESION = LesionQuery(name="any lesion", attributes=AspectValues())
_NOUNS = ("lesion", "tumor", "cyst", "stone", "metastasis", "nodule", "lymph node", "abscess")
_SAYS_NOTHING = re.compile(
    r"(?i)an?|and|any|are|as|at|by|for|from|has|have|in|into|is|its?|like|lesion|mass|nodule|of|on|or|shows?|some|that|"
    r"the|there|this|to|tumou?r|was|which|with|within"
)
_EXAMPLE = '--lesions "liver cyst" "round hypodense lesion with a sharp margin in the left kidney"'


class AskingError(MaleniaError):
    """Words that are no question; the message is one line: what was said, what is known, an example."""


class Question(NamedTuple):
    """A query, and how a user's words became it.

    type_name: the lesion type that was named, or None for a description. unread: words of a description that no aspect
    was read from. unused: values that were read and not taken, since the words deny or doubt them.
    """

    query: LesionQuery
    type_name: str | None
    unread: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def lines(self) -> Iterable[str]:
        """What was understood, for people: a line for each aspect."""
        of_type = "" if self.type_name in (None, self.query.name) else f", which is {self.type_name}"
        yield f"{self.query.name}{of_type}" + ("" if self.query.attributes.stated else ": whatever it looks like")
        for aspect, values in self.query.attributes.stated.items():
            yield f"  {aspect.replace('_', ' '):18} {' | '.join(values)}"
        if self.unread:
            yield f"  {'not understood':18} {', '.join(self.unread)}"
        if self.unused:
            yield f"  {'not asked for':18} {', '.join(self.unused)}"


def understand(words: str) -> Question:
    """A lesion type by name or alias, "any lesion", or a description in words of radiology.

    Raises AskingError where neither a type nor an aspect is recognised, and for control characters.
    """
    said = " ".join(words.split())
    if not said.isprintable():
        raise AskingError(f"{said!r} has characters that are not shown; write it anew, e.g. {_EXAMPLE}")
    table = clinical_knowledge_table()
    if lesion_key(said) == lesion_key(ANY_LESION.name):
        return Question(ANY_LESION, ANY_LESION.name)
    if (name := table.find(said)) is not None:
        return Question(LesionQuery(name=said, attributes=table.attributes_of(name)), name)
    parsed = max((parse_report(said, noun) for noun in _NOUNS), key=_number_stated)
    if not parsed.attributes.stated:
        near = closest(said, [*table.lesions, *(alias for each in table.lesions.values() for alias in each.aliases)])
        hint = f"closest types: {', '.join(near)}; " if near else ""
        raise AskingError(
            f"{said!r} is no known lesion type, and no aspect of a lesion was recognised in it; {hint}all types: "
            f"malenia_attributes show, e.g. {_EXAMPLE}"
        )
    query = LesionQuery(name=shorten(said, MAX_NAME_LENGTH, placeholder=" ..."), attributes=parsed.attributes)
    unused = tuple(dict.fromkeys(each.value for each in parsed.evidence if each.confidence <= DOUBTED))
    return Question(query, None, _unread(said, parsed), unused)


def _number_stated(parsed: ParsedReport) -> int:
    return len(parsed.attributes.stated)


def _unread(said: str, parsed: ParsedReport) -> tuple[str, ...]:
    """The words that lie in no evidence and could have meant something."""
    read = {i for each in parsed.evidence for i in range(each.start, each.end)}
    words = [match for match in re.finditer(r"[^\W_][\w'-]*", said) if not read & set(range(*match.span()))]
    return tuple(match.group() for match in words if not _SAYS_NOTHING.fullmatch(match.group()))

"""The grammar of reports: sentences, what is denied or doubted in them, and measurements. Knows no lesion.

Negation follows NegEx and ConText (Chapman et al. 2001, Harkema et al. 2009): a trigger reaches forward to the next
word that ends its scope, or back to what stands before it.
"""

import re
from enum import Enum
from typing import NamedTuple


class Assertion(Enum):
    """What a sentence says of something that it mentions."""

    AFFIRMED = "affirmed"
    NEGATED = "negated"
    UNCERTAIN = "uncertain"


class NormalisedText(NamedTuple):
    """A report in the form that patterns are written for, and for each of its characters the offset in the report."""

    text: str
    offsets: tuple[int, ...]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where in the report a not empty part of the text stands, as (start, end)."""
        return self.offsets[start], self.offsets[end - 1] + 1


class Sentence(NamedTuple):
    """A sentence, or a part of one that stands on its own. `start` is its offset in the normalised text."""

    start: int
    text: str


_PLAIN = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-") | {"\u2019": "'"})
_ABBREVIATIONS = (
    r"(?<!\bapprox)(?<!\bca)(?<!\bvs)(?<!\bno)(?<!\bmax)(?<!\bdr)(?<!\be\.g)(?<!\bi\.e)(?<!\bresp)(?<!\bfig)"
)
_SENTENCE_END = re.compile(rf"{_ABBREVIATIONS}[.!](?=\s|$)|\?|;|\n\s*\n|\n(?=\s*(?:[-*•]|\d+[.)]|[\w /,-]{{1,40}}:))")
_NOT_DENIED = (
    r"not only|no (?:significant |interval |obvious )?change|not (?:be )?(?:excluded|ruled out)|no doubt|"
    r"not necessarily|cannot be (?:excluded|ruled out)|can(?:no|')t (?:exclude|rule out)|not to mention"
)
_NEGATION = re.compile(
    r"\b(?:no|not|never|neither|nor|without|w/o|absence of|absent(?= \w)|lack(?:s|ing)?(?: of)?|negative for|"
    r"free of|devoid of|fails? to|unlikely|rather than|instead of|cannot)\b|n't\b"
)
_DOUBT = re.compile(
    r"\b(?:possibl[ey]|probabl[ey]|likely|suspicio(?:us|n)(?: for| of)?|suspect(?:ed|s)?|suggest(?:s|ed|"
    r"ing|ive)?(?: of)?|"
    r"may|might|could|questionabl[ey]|equivocal(?:ly)?|indeterminate|presum(?:ed|ably)|perhaps|concern(?:ing)? for|"
    r"cannot (?:exclude|rule out)|can't (?:exclude|rule out)|to (?:exclude|rule out)|whether|versus|vs|differential|"
    r"uncertain|doubtful|difficult to \w+|hard to \w+|cannot be (?:assessed|evaluated|determined))\b"
)
_SCOPE_END = re.compile(
    r"\b(?:but|however|although|though|except|apart from|other than|while|whereas|yet|still|despite|which|with|"
    r"showing|shows|demonstrat(?:es|ing)|containing|contains|is|are|was|were|has|have|appears|because|due)\b|[;:]"
)
_OPENS_ANEW = re.compile(
    r"\s*(?:a|an|the|its?|there|marked(?:ly)?|mild(?:ly)?|moderate(?:ly)?|slight(?:ly)?|prominent|"
    r"multiple|several|some|few)\b"
)
_SEEN = (
    r"(?:seen|identified|observed|present|detected|noted|evident|visuali[sz]ed|found|demonstrated|"
    r"appreciated|apparent|visible|shown)"
)
_DENIED_AFTER = re.compile(
    rf"[^,;:]{{0,40}}?\b(?:not (?:\w+ly )?{_SEEN}|absent|(?:is|are|was|were|been) (?:excluded|ruled out)|unlikely)\b"
)
_DOUBTED_AFTER = re.compile(
    r"[^,;:]{0,40}?(?:\b(?:cannot be|can't be|could not be|not|not be) (?:entirely |"
    r"completely )?(?:excluded|ruled out)\b|"
    r"\b(?:is|are) (?:possible|suspected|questionable|uncertain|equivocal|doubtful|likely)\b|\?)"
)
_LENGTH = r"\d+(?:[.,]\d+)?"
_MEASUREMENT = re.compile(rf"({_LENGTH}(?:\s*(?:cm|mm)?\s*[x\u00d7*]\s*{_LENGTH}){{0,2}})\s*-?(cm|mm)\b")


def normalised(report: str) -> NormalisedText:
    """Lower case, plain hyphens and apostrophes, one space for many; line ends and blank lines stay what they are."""
    chars: list[str] = []
    offsets: list[int] = []
    for match in re.finditer(r"\s+|\S", report):
        if (lines := match.group().count("\n")) or match.group().isspace():
            plain = "\n" * min(lines, 2) or " "
        else:
            plain = match.group().lower().translate(_PLAIN)
        chars += plain
        offsets += [match.start()] * len(plain)
    return NormalisedText("".join(chars), (*offsets, len(report)))


def sentences(text: str) -> list[Sentence]:
    """The sentences of a normalised text; a semicolon, a blank line, a list item or a heading ends one. [] if blank."""
    found: list[Sentence] = []
    start = 0
    for end in [*(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]:
        if text[start:end].strip():
            found.append(Sentence(start, text[start:end].replace("\n", " ")))
        start = end
    return found


def denies(phrase: str) -> bool:
    """Whether a normalised phrase holds a negation."""
    return bool(_NEGATION.search(phrase) or re.search(r"\bnon\b", phrase))


def assertion(
    sentence: str, start: int, end: int, *, in_lists: bool = False, includes_denial: bool = False
) -> Assertion:
    """Whether a sentence affirms, denies or doubts what it mentions from `start` to `end`.

    includes_denial: a negation inside the mention is a part of what is mentioned, as in "no enhancement".
    in_lists: the mention is a sign, and may be one of several after a single "no". In "no A, B and C" it is open
    whether B and C are denied too, so they are uncertain; in "no A, B or C" they are denied.
    """
    shadow = re.sub(_NOT_DENIED, lambda match: " " * len(match.group()), sentence)
    before, inside, after = shadow[:start], shadow[start:end], shadow[end:]
    if any(_reach(before[match.end() :], after, in_lists) for match in _DOUBT.finditer(sentence[:start])):
        return Assertion.UNCERTAIN
    if (match := _DOUBTED_AFTER.match(sentence[end:])) and _reaches_back(match.group(), in_lists):
        return Assertion.UNCERTAIN
    if (not includes_denial and denies(inside)) or re.search(r"\bnon[ -]$", before):
        return Assertion.NEGATED
    reaches = [_reach(before[match.end() :], after, in_lists) for match in _NEGATION.finditer(before)]
    if Assertion.NEGATED in reaches:
        return Assertion.NEGATED
    if (match := _DENIED_AFTER.match(after)) and _reaches_back(match.group(), in_lists):
        return Assertion.NEGATED
    return Assertion.UNCERTAIN if Assertion.UNCERTAIN in reaches else Assertion.AFFIRMED


def _reach(gap: str, after: str, in_lists: bool) -> Assertion | None:
    """Whether a trigger reaches over the gap between it and a mention: NEGATED (it does), UNCERTAIN, None (no)."""
    gap = re.sub(r"^\s*(?:with|be|is|are)\b", "", gap)
    if _SCOPE_END.search(gap) or len(gap.split()) > 8:
        return None
    if not re.search(r",|\band\b|\bor\b|\bnor\b", gap):
        return Assertion.NEGATED
    if (last := re.search(r"\b(?:or|nor)\b(?!.*\b(?:or|nor)\b)", gap)) and "," not in gap[last.end() :]:
        return Assertion.NEGATED
    if not in_lists or _OPENS_ANEW.match(re.split(r",|\band\b", gap)[-1]):
        return None
    rest = _SCOPE_END.split(after, maxsplit=1)[0].partition(".")[0]
    if re.search(r"\b(?:or|nor)\b", rest) or "," not in gap:
        return Assertion.NEGATED
    return Assertion.UNCERTAIN


def _reaches_back(gap: str, in_lists: bool) -> bool:
    """Whether a trigger after a mention means it: not where another statement begins in between."""
    return in_lists or not re.search(r"\b(?:and|with|but)\b", gap)


def diameters_mm(text: str) -> list[tuple[int, int, tuple[float, ...]]]:
    """Measurements in a normalised text, as (start, end, lengths in mm), e.g. 2.9 x 2.4 cm -> (29.0, 24.0)."""
    found = []
    for match in _MEASUREMENT.finditer(text):
        lengths, unit = match.groups()
        numbers = [float(number.replace(",", ".")) for number in re.findall(_LENGTH, lengths)]
        scale = 10 if unit == "cm" else 1
        found.append((match.start(), match.end(), tuple(round(number * scale, 1) for number in numbers)))
    return found

"""The grammar of reports: sentences, what is denied or doubted in them, and measurements. Knows no lesion.

Scope follows NegEx and ConText (Chapman et al. 2001, Harkema et al. 2009): a cue reaches forward or back to the next
word that ends its scope. The cues are in `report_cues`.
"""

import re
from typing import NamedTuple

from nnunetv2_malenia.attributes.report_cues import Assertion, Cue, cues, denies


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
_LINE_END = re.compile(r"\r\n|[\n\r\v\f\x85\u2028\u2029]")
_ABBREVIATIONS = (
    r"(?<!\bapprox)(?<!\bca)(?<!\bvs)(?<!\bno(?=\. ?\d))(?<!\bneg(?=\. for))(?<!\bmax)(?<!\bdr)(?<!\be\.g)(?<!\bi\.e)"
    r"(?<!\bresp)(?<!\bfig)"
)
_SENTENCE_END = re.compile(
    rf"{_ABBREVIATIONS}[.!](?=\s|$)|\?|;|\n\s*\n|\n(?=\s*(?:[-*•]|\d+[.)]|[\w /,-]{{1,40}}:))|"
    # a line of a list that answers itself: "calcification no"
    r"(?:^|(?<=\n))\W*(?:(?!(?:the|there|is|are|was|were|has|have|shows?|with|and|or|of)\b)[\w/]+[^\w/\n]+){1,5}"
    r"(?:no|none|nil|absent|yes|present|negative|positive) *\n"
)
# What may stand between a cue and what it refers to, and says nothing.
_AFTER_CUE = re.compile(
    r"^[\s,]*(?:(?:with|be|been|is|are|was|were|shows?|showing|shown|contain(?:s|ing)?|demonstrat\w+|"
    r"ha(?:s|ve|ving))\b\s*)*"
)
_BEFORE_CUE = re.compile(
    r"(?:(?:\b(?:is|are|was|were|be|been|being|has|have|had|can|could|appears?|seems?|now|also|currently|it|this|these|"
    r"they|to)\b|[-.:=([\s])\s*)*$"
)
_OF_EARLIER = re.compile(r"\b(?:that|which) (?:was|were|had been)\b")
_SCOPE_END = re.compile(
    r"\b(?:but|however|although|though|except|apart from|other than|aside from|besides|only|while|whereas|yet|"
    r"still|despite|which|with|showing|shows|demonstrat(?:es|ing)|containing|contains|is|are|was|were|has|have|appears|because|due|now|"
    r"currently|today|instead(?! of)|rather(?! than)|yes|positive)\b|[;:\u2610\u2611\u2612]|\+|"
    r"\((?! ?(?:and|or|nor)\b|[^()]*\))|"
    r"\b(?:present|seen|noted|found|visible|evident)\s*(?:,|\band\b|\bbut\b)"
)
_PAST_SCOPE_END = re.compile(
    r"\b(?:but|however|now|currently|today|to|is|are|has|have|while|whereas|unchanged|stable|similar|compared|than|"
    r"as)\b|[;:]"
)
_CONJUNCTION = re.compile(r"\s*(?:,\s*(?:and|or|nor)\b|,|/|&|\b(?:and|or|nor|as well as)\b)")
_OPENS_ANEW = re.compile(
    r"\s*(?:a|an|the|its?|there|marked(?:ly)?|mild(?:ly)?|moderate(?:ly)?|slight(?:ly)?|prominent|"
    r"multiple|several|some|few)\b"
)
_GOES_ON = re.compile(r"\s*(?:$|(?:in|within|of|at|on|along|inside|seen|noted|described)\b|\()")
# "no calcification in the necrotic part" denies the calcification and takes the necrosis for granted
_TAKEN_FOR_GRANTED = re.compile(
    r"(?<!\bpresence )(?<!\bevidence )(?<!\bpossibility )\b(?:of|in|within|inside|from|to|with|at|on|along|around|by|"
    r"for|into|through|near|between|beyond) (?:the|this|its|these|both)"
    r"(?: (?!(?:of|in|within|for|with|and|or)\b)[\w-]+){0,3}\s*$"
)
_MOST_WORDS, _MOST_CHARACTERS = 10, 400  # between a cue and what it refers to: in each item of a list, and in all
_LENGTH = r"\d+(?:[.,]\d+)?"
_MEASUREMENT = re.compile(rf"({_LENGTH}(?:\s*(?:cm|mm)?\s*[x\u00d7*]\s*{_LENGTH}){{0,2}})\s*-?(cm|mm)\b")


def normalised(report: str) -> NormalisedText:
    """Lower case, plain hyphens and apostrophes, one space for many; line ends and blank lines stay what they are."""
    chars: list[str] = []
    offsets: list[int] = []
    for match in re.finditer(r"\s+|\S", report):
        if match.group().isspace():
            lines = len(_LINE_END.findall(match.group()))
            plain = "\n" * min(lines, 2) or " "
        else:
            plain = match.group().lower().translate(_PLAIN)
        chars += plain
        offsets += [match.start()] * len(plain)
    return NormalisedText("".join(chars), (*offsets, len(report)))


def sentences(text: str) -> list[Sentence]:
    """The sentences of a normalised text; a semicolon, a blank line, a list item or a heading ends one. [] if blank.

    A sentence that only answers the one before, "Calcification? None.", is a part of it.
    """
    found: list[Sentence] = []
    start = 0
    for end in [*(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]:
        if found and _only_answers(text[start:end]):
            found[-1] = Sentence(found[-1].start, text[found[-1].start : end].replace("\n", " "))
        elif text[start:end].strip():
            found.append(Sentence(start, text[start:end].replace("\n", " ")))
        start = end
    return found


def _only_answers(text: str) -> bool:
    answers = cues(text.replace("\n", " "))
    return (
        len(answers) == 1
        and not answers[0].precedes
        and _BEFORE_CUE.match(text[: answers[0].start]) is not None
        and not re.search(r"\w", text[answers[0].end :])
    )


def assertion(
    sentence: str, start: int, end: int, *, in_lists: bool = False, includes_denial: bool = False
) -> Assertion:
    """What a sentence says of what it mentions from `start` to `end`; where cues disagree, doubt counts first.

    includes_denial: a denial inside the mention is a part of what is mentioned, as in "no enhancement".
    in_lists: the mention is a sign, and may be one of several with a single cue. In "no A, B and C" it is open
    whether B and C are denied too, so they are uncertain; in "no A, B or C" they are denied. "A, B: none" leaves A
    open in the same way, and "A and B: none" denies it.
    """
    if (not includes_denial and denies(sentence[start:end])) or re.search(r"\bnon[ -]$", sentence[:start]):
        return Assertion.NEGATED
    said = {_said(cue, sentence, start, end, in_lists) for cue in cues(sentence)}
    order = (Assertion.UNCERTAIN, Assertion.NEGATED, Assertion.PAST)
    return next((each for each in order if each in said), Assertion.AFFIRMED)


def _said(cue: Cue, sentence: str, start: int, end: int, in_lists: bool) -> Assertion | None:
    """What a cue says of a mention, None if it does not reach it; the same rules forward and backward."""
    first, last = (cue.end, start) if cue.precedes else (end, cue.start)
    if cue.says is Assertion.AFFIRMED or not 0 <= last - first <= _MOST_CHARACTERS:
        return None
    gap = sentence[first:last]
    gap = _AFTER_CUE.sub("", gap) if cue.precedes else _OF_EARLIER.sub("", _BEFORE_CUE.sub("", gap))
    scope_end = _PAST_SCOPE_END if cue.says is Assertion.PAST else _SCOPE_END
    items = _CONJUNCTION.split(gap)
    if scope_end.search(gap) or any(len(item.split()) > _MOST_WORDS for item in items):
        return None
    if _TAKEN_FOR_GRANTED.search(sentence, cue.end if cue.precedes else 0, start):
        return None
    separators = [each.strip() for each in _CONJUNCTION.findall(gap)]
    if not separators or (cue.precedes and separators[-1].endswith("or")):
        return cue.says
    is_another_statement = _OPENS_ANEW.match(items[-1]) if cue.precedes else not _GOES_ON.match(items[0])
    if not in_lists or is_another_statement or cues(gap):
        return None
    if cue.precedes:
        rest = _SCOPE_END.split(sentence[end:], maxsplit=1)[0].partition(".")[0]
        is_closed = "," not in gap or re.search(r"\b(?:or|nor)\b", rest)
    else:
        is_closed = separators[-1] != ","
    return cue.says if is_closed else Assertion.UNCERTAIN


def diameters_mm(text: str) -> list[tuple[int, int, tuple[float, ...]]]:
    """Measurements in a normalised text, as (start, end, lengths in mm), e.g. 2.9 x 2.4 cm -> (29.0, 24.0)."""
    found = []
    for match in _MEASUREMENT.finditer(text):
        lengths, unit = match.groups()
        numbers = [float(number.replace(",", ".")) for number in re.findall(_LENGTH, lengths)]
        scale = 10 if unit == "cm" else 1
        found.append((match.start(), match.end(), tuple(round(number * scale, 1) for number in numbers)))
    return found

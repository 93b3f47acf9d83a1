"""Places in reports: which location of the vocabulary a phrase names, and which organ that belongs to."""

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

from nnunetv2_malenia.attributes.report_rules import literal_pattern, phrase_pattern
from nnunetv2_malenia.attributes.vocabulary import vocabulary


class Mention(NamedTuple):
    """A place named in a text, from `start` to `end`: the vocabulary's locations, () where it has none for it."""

    start: int
    end: int
    values: tuple[str, ...]

    @property
    def organs(self) -> frozenset[str]:
        """The organs that the place belongs to; empty for a place that the vocabulary does not know."""
        return frozenset(map(organ_of, self.values))


@cache
def organ_of(location: str) -> str:
    """The whole that a location is part of: "left kidney" -> "kidney"; itself if it is part of nothing."""
    overlaps = vocabulary().aspects["location"].overlaps
    parts = {part for others in overlaps.values() for part in others}
    wholes = (whole for whole, others in overlaps.items() if whole not in parts and location in others)
    return next(wholes, location)


_NEXT = r"(?: ?(?:,|/|and|or|to|&) ?(?:the )?| - )"
_PANCREAS_PART = r"(?:head|neck|uncinate process|uncinate|body|tail)"
_COLON_PART = r"(?:ascending|transverse|descending|sigmoid)"
_PARTS = {"head": "pancreas head", "uncinate": "pancreas head", "body": "pancreas body", "tail": "pancreas tail"}
_SEGMENTS = {
    **dict.fromkeys(("1", "i"), "caudate lobe"),
    **dict.fromkeys(("2", "3", "4", "4a", "4b", "ii", "iii", "iv", "iva", "ivb"), "left liver lobe"),
    **dict.fromkeys(("5", "6", "7", "8", "v", "vi", "vii", "viii"), "right liver lobe"),
}


def _sided(right_and_left: tuple[str, str]) -> Callable[[str], tuple[str, ...]]:
    def values(words: str) -> tuple[str, ...]:
        right, left = right_and_left
        both = "both" in words or "bilateral" in words
        return tuple(v for v, named in ((left, both or "left" in words), (right, both or "right" in words)) if named)

    return values


def _pancreas(words: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for part, value in _PARTS.items() if part in words)) or ("pancreas",)


def _colon(words: str) -> tuple[str, ...]:
    return tuple(f"{part} colon" for part in ("ascending", "transverse", "descending", "sigmoid") if part in words)


def _segments(words: str) -> tuple[str, ...]:
    numbers = re.findall(r"\b(?:[1-8][ab]?|i[iv]*[ab]?|vi*)\b", re.sub(r"\bs(?=\d)", " ", words))
    return tuple(dict.fromkeys(_SEGMENTS[number] for number in numbers if number in _SEGMENTS))


def _lung_lobe(words: str) -> tuple[str, ...]:
    side = "left" if "left" in words else "right"
    levels = [level for level in ("upper", "middle", "lower") if level in words]
    return tuple(value for level in levels if (value := f"{side} {level} lung lobe") in vocabulary().values("location"))


_KIDNEY = _sided(("right kidney", "left kidney"))
_LIVER = _sided(("right liver lobe", "left liver lobe"))
_LUNG = _sided(("right lung", "left lung"))
_LEVELS = rf"(?:upper|middle|lower)(?:{_NEXT}(?:upper|middle|lower))*"
_VESSEL = (
    r"(?:(?:\w+(?:al|ic|ar|ary|ior|ian|oid)|left|right|main|common|middle|major|great|large|small|adjacent|"
    r"surrounding|neighbou?ring|supplying|feeding|draining) )*"
    r"(?:aort(?:a|ic(?: (?:arch|wall|root))?)|(?:vena )?cava|caval|azygos|[is]vc|sm[av]|im[av]|gda|cha|vessels?|veins?|"
    r"arter(?:y|ies)|venules?|arterioles?|vasculature|vascular(?: (?:structures?|bundle|pedicle))?|"
    r"portal (?:system|trunk)|(?:portal|venous|\w+mesenteric|splenoportal) confluence|co?eliac (?:trunk|axis)|"
    r"pulmonary trunk)"
)
_DUCT = (
    r"(?:(?:\w+(?:al|ic|ar|ary|ior)|left|right|main|common|bile|adjacent) )*"
    r"(?:ducts?|biliary (?:tree|system)|c[bh]d|wirsung)"
)
_LIVER_PART = r"(?:(?:lateral|medial|anterior|posterior|inferior|superior|upper|lower) )*"

# Places that are put together from words, which decide the value; at the end those that the vocabulary does not have.
_COMPOSED: list[tuple[str, Callable[[str], tuple[str, ...]]]] = [
    (
        (
            r"(?:left|right|both|bilateral)(?: sided)? (?:(?:upper|lower|mid|middle|"
            r"inter) (?:pole )?)?(?:kidneys?|renal|nephric)(?: (?:upper|lower|mid|middle|inter) ?pole)?"
        ),
        _KIDNEY,
    ),
    (
        rf"(?:left|right|both)(?:{_NEXT}(?:left|right))? {_LIVER_PART}(?:(?:hepatic|liver) )?(?:lobes?|"
        rf"hemi-liver|sections?|segments?)"
        r"(?: of (?:the )?liver)?",
        _LIVER,
    ),
    (rf"(?:left|right|both|bilateral) (?:{_LIVER_PART})(?:liver|hepatic)", _LIVER),
    (
        (
            rf"(?:(?:hepatic|liver|couinaud) )?segments? (?:\d[ab]?|i[iv]*[ab]?|vi*)(?:{_NEXT}(?:\d[ab]?|"
            rf"i[iv]*[ab]?|vi*))*|s\d(?:{_NEXT}s?\d)*"
        ),
        _segments,
    ),
    (
        (
            rf"(?:pancreatic|pancreas) {_PANCREAS_PART}(?:{_NEXT}{_PANCREAS_PART})*|"
            rf"{_PANCREAS_PART}(?:{_NEXT}{_PANCREAS_PART})* of (?:the )?pancreas"
        ),
        _pancreas,
    ),
    (rf"{_COLON_PART}(?:{_NEXT}{_COLON_PART})* colon", _colon),
    (r"recto-sigmoid(?: (?:colon|junction))?", lambda _: ("sigmoid colon", "rectum")),
    (r"(?:hepatic|splenic) flexure(?: of (?:the )?colon)?", lambda _: ("colon",)),
    (
        rf"(?:left|right) {_LEVELS} (?:(?:lung|pulmonary) )?lobes?|{_LEVELS} lobes? of (?:the )?(?:left|right) lung|"
        rf"(?:left|right) (?:lung|pulmonary),? {_LEVELS} lobes?",
        _lung_lobe,
    ),
    (r"(?:bowel|intestin(?:e|al))(?: wall)?", lambda _: ("colon", "small bowel")),
    (r"lingula(?:r segment)?", lambda _: ("left upper lung lobe",)),
    (r"(?:left|right|both|bilateral) (?:lungs?|pulmonary)", _LUNG),
    (rf"(?!(?:hepatic|liver|intra-hepatic) vessels?\b){_VESSEL}", lambda _: ()),
    (
        r"psoas(?: muscle)?|muscles?|diaphragm|bowel loops?|pericardium|heart|"
        r"coronary|thyroid|bronch(?:us|i|ial)|trachea|ligament|"
        r"omentum|mesentery|seminal vesicles?|vagina|abdominal organs?",
        lambda _: (),
    ),
]
# Where the organ is known, its parts may be named alone.
_ALONE: dict[str, list[tuple[str, Callable[[str], tuple[str, ...]]]]] = {
    "pancreas": [
        (rf"(?:in|within|of|at|from|involving) (?:the )?{_PANCREAS_PART}(?:{_NEXT}{_PANCREAS_PART})*", _pancreas)
    ],
    "colon": [(r"sigmoid", lambda _: ("sigmoid colon",))],
}

_VESSELS, _DUCTS = phrase_pattern(_VESSEL), phrase_pattern(_DUCT)
_PLEURA = phrase_pattern(r"pleura(?:l)?|chest wall|thoracic wall|fissures?|ribs?")
_NEIGHBOURS = phrase_pattern(
    r"(?:adjacent|surrounding|neighbou?ring|nearby) (?:abdominal |solid )?(?:organs?|structures?|viscera|viscus)"
)


@cache
def _patterns(organs: frozenset[str]) -> list[tuple[re.Pattern[str], Callable[[str], tuple[str, ...]]]]:
    alone = [entry for organ in sorted(organs) for entry in _ALONE.get(organ, [])]
    composed = [(phrase_pattern(pattern), values) for pattern, values in (*alone, *_COMPOSED)]
    listed = [
        (phrase_pattern(literal_pattern(phrase)), lambda _, value=value: (value,))
        for value, synonyms in vocabulary().aspects["location"].values.items()
        for phrase in (value, *synonyms)
    ]
    return composed + listed


def mentions(text: str, organs: Iterable[str] = ()) -> list[Mention]:
    """Every place named in a normalised text, in order; of two that overlap, the longer.

    organs: those that the report's lesion lies in, whose parts may then be named without the organ, e.g. "segment 6".
    """
    target = frozenset(organs)
    found: list[Mention] = []
    for pattern, values in _patterns(target):
        for match in pattern.finditer(text):
            is_the_livers = "liver" in target or re.search(r"liver|hepatic|couinaud", match.group())
            if values not in (_LIVER, _segments) or is_the_livers:
                found.append(Mention(match.start(), match.end(), values(match.group())))
    return without_overlaps(found)


def without_overlaps(found: list) -> list:
    """Of items with `start` and `end`, the longest ones that do not overlap, in order; the first of two equal ones."""
    kept: list = []
    for item in sorted(found, key=lambda each: each.start - each.end):
        if all(item.end <= other.start or other.end <= item.start for other in kept):
            kept.append(item)
    return sorted(kept, key=lambda each: each.start)


class Object(NamedTuple):
    """What the words after "abuts" or "close to" name: vessels, ducts, the pleura, surrounding organs, places."""

    vessels: bool
    ducts: bool
    pleura: bool
    neighbours: bool
    places: tuple[Mention, ...]


def object_of(text: str, organs: Iterable[str] = ()) -> Object:
    """What a text names. A vessel or duct is no organ, whichever one is in its name: "splenic vein"."""
    rest = _DUCTS.sub(",", _VESSELS.sub(",", text))
    return Object(
        vessels=bool(_VESSELS.search(text)),
        ducts=bool(_DUCTS.search(text)),
        pleura=bool(_PLEURA.search(rest)),
        neighbours=bool(_NEIGHBOURS.search(rest)),
        places=tuple(mentions(rest, organs)),
    )

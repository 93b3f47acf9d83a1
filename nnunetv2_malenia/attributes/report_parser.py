"""Free-text radiology report -> what it states about one lesion in the eight aspects, and the words that state it."""

import re
from itertools import combinations
from typing import NamedTuple

from nnunetv2_malenia.attributes.report_anatomy import Object, object_of, without_overlaps
from nnunetv2_malenia.attributes.report_cues import Assertion
from nnunetv2_malenia.attributes.report_feature_lexicon import IMPLIED_BY_FEATURE, SIGNS_BY_ORGAN
from nnunetv2_malenia.attributes.report_grammar import NormalisedText, assertion, diameters_mm, normalised
from nnunetv2_malenia.attributes.report_lexicon import (
    CLOSE,
    CLOSE_TO_PLEURA,
    CLOSE_TO_VESSELS,
    INVASION,
    NO_ENHANCEMENT,
    NOT_CLOSE,
    OPPOSITES,
    WITH_CONTRAST,
    Value,
)
from nnunetv2_malenia.attributes.report_rules import Rule, rules
from nnunetv2_malenia.attributes.report_scope import (
    Clause,
    Head,
    Target,
    Topic,
    clauses,
    is_denied,
    locations,
    target_of,
)
from nnunetv2_malenia.attributes.schema import ASPECTS, AspectValues
from nnunetv2_malenia.attributes.vocabulary import vocabulary

STATED, IMPLIED, CONTRADICTED, DOUBTED = 0.95, 0.7, 0.5, 0.3
DENIED = "the report denies this lesion"
_SCANS = ("non-contrast ct", WITH_CONTRAST, "arterial phase ct", "portal venous phase ct", "delayed phase ct")
_DOUBTS = {Assertion.UNCERTAIN: "doubted in the report", Assertion.PAST: "said of an earlier time"}
_OTHER_STATEMENT = re.compile(r"[;:.]|\b(?:with|is|showing|but|without|not|no|while|whereas|although)\b")
_KNOWN = re.compile(r"\b(?:the|this|these|known|previous(?:ly \w+)?) (?:[\w-]+ ){0,4}$")
_INTRODUCES = re.compile(
    r"(?<!consistent with )(?<!compatible with )(?<!representing )(?<!represents )(?<!suggestive of )(?<!suggesting )"
    r"\b(?:an|a|another|second|third) (?:[\w.-]+ ){0,5}$"
)


class Evidence(NamedTuple):
    """One value, the words that gave it, where they stand in the report, and how sure it is.

    confidence: 0.95 stated, 0.7 implied, 0.5 stated beside a value that excludes it, 0.3 doubted in the report itself.
    A doubted value is no part of the table. `doubt` says why a person should look, "" if there is no need.
    """

    aspect: str
    value: str
    start: int
    end: int
    words: str
    confidence: float
    doubt: str = ""


class ParsedReport(NamedTuple):
    """What a report states about one lesion. `unclear`: why a person should look at the report as a whole."""

    attributes: AspectValues
    evidence: tuple[Evidence, ...]
    diameters_mm: tuple[tuple[float, ...], ...]
    unclear: tuple[str, ...]

    @property
    def is_denied(self) -> bool:
        """Whether the report says that there is no such lesion; it then states nothing about one."""
        return self.unclear == (DENIED,)


class _Match(NamedTuple):
    start: int
    end: int
    rule: Rule


def parse_report(report: str, lesion: str) -> ParsedReport:
    """The aspects of a lesion type (name or alias) that a report states; what it does not state stays unspecified.

    A value that the report denies gives its opposite where there is one (surface, density variation, relationship,
    round shape, enhancement), else nothing. Several lesions of the type give alternatives. Any text is allowed; an
    empty one states nothing, and neither does one that denies the lesion.
    """
    normal = normalised(report)
    target = target_of(lesion)
    found = clauses(normal.text, target)
    if any(clause.topic is Topic.DENIED for clause in found) and not _mentioned(found):
        return ParsedReport(AspectValues(), (), (), (DENIED,))
    evidence = [*_location_evidence(found, target), *(each for clause in found for each in _evidence(clause, target))]
    evidence = _resolved([_located(each, normal, report) for each in evidence])
    used = [each for each in evidence if each.confidence > DOUBTED]
    values = {aspect: tuple(dict.fromkeys(e.value for e in used if e.aspect == aspect)) for aspect in ASPECTS}
    sizes = [size for c in found if c.topic is Topic.LESION for _, _, size in diameters_mm(c.text)]
    return ParsedReport(AspectValues(**values), tuple(evidence), tuple(sizes), tuple(_unclear(report, found, values)))


def _located(evidence: Evidence, normal: NormalisedText, report: str) -> Evidence:
    start, end = normal.span(evidence.start, evidence.end)
    return evidence._replace(start=start, end=end, words=report[start:end])


def _unclear(report: str, found: list[Clause], values: dict[str, tuple[str, ...]]) -> list[str]:
    if not report.strip():
        return ["the report is empty"]
    if not any(clause.topic is Topic.LESION for clause in found):
        return ["no sentence speaks of this lesion"]
    reasons = [] if any(values.values()) else ["no aspect is stated"]
    heads = _mentioned(found)
    introduced = sum(bool(_INTRODUCES.search(clause.text[: head.start])) for clause, head in heads)
    if introduced > 1:
        reasons.append("several lesions; what is said of them became alternatives")
    said = {assertion(clause.text, head.start, head.end) for clause, head in heads}
    if said and Assertion.AFFIRMED not in said:
        reasons.append("the report doubts this lesion, or speaks of an earlier time")
    if any(clause.topic is Topic.DENIED and _KNOWN.search(clause.text[: clause.heads[-1].start]) for clause in found):
        reasons.append("a lesion that the report speaks of is said to be gone")
    return reasons


def _mentioned(found: list[Clause]) -> list[tuple[Clause, Head]]:
    """The nouns that stand for the lesion where it is spoken of, with their clauses."""
    return [
        (clause, head)
        for clause in found
        if clause.topic is Topic.LESION
        for head in clause.heads
        if not is_denied(clause.text, head)
    ]


def _location_evidence(found: list[Clause], target: Target) -> list[Evidence]:
    return [
        Evidence("location", value, clause.start + place.start, clause.start + place.end, "", STATED)
        for clause, place in locations(found, target)
        for value in place.values
    ]


def _evidence(clause: Clause, target: Target) -> list[Evidence]:
    """What a clause says, with the places of the words in the report; denied values turned round or dropped."""
    matches = without_overlaps(
        [_Match(match.start(), match.end(), rule) for rule in rules() for match in rule.pattern.finditer(clause.text)]
    )
    found: list[Evidence] = []
    for match in matches:
        for aspect, value in match.rule.values:
            if not _refers_to_lesion(clause, target, match, aspect, value, matches):
                continue
            said = assertion(
                clause.text,
                match.start,
                match.end,
                in_lists=aspect == "specific_features",
                includes_denial=match.rule.denies,
            )
            for value_said, confidence, doubt in _said((aspect, value), said, match, clause, target):
                found.append(
                    Evidence(*value_said, clause.start + match.start, clause.start + match.end, "", confidence, doubt)
                )
    return found


def _said(
    value: Value, said: Assertion, match: _Match, clause: Clause, target: Target
) -> list[tuple[Value, float, str]]:
    """What an affirmed, denied or doubted match states, how surely, and why to look at it."""
    confidence, doubt = (IMPLIED, "implied, not stated") if match.rule.implied else (STATED, "")
    object_ = _object(clause, match, target)
    if value[0] == "surface" and (object_.vessels or _names_organ(object_, target)):
        value = ("relationship", CLOSE if value[1] == "ill-defined" else NOT_CLOSE)
    if said is Assertion.NEGATED and value == ("enhancement", WITH_CONTRAST) and match.rule.implied:
        value, confidence, doubt = ("enhancement", NO_ENHANCEMENT), STATED, ""
    elif said is Assertion.NEGATED:
        if value not in OPPOSITES:
            return []
        value = OPPOSITES[value]
    if value == ("density", "isodense") and "lung" in target.organs:  # as soft tissue, the lung itself being air
        value = ("density", "soft-tissue density")
    values = [value]
    if value[0] == "relationship":
        values, no_organ = _relationships(value[1], object_, target)
        confidence, doubt = (DOUBTED, no_organ) if no_organ else (confidence, doubt)
    if said in _DOUBTS:
        confidence, doubt = DOUBTED, _DOUBTS[said]
    implied = None if confidence == DOUBTED else _implied(value)
    return [
        *((each, confidence, doubt) for each in values),
        *([(implied, IMPLIED, "implied, not stated")] if implied else []),
    ]


def _implied(value: Value) -> Value | None:
    """What a value implies for another aspect, or for the scan."""
    if value[0] == "enhancement" and value[1] not in (*_SCANS, NO_ENHANCEMENT):  # it shows with contrast only
        return ("enhancement", WITH_CONTRAST)
    return IMPLIED_BY_FEATURE.get(value[1]) if value[0] == "specific_features" else None


def _object(clause: Clause, match: _Match, target: Target) -> Object:
    """What a relationship or a border is to: the words up to where another statement begins."""
    if match.rule.values[0][0] == "surface":
        return object_of(_towards(clause, match), target.organs)
    after = re.sub(r"^\s*(?:with|to|of)\b", "", clause.text[match.end : match.end + 80])
    return object_of(f"{clause.text[match.start : match.end]} {_OTHER_STATEMENT.split(after)[0]}", target.organs)


def _relationships(value: str, object_: Object, target: Target) -> tuple[list[Value], str]:
    """The relationships that a stated one amounts to, by what it is to, and why they are in doubt ("" if they are not).

    Pleura and invasion are close to an organ. A vessel or a duct is none: nothing follows for the organs.
    """
    to_vessels = object_.vessels or value == CLOSE_TO_VESSELS
    if not _names_organ(object_, target) and (to_vessels or object_.ducts):
        if value == NOT_CLOSE:
            return [], ""
        if to_vessels:
            return [("relationship", CLOSE_TO_VESSELS)], ""
        return [("relationship", CLOSE)], "close to a duct, for which there is no value"
    if value in (NOT_CLOSE, INVASION):
        found = [NOT_CLOSE] if value == NOT_CLOSE else [CLOSE, INVASION]
    elif value == CLOSE_TO_PLEURA or object_.pleura:
        found = [CLOSE, CLOSE_TO_PLEURA]
    else:
        found = [CLOSE, *([CLOSE_TO_VESSELS] if to_vessels else [])]
    return [("relationship", each) for each in found], ""


def _towards(clause: Clause, match: _Match) -> str:
    """What a border is said to be with, "" if nothing: "indistinct margin with the spleen"."""
    after = re.match(r"\s*(?:with|between|from|to|towards?)\b[^,.;]{0,70}", clause.text[match.end :])
    inside = re.search(r"\b(?:with|between|from|to|towards?)\b.*", clause.text[match.start : match.end])
    return (inside.group() if inside else "") + (after.group() if after else "")


def _names_organ(object_: Object, target: Target) -> bool:
    """Whether something outside the lesion's own organ is named, vessels and ducts apart."""
    return object_.neighbours or object_.pleura or any(not target.lies_in(place) for place in object_.places)


_PART = re.compile(
    r"(?:[\s-]+(?!(?:in|of|with|is|are|than|to|as|from|and|the|a|density|attenuation|enhancement)\b)[\w-]+){0,3}?[\s-]+"
    r"(?:structures?|foci|spots?|areas|regions?|components?|portions?|rim|halo|strands?|sept\w+|walls?|calcifications?|"
    r"content|vessels?|parenchyma|background|capsule|thrombus|kidneys?|liver|pancreas|lungs?|spleen)\b"
)
_LESION = r"(?:lesions?|mass(?:es)?|nodules?|tumou?rs?|cysts?|area|shadows?|thickening)\b"
_LESION_NOUN = re.compile(rf"[^,.;]{{0,40}}?\b{_LESION}")


def _describes_a_part(after: str) -> bool:
    """Whether an adjective belongs to a part of the lesion or to an organ: what follows is "areas", not "lesion"."""
    part, noun = _PART.match(after), _LESION_NOUN.match(after)
    if not part or (noun and noun.end() <= part.end()):
        return False
    return not re.match(rf"[\s-]+{_LESION}", after[part.end() :])


def _refers_to_lesion(
    clause: Clause, target: Target, match: _Match, aspect: str, value: str, matches: list[_Match]
) -> bool:
    """Whether a match is about the lesion asked about, and not about another one, a part of it, or an organ."""
    if aspect == "enhancement" and value in _SCANS:
        return True
    if organs := SIGNS_BY_ORGAN.get(value) if aspect == "specific_features" else None:
        return not target.organs or bool(organs & target.organs)
    if value in ("enlarged lymph nodes", "tumor thrombus"):
        return target.kind == "tumor"
    if clause.topic is not Topic.LESION:
        return False
    after = clause.text[match.end :]
    if aspect in ("shape", "density", "density_variation", "surface") and _describes_a_part(after):
        return False
    if aspect == "shape" and value == "wall thickening":
        return target.is_hollow
    if aspect == "surface":
        return not _qualifies_relationship(clause, match, matches)
    if aspect == "relationship":
        return _is_to_another_organ(clause, target, match)
    if aspect == "specific_features":
        return not _is_elsewhere(clause, target, match)
    return True


def _qualifies_relationship(clause: Clause, match: _Match, matches: list[_Match]) -> bool:
    """Whether a border only says how close something is: "close to X, with blurred borders"."""
    for other in matches:
        if other.start < match.start and other.rule.values[0] in (("relationship", CLOSE), ("relationship", INVASION)):
            gap = clause.text[other.end : match.start]
            is_denied = assertion(clause.text, other.start, other.end) is Assertion.NEGATED
            new_subject = re.search(r"\b(?:the|its) (?:\w+ )?(?:margins?|borders?|lesion|mass|nodule|tumou?r)\b", gap)
            is_blurred = match.rule.values[0][1] == "ill-defined"
            if not is_denied and not new_subject and is_blurred and re.search(r"\b(?:with|and)\b[^,]*$", gap):
                return True
    return False


def _is_to_another_organ(clause: Clause, target: Target, match: _Match) -> bool:
    """Whether a relationship is to something outside the lesion's own organ; one without a named object counts."""
    object_ = _object(clause, match, target)
    if object_.vessels or _names_organ(object_, target) or (object_.ducts and not object_.places):
        return True
    return not object_.places and match.rule.values[0] != ("relationship", INVASION)


def _is_elsewhere(clause: Clause, target: Target, match: _Match) -> bool:
    """Whether a feature is said to be that of another organ: "calcification of the aorta", "aortic calcification"."""
    for place in clause.places:
        before, after = clause.text[place.end : match.start], clause.text[match.end : place.start]
        follows = match.end <= place.start and re.fullmatch(
            r"[^,.;]{0,15}\b(?:of|in|along|within) (?:the )?(?:\w+ )?", after
        )
        precedes = place.end <= match.start and re.fullmatch(r"[\s-]+(?:wall )?", before)
        if (follows or precedes) and not target.lies_in(place):
            return True
    return False


def _resolved(evidence: list[Evidence]) -> list[Evidence]:
    """Every value once, by aspect; implied values give way to stated ones that exclude them; the rest is marked."""
    overlap = vocabulary().overlap
    best: dict[Value, Evidence] = {}
    for each in sorted(evidence, key=lambda e: (-e.confidence, e.start)):
        best.setdefault((each.aspect, each.value), each)
    stated = [each for each in best.values() if each.confidence == STATED]
    kept = [
        each
        for each in best.values()
        if each.confidence != IMPLIED
        or all(other.aspect != each.aspect or overlap(each.aspect, each.value, other.value) for other in stated)
    ]
    used = [each for each in kept if each.confidence > DOUBTED]
    contradicted = {side for a, b in combinations(used, 2) if _contradict(a, b) for side in (a, b)}
    marked = [
        each._replace(confidence=CONTRADICTED, doubt="stated beside a value that excludes it")
        if each in contradicted
        else each
        for each in kept
    ]
    return sorted(marked, key=lambda e: (ASPECTS.index(e.aspect), e.start, e.value))


def _contradict(a: Evidence, b: Evidence) -> bool:
    """Whether two statements exclude each other; not two in the same words ("hypo- to isodense"), places or signs."""
    if a.aspect != b.aspect or a.start == b.start or a.aspect in ("location", "specific_features"):
        return False
    return not ({a.value, b.value} & set(_SCANS) or vocabulary().overlap(a.aspect, a.value, b.value))

"""Which parts of a report speak of the lesion that is asked about, and where they say that it lies."""

import re
from enum import Enum
from itertools import pairwise
from typing import NamedTuple

from nnunetv2_malenia.attributes.report_anatomy import Mention, mentions, organ_of
from nnunetv2_malenia.attributes.report_grammar import Assertion, assertion, sentences
from nnunetv2_malenia.attributes.report_rules import phrase_pattern
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table
from nnunetv2_malenia.attributes.vocabulary import vocabulary


class Topic(Enum):
    """What a clause speaks of."""

    LESION = "the lesion that is asked about"
    DENIED = "that it is not there"
    ORGAN = "an organ"
    OTHER = "something else"


class Target(NamedTuple):
    """The lesion type asked about: what kind of thing, and in which organs (empty: any)."""

    kind: str
    organs: frozenset[str]
    is_hollow: bool

    def lies_in(self, mention: Mention) -> bool:
        """Whether a place belongs to one of the lesion's organs; a place outside the vocabulary does not."""
        return any(map(self.owns, mention.values))

    def owns(self, location: str) -> bool:
        """Whether a location of the vocabulary belongs to one of the lesion's organs."""
        return not self.organs or organ_of(location) in self.organs


class Head(NamedTuple):
    """A noun that stands for a lesion, e.g. "mass"."""

    start: int
    end: int
    kind: str


class Clause(NamedTuple):
    """A sentence or the part of one that speaks of one thing. `start` is its offset in the normalised report."""

    start: int
    text: str
    topic: Topic
    heads: tuple[Head, ...]
    places: tuple[Mention, ...]


_KINDS = {
    "cyst": r"(?:pseudo)?cysts?|cystic lesions?",
    "stone": r"stones?|calcul(?:us|i)",
    "lymph node": r"lymph nodes?|lymph-?adenopathy",
    "effusion": r"effusions?",
    "hemangioma": r"ha?emangiomas?",
    "abscess": r"abscess(?:es)?",
    "angiomyolipoma": r"angiomyolipomas?",
    "adenoma": r"adenomas?",
    "thrombus": r"thromb(?:us|i|osis)",
    "tumor": r"tumou?rs?|neoplasms?|carcinomas?|adenocarcinomas?|cancers?|malignanc(?:y|ies)|metastas[ei]s|"
    r"mass(?! effect)|masses",
    "any": r"lesions?|nodules?|(?:opacity|abnormality)",
}
_SIGNS = ("lymph node", "effusion", "thrombus")  # named beside a lesion; what follows is about the lesion again
_HEADS = [(kind, phrase_pattern(pattern)) for kind, pattern in _KINDS.items()]
_THICKENING = ("any", phrase_pattern(r"thickening|thickened"))
_AREA = phrase_pattern(r"area|focus|region|shadows?")
_NOT_A_HEAD = re.compile(r"\b(?:mural|wall|satellite|thyroid|peritoneal) nodules?$")
_ANOTHER = re.compile(r"\b(?:other|additional|further|second|new) (?:[\w-]+ ){0,4}$")
_NOT_AN_AREA_BEFORE = re.compile(
    r"\b(?:internal|central|peripheral|inner|small|focal|surrounding|this|head|adjacent) (?:[\w-]+ )?$"
)
_INSIDE = re.compile(r"(?: (?:is|are|seen|noted|present|observed|visible))* (?:within|inside)\b")
_LOCATIVE = re.compile(
    r"(?:\b(?:in|within|of|at|on|involving|occupying|occupies|involves|inside|throughout|along|(?:aris|"
    r"originat)\w+ (?:from|in))"
    r"|location:?|site:?)(?: the| both| a| an)?(?: (?!and\b|or\b)[\w-]+){0,2}\s*$"
)
_NOT_LOCATIVE = re.compile(
    r"\b(?:relat\w+|close\w*|adjacent|abut\w*|contact\w*|touch\w*|next|near|border(?:s|ing)|between|invad\w*|invasion|"
    r"infiltrat\w*|exten[ds]\w*|atroph\w*|dilat\w*|compress\w*|displac\w*|encas\w*|separat\w+|beneath|below|above|"
    r"hyperdensity \w+ in|densit(?:y|ies) in|"
    r"(?:margins?|borders?|boundar\w+|interface|demarcation) (?:with|from|to|of|between))\b[^.;,:]{0,60}$"
)
_COMPARED_WITH = re.compile(  # what is said to be somewhere after that is no longer what it is compared with
    r"\b(?:than|compared|relative|similar|rest|remainder|remaining|normal|surrounding|around)\b"
    r"(?:(?!\b(?:is|are|was|were)\b)[^.;,:]){0,60}$"
)
_NOT_A_PLACE_AFTER = re.compile(
    r"\s*(?:\w+ )?(?:parenchyma|atroph\w*|pelvis|ducts?|veins?|arter\w+|hilum|sinus|fossa|capsule|"
    r"vessels?|(?:is|are|appears?) (?:normal|unremarkable))\b"
)
_SIGN_OF_A_LESION = re.compile(
    r" (?:re-?traction|traction|indentation|tags?|tagging|tails?|tethering|puckering|invasion|encasement|convergence)\b"
)
_OPENING = re.compile(
    r"^\W*(?:\w+[\w -]*: ?)?(?:(?:in|within|at|on) )?(?:the |both |remaining |rest of the |remainder of the )*$"
)
_NO_REPORT = re.compile(r"^\W*(?:clinical )?(?:history|indication|comparison|reason for (?:exam\w*|study))\b")
_NOUN = r"(?:lesions?|mass(?:es)?|nodules?|tumou?rs?|cysts?|cancers?|carcinomas?|stones?)\b"
_SEPARATOR = re.compile(r",\s*(?:and\s+)?|\s+and\s+|\s+with\s+|\bwhile\b|\bwhereas\b|\bbut\b")


def target_of(lesion: str) -> Target:
    """What a lesion type's name, and its row in the Clinical Knowledge Table, say about where to look for it."""
    knowledge = clinical_knowledge_table()
    name = lesion.lower().replace("_", " ")
    kind = next((kind for kind in _KINDS if kind != "any" and kind.removeprefix("lymph ") in name), "tumor")
    if known := knowledge.find(lesion):
        entry = knowledge.lesions[known]
        return Target(kind, frozenset(map(organ_of, entry.location)), "wall thickening" in entry.shape)
    named = [organ for place in mentions(name) for organ in place.organs]
    return Target(kind, frozenset(named), True)


def clauses(text: str, target: Target) -> list[Clause]:
    """A normalised report in clauses, each with its topic: a lesion noun, an organ or a heading sets it, else it stays.

    Before anything is named, a report speaks of the lesion. Clauses about history and indication are left out.
    """
    found: list[Clause] = []
    topic = section = Topic.LESION
    for sentence in sentences(text):
        if _NO_REPORT.match(sentence.text):
            continue
        places = mentions(sentence.text, target.organs)
        for start, end in _parts(sentence.text, places, target):
            part = sentence.text[start:end]
            inside = [_moved(each, -start) for each in places if start <= each.start < end]
            heads = _heads(part, target)
            before = topic
            topic, section = _topic(part, heads, inside, target, topic, section)
            found.append(Clause(sentence.start + start, part, topic, tuple(heads), tuple(inside)))
            if topic in (Topic.ORGAN, Topic.DENIED):
                topic = before
    return found


def _moved(mention: Mention, by: int) -> Mention:
    return mention._replace(start=mention.start + by, end=mention.end + by)


def _heads(text: str, target: Target) -> list[Head]:
    """Lesion nouns in order; a cyst in "cystic lesion" is one noun."""
    patterns = [*_HEADS, *([_THICKENING] if target.is_hollow else [])]
    found: list[Head] = []
    for kind, pattern in patterns:
        for match in pattern.finditer(text):
            overlaps = any(match.start() < head.end and head.start < match.end() for head in found)
            if not overlaps and not _NOT_A_HEAD.search(text[: match.end()]):
                found.append(Head(match.start(), match.end(), kind))
    if not found:
        for match in _AREA.finditer(text):
            before, after = text[: match.start()], text[match.end() :]
            if not (_NOT_AN_AREA_BEFORE.search(before) or _INSIDE.match(after)):
                found.append(Head(match.start(), match.end(), "any"))
    return sorted(found)


def _parts(text: str, places: list[Mention], target: Target) -> list[tuple[int, int]]:
    """Cut a sentence where, after one lesion, another of a different kind or in a different organ is introduced."""
    cuts = [0]
    heads = _heads(text, target)
    for previous, head in pairwise(heads):
        between = [
            match for match in _SEPARATOR.finditer(text, previous.end, head.start) if match.start() >= previous.end
        ]
        if between and _is_about(text, previous, places, target) is not _is_about(text, head, places, target):
            cuts.append(between[-1].start())
    return list(zip(cuts, [*cuts[1:], len(text)], strict=True))


def _is_about(text: str, head: Head, places: list[Mention], target: Target) -> bool:
    """Whether a noun and the places right beside it fit the lesion asked about."""
    near = [
        place
        for place in places
        if (0 <= place.start - head.end < 40 and _LOCATIVE.search(text[head.end : place.start]))
        or (0 <= head.start - place.end < 20 and "," not in text[place.end : head.start])
    ]
    fits = not near or any(target.lies_in(place) for place in near)
    return fits and head.kind in (target.kind, "any")


def _topic(
    text: str, heads: list[Head], places: list[Mention], target: Target, topic: Topic, section: Topic
) -> tuple[Topic, Topic]:
    """The topic of a clause, and of the section that it is in, from what was spoken of before."""
    places = [place for place in places if not _SIGN_OF_A_LESION.match(text[place.end :])]
    if heading := re.match(r"\W*([\w /,&-]{2,40}):", text):
        named = [place for place in places if place.end <= heading.end()]
        if named:
            section = topic = Topic.LESION if any(map(target.lies_in, named)) else Topic.OTHER
            places = [place for place in places if place not in named]
    if heads:
        return _topic_of_lesion(text, heads, places, target, topic), section
    first = next((place for place in places if _OPENING.match(text[: place.start])), None)
    says_more = first and re.search(r"\w", text[first.end :])  # "Left kidney." alone says where the lesion is
    is_subject = says_more and not re.match(r"\W*(?:in|within|at|on)\b|[^:]*:", text[: first.end + 1])
    if is_subject or re.match(r"\W*(?:the )?(?:rest|remainder|remaining)\b", text):
        return Topic.ORGAN, section
    return topic, section


def _topic_of_lesion(text: str, heads: list[Head], places: list[Mention], target: Target, topic: Topic) -> Topic:
    if all(is_denied(text, head) for head in heads):
        is_here = not places or any(map(target.lies_in, places))
        is_asked_for = any(
            head.kind in (target.kind, "any") and not _ANOTHER.search(text[: head.start]) for head in heads
        )
        return Topic.DENIED if is_here and is_asked_for else Topic.ORGAN
    if not any(head.kind in (target.kind, "any") for head in heads):
        return Topic.ORGAN if all(head.kind in _SIGNS for head in heads) else Topic.OTHER
    located = [place for place in places if is_locative(text, place)]
    if located:
        return Topic.LESION if any(map(target.lies_in, located)) else Topic.OTHER
    if any(head.kind == target.kind and head.kind != "tumor" for head in heads):
        return Topic.LESION
    is_new = re.match(r"\W*(?:an?|another|multiple|several|two|three|there (?:is|are)) ", text)
    return Topic.LESION if topic is not Topic.OTHER or (is_new and not places) else Topic.OTHER


def is_denied(text: str, head: Head) -> bool:
    """Whether a clause says that a lesion is not there."""
    return assertion(text, head.start, head.end) is Assertion.NEGATED


def is_locative(text: str, place: Mention) -> bool:
    """Whether a place is where something lies, and not what it touches or what else is wrong."""
    before, after = text[: place.start], text[place.end :]
    if _NOT_LOCATIVE.search(before) or _COMPARED_WITH.search(before) or _NOT_A_PLACE_AFTER.match(after):
        return False
    if text[place.start :].startswith(("in ", "within ", "at ", "of ")):
        return True
    is_premodifier = re.match(r"(?: [\w-]+){0,2} " + _NOUN, after)
    is_apposition = re.search(_NOUN + r",\s*(?:the )?$", before) and re.match(r"\s*(?:[,;.]|$)", after)
    return bool(_LOCATIVE.search(before) or is_premodifier or is_apposition or _OPENING.match(before))


def locations(found: list[Clause], target: Target) -> list[tuple[Clause, Mention]]:
    """Where the lesion is said to lie: with the lesion's noun if anywhere, else in what is said about it.

    Only places in the lesion's own organs; the whole organ only if no part of it is named. [] if nothing is said.
    """
    spoken = [clause for clause in found if clause.topic is Topic.LESION]
    for group in ([clause for clause in spoken if clause.heads], spoken):
        places = [
            (clause, place._replace(values=tuple(filter(target.owns, place.values))))
            for clause in group
            for place in clause.places
            if target.lies_in(place)
            and is_locative(clause.text, place)
            and assertion(clause.text, place.start, place.end) is Assertion.AFFIRMED
            and not any(is_denied(clause.text, head) for head in _nearest_before(clause, place))
        ]
        if places:
            parts = [(clause, place) for clause, place in places if not _is_whole(place)]
            return parts or places
    return []


def _nearest_before(clause: Clause, place: Mention) -> list[Head]:
    return [head for head in clause.heads if head.end <= place.start][-1:]


def _is_whole(place: Mention) -> bool:
    overlaps = vocabulary().aspects["location"].overlaps
    return all(value in overlaps for value in place.values)

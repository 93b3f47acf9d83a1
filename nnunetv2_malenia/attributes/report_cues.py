"""The words by which English reports deny, doubt or speak of an earlier time.

A cue is one such phrase, with what it says of what it refers to, and whether that follows it ("no calcification") or
comes before it ("calcification: none"). Of two that begin at the same word, the one listed first counts, so that "not
only" and "cannot be excluded" are no denials. To add a wording, add it to its list; how far a cue reaches is the
business of `report_grammar`.
"""

import re
from enum import Enum
from functools import lru_cache
from typing import NamedTuple


class Assertion(Enum):
    """What a sentence says of something that it mentions."""

    AFFIRMED = "affirmed"
    NEGATED = "negated"
    UNCERTAIN = "uncertain"
    PAST = "past"


class Cue(NamedTuple):
    """A cue in a sentence, and whether it precedes what it refers to. One that says AFFIRMED refers to nothing."""

    start: int
    end: int
    says: Assertion
    precedes: bool


_ENDS = r"(?=\s*(?:$|[.,;)\]]))"  # "calcification: no", but not "no calcification"
_QUALIFIES = r"(?= (?!(?:in|on|at|from|within|after|since|and|or|but|with|to|now|by|as|is|are|compared)\b)\w)"
_SEEN = (
    r"(?:seen|identified|observed|present|detect(?:ed|able)|noted|evident|visuali[sz]ed|found|demonstra(?:ted|ble)|"
    r"appreciated|apparent|visible|shown|depicted|discernible|recogni[sz](?:ed|able)|encountered|recorded|there)"
)
_NOT_SEEN = (
    rf"(?:\b(?:not|never|no longer|no more|cannot|could not)|n't)(?: (?:be|been|any|longer|more|yet|\w+ly))* {_SEEN}\b"
    r"(?: (?:any ?more|any longer))?"
)
_GONE = (
    r"\b(?:(?:(?:has|have|is|are|was|were) )?(?:(?:since|now|meanwhile|\w+ly) )*(?:resolved|disappeared|vanished|"
    r"resorbed|cleared|gone)|(?:has|have) (?:\w+ )?been (?:removed|resected|excised))\b"
)
_SIGN = (
    r"(?:evidence|signs?|indications?|suggestions?|suspicion|findings?|traces?|presence|features|demonstration) "
    r"(?:of|for|to suggest|suggesting|suggestive of)"
)
_GRADE = r"(?: (?:any|an?|significant|interval|obvious|relevant|substantial|major|further|definite|appreciable|clear))*"
_EARLIER = r"(?:prior|previous|earlier|preceding|last|old|older|initial|baseline|comparison)"
_EARLIER_SCAN = (
    rf"(?:on|in|at) (?:the |an? |any |her |his )?(?:\w+ )?{_EARLIER} (?:\w+ )?"
    r"(?:ct|mri?|scans?|exam\w*|stud(?:y|ies)|imaging|images?|reports?|investigations?)"
)
_EARLIER_TIME = (
    rf"(?:{_EARLIER_SCAN}|previously|formerly|earlier|initially|originally|in the past|at baseline|"
    r"before(?! (?:and|or|the|iv|intravenous|contrast|administration|injection)))\b"
)
_REFERRED_TO = (
    r"(?:seen|noted|described|known|reported|identified|demonstrated|visuali[sz]ed|mentioned|documented|treated|"
    r"biopsied|measured|observed|detected|diagnosed|found)"
)
_STILL = r"\b(?:unchanged|stable|again|similar\w*|persist\w*|remains?|still|\w*creas\w+|larger|smaller|grown)\b"

# What a cue says, whether it precedes what it refers to, and its patterns.
_LISTED: list[tuple[Assertion, bool, list[str]]] = [
    (
        Assertion.AFFIRMED,
        True,
        [
            r"\bnot (?:only|just|merely|simply|solely|to mention)\b",
            r"\b(?:no|not) (?:longer|more|less|larger|greater|smaller) than\b",
            r"\bno\.? ?\d+\b",
            r"\b(?:no|without) (?:a )?(?:doubt|question)\b",
            rf"\b(?:no|without){_GRADE} (?:changes?|increase|decrease|difference|progression|growth)\b",
            r"\bnot (?:\w+ly )?(?:changed|grown|progressed)\b",
            r"\b(?:not|never) (?:\w+ly )?(?:without|free (?:of|from)|devoid of|lacking|absent|negative for)\b",
            rf"\bpreviously {_REFERRED_TO}\b|\b(?:as|already|first) {_REFERRED_TO} {_EARLIER_TIME}",
            rf"(?:{_NOT_SEEN}|\babsent) {_EARLIER_TIME}",  # new, therefore there
            rf"\b(?:previously|formerly) (?:not {_SEEN}|absent|none)\b|\b(?:not|never) previously {_REFERRED_TO}\b",
            r"\b(?:(?:has|have|is|are) )?(?:partial(?:ly)?|incomplete(?:ly)?) (?:resol|disappear|clear)\w+",
        ],
    ),
    (
        Assertion.UNCERTAIN,
        False,
        [
            r"(?:\b(?:cannot|could not|not)|can't)(?: be)?(?: \w+ly)? (?:excluded|ruled out|assessed|evaluated|"
            r"determined|confirmed)\b",
            r"\bnot (?:well|fully|adequately|optimally|reliably) (?:seen|visuali[sz]ed|depicted|imaged)\b",
            rf"\bnot (?:assessable|evaluable|applicable|available|known)\b|\bunknown{_ENDS}",
            r"\b(?:yes ?/ ?no|no ?/ ?yes|n/a)\b",
            r"\b(?:is|are) (?:possible|suspected|questionable|uncertain|equivocal|doubtful|likely)\b",
            r"\b(?:(?:has|have) )?(?:almost|near(?:ly)?)(?: \w+ly)? (?:resolved|disappeared|cleared|gone)\b",
            r"\?\W*$",
        ],
    ),
    (
        Assertion.NEGATED,
        False,
        [
            _NOT_SEEN,
            rf"{_GONE}(?!{_QUALIFIES})",
            r"\b(?:is|are|was|were|been|be) (?:excluded|ruled out|denied|missing)\b",
            rf"\b(?:excluded|ruled out|denied|missing|no|not|no longer|no more)\b{_ENDS}",
            rf"(?:\b(?:absent|unlikely|improbable|negative|neg|nil)|-ve)\b(?!{_QUALIFIES}|\.? for)",
            rf"\bnone\b(?:(?: is| are)? {_SEEN}\b|(?! (?:of|with|is|are|ha(?:s|ve)|shows?|contains?)\b))",
            r"\bnowhere\b|\bnot a feature\b",
            r"\bno (?:evidence|signs?)\b(?! (?:of|for|to|sugg\w+)\b)",
            r"(?<![\d.,])\b0\b(?=\s*(?:$|[.,;)\]](?!\d)))",
            rf"(?<=[\s:=(\[])-{_ENDS}",
        ],
    ),
    (
        Assertion.PAST,
        True,
        [
            rf"^\W*(?:{_EARLIER_TIME}|in (?:\w+ )?(?:19|20)\d\d)(?! {_REFERRED_TO})\b",
            rf"\b(?:formerly|previously|initially|originally|once){_QUALIFIES}",
            r"\bused to\b|\b(?:was|were|had been)\b(?=[^.;]*\bnow\b)",
            r"\b(?:changed|turned|converted|evolved|transformed)(?: \w+)? from\b",
        ],
    ),
    (Assertion.PAST, False, [rf"(?<!than )(?<!as )(?<!from )(?<!since )\b{_EARLIER_TIME}(?![^.;]*{_STILL})"]),
    (
        Assertion.UNCERTAIN,
        True,
        [
            r"\b(?:possibl[ey]|probabl[ey]|likely|perhaps|suspicio(?:us|n) (?:for|of)|suspect(?:ed|s)?)\b",
            r"\b(?:presum(?:ed|ably)|suggest(?:s|ed|ing|ive)?(?: of)?|may(?! \d)|might|could|not necessarily)\b",
            r"\b(?:questionabl[ey]|equivocal(?:ly)?|indeterminate|uncertain|doubtful|versus|vs|differential|whether|"
            r"concern(?:ing)? for)\b",
            r"\b(?:(?:cannot|can't|to) (?:\w+ly )?(?:exclude|rule out)|(?:difficult|hard) to \w+)\b",
            r"\b(?:rather than|instead of|as opposed to|unlike)\b",  # denied, and its opposite is not stated either
            r"\u2610|\[ ?\]",  # a box that is not ticked
        ],
    ),
    (
        Assertion.NEGATED,
        True,
        [
            rf"\b(?:no|without|not|w/o)(?: longer)?(?: any)?(?: (?:\w+ ){{0,2}}{_SIGN})?\b",
            r"\b(?:neither|none of)(?: (?:the|these))?(?: \w+){1,2} (?:shows?|contains?|demonstrates?|ha(?:s|ve))\b",
            r"\b(?:never|neither|nor|none|zero|cannot)\b|n't\b",
            r"\bnothing (?:to suggest|suggesting|suggestive of)\b",
            r"\b(?:absence of|lack(?:s|ing)?(?: of)?|free (?:of|from)|(?:de)?void of|fail(?:s|ed|ure)? to)\b",
            r"(?:\b(?:negative|neg\.?)|-ve) for\b",
            r"\b(?:exclud(?:es|ed|ing)|exclusion of|rul(?:es|ed|ing) out)\b",
            r"\b(?:resolution|disappearance|resorption|clearance) of\b",
            r"\b(?:status post|s/p|after|following) (?:\w+ ){0,2}(?:resection|removal|excision) of\b",
            rf"\b(?:absent|unlikely|nil|resolved){_QUALIFIES}",
            r"(?:^|[,;])\s*\(-\)(?=\s*\w)",
        ],
    ),
]
_CUE = re.compile("|".join(f"(?P<_{n}>{'|'.join(patterns)})" for n, (_, _, patterns) in enumerate(_LISTED)))
_DENIAL = re.compile(r"\b(?:no|not|non|never|neither|nor|without|lack(?:s|ing)?|absen(?:t|ce)|cannot)\b|n't\b")


@lru_cache(maxsize=64)
def cues(sentence: str) -> tuple[Cue, ...]:
    """The cues of a normalised sentence, in order; none overlap."""
    found = []
    for match in _CUE.finditer(sentence):
        says, precedes, _ = _LISTED[int(match.lastgroup[1:])]
        found.append(Cue(match.start(), match.end(), says, precedes))
    return tuple(found)


def denies(phrase: str) -> bool:
    """Whether a normalised phrase holds a denial of its own."""
    return bool(_DENIAL.search(phrase))

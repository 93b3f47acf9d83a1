"""The lexicon of reports and the vocabulary, compiled to patterns."""

import re
from functools import cache
from typing import NamedTuple

from nnunetv2_malenia.attributes.report_cues import denies
from nnunetv2_malenia.attributes.report_feature_lexicon import FEATURES
from nnunetv2_malenia.attributes.report_lexicon import DENYING, IMPLIED, NOT_IN_TEXT, STATED, Value
from nnunetv2_malenia.attributes.vocabulary import vocabulary

# Up to five words that may stand in between; none that begins another statement.
_WORDS = r"(?:(?!(?:but|with|without|while|which)\b)[\w'/]+[\s-]+){0,5}?"


class Rule(NamedTuple):
    """A phrase, the values it states, whether it only implies them, and whether a "no" in it is part of the value."""

    pattern: re.Pattern[str]
    values: tuple[Value, ...]
    implied: bool = False
    denies: bool = False


def phrase_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a pattern in the notation of `report_lexicon`; it matches whole words."""
    spaced = pattern.replace("-?", "-").replace("-", r"[\s-]?")
    spaced = spaced.replace("~", rf"[\s-]+{_WORDS}").replace(" ", r"[\s-]+")
    return re.compile(rf"(?<!\w)(?:{spaced})(?!\w)")


def literal_pattern(phrase: str) -> str:
    """A vocabulary phrase as a pattern: British and American spelling, singular and plural."""
    pattern = re.escape(phrase).replace(r"\ ", " ").replace(r"\-", "-")
    for american, both in (
        ("tumor", "tumou?r"),
        ("hemorrhag", "ha?emorrhag"),
        ("dilatation", "dilat(?:at)?ion"),
        ("esophag", "o?esophag"),
        ("fiber", "fib(?:er|re)"),
        ("center", "cent(?:er|re)"),
    ):
        pattern = pattern.replace(american, both)
    return f"{pattern}s?" if pattern[-1:].isalpha() and not pattern.endswith("s") else pattern


@cache
def rules() -> tuple[Rule, ...]:
    """Every rule but those of location: the lists above, then the vocabulary's own values and synonyms."""
    written = [
        Rule(phrase_pattern("|".join(phrases)), tuple(values), entries is IMPLIED, entries is DENYING)
        for entries in (STATED, FEATURES, DENYING, IMPLIED)
        for values, phrases in entries
    ]
    listed = [
        Rule(phrase_pattern(literal_pattern(phrase)), ((aspect, value),), denies=denies(phrase))
        for aspect, content in vocabulary().aspects.items()
        if aspect != "location"
        for value, synonyms in content.values.items()
        for phrase in (value, *synonyms)
        if phrase not in NOT_IN_TEXT
    ]
    return (*written, *listed)

"""Scores of cases to figures per lesion type, and for seen and unseen types, which are never averaged together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_malenia.evaluation.metrics import presence_auc
from nnunetv2_malenia.evaluation.scoring import TypeScore

SILENT_SHARE = 0.05


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation (n - 1) of n values; None where there are too few."""

    mean: float | None
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Statistic:
        """Of the values that are known."""
        known = np.array([value for value in values if value is not None], dtype=np.float64)
        return cls(
            mean=float(known.mean()) if known.size else None,
            std=float(known.std(ddof=1)) if known.size > 1 else None,
            n=int(known.size),
        )


@dataclass(frozen=True)
class TypeSummary:
    """One lesion type over the cases in which it was annotated.

    dsc, nsd, volume_present_ml: over the cases that hold it; volume_absent_ml: over those that do not, of what was
    predicted. sensitivity: share of all lesions that were found. false_positives_per_case: over present and absent
    cases. silent_when_absent: share of the cases without it in which at most SILENT_SHARE of the mean volume_present_ml
    was predicted; None if nothing was predicted where it is present. presence_auc: of the presence score, if every case
    has one and both kinds of case are there.
    """

    name: str
    seen: bool
    oracle: bool
    cases_present: int
    cases_absent: int
    dsc: Statistic
    nsd: Statistic
    lesions: int
    lesions_found: int
    sensitivity: float | None
    false_positives_per_case: float
    volume_present_ml: Statistic
    volume_absent_ml: Statistic
    silent_when_absent: float | None
    presence_auc: float | None


@dataclass(frozen=True)
class GroupSummary:
    """Seen or unseen types: mean over types of the types' own figures, each type counting once."""

    seen: bool
    dsc: Statistic
    nsd: Statistic
    sensitivity: Statistic
    false_positives_per_case: Statistic
    volume_present_ml: Statistic
    volume_absent_ml: Statistic
    silent_when_absent: Statistic
    presence_auc: Statistic


@dataclass(frozen=True)
class Summary:
    """types: seen ones first. groups: seen and unseen, those of them that have types."""

    types: tuple[TypeSummary, ...]
    groups: tuple[GroupSummary, ...]


def summarise(scores: Sequence[TypeScore]) -> Summary:
    """Figures per type and per group, of scores that are all with or all without an oracle.

    Types keep the order in which they come, the seen ones first.
    """
    names = dict.fromkeys(score.name for score in scores)
    types = [_summarise_type([score for score in scores if score.name == name]) for name in names]
    types.sort(key=lambda each: not each.seen)
    groups = ([each for each in types if each.seen is seen] for seen in (True, False))
    return Summary(tuple(types), tuple(_summarise_group(group) for group in groups if group))


def _summarise_type(scores: Sequence[TypeScore]) -> TypeSummary:
    present = [score for score in scores if score.present]
    absent = [score for score in scores if not score.present]
    lesions, found = sum(score.lesions for score in scores), sum(score.found for score in scores)
    presence_scores = [score.presence_score for score in scores if score.presence_score is not None]
    can_rank = bool(present and absent and len(presence_scores) == len(scores))
    return TypeSummary(
        name=scores[0].name,
        seen=scores[0].seen,
        oracle=scores[0].oracle,
        cases_present=len(present),
        cases_absent=len(absent),
        dsc=Statistic.of(score.dsc for score in present),
        nsd=Statistic.of(score.nsd for score in present),
        lesions=lesions,
        lesions_found=found,
        sensitivity=found / lesions if lesions else None,
        false_positives_per_case=sum(score.false_positives for score in scores) / len(scores),
        volume_present_ml=Statistic.of(score.volume_ml for score in present),
        volume_absent_ml=Statistic.of(score.volume_ml for score in absent),
        silent_when_absent=_silent_share(present, absent),
        presence_auc=presence_auc(presence_scores, [score.present for score in scores]) if can_rank else None,
    )


def _silent_share(present: Sequence[TypeScore], absent: Sequence[TypeScore]) -> float | None:
    returned = Statistic.of(score.volume_ml for score in present).mean
    if not returned or not absent:
        return None
    return sum(score.volume_ml <= SILENT_SHARE * returned for score in absent) / len(absent)


def _summarise_group(types: Sequence[TypeSummary]) -> GroupSummary:
    return GroupSummary(
        seen=types[0].seen,
        dsc=Statistic.of(each.dsc.mean for each in types),
        nsd=Statistic.of(each.nsd.mean for each in types),
        sensitivity=Statistic.of(each.sensitivity for each in types),
        false_positives_per_case=Statistic.of(each.false_positives_per_case for each in types),
        volume_present_ml=Statistic.of(each.volume_present_ml.mean for each in types),
        volume_absent_ml=Statistic.of(each.volume_absent_ml.mean for each in types),
        silent_when_absent=Statistic.of(each.silent_when_absent for each in types),
        presence_auc=Statistic.of(each.presence_auc for each in types),
    )

"""Labels and attributes joined: which queries to ask of a patch, and which labels answer them.

Whether a lesion fits a query has three answers, since attributes may be unspecified and labels unannotated. Voxels with
the third answer, UNKNOWN, take no part in any loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_malenia.attributes.plans import MaleniaPlans, overlap
from nnunetv2_malenia.attributes.schema import ASPECTS, AspectValues, AttributeTable, AttributeTableError

NO, YES, UNKNOWN = 0, 1, 2
FEATURES = ASPECTS.index("specific_features")  # a lesion has all that are listed; other lists are alternatives
KINDS = ("full", "absent", "subset", "changed")


@dataclass(frozen=True)
class AttributeSpace:
    """Lesion types, labels and phrases as arrays.

    V phrases: those that a training lesion has. type_has_label (T, L), channel_has_label (K, L) bool: label values that
    make up each lesion type and each output channel of the network; class_values (T, V) bool: phrases of each type;
    phrase_aspect (V,) int64; overlap (V, V) bool: pairs that can be true of one lesion, as "kidney" and "left kidney"
    can; case_values: case id -> (T, V) bool where it differs from the class; case_annotated: case id -> (R, L) bool,
    the label values of each label that is annotated in it, background among them.
    """

    type_has_label: np.ndarray
    channel_has_label: np.ndarray
    class_values: np.ndarray
    phrase_aspect: np.ndarray
    overlap: np.ndarray
    case_values: dict[str, np.ndarray]
    case_annotated: dict[str, np.ndarray]

    @classmethod
    def build(cls, plans: MaleniaPlans, table: AttributeTable, labels: dict[str, tuple[int, ...]]) -> AttributeSpace:
        """table: its lesions and cases go by the data set's label names; labels: name -> label values, background and
        ignore left out. Raises ValueError for a case that names a label which the data set does not have."""
        phrases = plans.trained_phrases()
        index = {phrase: i for i, phrase in enumerate(phrases)}
        num_labels = 1 + max(value for values in labels.values() for value in values)

        def row(values: AspectValues) -> np.ndarray:
            unknown = [phrase for phrase in values.phrases() if phrase not in index]
            if unknown:
                raise AttributeTableError(
                    f"attributes.json states {unknown[0][0]} {unknown[0][1]!r}, which this model did not have when its "
                    "training began; restore the table, or train anew"
                )
            has = np.zeros(len(index), dtype=bool)
            has[[index[phrase] for phrase in values.phrases()]] = True
            return has

        def made_of(sets: Iterable[Sequence[int]]) -> np.ndarray:
            return np.array([np.isin(np.arange(num_labels), values) for values in sets])

        case_values, case_annotated = {}, {}
        for case_id, case in table.cases.items():
            if case.lesions:
                case_values[case_id] = np.stack([row(table.attributes_of(name, case_id)) for name in plans.lesions])
            if case.annotated is not None:
                unknown = set(case.annotated) - set(labels)
                if unknown:
                    raise ValueError(
                        f"attributes.json: cases/{case_id}/annotated names {sorted(unknown)}, which are not labels of "
                        f"this data set; its labels are {sorted(labels)}"
                    )
                case_annotated[case_id] = made_of([(0,), *(labels[name] for name in case.annotated)])
        return cls(
            type_has_label=made_of(labels[name] for name in plans.lesions),
            channel_has_label=made_of(labels.values()) if plans.has_regions else np.eye(num_labels, dtype=bool),
            class_values=np.stack([row(lesion) for lesion in plans.lesions.values()]),
            phrase_aspect=np.array([ASPECTS.index(aspect) for aspect, _ in phrases]),
            overlap=np.array([[overlap(a, b) for b in phrases] for a in phrases]),
            case_values=case_values,
            case_annotated=case_annotated,
        )

    def holds(self, has: np.ndarray) -> np.ndarray:
        """Phrases that cannot be denied of a lesion with phrases `has`, (..., V) bool: its own, and what overlaps."""
        return has @ self.overlap

    def rivals(self, asked: np.ndarray) -> np.ndarray:
        """Phrases that speak against queries for phrases `asked`, (Q, V) bool: as `attributes.plans.is_rival`."""
        same_aspect = self.phrase_aspect[:, None] == self.phrase_aspect
        return (asked @ same_aspect) & ~self.holds(asked)

    def values_of(self, case_id: str) -> np.ndarray:
        """(T, V) bool: the phrases that hold for each lesion type in this case."""
        return self.case_values.get(case_id, self.class_values)

    def annotated_types(self, case_id: str) -> np.ndarray:
        """(T,) bool: the lesion types annotated in this case; all of them unless attributes.json says otherwise."""
        return self._annotated(case_id, self.type_has_label)

    def annotated_channels(self, case_id: str) -> np.ndarray:
        """(K,) bool: the output channels annotated in this case."""
        return self._annotated(case_id, self.channel_has_label)

    def _annotated(self, case_id: str, has_label: np.ndarray) -> np.ndarray:
        """(N, L) bool -> (N,) bool: a set of label values is annotated if it is put together of labels that are.

        A region annotates itself, and not the narrower labels inside it.
        """
        if case_id not in self.case_annotated:
            return np.ones(len(has_label), dtype=bool)
        drawn = self.case_annotated[case_id]
        is_inside = ~(drawn & ~has_label[:, None]).any(2)  # (N, R)
        return ~(has_label & ~(is_inside @ drawn)).any(1)


def fit(asked: np.ndarray, has: np.ndarray, space: AttributeSpace) -> np.ndarray:
    """Does a lesion with phrases `has` fit a query for phrases `asked`? (..., V) bool both, broadcast -> (...) int64.

    Aspect by aspect: YES if the query names all that the lesion may have, or a specific feature of it; NO if both state
    the aspect and no phrase of the one can be true together with one of the other; otherwise UNKNOWN, as when the
    lesion leaves it unspecified, or one of the "kidney", or of the "left kidney" or the "right kidney", is asked for in
    the "left kidney". One NO decides, else one UNKNOWN.
    """
    of_aspect = np.eye(len(ASPECTS), dtype=np.int64)[space.phrase_aspect]  # (V, A)
    named, own = (asked & has) @ of_aspect, has @ of_aspect  # how many phrases, (..., A)
    is_sure = (named > 0) & ((named == own) | (np.arange(len(ASPECTS)) == FEATURES))
    is_open = (asked & space.holds(has)) @ of_aspect + (own == 0) > 0
    in_question = (asked @ of_aspect > 0) & ~is_sure
    is_refuted, is_unsure = (in_question & ~is_open).any(-1), (in_question & is_open).any(-1)
    return np.where(is_refuted, NO, np.where(is_unsure, UNKNOWN, YES))[()]


def compose_queries(
    values: np.ndarray,
    present: np.ndarray,
    annotated: np.ndarray,
    space: AttributeSpace,
    num_queries: int,
    rng: np.random.Generator,
    kinds: Sequence[str] = KINDS,
) -> np.ndarray:
    """Make queries for one patch -> is_asked (Q, V) bool.

    values (T, V) bool: the case's attributes; present (T,) bool: lesion types in the patch; annotated (T,) bool: types
    whose lesions are labelled in this case; where there is one, no other is asked for as absent. The first query states
    nothing, which asks for any lesion. Then, in turn, by `kinds`: the full description of a present type, that of an
    absent one, a random subset of a present type's aspects (attribute dropout), and a present type with one aspect
    changed to a value that it does not have. Without a lesion every query is about an absent type. A type without
    class-level attributes is never asked for as absent, and one without any in this case not at all; where no type is
    left, queries ask for any lesion.
    """
    is_described = space.class_values.any(1)  # of a type described per case only, absent lesions look like nothing
    here, elsewhere = np.flatnonzero(present & values.any(1)), np.flatnonzero(~present & annotated & is_described)
    if len(elsewhere) == 0:
        elsewhere = np.flatnonzero(~present & is_described)
    if len(here) == 0:
        here = elsewhere
    if len(elsewhere) == 0:
        elsewhere = here
    here, elsewhere = rng.permutation(here), rng.permutation(elsewhere)
    queries = [np.zeros(len(space.phrase_aspect), dtype=bool)]
    for i in range(num_queries - 1):
        kind, turn = kinds[i % len(kinds)], i // len(kinds)
        pool = elsewhere if kind == "absent" else here
        if len(pool) == 0:
            queries.append(np.zeros_like(queries[0]))
            continue
        chosen = pool[turn % len(pool)]
        has = values[chosen] if present[chosen] else space.class_values[chosen]
        asked = has.copy()
        if not present[chosen]:
            asked = one_value_per_aspect(asked, space.phrase_aspect, rng)
        if kind == "subset":
            asked = asked & (rng.random(len(ASPECTS)) < 0.5)[space.phrase_aspect]
        if kind == "changed":
            asked = change_one_aspect(asked, has, space, rng)
        queries.append(asked)
    return np.stack(queries)


def one_value_per_aspect(asked: np.ndarray, phrase_aspect: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose one among an aspect's alternatives -> (V,) bool."""
    kept = np.zeros_like(asked)
    for aspect in np.unique(phrase_aspect[asked]):
        kept[rng.choice(np.flatnonzero(asked & (phrase_aspect == aspect)))] = True
    return kept


def change_one_aspect(
    asked: np.ndarray, has: np.ndarray, space: AttributeSpace, rng: np.random.Generator
) -> np.ndarray:
    """Swap one stated aspect for a value that the lesion does not have; unchanged if there is none."""
    stated = rng.permutation(np.unique(space.phrase_aspect[asked]))
    for aspect in stated:
        here = space.phrase_aspect == aspect
        others = np.flatnonzero(here & ~space.holds(has))
        if len(others):
            changed = asked & ~here
            changed[rng.choice(others)] = True
            return changed
    return asked


def query_answers(asked: np.ndarray, values: np.ndarray, annotated: np.ndarray, space: AttributeSpace) -> np.ndarray:
    """For each query (row of asked (Q, V)) and each label value: NO, YES or UNKNOWN -> (Q, L) int64.

    A lesion's voxel answers for its own type. It may also be of an unannotated type inside that one, and any other
    voxel may hide a lesion of an unannotated type: where such a type might fit, the answer is UNKNOWN, otherwise NO.
    """
    fits = fit(asked[:, None], values, space)  # (Q, T)
    may_hide = (fits[:, ~annotated] != NO).any(1, keepdims=True)
    answers = np.where(may_hide, UNKNOWN, NO).repeat(space.type_has_label.shape[1], axis=1)
    has_label, width = space.type_has_label, space.type_has_label.sum(1)
    for label in np.flatnonzero(has_label[annotated].any(0)):
        shown = has_label[:, label]
        narrowest = has_label[annotated & shown][width[annotated & shown].argmin()]
        may_be = ~annotated & ~(has_label & ~narrowest).any(1)
        of_label = fits[:, shown & ~may_be]
        is_open = (of_label == UNKNOWN).any(1) | (fits[:, may_be] != NO).any(1)
        answers[:, label] = np.where((of_label == YES).any(1), YES, np.where(is_open, UNKNOWN, NO))
    return answers

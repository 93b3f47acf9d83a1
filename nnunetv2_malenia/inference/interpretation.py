"""From similarities under a lesion to words: its aspects, the diseases that they fit, and what refutes a query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunetv2_malenia.attributes.plans import MaleniaPlans, Phrase, is_rival, overlap
from nnunetv2_malenia.attributes.schema import ASPECTS, AspectValues, LesionQuery
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table
from nnunetv2_malenia.inference.findings import AspectReading, CheckedAttribute, DiseaseMatch
from nnunetv2_malenia.inference.questions import is_seen
from nnunetv2_malenia.network.aspect_heads import MatchGate

CONTRADICTED = 0.1  # a value is discarded below this share against its strongest rival
NUM_DISEASES = 5


@dataclass(frozen=True)
class Interpreter:
    """Reads mean similarities (V,): cosines of `phrases`, averaged under a lesion.

    candidates: Q queries, then the diseases; is_asked, is_rival (Q + D, V) bool: the phrases for and against each.
    gates: the net's match of voxels, of each fold; their log-probabilities are averaged.
    """

    phrases: tuple[Phrase, ...]
    trained: frozenset[Phrase]
    candidates: tuple[LesionQuery, ...]
    num_queries: int
    seen: tuple[bool, ...]
    is_asked: Tensor
    is_rival: Tensor
    gates: tuple[MatchGate, ...]

    def aspects(self, similarity: np.ndarray) -> tuple[AspectReading, ...]:
        """The best trained value v of each aspect: the highest cosine c. Its score is a softmax over v and R_v, the
        trained values that cannot be true together with it: `e^(c_v/T) / (e^(c_v/T) + sum over u in R_v of e^(c_u/T))`.
        The runner-up is the best of R_v, scored in the same softmax; "kidney" is none to "left kidney". An aspect
        without a trained value is left out; one whose values exclude nothing has no runner-up and the score 1.
        """
        readings = []
        for aspect in ASPECTS:
            values = [i for i, phrase in enumerate(self.phrases) if phrase in self.trained and phrase[0] == aspect]
            if not values:
                continue
            best = max(values, key=lambda i: similarity[i])
            score, rival, rival_score = self._against_rivals(similarity, self.phrases[best], self.trained)
            readings.append(
                AspectReading(
                    aspect=aspect,
                    value=self.phrases[best][1],
                    score=score,
                    runner_up=rival,
                    runner_up_score=rival_score,
                )
            )
        return tuple(readings)

    def diseases(self, similarity: np.ndarray) -> tuple[DiseaseMatch, ...]:
        """The best NUM_DISEASES of d: `P(d | x) ~ product over aspects a of mean over v in V_da of p_a(v)`, naive Bayes
        with all diseases as likely and each value that d allows as frequent. p_a: softmax of cosines / T over the
        values of a that are trained or stated by d; V_da: those among them that can be true together with one that d
        states, or all of them where d states none. So of two that fit, the disease that allows less comes first; the
        match g, which asks only whether a lesion contradicts a description, cannot tell them apart.
        """
        share = self._log_likelihood(similarity, slice(self.num_queries, None)).softmax(0)
        best = share.argsort(descending=True, stable=True)[:NUM_DISEASES].tolist()
        return tuple(
            DiseaseMatch(
                name=self.candidates[self.num_queries + i].name,
                score=float(share[i]),
                seen_in_training=self.seen[self.num_queries + i],
            )
            for i in best
        )

    def fit(self, query: int, similarity: np.ndarray) -> float:
        """How well a query describes a lesion, beside other queries: the logarithm of the product in `diseases`."""
        return float(self._log_likelihood(similarity, slice(query, query + 1)))

    def _log_likelihood(self, similarity: np.ndarray, which: slice) -> Tensor:
        """float64, of each of these candidates; see `diseases`."""
        is_asked, is_rival = self.is_asked[which], self.is_rival[which]
        is_known = is_asked | torch.tensor([phrase in self.trained for phrase in self.phrases])
        logits = torch.from_numpy(np.asarray(similarity, np.float64)) / self.gates[0].temperature
        total = torch.zeros(len(is_asked), dtype=torch.float64)
        for aspect in ASPECTS:
            known = is_known & torch.tensor([phrase[0] == aspect for phrase in self.phrases])  # (D, V)
            allowed = known & ~is_rival  # an aspect that is not stated has no rivals
            share = _log_sum(logits, allowed) - _log_sum(logits, known)
            total += torch.where(known.any(1), share - allowed.sum(1).log(), 0.0)
        return total

    def match(self, query: int, similarity: np.ndarray) -> float:
        """log g of a query, <= 0."""
        return float(self._log_gate(similarity)[query])

    def check(self, query: int, similarity: np.ndarray) -> tuple[CheckedAttribute, ...]:
        """Each stated value v, scored as in `aspects` against R_v: trained values and the query's other alternatives.

        Discarded: `e^(c_v/T) / (e^(c_v/T) + max over u in R_v of e^(c_u/T)) < CONTRADICTED`. Selected: the best of an
        aspect's alternatives, itself not discarded, where another one is. Else kept.
        """
        checked = []
        for aspect, values in self.candidates[query].attributes.stated.items():
            known = self.trained | {(aspect, value) for value in values}
            scored = {value: self._against_rivals(similarity, (aspect, value), known) for value in values}
            discarded = {
                value
                for value, (score, _, rival_score) in scored.items()
                if rival_score is not None and score < CONTRADICTED * (score + rival_score)
            }
            fitting = max(values, key=lambda value: similarity[self.phrases.index((aspect, value))])
            for value in values:
                verdict = "discarded" if value in discarded else "kept"
                if discarded and value == fitting and value not in discarded:
                    verdict = "selected"
                checked.append(CheckedAttribute(aspect=aspect, value=value, score=scored[value][0], verdict=verdict))
        return tuple(checked)

    def _against_rivals(
        self, similarity: np.ndarray, phrase: Phrase, known: frozenset[Phrase]
    ) -> tuple[float, str | None, float | None]:
        """A phrase's share in the softmax over itself and its rivals among `known`; its best rival and that one's."""
        rivals = [
            i
            for i, other in enumerate(self.phrases)
            if other in known and other[0] == phrase[0] and not overlap(other, phrase)
        ]
        chosen = [self.phrases.index(phrase), *rivals]
        logits = similarity[chosen].astype(np.float64) / self.gates[0].temperature
        share = np.exp(logits - logits.max())
        share /= share.sum()
        if not rivals:
            return 1.0, None, None
        best = 1 + int(share[1:].argmax())
        return float(share[0]), self.phrases[chosen[best]][1], float(share[best])

    def _log_gate(self, similarity: np.ndarray) -> Tensor:
        """(Q + D,) float32: log g of each candidate, averaged over folds."""
        rows = torch.from_numpy(np.asarray(similarity, np.float32))[None, None]
        aspects = torch.tensor([ASPECTS.index(aspect) for aspect, _ in self.phrases])
        with torch.no_grad():
            gates = [gate(rows, aspects, self.is_asked[None], self.is_rival[None])[0, :, 0] for gate in self.gates]
        return torch.stack(gates).mean(0)


def _log_sum(logits: Tensor, which: Tensor) -> Tensor:
    """log of the sum of e^logits (V,) over each row of `which` (D, V) bool -> (D,)."""
    return logits.where(which, -torch.inf).logsumexp(1)


def make_interpreter(
    queries: Sequence[LesionQuery], phrases: Sequence[Phrase], plans: MaleniaPlans, gates: Sequence[MatchGate]
) -> Interpreter:
    """phrases: the V whose similarities are read. A disease counts with those of its attributes that are among them.

    Diseases are the types of the queries, and those of the Clinical Knowledge Table that no query is named like; but
    not a type that no trained phrase speaks against, since it would fit every lesion.
    """
    table = clinical_knowledge_table()
    asked_types = {table.find(query.name) for query in queries}
    known = [
        LesionQuery(name=name, attributes=_only(entry.attributes, phrases))
        for name, entry in table.lesions.items()
        if name not in asked_types
    ]
    trained = plans.trained_phrases()
    diseases = [
        each
        for each in (*queries, *known)
        if any(is_rival(phrase, list(each.attributes.phrases())) for phrase in trained)
    ]
    candidates = (*queries, *diseases)
    asked = [list(each.attributes.phrases()) for each in candidates]
    return Interpreter(
        phrases=tuple(phrases),
        trained=frozenset(trained),
        candidates=candidates,
        num_queries=len(queries),
        seen=tuple(is_seen(each.name, plans) for each in candidates),
        is_asked=torch.tensor([[phrase in each for phrase in phrases] for each in asked]),
        is_rival=torch.tensor([[phrase in trained and is_rival(phrase, each) for phrase in phrases] for each in asked]),
        gates=tuple(gates),
    )


def _only(values: AspectValues, phrases: Sequence[Phrase]) -> AspectValues:
    known = set(phrases)
    return AspectValues(**{a: [v for v in stated if (a, v) in known] for a, stated in values.stated.items()})

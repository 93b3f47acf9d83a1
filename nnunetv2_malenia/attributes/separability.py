"""Which values of an aspect a text encoder cannot tell apart."""

from collections import Counter
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from nnunetv2_malenia.attributes.bank import EmbeddingBank, aspect_means
from nnunetv2_malenia.attributes.vocabulary import ASPECTS


class ConfusablePair(NamedTuple):
    """Two values of one aspect, and the cosine of their vectors."""

    aspect: str
    value_a: str
    value_b: str
    cosine: float


def confusable_pairs(bank: EmbeddingBank, *, threshold: float = 0.9) -> list[ConfusablePair]:
    """Pairs of values of one aspect whose vectors have a cosine of at least `threshold`, the closest first.

    Pass `centred(bank)` to ask the same of the vectors that the network compares. [] when all are apart.
    """
    vectors = _unit(bank.vectors)
    cosine = vectors @ vectors.T
    pairs = [
        ConfusablePair(a[0], a[1], b[1], float(cosine[i, j]))
        for (i, a), (j, b) in combinations(enumerate(bank.phrases), 2)
        if a[0] == b[0] and cosine[i, j] >= threshold
    ]
    return sorted(pairs, key=lambda pair: -pair.cosine)


def centred(bank: EmbeddingBank) -> EmbeddingBank:
    """The bank as the network sees it: each vector minus its aspect's mean (`aspect_means`), of unit length again.

    A vector that equals its aspect's mean becomes 0. The fingerprint says that this is no longer the encoder's output.
    """
    rows = np.asarray([ASPECTS.index(aspect) for aspect, _ in bank.phrases], np.intp)
    vectors = _unit(bank.vectors - aspect_means(bank)[rows])
    return replace(bank, vectors=vectors, fingerprint=f"{bank.fingerprint};centred")


def separability_summary(bank: EmbeddingBank, *, threshold: float = 0.9) -> str:
    """A Markdown table: per aspect, how many pairs of values are confusable, and the closest one, raw and centred."""
    lines = [
        f"| aspect | values | pairs | raw ≥ {threshold:g} | closest | centred ≥ {threshold:g} | closest |",
        "|---|---|---|---|---|---|---|",
    ]
    columns = [confusable_pairs(each, threshold=-1.1) for each in (bank, centred(bank))]
    values = Counter(aspect for aspect, _ in bank.phrases)
    for aspect in ASPECTS:
        cells = [aspect, str(values[aspect]), str(values[aspect] * (values[aspect] - 1) // 2)]
        for pairs in columns:
            own = [pair for pair in pairs if pair.aspect == aspect]
            cells.append(str(sum(pair.cosine >= threshold for pair in own)))
            cells.append(f"{own[0].value_a} / {own[0].value_b} {own[0].cosine:.2f}" if own else "none")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _unit(vectors: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)

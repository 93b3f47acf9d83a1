"""From lesion queries to what the network is asked with."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunetv2_malenia.attributes.bank import EmbeddingBank, embed_phrases
from nnunetv2_malenia.attributes.plans import MaleniaPlans, is_rival
from nnunetv2_malenia.attributes.schema import ASPECTS, LesionQuery, file_name, lesion_key
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table
from nnunetv2_malenia.attributes.text_encoder import TextEncoder
from nnunetv2_malenia.inference.model_folder import PredictionError


def is_seen(name: str, plans: MaleniaPlans) -> bool:
    """Whether a lesion type, by name or alias, was among the training labels. Spelling as in `lesion_key`."""
    table = clinical_knowledge_table()
    key = lesion_key(table.find(name) or name)
    return any(
        lesion_key(table.find(label) or label) == key for label, described in plans.lesions.items() if described.stated
    )


def check_file_names(queries: Sequence[LesionQuery]) -> None:
    """Raise PredictionError when two queries would be written to one file; many disks take Tumor and tumor for one."""
    names = [unicodedata.normalize("NFC", file_name(query.name).casefold()) for query in queries]
    for name in names:
        if names.count(name) > 1:
            clash = [query.name for query, other in zip(queries, names, strict=True) if other == name]
            raise PredictionError(f"lesion types {clash} would be written to one file {name}; rename one of them")


def query_tensors(
    queries: Sequence[LesionQuery], plans: MaleniaPlans, stored: EmbeddingBank, encoder: Callable[[], TextEncoder]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Vectors (V, E) float32 and aspects (V,) int64 of all phrases needed; is_asked and speaks_against (Q, V) bool.

    An asked phrase is weighed against the phrases of training. `encoder` is built only for phrases that are not stored.
    """
    asked = [list(query.attributes.phrases()) for query in queries]
    trained = plans.trained_phrases()
    needed = dict.fromkeys([*trained, *(phrase for phrases in asked for phrase in phrases)])
    bank = embed_phrases(list(needed), stored, encoder)
    asked_and_rival = [
        [(phrase in phrases, phrase in trained and is_rival(phrase, phrases)) for phrase in bank.phrases]
        for phrases in asked
    ]
    is_asked, speaks_against = torch.tensor(asked_and_rival, dtype=torch.bool).unbind(-1)
    aspects = torch.tensor([ASPECTS.index(aspect) for aspect, _ in bank.phrases], dtype=torch.int64)
    return torch.from_numpy(np.array(bank.vectors)), aspects, is_asked, speaks_against


def queries_content(queries: Sequence[LesionQuery], seen: Sequence[bool | None]) -> dict[str, Any]:
    """queries.json: what the numbers in a label map stand for."""
    return {
        "queries": [
            {
                "id": i + 1,
                "name": query.name,
                "seen_in_training": was_seen,
                "attributes": {aspect: list(values) for aspect, values in query.attributes.stated.items()},
            }
            for i, (query, was_seen) in enumerate(zip(queries, seen, strict=True))
        ]
    }

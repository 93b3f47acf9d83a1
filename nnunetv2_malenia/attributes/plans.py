"""The `malenia` entry of plans.json: all that rebuilds the network and answers queries, beside the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from nnunetv2_malenia.attributes.schema import AspectValues
from nnunetv2_malenia.attributes.vocabulary import vocabulary

Phrase = tuple[str, str]


def overlap(phrase: Phrase, other: Phrase) -> bool:
    """Whether two phrases are of one aspect and can be true of one lesion; free text overlaps only itself."""
    return phrase[0] == other[0] and vocabulary().overlap(phrase[0], phrase[1], other[1])


def is_rival(phrase: Phrase, asked: Sequence[Phrase]) -> bool:
    """Whether a phrase speaks against a query: it is of an aspect that the query states, and cannot be true together
    with any of the query's alternatives."""
    return any(phrase[0] == aspect for aspect, _ in asked) and not any(overlap(phrase, each) for each in asked)


class MaleniaPlans(BaseModel):
    """What training resolved, so that prediction needs neither the table nor, as a rule, a text encoder.

    network: MaleniaConfig as a dict. encoder: fingerprint of the text encoder. text_dim: width of its vectors. phrases:
    (aspect, value) of each of the V stored vectors. is_trained: for each phrase, whether a training lesion has it.
    lesions: attributes of the data set's own lesion types, which are the seen types. lesion_channels: output channel ->
    the lesion types it shows. has_regions: output channels are sigmoid regions, as nnU-Net's region-based training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: dict[str, Any]
    encoder: str
    text_dim: int
    phrases: tuple[tuple[str, str], ...]
    is_trained: tuple[bool, ...]
    lesions: dict[str, AspectValues]
    lesion_channels: dict[int, tuple[str, ...]]
    has_regions: bool

    def trained_phrases(self) -> list[Phrase]:
        """The phrases that a training lesion has: those that training queries and contrasts are made of."""
        return [phrase for phrase, is_trained in zip(self.phrases, self.is_trained, strict=True) if is_trained]

    def trained_index(self) -> list[int]:
        """Where the trained phrases stand among the stored ones."""
        return [i for i, is_trained in enumerate(self.is_trained) if is_trained]

    def own_queries(self) -> list[list[int]]:
        """For each of the data set's lesion types, the trained phrases that describe it."""
        index = {phrase: i for i, phrase in enumerate(self.trained_phrases())}
        return [[index[phrase] for phrase in lesion.phrases()] for lesion in self.lesions.values()]

    def own_rivals(self) -> list[list[int]]:
        """For each of the data set's lesion types, the trained phrases that speak against it."""
        phrases = self.trained_phrases()
        return [
            [i for i, phrase in enumerate(phrases) if is_rival(phrase, list(lesion.phrases()))]
            for lesion in self.lesions.values()
        ]

    def channel_lesions(self) -> dict[int, list[int]]:
        """Output channel -> indices into `own_queries`."""
        names = list(self.lesions)
        return {channel: [names.index(name) for name in shown] for channel, shown in self.lesion_channels.items()}

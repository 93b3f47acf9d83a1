"""The `malenia` entry of plans.json: all that rebuilds the network and answers queries, beside the weights."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from nnunetv2_malenia.attributes.schema import ASPECTS, AspectValues


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

    def phrase_aspect(self) -> list[int]:
        """Aspect index of each stored phrase, in the order of ASPECTS."""
        return [ASPECTS.index(aspect) for aspect, _ in self.phrases]

    def own_queries(self) -> list[list[int]]:
        """For each of the data set's lesion types, the stored phrases that describe it."""
        index = {phrase: i for i, phrase in enumerate(self.phrases)}
        return [[index[phrase] for phrase in lesion.phrases()] for lesion in self.lesions.values()]

    def channel_lesions(self) -> dict[int, list[int]]:
        """Output channel -> indices into `own_queries`."""
        names = list(self.lesions)
        return {channel: [names.index(name) for name in shown] for channel, shown in self.lesion_channels.items()}

"""nnU-Net's sliding window, asked queries instead of classes: one backbone pass a tile serves them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor, nn

from nnunetv2_malenia.network.malenia_net import MaleniaNet, Queries

LOGIT_EPS = 1e-4  # keeps blended logits well inside float16


class QueryNetwork(nn.Module):
    """A MaleniaNet with its questions: tile (1, C, Z, Y, X) -> logits (1, Q + 1, Z, Y, X), the last of any lesion.

    nnU-Net's predictor blends these as it blends class logits, and loads each fold's weights into the net inside.
    """

    def __init__(
        self, net: MaleniaNet, phrase_vectors: Tensor, phrase_aspect: Tensor, is_asked: Tensor, is_rival: Tensor
    ) -> None:
        """phrase_vectors (V, E_text), phrase_aspect (V,) int64, is_asked and is_rival (Q, V) bool."""
        super().__init__()
        self.net = net
        self.register_buffer("query_vectors", phrase_vectors)
        self.register_buffer("query_aspect", phrase_aspect)
        self.rows = slice(None)  # of the Q + 1 channels, those that are answered
        nothing = torch.zeros_like(is_asked[:1])
        self.register_buffer("is_asked", torch.cat([is_asked, nothing]))
        self.register_buffer("is_rival", torch.cat([is_rival, nothing]))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        return self.net.load_state_dict(state_dict, strict=strict, assign=assign)

    def forward(self, x: Tensor) -> Tensor:
        asked, rival = (
            each.expand(x.shape[0], -1, -1) for each in (self.is_asked[self.rows], self.is_rival[self.rows])
        )
        output = self.net(x, Queries(self.query_vectors, self.query_aspect, asked, rival))
        return torch.logit(self.net.query_probabilities(output), eps=LOGIT_EPS)


class QueryLabelManager(LabelManager):
    """Tells nnU-Net's prediction code that the channels are Q independent sigmoid masks."""

    def __init__(self, num_queries: int) -> None:
        labels = {"background": 0, **{str(i): i for i in range(1, num_queries + 1)}}
        super().__init__(labels, regions_class_order=None, force_use_labels=True, inference_nonlin=torch.sigmoid)

    @property
    def num_segmentation_heads(self) -> int:
        return len(self.foreground_labels)

    def revert_cropping_on_probabilities(
        self, predicted_probabilities: Tensor, bbox: Any, original_shape: Any
    ) -> Tensor:
        full = torch.zeros((len(predicted_probabilities), *original_shape), dtype=predicted_probabilities.dtype)
        full[(slice(None), *(slice(low, high) for low, high in bbox))] = predicted_probabilities
        return full

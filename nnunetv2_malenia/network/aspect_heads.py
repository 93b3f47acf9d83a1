"""From a mask token to one embedding per aspect: the part that decides whether a description transfers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_malenia.network.config import NUM_ASPECTS


class TokenAspectHeads(nn.Module):
    """Every aspect read from the token, and from what lies under its mask: mean and spread of the level's features.

    The token alone, as published, learns aspects slowly: its attention has to find the lesion first. An evidence form
    takes the same arguments and gives the same embeddings, so it can stand in for this one.
    """

    def __init__(self, token_dim: int, embedding_dim: int) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.layers = nn.Sequential(
            nn.LayerNorm(3 * token_dim),
            nn.Linear(3 * token_dim, 2 * token_dim),
            nn.GELU(),
            nn.Linear(2 * token_dim, NUM_ASPECTS * embedding_dim),
        )

    def forward(self, tokens: Tensor, mask_logits: Tensor, voxels: Tensor) -> Tensor:
        """tokens (B, N, D), mask_logits (B, N, S), projected voxels (B, S, D) -> (B, N, A, E) of unit length."""
        weight = mask_logits.float().sigmoid()
        weight = weight / weight.sum(-1, keepdim=True).clamp(min=1e-6)
        features = voxels.float()
        with torch.autocast(features.device.type, enabled=False):
            mean = weight @ features
            spread = (weight @ features.square() - mean.square()).clamp(min=1e-6).sqrt()
        embeddings = self.layers(torch.cat([tokens, mean.to(tokens.dtype), spread.to(tokens.dtype)], dim=-1))
        return F.normalize(embeddings.unflatten(-1, (NUM_ASPECTS, self.embedding_dim)).float(), dim=-1)


class PhraseProjection(nn.Module):
    """A learned projection per aspect, from the frozen text encoder's space to the space of aspect embeddings.

    General text encoders put opposites together, so a phrase is first centred on its aspect's mean vector.
    """

    def __init__(self, text_dim: int, embedding_dim: int) -> None:
        super().__init__()
        self.register_buffer("aspect_means", torch.zeros(NUM_ASPECTS, text_dim))
        self.weight = nn.Parameter(torch.randn(NUM_ASPECTS, text_dim, embedding_dim) * text_dim**-0.5)

    def forward(self, phrase_vectors: Tensor, phrase_aspect: Tensor) -> Tensor:
        """phrase_vectors (V, E_text) float, phrase_aspect (V,) int64 in [0, A) -> (V, E) float32, unit length."""
        centred = F.normalize(phrase_vectors.float() - self.aspect_means[phrase_aspect], dim=-1)
        with torch.autocast(centred.device.type, enabled=False):
            projected = torch.einsum("vt,vte->ve", centred, self.weight[phrase_aspect].float())
        return F.normalize(projected, dim=-1)


class MatchGate(nn.Module):
    """How well a token fits a query: a calibrated log-probability, aspect by aspect.

    log g = sum over stated aspects of w_a * log sigmoid(s_a * cos_a + b_a), where cos_a is the token's cosine to the
    best of the query's alternatives. The weight w_a >= 0 is how far an aspect is trusted; an unstated one says nothing,
    so a query that states nothing fits every token.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((NUM_ASPECTS,), 6.0))
        self.bias = nn.Parameter(torch.full((NUM_ASPECTS,), 2.0))  # start generous: a shut gate passes no gradient
        self.raw_weight = nn.Parameter(torch.zeros(NUM_ASPECTS))

    def forward(self, similarity: Tensor, phrase_aspect: Tensor, is_asked: Tensor) -> Tensor:
        """similarity (B, N, V) cosine, phrase_aspect (V,), is_asked (B, Q, V) bool -> (B, Q, N) float32, <= 0."""
        similarity = similarity.float()
        log_gate = similarity.new_zeros(similarity.shape[0], is_asked.shape[1], similarity.shape[1])
        weight = F.softplus(self.raw_weight)
        for aspect in range(NUM_ASPECTS):
            asked = is_asked & (phrase_aspect == aspect)
            best = similarity[:, None].masked_fill(~asked[:, :, None], -1.0).amax(-1)
            fit = weight[aspect] * F.logsigmoid(self.scale[aspect] * best + self.bias[aspect])
            log_gate = log_gate + fit * asked.any(-1, keepdim=True)
        return log_gate

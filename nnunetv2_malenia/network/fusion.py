"""Cross-modal knowledge injection (CMKI, Malenia §3.3): a query's text meets the image's tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnunetv2_malenia.network.config import NUM_ASPECTS, MaleniaConfig
from nnunetv2_malenia.network.mask_decoder import Attention, FeedForward


class DeepFusionLayer(nn.Module):
    """Text attends to tokens (biased by the match), tokens attend to text, then everything to everything."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.text_norm, self.token_norm, self.joint_norm = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.text_from_tokens, self.tokens_from_text = Attention(dim, num_heads), Attention(dim, num_heads)
        self.joint_attention = Attention(dim, num_heads)
        self.feed_forward = FeedForward(dim)

    def forward(self, text: Tensor, tokens: Tensor, log_gate: Tensor) -> tuple[Tensor, Tensor]:
        """text (K, 1, D), tokens (K, N, D), log_gate (K, 1, N) with K = B * Q: one small scene for each query."""
        normed_text, normed_tokens = self.text_norm(text), self.token_norm(tokens)
        text = text + self.text_from_tokens(normed_text, normed_tokens, normed_tokens, log_gate)
        tokens = tokens + self.tokens_from_text(normed_tokens, normed_text, normed_text)
        joint = torch.cat([text, tokens], dim=1)
        normed = self.joint_norm(joint)
        joint = joint + self.joint_attention(normed, normed, normed)
        joint = joint + self.feed_forward(joint)
        return joint.split([1, tokens.shape[1]], dim=1)


class CrossModalFusion(nn.Module):
    """Turn a query into the vector that is compared with every voxel.

    The query starts as a sum of one term per stated aspect (a concatenation followed by one linear layer), so a new
    combination of known attributes is a sum of known terms. Deep fusion adds what the image's tokens say, scaled by a
    small learned factor so that it refines the sum and does not replace it. Queries never see each other: the mask of
    one does not depend on what else is asked.
    """

    def __init__(self, config: MaleniaConfig) -> None:
        super().__init__()
        dim = config.token_dim
        self.any_lesion = nn.Parameter(torch.zeros(dim))
        self.aspect_terms = nn.Parameter(
            torch.randn(NUM_ASPECTS, config.embedding_dim, dim) * (NUM_ASPECTS * config.embedding_dim) ** -0.5
        )
        self.layers = nn.ModuleList(DeepFusionLayer(dim, config.num_heads) for _ in range(config.num_fusion_layers))
        self.fusion_scale = nn.Parameter(torch.full((dim,), 0.1))

    def forward(self, query_embeddings: Tensor, tokens: Tensor, log_gate: Tensor) -> Tensor:
        """query_embeddings (B, Q, A, E), zero where unstated; tokens (B, N, D); log_gate (B, Q, N) -> (B, Q, D)."""
        num_queries = query_embeddings.shape[1]
        summed = self.any_lesion + torch.einsum("bqae,aed->bqd", query_embeddings, self.aspect_terms)
        text = summed.flatten(0, 1)[:, None]
        scene = tokens.repeat_interleave(num_queries, dim=0)
        bias = log_gate.detach().flatten(0, 1)[:, None]
        for layer in self.layers:
            text, scene = layer(text, scene, bias)
        return summed + self.fusion_scale * text[:, 0].unflatten(0, (-1, num_queries))

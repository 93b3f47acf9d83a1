"""Learned mask tokens, refined over three decoder levels (Cheng et al., Mask2Former, CVPR 2022, in 3-D)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_malenia.network.aspect_heads import TokenAspectHeads
from nnunetv2_malenia.network.config import MaleniaConfig


class ScaleOutput(NamedTuple):
    """What the tokens say after block i.

    mask_logits (B, N, Z_i, Y_i, X_i), lesion_logits (B, N), aspect_embeddings (B, N, A, E) of unit length.
    """

    mask_logits: Tensor
    lesion_logits: Tensor
    aspect_embeddings: Tensor


def sine_position(shape_zyx: torch.Size, dim: int, device: torch.device) -> Tensor:
    """Sine encoding of voxel centres, a third of the channels an axis (Vaswani et al. 2017) -> (Z*Y*X, dim) float32."""
    bands = dim // 6
    frequencies = math.pi * 2.0 ** torch.linspace(0, 5, bands, device=device)
    axes = []
    for axis, size in enumerate(shape_zyx):
        centres = (torch.arange(size, device=device) + 0.5) / size
        angles = centres[:, None] * frequencies
        encoded = torch.cat([angles.sin(), angles.cos()], dim=-1)  # (size, dim / 3)
        view = [1, 1, 1, dim // 3]
        view[axis] = size
        axes.append(encoded.view(view).expand(*shape_zyx, -1))
    return torch.cat(axes, dim=-1).flatten(0, 2)


def blocks(fine: torch.Size, coarse: torch.Size) -> list[int]:
    """Kernel with which pooling turns one level's grid, zyx, into a coarser one's, as the U-Net's strides do."""
    return [size // step for size, step in zip(fine, coarse, strict=True)]


def rows(volume: Tensor) -> Tensor:
    """(B, C, Z, Y, X) -> (B, S, C)."""
    return volume.flatten(2).transpose(1, 2)


class FeedForward(nn.Sequential):
    def __init__(self, dim: int) -> None:
        super().__init__(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))


class MaskDecoderBlock(nn.Module):
    """Cross-attention to one level's voxels, self-attention among tokens, feed-forward; residual, norm first."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.cross_norm, self.self_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.cross_attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.self_attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.feed_forward = FeedForward(dim)

    def forward(
        self, tokens: Tensor, identity: Tensor, voxels: Tensor, position: Tensor, mask_logits: Tensor
    ) -> Tensor:
        """tokens, identity (B, N, D); voxels (B, S, D); position (S, D); mask_logits (B, N, S) -> (B, N, D).

        A token looks where its last mask is: log sigmoid of the mask is added to the attention logits, the soft form
        of Mask2Former's masked attention, which needs no special case for an empty mask.
        """
        look = F.logsigmoid(mask_logits.detach().float()).clamp(min=-10).repeat_interleave(self.num_heads, dim=0)
        q = self.cross_norm(tokens) + identity
        tokens = (
            tokens
            + self.cross_attention(q, voxels + position, voxels, attn_mask=look.to(q.dtype), need_weights=False)[0]
        )
        v = self.self_norm(tokens)
        q = v + identity
        tokens = tokens + self.self_attention(q, q, v, need_weights=False)[0]
        return tokens + self.feed_forward(tokens)


class MaskDecoder(nn.Module):
    """N tokens read the decoder levels coarse to fine; after each, they give masks, a lesion score and aspects."""

    def __init__(
        self, feature_channels: list[int], evidence_dims: Mapping[tuple[int, ...], int], config: MaleniaConfig
    ) -> None:
        super().__init__()
        dim = config.token_dim
        self.tokens = nn.Parameter(torch.randn(config.num_tokens, dim))
        self.identity = nn.Parameter(torch.randn(config.num_tokens, dim))
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, dim), nn.LayerNorm(dim)) for channels in feature_channels
        )
        self.blocks = nn.ModuleList(MaskDecoderBlock(dim, config.num_heads) for _ in feature_channels)
        self.norm = nn.LayerNorm(dim)
        self.mask_embedding = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.lesion_score = nn.Linear(dim, 1)
        self.aspect_heads = TokenAspectHeads(dim, evidence_dims, config.embedding_dim)

    def forward(
        self, features: list[Tensor], any_lesion: Tensor, evidence: Tensor | None
    ) -> tuple[Tensor, list[ScaleOutput]]:
        """Share the lesions out between tokens -> tokens (B, N, D), one ScaleOutput a level.

        features: levels (B, C_i, Z_i, Y_i, X_i), coarse to fine. any_lesion (B, Z, Y, X): log-odds of a lesion of any
        type; its maximum in each coarse voxel is every token's mask to begin with, so tokens need not find lesions.
        evidence (B, sum of evidence_dims, Z_f, Y_f, X_f), on the finest level, or None.
        """
        batch_size = features[0].shape[0]
        tokens = self.tokens.expand(batch_size, -1, -1)
        identity = self.identity.expand(batch_size, -1, -1)
        outputs: list[ScaleOutput] = []
        for feature, projection, block in zip(features, self.projections, self.blocks, strict=True):
            shape_zyx = feature.shape[2:]
            voxels = projection(rows(feature))  # (B, S, D)
            position = sine_position(shape_zyx, voxels.shape[-1], voxels.device).to(voxels.dtype)
            lesions = F.max_pool3d(any_lesion[:, None], blocks(any_lesion.shape[1:], shape_zyx)).flatten(2)  # (B, 1, S)
            if outputs:
                mask_logits = F.interpolate(outputs[-1].mask_logits, size=shape_zyx, mode="trilinear").flatten(2)
            else:
                mask_logits = self._masks(tokens, voxels, lesions)
            tokens = block(tokens, identity, voxels, position, mask_logits)
            seen = None if evidence is None else rows(F.avg_pool3d(evidence, blocks(evidence.shape[2:], shape_zyx)))
            outputs.append(self._read(tokens, voxels, lesions, seen, shape_zyx))
        return tokens, outputs

    def _masks(self, tokens: Tensor, voxels: Tensor, lesions: Tensor) -> Tensor:
        embedding = self.mask_embedding(self.norm(tokens)) * voxels.shape[-1] ** -0.5
        return lesions + embedding @ voxels.transpose(1, 2)

    def _read(
        self, tokens: Tensor, voxels: Tensor, lesions: Tensor, evidence: Tensor | None, shape_zyx: torch.Size
    ) -> ScaleOutput:
        mask_logits = self._masks(tokens, voxels, lesions)
        lesion_logits = self.lesion_score(self.norm(tokens)).squeeze(-1)
        aspect_embeddings = self.aspect_heads(tokens, mask_logits, voxels, evidence)
        return ScaleOutput(mask_logits.unflatten(-1, shape_zyx), lesion_logits, aspect_embeddings)

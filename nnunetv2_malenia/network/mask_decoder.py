"""Learned mask tokens, refined over three decoder levels (Cheng et al., Mask2Former, CVPR 2022, in 3-D)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_malenia.network.aspect_heads import TokenAspectHeads, sums_under
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
    centres = [torch.linspace(0.5 / size, 1 - 0.5 / size, size, device=device) for size in shape_zyx]
    frequencies = math.pi * 2.0 ** torch.linspace(0, 5, dim // 6, device=device)
    angles = torch.cat(centres)[:, None] * frequencies
    z, y, x = torch.cat([angles.sin(), angles.cos()], dim=-1).split(list(shape_zyx))  # (size, dim / 3) each
    axes = [axis.expand(*shape_zyx, -1) for axis in (z[:, None, None], y[:, None], x)]
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


class Attention(nn.MultiheadAttention):
    """nn.MultiheadAttention's parameters in fewer operations: queries (B, N, D), keys and values (B, S, D), and a bias
    (B, N, S) of the attention logits that all heads share -> (B, N, D)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(dim, num_heads, batch_first=True)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        weights, biases = (packed.split(self.embed_dim) for packed in (self.in_proj_weight, self.in_proj_bias))
        if key.shape[1] == 1:  # the only one gets all attention
            return self.out_proj(F.linear(value, weights[2], biases[2])).expand_as(query)
        if query is key is value:
            projected = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            projected = map(F.linear, (query, key, value), weights, biases)
        q, k, v = (each.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for each in projected)
        mask = None if bias is None else bias.to(q.dtype)[:, None]
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))


class MaskDecoderBlock(nn.Module):
    """Cross-attention to one level's voxels, self-attention among tokens, feed-forward; residual, norm first."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.cross_norm, self.self_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.cross_attention, self.self_attention = Attention(dim, num_heads), Attention(dim, num_heads)
        self.feed_forward = FeedForward(dim)

    def forward(
        self, tokens: Tensor, identity: Tensor, voxels: Tensor, position: Tensor, mask_logits: Tensor
    ) -> Tensor:
        """tokens, identity (B, N, D); voxels (B, S, D); position (S, D); mask_logits (B, N, S) -> (B, N, D).

        A token looks where its last mask is: log sigmoid of the mask is added to the attention logits, the soft form
        of Mask2Former's masked attention, which needs no special case for an empty mask.
        """
        look = F.logsigmoid(mask_logits.detach().float()).clamp(min=-10)
        q = self.cross_norm(tokens) + identity
        tokens = tokens + self.cross_attention(q, voxels + position, voxels, look)
        v = self.self_norm(tokens)
        q = v + identity
        tokens = tokens + self.self_attention(q, q, v)
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
        self, features: list[Tensor], any_lesion: Tensor, evidence: tuple[Tensor, ...]
    ) -> tuple[Tensor, list[ScaleOutput]]:
        """Share the lesions out between tokens -> tokens (B, N, D), one ScaleOutput a level.

        features: levels (B, C_i, Z_i, Y_i, X_i), coarse to fine. any_lesion (B, Z, Y, X): log-odds of a lesion of any
        type; its maximum in each coarse voxel is every token's mask to begin with, so tokens need not find lesions.
        evidence: `intensity_evidence` on the finest level, or ().
        """
        batch_size = features[0].shape[0]
        tokens = self.tokens.expand(batch_size, -1, -1)
        identity = self.identity.expand(batch_size, -1, -1)
        near, of_patch = evidence[:1], [each[:, None] for each in evidence[1:]]
        masks: list[Tensor] = []
        read: list[tuple[Tensor, ...]] = []
        for feature, projection, block in zip(features, self.projections, self.blocks, strict=True):
            shape_zyx = feature.shape[2:]
            voxels = projection(rows(feature))  # (B, S, D)
            position = sine_position(shape_zyx, voxels.shape[-1], voxels.device).to(voxels.dtype)
            lesions = F.max_pool3d(any_lesion[:, None], blocks(any_lesion.shape[1:], shape_zyx)).flatten(2)  # (B, 1, S)
            if masks:
                mask_logits = F.interpolate(masks[-1], size=shape_zyx, mode="trilinear").flatten(2)
            else:
                mask_logits = self._masks(self.norm(tokens), voxels, lesions)
            tokens = block(tokens, identity, voxels, position, mask_logits)
            normed = self.norm(tokens)
            mask_logits = self._masks(normed, voxels, lesions)
            masks.append(mask_logits.unflatten(-1, shape_zyx))
            seen = (rows(F.avg_pool3d(each, blocks(each.shape[2:], shape_zyx))) for each in near)
            read.append((normed, tokens, sums_under(mask_logits, voxels, *seen)))
        normed, *read = (torch.cat(of_levels, dim=1) for of_levels in zip(*read, strict=True))  # (B, I * N, ...)
        said = self.lesion_score(normed).squeeze(-1), self.aspect_heads(*read, *of_patch)
        of_level = zip(masks, *(each.chunk(len(masks), dim=1) for each in said), strict=True)
        return tokens, [ScaleOutput(*each) for each in of_level]

    def _masks(self, normed: Tensor, voxels: Tensor, lesions: Tensor) -> Tensor:
        embedding = self.mask_embedding(normed) * voxels.shape[-1] ** -0.5
        return lesions + embedding @ voxels.transpose(1, 2)

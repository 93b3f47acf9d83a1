"""From a mask token to one embedding per aspect: the part that decides whether a description transfers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nnunetv2_malenia.network.config import NUM_ASPECTS


def of_each_aspect(phrase_aspect: Tensor) -> Tensor:
    """Which phrases are of which aspect, (V,) -> (V, A) bool; F.one_hot would ask the device whether it can."""
    return phrase_aspect[:, None] == torch.arange(NUM_ASPECTS, device=phrase_aspect.device)


class AspectEmbeddings(nn.Module):
    """Learned features and evidence to one embedding per aspect, each aspect from its own source."""

    def __init__(
        self, features: nn.Sequential, width: int, evidence_dims: Mapping[tuple[int, ...], int], embedding_dim: int
    ) -> None:
        """features: layers that end in `width` channels. evidence_dims: groups of aspects that are read from evidence,
        and the channels of it for each group; {} reads every aspect from the features."""
        super().__init__()
        self.embedding_dim = embedding_dim
        of_evidence = [aspect for group in evidence_dims for aspect in group]
        order = [*(aspect for aspect in range(NUM_ASPECTS) if aspect not in of_evidence), *of_evidence]
        place = torch.tensor([order.index(aspect) for aspect in range(NUM_ASPECTS)])
        self.register_buffer("place", place, persistent=False)
        self.layers = nn.Sequential(*features, nn.Linear(width, (NUM_ASPECTS - len(of_evidence)) * embedding_dim))
        self.evidence_layers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(channels, width),
                nn.GELU(),
                nn.Linear(width, width),
                nn.GELU(),
                nn.Linear(width, len(group) * embedding_dim),
            )
            for group, channels in evidence_dims.items()
        )

    def forward(self, features: Tensor, *evidence: Tensor) -> Tensor:
        """features (B, K, F); evidence, for each group of evidence_dims, (B, K, channels), or (B, 1, channels) where
        all K have the same -> (B, K, A, E)."""
        parts = [self.layers(features)]
        for layers, of_group in zip(self.evidence_layers, evidence, strict=True):
            parts.append(layers(of_group).expand(-1, features.shape[1], -1))
        embeddings = torch.cat(parts, dim=-1).unflatten(-1, (NUM_ASPECTS, self.embedding_dim))
        return embeddings.index_select(2, self.place)


class TokenAspectHeads(nn.Module):
    """Every aspect read from the token and from what lies under its mask: mean and spread of the level's features,
    or the mean of the evidence.

    The token alone, as published, learns aspects slowly: its attention has to find the lesion first.
    """

    def __init__(self, token_dim: int, evidence_dims: Mapping[tuple[int, ...], int], embedding_dim: int) -> None:
        super().__init__()
        features = nn.Sequential(nn.LayerNorm(3 * token_dim), nn.Linear(3 * token_dim, 2 * token_dim), nn.GELU())
        self.embeddings = AspectEmbeddings(features, 2 * token_dim, evidence_dims, embedding_dim)

    def forward(self, tokens: Tensor, sums: Tensor, *of_patch: Tensor) -> Tensor:
        """tokens (B, N, D), `sums_under` their masks, and evidence of the whole patch (B, 1, channels), if any
        -> (B, N, A, E) of unit length."""
        dim = tokens.shape[-1]
        total, rest = sums.split([1, sums.shape[-1] - 1], dim=-1)
        means = rest / total.clamp(min=1e-6)
        mean, square, evidence = means.split([dim, dim, means.shape[-1] - 2 * dim], dim=-1)
        spread = (square - mean.square()).clamp(min=1e-6).sqrt()
        read = torch.cat([tokens, mean.to(tokens.dtype), spread.to(tokens.dtype)], dim=-1)
        evidence = (evidence, *of_patch) if of_patch else ()
        return F.normalize(self.embeddings(read, *evidence).float(), dim=-1)


def sums_under(mask_logits: Tensor, voxels: Tensor, *evidence: Tensor) -> Tensor:
    """Sums under each mask of 1, the projected voxels, their squares and the evidence, all as one product.

    mask_logits (B, N, S), voxels (B, S, D), evidence (B, S, channels), if any -> (B, N, 1 + 2 D + channels) float32.
    """
    weight, features = mask_logits.float().sigmoid(), voxels.float()
    columns = torch.cat([torch.ones_like(features[..., :1]), features, features.square(), *evidence], dim=-1)
    with torch.autocast(features.device.type, enabled=False):
        return weight @ columns


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


class DenseAspectHeads(nn.Module):
    """Every aspect read at every voxel of the finest token level: what a lesion there would look like.

    The text branch compares these embeddings with the query's phrases aspect by aspect, so a new combination of known
    attributes is a conjunction of known answers.
    """

    def __init__(
        self, channels: int, width: int, evidence_dims: Mapping[tuple[int, ...], int], embedding_dim: int
    ) -> None:
        super().__init__()
        features = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width), nn.GELU())
        self.embeddings = AspectEmbeddings(features, width, evidence_dims, embedding_dim)

    def forward(self, voxels: Tensor, *evidence: Tensor) -> Tensor:
        """voxels (B, S, C), evidence as `AspectEmbeddings.forward` -> (B, S, A, E), of any length."""
        return self.embeddings(voxels, *evidence)


def phrase_similarity(aspect_embeddings: Tensor, phrases: Tensor, phrase_aspect: Tensor) -> Tensor:
    """Cosine to each phrase in its own aspect: (B, K, A, E) of any length, (V, E) of unit length -> (B, K, V) float32.

    As one product with a (A * E, V) matrix that holds each phrase in its aspect's rows, divided by the embeddings'
    lengths afterwards: for every voxel, normalised embeddings would be many times larger than the answer.
    """
    of_aspect = of_each_aspect(phrase_aspect).float()
    with torch.autocast(phrases.device.type, enabled=False):
        weight = torch.einsum("va,ve->aev", of_aspect, phrases.float()).flatten(0, 1)
        return _CosinePerAspect.apply(aspect_embeddings.float(), weight, phrase_aspect)


class _CosinePerAspect(torch.autograd.Function):
    """(B, K, A, E) embeddings e, (A * E, V) weight, (V,) aspects -> cos (B, K, V).

    Autograd's own backward of product and length goes through the embeddings five times, which took a fifth of a
    training step on a CPU; d cos_v / d e = (w_v - cos_v e / |e|) / |e|, summed over v, is a product and one more pass.
    """

    @staticmethod
    def forward(ctx, embeddings: Tensor, weight: Tensor, phrase_aspect: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(embeddings, dim=-1).clamp(min=1e-6)  # (B, K, A)
        cosine = (embeddings.flatten(2) @ weight) / length[..., phrase_aspect]
        ctx.save_for_backward(embeddings, weight, phrase_aspect, length, cosine)
        return cosine

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        embeddings, weight, phrase_aspect, length, cosine = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            scaled = grad / length[..., phrase_aspect]
            along = torch.zeros_like(length).index_add_(-1, phrase_aspect, scaled * cosine) / length
            of_embeddings = (scaled @ weight.T).unflatten(-1, embeddings.shape[2:])
            of_embeddings = of_embeddings.addcmul_(embeddings, along[..., None], value=-1)
            of_weight = embeddings.flatten(2).flatten(0, 1).T @ scaled.flatten(0, 1)
        return of_embeddings, of_weight, None


class MatchGate(nn.Module):
    """How well what is at a token or voxel fits a query: a calibrated log-probability, aspect by aspect.

    For each stated aspect, odds_a = sum over its asked phrases of e^(cos / T), over the same sum for their rivals, the
    phrases of that aspect which cannot be true together with an asked one: the odds that MP-NCE teaches.
    log g = sum over stated aspects of w_a log sigmoid(s_a log(odds_a) + b_a). An aspect that is unstated, or for which
    every known value is asked, says nothing, so a query that states nothing fits everything.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.scale = nn.Parameter(torch.ones(NUM_ASPECTS))
        self.bias = nn.Parameter(torch.ones(NUM_ASPECTS))  # start generous: not refuted counts as a fit
        self.raw_weight = nn.Parameter(torch.zeros(NUM_ASPECTS))

    def forward(self, similarity: Tensor, phrase_aspect: Tensor, is_asked: Tensor, is_rival: Tensor) -> Tensor:
        """similarity (B, K, V) cosine; phrase_aspect (V,); is_asked, is_rival (B, Q, V) bool -> (B, Q, K) float32."""
        both = torch.stack([is_asked, is_rival], dim=1).permute(0, 3, 1, 2)  # (B, V, 2, Q)
        of_query = both[..., None] & of_each_aspect(phrase_aspect)[:, None, None]  # (B, V, 2, Q, A)
        counts = of_query.any(1).all(1)  # (B, Q, A)
        with torch.autocast(similarity.device.type, enabled=False):
            likelihood = (similarity.float() / self.temperature).exp()
            sums = likelihood @ of_query.flatten(2).float()  # (B, K, 2 * Q * A)
            floor = math.exp(-1 / self.temperature)  # of one phrase; where there is none, the term does not count
            asked, rival = sums.clamp(min=floor).log().unflatten(-1, of_query.shape[2:]).unbind(2)
            log_odds = asked - rival  # (B, K, Q, A)
            # -log sigmoid(s log_odds + b), as softplus
            misfit = F.softplus(self.raw_weight) * F.softplus(torch.addcmul(-self.bias, -self.scale, log_odds))
            return -(misfit * counts[:, None]).sum(-1).transpose(1, 2)

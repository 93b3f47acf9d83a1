"""An nnU-Net backbone with mask tokens, aspect embeddings and queries: assembly only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_malenia.network.aspect_heads import (
    DenseAspectHeads,
    MatchGate,
    PhraseProjection,
    of_each_aspect,
    phrase_similarity,
)
from nnunetv2_malenia.network.config import NUM_ASPECTS, MaleniaConfig
from nnunetv2_malenia.network.evidence import evidence_dims, intensity_evidence
from nnunetv2_malenia.network.fusion import CrossModalFusion
from nnunetv2_malenia.network.mask_decoder import MaskDecoder, ScaleOutput, blocks, rows


class Queries(NamedTuple):
    """What is asked of a batch.

    phrase_vectors (V, E_text) float: text embeddings; phrase_aspect (V,) int64 in [0, A): the aspect of each phrase;
    is_asked (B, Q, V) bool: the phrases that each query names, alternatives of one aspect side by side; is_rival
    (B, Q, V) bool: the phrases that speak against it.
    """

    phrase_vectors: Tensor
    phrase_aspect: Tensor
    is_asked: Tensor
    is_rival: Tensor


class MaleniaOutput(NamedTuple):
    """Everything that training supervises and prediction reads.

    class_logits: ordinary head, list of (B, K, Z_i, Y_i, X_i), finest first; any_lesion (B, Z, Y, X): log-odds of a
    lesion of any type; scales: one ScaleOutput a level, coarse to fine; similarity (B, N, V): cosine of each token to
    each phrase, per level; log_gate (B, Q, N): the match of tokens. On the finest token level, in rows of S voxels:
    dense_similarity (B, S, V), and the two branches' answers to "if here is a lesion, does it fit?", mask_fit (B, Q, S)
    a probability, text_fit (B, Q, S) logits.
    """

    class_logits: list[Tensor]
    any_lesion: Tensor
    scales: list[ScaleOutput]
    similarity: Sequence[Tensor]
    log_gate: Tensor
    dense_similarity: Tensor
    mask_fit: Tensor
    text_fit: Tensor


def decoder_features(decoder: nn.Module, skips: list[Tensor]) -> list[Tensor]:
    """Bottleneck and every decoder stage's output, coarse to fine.

    Restates the loop of `dynamic_network_architectures` 0.4 `UNetDecoder.forward`, which keeps its features to itself.
    """
    features = [skips[-1]]
    for stage, (upsample, convolve) in enumerate(zip(decoder.transpconvs, decoder.stages, strict=True)):
        features.append(convolve(torch.cat((upsample(features[-1]), skips[-(stage + 2)]), 1)))
    return features


def level_shapes(patch_size: list[int], strides: list[list[int]]) -> list[torch.Size]:
    """The shapes of a patch's `decoder_features`, coarse to fine."""
    shapes = [torch.Size(patch_size)]
    for stride in strides:
        shapes.append(torch.Size(size // step for size, step in zip(shapes[-1], stride, strict=True)))
    return shapes[:0:-1]


def choose_levels(patch_size: list[int], strides: list[list[int]], config: MaleniaConfig) -> list[int]:
    """Indices into `decoder_features` of the levels that the tokens read, coarse to fine.

    The finest has at most `max_feature_voxels` voxels a patch and is never the full-resolution level.
    """
    sizes = [shape.numel() for shape in level_shapes(patch_size, strides)]
    eligible = [i for i, size in enumerate(sizes[:-1]) if size <= config.max_feature_voxels] or [0]
    return eligible[-config.num_scales :]


class MaleniaNet(nn.Module):
    """`forward(x)` answers as nnU-Net does, with class logits; `forward(x, queries)` answers queries."""

    def __init__(
        self,
        backbone: nn.Module,
        config: MaleniaConfig,
        *,
        num_input_channels: int,
        patch_size: list[int],
        phrase_aspect: list[int],
        trained_phrases: list[int],
        text_dim: int,
        own_queries: list[list[int]],
        own_rivals: list[list[int]],
        lesion_channels: dict[int, list[int]],
        has_regions: bool,
    ) -> None:
        """backbone: an encoder-decoder U-Net of dynamic_network_architectures, 3-D.

        patch_size: zyx, voxels. phrase_aspect: aspect index of each stored phrase; trained_phrases: those that
        training asks for, V of them. own_queries: for each lesion type of the data set, the trained phrases that
        describe it; own_rivals: those that speak against it. lesion_channels: output channel -> lesion
        types (indices into own_queries) whose union it shows. has_regions: channels are sigmoid regions.
        Raises ValueError for a backbone without the decoder that the tokens read from.
        """
        super().__init__()
        if not all(
            hasattr(getattr(backbone, "decoder", None), name) for name in ("stages", "transpconvs", "seg_layers")
        ):
            raise ValueError(
                f"{type(backbone).__name__} has no U-Net decoder for the mask tokens to read; use plans with "
                "PlainConvUNet or ResidualEncoderUNet, e.g. -p nnUNetPlans or -p nnUNetResEncUNetLPlans"
            )
        self.config = config
        self.encoder, self.decoder = backbone.encoder, backbone.decoder
        channels = list(self.encoder.output_channels)[::-1]
        self.levels = choose_levels(patch_size, self.encoder.strides, config)
        self.finest_level = level_shapes(patch_size, self.encoder.strides)[self.levels[-1]]
        dim, fine, full = config.token_dim, channels[self.levels[-1]], channels[-1]
        self.lesion_head = nn.Conv3d(full, 1, 1)
        self.coarse_lesion_head = nn.Conv3d(fine, 1, 1, bias=False)
        of_evidence = evidence_dims(config, num_input_channels)
        self.mask_decoder = MaskDecoder([channels[level] for level in self.levels], of_evidence, config)
        self.phrase_projection = PhraseProjection(text_dim, config.embedding_dim)
        self.dense_aspects = DenseAspectHeads(fine + full, dim, of_evidence, config.embedding_dim)
        self.token_gate, self.dense_gate = MatchGate(config.temperature), MatchGate(config.temperature)
        self.token_key = nn.Linear(dim, fine + 1)
        if config.num_fusion_layers:
            self.fusion = CrossModalFusion(config)
            self.text_key = nn.Linear(dim, fine + 1)
            nn.init.normal_(self.text_key.weight, std=0.1 * dim**-0.5)  # at first the dense match decides alone
            nn.init.zeros_(self.text_key.bias)
        self.has_regions = has_regions
        self.lesion_channels = lesion_channels
        num_channels = self.decoder.seg_layers[-1].out_channels
        self.other_channels = [channel for channel in range(num_channels) if channel not in lesion_channels]
        tables = {
            "own_is_asked": _rows_with(own_queries, len(trained_phrases)),
            "own_is_rival": _rows_with(own_rivals, len(trained_phrases)),
            "trained_phrases": torch.tensor(trained_phrases, dtype=torch.int64),
            "trained_aspect": torch.tensor([phrase_aspect[i] for i in trained_phrases], dtype=torch.int64),
            "aspect_is_trained": torch.isin(
                torch.arange(NUM_ASPECTS), torch.tensor([phrase_aspect[i] for i in trained_phrases])
            ),
        }
        for name, table in tables.items():  # not weights: weights may start the training on another data set
            self.register_buffer(name, table, persistent=False)
        self.register_buffer("phrase_vectors", torch.zeros(len(phrase_aspect), text_dim))

    def set_phrase_vectors(self, phrase_vectors: Tensor, aspect_means: Tensor) -> None:
        """Store the text embeddings, (V, E_text), and each aspect's mean, (A, E_text); they travel in the weights."""
        self.phrase_vectors.copy_(phrase_vectors)
        self.phrase_projection.aspect_means.copy_(aspect_means)

    def trained_queries(self, is_asked: Tensor, is_rival: Tensor) -> Queries:
        """Queries over the trained phrases; is_asked, is_rival (B, Q, V) bool."""
        return Queries(self.phrase_vectors[self.trained_phrases], self.trained_aspect, is_asked, is_rival)

    def forward(self, x: Tensor, queries: Queries | None = None) -> MaleniaOutput | Tensor | list[Tensor]:
        """x (B, C, Z, Y, X) -> MaleniaOutput for queries; without them class logits, a list with deep supervision."""
        features = decoder_features(self.decoder, self.encoder(x))
        if queries is None:
            return self._closed_set(x, features)
        return self._answer(x, features, queries)

    def _answer(self, x: Tensor, features: list[Tensor], queries: Queries) -> MaleniaOutput:
        class_logits = [layer(feature) for layer, feature in zip(self.decoder.seg_layers, features[1:], strict=True)][
            ::-1
        ]
        fine, full = features[self.levels[-1]], features[-1]
        coarse = F.interpolate(self.coarse_lesion_head(fine), size=full.shape[2:], mode="trilinear")
        any_lesion = (self.lesion_head(full) + coarse).sum(1)  # not [:, 0]: DDP cannot split a compiled graph at a view
        evidence = intensity_evidence(self.config, x, any_lesion, fine.shape[2:]) if self.config.evidence else ()
        tokens, scales = self.mask_decoder([features[level] for level in self.levels], any_lesion.detach(), evidence)
        phrases = self.phrase_projection(queries.phrase_vectors, queries.phrase_aspect)
        averaged = F.avg_pool3d(full, blocks(full.shape[2:], fine.shape[2:]))
        of_voxels = (rows(each) if each.ndim == 5 else each[:, None] for each in evidence)
        embeddings = self.dense_aspects(rows(torch.cat([fine, averaged], dim=1)), *of_voxels)
        dense_similarity = phrase_similarity(embeddings, phrases, queries.phrase_aspect)
        of_tokens = torch.cat([scale.aspect_embeddings for scale in scales], dim=1)
        similarity = phrase_similarity(of_tokens, phrases, queries.phrase_aspect).chunk(len(scales), dim=1)
        asked = (queries.phrase_aspect, queries.is_asked, queries.is_rival)
        log_gate = self.token_gate(similarity[-1], *asked)
        text_fit = logit_of(self.dense_gate(dense_similarity, *asked))
        if self.config.num_fusion_layers:
            fused = self.fusion(self._query_embeddings(phrases, queries), tokens, log_gate)
            text_fit = text_fit + against_voxels(self.text_key(fused), fine)
        return MaleniaOutput(
            class_logits=class_logits,
            any_lesion=any_lesion,
            scales=scales,
            similarity=similarity,
            log_gate=log_gate,
            dense_similarity=dense_similarity,
            mask_fit=self._mask_fit(against_voxels(self.token_key(tokens), fine), scales[-1].lesion_logits, log_gate),
            text_fit=text_fit,
        )

    def _query_embeddings(self, phrases: Tensor, queries: Queries) -> Tensor:
        """Mean of the phrases asked per aspect, zero where none is -> (B, Q, A, E).

        An aspect of which training knows no phrase has terms that nothing taught, and counts as unstated.
        """
        asked = queries.is_asked & self.aspect_is_trained[queries.phrase_aspect]
        asked = (asked[..., None] & of_each_aspect(queries.phrase_aspect)).transpose(2, 3).to(phrases.dtype)
        return asked @ phrases / asked.sum(3, keepdim=True).clamp(min=1)  # (B, Q, A, V) @ (V, E)

    @staticmethod
    def _mask_fit(token_logits: Tensor, lesion_logits: Tensor, log_gate: Tensor) -> Tensor:
        """The share of a voxel that tokens hold which fit the query -> (B, Q, S) in [0, 1].

        sum_n g_qn s_n(x), where s = softmax over tokens of mask_n(x) + log sigmoid(lesion_n): tokens share out every
        voxel between them, and the match says which of them the query means.
        """
        with torch.autocast(token_logits.device.type, enabled=False):  # its gradient, 1 / fit, is too large for float16
            share = (token_logits + F.logsigmoid(lesion_logits.float())[..., None]).softmax(1)
            return log_gate.exp() @ share

    def query_probabilities(self, output: MaleniaOutput) -> Tensor:
        """A lesion is here, and it fits by the ensemble of both branches: (B, Q, Z, Y, X) float32 in [0, 1]."""
        weight = self.config.text_weight
        fit = (1 - weight) * output.mask_fit.float() + weight * output.text_fit.float().sigmoid()
        fit = fit.unflatten(-1, output.scales[-1].mask_logits.shape[2:])
        fit = F.interpolate(fit, size=output.any_lesion.shape[1:], mode="trilinear")
        return output.any_lesion.float().sigmoid()[:, None] * fit

    def _closed_set(self, x: Tensor, features: list[Tensor]) -> Tensor | list[Tensor]:
        """Class logits in the data set's label order: ordinary head, its lesion channels replaced by query masks.

        With a softmax, a lesion's logit is logit(p) + the largest of the other channels, so that it wins where p > 0.5,
        as when it is asked for; with regions it is logit(p) itself. A lesion type without a description never wins.
        """
        asked, rival = (each.expand(features[0].shape[0], -1, -1) for each in (self.own_is_asked, self.own_is_rival))
        output = self._answer(x, features, self.trained_queries(asked, rival))
        is_described = self.own_is_asked.any(1)  # a query for nothing would show any lesion
        query_logits = torch.logit(self.query_probabilities(output) * is_described[:, None, None, None], eps=1e-4)
        head = output.class_logits[0].float()
        base = 0.0 if self.has_regions else head[:, self.other_channels].amax(1)
        channels = list(head.unbind(1))
        for channel, lesions in self.lesion_channels.items():
            channels[channel] = query_logits[:, lesions].amax(1) + base
        composed = torch.stack(channels, dim=1)
        return [composed, *output.class_logits[1:]] if self.decoder.deep_supervision else composed


def _rows_with(rows: list[list[int]], width: int) -> Tensor:
    """(len(rows), width) bool, true at the listed columns."""
    table = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, columns in zip(table, rows, strict=True):
        row[columns] = True
    return table


def logit_of(log_probability: Tensor) -> Tensor:
    """log p <= 0 -> log(p / (1 - p)), at most about 14 where p is 1."""
    log_probability = log_probability.clamp(max=-1e-6)
    return log_probability - (-log_probability.expm1()).log()


def against_voxels(keys: Tensor, feature: Tensor) -> Tensor:
    """keys (B, K, C + 1) against every voxel of feature (B, C, Z, Y, X) -> logits (B, K, S) float32.

    `Q · Linear(F)` is computed as `(Linear^T Q) · F`, so no key volume wider than the feature is ever made.
    """
    weight, bias = keys.float().split([feature.shape[1], 1], dim=-1)
    with torch.autocast(feature.device.type, enabled=False):
        return weight @ feature.float().flatten(2) + bias

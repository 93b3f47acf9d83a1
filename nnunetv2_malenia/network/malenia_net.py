"""An nnU-Net backbone with mask tokens, aspect embeddings and queries: assembly only."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_malenia.network.aspect_heads import MatchGate, PhraseProjection
from nnunetv2_malenia.network.config import NUM_ASPECTS, MaleniaConfig
from nnunetv2_malenia.network.fusion import CrossModalFusion
from nnunetv2_malenia.network.mask_decoder import MaskDecoder, ScaleOutput


class Queries(NamedTuple):
    """What is asked of a batch.

    phrase_vectors (V, E_text) float: text embeddings; phrase_aspect (V,) int64 in [0, A): the aspect of each phrase;
    is_asked (B, Q, V) bool: the phrases that each query names, alternatives of one aspect side by side. is_complete
    (B,) bool: samples in which every lesion type is annotated. In the others, answers teach the ordinary head nothing,
    since "this type is not here" would tell it that no lesion is. None: all are complete.
    """

    phrase_vectors: Tensor
    phrase_aspect: Tensor
    is_asked: Tensor
    is_complete: Tensor | None = None


class MaleniaOutput(NamedTuple):
    """Everything that training supervises and prediction reads.

    class_logits: ordinary head, list of (B, K, Z_i, Y_i, X_i), finest first; scales: one ScaleOutput a level, coarse to
    fine; similarity (B, N, V): cosine of each token to each phrase, per level; log_gate (B, Q, N): the match;
    mask_probabilities, text_logits (B, Q, Z, Y, X): the two branches.
    """

    class_logits: list[Tensor]
    scales: list[ScaleOutput]
    similarity: list[Tensor]
    log_gate: Tensor
    mask_probabilities: Tensor
    text_logits: Tensor


def decoder_features(decoder: nn.Module, skips: list[Tensor]) -> list[Tensor]:
    """Bottleneck and every decoder stage's output, coarse to fine.

    Restates the loop of `dynamic_network_architectures` 0.4 `UNetDecoder.forward`, which keeps its features to itself.
    """
    features = [skips[-1]]
    for stage, (upsample, convolve) in enumerate(zip(decoder.transpconvs, decoder.stages, strict=True)):
        features.append(convolve(torch.cat((upsample(features[-1]), skips[-(stage + 2)]), 1)))
    return features


def choose_levels(patch_size: list[int], strides: list[list[int]], config: MaleniaConfig) -> list[int]:
    """Indices into `decoder_features` of the levels that the tokens read, coarse to fine.

    The finest has at most `max_feature_voxels` voxels a patch and is never the full-resolution level.
    """
    sizes = []
    shape = list(patch_size)
    for stride in strides:
        shape = [size // step for size, step in zip(shape, stride, strict=True)]
        sizes.append(shape[0] * shape[1] * shape[2])
    coarse_to_fine = sizes[::-1]
    eligible = [i for i, size in enumerate(coarse_to_fine[:-1]) if size <= config.max_feature_voxels] or [0]
    return eligible[-config.num_scales :]


class MaleniaNet(nn.Module):
    """`forward(x)` answers as nnU-Net does, with class logits; `forward(x, queries)` answers queries."""

    def __init__(
        self,
        backbone: nn.Module,
        config: MaleniaConfig,
        *,
        patch_size: list[int],
        phrase_aspect: list[int],
        text_dim: int,
        own_queries: list[list[int]],
        lesion_channels: dict[int, list[int]],
        has_regions: bool,
    ) -> None:
        """backbone: an encoder-decoder U-Net of dynamic_network_architectures, 3-D.

        patch_size: zyx, voxels. phrase_aspect: aspect index of each of the V stored phrases. own_queries: for each
        lesion type of the data set, the stored phrases that describe it. lesion_channels: output channel -> lesion
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
        self.mask_decoder = MaskDecoder([channels[level] for level in self.levels], config)
        self.phrase_projection = PhraseProjection(text_dim, config.embedding_dim)
        self.match_gate = MatchGate()
        self.fusion = CrossModalFusion(config)
        dim, fine, full = config.token_dim, channels[self.levels[-1]], channels[-1]
        self.token_key = nn.Linear(dim, fine + full + 1)
        self.text_key = nn.Linear(dim, fine + full + 1)
        for key in (self.token_key, self.text_key):  # at first every query is answered with any lesion
            nn.init.normal_(key.weight, std=0.1 * dim**-0.5)
            nn.init.zeros_(key.bias)
        self.has_regions = has_regions
        self.lesion_channels = lesion_channels
        num_channels = self.decoder.seg_layers[-1].out_channels
        self.other_channels = [channel for channel in range(num_channels) if channel not in lesion_channels]
        is_own = torch.zeros(len(own_queries), len(phrase_aspect), dtype=torch.bool)
        for row, phrases in zip(is_own, own_queries, strict=True):
            row[phrases] = True
        self.register_buffer("own_is_asked", is_own)
        self.register_buffer("phrase_aspect", torch.tensor(phrase_aspect, dtype=torch.int64))
        self.register_buffer("phrase_vectors", torch.zeros(len(phrase_aspect), text_dim))

    def set_phrase_vectors(self, phrase_vectors: Tensor, aspect_means: Tensor) -> None:
        """Store the text embeddings, (V, E_text), and each aspect's mean, (A, E_text); they travel in the weights."""
        self.phrase_vectors.copy_(phrase_vectors)
        self.phrase_projection.aspect_means.copy_(aspect_means)

    def stored_queries(self, is_asked: Tensor, is_complete: Tensor | None = None) -> Queries:
        """Queries over the stored phrases; is_asked (B, Q, V) bool, is_complete (B,) bool."""
        return Queries(self.phrase_vectors, self.phrase_aspect, is_asked, is_complete)

    def forward(self, x: Tensor, queries: Queries | None = None) -> MaleniaOutput | Tensor | list[Tensor]:
        """x (B, C, Z, Y, X) -> MaleniaOutput for queries; without them class logits, a list with deep supervision."""
        features = decoder_features(self.decoder, self.encoder(x))
        if queries is None:
            return self._closed_set(features)
        return self._answer(features, queries)

    def _class_logits(self, features: list[Tensor]) -> list[Tensor]:
        return [layer(feature) for layer, feature in zip(self.decoder.seg_layers, features[1:], strict=True)][::-1]

    def _answer(self, features: list[Tensor], queries: Queries) -> MaleniaOutput:
        class_logits = self._class_logits(features)
        any_lesion = self._any_lesion(class_logits[0])
        if queries.is_complete is not None:
            any_lesion = torch.where(queries.is_complete[:, None, None, None], any_lesion, any_lesion.detach())
        tokens, scales = self.mask_decoder([features[level] for level in self.levels], any_lesion)
        phrases = self.phrase_projection(queries.phrase_vectors, queries.phrase_aspect)
        similarity = [
            torch.einsum("bnve,ve->bnv", scale.aspect_embeddings[:, :, queries.phrase_aspect], phrases)
            for scale in scales
        ]
        log_gate = self.match_gate(similarity[-1], queries.phrase_aspect, queries.is_asked)
        text = self.fusion(self._query_embeddings(phrases, queries), tokens, log_gate)
        fine, full = features[self.levels[-1]], features[-1]
        token_logits = self._dense(self.token_key(tokens), fine, full)
        return MaleniaOutput(
            class_logits=class_logits,
            scales=scales,
            similarity=similarity,
            log_gate=log_gate,
            mask_probabilities=self._gated_masks(any_lesion, token_logits, scales[-1].lesion_logits, log_gate),
            text_logits=any_lesion[:, None] + self._dense(self.text_key(text), fine, full),
        )

    def _any_lesion(self, class_logits: Tensor) -> Tensor:
        """Log-odds that a voxel is in a lesion of any type, from the ordinary head -> (B, Z, Y, X)."""
        lesions = class_logits[:, list(self.lesion_channels)]
        if self.has_regions:
            return lesions.amax(1)
        return lesions.logsumexp(1) - class_logits[:, self.other_channels].logsumexp(1)

    @staticmethod
    def _query_embeddings(phrases: Tensor, queries: Queries) -> Tensor:
        """Mean of the phrases asked per aspect, zero where none is -> (B, Q, A, E)."""
        one_hot = F.one_hot(queries.phrase_aspect, NUM_ASPECTS).to(phrases.dtype)  # (V, A)
        asked = queries.is_asked.to(phrases.dtype)
        total = torch.einsum("bqv,va,ve->bqae", asked, one_hot, phrases)
        count = torch.einsum("bqv,va->bqa", asked, one_hot)
        return total / count.clamp(min=1)[..., None]

    @staticmethod
    def _dense(keys: Tensor, fine: Tensor, full: Tensor) -> Tensor:
        """keys (B, K, C_fine + C_full + 1) against every voxel of both levels -> logits (B, K, Z, Y, X).

        `Q · Linear(F)` is computed as `(Linear^T Q) · F`, so no key volume wider than the feature is ever made.
        """
        key_fine, key_full, bias = keys.split([fine.shape[1], full.shape[1], 1], dim=-1)
        coarse = torch.einsum("bkc,bczyx->bkzyx", key_fine, fine)
        logits = torch.einsum("bkc,bczyx->bkzyx", key_full, full) + bias[..., None, None]
        return logits + F.interpolate(coarse, size=full.shape[2:], mode="trilinear")

    @staticmethod
    def _gated_masks(any_lesion: Tensor, token_logits: Tensor, lesion_logits: Tensor, log_gate: Tensor) -> Tensor:
        """Where lesions are, times the share of it held by tokens that fit the query -> (B, Q, Z, Y, X) in [0, 1].

        p_q(x) = sigmoid(any(x)) sum_n g_qn s_n(x), where s = softmax over tokens of mask_n(x) + log sigmoid(lesion_n):
        tokens share out every voxel between them, and the match says which of them the query means.
        """
        share = (token_logits + F.logsigmoid(lesion_logits)[..., None, None, None]).softmax(1)
        fitting = torch.einsum("bqn,bnzyx->bqzyx", log_gate.exp().to(share.dtype), share)
        return any_lesion.sigmoid()[:, None] * fitting

    def query_probabilities(self, output: MaleniaOutput) -> Tensor:
        """The ensemble of both branches, (B, Q, Z, Y, X) float32 in [0, 1]."""
        weight = self.config.text_weight
        return (1 - weight) * output.mask_probabilities.float() + weight * output.text_logits.float().sigmoid()

    def _closed_set(self, features: list[Tensor]) -> Tensor | list[Tensor]:
        """Class logits in the data set's label order: ordinary head, its lesion channels replaced by query masks.

        With a softmax, a lesion's logit is logit(p) + logsumexp of the other channels, so that its probability against
        them is the query's own p; with regions it is logit(p) itself.
        """
        batch_size = features[0].shape[0]
        output = self._answer(features, self.stored_queries(self.own_is_asked.expand(batch_size, -1, -1)))
        query_logits = torch.logit(self.query_probabilities(output), eps=1e-4)
        head = output.class_logits[0].float()
        base = 0.0 if self.has_regions else head[:, self.other_channels].logsumexp(1)
        channels = list(head.unbind(1))
        for channel, lesions in self.lesion_channels.items():
            channels[channel] = query_logits[:, lesions].amax(1) + base
        composed = torch.stack(channels, dim=1)
        return [composed, *output.class_logits[1:]] if self.decoder.deep_supervision else composed

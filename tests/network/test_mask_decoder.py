"""Mask decoder, aspect heads, match gate and fusion, each on its own."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny_net import CONFIG
from torch import nn

from nnunetv2_malenia.network.aspect_heads import MatchGate, PhraseProjection, phrase_similarity
from nnunetv2_malenia.network.config import NUM_ASPECTS, MaleniaConfig
from nnunetv2_malenia.network.fusion import CrossModalFusion
from nnunetv2_malenia.network.mask_decoder import Attention, MaskDecoder, MaskDecoderBlock, sine_position

close = torch.testing.assert_close
DIM = CONFIG.token_dim
LEVELS = [(5, (2, 2, 3)), (4, (2, 4, 6)), (3, (4, 8, 6))]  # channels and size, coarse to fine


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """In evaluation mode, with every parameter moved off its initial value."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng))
    return module.eval()


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def decoder_and_levels(batch_size=2):
    features = [randn(batch_size, channels, *shape, seed=i) for i, (channels, shape) in enumerate(LEVELS)]
    return shaken(MaskDecoder([channels for channels, _ in LEVELS], {}, CONFIG)), features


# ---------------------------------------------------------------- position


def any_lesion(features):
    """Log-odds of any lesion at full resolution, twice as fine as the finest level that the tokens read."""
    generator = torch.Generator().manual_seed(5)
    shape = [2 * size for size in features[-1].shape[2:]]
    return torch.randn(len(features[0]), *shape, generator=generator)


def test_positions_agree_with_a_loop_over_z_y_and_x():
    shape, dim, octaves = (2, 3, 4), 12, [0, 5]
    encoded = sine_position(torch.Size(shape), dim, torch.device("cpu"))
    rows = []
    for z in range(2):
        for y in range(3):
            for x in range(4):
                row = []
                for index, size in zip((z, y, x), shape, strict=True):
                    angles = [math.pi * 2**octave * (index + 0.5) / size for octave in octaves]
                    row += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
                rows.append(row)
    close(encoded, torch.tensor(rows), rtol=1e-4, atol=1e-4)


def test_no_two_voxels_of_a_level_share_a_position():
    encoded = sine_position(torch.Size((8, 16, 24)), DIM, torch.device("cpu"))
    assert encoded.shape == (8 * 16 * 24, DIM)
    assert len(torch.unique(encoded.round(decimals=3), dim=0)) == len(encoded)


def test_the_same_place_has_the_same_position_at_every_resolution():
    centre = sine_position(torch.Size((3, 5, 1)), DIM, torch.device("cpu")).view(3, 5, 1, DIM)[1, 2, 0]
    close(centre, sine_position(torch.Size((1, 1, 1)), DIM, torch.device("cpu"))[0], rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- mask decoder


def test_tokens_answer_at_every_level():
    decoder, features = decoder_and_levels()
    tokens, scales = decoder(features, any_lesion(features), ())
    assert tokens.shape == (2, CONFIG.num_tokens, DIM)
    assert [tuple(scale.mask_logits.shape) for scale in scales] == [(2, CONFIG.num_tokens, *s) for _, s in LEVELS]
    for scale in scales:
        close(scale.aspect_embeddings.norm(dim=-1), torch.ones(2, CONFIG.num_tokens, NUM_ASPECTS))


def test_permuting_the_learned_tokens_permutes_what_they_say():
    decoder, features = decoder_and_levels()
    order = [3, 1, 0, 2]
    with torch.no_grad():
        tokens, before = decoder(features, any_lesion(features), ())
        decoder.tokens.copy_(decoder.tokens[order].clone())
        decoder.identity.copy_(decoder.identity[order].clone())
        moved, after = decoder(features, any_lesion(features), ())
    close(moved, tokens[:, order], rtol=1e-4, atol=1e-4)
    for one, other in zip(after, before, strict=True):
        for ours, theirs in zip(one, other, strict=True):
            close(ours, theirs[:, order], rtol=1e-4, atol=1e-4)


def test_every_level_reaches_the_last_masks():
    decoder, features = decoder_and_levels(1)
    features = [feature.requires_grad_() for feature in features]
    tokens, _ = decoder(features, any_lesion(features), ())
    tokens.square().sum().backward()
    assert all(feature.grad.abs().sum() > 0 for feature in features)


@torch.no_grad()
def test_a_token_reads_the_voxels_that_its_last_mask_covers():
    block = shaken(MaskDecoderBlock(DIM, 2))
    tokens, identity = randn(1, 1, DIM), randn(1, 1, DIM, seed=1)
    # so faint that no weights make up in attention for the logit of -10 that a mask gives at most
    voxels, position = 0.3 * randn(1, 6, DIM, seed=2), 0.3 * randn(6, DIM, seed=3)
    mask_logits = torch.tensor([[[50.0, 50, 50, -50, -50, -50]]])

    def moved_by_changing(where):
        other = voxels.clone()
        other[:, where] = 0.3 * randn(1, 3, DIM, seed=4)
        change = block(tokens, identity, other, position, mask_logits) - block(
            tokens, identity, voxels, position, mask_logits
        )
        return change.abs().max()

    assert moved_by_changing(slice(3, 6)) < 0.01 * moved_by_changing(slice(0, 3))


@torch.no_grad()
@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_a_token_with_an_empty_or_full_mask_still_reads_something(logit):
    block = shaken(MaskDecoderBlock(DIM, 2))
    args = randn(1, 2, DIM), randn(1, 2, DIM, seed=1), randn(1, 6, DIM, seed=2), randn(6, DIM, seed=3)
    flat = block(*args, torch.full((1, 2, 6), logit))
    assert flat.isfinite().all()
    close(flat, block(*args, torch.full((1, 2, 6), 1e4)), rtol=1e-3, atol=1e-3)  # everywhere alike: a plain mean


# ---------------------------------------------------------------- phrases and their match


@torch.no_grad()
def test_phrases_are_projected_to_unit_vectors_by_their_own_aspect():
    projection = shaken(PhraseProjection(10, 6))
    vectors = randn(1, 10).expand(3, -1)
    projected = projection(vectors, torch.tensor([0, 0, 5]))
    close(projected.norm(dim=-1), torch.ones(3))
    assert torch.equal(projected[0], projected[1])
    assert not torch.allclose(projected[0], projected[2], atol=0.05)


@torch.no_grad()
def test_what_all_phrases_of_an_aspect_share_does_not_hide_their_difference():
    """Text encoders put opposites together (cosine 0.93); around the aspect's mean they are opposite."""
    projection = shaken(PhraseProjection(10, 6))
    mean, difference = 5 * randn(8, 10), 0.1 * randn(10, seed=1)
    projection.aspect_means.copy_(mean)
    opposites = torch.stack([mean[3] + difference, mean[3] - difference])
    assert torch.cosine_similarity(*opposites, dim=0) > 0.9
    assert torch.cosine_similarity(*projection(opposites, torch.tensor([3, 3])), dim=0) < -0.99


@torch.no_grad()
def test_a_phrase_equal_to_its_aspects_mean_stays_finite():
    assert PhraseProjection(10, 6)(torch.zeros(2, 10), torch.tensor([0, 7])).isfinite().all()


PHRASE_ASPECT = torch.tensor([0, 0, 0, 2, 2, 5, 5])


def gate_of(asked, similarity=None, gate=None):
    is_asked = torch.zeros(1, 1, len(PHRASE_ASPECT), dtype=torch.bool)
    is_asked[..., asked] = True
    similarity = (
        2 * torch.rand(1, 4, len(PHRASE_ASPECT), generator=torch.Generator().manual_seed(0)) - 1
        if (similarity is None)
        else similarity
    )
    stated = torch.isin(PHRASE_ASPECT, PHRASE_ASPECT[asked])
    return (gate or shaken(MatchGate(0.1)))(similarity, PHRASE_ASPECT, is_asked, stated & ~is_asked)[0, 0]


@torch.no_grad()
def test_the_gate_is_a_log_probability():
    gate = gate_of([0, 3, 5])
    assert gate.shape == (4,)
    assert gate.dtype == torch.float32
    assert (gate < 0).all()


@torch.no_grad()
def test_gate_and_projection_are_float32_in_mixed_precision():
    """A cosine has two digits in bfloat16; divided by the temperature, or summed over aspects, that shows."""
    with torch.autocast("cpu", torch.bfloat16):
        similarity = torch.rand(1, 4, len(PHRASE_ASPECT), dtype=torch.bfloat16)
        assert gate_of([0, 3, 5], similarity).dtype == torch.float32
        assert PhraseProjection(10, 6)(randn(3, 10), torch.tensor([0, 0, 5])).dtype == torch.float32


@torch.no_grad()
def test_a_query_that_states_nothing_fits_every_token():
    assert torch.equal(gate_of([]), torch.zeros(4))


@torch.no_grad()
def test_the_gate_is_a_sum_over_aspects():
    close(gate_of([0, 1, 3, 5]), gate_of([0, 1]) + gate_of([3]) + gate_of([5]))


@torch.no_grad()
def test_the_gate_agrees_with_plain_loops():
    gate, temperature = shaken(MatchGate(0.1)), 0.1
    similarity = 2 * torch.rand(1, 4, len(PHRASE_ASPECT), generator=torch.Generator().manual_seed(1)) - 1
    for asked in ([0], [0, 2], [1, 3], [0, 1, 3, 6]):
        for token, answer in enumerate(gate_of(asked, similarity, gate)):
            assert answer.item() == pytest.approx(
                log_gate_loop(similarity[0, token], asked, gate, temperature), abs=1e-5
            )


def log_gate_loop(cosines, asked, gate, temperature):
    total = 0.0
    for aspect in {int(PHRASE_ASPECT[v]) for v in asked}:
        here = [v for v in range(len(PHRASE_ASPECT)) if PHRASE_ASPECT[v] == aspect]
        for_it = sum(math.exp(float(cosines[v]) / temperature) for v in here if v in asked)
        against = sum(math.exp(float(cosines[v]) / temperature) for v in here if v not in asked)
        if against == 0:
            continue
        x = float(gate.scale[aspect]) * math.log(for_it / against) + float(gate.bias[aspect])
        total -= math.log1p(math.exp(float(gate.raw_weight[aspect]))) * math.log1p(math.exp(-x))
    return total


@torch.no_grad()
def test_an_aspect_of_which_every_known_value_is_asked_says_nothing():
    assert torch.equal(gate_of([3, 4]), torch.zeros(4))
    close(gate_of([0, 3, 4]), gate_of([0]))


@torch.no_grad()
def test_more_alternatives_never_fit_worse():
    assert (gate_of([0, 2]) > torch.maximum(gate_of([0]), gate_of([2]))).all()


@torch.no_grad()
def test_similarity_to_a_phrase_is_the_cosine_in_its_own_aspect():
    embeddings, phrases = randn(2, 5, NUM_ASPECTS, 6), F.normalize(randn(len(PHRASE_ASPECT), 6, seed=1), dim=-1)
    similarity = phrase_similarity(embeddings, phrases, PHRASE_ASPECT)
    for v, aspect in enumerate(PHRASE_ASPECT):
        close(similarity[..., v], torch.cosine_similarity(embeddings[:, :, aspect], phrases[v].expand(2, 5, 6), dim=-1))


def test_gradients_of_the_similarity_are_those_of_the_cosine():
    """Against autograd through plain cosines; the lengths differ by aspect, and two phrases share one."""
    embeddings = (3 * randn(2, 5, NUM_ASPECTS, 6)).requires_grad_()
    phrases = F.normalize(randn(len(PHRASE_ASPECT), 6, seed=1), dim=-1).requires_grad_()
    upstream = randn(2, 5, len(PHRASE_ASPECT), seed=2)
    ours = torch.autograd.grad((upstream * phrase_similarity(embeddings, phrases, PHRASE_ASPECT)).sum(),
                               [embeddings, phrases])  # fmt: skip
    plain = [(F.normalize(embeddings[:, :, aspect], dim=-1) @ phrase)
             for aspect, phrase in zip(PHRASE_ASPECT.tolist(), phrases, strict=True)]  # fmt: skip
    expected = torch.autograd.grad((upstream * torch.stack(plain, -1)).sum(), [embeddings, phrases])
    for mine, autograds in zip(ours, expected, strict=True):
        close(mine, autograds)


@torch.no_grad()
def test_a_token_that_is_nearer_to_the_phrase_fits_better():
    similarity = torch.zeros(1, 4, len(PHRASE_ASPECT))
    similarity[..., 3] = torch.linspace(-1, 1, 4)
    assert (gate_of([3], similarity).diff() > 0).all()


# ---------------------------------------------------------------- fusion


def fusion_and_query(num_fusion_layers, num_queries=3, batch_size=2):
    config = MaleniaConfig(**{**CONFIG.to_dict(), "num_fusion_layers": num_fusion_layers})
    query = randn(batch_size, num_queries, NUM_ASPECTS, CONFIG.embedding_dim)
    log_gate = -randn(batch_size, num_queries, CONFIG.num_tokens, seed=2).abs()
    return shaken(CrossModalFusion(config)), query, randn(batch_size, CONFIG.num_tokens, DIM, seed=1), log_gate


@torch.no_grad()
def test_a_fused_query_depends_on_the_tokens_and_on_their_match():
    fusion, query, tokens, log_gate = fusion_and_query(3)
    fused = fusion(query, tokens, log_gate)
    assert fused.shape == (2, 3, DIM)
    assert not torch.allclose(fused, fusion(query, tokens.flip(0), log_gate), atol=1e-3)
    assert not torch.allclose(fused, fusion(query, tokens, 5 * log_gate), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("num_fusion_layers", [1, 3])
def test_queries_do_not_see_each_other(num_fusion_layers):
    fusion, query, tokens, log_gate = fusion_and_query(num_fusion_layers)
    together = fusion(query, tokens, log_gate)
    for i in range(3):
        alone = fusion(query[:, i : i + 1], tokens, log_gate[:, i : i + 1])
        close(alone[:, 0], together[:, i], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_order_of_tokens_does_not_matter_to_a_query():
    fusion, query, tokens, log_gate = fusion_and_query(3)
    order = [2, 3, 1, 0]
    close(fusion(query, tokens[:, order], log_gate[:, :, order]), fusion(query, tokens, log_gate), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_samples_of_a_batch_do_not_see_each_other():
    fusion, query, tokens, log_gate = fusion_and_query(2)
    close(fusion(query[1:], tokens[1:], log_gate[1:]), fusion(query, tokens, log_gate)[1:], rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- attention


@torch.no_grad()
@pytest.mark.parametrize("num_keys", [1, 2, 7])
def test_attention_is_that_of_torch(num_keys):
    ours, theirs = shaken(Attention(DIM, 2)), torch.nn.MultiheadAttention(DIM, 2, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    query, key, value = randn(3, 5, DIM), randn(3, num_keys, DIM, seed=1), randn(3, num_keys, DIM, seed=2)
    bias = randn(3, 5, num_keys, seed=3)
    for inputs in ((query, key, value), (query, key, key), (query, query, query)):
        close(ours(*inputs), theirs(*inputs, need_weights=False)[0], rtol=1e-4, atol=1e-5)
    of_heads = bias.repeat_interleave(2, dim=0)
    expected, _ = theirs(query, key, value, attn_mask=of_heads, need_weights=False)
    close(ours(query, key, value, bias), expected, rtol=1e-4, atol=1e-5)

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from tiny_net import CONFIG, PATCH_SIZE, PHRASE_ASPECT, STRIDES, image, tiny_backbone, tiny_net
from torch import nn

from nnunetv2_malenia.network.config import MaleniaConfig
from nnunetv2_malenia.network.malenia_net import MaleniaNet, Queries, choose_levels, decoder_features

on_each_backbone = pytest.mark.parametrize("architecture", [PlainConvUNet, ResidualEncoderUNet])
EIGHT_QUERIES = [[], [0], [1], [0, 1, 3], [2, 4], [3, 5], [4, 6], [0, 2, 3, 4, 5, 6]]
NUM_PHRASES = len(PHRASE_ASPECT)
close = torch.testing.assert_close


def asked(*queries, num_phrases=NUM_PHRASES, batch_size=1):
    """Lists of phrase indices -> is_asked (B, Q, V)."""
    rows = torch.zeros(len(queries), num_phrases, dtype=torch.bool)
    for row, phrases in zip(rows, queries, strict=True):
        row[phrases] = True
    return rows.expand(batch_size, -1, -1)


def trained_queries(net, is_asked):
    """Every other phrase of an aspect that a query states is its rival."""
    same_aspect = (net.trained_aspect[:, None] == net.trained_aspect).float()
    return net.trained_queries(is_asked, (is_asked.float() @ same_aspect > 0) & ~is_asked)


@torch.no_grad()
def answer(net, x, *queries):
    return net(x, trained_queries(net, asked(*queries, batch_size=len(x))))


# ---------------------------------------------------------------- backbone


@on_each_backbone
@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("strides", [STRIDES, [[1, 1, 1], [1, 2, 2], [2, 2, 2]], [[1, 1, 1], [2, 2, 2]]])
def test_our_decoder_loop_is_the_backbones_own_forward(architecture, deep_supervision, strides):
    backbone = tiny_backbone(architecture, strides=strides, num_channels=2, deep_supervision=deep_supervision).eval()
    x = image(2, num_channels=2)
    with torch.no_grad():
        theirs = backbone(x)
        features = decoder_features(backbone.decoder, backbone.encoder(x))
        ours = [head(feature) for head, feature in zip(backbone.decoder.seg_layers, features[1:], strict=True)][::-1]
    assert [feature.shape[1] for feature in features] == backbone.encoder.output_channels[::-1]
    if deep_supervision:
        assert len(theirs) == len(ours) == len(strides) - 1
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)
    else:
        assert torch.equal(ours[0], theirs)


@on_each_backbone
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_the_ordinary_head_is_the_backbones_own(architecture, deep_supervision):
    backbone = tiny_backbone(architecture, deep_supervision=deep_supervision)
    net = tiny_net(backbone=backbone)
    heads = answer(net, image(2), [], [0]).class_logits
    with torch.no_grad():
        theirs, ours = backbone.eval()(image(2)), net(image(2))
    assert type(ours) is type(theirs)
    theirs, ours = (theirs, ours) if deep_supervision else ([theirs], [ours])
    for one, other in zip(heads[: len(theirs)], theirs, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(ours[0][:, :2], theirs[0][:, :2])  # background and organ; channels 2 and 3 show lesions


@pytest.mark.parametrize("backbone", [nn.Conv3d(1, 2, 1), nn.ModuleDict({"decoder": nn.Identity()})])
def test_a_backbone_without_a_unet_decoder_is_refused_in_one_line(backbone):
    with pytest.raises(ValueError, match=r"no U-Net decoder.*-p nnUNetPlans") as error:
        tiny_net(backbone=backbone)
    assert type(backbone).__name__ in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("patch_size", "strides", "changes", "levels"),
    [
        ([128] * 3, [[1] * 3, *[[2] * 3] * 5], {}, [1, 2, 3]),  # 32 ** 3 voxels are just allowed
        ([128] * 3, [[1] * 3, *[[2] * 3] * 5], {"num_scales": 1}, [3]),
        ([128] * 3, [[1] * 3, *[[2] * 3] * 5], {"max_feature_voxels": 32767}, [0, 1, 2]),
        ([160] * 3, [[1] * 3, *[[2] * 3] * 5], {}, [0, 1, 2]),
        ([20, 256, 256], [[1] * 3, [1, 2, 2], [1, 2, 2], *[[2] * 3] * 2, *[[1, 2, 2]] * 2], {}, [1, 2, 3]),
        ([8, 16, 24], STRIDES, {}, [0, 1, 2]),  # the full resolution is small enough, but never read
        ([8, 16, 24], STRIDES[:3], {}, [0, 1]),
        ([8, 16, 24], STRIDES[:2], {}, [0]),
        ([64] * 3, [[1] * 3, [1, 2, 2]], {}, [0]),  # nothing is small enough: the bottleneck
    ],
)
def test_levels_are_the_finest_that_are_small_enough(patch_size, strides, changes, levels):
    assert choose_levels(patch_size, strides, MaleniaConfig(**changes)) == levels


# ---------------------------------------------------------------- shapes


@on_each_backbone
@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("num_scales", [1, 2, 3])
def test_every_output_has_its_documented_shape(architecture, num_channels, num_scales):
    net = tiny_net(
        MaleniaConfig(**{**CONFIG.to_dict(), "num_scales": num_scales}),
        backbone=tiny_backbone(architecture, num_channels=num_channels, num_classes=4),
    )
    output = answer(net, image(2, num_channels), *EIGHT_QUERIES[:5])
    levels = [(4, 2, 3), (4, 4, 6), (8, 8, 12)][-num_scales:]
    assert [tuple(each.shape) for each in output.class_logits] == [(2, 4, 8, 16, 24), (2, 4, 8, 8, 12), (2, 4, 4, 4, 6)]
    assert [tuple(scale.mask_logits.shape) for scale in output.scales] == [(2, 4, *level) for level in levels]
    assert [tuple(scale.lesion_logits.shape) for scale in output.scales] == [(2, 4)] * num_scales
    assert [tuple(scale.aspect_embeddings.shape) for scale in output.scales] == [(2, 4, 8, 6)] * num_scales
    assert [tuple(each.shape) for each in output.similarity] == [(2, 4, NUM_PHRASES)] * num_scales
    assert output.log_gate.shape == (2, 5, 4)
    assert output.any_lesion.shape == (2, *PATCH_SIZE)
    finest = levels[-1][0] * levels[-1][1] * levels[-1][2]
    assert output.dense_similarity.shape == (2, finest, NUM_PHRASES)
    assert output.mask_fit.shape == output.text_fit.shape == (2, 5, finest)
    assert net.query_probabilities(output).shape == (2, 5, *PATCH_SIZE)


def test_similarities_are_cosines():
    output = answer(tiny_net(), image(2), [])
    for similarity in (*output.similarity, output.dense_similarity):
        assert similarity.abs().max() <= 1 + 1e-6
        assert similarity.std() > 0.1


def test_probabilities_lie_between_0_and_1():
    net = tiny_net()
    probabilities = net.query_probabilities(answer(net, 10 * image(2), *EIGHT_QUERIES))
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1


# ---------------------------------------------------------------- queries


def test_what_is_asked_matters():
    output = answer(tiny_net(), image(), *EIGHT_QUERIES)
    for branch in (output.mask_fit[0], output.text_fit[0]):
        distance = torch.cdist(branch.flatten(1), branch.flatten(1), p=torch.inf) + torch.eye(len(branch))
        assert distance.min() > 1e-4


@pytest.mark.parametrize("num_fusion_layers", [0, 3])
def test_the_mask_of_a_query_does_not_depend_on_what_else_is_asked(num_fusion_layers):
    net = tiny_net(MaleniaConfig(**{**CONFIG.to_dict(), "num_fusion_layers": num_fusion_layers}))
    together = answer(net, image(), *EIGHT_QUERIES)
    for i, query in enumerate(EIGHT_QUERIES):
        alone = answer(net, image(), query)
        close(alone.mask_fit[:, 0], together.mask_fit[:, i])
        close(alone.text_fit[:, 0], together.text_fit[:, i])


def test_asking_in_another_order_reorders_the_answers():
    net, order = tiny_net(), [3, 7, 0, 5, 1, 6, 2, 4]
    before, after = answer(net, image(), *EIGHT_QUERIES), answer(net, image(), *(EIGHT_QUERIES[i] for i in order))
    close(after.mask_fit, before.mask_fit[:, order])
    close(after.text_fit, before.text_fit[:, order])
    close(after.log_gate, before.log_gate[:, order])


def test_phrases_that_nobody_asks_for_change_nothing():
    net = tiny_net()
    expected = answer(net, image(), *EIGHT_QUERIES)
    queries = trained_queries(net, asked(*EIGHT_QUERIES))
    nobodys = torch.zeros(1, len(EIGHT_QUERIES), 5, dtype=torch.bool)
    more = Queries(
        torch.cat([queries.phrase_vectors, torch.randn(5, queries.phrase_vectors.shape[1])]),
        torch.cat([queries.phrase_aspect, torch.tensor([0, 2, 5, 7, 1])]),
        torch.cat([queries.is_asked, nobodys], dim=-1),
        torch.cat([queries.is_rival, nobodys], dim=-1),
    )
    with torch.no_grad():
        output = net(image(), more)
    close(net.query_probabilities(output), net.query_probabilities(expected))
    close(output.log_gate, expected.log_gate)


def test_the_order_of_stored_phrases_does_not_matter():
    net, order = tiny_net(), [4, 2, 6, 0, 5, 1, 3]
    queries = trained_queries(net, asked(*EIGHT_QUERIES))
    shuffled = Queries(
        queries.phrase_vectors[order],
        queries.phrase_aspect[order],
        queries.is_asked[:, :, order],
        queries.is_rival[:, :, order],
    )
    with torch.no_grad():
        close(net.query_probabilities(net(image(), shuffled)), net.query_probabilities(net(image(), queries)))


def test_a_query_that_states_nothing_asks_for_any_lesion():
    output = answer(tiny_net(), image(), *EIGHT_QUERIES)
    assert EIGHT_QUERIES[0] == []
    assert torch.equal(output.log_gate[:, 0], torch.zeros(1, CONFIG.num_tokens))
    assert (output.log_gate[:, 1:-1] < 0).all()
    any_lesion, described = output.mask_fit[:, :1], output.mask_fit[:, 1:]
    assert (described < any_lesion).all()


def test_permuting_the_learned_tokens_permutes_token_masks_and_leaves_query_masks():
    net, order = tiny_net(), [2, 0, 3, 1]
    before = answer(net, image(2), *EIGHT_QUERIES)
    with torch.no_grad():
        for parameter in (net.mask_decoder.tokens, net.mask_decoder.identity):
            parameter.copy_(parameter[order].clone())
    after = answer(net, image(2), *EIGHT_QUERIES)
    for one, other in zip(after.scales, before.scales, strict=True):
        assert not torch.allclose(one.mask_logits, other.mask_logits, atol=1e-3)
        for moved, stayed in zip(one, other, strict=True):
            close(moved, stayed[:, order], rtol=1e-4, atol=1e-4)
    close(after.log_gate, before.log_gate[:, :, order], rtol=1e-4, atol=1e-4)
    close(after.mask_fit, before.mask_fit, rtol=1e-4, atol=1e-4)
    close(after.text_fit, before.text_fit, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("text_weight", [0.0, 0.25, 1.0])
def test_the_ensemble_weighs_both_branches(text_weight):
    net = tiny_net(MaleniaConfig(**{**CONFIG.to_dict(), "text_weight": text_weight}))
    output = answer(net, image(), [0], [4])
    fit = ((1 - text_weight) * output.mask_fit + text_weight * output.text_fit.sigmoid()).view(1, 2, 8, 8, 12)
    fit = nn.functional.interpolate(fit, size=PATCH_SIZE, mode="trilinear")
    close(net.query_probabilities(output), output.any_lesion.sigmoid()[:, None] * fit)


@pytest.mark.parametrize("queries", [[[0], [0, 3, 5]], None], ids=["queries", "closed set"])
def test_the_network_compiles_as_one_graph(queries):
    """nnU-Net compiles what it trains on a GPU. The backend `eager` runs the graph as it was captured."""
    net = tiny_net().train()
    given = (image(), trained_queries(net, asked(*queries))) if queries else (image(),)
    compiled = torch.compile(net, backend="eager", fullgraph=True)(*given)
    torch.testing.assert_close(compiled, net(*given))


def test_nothing_depends_on_batch_neighbours():
    net, x = tiny_net(), image(2)
    together, alone = answer(net, x, *EIGHT_QUERIES), answer(net, x[:1], *EIGHT_QUERIES)
    close(alone.mask_fit, together.mask_fit[:1], rtol=1e-4, atol=1e-5)
    close(alone.text_fit, together.text_fit[:1], rtol=1e-3, atol=1e-4)  # logarithms of small variances
    with torch.no_grad():
        close(net(x[:1]), net(x)[:1], rtol=1e-4, atol=1e-4)


def test_samples_of_a_batch_may_be_asked_different_things():
    net, x = tiny_net(), image(2)
    with torch.no_grad():
        output = net(x, trained_queries(net, torch.cat([asked([0], [4, 5]), asked([2, 3], [6])])))
    for sample, queries in enumerate([([0], [4, 5]), ([2, 3], [6])]):
        alone = answer(net, x[sample : sample + 1], *queries)
        close(alone.mask_fit[0], output.mask_fit[sample], rtol=1e-4, atol=1e-5)
        close(alone.text_fit[0], output.text_fit[sample], rtol=1e-4, atol=1e-5)


def test_evaluation_without_gradients_gives_what_training_saw():
    net = tiny_net()
    evaluated = answer(net, image(), *EIGHT_QUERIES)
    trained = net.train()(image(), trained_queries(net, asked(*EIGHT_QUERIES)))
    close(evaluated.mask_fit, trained.mask_fit.detach(), rtol=1e-4, atol=1e-5)
    close(evaluated.text_fit, trained.text_fit.detach(), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- closed set


@torch.no_grad()
def closed_set_and_queries(**channels):
    """Class logits, ordinary head's logits, and the own queries' probabilities, of one random image."""
    net = tiny_net(own_queries=[[0, 3], [1, 4, 5]], **channels)
    output = answer(net, image(2), [0, 3], [1, 4, 5])
    return net(image(2)), output.class_logits[0], net.query_probabilities(output)


def test_with_a_softmax_a_lesion_has_its_querys_probability_against_the_best_other_channel():
    logits, head, probabilities = closed_set_and_queries(lesion_channels={1: [1], 3: [0]})
    assert logits.shape == head.shape
    assert torch.equal(logits[:, [0, 2]], head[:, [0, 2]])
    for channel, lesion in {1: 1, 3: 0}.items():
        against = torch.stack([head[:, [0, 2]].amax(1), logits[:, channel]], dim=1).softmax(1)[:, -1]
        close(against, probabilities[:, lesion].clamp(1e-4, 1 - 1e-4), rtol=1e-4, atol=1e-5)


def test_with_regions_a_lesion_channel_has_its_querys_own_probability():
    logits, head, probabilities = closed_set_and_queries(lesion_channels={1: [1], 3: [0]}, has_regions=True)
    assert torch.equal(logits[:, [0, 2]], head[:, [0, 2]])
    for channel, lesion in {1: 1, 3: 0}.items():
        close(logits[:, channel].sigmoid(), probabilities[:, lesion].clamp(1e-4, 1 - 1e-4), rtol=1e-4, atol=1e-5)


def test_a_region_of_two_lesion_types_shows_where_either_is():
    logits, _, probabilities = closed_set_and_queries(lesion_channels={0: [0, 1], 2: [0], 3: [1]}, has_regions=True)
    close(logits[:, 0].sigmoid(), probabilities.amax(1).clamp(1e-4, 1 - 1e-4), rtol=1e-4, atol=1e-5)
    assert torch.equal(logits[:, 0], logits[:, 2:].amax(1))


def test_with_deep_supervision_class_logits_come_finest_first_and_only_the_finest_holds_queries():
    backbone = tiny_backbone(deep_supervision=True)
    net = tiny_net(backbone=backbone)
    with torch.no_grad():
        supervised, heads = net(image()), answer(net, image(), []).class_logits
        net.decoder.deep_supervision = False
        single = net(image())
    assert torch.equal(supervised[0], single)
    assert not torch.equal(supervised[0], heads[0])
    assert len(supervised) == len(heads) == 3
    for one, other in zip(supervised[1:], heads[1:], strict=True):
        assert torch.equal(one, other)


# ---------------------------------------------------------------- weights


def test_weights_carry_everything_that_answers_depend_on():
    net, other = tiny_net(seed=1), tiny_net(seed=2, backbone=tiny_backbone(seed=3))
    with torch.no_grad():
        assert not torch.allclose(net(image()), other(image()))
        other.load_state_dict(net.state_dict())
        assert torch.equal(net(image()), other(image()))
    ours, theirs = answer(net, image(), *EIGHT_QUERIES), answer(other, image(), *EIGHT_QUERIES)
    assert torch.equal(ours.mask_fit, theirs.mask_fit)
    assert torch.equal(ours.text_fit, theirs.text_fit)


def test_weights_start_the_training_on_other_lesion_types():
    """nnU-Net's -pretrained_weights wants equal shapes, and the ordinary head is all that it leaves out."""
    one = tiny_net()
    other = tiny_net(own_queries=[[0]], own_rivals=[[1]], trained_phrases=[0, 1], lesion_channels={3: [0]})
    assert {k: v.shape for k, v in one.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}


@torch.no_grad()
def test_an_aspect_that_training_never_states_changes_nothing():
    net = tiny_net(own_queries=[[0], [1]], own_rivals=[[1, 2], [0, 2]], trained_phrases=[0, 1, 2])  # location only
    aspect, rivals = torch.tensor(PHRASE_ASPECT), torch.zeros(1, 1, NUM_PHRASES, dtype=torch.bool)
    rivals[..., 2] = True
    for query in ([0], [1]):
        known, more = (
            net(image(), Queries(net.phrase_vectors, aspect, asked(phrases), rivals))
            for phrases in (query, [*query, 3, 5])
        )
        close(known.text_fit, more.text_fit)
        close(known.mask_fit, more.mask_fit)


def test_phrase_vectors_travel_in_the_weights_and_are_not_trained():
    net = tiny_net()
    vectors, means = torch.randn_like(net.phrase_vectors), torch.randn(8, net.phrase_vectors.shape[1])
    net.set_phrase_vectors(vectors, means)
    state = net.state_dict()
    assert torch.equal(state["phrase_vectors"], vectors)
    assert any(torch.equal(value, means) for value in state.values() if value.shape == means.shape)
    assert not any(name.startswith("phrase_vectors") or "mean" in name for name, _ in net.named_parameters())


def test_a_config_survives_its_dict_and_refuses_unknown_keys():
    assert MaleniaConfig.from_dict(CONFIG.to_dict()) == CONFIG
    of_before = {key: value for key, value in CONFIG.to_dict().items() if key != "extremes"}
    assert MaleniaConfig.from_dict(of_before) == CONFIG
    with pytest.raises(ValueError, match=r"unknown keys \['num_tokes'\]"):
        MaleniaConfig.from_dict({"num_tokes": 4})


@pytest.mark.parametrize("wrong", [{"token_dim": 32}, {"token_dim": 18, "num_heads": 4}, {"text_weight": 1.5}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MaleniaConfig(**wrong)


def test_the_network_works_on_other_sizes_than_its_patch():
    net = tiny_net()
    with torch.no_grad():
        assert net(torch.randn(1, 1, 4, 24, 16)).shape == (1, 4, 4, 24, 16)
    assert isinstance(net, MaleniaNet)

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_views import by_sample, made, pool_any
from references.loss_loops import masked_bce_loop, mp_nce_loop, pooled_dice_loop
from references.target_loops import marginal_cross_entropy_loop
from references.token_loops import token_terms_loop
from tiny_net import PATCH_SIZE, PHRASE_ASPECT, image, tiny, tiny_net
from torch import nn

from nnunetv2_malenia.network.config import NUM_ASPECTS, MaleniaConfig
from nnunetv2_malenia.network.malenia_net import MaleniaOutput
from nnunetv2_malenia.network.mask_decoder import ScaleOutput
from nnunetv2_malenia.training import variants
from nnunetv2_malenia.training.criterion import (
    LOSS_WEIGHTS,
    annotated_lesion,
    aspect_contrast,
    marginalise,
    pair_terms,
    query_terms,
    single_positive_contrast,
    token_terms,
)
from nnunetv2_malenia.training.losses import combine
from nnunetv2_malenia.training.matcher import assign
from nnunetv2_malenia.training.patch_targets import MakeTargets
from nnunetv2_malenia.training.targets import YES, AttributeSpace
from nnunetv2_malenia.training.trainer import MaleniaTrainer

IGNORE = 4
CONFIG = tiny(MaleniaConfig())
TRAINERS = [
    trainer
    for name, trainer in inspect.getmembers(variants, inspect.isclass)
    if issubclass(trainer, MaleniaTrainer) and "epoch" not in name.lower()
]
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=30, deadline=None)


def space(annotated=None):
    """Labels: 1 an organ, 2 and 3 lesion types that share the first phrase. `annotated`: labels of case "partial"."""
    values = np.zeros((2, len(PHRASE_ASPECT)), dtype=bool)
    values[0, [0, 3]], values[1, [0, 1, 4, 5]] = True, True
    has_label = np.zeros((2, 4), dtype=bool)
    has_label[[0, 1], [2, 3]] = True
    return AttributeSpace(
        type_has_label=has_label,
        channel_has_label=np.eye(4, dtype=bool),
        class_values=values,
        phrase_aspect=np.array(PHRASE_ASPECT),
        overlap=np.eye(len(PHRASE_ASPECT), dtype=bool),
        case_values={},
        case_annotated={} if annotated is None else {"partial": np.eye(4, dtype=bool)[[0, *annotated]]},
    )


def patch(kind):
    labels = np.zeros(PATCH_SIZE, dtype=np.int16)
    if kind == "single voxel":
        labels[3, 5, 7] = 2
    elif kind == "full patch":
        labels[:] = 2
    elif kind == "two lesions":
        labels[:, :4] = 1
        labels[2:5, 2:6, 3:9], labels[4:8, 8:14, 12:20] = 2, 3
    return labels


def targets_of(labels, case_ids, own_space, level_size, seed=0):
    maker = MakeTargets(own_space, patch_size=PATCH_SIZE, level_size=level_size, num_queries=6, has_ignore_label=True)
    return made(maker, labels, case_ids, seed)


def terms_of_tokens(output, targets, phrase_aspect, temperature):
    _, _, lesions, ignored = targets.pooled()
    pairs = pair_terms(output, lesions, ignored)
    is_matched = assign(pairs.costs, targets.is_present.numpy())
    return token_terms(output, targets, pairs, is_matched, phrase_aspect, temperature, aspect_contrast)


def terms_of_queries(output, targets, lesion_channels):
    wanted, known, *_ = targets.pooled()
    is_partial = not targets.annotated_channels.all()
    return query_terms(output, targets, wanted, known, lesion_channels, is_partial=is_partial)


def loss_terms(net, labels, case_ids, *, seed=0, own_space=None):
    """Every term of a training step, with a plain cross-entropy in place of nnU-Net's own loss; and the targets."""
    targets = targets_of(labels, case_ids, own_space or space(), net.finest_level, seed)
    output = net(image(len(labels)), net.trained_queries(targets.is_asked, targets.is_rival))
    target = torch.from_numpy(labels)[:, None].float()
    heads = [
        F.cross_entropy(level, F.interpolate(target, level.shape[2:])[:, 0].long(), ignore_index=IGNORE)
        for level in output.class_logits
    ]
    terms = {
        "segmentation": torch.stack(heads).mean(),
        **terms_of_tokens(output, targets, net.trained_aspect, net.config.temperature),
        **terms_of_queries(output, targets, net.lesion_channels),
    }
    return terms, output, targets


# ---------------------------------------------------------------- every parameter learns, whatever the batch holds


@pytest.mark.parametrize("kinds", [("empty", "empty"), ("two lesions", "empty")], ids=["no lesion", "with lesions"])
@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda trainer: trainer.__name__)
def test_every_parameter_gets_a_gradient(trainer, kinds):
    net = tiny_net(tiny(trainer.config)).train()
    terms, _, _ = loss_terms(net, np.stack([patch(kind) for kind in kinds]), ["a", "b"])
    combine(terms, trainer.loss_weights).backward()
    without = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    assert without == []
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_the_ablations_are_among_the_trainers_tested():
    configs = [trainer.config for trainer in TRAINERS]
    assert {config.num_fusion_layers for config in configs} >= {0, 3}
    assert {config.num_scales for config in configs} >= {1, 3}
    assert {config.text_weight for config in configs} >= {0.0, 1.0}
    assert any(trainer.loss_weights["mp_nce"] == 0 for trainer in TRAINERS)


def test_with_lesions_every_part_of_the_network_is_moved():
    net = tiny_net(CONFIG).train()
    terms, _, _ = loss_terms(net, np.stack([patch("two lesions")] * 2), ["a", "b"])
    combine(terms, LOSS_WEIGHTS).backward()
    for name, module in net.named_children():
        assert sum(parameter.grad.abs().sum() for parameter in module.parameters()) > 0, name


@pytest.mark.parametrize("kind", ["empty", "single voxel", "full patch"])
@pytest.mark.parametrize("scale", [1.0, 100.0], ids=["usual", "large activations"])
@pytest.mark.parametrize(("dtype", "loss_scale"), [(torch.bfloat16, 1), (torch.float16, 256)], ids=str)
def test_gradients_are_finite_in_half_precision(kind, scale, dtype, loss_scale):
    """loss_scale: of nnU-Net's GradScaler, which begins at 65536 and halves it until no gradient overflows."""
    net = tiny_net(CONFIG).train()
    with torch.no_grad():
        net.token_key.weight.mul_(scale)
        net.text_key.weight.mul_(scale)
    with torch.autocast("cpu", dtype):
        terms, output, _ = loss_terms(net, np.stack([patch(kind)] * 2), ["a", "b"])
        loss = combine(terms, LOSS_WEIGHTS)
    assert output.class_logits[0].dtype == dtype  # or nothing was tested
    assert all(term.dtype == torch.float32 for term in terms.values())
    (loss * loss_scale).backward()
    assert loss.isfinite()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_bfloat16_gives_about_the_loss_of_float32():
    net, labels = tiny_net(CONFIG), np.stack([patch("two lesions")] * 2)
    exact, _, _ = loss_terms(net, labels, ["a", "b"])
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _, _ = loss_terms(net, labels, ["a", "b"])
    for name, term in exact.items():
        assert rounded[name].item() == pytest.approx(term.item(), rel=0.05, abs=0.02), name


def test_terms_and_weights_have_the_same_names():
    terms, _, _ = loss_terms(tiny_net(CONFIG), patch("empty")[None], ["a"])
    assert terms.keys() == LOSS_WEIGHTS.keys()
    assert all(term.shape == () for term in terms.values())


def test_without_a_lesion_the_losses_of_matched_tokens_are_zero():
    terms, _, _ = loss_terms(tiny_net(CONFIG), np.stack([patch("empty")] * 2), ["a", "b"])
    of_lesions = ("token_mask", "mp_nce", "match", "text_match")
    assert {name: terms[name].item() for name in of_lesions} == dict.fromkeys(of_lesions, 0.0)
    assert terms["lesion"] > 0


def test_more_lesion_types_than_tokens_is_no_error():
    net = tiny_net(MaleniaConfig(**{**CONFIG.to_dict(), "num_tokens": 1})).train()
    terms, _, _ = loss_terms(net, patch("two lesions")[None], ["a"])
    assert combine(terms, LOSS_WEIGHTS).isfinite()


def test_training_on_one_patch_teaches_the_network_what_was_asked():
    """The terms pull the same way: after some steps each branch finds the asked type and not the other."""
    net = tiny_net(CONFIG).train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    labels = patch("two lesions")
    for step in range(60):
        terms, _, _ = loss_terms(net, labels[None], ["a"], seed=step)
        optimizer.zero_grad()
        combine(terms, LOSS_WEIGHTS).backward()
        optimizer.step()
    with torch.no_grad():
        own = torch.zeros(1, 2, len(PHRASE_ASPECT), dtype=torch.bool)
        own[0, 0, [0, 3]] = own[0, 1, [0, 1, 4, 5]] = True
        rivals = torch.zeros_like(own)
        rivals[0, 0, [1, 2, 4]] = rivals[0, 1, [2, 3, 6]] = True
        probabilities = net.query_probabilities(net.eval()(image(), net.trained_queries(own, rivals)))[0]
    for asked, label, other in ((0, 2, 3), (1, 3, 2)):
        inside = probabilities[asked][torch.from_numpy(labels == label)].mean()
        assert inside > probabilities[asked][torch.from_numpy(labels == other)].mean() + 0.1
        assert inside > probabilities[asked][torch.from_numpy(labels == 0)].mean() + 0.1


# ---------------------------------------------------------------- unknown voxels


def output_gradients(labels, case_ids, own_space=None, seed=0):
    """Gradients of the loss by what the query terms read, by the tokens' mask logits, and the targets.

    By the evidence for any lesion (B, Z, Y, X), and by both branches' fits (B, Q, z, y, x) on the finest token level.
    """
    net = tiny_net(CONFIG).train()
    terms, output, targets = loss_terms(net, labels, case_ids, own_space=own_space, seed=seed)
    masks = [scale.mask_logits for scale in output.scales]
    names = ("token_mask", "any_lesion", "mask_branch", "text_branch", "text_match")
    loss = sum(terms[name] for name in names)
    evidence, mask, text, *tokens = torch.autograd.grad(
        loss, [output.any_lesion, output.mask_fit, output.text_fit, *masks], allow_unused=True
    )
    finest = masks[-1].shape[2:]
    return evidence, mask.unflatten(-1, finest), text.unflatten(-1, finest), tokens, targets


def test_the_gradient_at_ignored_voxels_is_exactly_zero():
    labels = patch("two lesions")
    labels[:, :8] = IGNORE
    evidence, mask, text, tokens, targets = output_gradients(labels[None], ["a"])
    ignored = torch.from_numpy(labels == IGNORE)
    assert torch.equal(targets.ignored[0], ignored)
    assert (evidence[0, ignored] == 0).all()
    assert (evidence[0, ~ignored] != 0).any()
    for gradient in (mask, text, *tokens):
        half = gradient.shape[3] // 2
        assert (gradient[0, :, :, :half] == 0).all()
        assert (gradient[0, :, :, half:] != 0).any()


def test_a_coarse_voxel_that_is_partly_ignored_is_not_supervised():
    labels = patch("two lesions")
    labels[4, 8, 12] = IGNORE
    _, mask, text, tokens, _ = output_gradients(labels[None], ["a"])
    for gradient in (mask, text, *tokens):
        z, y, x = (size // 2 for size in gradient.shape[2:])  # holds the ignored voxel, which is the patch's middle
        assert (gradient[0, :, z, y, x] == 0).all()
        assert (gradient[0, :, z, y, x - 1] != 0).any()


def test_a_query_that_an_unannotated_type_may_fit_gets_no_gradient_where_it_may_hide():
    labels = patch("two lesions")
    for seed in range(4):
        evidence, mask, text, _, targets = output_gradients(
            np.stack([labels] * 2), ["partial", "full"], space(annotated=[1, 3]), seed=seed
        )
        unknown = ~by_sample(targets).query_known
        assert unknown[0].any()
        assert not unknown[1, 0].any()
        for gradient in (mask, text):
            assert (gradient[unknown] == 0).all()
            assert (gradient[1, 0] != 0).any()
        drawn = torch.from_numpy(labels == 3)
        assert (evidence[0, drawn] < 0).all()
        assert (evidence[0, ~drawn] > 0).all()
        assert (evidence[1] != 0).all()


LESION_CHANNELS = {2: [0], 3: [1]}


def test_the_evidence_is_shared_out_between_types_that_were_drawn_and_types_that_were_not():
    """By hand: even odds of a lesion, and the ordinary head three to one, or one to three, for the type drawn here."""
    any_lesion = torch.zeros(2, 1, 1, 2)
    head = torch.zeros(2, 4, 1, 1, 2)
    head[:, 2, ..., 0] = head[:, 3, ..., 1] = np.log(3)
    head[:, :2] = 7.0  # background and organ have no say
    annotated = torch.tensor([[True, False], [True, True]])
    probability = annotated_lesion(any_lesion, head, annotated, LESION_CHANNELS).sigmoid()
    assert probability[0].flatten().tolist() == pytest.approx([3 / 8, 1 / 8])
    assert probability[1].flatten().tolist() == pytest.approx([1 / 2, 1 / 2])


def test_a_lesion_of_a_type_that_nobody_drew_is_not_denied():
    any_lesion = torch.zeros(1, 1, 1, 3, requires_grad=True)
    head = torch.full((1, 4, 1, 1, 3), -20.0)
    head[0, 2, ..., 0] = head[0, 3, ..., 1] = 0.0  # the ordinary head sees the type drawn here, the other, either
    for annotated, expected in ([[True, False]], [0.5, 0, 1 / 6]), ([[False, False]], [0, 0, 0]):
        product = annotated_lesion(any_lesion, head, torch.tensor(annotated), LESION_CHANNELS)
        background = F.softplus(product).sum()
        (gradient,) = torch.autograd.grad(background, any_lesion)
        assert gradient.isfinite().all()
        assert gradient.flatten().tolist() == pytest.approx(expected, rel=1e-2, abs=1e-6)


def test_background_is_learned_though_every_case_lacks_a_type():
    """As in a merge of MSD and KiTS: without negatives, everything would become a lesion."""
    net = tiny_net(CONFIG).train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    labels = patch("two lesions")
    case_ids = {f"hides {hidden}": hidden for hidden in (2, 3)}
    partial = replace(
        space(), case_annotated={name: np.delete(np.eye(4, dtype=bool), hidden, 0) for name, hidden in case_ids.items()}
    )
    for step in range(160):
        case_id, hidden = list(case_ids.items())[step % 2]
        shown = np.where(labels == hidden, 0, labels)
        terms, output, _ = loss_terms(net, shown[None], [case_id], seed=step, own_space=partial)
        optimizer.zero_grad()
        combine(terms, LOSS_WEIGHTS).backward()
        optimizer.step()
    evidence = output.any_lesion[0].detach().sigmoid()
    mean = [evidence[torch.from_numpy(labels == label)].mean() for label in range(4)]
    assert max(mean[:2]) < 0.3
    assert min(mean[2:]) > 0.5


def test_answers_to_queries_leave_the_evidence_for_any_lesion_alone():
    """That a type is not here must not tell the network that no lesion is: another, unannotated one may be."""
    terms, output, _ = loss_terms(tiny_net(CONFIG).train(), patch("two lesions")[None], ["a"])
    loss = sum(terms[name] for name in ("mask_branch", "text_branch", "text_match", "token_mask"))
    of_head = [output.class_logits[0], output.any_lesion]
    assert torch.autograd.grad(loss, of_head, allow_unused=True) == (None, None)


def test_a_lesion_score_is_not_denied_where_lesions_may_be_unannotated():
    net = tiny_net(CONFIG).train()
    for case, is_silent in (("partial", True), ("full", False)):
        terms, output, _ = loss_terms(net, patch("empty")[None], [case], own_space=space(annotated=[1]))
        (gradient,) = torch.autograd.grad(terms["lesion"], output.scales[-1].lesion_logits)
        assert (gradient == 0).all() if is_silent else (gradient > 0).all()


# ---------------------------------------------------------------- parts


@pytest.mark.parametrize("seed", range(5))
def test_tokens_that_are_right_at_every_scale_lose_nothing(seed):
    """Which token finds which lesion differs from sample to sample and from scale to scale: pairs must not be mixed."""
    own_space, rng = space(), np.random.default_rng(seed)
    labels = np.stack([patch("two lesions"), patch("full patch")])
    fine = torch.Size((8, 16, 12))
    targets = targets_of(labels, ["a", "b"], own_space, fine, seed)
    own = by_sample(targets)
    scales, similarity, num_tokens = [], [], 4
    log_gate = torch.full((2, 6, num_tokens), -0.7)
    for shape in (torch.Size((4, 8, 6)), fine):
        masks = torch.full((2, num_tokens, *shape), -30.0)
        lesions, cosines = torch.full((2, num_tokens), -30.0), torch.zeros(2, num_tokens, len(PHRASE_ASPECT))
        for sample in range(2):
            order = rng.permutation(num_tokens)
            for target, mask in enumerate(pool_any(own.lesion_masks[sample], shape)):
                token = order[target]
                masks[sample, token] = torch.where(mask, 30.0, -30.0).view(shape)
                lesions[sample, token] = 30.0
                cosines[sample, token] = torch.where(own.has_phrase[sample][target], 1.0, -1.0)
                log_gate[sample, :, token] = torch.where(own.query_fits[sample][:, target] == YES, 0.0, -30.0)
        scales.append(ScaleOutput(masks, lesions, torch.zeros(2, num_tokens, NUM_ASPECTS, 6)))
        similarity.append(cosines)
    dense = torch.zeros(2, shape.numel(), len(PHRASE_ASPECT))
    for sample in range(2):
        for target, mask in enumerate(pool_any(own.lesion_masks[sample], shape)):
            dense[sample, mask] = torch.where(own.has_phrase[sample][target], 1.0, -1.0)
    nothing = torch.zeros(0)
    output = MaleniaOutput([], nothing, scales, similarity, log_gate, dense, nothing, nothing)
    terms = terms_of_tokens(output, targets, torch.tensor(PHRASE_ASPECT), 0.1)
    for name, term in terms.items():
        assert term.item() == pytest.approx(0, abs=1e-4), name


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_tokens", [1, 4])
def test_a_batch_has_the_token_terms_of_its_samples_one_by_one(seed, num_tokens):
    labels = np.stack([patch(kind) for kind in ("single voxel", "empty", "two lesions", "two lesions")])
    labels[3, :, :, :4] = IGNORE
    net = tiny_net(replace(CONFIG, num_tokens=num_tokens))
    with torch.no_grad():
        terms, output, targets = loss_terms(net, labels, ["a", "b", "partial", "c"], seed=seed, own_space=space([1, 3]))
        own = by_sample(targets)
        expected = token_terms_loop(output, own, net.trained_aspect, net.config.temperature, aspect_contrast)
    assert [len(masks) for masks in own.lesion_masks] == [1, 0, 1, 2]
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-5, atol=1e-5)


def test_query_terms_are_dice_and_cross_entropy_pooled_over_the_queries_of_the_batch():
    _, output, targets = loss_terms(
        tiny_net(CONFIG), np.stack([patch("two lesions"), patch("empty")]), ["partial", "b"], own_space=space([1, 3])
    )
    terms = terms_of_queries(output, targets, LESION_CHANNELS)
    shape = output.scales[-1].mask_logits.shape[2:]
    own = by_sample(targets)
    target, known = own.query_target.flatten(2).flatten(0, 1), own.query_known.flatten(2).flatten(0, 1)
    evidence = F.adaptive_max_pool3d(output.any_lesion.double(), shape).flatten(1)
    in_lesion = target.view(2, -1, target.shape[1])[:, :1].expand(output.text_fit.shape).flatten(0, 1)
    for name, fit in {
        "mask_branch": output.mask_fit.double(),
        "text_branch": output.text_fit.double().sigmoid(),
    }.items():
        probability = (evidence.sigmoid()[:, None] * fit).flatten(0, 1).clamp(1e-9, 1 - 1e-9)
        rows = [(probability / (1 - probability)).log().tolist(), target.tolist(), known.tolist()]
        expected = pooled_dice_loop(*rows) + masked_bce_loop(*rows)
        assert terms[name].item() == pytest.approx(expected, rel=1e-5)
    rows = [output.text_fit.flatten(0, 1).tolist(), target.tolist(), (known & in_lesion).tolist()]
    assert terms["text_match"].item() == pytest.approx(masked_bce_loop(*rows), rel=1e-5)
    share = output.class_logits[0].double()[:, 2:].softmax(1)[0, 1]  # only type 3 is drawn in the first case
    probability = torch.stack(
        [output.any_lesion[0].double().sigmoid() * share, output.any_lesion[1].double().sigmoid()]
    )
    rows = [(probability / (1 - probability)).log(), targets.any_lesion, ~targets.ignored]
    rows = [each.flatten(1).tolist() for each in rows]
    expected = pooled_dice_loop(*rows) + masked_bce_loop(*rows)
    assert terms["any_lesion"].item() == pytest.approx(expected, rel=1e-4)


@given(seeds)
@few
def test_contrast_stays_within_an_aspect_and_leaves_unspecified_ones_alone(seed):
    rng = np.random.default_rng(seed)
    num_rows, num_phrases = 3, 9
    similarity = 2 * rng.random((num_rows, num_phrases)) - 1
    has = rng.random((num_rows, num_phrases)) < 0.3
    lacks = ~has & (rng.random((num_rows, num_phrases)) < 0.6)
    aspect = rng.integers(0, NUM_ASPECTS, num_phrases)
    rows = [
        [[values[row][v] for v in np.flatnonzero(aspect == a)] for values in (similarity, has, lacks)]
        for row in range(num_rows)
        for a in range(NUM_ASPECTS)
    ]
    expected = mp_nce_loop(*zip(*rows, strict=True), 0.1)
    loss = aspect_contrast(*(torch.from_numpy(each) for each in (similarity, has, lacks, aspect)), 0.1)
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_the_single_positive_is_one_phrase_of_the_lesion_against_all_others():
    similarity = torch.tensor([[0.5, -0.2, 0.1, 0.4], [0.3, 0.3, 0.3, 0.3]])
    has = torch.tensor([[True, False, True, False], [False] * 4])
    away = [similarity[0, [v for v in range(4) if v != chosen]].div(0.1).exp().sum() for chosen in (0, 2)]
    expected = [float(torch.log1p(a / similarity[0, c].div(0.1).exp())) for a, c in zip(away, (0, 2), strict=True)]
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        loss = single_positive_contrast(similarity, has, ~has, torch.arange(4), 0.1).item()
        seen |= {i for i, value in enumerate(expected) if loss == pytest.approx(value, rel=1e-5)}
        assert any(loss == pytest.approx(value, rel=1e-5) for value in expected)
    assert seen == {0, 1}  # drawn anew each time; the row without a phrase never counts


# ---------------------------------------------------------------- partial labels and the ordinary head


def logits_and_annotated(seed, num_classes=5):
    rng = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, num_classes, 2, 3, 4, generator=rng)
    annotated = torch.rand(2, num_classes, generator=rng) < 0.6
    annotated[:, 0] = True
    return logits, annotated


def annotated_target(annotated, seed):
    """A label map that holds annotated classes only."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([rng.choice(np.flatnonzero(row), (2, 3, 4)) for row in annotated.numpy()]))


@given(seeds)
@few
def test_the_marginal_loss_agrees_with_the_loop(seed):
    logits, annotated = logits_and_annotated(seed)
    target = annotated_target(annotated, seed)
    loss = F.cross_entropy(marginalise(logits, annotated, has_regions=False), target, reduction="none").mean((1, 2, 3))
    for sample in range(2):
        rows = logits[sample].flatten(1).T.tolist()
        expected = marginal_cross_entropy_loop(rows, target[sample].flatten().tolist(), annotated[sample].tolist())
        assert loss[sample].item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_background_voxels_favour_background_and_unannotated_classes_together():
    logits, annotated = logits_and_annotated(0)
    annotated[:, [2, 4]] = False
    annotated[:, [1, 3]] = True
    logits.requires_grad_()
    target = torch.zeros(2, 2, 3, 4, dtype=torch.int64)
    F.cross_entropy(marginalise(logits, annotated, has_regions=False), target).backward()
    assert (logits.grad[:, [0, 2, 4]] < 0).all()  # a step of descent raises all three
    assert (logits.grad[:, [1, 3]] > 0).all()
    share = logits.grad[:, [0, 2, 4]] / logits.detach()[:, [0, 2, 4]].exp()
    torch.testing.assert_close(share, share[:, :1].expand_as(share), rtol=1e-3, atol=1e-6)  # none against another


def test_with_everything_annotated_logits_stay_as_they_are():
    logits, annotated = logits_and_annotated(0)
    for has_regions in (False, True):
        assert torch.equal(marginalise(logits, torch.ones_like(annotated), has_regions=has_regions), logits)


def test_a_fully_annotated_sample_is_not_changed_by_its_neighbour():
    logits, annotated = logits_and_annotated(0)
    annotated[0], annotated[1, 2] = True, False
    for has_regions in (False, True):
        changed = marginalise(logits, annotated, has_regions=has_regions)
        torch.testing.assert_close(changed[0], logits[0])
        assert not torch.equal(changed[1], logits[1])


@pytest.mark.parametrize("shift", [-60.0, -20.0, 20.0])
def test_the_marginal_loss_depends_on_differences_of_logits_only(shift):
    """As every softmax does: an unannotated class must not win because all logits happen to be low."""
    logits, annotated = logits_and_annotated(1)
    annotated[:, 3] = False
    target = annotated_target(annotated, 1)
    before, after = (
        F.cross_entropy(marginalise(x, annotated, has_regions=False), target) for x in (logits, logits + shift)
    )
    assert after.item() == pytest.approx(before.item(), rel=1e-4)


def test_a_region_that_is_not_annotated_gets_no_gradient_and_leaves_the_others_theirs():
    logits, annotated = logits_and_annotated(2)
    annotated[:] = torch.tensor([True, False, True, True, False])
    present = torch.rand(logits.shape, generator=torch.Generator().manual_seed(3)) < 0.3
    target = (present & annotated[:, :, None, None, None]).float()

    def gradient(change):
        leaf = logits.clone().requires_grad_()
        loss = nn.functional.binary_cross_entropy_with_logits(change(leaf), target, reduction="sum")
        loss.backward()
        return loss.item(), leaf.grad

    loss, partial = gradient(lambda x: marginalise(x, annotated, has_regions=True))
    _, full = gradient(lambda x: x)
    assert (partial[~annotated] == 0).all()
    assert torch.equal(partial[annotated], full[annotated])
    only_annotated = nn.functional.binary_cross_entropy_with_logits(
        logits[annotated], target[annotated], reduction="sum"
    )
    assert loss == pytest.approx(only_annotated.item(), rel=1e-5)

import math
from functools import partial

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from references.loss_loops import (
    lesion_loop,
    masked_bce_loop,
    match_loop,
    mp_nce_loop,
    pooled_dice_loop,
    rowwise_dice_loop,
)

from nnunetv2_malenia.training.losses import (
    combine,
    lesion_loss,
    mask_loss,
    masked_bce,
    match_loss,
    mp_nce,
    pair_loss,
    pooled_dice_loss,
)
from nnunetv2_malenia.training.matcher import dice_loss, pair_sums

gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
on_each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=gpu)])


def mask_pair_loss(logits, targets, known=None):
    """Every row a sample whose only token is matched with its only target."""
    bce, overlap, total = pair_sums(logits[:, None], targets[:, None], known)
    num_voxels = torch.full((len(logits),), logits.shape[1]) if known is None else known.sum(1)
    matched = torch.ones_like(bce, dtype=torch.bool)
    return pair_loss(bce, dice_loss(overlap, total), matched, num_voxels.to(bce.device)[:, None, None])


def mask_pair_loop(logits, targets, known):
    return rowwise_dice_loop(logits, targets, known) + masked_bce_loop(logits, targets, known)


def mask_loss_loop(logits, targets, known):
    return pooled_dice_loop(logits, targets, known) + masked_bce_loop(logits, targets, known)


on_each_mask_loss = pytest.mark.parametrize(
    ("loss", "loop"),
    [
        (pooled_dice_loss, pooled_dice_loop),
        (masked_bce, masked_bce_loop),
        (mask_loss, mask_loss_loop),
        (mask_pair_loss, mask_pair_loop),
    ],
)
mask_losses = (pooled_dice_loss, masked_bce, mask_loss, mask_pair_loss)
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=30, deadline=None)
to_five_digits = partial(pytest.approx, rel=1e-5, abs=1e-5)


def mask_sample(seed, num_rows=4, num_voxels=23):
    """Logits, targets and known, each (K, S); row 0 has an empty target, row 1 a full one."""
    rng = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(num_rows, num_voxels, generator=rng)
    targets = torch.rand(num_rows, num_voxels, generator=rng) < 0.4
    targets[:1], targets[1:2] = False, True
    return logits, targets, torch.rand(num_rows, num_voxels, generator=rng) < 0.8


def phrase_sample(seed, num_rows=5, num_phrases=11):
    """Cosines, positives and negatives, each (P, V); row 0 has no positive, row 1 only positives, row 2 no negative."""
    rng = torch.Generator().manual_seed(seed)
    similarity = 2 * torch.rand(num_rows, num_phrases, generator=rng) - 1
    kind = torch.randint(3, (num_rows, num_phrases), generator=rng)
    kind[:1], kind[1:2] = kind[:1] * 2, 1
    is_positive, is_negative = kind == 1, kind == 2
    is_negative[2:3] = False
    return similarity, is_positive, is_negative


def gradient(loss_of, logits):
    leaf = logits.detach().clone().requires_grad_()
    loss = loss_of(leaf)
    loss.backward()
    return loss, leaf.grad


# ---------------------------------------------------------------- MP-NCE


@on_each_device
@pytest.mark.parametrize("temperature", [1.0, 0.07, 0.01])
@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("num_rows", [0, 1, 2, 6])
def test_mp_nce_agrees_with_the_loop(num_rows, seed, temperature, device):
    inputs = phrase_sample(seed, num_rows)
    loss = mp_nce(*(tensor.to(device) for tensor in inputs), temperature=temperature)
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    expected = mp_nce_loop(*(tensor.tolist() for tensor in inputs), temperature)
    assert loss.item() == to_five_digits(expected)


def test_mp_nce_worked_by_hand():
    """At temperature 1, with e^similarity 1, 2, 4, 8.

    Row 0: positives 1 and 4, negatives 2 and 8, so -log 1/11 and -log 4/14. Row 1: positive 2, negative 8, so
    -log 2/10; its other two phrases are shared and say nothing. Row 2 has no positive and does not count.
    """
    similarity = torch.tensor([1.0, 2.0, 4.0, 8.0]).log().repeat(3, 1)
    is_positive = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    is_negative = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 1], [1, 1, 1, 1]], dtype=torch.bool)
    expected = ((math.log(11 / 1) + math.log(14 / 4)) / 2 + math.log(10 / 2)) / 2
    assert mp_nce(similarity, is_positive, is_negative, temperature=1.0).item() == pytest.approx(expected, rel=1e-6)


def test_at_temperature_one_hundredth_the_worst_case_costs_200_and_pulls_with_full_strength():
    """Cosine -1 to the only positive and 1 to the only negative: log(e^-100 + e^100) + 100 = 200, past float32 exp."""
    is_positive = torch.tensor([[True, False]])
    loss, grad = gradient(lambda s: mp_nce(s, is_positive, ~is_positive, temperature=0.01), torch.tensor([[-1.0, 1.0]]))
    assert loss.item() == pytest.approx(200)
    assert grad.tolist() == [[pytest.approx(-100), pytest.approx(100)]]


@pytest.mark.parametrize("temperature", [1.0, 0.01])
@pytest.mark.parametrize(
    ("positive", "negative"), [(0, 0), (0, 1), (1, 0)], ids=["no phrase used", "no positive", "all positive"]
)
def test_mp_nce_with_nothing_to_contrast_is_a_zero_that_backpropagates(positive, negative, temperature):
    similarity = phrase_sample(0)[0]
    is_positive = torch.full_like(similarity, positive, dtype=torch.bool)
    is_negative = torch.full_like(similarity, negative, dtype=torch.bool)
    loss, grad = gradient(lambda s: mp_nce(s, is_positive, is_negative, temperature=temperature), similarity)
    assert loss.item() == 0
    assert torch.equal(grad, torch.zeros_like(grad))


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_mp_nce_without_pairs_or_phrases_is_a_zero_that_backpropagates(shape):
    nothing = torch.zeros(shape, dtype=torch.bool)
    loss, grad = gradient(lambda s: mp_nce(s, nothing, nothing, temperature=0.1), torch.zeros(shape))
    assert loss.item() == 0
    assert grad.shape == shape


@few
@given(seed=seeds, temperature=st.sampled_from([1.0, 0.1, 0.01]))
def test_a_shared_attribute_gets_no_push_and_no_pull(seed, temperature):
    similarity, is_positive, is_negative = phrase_sample(seed)
    _, grad = gradient(lambda s: mp_nce(s, is_positive, is_negative, temperature=temperature), similarity)
    assert grad.isfinite().all()
    assert (grad[~is_positive & ~is_negative] == 0).all()
    assert (grad[is_positive] <= 0).all()
    assert (grad[is_negative] >= 0).all()


@few
@given(seed=seeds)
def test_one_positive_takes_no_part_in_the_contrast_of_another(seed):
    """Adding up each row's positives one by one gives the same as all at once: that is what MP stands for."""
    similarity, is_positive, is_negative = phrase_sample(seed, num_rows=1)
    is_negative = torch.rand(1, 11, generator=torch.Generator().manual_seed(seed)) < 0.5
    is_positive = ~is_negative
    assume(is_positive.any())
    one_by_one = []
    for phrase in is_positive[0].nonzero()[:, 0]:
        only = torch.zeros_like(is_positive)
        only[0, phrase] = True
        one_by_one.append(mp_nce(similarity, only, is_negative, temperature=0.2))
    at_once = mp_nce(similarity, is_positive, is_negative, temperature=0.2)
    torch.testing.assert_close(at_once, torch.stack(one_by_one).mean())


@few
@given(seed=seeds)
def test_mp_nce_is_the_same_in_any_order_of_rows_and_phrases(seed):
    inputs = phrase_sample(seed)
    rng = torch.Generator().manual_seed(seed)
    rows, phrases = torch.randperm(5, generator=rng), torch.randperm(11, generator=rng)
    shuffled = [tensor[rows][:, phrases] for tensor in inputs]
    torch.testing.assert_close(mp_nce(*shuffled, temperature=0.1), mp_nce(*inputs, temperature=0.1))


def test_mp_nce_refuses_what_it_cannot_mean():
    similarity, is_positive, is_negative = phrase_sample(0)
    with pytest.raises(ValueError, match=r"similarity \(5, 11\), is_positive \(5, 10\)"):
        mp_nce(similarity, is_positive[:, :10], is_negative, temperature=0.1)
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"temperature .* must be positive"):
            mp_nce(similarity, is_positive, is_negative, temperature=temperature)


# ---------------------------------------------------------------- masks


@on_each_device
@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("num_rows", [0, 1, 5])
@on_each_mask_loss
def test_mask_losses_agree_with_their_loops(loss, loop, num_rows, seed, device):
    logits, targets, known = mask_sample(seed, num_rows)
    lists = logits.tolist(), targets.tolist()
    here = logits.to(device), targets.to(device)
    assert loss(*here, known.to(device)).item() == to_five_digits(loop(*lists, known.tolist()))
    assert loss(*here).item() == to_five_digits(loop(*lists, torch.ones_like(known).tolist()))


def test_mask_losses_worked_by_hand():
    """Logits 0 and log 3 are probabilities 1/2 and 3/4; row 0 wants its first voxel, row 1 wants nothing."""
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    targets = torch.tensor([[True, False], [False, False]])
    row_0 = 1 - (2 * 3 / 4 + 1) / (3 / 4 + 1 / 2 + 1 + 1)
    row_1 = 1 - (0 + 1) / (1 / 2 + 1 / 2 + 0 + 1)
    pooled = 1 - (2 * 3 / 4 + 1) / (3 / 4 + 3 * 1 / 2 + 1 + 1)
    bce = (math.log(4 / 3) + 3 * math.log(2)) / 4
    assert pooled_dice_loss(logits, targets).item() == pytest.approx(pooled, rel=1e-6)
    assert masked_bce(logits, targets).item() == pytest.approx(bce, rel=1e-6)
    assert mask_loss(logits, targets).item() == pytest.approx(pooled + bce, rel=1e-6)
    assert mask_pair_loss(logits, targets).item() == pytest.approx((row_0 + row_1) / 2 + bce, rel=1e-6)


def test_with_only_one_voxel_known_only_that_voxel_counts():
    """The one known voxel has probability 3/4 and is wanted."""
    logits = torch.tensor([[math.log(3), 7.0, -7.0]])
    targets, known = torch.tensor([[True, False, True]]), torch.tensor([[True, False, False]])
    dice, bce = 1 - (2 * 3 / 4 + 1) / (3 / 4 + 1 + 1), math.log(4 / 3)
    assert pooled_dice_loss(logits, targets, known).item() == pytest.approx(dice, rel=1e-6)
    assert masked_bce(logits, targets, known).item() == pytest.approx(bce, rel=1e-6)
    for loss in (mask_loss, mask_pair_loss):
        assert loss(logits, targets, known).item() == pytest.approx(dice + bce, rel=1e-6)


def test_an_absent_query_that_is_wrong_costs_less_beside_a_present_one_that_is_right():
    """Why Dice is pooled: alone, eight false voxels cost 8/9; beside 100 right ones, 8/209."""
    logits = torch.full((2, 100), 40.0)
    logits[1, 8:] = -40
    targets = torch.tensor([True, False])[:, None].expand(2, 100)
    assert pooled_dice_loss(logits[1:], targets[1:]).item() == pytest.approx(8 / 9)
    assert pooled_dice_loss(logits, targets).item() == pytest.approx(8 / 209)
    assert dice_loss(*pair_sums(logits, targets, None)[1:]).diagonal().tolist() == pytest.approx([0, 8 / 9])


@on_each_mask_loss
def test_unknown_voxels_do_not_count_and_get_no_gradient(loss, loop):
    logits, targets, known = mask_sample(7)
    loss_before, _ = gradient(lambda x: loss(x, targets, known), logits)
    nonsense = logits.masked_fill(~known, torch.nan)
    loss_after, grad = gradient(lambda x: loss(x, targets ^ ~known, known), nonsense)
    assert torch.equal(loss_before, loss_after)
    assert (grad[~known] == 0).all()
    assert (grad[known] != 0).any()


@pytest.mark.parametrize("loss", mask_losses)
def test_a_mask_loss_without_rows_or_known_voxels_is_a_zero_that_backpropagates(loss):
    for num_rows in (0, 3):
        logits, targets, known = mask_sample(0, num_rows)
        value, grad = gradient(lambda x, t=targets, k=known: loss(x, t, torch.zeros_like(k)), logits)
        assert value.item() == 0
        assert torch.equal(grad, torch.zeros_like(logits))
    value, grad = gradient(lambda x: loss(x, targets[:0]), logits[:0])
    assert value.item() == 0
    assert grad.shape == (0, 23)


@pytest.mark.parametrize("loss", mask_losses)
def test_nothing_wanted_and_nothing_found_costs_nothing(loss):
    value, grad = gradient(lambda x: loss(x, torch.zeros(2, 9, dtype=torch.bool)), torch.full((2, 9), -40.0))
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert grad.isfinite().all()


LESIONS = {
    "empty": torch.zeros(2, 64, dtype=torch.bool),
    "single voxel": torch.arange(64).expand(2, 64) == 5,
    "full patch": torch.ones(2, 64, dtype=torch.bool),
}


@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        ("cpu", torch.bfloat16),
        ("cpu", torch.float16),
        pytest.param("cuda", torch.float16, marks=gpu),
        pytest.param("cuda", torch.bfloat16, marks=gpu),
    ],
    ids=str,
)
@pytest.mark.parametrize("level", [-60000.0, -30.0, 0.0, 30.0, 60000.0])
@pytest.mark.parametrize("lesion", LESIONS)
@pytest.mark.parametrize("loss", mask_losses)
def test_mask_losses_have_finite_gradients_under_autocast(loss, lesion, level, device, dtype):
    logits, targets = torch.full((2, 64), level, dtype=dtype, device=device), LESIONS[lesion].to(device)
    with torch.autocast(device, dtype=dtype):
        value, grad = gradient(lambda x: loss(x, targets), logits)
        expected = loss(logits.float(), targets)
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert grad.isfinite().all()
    torch.testing.assert_close(value, expected)
    if level == 0:
        assert (grad[targets] < 0).all()
        assert (grad[~targets] > 0).all()


@pytest.mark.parametrize(
    ("device", "dtype"),
    [("cpu", torch.bfloat16), ("cpu", torch.float16), pytest.param("cuda", torch.float16, marks=gpu)],
    ids=str,
)
def test_the_other_losses_compute_in_float32_under_autocast(device, dtype):
    similarity, is_positive, is_negative = (tensor.to(device) for tensor in phrase_sample(3))
    logits, is_matched, counts = (tensor.to(device) for tensor in mask_sample(3))
    losses = [
        (lambda s: mp_nce(s, is_positive, is_negative, temperature=0.01), similarity),
        (lambda x: lesion_loss(x, is_matched, counts), logits),
        (lambda g: match_loss(g, is_matched[0], counts[0]), -logits[0].abs()),
    ]
    for loss, values in losses:
        low = values.to(dtype)
        with torch.autocast(device, dtype=dtype):
            value, grad = gradient(loss, low)
        assert value.dtype == torch.float32
        assert grad.isfinite().all()
        assert (grad != 0).any()
        torch.testing.assert_close(value, loss(low.float()))


@few
@given(seed=seeds, size=st.integers(1, 30))
def test_dice_of_two_masks_is_symmetric_and_between_0_and_1(seed, size):
    rng = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, 3, size, generator=rng) < 0.5
    for loss in (pooled_dice_loss, lambda x, y: dice_loss(*pair_sums(x, y, None)[1:]).diagonal().mean()):
        there, back = (loss(torch.where(x, 50.0, -50.0), y).item() for x, y in ((a, b), (b, a)))
        assert there == pytest.approx(back, abs=1e-6)
        assert 0 <= there <= 1


@few
@given(seed=seeds)
def test_mask_losses_are_the_same_in_any_order_of_rows_and_voxels(seed):
    inputs = mask_sample(seed)
    rng = torch.Generator().manual_seed(seed)
    rows, voxels = torch.randperm(4, generator=rng), torch.randperm(23, generator=rng)
    shuffled = [tensor[rows][:, voxels] for tensor in inputs]
    for loss in mask_losses:
        torch.testing.assert_close(loss(*shuffled), loss(*inputs))


@pytest.mark.parametrize("loss", [pooled_dice_loss, masked_bce, mask_loss])
def test_mask_losses_refuse_shapes_that_would_broadcast(loss):
    logits, targets, known = mask_sample(0)
    with pytest.raises(ValueError, match=r"logits \(4, 23\), targets \(1, 23\)"):
        loss(logits, targets[:1])
    with pytest.raises(ValueError, match=r"known \(1, 23\)"):
        loss(logits, targets, known[:1])


def test_losses_of_scales_and_branches_at_once_are_those_of_each_alone():
    samples = [mask_sample(seed) for seed in range(3)]
    together = [torch.stack(each) for each in zip(*samples, strict=True)]
    for loss in (pooled_dice_loss, masked_bce, mask_loss, lesion_loss):
        torch.testing.assert_close(loss(*together), torch.stack([loss(*alone) for alone in samples]))
    samples = [phrase_sample(seed) for seed in range(3)]
    together = mp_nce(*(torch.stack(each) for each in zip(*samples, strict=True)), temperature=0.1)
    torch.testing.assert_close(together, torch.stack([mp_nce(*alone, temperature=0.1) for alone in samples]))


# ---------------------------------------------------------------- lesion score and match


@on_each_device
@pytest.mark.parametrize("unmatched_weight", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(25))
def test_lesion_loss_agrees_with_the_loop(seed, unmatched_weight, device):
    logits, is_matched, counts = mask_sample(seed, 3, 6)
    lists = logits.tolist(), is_matched.tolist()
    here = logits.to(device), is_matched.to(device)
    loss = lesion_loss(*here, counts.to(device), unmatched_weight=unmatched_weight)
    assert loss.item() == to_five_digits(lesion_loop(*lists, counts.tolist(), unmatched_weight))
    all_count = torch.ones_like(counts).tolist()
    assert lesion_loss(*here).item() == to_five_digits(lesion_loop(*lists, all_count, 0.1))


def test_lesion_loss_worked_by_hand():
    """Scores 3/4, 1/2 and 1/2, the first matched: log 4/3 with weight 1, log 2 twice with weight 1/10."""
    logits = torch.tensor([[math.log(3), 0.0, 0.0]])
    expected = (math.log(4 / 3) + 2 * math.log(2) / 10) / (1 + 2 / 10)
    loss = lesion_loss(logits, torch.tensor([[True, False, False]]))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_tokens_that_do_not_count_get_no_gradient():
    logits, is_matched, counts = mask_sample(5, 3, 6)
    _, grad = gradient(lambda x: lesion_loss(x, is_matched, counts), logits)
    assert torch.equal(grad != 0, counts)
    loss, grad = gradient(lambda x: lesion_loss(x, is_matched, torch.zeros_like(counts)), logits)
    assert loss.item() == 0
    assert torch.equal(grad, torch.zeros_like(grad))


def test_a_batch_without_lesions_still_teaches_every_token_to_say_no():
    loss, grad = gradient(lambda x: lesion_loss(x, torch.zeros(2, 4, dtype=torch.bool)), torch.zeros(2, 4))
    assert loss.item() == pytest.approx(math.log(2))
    assert (grad > 0).all()


def test_lesion_loss_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match=r"lesion_logits \(2, 4\), is_matched \(4,\)"):
        lesion_loss(torch.zeros(2, 4), torch.zeros(4, dtype=torch.bool))


@on_each_device
@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("size", [0, 1, 30])
def test_match_loss_agrees_with_the_loop(size, seed, device):
    rng = torch.Generator().manual_seed(seed)
    log_gate = -(10 ** (6 * torch.rand(size, generator=rng) - 4))  # from -1e-4 to -100
    fits, known = torch.rand(2, size, generator=rng) < 0.6
    loss = match_loss(log_gate.to(device), fits.to(device), known.to(device))
    assert loss.item() == to_five_digits(match_loop(log_gate.tolist(), fits.tolist(), known.tolist()))


def test_match_loss_worked_by_hand():
    """Probabilities 1/4 that fits, 1/4 that does not, and one that is not known."""
    log_gate = torch.tensor([0.25, 0.25, 0.9]).log()
    loss = match_loss(log_gate, torch.tensor([True, False, True]), torch.tensor([True, True, False]))
    assert loss.item() == pytest.approx((math.log(4) + math.log(4 / 3)) / 2, rel=1e-6)


@pytest.mark.parametrize("log_gate", [0.0, -1e-8, -1e-6, -50.0, -1e4])
@pytest.mark.parametrize("fits", [True, False])
def test_match_loss_is_finite_from_a_sure_match_to_none(log_gate, fits):
    loss, grad = gradient(lambda g: match_loss(g, torch.tensor([fits]), torch.tensor([True])), torch.tensor([log_gate]))
    assert loss.item() == to_five_digits(match_loop([torch.tensor(log_gate).item()], [fits], [True]))
    assert grad.isfinite().all()


def test_match_loss_without_a_known_pair_is_a_zero_that_backpropagates():
    for size in (0, 3):
        nothing = torch.zeros(size, dtype=torch.bool)
        loss, grad = gradient(lambda g, n=nothing: match_loss(g, n, n), -torch.arange(float(size)))
        assert loss.item() == 0
        assert torch.equal(grad, torch.zeros(size))


def test_match_loss_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match=r"log_gate \(3,\), fits \(1,\), known \(3,\)"):
        match_loss(torch.zeros(3), torch.zeros(1, dtype=torch.bool), torch.zeros(3, dtype=torch.bool))


# ---------------------------------------------------------------- their sum


def test_terms_are_summed_by_weight():
    mask, score = torch.tensor(3.0, requires_grad=True), torch.tensor(5.0, requires_grad=True)
    loss = combine({"mask": mask, "score": score}, {"score": 0.5, "mask": 2.0})
    loss.backward()
    assert loss.item() == 2.0 * 3 + 0.5 * 5
    assert (mask.grad.item(), score.grad.item()) == (2.0, 0.5)


def test_a_term_without_a_weight_and_a_weight_without_a_term_are_named():
    one = torch.ones(())
    with pytest.raises(ValueError, match=r"terms without a weight \['mp_nec'\].*weights without a term \['mp_nce'\]"):
        combine({"mask": one, "mp_nec": one}, {"mask": 1.0, "mp_nce": 1.0})
    with pytest.raises(ValueError, match=r"terms without a weight \['lesion'\], weights without a term \[\]"):
        combine({"mask": one, "lesion": one}, {"mask": 1.0})
    with pytest.raises(ValueError, match=r"terms without a weight \[\], weights without a term \['lesion'\]"):
        combine({"mask": one}, {"mask": 1.0, "lesion": 0.0})

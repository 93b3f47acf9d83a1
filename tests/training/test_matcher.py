import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references.matcher_loops import least_total_cost, match_costs_loop
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.rnn import pad_sequence
from torch.overrides import TorchFunctionMode

from nnunetv2_malenia.training import matcher
from nnunetv2_malenia.training.matcher import assign, dice_loss, pair_sums

gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
on_each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=gpu)])
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=30, deadline=None)


def sample(seed, num_tokens=5, num_targets=3, num_voxels=21):
    """Mask logits (N, S), targets (M, S), known (S,), lesion logits (N,); every other sample knows all its voxels."""
    rng = torch.Generator().manual_seed(seed)
    mask_logits = 4 * torch.randn(num_tokens, num_voxels, generator=rng)
    targets = torch.rand(num_targets, num_voxels, generator=rng) < 0.4
    known = torch.rand(num_voxels, generator=rng) < 0.7 if seed % 2 else torch.ones(num_voxels, dtype=torch.bool)
    return mask_logits, targets, known, 2 * torch.randn(num_tokens, generator=rng)


def match_costs(mask_logits, targets, known, lesion_logits):
    """Of one sample, or of a batch."""
    bce, overlap, total = pair_sums(mask_logits, targets, known)
    num_voxels = mask_logits.shape[-1] if known is None else known.sum(-1).clamp(min=1)[..., None, None]
    return matcher.match_costs(bce, dice_loss(overlap, total), num_voxels, lesion_logits)


def pairs_of(cost):
    """{(token, target)} of one matrix (N, M)."""
    is_matched = assign(cost[None, None], np.ones((1, cost.shape[1]), dtype=bool))
    return {tuple(pair) for pair in is_matched[0, 0].nonzero().tolist()}


# ---------------------------------------------------------------- costs


@on_each_device
@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize(("num_tokens", "num_targets"), [(5, 3), (2, 4), (1, 1)])
def test_costs_agree_with_the_loop(seed, num_tokens, num_targets, device):
    inputs = sample(seed, num_tokens, num_targets)
    cost = match_costs(*(tensor.to(device) for tensor in inputs))
    assert cost.dtype == torch.float32
    np.testing.assert_allclose(
        cost.cpu().numpy(), match_costs_loop(*(tensor.tolist() for tensor in inputs)), rtol=1e-5, atol=1e-5
    )


@on_each_device
@pytest.mark.parametrize("seed", range(10))
def test_a_padded_batch_costs_what_its_samples_cost(seed, device):
    samples = [sample(2 * seed + i, num_targets=num_targets) for i, num_targets in enumerate((3, 0, 1))]
    mask_logits, targets, known, lesion_logits = zip(*samples, strict=True)
    batch = torch.stack(mask_logits), pad_sequence(targets, batch_first=True), torch.stack(known)
    costs = match_costs(*(tensor.to(device) for tensor in (*batch, torch.stack(lesion_logits))))
    for cost, inputs in zip(costs, samples, strict=True):
        num_targets = len(inputs[1])
        expected = match_costs_loop(*(tensor.tolist() for tensor in inputs))
        np.testing.assert_allclose(cost[:, :num_targets].cpu().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_a_cost_worked_by_hand():
    """Logits 0 give p = 1/2 in 4 voxels and cost log 2 each; the target has 1 voxel; a lesion logit of 0 scores 1/2."""
    targets = torch.tensor([[True, False, False, False]])
    cost = match_costs(torch.zeros(1, 4), targets, None, torch.zeros(1))
    dice = (2 * (1 / 2) + 1) / (4 / 2 + 1 + 1)
    assert cost.item() == pytest.approx(5 * np.log(2) + 5 * (1 - dice) - 2 * (1 / 2), rel=1e-6)


def test_a_sure_and_right_token_costs_only_its_lesion_score():
    targets = torch.tensor([[True, False, True]])
    cost = match_costs(torch.tensor([[50.0, -50.0, 50.0]]), targets, None, torch.tensor([50.0]))
    assert cost.item() == pytest.approx(0 + 0 - 2 * 1, abs=1e-6)


def test_targets_may_be_float():
    mask_logits, targets, known, lesion_logits = sample(1)
    bool_cost = match_costs(mask_logits, targets, known, lesion_logits)
    assert torch.equal(bool_cost, match_costs(mask_logits, targets.double(), known, lesion_logits))


@pytest.mark.parametrize("nonsense", [1e4, -300.0, torch.inf, torch.nan])
def test_unknown_voxels_do_not_count(nonsense):
    mask_logits, targets, known, lesion_logits = sample(1)
    assert not known.all()
    elsewhere = match_costs(mask_logits[:, known], targets[:, known], None, lesion_logits)
    changed = mask_logits.masked_fill(~known, nonsense), targets ^ ~known
    torch.testing.assert_close(match_costs(*changed, known, lesion_logits), elsewhere)


def test_without_a_known_voxel_only_the_lesion_score_counts():
    mask_logits, targets, known, lesion_logits = sample(0)
    cost = match_costs(mask_logits, targets, torch.zeros_like(known), lesion_logits)
    torch.testing.assert_close(cost, (-2 * lesion_logits.sigmoid())[:, None].expand(-1, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@on_each_device
def test_costs_are_computed_in_float32_under_autocast(dtype, device):
    mask_logits, targets, known, lesion_logits = (tensor.to(device) for tensor in sample(1, num_voxels=300))
    mask_logits, lesion_logits = mask_logits.to(dtype), lesion_logits.to(dtype)
    expected = match_costs(mask_logits.float(), targets, known, lesion_logits.float())
    with torch.autocast(device, dtype=dtype):
        cost = match_costs(mask_logits, targets, known, lesion_logits)
    assert cost.dtype == torch.float32
    torch.testing.assert_close(cost, expected)


def test_a_token_that_says_nan_is_matched_last():
    mask_logits, targets, known, lesion_logits = sample(0, num_tokens=4, num_targets=3)
    mask_logits[1, 2] = torch.nan
    cost = match_costs(mask_logits, targets, known, lesion_logits)
    assert cost.isfinite().all()
    assert {token for token, _ in pairs_of(cost)} == {0, 2, 3}
    lesion_logits[2] = torch.nan
    cost = match_costs(mask_logits, targets, known, lesion_logits)
    assert cost.isfinite().all()
    assert {token for token, _ in pairs_of(cost)} > {0, 3}


def test_nan_costs_more_than_being_wrong_everywhere():
    wrong, nan = torch.full((1, 4), -torch.inf), torch.full((1, 4), torch.nan)
    cost = match_costs(torch.cat([nan, wrong]), torch.ones(1, 4, dtype=torch.bool), None, torch.zeros(2))
    assert cost[0] > cost[1]
    assert pairs_of(cost) == {(1, 0)}


@pytest.mark.parametrize("infinity", [torch.inf, 65504.0])
def test_infinite_logits_that_are_right_cost_nothing_and_wrong_ones_stay_finite(infinity):
    targets = torch.tensor([[True, False], [False, True]])
    sure = torch.tensor([[infinity, -infinity]], dtype=torch.float16)
    right, wrong = match_costs(sure, targets, None, torch.tensor([-torch.inf]))[0].tolist()
    assert right == pytest.approx(0, abs=1e-6)
    assert 1e4 < wrong < np.inf


def test_costs_carry_no_gradient():
    mask_logits, targets, known, lesion_logits = sample(0)
    assert not match_costs(mask_logits.requires_grad_(), targets, known, lesion_logits.requires_grad_()).requires_grad


def test_costs_never_need_a_value_on_the_host():
    """A fake tensor has a shape but no values: asking it for one, as .item() or indexing by a mask would, raises."""
    with FakeTensorMode():
        known = torch.ones(7, dtype=torch.bool)
        cost = match_costs(torch.randn(4, 7), torch.ones(2, 7, dtype=torch.bool), known, torch.randn(4))
        assert cost.shape == (4, 2)


# ---------------------------------------------------------------- assignment


@pytest.mark.parametrize(("num_tokens", "num_targets"), [(5, 3), (3, 5), (4, 4), (1, 2), (16, 2)])
def test_the_assignment_costs_as_little_as_any_pairing(num_tokens, num_targets):
    costs = torch.randn(4, 5, num_tokens, num_targets, generator=torch.Generator().manual_seed(num_tokens))
    is_matched = assign(costs, np.ones((5, num_targets), dtype=bool))
    assert (is_matched.sum(2) <= 1).all()
    assert (is_matched.sum(3) <= 1).all()
    assert (is_matched.sum((2, 3)) == min(num_tokens, num_targets)).all()
    for cost, pairs in zip(costs.flatten(0, 1), is_matched.flatten(0, 1), strict=True):
        assert cost[pairs].sum().item() == pytest.approx(
            least_total_cost(cost.tolist(), num_tokens, num_targets), abs=1e-5
        )


def test_an_assignment_worked_by_hand():
    """Token 0 is best for both targets, 1 + 4 < 2 + 9: it goes to the target that would lose more without it."""
    assert pairs_of(torch.tensor([[2.0, 1.0], [4.0, 9.0]])) == {(0, 1), (1, 0)}


def test_only_targets_that_a_sample_has_are_paired_each_with_the_token_that_it_would_get_alone():
    costs = torch.randn(3, 4, 4, 5, generator=torch.Generator().manual_seed(0))
    is_present = np.array([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 1, 0]], dtype=bool)
    is_matched = assign(costs, is_present)
    assert not is_matched[:, ~torch.from_numpy(is_present).any(1)].any()
    for scale, sample in np.ndindex(3, 4):
        here = np.flatnonzero(is_present[sample])
        alone = {(token, here[target]) for token, target in pairs_of(costs[scale, sample][:, here])}
        assert {tuple(pair) for pair in is_matched[scale, sample].nonzero().tolist()} == alone


def test_no_target_anywhere_gives_no_pairs():
    cost = match_costs(torch.randn(4, 9), torch.zeros(0, 9, dtype=torch.bool), None, torch.randn(4))
    assert cost.shape == (4, 0)
    assert pairs_of(cost) == set()


def test_a_nan_cost_is_refused():
    with pytest.raises(ValueError, match="invalid numeric entries"):
        pairs_of(torch.tensor([[torch.nan, 1.0]]))


def test_all_scales_and_samples_cross_to_the_host_together():
    class Crossings(TorchFunctionMode):
        count = 0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            self.count += getattr(function, "__name__", "") in {"cpu", "item", "tolist", "__bool__", "__float__"}
            return function(*args, **(kwargs or {}))

    with Crossings() as crossings:
        assign(torch.randn(3, 6, 4, 5), np.ones((6, 5), dtype=bool))
    assert crossings.count == 1


def assign_all(inputs):
    costs = torch.stack([match_costs(*tensors) for tensors in inputs])
    return assign(costs[None], np.ones((len(costs), costs.shape[2]), dtype=bool))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("always")
def test_on_a_gpu_a_step_waits_once():
    inputs = [[tensor.cuda() for tensor in sample(seed)] for seed in range(6)]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning, match="synchronizing") as waits:
            is_matched = assign_all(inputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([wait for wait in waits if "synchronizing" in str(wait.message)]) == 1
    assert is_matched.is_cuda


# ---------------------------------------------------------------- properties


@few
@given(seed=seeds, num_targets=st.integers(1, 7))
def test_permuting_tokens_permutes_the_assignment(seed, num_targets):
    mask_logits, targets, known, lesion_logits = sample(seed, num_targets=num_targets)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    straight = pairs_of(match_costs(mask_logits, targets, known, lesion_logits))
    permuted = pairs_of(match_costs(mask_logits[order], targets, known, lesion_logits[order]))
    assert {(order[token].item(), target) for token, target in permuted} == straight


@few
@given(seed=seeds, num_targets=st.integers(1, 7))
def test_permuting_targets_pairs_the_same_tokens_with_the_same_lesions(seed, num_targets):
    mask_logits, targets, known, lesion_logits = sample(seed, num_targets=num_targets)
    order = torch.randperm(num_targets, generator=torch.Generator().manual_seed(seed))
    lesions = [tuple(row) for row in (targets & known).tolist()]  # by content: two alike may be swapped
    straight = pairs_of(match_costs(mask_logits, targets, known, lesion_logits))
    permuted = pairs_of(match_costs(mask_logits, targets[order], known, lesion_logits))
    assert {(token, lesions[order[target]]) for token, target in permuted} == {
        (token, lesions[target]) for token, target in straight
    }


@few
@given(seed=seeds)
def test_a_token_that_shows_a_lesion_is_paired_with_it(seed):
    rng = torch.Generator().manual_seed(seed)
    targets = torch.eye(4, 12, dtype=torch.bool) | (torch.rand(4, 12, generator=rng) < 0.3)
    targets[:, :4] = torch.eye(4, dtype=torch.bool)  # no two alike
    order = torch.randperm(4, generator=rng)
    mask_logits = torch.cat([torch.randn(2, 12, generator=rng), torch.where(targets[order], 8.0, -8.0)])
    pairs = pairs_of(match_costs(mask_logits, targets, None, torch.randn(6, generator=rng)))
    assert pairs == {(2 + row, target) for row, target in enumerate(order.tolist())}

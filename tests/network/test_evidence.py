import itertools
from dataclasses import replace

import pytest
import torch
from references.evidence_loops import LEAST_WEIGHT, deviations_loop, statistics_loop, window_voxels
from tiny_net import CONFIG, image, tiny_net

from nnunetv2_malenia.network.aspect_heads import AspectEmbeddings
from nnunetv2_malenia.network.config import EVIDENCE_ASPECTS, NUM_ASPECTS
from nnunetv2_malenia.network.evidence import (
    evidence_dims,
    intensity_distribution,
    intensity_evidence,
    local_extremes,
    local_statistics,
)

close = torch.testing.assert_close
LEARNED = [0, 1, 6, 7]  # location, shape, relationship, specific features
WINDOWS = [(1, 3), (1, 3, 5), (3, 5, 7)]
EXTREMES = replace(CONFIG, extremes=True)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (1, 1, 1)])
def test_evidence_agrees_with_plain_loops(stride):
    level = (4, 3, 5)
    shape = tuple(n * s for n, s in zip(level, stride, strict=True))
    x, any_lesion = randn(1, 2, *shape), randn(1, *shape, seed=1)
    found = local_statistics(x, any_lesion, torch.Size(level))
    assert found.shape == (1, evidence_dims(CONFIG, 2)[EVIDENCE_ASPECTS[0]], *level)
    p = any_lesion[0].sigmoid()
    weights = (torch.ones_like(p), p + LEAST_WEIGHT, 1 - p + LEAST_WEIGHT)
    row = 0
    for weight, windows in zip(weights, WINDOWS, strict=True):
        for window in windows:
            for centre in itertools.product(*map(range, level)):
                for channel in range(2):
                    mean, spread = statistics_loop(x[0, channel], weight, centre, window, stride, level)
                    assert found[0, row + channel][centre].item() == pytest.approx(mean, abs=1e-4)
                    assert found[0, row + 2 + channel][centre].item() == pytest.approx(spread, abs=1e-3)
            row += 4
    assert row == found.shape[1]


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2)])
def test_extremes_agree_with_plain_loops(stride):
    level = (4, 3, 5)
    shape = tuple(n * s for n, s in zip(level, stride, strict=True))
    x, any_lesion = randn(1, 2, *shape), randn(1, *shape, seed=1)
    found = local_extremes(x, any_lesion, torch.Size(level))[0].unflatten(0, (2, 3, 2))  # sign, window, channel
    p = any_lesion[0].sigmoid()
    for channel in range(2):
        deviations = deviations_loop(x[0, channel], p, 5, stride, level)
        for (place, window), centre in itertools.product(enumerate((1, 3, 5)), itertools.product(*map(range, level))):
            inside = [deviations[v] for v in window_voxels(centre, window, stride, level)]
            largest, smallest = found[(slice(None), place, channel, *centre)].tolist()
            assert largest == pytest.approx(max(inside), abs=1e-4)
            assert smallest == pytest.approx(min(inside), abs=1e-4)


def test_a_speck_in_a_lesion_shows_in_its_extremes_and_one_beside_it_does_not():
    """A lesion of 0 and 64 voxels: one voxel of 64 in it lifts the mean to 1, so that it lies 63 above."""
    lesion = torch.zeros(1, 8, 8, 8)
    lesion[:, 2:6, 2:6, 2:6] = 1
    for speck, above in (((3, 3, 3), 63), ((1, 3, 3), 0)):
        x = torch.zeros(1, 1, 8, 8, 8)
        x[0, 0][speck] = 64
        largest = local_extremes(x, 60 * lesion - 30, torch.Size((4, 4, 4)))[0, 2, 1, 1, 1]  # window of five
        assert largest.item() == pytest.approx(above, abs=0.5)


def test_inside_and_outside_are_told_apart_whatever_lies_around():
    """A lesion of 3 in an organ of 1: the inside mean is 3, the outside mean 1, and neither is mixed."""
    lesion = torch.zeros(1, 8, 8, 8)
    lesion[:, 2:6, 2:6, 2:6] = 1
    x = (1 + 2 * lesion)[:, None]
    found = local_statistics(x, 60 * lesion - 30, torch.Size((4, 4, 4)))[0, :, 1, 1, 1]
    inside, outside = found[4], found[10]  # windows of one voxel, of three
    assert inside.item() == pytest.approx(3, abs=1e-2)
    assert outside.item() == pytest.approx(1, abs=1e-2)


def test_evidence_is_finite_in_an_even_image_and_where_everything_is_lesion():
    x, sure = torch.full((1, 1, 4, 4, 4), 5.0), torch.full((1, 4, 4, 4), 200.0)
    for any_lesion in (sure, -sure):
        evidence = intensity_evidence(EXTREMES, x, any_lesion, torch.Size((2, 2, 2)))
        assert all(each.isfinite().all() for each in evidence)


def test_no_gradient_goes_back_into_the_evidence_for_a_lesion():
    any_lesion = randn(1, 4, 4, 4).requires_grad_()
    evidence = intensity_evidence(EXTREMES, randn(1, 1, 4, 4, 4), any_lesion, torch.Size((2, 2, 2)))
    assert not any(each.requires_grad for each in evidence)


def test_the_distribution_is_the_share_of_voxels_above_each_level():
    x = torch.tensor([-3.0, -0.7, 0.2, 5.0]).view(1, 1, 1, 2, 2).repeat(2, 2, 1, 1, 1)
    expected = torch.tensor([0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25])  # above -2, -1, -0.5, 0, 0.5, ..., 3
    close(intensity_distribution(x), expected.repeat(2, 2))


def test_each_aspect_has_its_own_source():
    sources = [randn(1, 3, channels, seed=channels) for channels in (6, 4, 2)]
    evidence_dims = dict(zip(EVIDENCE_ASPECTS, (4, 2), strict=True))
    heads = AspectEmbeddings(torch.nn.Sequential(torch.nn.Linear(6, 8)), 8, evidence_dims, 5)

    def read(changed=None):
        features, near, far = (source + (i == changed) for i, source in enumerate(sources))
        return heads(features, near, far)

    before = read()
    assert before.shape == (1, 3, NUM_ASPECTS, 5)
    for changed, own in enumerate([LEARNED, *EVIDENCE_ASPECTS]):
        after = read(changed)
        for aspect in range(NUM_ASPECTS):
            assert torch.equal(before[:, :, aspect], after[:, :, aspect]) is (aspect not in own)


@pytest.mark.parametrize(("config", "learned"), [(CONFIG, LEARNED), (EXTREMES, LEARNED[:-1])])
def test_evidence_is_read_from_the_image_and_from_no_learned_feature(config, learned):
    net, x = tiny_net(config), image()
    for head in (net.lesion_head, net.coarse_lesion_head):  # so that features do not change the windows' weights
        torch.nn.init.zeros_(head.weight)
    seen = []
    net.dense_aspects.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        net(x)
        for parameter in [*net.encoder.parameters(), *net.decoder.parameters()]:
            parameter.add_(0.5)
        net(x)
    before, after = seen
    for aspect in range(NUM_ASPECTS):
        assert torch.equal(before[:, :, aspect], after[:, :, aspect]) is (aspect not in learned)


def test_extremes_need_evidence():
    with pytest.raises(ValueError, match="extremes are a part of evidence"):
        replace(EXTREMES, evidence=False)


def test_without_evidence_every_aspect_is_read_from_learned_features():
    net = tiny_net(replace(CONFIG, evidence=False))
    assert not [name for name, _ in net.named_parameters() if "evidence" in name]
    with torch.no_grad():
        assert net(image()).isfinite().all()

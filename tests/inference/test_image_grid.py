"""Boxes of the preprocessed grid come to lie in the image where nnU-Net puts the whole grid."""

import numpy as np
import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tiny_model import tiny_plans

from nnunetv2_malenia.inference.answers import image_probabilities
from nnunetv2_malenia.inference.image_grid import ImageGrid

ISOTROPIC, THICK = (1.5, 1.4, 1.4), (8.0, 1.4, 1.4)


def plans_of(spacing, forward):
    plans = tiny_plans()
    plans["configurations"]["3d_fullres"]["spacing"] = list(spacing)
    backward = [forward.index(axis) for axis in range(3)]
    manager = PlansManager(plans | {"transpose_forward": list(forward), "transpose_backward": backward})
    return manager, manager.get_configuration("3d_fullres")


def case(target, spacing, forward, *, shape=(11, 13, 12), seed=0):
    """A grid, logits on it, and nnU-Net's own map of their probabilities in an image; shape: axes as preprocessed."""
    plans, configuration = plans_of(target, forward)
    cropped = [[1, shape[0] - 1], [0, shape[1]], [2, shape[2] - 3]]
    inner = [high - low for low, high in cropped]
    properties = {
        "spacing": [spacing[forward.index(axis)] for axis in range(3)],
        "shape_before_cropping": shape,
        "shape_after_cropping_and_before_resampling": inner,
        "bbox_used_for_cropping": cropped,
    }
    grid_shape = [max(1, round(n * s / t)) for n, s, t in zip(inner, spacing, target, strict=True)]
    logits = np.random.default_rng(seed).normal(size=(1, *grid_shape)).astype(np.float32)
    peer = image_probabilities(logits, properties, plans, configuration)[0]
    return ImageGrid.of(grid_shape, properties, plans, configuration), logits[0], peer


CASES = [
    (ISOTROPIC, (2.5, 0.8, 0.9), (0, 1, 2)),
    (ISOTROPIC, (0.7, 2.1, 3.0), (2, 0, 1)),
    (ISOTROPIC, ISOTROPIC, (1, 2, 0)),
    (THICK, (5.0, 0.7, 0.8), (0, 1, 2)),
    (THICK, (8.0, 2.0, 2.0), (2, 1, 0)),
    (ISOTROPIC, (7.0, 0.7, 0.7), (0, 1, 2)),
]


@pytest.mark.parametrize(("target", "spacing", "forward"), CASES)
def test_the_whole_grid_lies_where_nnunet_puts_it(target, spacing, forward):
    grid, logits, peer = case(target, spacing, forward)
    whole = tuple(slice(0, size) for size in grid.shape)
    assert grid.image_shape == peer.shape
    box = grid.in_image(whole)
    np.testing.assert_allclose(1 / (1 + np.exp(-grid.resampled(logits, whole))), peer[box], atol=1e-5)
    outside = np.ones(peer.shape, bool)
    outside[box] = False
    assert (peer[outside] == 0).all()


@pytest.mark.parametrize(("target", "spacing", "forward"), CASES)
@pytest.mark.parametrize("corner", [(0, 0, 0), (1, 2, 3), (2, 1, 4)])
def test_a_box_is_a_part_of_the_whole(target, spacing, forward, corner):
    grid, logits, peer = case(target, spacing, forward, seed=1)
    box = tuple(slice(c, min(c + 4, size)) for c, size in zip(corner, grid.shape, strict=True))
    part, inside = grid.resampled(logits[box], box), grid.in_image(box)
    assert part.shape == peer[inside].shape
    np.testing.assert_allclose(1 / (1 + np.exp(-part)), peer[inside], atol=1e-5)


@pytest.mark.parametrize(("target", "spacing", "forward"), CASES)
def test_every_voxel_that_a_lesion_reaches_is_in_its_grown_box(target, spacing, forward):
    grid, logits, _ = case(target, spacing, forward)
    lesion = np.zeros(logits.shape, bool)
    lesion[tuple(slice(size // 3, 2 * size // 3 + 1) for size in grid.shape)] = True
    whole = tuple(slice(0, size) for size in grid.shape)
    grown = tuple(slice(max(0, size // 3 - 1), min(size, 2 * size // 3 + 2)) for size in grid.shape)
    in_whole = np.zeros(grid.image_shape)
    in_whole[grid.in_image(whole)] = grid.resampled(lesion, whole)
    in_box = np.zeros(grid.image_shape)
    in_box[grid.in_image(grown)] = grid.resampled(lesion[grown], grown)
    assert in_whole.max() > 0
    np.testing.assert_allclose(in_box, in_whole, atol=1e-6)

"""Where the network is asked again around lesions, and which of its answers belongs to which voxel."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from references.reading_loops import row_loop
from tiny_net import PATCH_SIZE, PHRASE_ASPECT, TEXT_DIM, image, tiny_net

from nnunetv2_malenia.inference.reading import SimilarityMap, block_of, read_similarity, tiles_around
from nnunetv2_malenia.network.malenia_net import Queries

PATCH, BLOCK = (8, 16, 24), (1, 2, 2)
SHAPE = (40, 80, 120)
PHRASES = (torch.randn(7, TEXT_DIM, generator=torch.Generator().manual_seed(1)), torch.tensor(PHRASE_ASPECT))


def mask_of(*boxes, shape=SHAPE):
    mask = np.zeros(shape, bool)
    for box in boxes:
        mask[box] = True
    return mask


def tiles(*boxes, shape=SHAPE):
    return tiles_around(mask_of(*boxes, shape=shape), PATCH, BLOCK)


def test_a_lesion_in_the_middle_has_one_tile_that_is_centred_on_it():
    assert tiles(np.s_[18:22, 36:44, 50:62]) == [(16, 32, 44)]
    assert tiles(np.s_[18:22, 37:44, 50:62]) == [(16, 32, 44)]  # centre 40.5: starts are multiples of the block


@pytest.mark.parametrize(
    ("box", "start"),
    [
        (np.s_[0:1, 0:1, 0:1], (0, 0, 0)),
        (np.s_[39:40, 79:80, 119:120], (32, 64, 96)),
        (np.s_[0:4, 36:44, 116:120], (0, 32, 96)),
    ],
)
def test_a_lesion_at_the_border_has_a_tile_that_ends_there(box, start):
    assert tiles(box) == [start]


def test_a_lesion_larger_than_a_tile_has_tiles_half_a_tile_apart_over_all_of_it():
    found = tiles(np.s_[18:22, 20:60, 50:62])
    assert found == [(16, start, 44) for start in (20, 28, 36, 44)]  # 24 voxels more than a tile are three half tiles
    found = tiles(np.s_[10:27, 20:60, 50:62])
    starts = [sorted({start[axis] for start in found}) for axis in range(3)]
    assert found == list(product(*starts))
    assert (starts[0][0], starts[0][-1] + PATCH[0]) == (10, 27)
    assert all(later - earlier <= size / 2 for each, size in zip(starts, PATCH, strict=True)
               for earlier, later in pairwise(each))  # fmt: skip


def test_a_lesion_in_the_middle_half_of_a_tile_that_is_there_needs_no_tile_of_its_own():
    large, near = np.s_[18:22, 36:44, 50:62], np.s_[19:20, 38:40, 63:65]  # the middle half of x is 50 to 62
    assert tiles(large, np.s_[20:21, 38:40, 46:48]) == [(16, 32, 44), (16, 32, 36)]
    assert tiles(np.s_[18:22, 36:44, 50:58], np.s_[20:21, 38:40, 59:60]) == [(16, 32, 42)]  # middle half: 48 to 60
    assert tiles(near, large) == [(16, 32, 44), (16, 32, 52)]  # the largest comes first
    assert tiles(large, np.s_[2:4, 70:72, 100:104]) == [(16, 32, 44), (0, 64, 90)]


def test_a_lesion_of_a_tiles_extent_off_the_blocks_grid_is_covered_to_both_ends():
    assert tiles(np.s_[18:22, 36:44, 51:75]) == [(16, 32, 50), (16, 32, 52)]


def test_no_lesion_no_tile():
    assert tiles() == []


@pytest.mark.parametrize("seed", range(5))
def test_every_lesion_voxel_lies_in_a_tile_and_every_tile_in_the_image(seed):
    rng = np.random.default_rng(seed)
    boxes = [tuple(slice(low, low + rng.integers(1, 40)) for low in rng.integers(0, SHAPE)) for _ in range(4)]
    mask, covered = mask_of(*boxes), np.zeros(SHAPE, bool)
    for start in tiles_around(mask, PATCH, BLOCK):
        assert all(s % b == 0 and 0 <= s <= n - p for s, b, n, p in zip(start, BLOCK, SHAPE, PATCH, strict=True))
        covered[tuple(slice(s, s + p) for s, p in zip(start, PATCH, strict=True))] = True
    assert mask.any()
    assert not (mask & ~covered).any()


def test_a_block_is_what_the_finest_token_level_has_lost_of_the_resolution():
    net = tiny_net()
    with torch.no_grad():
        finest = net(image(), Queries(*PHRASES, *[torch.zeros(1, 1, 7, dtype=torch.bool)] * 2)).scales[-1]
    assert block_of(net) == tuple(np.divide(PATCH_SIZE, finest.mask_logits.shape[2:]))
    assert block_of(net) != (1, 1, 1)


@pytest.mark.parametrize("transpose_forward", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_rows_are_those_of_plain_loops(transpose_forward):
    """Cropped on all sides, made finer in one axis, coarser in another."""
    rng = np.random.default_rng(0)
    shape_as_read, block, grid_shape = (9, 12, 14), (1, 2, 4), (13, 6, 11)
    transposed = [shape_as_read[axis] for axis in transpose_forward]
    bounds = [[1 + axis, size - 2] for axis, size in enumerate(transposed)]
    row = rng.permutation(np.arange(-10, 13 * 3 * 3 - 10)).clip(-1).reshape(13, 3, 3)
    reading = SimilarityMap(row, np.zeros((1, 1)), np.zeros((1, 2)), block, grid_shape)
    voxels = np.argwhere(np.ones(shape_as_read))
    rows = reading.rows_at(voxels, {"bbox_used_for_cropping": bounds}, transpose_forward)
    expected = [row_loop(row, block, grid_shape, voxel, bounds, transpose_forward) for voxel in voxels.tolist()]
    assert rows.tolist() == expected
    assert len(set(expected)) > 40
    assert min(expected) == -1


def ask(net, tile):
    nothing = torch.zeros(1, 1, len(PHRASE_ASPECT), dtype=torch.bool)
    with torch.no_grad():
        return net(tile[None], Queries(*PHRASES, nothing, nothing))


def read(nets, ct, mask):
    with torch.no_grad():
        return read_similarity(nets, PHRASES, ct, torch.from_numpy(mask), PATCH_SIZE)


def test_in_one_tile_similarities_and_tokens_are_the_nets_own():
    net, ct = tiny_net(), image()[0]
    reading = read([net], ct, mask_of(np.s_[2:5, 6:9, 10:13], shape=PATCH_SIZE))
    output = ask(net, ct)
    block = block_of(net)
    assert reading.row.shape == tuple(np.floor_divide(PATCH_SIZE, block))
    assert (reading.grid_shape, reading.block) == (PATCH_SIZE, block)
    # the coarse voxels of the mask and their neighbours were read, and no other
    near = np.zeros(reading.row.shape, bool)
    near[tuple(slice(max(low // b - 1, 0), (high - 1) // b + 2)
               for (low, high), b in zip([(2, 5), (6, 9), (10, 13)], block, strict=True))] = True  # fmt: skip
    np.testing.assert_array_equal(reading.row >= 0, near)
    assert sorted(reading.row[near]) == list(range(near.sum()))
    own = output.dense_similarity[0].numpy().reshape(*near.shape, -1)
    np.testing.assert_allclose(reading.similarity[reading.row[near]], own[near], atol=1e-5)
    finest = output.scales[-1]
    held = (finest.mask_logits[0] + F.logsigmoid(finest.lesion_logits[0])[:, None, None, None]).argmax(0).numpy()
    np.testing.assert_array_equal(reading.token[reading.row[near], 1], held[near])
    assert set(reading.token[:, 0]) == {0}
    assert len(set(held[near])) > 1


def test_folds_are_averaged_and_the_first_says_which_token():
    first, second = tiny_net(), tiny_net(seed=1)
    ct, mask = image()[0], mask_of(np.s_[2:5, 6:9, 10:13], shape=PATCH_SIZE)
    both, one, other = read([first, second], ct, mask), read([first], ct, mask), read(iter([second]), ct, mask)
    assert np.abs(one.similarity - other.similarity).max() > 0.1
    np.testing.assert_allclose(both.similarity, (one.similarity + other.similarity) / 2, atol=1e-5)
    np.testing.assert_array_equal(both.token, one.token)


def test_where_tiles_overlap_their_answers_are_blended_and_the_more_central_tile_says_which_token():
    net = tiny_net()
    shape = (8, 16, 36)
    ct = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    mask = mask_of(np.s_[:, :, :], shape=shape)
    starts = tiles_around(mask, PATCH_SIZE, block_of(net))
    assert starts == [(0, 0, 0), (0, 0, 12)]
    reading, block = read([net], ct, mask), block_of(net)
    central = F.avg_pool3d(compute_gaussian(PATCH_SIZE, device=torch.device("cpu"), dtype=torch.float32)[None], block)
    outputs = [ask(net, ct[..., start[2] : start[2] + 24]) for start in starts]
    for z, y, x in [(3, 2, 0), (3, 2, 13 // block[2]), (3, 2, 20 // block[2]), (3, 2, 35 // block[2])]:
        total, weight, most = 0.0, 0.0, (0.0, -1)
        for number, (start, output) in enumerate(zip(starts, outputs, strict=True)):
            local = x - start[2] // block[2]
            if not 0 <= local < 24 // block[2]:
                continue
            share = float(central[0, z, y, local])
            own = output.dense_similarity[0].reshape(*np.floor_divide(PATCH_SIZE, block), -1)
            total, weight = total + share * own[z, y, local].numpy(), weight + share
            most = max(most, (share, number))
        row = reading.row[z, y, x]
        np.testing.assert_allclose(reading.similarity[row], total / weight, atol=1e-5)
        assert reading.token[row, 0] == most[1]


def test_an_image_smaller_than_a_tile_is_read_in_a_padded_one():
    net, shape = tiny_net(), (5, 11, 24)
    ct = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    reading = read([net], ct, mask_of(np.s_[2:3, 6:8, 10:12], shape=shape))
    output = ask(net, F.pad(ct, (0, 0, 0, 5, 0, 3)))
    own = output.dense_similarity[0].numpy().reshape(*reading.row.shape, -1)
    near = reading.row >= 0
    np.testing.assert_allclose(reading.similarity[reading.row[near]], own[near], atol=1e-5)
    assert reading.grid_shape == shape


def test_without_a_lesion_no_net_runs_and_nothing_is_read():
    net = tiny_net()
    net.forward = None
    reading = read([net], image()[0], mask_of(shape=PATCH_SIZE))
    assert (reading.row == -1).all()
    assert reading.similarity.shape == (0, 7)

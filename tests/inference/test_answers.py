"""Touching lesions are told apart by the mask tokens that hold them."""

import cc3d
import numpy as np

from nnunetv2_malenia.inference.answers import split_by_token
from nnunetv2_malenia.inference.lesions import Component


def component(tokens):
    """A component that starts at (2, 3, 4), and the token of each of its voxels; tokens (Z, Y, X): -1 outside."""
    voxels = tokens >= 0
    box = tuple(slice(start, start + size) for start, size in zip((2, 3, 4), voxels.shape, strict=True))
    return Component(box, voxels), np.arange(voxels.sum()), np.stack([np.zeros(voxels.sum(), int), tokens[voxels]], 1)


def test_two_tokens_make_two_connected_lesions_that_share_out_every_voxel():
    tokens = np.full((2, 4, 10), 5)
    tokens[..., 6:] = 9
    tokens[0, 0, 9] = 5  # a stray voxel inside the other's part
    tokens[1, 3, 0] = 7  # a token too small to be a lesion
    first, second = split_by_token(*component(tokens))
    assert (first.voxels.sum(), second.voxels.sum()) == (48, 32)
    assert first.box == (slice(2, 4), slice(3, 7), slice(4, 10))
    assert second.box == (slice(2, 4), slice(3, 7), slice(10, 14))
    assert all(cc3d.connected_components(part.voxels, return_N=True)[1] == 1 for part in (first, second))


def test_a_lesion_of_one_token_or_read_in_two_tiles_or_not_read_stays_whole():
    tokens = np.full((2, 4, 10), 5)
    whole, rows, token = component(tokens)
    assert split_by_token(whole, rows, token) == [whole]
    tokens[..., 5:] = 9
    whole, rows, token = component(tokens)
    token[:40, 0] = 1
    assert split_by_token(whole, rows, token) == [whole]
    whole, rows, token = component(tokens)
    rows[3] = -1
    assert split_by_token(whole, rows, token) == [whole]

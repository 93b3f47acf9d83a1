"""What the network reads where lesions are: phrase similarities, in one more pass of only the tiles around lesions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

import cc3d
import numpy as np
import torch
import torch.nn.functional as F
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from torch import Tensor

from nnunetv2_malenia.inference.lesions import Component
from nnunetv2_malenia.network.malenia_net import MaleniaNet, Queries

Start = tuple[int, int, int]


class SimilarityMap(NamedTuple):
    """Similarities of the voxels at and beside lesions, on the finest token level of the preprocessed grid.

    row (z, y, x) int32: a coarse voxel's row, -1 where nothing was read; similarity (K, V) float32: cosines, averaged
    over tiles and folds; token (K, 2) int64: the tile in which a voxel lies most centrally, and the mask token that
    holds it there; block: preprocessed voxels a coarse one, zyx; grid_shape: of the preprocessed image.
    """

    row: np.ndarray
    similarity: np.ndarray
    token: np.ndarray
    block: tuple[int, int, int]
    grid_shape: tuple[int, int, int]

    def rows_of(self, component: Component) -> np.ndarray:
        """Row of each voxel of a component of the preprocessed grid, in the order of argwhere -> (K,) int32."""
        coarse = (np.argwhere(component.voxels) + [side.start for side in component.box]) // self.block
        return self.row[tuple(coarse.T)]

    def rows_at(self, indices_zyx: np.ndarray, properties: dict, transpose_forward: Sequence[int]) -> np.ndarray:
        """Row of each voxel (K, 3) of the image as read, -1 where nothing was read -> (K,) int32.

        properties: what nnU-Net's preprocessor noted of its cropping and resampling.
        """
        bounds = np.array(properties["bbox_used_for_cropping"])
        cropped = indices_zyx[:, list(transpose_forward)] - bounds[:, 0]
        size = bounds[:, 1] - bounds[:, 0]
        inside = ((cropped >= 0) & (cropped < size)).all(axis=1)
        resampled = ((cropped + 0.5) * self.grid_shape / size).astype(int)
        coarse = np.clip(resampled // self.block, 0, np.array(self.row.shape) - 1)
        return np.where(inside, self.row[tuple(coarse.T)], -1)


def read_similarity(
    nets: Iterable[MaleniaNet],
    phrases: tuple[Tensor, Tensor],
    image: Tensor,
    mask: Tensor,
    patch_size: Sequence[int],
) -> SimilarityMap:
    """Read the aspects in tiles around the components of a mask.

    nets: the net with each fold's weights in turn; phrases: vectors (V, E_text) float32 and aspects (V,) int64; image
    (C, Z, Y, X) float32, preprocessed; mask (Z, Y, X) bool. Without any voxel in the mask no net runs.
    """
    vectors, aspects = phrases
    patch = tuple(patch_size)
    grid_shape = tuple(mask.shape)
    nets = iter(nets)
    net = next(nets)
    block = block_of(net)
    padding = [max(p, -(-size // b) * b) - size for size, p, b in zip(grid_shape, patch, block, strict=True)]
    pads = [side for pad in reversed(padding) for side in (0, pad)]
    image, mask = F.pad(image, pads), F.pad(mask, pads)
    near = F.max_pool3d(F.max_pool3d(mask[None, None].float(), block), 3, stride=1, padding=1)[0, 0] > 0
    row = np.full(near.shape, -1, np.int32)
    row[near.numpy()] = np.arange(int(near.sum()))
    total = np.zeros((int(near.sum()), len(aspects)), np.float32)
    weight, most = np.zeros(len(total), np.float32), np.zeros(len(total), np.float32)
    token = np.zeros((len(total), 2), np.int64)
    central = F.avg_pool3d(compute_gaussian(patch, dtype=torch.float32, device=torch.device("cpu"))[None, None], block)[
        0, 0
    ].numpy()
    tiles = tiles_around(mask.numpy(), patch, block)
    while net is not None and tiles:
        device = net.phrase_vectors.device
        nothing = torch.zeros(1, 1, len(aspects), dtype=torch.bool, device=device)
        queries = Queries(vectors.to(device), aspects.to(device), nothing, nothing)
        for number, start in enumerate(tiles):
            tile = image[(slice(None), *(slice(s, s + p) for s, p in zip(start, patch, strict=True)))]
            output = net(tile[None].to(device), queries)
            inside = row[tuple(slice(s // b, (s + p) // b) for s, p, b in zip(start, patch, block, strict=True))]
            rows, weights = inside[inside >= 0], central[inside >= 0]
            similarity = output.dense_similarity[0].float().cpu().numpy()
            total[rows] += weights[:, None] * similarity[inside.ravel() >= 0]
            weight[rows] += weights
            finest = output.scales[-1]
            held = (finest.mask_logits[0].flatten(1) + F.logsigmoid(finest.lesion_logits[0])[:, None]).argmax(0)
            better = weights > most[rows]
            token[rows[better], 0] = number
            token[rows[better], 1] = held.cpu().numpy()[inside.ravel() >= 0][better]
            most[rows] = np.maximum(most[rows], weights)
        net = next(nets, None)
    row[np.isin(row, np.flatnonzero(weight == 0))] = -1
    return SimilarityMap(row, total / np.maximum(weight, 1e-12)[:, None], token, block, grid_shape)


def block_of(net: MaleniaNet) -> tuple[int, int, int]:
    """Voxels of the patch in a voxel of the finest token level, zyx."""
    strides = net.encoder.strides[: len(net.encoder.strides) - net.levels[-1]]
    return tuple(int(np.prod([stride[axis] for stride in strides])) for axis in range(3))


def tiles_around(mask: np.ndarray, patch: Sequence[int], block: Sequence[int]) -> list[Start]:
    """Where tiles start that show each component of a mask (Z, Y, X): centred on it, or half a tile apart over it.

    Starts are multiples of `block`. A component in the middle half of a tile that is there needs no tile of its own.
    """
    labels, number = cc3d.connected_components(mask, connectivity=26, return_N=True)
    if number == 0:
        return []
    statistics = cc3d.statistics(labels)
    tiles: dict[Start, None] = {}
    for label in sorted(range(1, number + 1), key=lambda each: -int(statistics["voxel_counts"][each])):
        box = statistics["bounding_boxes"][label]
        if not any(_in_the_middle(box, start, patch) for start in tiles):
            tiles.update(dict.fromkeys(product(*map(_starts, box, mask.shape, patch, block))))
    return list(tiles)


def _in_the_middle(box: Sequence[slice], start: Start, patch: Sequence[int]) -> bool:
    return all(
        s + p // 4 <= side.start and side.stop <= s + p - p // 4 for side, s, p in zip(box, start, patch, strict=True)
    )


def _starts(side: slice, size: int, patch: int, block: int) -> list[int]:
    low, high = side.start // block * block, -(-side.stop // block) * block  # whole blocks, so that none is cut off
    count = 1 if high - low <= patch else -(-2 * (high - low - patch) // patch) + 1
    first, last = ((low + high - patch) / 2,) * 2 if count == 1 else (low, high - patch)
    starts = np.linspace(first, last, count)
    return sorted({int(np.clip(round(start / block) * block, 0, size - patch)) for start in starts})

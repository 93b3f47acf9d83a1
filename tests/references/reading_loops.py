"""Golden twin of SimilarityMap.rows_at: the way of a voxel from the image as read to the finest token level."""

from __future__ import annotations

import math


def row_loop(row, block, grid_shape, voxel, bounds, transpose_forward):
    """Row of a voxel's coarse voxel, -1 outside of the crop or where nothing was read.

    voxel: index in the image as read; bounds: low and high of the crop per axis, transposed; resampling keeps the
    outer edges of the cropped image, so that a voxel centre at share s of an axis stays at share s.
    """
    place = []
    for axis in range(3):
        low, high = bounds[axis]
        cropped = voxel[transpose_forward[axis]] - low
        if not 0 <= cropped < high - low:
            return -1
        share = (cropped + 0.5) / (high - low)
        place.append(math.floor(math.floor(share * grid_shape[axis]) / block[axis]))
    return row[place[0]][place[1]][place[2]]

"""Lesion measures by plain loops over voxels, in float64."""

from __future__ import annotations

import itertools
import math


def world(affine, x, y, z):
    return [sum(affine[i][j] * (x, y, z)[j] for j in range(3)) + affine[i][3] for i in range(3)]


def voxels_of(mask):
    """(x, y, z) of the voxels of a mask indexed z, y, x."""
    shape = range(mask.shape[2]), range(mask.shape[1]), range(mask.shape[0])
    return [(x, y, z) for x, y, z in itertools.product(*shape) if mask[z, y, x]]


def components_loop(mask):
    """Sets of (x, y, z) whose members touch in a face, edge or corner."""
    left, found = set(voxels_of(mask)), []
    while left:
        grown, border = set(), {left.pop()}
        while border:
            grown |= border
            border = {
                (x + i, y + j, z + k) for x, y, z in border for i, j, k in itertools.product((-1, 0, 1), repeat=3)
            } & left
            left -= border
        found.append(grown)
    return found


def longest_axial_diameter_loop(voxels, affine, slice_axis):
    """Longest distance between middles of voxel edges in one slice; slice_axis: 0, 1 or 2 for x, y or z."""
    others = [axis for axis in range(3) if axis != slice_axis]
    longest = 0.0
    for place in {voxel[slice_axis] for voxel in voxels}:
        points = []
        for voxel in voxels:
            if voxel[slice_axis] == place:
                for axis, step in itertools.product(others, (-0.5, 0.5)):
                    moved = list(voxel)
                    moved[axis] += step
                    points.append(world(affine, *moved))
        longest = max([longest, *(math.dist(a, b) for a, b in itertools.combinations(points, 2))])
    return longest


def box_loop(voxels, affine):
    """Least and greatest RAS coordinates of the voxels' corners."""
    corners = [
        world(affine, x + i, y + j, z + k) for x, y, z in voxels for i, j, k in itertools.product((-0.5, 0.5), repeat=3)
    ]
    return [min(c[axis] for c in corners) for axis in range(3)], [max(c[axis] for c in corners) for axis in range(3)]


def centre_loop(voxels, affine):
    points = [world(affine, *voxel) for voxel in voxels]
    return [sum(point[axis] for point in points) / len(points) for axis in range(3)]

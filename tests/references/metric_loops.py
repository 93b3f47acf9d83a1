"""Golden twins of evaluation/metrics.py: plain loops over voxels and surface elements, written from the definitions."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from skimage import measure


def dsc_loop(mask, reference) -> float:
    """Dice 1945, voxel by voxel."""
    both = only_one = 0
    for index in np.ndindex(*mask.shape):
        both += bool(mask[index]) and bool(reference[index])
        only_one += bool(mask[index]) != bool(reference[index])
    return 2 * both / (2 * both + only_one)


def surface_elements(mask, spacing) -> list[tuple[tuple[float, ...], float]]:
    """(position in mm, area in mm2) of the surface in every cell between eight voxel centres that it passes through.

    The triangles are those of marching cubes (Lorensen and Cline 1987), where a cell and its complement are one case;
    here they come from scikit-image, cell by cell.
    """
    padded = np.pad(mask, 1)
    elements = []
    for corner in product(*(range(size - 1) for size in padded.shape)):
        cell = padded[tuple(slice(start, start + 2) for start in corner)]
        count = int(cell.sum())
        if count in (0, 8):
            continue
        corners = ~cell if count > 4 else cell
        vertices, faces, *_ = measure.marching_cubes(
            corners.astype(float), 0.5, spacing=tuple(spacing), method="lorensen"
        )
        position = tuple(index * size for index, size in zip(corner, spacing, strict=True))
        elements.append((position, sum(triangle_area(*vertices[face].tolist()) for face in faces)))
    return elements


def triangle_area(a, b, c) -> float:
    u, v = [x - y for x, y in zip(b, a, strict=True)], [x - y for x, y in zip(c, a, strict=True)]
    normal = (u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0])
    return math.sqrt(sum(x * x for x in normal)) / 2


def nsd_loop(mask, reference, spacing, tolerance_mm) -> float:
    """Nikolov et al. 2021: every surface element of one mask against every one of the other."""
    surfaces = surface_elements(mask, spacing), surface_elements(reference, spacing)
    near = total = 0.0
    for one, other in (surfaces, surfaces[::-1]):
        for position, area in one:
            total += area
            if min(math.dist(position, place) for place, _ in other) <= tolerance_mm:
                near += area
    return near / total


def components_loop(mask) -> list[set[tuple[int, ...]]]:
    """Connected components with all 26 neighbours, by flood fill."""
    left = set(zip(*np.nonzero(mask), strict=True))
    components = []
    while left:
        front = {left.pop()}
        component = set(front)
        while front:
            x, y, z = front.pop()
            near = {(x + i, y + j, z + k) for i, j, k in product((-1, 0, 1), repeat=3)} & left
            left -= near
            front |= near
            component |= near
        components.append(component)
    return components


def lesion_counts_loop(mask, reference) -> tuple[int, int, int]:
    """Lesions of the reference, those with a predicted voxel, predicted components without a voxel of the reference."""
    lesions, predicted = components_loop(reference), components_loop(mask)
    found = sum(any(mask[voxel] for voxel in lesion) for lesion in lesions)
    return len(lesions), found, sum(not any(reference[voxel] for voxel in component) for component in predicted)


def presence_auc_loop(scores, present) -> float:
    """Every present case against every absent one; a tie is half a win."""
    wins = [
        (high > low) + 0.5 * (high == low)
        for high, is_present in zip(scores, present, strict=True)
        for low, is_other in zip(scores, present, strict=True)
        if is_present and not is_other
    ]
    return sum(wins) / len(wins)

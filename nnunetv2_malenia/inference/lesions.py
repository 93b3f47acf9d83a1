"""Lesions as connected components of query masks, and their measures in the patient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import cc3d
import nibabel as nib
import numpy as np
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from nnunetv2_malenia.inference.findings import (
    BoundingBox,
    Corners,
    Lesion,
    Position,
    SharedVoxels,
)

Box = tuple[slice, slice, slice]
SAME_LESION = 0.5  # of its voxels: one that shares more with better fitting lesions is no lesion of its own
_EDGE_MIDDLES = np.array([[-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]])


class Component(NamedTuple):
    """A connected component. box: its slices of the image in z, y, x; voxels: bool, of the box's shape."""

    box: Box
    voxels: np.ndarray


def find_components(mask: np.ndarray) -> list[Component]:
    """Components of a mask (Z, Y, X) bool, largest first. Voxels that touch in a face, edge or corner are connected."""
    if (around := _bounds(mask)) is None:
        return []
    labels, number = cc3d.connected_components(mask[around], connectivity=26, return_N=True)
    statistics = cc3d.statistics(labels)
    counts, boxes = statistics["voxel_counts"], statistics["bounding_boxes"]
    order = sorted(range(1, number + 1), key=lambda label: -int(counts[label]))
    return [Component(moved(boxes[label], around), labels[boxes[label]] == label) for label in order]


def _bounds(mask: np.ndarray) -> Box | None:
    """The least box that holds a mask; None for an empty one."""
    sides = []
    for axis in range(3):
        where = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        if where.size == 0:
            return None
        sides.append(slice(int(where[0]), int(where[-1]) + 1))
    return tuple(sides)


def moved(box: Box, origin: Box) -> Box:
    """A box inside another, in the coordinates that the other one is given in."""
    return tuple(slice(o.start + i.start, o.start + i.stop) for o, i in zip(origin, box, strict=True))


def common_voxels(component: Component, other: Component) -> int:
    """Number of voxels that two components share."""
    box = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(component.box, other.box, strict=True)]
    if any(side.start >= side.stop for side in box):
        return 0
    own, others = (
        each.voxels[tuple(slice(s.start - o.start, s.stop - o.start) for s, o in zip(box, each.box, strict=True))]
        for each in (component, other)
    )
    return int((own & others).sum())


def least_voxels(min_volume_ml: float, affine: np.ndarray) -> float:
    """Voxels of the least volume; a lesion of exactly that stays, whatever rounding makes of the quotient."""
    return min_volume_ml / voxel_ml(affine) * (1 - 1e-6)


def voxel_ml(affine: np.ndarray) -> float:
    """affine (4, 4): voxel indices to millimetres."""
    return abs(float(np.linalg.det(affine[:3, :3]))) / 1000


class ImageLesion(NamedTuple):
    """A lesion of a query in the image. presence_score: its highest probability; fit: how well the query describes it,
    for which a greater number is better; similarity (V,): mean under it, None where nothing was read."""

    component: Component
    presence_score: float
    fit: float = -np.inf
    similarity: np.ndarray | None = None


def measure_lesion(
    number: int,
    lesion: ImageLesion,
    others: Mapping[str, Sequence[ImageLesion]],
    affine: np.ndarray,
    shape: Sequence[int],
) -> Lesion:
    """A lesion's measures in the patient. others: of the other queries, by name; shape: of the image, (Z, Y, X)."""
    shared = {name: sum(common_voxels(lesion.component, o.component) for o in each) for name, each in others.items()}
    return Lesion(
        id=number,
        presence_score=lesion.presence_score,
        shared_with=tuple(SharedVoxels(query=name, voxels=count) for name, count in shared.items() if count),
        **_measures(lesion.component, affine, shape),
    )


def label_map(lesions: Sequence[Sequence[ImageLesion]], shape: Sequence[int]) -> np.ndarray:
    """(Z, Y, X): each voxel's query id, 0 where no query has a lesion. lesions: of each query.

    Where lesions of several queries share voxels, the query whose description fits best has the lesion, whole; one that
    loses more than SAME_LESION of its voxels to others is taken for the same lesion, and is not in the map.
    """
    labels = np.zeros(shape, np.uint8 if len(lesions) < 255 else np.uint16)
    each = [(lesion, i + 1) for i, found in enumerate(lesions) for lesion in found]
    for lesion, query_id in sorted(each, key=lambda pair: (-pair[0].fit, -pair[0].presence_score, pair[1])):
        voxels, view = lesion.component.voxels, labels[lesion.component.box]
        free = voxels & (view == 0)
        if free.sum() >= (1 - SAME_LESION) * voxels.sum():
            view[free] = query_id
    return labels


def without_overlap(lesions: Sequence[ImageLesion], shape: Sequence[int]) -> list[ImageLesion]:
    """The lesions, of which the first keeps a voxel that several hold; one that keeps none is left out."""
    taken, result = np.zeros(shape, bool), []
    for lesion in lesions:
        (box, voxels), view = lesion.component, taken[lesion.component.box]
        free = voxels & ~view
        if (inner := _bounds(free)) is not None:
            view |= free
            result.append(lesion._replace(component=Component(moved(inner, box), free[inner])))
    return result


def number_lesions(components: Iterable[Component], shape: Sequence[int]) -> np.ndarray:
    """(Z, Y, X): each voxel's lesion id, from 1, 0 where there is none."""
    components = list(components)
    labels = np.zeros(shape, np.uint8 if len(components) < 255 else np.uint16)
    for number, component in enumerate(components, start=1):
        labels[component.box][component.voxels] = number
    return labels


def longest_axial_diameter(component: Component, affine: np.ndarray) -> float:
    """Longest distance (mm) within one slice between middles of voxel edges: n voxels in a row measure n spacings.

    Slices are those of the array axis nearest to the patient's head-foot axis.
    """
    axial_axis = 2 - int(np.flatnonzero(nib.io_orientation(affine)[:, 0] == 2)[0])  # of the array z, y, x
    in_plane = np.delete(affine[:3, 2::-1], axial_axis, axis=1)  # (3, 2): steps of the remaining two array axes
    to_plane_mm = np.linalg.qr(in_plane)[1].T  # (2, 2): the same lengths and angles, without the third dimension
    return max(_diameter(slice_, to_plane_mm) for slice_ in np.moveaxis(component.voxels, axial_axis, 0))


def _diameter(pixels: np.ndarray, to_plane_mm: np.ndarray) -> float:
    rows = np.flatnonzero(pixels.any(axis=1))
    if rows.size == 0:
        return 0.0
    first = pixels[rows].argmax(axis=1)
    last = pixels.shape[1] - 1 - pixels[rows, ::-1].argmax(axis=1)
    ends = np.stack([np.tile(rows, 2), np.concatenate([first, last])], axis=1)  # no other pixel is a corner of the hull
    points = (ends[:, None] + _EDGE_MIDDLES).reshape(-1, 2) @ to_plane_mm
    return float(pdist(points[ConvexHull(points).vertices]).max())


def _measures(component: Component, affine: np.ndarray, shape: Sequence[int]) -> dict:
    indices_zyx = np.argwhere(component.voxels) + [side.start for side in component.box]
    points = indices_zyx[:, ::-1] @ affine[:3, :3].T + affine[:3, 3]
    half_voxel = np.abs(affine[:3, :3]).sum(axis=1) / 2
    low, high = points.min(axis=0) - half_voxel, points.max(axis=0) + half_voxel
    lps = np.array([-1, -1, 1])
    corners = np.sort([low * lps, high * lps], axis=0)
    centre = points.mean(axis=0)
    return {
        "volume_ml": len(points) * voxel_ml(affine),
        "longest_axial_diameter_mm": longest_axial_diameter(component, affine),
        "extent_mm": tuple((high - low).tolist()),
        "centre": Position(ras_mm=tuple(centre.tolist()), lps_mm=tuple((centre * lps).tolist())),
        "bounding_box": BoundingBox(
            ras_mm=Corners(min=tuple(low.tolist()), max=tuple(high.tolist())),
            lps_mm=Corners(min=tuple(corners[0].tolist()), max=tuple(corners[1].tolist())),
        ),
        "cut_by_border": any(
            side.start == 0 or side.stop == size for side, size in zip(component.box, shape, strict=True)
        ),
    }

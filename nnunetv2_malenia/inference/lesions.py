"""Lesions as connected components of query masks, and their measures in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cc3d
import nibabel as nib
import numpy as np
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from nnunetv2_malenia.attributes.schema import LesionQuery
from nnunetv2_malenia.inference.findings import (
    BoundingBox,
    Corners,
    Lesion,
    LesionFinding,
    Position,
    SharedVoxels,
)

_EDGE_MIDDLES = np.array([[-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]])


class Component(NamedTuple):
    """A connected component. box: its slices of the image in z, y, x; voxels: bool, of the box's shape."""

    box: tuple[slice, slice, slice]
    voxels: np.ndarray


def find_components(mask: np.ndarray, least_voxels: float) -> tuple[list[Component], int]:
    """Components of a mask (Z, Y, X) bool, largest first.

    Voxels that touch in a face, edge or corner are connected. Components of fewer than `least_voxels` are erased from
    `mask`, and counted in the second value.
    """
    labels, number = cc3d.connected_components(mask, connectivity=26, return_N=True)
    if number == 0:
        return [], 0
    statistics = cc3d.statistics(labels)
    counts, boxes = statistics["voxel_counts"], statistics["bounding_boxes"]
    found, erased = [], 0
    for label in sorted(range(1, number + 1), key=lambda label: -int(counts[label])):
        component = Component(boxes[label], labels[boxes[label]] == label)
        if counts[label] < least_voxels:
            mask[component.box][component.voxels] = False
            erased += 1
        else:
            found.append(component)
    return found, erased


def least_voxels(min_volume_ml: float, affine: np.ndarray) -> float:
    """Voxels of the least volume; a lesion of exactly that stays, whatever rounding makes of the quotient."""
    return min_volume_ml / voxel_ml(affine) * (1 - 1e-6)


def voxel_ml(affine: np.ndarray) -> float:
    """affine (4, 4): voxel indices to millimetres."""
    return abs(float(np.linalg.det(affine[:3, :3]))) / 1000


def measure_lesions(
    queries: Sequence[LesionQuery],
    seen: Sequence[bool | None],
    probabilities: np.ndarray,
    masks: np.ndarray,
    components: Sequence[tuple[list[Component], int]],
    affine: np.ndarray,
) -> list[LesionFinding]:
    """What each query's mask shows; components: of each mask, as `find_components` gives them."""
    findings = []
    for i, (query, is_seen, (found, erased)) in enumerate(zip(queries, seen, components, strict=True)):
        lesions = [
            Lesion(
                id=number + 1,
                presence_score=float(probabilities[i][component.box][component.voxels].max()),
                shared_with=_shared_with(component, i, masks, queries),
                **_measures(component, affine, masks.shape[1:]),
            )
            for number, component in enumerate(found)
        ]
        findings.append(
            LesionFinding(
                query_id=i + 1,
                name=query.name,
                seen_in_training=is_seen,
                presence_score=float(probabilities[i].max()),
                volume_ml=int(masks[i].sum()) * voxel_ml(affine),
                lesions=tuple(lesions),
                left_out=erased,
                attributes=query.attributes,
            )
        )
    return findings


def label_map(masks: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(Z, Y, X): each voxel's query id, 0 where no mask has it; where several do, the most probable, then the first."""
    best = np.zeros(masks.shape[1:], probabilities.dtype)
    labels = np.zeros(masks.shape[1:], np.uint8 if len(masks) < 255 else np.uint16)
    for i, (mask, probability) in enumerate(zip(masks, probabilities, strict=True)):
        better = mask & (probability > best)
        best[better] = probability[better]
        labels[better] = i + 1
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


def _shared_with(
    component: Component, own: int, masks: np.ndarray, queries: Sequence[LesionQuery]
) -> tuple[SharedVoxels, ...]:
    counts = [int((component.voxels & mask[component.box]).sum()) for mask in masks]
    return tuple(
        SharedVoxels(query=query.name, voxels=count)
        for i, (query, count) in enumerate(zip(queries, counts, strict=True))
        if count and i != own
    )

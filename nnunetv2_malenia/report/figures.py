"""Slices with the outlines of masks as SVG: what a report shows without WebGL, without scripts and on paper."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from matplotlib.image import imsave
from skimage.measure import find_contours

from nnunetv2_malenia.report.volumes import Pictured

# Okabe and Ito's colours, the ones that stand out on grey first, then others for long tables
COLOURS = ("#e69f00", "#56b4e9", "#f0e442", "#cc79a7", "#00b894", "#ff6b35", "#7aa2ff", "#b8e04a", "#ff8fab", "#9d7bff")
CT_WINDOW = (-160.0, 240.0)  # HU, soft tissue


@dataclass(frozen=True)
class Outline:
    """One mask's outline in a figure: an SVG path in the figure's millimetres."""

    query_id: int
    path: str


@dataclass(frozen=True)
class Slice:
    """A slice in radiological view: the patient's right at the left of the picture; anterior, or superior, on top.

    jpeg: base64; width_mm, height_mm: of the whole slice; left, right, top, bottom: letters of the patient's sides.
    """

    plane: str
    jpeg: str
    width_mm: float
    height_mm: float
    outlines: tuple[Outline, ...]
    left: str = "R"
    right: str = "L"

    @property
    def top(self) -> str:
        return "A" if self.plane == "axial" else "S"

    @property
    def bottom(self) -> str:
        return "P" if self.plane == "axial" else "I"


def colour_of(query_id: int) -> str:
    return COLOURS[(query_id - 1) % len(COLOURS)]


def window_of(case: Pictured) -> tuple[float, float]:
    """Intensities shown as black and white."""
    return CT_WINDOW if case.is_ct else tuple(np.percentile(case.image, (1, 99)).tolist())


def draw_slice(case: Pictured, plane: str, voxel: tuple[int, int, int]) -> Slice:
    """The axial or coronal slice through a voxel, with the outlines of all masks that it cuts."""
    axis = {"axial": 2, "coronal": 1}[plane]

    def seen(voxels: np.ndarray) -> np.ndarray:
        """(rows, columns): top to bottom, left to right."""
        return np.take(voxels, voxel[axis], axis=axis)[::-1, ::-1].T

    low, high = window_of(case)
    grey = np.clip((seen(case.image) - low) / max(high - low, 1e-6), 0, 1)
    jpeg = io.BytesIO()
    imsave(jpeg, np.repeat(grey[..., None], 3, axis=2), format="jpg", pil_kwargs={"quality": 85})
    column_mm, row_mm = np.delete(case.spacing_mm, axis).tolist()
    outlines = (
        Outline(query_id, path)
        for query_id, mask in case.masks.items()
        if (path := _outline(seen(mask), column_mm, row_mm))
    )
    return Slice(
        plane=plane,
        jpeg=base64.b64encode(jpeg.getvalue()).decode(),
        width_mm=grey.shape[1] * column_mm,
        height_mm=grey.shape[0] * row_mm,
        outlines=tuple(outlines),
    )


def _outline(mask: np.ndarray, column_mm: float, row_mm: float) -> str:
    lines = find_contours(np.pad(mask, 1).astype(np.uint8), 0.5)  # indices of the padded mask, at voxel centres
    return "".join(
        "M" + "L".join(f"{(column - 0.5) * column_mm:.1f} {(row - 0.5) * row_mm:.1f}" for row, column in line) + "Z"
        for line in lines
    )

"""A contact sheet: three planes through the largest lesion of each case, with lesions outlined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from nnunetv2_malenia.attributes.tables import read_table, resolve_label_attributes
from nnunetv2_malenia.files import write_whole
from nnunetv2_malenia.files.dataset_json import read_label_map
from nnunetv2_malenia.phantom.anatomy import PhantomError
from nnunetv2_malenia.phantom.volume import Volume, read_volume
from nnunetv2_malenia.volumes import grid_difference

_SOFT_WINDOW_HU, _LUNG_WINDOW_HU = (-160.0, 300.0), (-1000.0, 200.0)
_AROUND = 12  # voxels, whose median HU decides the window
_ENDING = ".nii.gz"


def write_sheet(folder: Path, output_file: Path, *, count: int = 6, pattern: str = "*") -> int:
    """Write a PNG with a row per case: axial, coronal and sagittal -> number of rows.

    folder: an nnU-Net raw data set (imagesTr and labelsTr), or CASE_0000.nii.gz beside CASE.nii.gz. Of a data set
    those labels are outlined that are lesions in its attributes.json or the Clinical Knowledge Table, of
    synthetic ones and others the synthetic ones; else all.
    A row's caption says what the case's entry there states of the largest lesion. pattern: of the case ids.
    The patient's right is on the left, as radiologists look at it.
    Raises PhantomError if there is no case, or one whose mask is on another grid.
    """
    images, labels = (folder / part if (folder / part).is_dir() else folder for part in ("imagesTr", "labelsTr"))
    cases = [path.name.removesuffix(f"_0000{_ENDING}") for path in sorted(images.glob(f"{pattern}_0000{_ENDING}"))][
        :count
    ]
    if not cases:
        raise PhantomError(f"{folder}: no {pattern}_0000{_ENDING} in it or its imagesTr; give a data set's folder")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4 * len(cases)), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(cases), 3, squeeze=False)
    lesion_values = _lesion_values(folder)
    for row, case_id in zip(rows, cases, strict=True):
        image, mask = read_volume(images / f"{case_id}_0000{_ENDING}"), read_volume(labels / f"{case_id}{_ENDING}")
        if difference := grid_difference(mask, image):
            raise PhantomError(f"{difference}; resample it to the image")
        lesions = mask.array if lesion_values is None else np.where(np.isin(mask.array, lesion_values), mask.array, 0)
        _draw_case(row, image, lesions)
        caption = _caption(folder, case_id, lesions)
        row[0].set_title(caption, color="white", loc="left", fontsize=10).set_in_layout(False)
    write_whole(output_file, lambda name: figure.savefig(name, dpi=80, format="png"))
    return len(cases)


def _lesion_values(folder: Path) -> list[int] | None:
    description = folder / "dataset.json"
    if not description.is_file():
        return None
    labels = read_label_map(description, error=PhantomError)
    table = folder / "attributes.json"
    known = read_table(table) if table.is_file() else None
    entries = resolve_label_attributes(labels, known)
    synthetic = [value for name, entry in entries.items() if not entry.stated for value in labels[name]]
    return synthetic or [value for name in entries for value in labels[name]]


def _caption(folder: Path, case_id: str, lesions: np.ndarray) -> str:
    """The case's id, and the attributes stated in it for its largest lesion."""
    if not (folder / "attributes.json").is_file() or not lesions.any():
        return case_id
    labels = read_label_map(folder / "dataset.json", error=PhantomError)
    table = read_table(folder / "attributes.json")
    shown = lesions[middle_of_largest(lesions)]
    names = [name for name, values in labels.items() if shown in values]
    name = min(names, key=lambda each: len(labels[each]))  # the narrowest region
    if table.find(name) is None:
        return case_id
    stated = ", ".join(value for _, value in table.attributes_of(name, case_id).phrases())
    return f"{case_id}: {name}: {stated}"


def _draw_case(axes: Sequence, image: Volume, lesions: np.ndarray) -> None:
    z, y, x = middle_of_largest(lesions)
    dz, dy, dx = image.grid.spacing_zyx
    # arrays grow to the right, front and head; seen from the feet, the front and the patient's left
    planes = (
        (lambda a: a[z, ::-1, ::-1], dy / dx),
        (lambda a: a[::-1, y, ::-1], dz / dx),
        (lambda a: a[::-1, ::-1, x], dz / dy),
    )
    low, high = window_at(image.array, (z, y, x))
    for axis, (cut, aspect) in zip(axes, planes, strict=True):
        axis.imshow(cut(image.array), cmap="gray", vmin=low, vmax=high, aspect=aspect)
        for value, colour in zip(
            np.unique(lesions)[1:], ("red", "lime", "cyan", "yellow", "magenta") * 9, strict=False
        ):
            if (where := cut(lesions == value)).any():
                axis.contour(where, [0.5], colors=colour, linewidths=0.8)
        axis.set_axis_off()


def window_at(image: np.ndarray, voxel_zyx: tuple[int, int, int]) -> tuple[float, float]:
    """Least and greatest HU to show around a voxel of a (Z, Y, X) image: lung or soft tissue."""
    around = image[tuple(slice(max(0, i - _AROUND), i + _AROUND) for i in voxel_zyx)]
    return _LUNG_WINDOW_HU if np.median(around) < -400 else _SOFT_WINDOW_HU


def middle_of_largest(lesions: np.ndarray) -> tuple[int, int, int]:
    """A voxel of the largest lesion, as near to its middle as can be; the middle of the volume without lesions."""
    parts, number = ndimage.label(lesions > 0)
    if not number:
        return tuple(n // 2 for n in lesions.shape)
    points = np.argwhere(parts == 1 + np.bincount(parts.ravel())[1:].argmax())
    return tuple(points[np.linalg.norm(points - points.mean(0), axis=1).argmin()].tolist())

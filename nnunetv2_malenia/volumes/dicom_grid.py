"""Whether slices are one regular volume: their order and their grid follow from where they lie in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnunetv2_malenia.volumes.errors import InputError

AIR = -1024  # Hounsfield units
PLACE_TOLERANCE = 0.1  # share of the distance between slices by which one may lie off its place
SIDEWAYS_TOLERANCE = 0.5  # of a pixel: how far a slice may lie beside the line along the normal
_OF_ALL_SLICES = {"0028|0010": "rows", "0028|0011": "columns", "0028|0030": "pixel spacing"}
_PASSES = {"0020|0012": "acquisition number", "0020|0100": "temporal position"}


class Grid(NamedTuple):
    """LPS millimetres, as SimpleITK has it; direction is (3, 3) by rows."""

    origin: tuple[float, ...]
    spacing: tuple[float, ...]
    direction: tuple[float, ...]


class Slice(NamedTuple):
    """tags: "group|element" -> text, of the top level of the file."""

    path: Path
    tags: dict[str, str]

    def text(self, tag: str) -> str:
        """For messages too: "?" stands for bytes that are not UTF-8, and for control characters."""
        return "".join(each if each.isprintable() else "?" for each in self.tags.get(tag, "").strip(" \0"))

    def numbers(self, tag: str) -> tuple[float, ...]:
        """() where there are none, or they are not finite."""
        try:
            numbers = tuple(float(number) for number in self.text(tag).split("\\"))
        except ValueError:
            return ()
        return numbers if all(map(isfinite, numbers)) else ()

    @property
    def position(self) -> tuple[float, ...]:
        """(3,), or () for an image without a place in the patient."""
        position, orientation = self.numbers("0020|0032"), self.numbers("0020|0037")
        return position if len(position) == 3 and len(orientation) == 6 else ()

    @property
    def frames(self) -> int:
        return int((self.numbers("0028|0008") or (1,))[0])

    @property
    def padding(self) -> tuple[float, ...]:
        """From and to which Hounsfield units a voxel may be padding; () where none is stated, or no more than air.

        Padding of signed voxels is stated as unsigned too, and the other way round.
        """
        stored = self.numbers("0028|0120")[:1] + self.numbers("0028|0121")[:1]
        (slope, *_), (intercept, *_) = self.numbers("0028|1053") or (1,), self.numbers("0028|1052") or (0,)
        count = 2 ** int((self.numbers("0028|0100") or (16,))[0])
        least = -count // 2 if self.text("0028|0103") == "1" else 0
        limits = [slope * ((value - least) % count + least) + intercept for value in stored]
        is_above_air = self.numbers("0028|0120") and max(limits) > AIR
        return (min(limits) - abs(slope) / 2, max(limits) + abs(slope) / 2) if is_above_air else ()


def sorted_on_grid(name: str, slices: Sequence[Slice]) -> tuple[list[Slice], Grid]:
    """Slices along their common normal, and their grid; the order in which they come does not matter.

    Raises InputError unless they have one size and pixel spacing, are parallel, lie at right angles to their line, at
    equal distances, one at each position, and are of one pass of the scanner.
    """
    _check_alike(name, slices)
    orientation = np.array([each.numbers("0020|0037") for each in slices])
    if np.abs(orientation - orientation[0]).max() > 1e-3:
        raise InputError(f"{name}: slices of different orientation; keep one volume in a folder")
    along = orientation[0].reshape(2, 3)
    if np.abs(along @ along.T - np.eye(2)).max() > 1e-3:
        raise InputError(f"{name}: rows and columns of the slices are not at right angles; export the series again")
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    normal = np.cross(*along)
    normal /= np.linalg.norm(normal)

    positions = np.array([each.position for each in slices])
    order = np.argsort(positions @ normal, kind="stable")
    slices, positions = [slices[i] for i in order], positions[order]
    row_step, column_step = slices[0].numbers("0028|0030")
    _check_one_pass(name, slices)
    spacing = _spacing(name, positions @ normal)
    _check_not_interleaved(name, slices)
    _check_line(name, positions - positions[0], normal, SIDEWAYS_TOLERANCE * min(row_step, column_step))
    direction = np.column_stack([*along, normal])
    return slices, Grid(
        tuple(positions[0].tolist()), (column_step, row_step, spacing), tuple(direction.ravel().tolist())
    )


def _check_alike(name: str, slices: Sequence[Slice]) -> None:
    if without := sum(not each.position for each in slices):
        raise InputError(
            f"{name}: {without} of {len(slices)} slices do not state their position; export the slices of one volume"
        )
    for tag, what in _OF_ALL_SLICES.items():
        first, *others = (each.numbers(tag) for each in slices)
        for other in others:
            if len(other) != len(first) or not np.allclose(other, first, rtol=0, atol=1e-4):
                values = " and ".join(
                    " x ".join(f"{number:.4g}" for number in each) or "none" for each in (first, other)
                )
                raise InputError(f"{name}: slices of different {what} ({values}); keep one volume in a folder")
    spacing = slices[0].numbers("0028|0030")
    if len(spacing) != 2 or min(spacing) <= 0:
        raise InputError(f"{name}: the slices do not state their pixel spacing; export the series again")
    if len({each.text("0020|0052") for each in slices}) > 1:
        raise InputError(
            f"{name}: slices of different frames of reference, so that their positions cannot be compared; keep one "
            "volume in a folder"
        )
    if len({each.text("0010|0020") for each in slices} - {""}) > 1:
        raise InputError(f"{name}: slices of different patients (PatientID); keep one volume in a folder")
    for each in slices:
        if (slope := each.text("0028|1053")) and not any(each.numbers("0028|1053")):
            raise InputError(f"{name}: {each.path.name} has the rescale slope {slope}; export the series again")
        if each.text("0028|0004") == "MONOCHROME1":  # SimpleITK would turn the values round, before it rescales them
            raise InputError(f"{name}: {each.path.name} is inverted (MONOCHROME1); export the series as MONOCHROME2")


def _check_one_pass(name: str, slices: Sequence[Slice]) -> None:
    """Passes may follow each other; where one comes between slices of another, they are two volumes."""
    for tag, what in _PASSES.items():
        values = [each.text(tag) for each in slices]
        stretches = 1 + sum(value != before for before, value in pairwise(values))
        if stretches > len(set(values)):
            named = " and ".join(value or "none" for value in list(dict.fromkeys(values))[:2])
            raise InputError(
                f"{name}: slices of {what} {named} lie between each other; two phases or passes are in one series, "
                "keep one in a folder"
            )


def _spacing(name: str, offsets: np.ndarray) -> float:
    """offsets (K,), sorted: places along the normal, mm."""
    steps = np.diff(offsets)
    if steps.max() <= 1e-3:
        raise InputError(f"{name}: all {len(offsets)} slices lie in one plane; export the slices of one volume")
    usual = float(np.median(steps[steps > 1e-3]))
    spacing = float(offsets[-1] - offsets[0]) / len(steps)
    if np.abs(offsets - offsets[0] - spacing * np.arange(len(offsets))).max() <= PLACE_TOLERANCE * spacing:
        return spacing
    worst = int(np.abs(steps - usual).argmax())
    why = "a slice is missing or doubled, export the series again"
    if (doubled := int((steps <= 1e-3).sum())) > 1:
        why = f"{len(offsets)} slices have {len(offsets) - doubled} positions, keep one volume in a folder"
    raise InputError(
        f"{name}: slices {worst + 1} and {worst + 2} are {steps[worst]:.4g} mm apart, others {usual:.4g} mm; {why}"
    )


def _check_not_interleaved(name: str, slices: Sequence[Slice]) -> None:
    """Slices that are numbered one after the other lie beside each other, unless another phase lies in between."""
    numbers = [each.numbers("0020|0013") for each in slices]
    if len(set(numbers)) < len(slices) or () in numbers:
        return
    steps = np.abs(np.diff(np.argsort([each[0] for each in numbers])))
    usual = int(np.median(steps))
    if usual > 1 and np.mean(steps == usual) >= 0.8:
        raise InputError(
            f"{name}: slices that are numbered one after the other lie {usual} slices apart; {usual} phases are in one "
            "series, keep one in a folder"
        )


def _check_line(name: str, positions: np.ndarray, normal: np.ndarray, tolerance_mm: float) -> None:
    """positions (K, 3) relative to the first, mm."""
    offsets = positions @ normal
    sideways = positions - np.outer(offsets, normal)
    if np.linalg.norm(sideways, axis=1).max() <= tolerance_mm:
        return
    beside = np.linalg.norm(sideways - np.outer(offsets / offsets[-1], sideways[-1]), axis=1)
    if beside.max() > tolerance_mm:
        raise InputError(
            f"{name}: slice {int(beside.argmax()) + 1} lies {beside.max():.3g} mm beside the line of the others; keep "
            "one volume in a folder"
        )
    tilt = np.degrees(np.arctan2(np.linalg.norm(sideways[-1]), offsets[-1]))
    raise InputError(f"{name}: a gantry tilt of {tilt:.3g} degrees; resample the series to upright slices first")

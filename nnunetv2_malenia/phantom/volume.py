"""Volumes in one orientation: (Z, Y, X) arrays whose x, y, z grow to the patient's right, front and head."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from nnunetv2_malenia import volumes
from nnunetv2_malenia.attributes.schema import AspectValues, has_laterality
from nnunetv2_malenia.files import write_whole
from nnunetv2_malenia.phantom.anatomy import Grid, PhantomError

_LABEL = re.compile(r'<Label\s[^>]*?Key="(\d+)"[^>]*?>\s*(?:<!\[CDATA\[)?([^<\]]+)')


@dataclass(frozen=True)
class Volume:
    """A volume turned to RAS+, and the way back to its file.

    array: (Z, Y, X), as stored but for the order of its axes. affine: (4, 4), indices x, y, z of the turned array to
    RAS+ mm. An oblique volume is turned to the nearest axes only.
    """

    array: np.ndarray
    affine: np.ndarray
    stored: volumes.Volume
    source: Path

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def shape(self) -> tuple[int, ...]:
        """(X, Y, Z), of the turned array."""
        return self.array.shape[::-1]

    @property
    def grid(self) -> Grid:
        """Shape and spacing; positions in mm are from the middle of the volume."""
        return Grid(self.array.shape, tuple(float(s) for s in nib.affines.voxel_sizes(self.affine)[::-1]))

    def in_file_order(self, array: np.ndarray) -> np.ndarray:
        """A (Z, Y, X) array on this volume's grid with the axes of the file, (I, J, K)."""
        return np.ascontiguousarray(volumes.turned(array.transpose(2, 1, 0), self.affine, self.stored.affine))

    def save(self, array: np.ndarray, path: str | os.PathLike[str]) -> None:
        """Write a (Z, Y, X) array with the geometry of this volume's file; the array's dtype is kept.

        The file appears whole or not at all.
        """
        voxels, stored = self.in_file_order(array), self.stored
        write_whole(path, lambda name: volumes.write_volume(voxels, stored.affine, name, stored.header))

    def remarks(self, drawn: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
        """What is odd about the file's header, one line each. drawn: in it, lesion -> aspect -> values.

        Raises PhantomError where that names a side, and the header does not say where left and right are.
        """
        if not self.stored.tells_sides and has_laterality(AspectValues(**aspects) for aspects in drawn.values()):
            raise PhantomError(
                f"{self.name}: the header does not say where left and right are, and a lesion's location names a side; "
                "convert the image again"
            )
        return [f"{self.source.name}: {doubt}" for doubt in self.stored.doubts]


def read_volume(path: str | os.PathLike[str]) -> Volume:
    """Read a volume of any format and axis order. Raises InputError, in one line, if it is none."""
    stored = volumes.open_volume(Path(path))
    affine = volumes.ras_affine(stored.affine, stored.shape)
    return Volume(
        array=volumes.turned(stored.voxels(), stored.affine, affine).transpose(2, 1, 0),
        affine=affine,
        stored=stored,
        source=Path(path),
    )


def names_in_header(volume: Volume) -> dict[str, int]:
    """Label name -> value, where the file carries a label table as TotalSegmentator writes it; else {}."""
    text = volume.stored.extensions().decode("utf-8", "replace")
    return {name.strip(): int(value) for value, name in _LABEL.findall(text)}

"""NIfTI volumes in one orientation: (Z, Y, X) arrays whose x, y, z grow to the patient's right, front and head."""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform

from nnunetv2_malenia.files import write_whole
from nnunetv2_malenia.phantom.anatomy import Grid, PhantomError

_RAS = np.array([[0, 1], [1, 1], [2, 1]])
_TOLERANCE = 0.1  # of a voxel edge
_LABEL = re.compile(r'<Label\s[^>]*?Key="(\d+)"[^>]*?>\s*(?:<!\[CDATA\[)?([^<\]]+)')


@dataclass(frozen=True)
class Volume:
    """A volume turned to RAS+, and the way back to its file.

    array: (Z, Y, X), as stored but for the order of its axes. affine: (4, 4), indices x, y, z of the turned array to
    RAS+ mm. file_affine, header, orientation: of the file. An oblique volume is turned to the nearest axes only.
    """

    array: np.ndarray
    affine: np.ndarray
    file_affine: np.ndarray
    header: nib.Nifti1Header
    orientation: np.ndarray
    source: Path

    @property
    def grid(self) -> Grid:
        """Shape and spacing; positions in mm are from the middle of the volume."""
        return Grid(self.array.shape, tuple(float(s) for s in nib.affines.voxel_sizes(self.affine)[::-1]))

    def in_file_order(self, array: np.ndarray) -> np.ndarray:
        """A (Z, Y, X) array on this volume's grid with the axes of the file, (I, J, K)."""
        return np.ascontiguousarray(apply_orientation(array.transpose(2, 1, 0), ornt_transform(_RAS, self.orientation)))

    def same_grid(self, other: Volume) -> bool:
        """Whether the voxels of both lie at the same places, up to a tenth of a voxel at every corner."""
        if self.array.shape != other.array.shape:
            return False
        ends = np.array(np.meshgrid(*[(0, n - 1) for n in self.array.shape[::-1]])).reshape(3, -1).T
        apart = nib.affines.apply_affine(self.affine, ends) - nib.affines.apply_affine(other.affine, ends)
        return bool(np.abs(apart).max() <= _TOLERANCE * min(self.grid.spacing_zyx))

    def save(self, array: np.ndarray, path: str | os.PathLike[str]) -> None:
        """Write a (Z, Y, X) array with the geometry of this volume's file; the array's dtype is kept.

        The file appears whole or not at all.
        """
        header = self.header.copy()
        header.extensions.clear()
        header.set_data_dtype(array.dtype)
        header["cal_min"] = header["cal_max"] = 0
        image = nib.Nifti1Image(self.in_file_order(array), self.file_affine, header)
        write_whole(path, lambda name: nib.save(image, name))


def read_volume(path: str | os.PathLike[str]) -> Volume:
    """Read a NIfTI file of any axis order. Raises PhantomError, in one line, if it is no 3-D volume with a place."""
    source = Path(path)
    if not source.is_file():
        raise PhantomError(f"{source}: no such file; give a NIfTI file, e.g. case_0000.nii.gz")
    try:
        image = nib.load(source)
        if not isinstance(image, nib.Nifti1Image):
            raise PhantomError(f"{source}: not a NIfTI file; store it as .nii.gz")
        if len(image.shape) != 3:
            raise PhantomError(f"{source}: an image of shape {image.shape}; give one 3-D volume")
        voxels = np.asanyarray(image.dataobj)
    except (ImageFileError, EOFError, zlib.error, OSError) as error:
        raise PhantomError(f"{source}: cannot be read ({error}); copy the file again") from error
    orientation = io_orientation(image.affine)
    if not np.isfinite(image.affine).all() or np.isnan(orientation).any():
        raise PhantomError(f"{source}: its affine gives the voxels no place; repair the header")
    return Volume(
        array=apply_orientation(voxels, orientation).transpose(2, 1, 0),
        affine=image.affine @ inv_ornt_aff(orientation, image.shape),
        file_affine=image.affine,
        header=image.header,
        orientation=orientation,
        source=source,
    )


def names_in_header(volume: Volume) -> dict[str, int]:
    """Label name -> value, where the file carries a label table as TotalSegmentator writes it; else {}."""
    for extension in volume.header.extensions:
        content = extension.get_content()
        text = content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)
        if found := {name.strip(): int(value) for value, name in _LABEL.findall(text)}:
            return found
    return {}

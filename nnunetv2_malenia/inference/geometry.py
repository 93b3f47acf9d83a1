"""Where voxels are in the patient, whichever of nnU-Net's readers read them, and how masks get back there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from nnunetv2_malenia.volumes import itk_affine, turned, write_volume


def reader_affine(properties: Mapping) -> np.ndarray:
    """(4, 4) from voxel indices x, y, z of the array (Z, Y, X) that nnU-Net's reader gave, to RAS millimetres.

    properties: what the reader gave with it. Images without a place in space (TIFF) lie along the axes, at the origin.
    """
    if stored := properties.get("nibabel_stuff"):
        return np.array(stored.get("reoriented_affine", stored["original_affine"]), dtype=float)
    if stored := properties.get("sitk_stuff"):
        return itk_affine(stored["direction"], stored["spacing"], stored["origin"])
    return np.diag([*properties["spacing"][::-1], 1.0])


def as_stored(array: np.ndarray, read_affine: np.ndarray, stored_affine: np.ndarray) -> np.ndarray:
    """An array (Z, Y, X) as nnU-Net's reader gave it -> (X, Y, Z) in the image's own axis order; a view.

    read_affine, stored_affine (4, 4): those of before and after, as in a prepared case's properties.
    """
    return turned(array.transpose(2, 1, 0), read_affine, stored_affine)


@dataclass(frozen=True)
class MaskWriter:
    """Writes masks in an image's own geometry, whatever reader read it. header: of the image, if it is NIfTI."""

    header: nib.Nifti1Header | None

    def write_seg(self, seg: np.ndarray, output_fname: str, properties: Mapping) -> None:
        """In the way of nnU-Net's writers. seg (Z, Y, X): as the image was read; properties: of the prepared case."""
        stored_affine = properties["stored_affine"]
        write_volume(as_stored(seg, properties["affine"], stored_affine), stored_affine, output_fname, self.header)

"""Volumes from disk: open, check and compare them, with the exact place of every voxel in the patient."""

from nnunetv2_malenia.volumes.errors import InputError
from nnunetv2_malenia.volumes.itk_images import itk_affine
from nnunetv2_malenia.volumes.nifti import NIFTI_ENDINGS
from nnunetv2_malenia.volumes.opening import ENDINGS, open_volume, stem_of, write_volume
from nnunetv2_malenia.volumes.orientation import ras_affine, turned, turned_affine
from nnunetv2_malenia.volumes.volume import Volume, grid_difference, is_orthonormal, replace_non_finite, whole_numbers

__all__ = [
    "ENDINGS",
    "NIFTI_ENDINGS",
    "InputError",
    "Volume",
    "grid_difference",
    "is_orthonormal",
    "itk_affine",
    "open_volume",
    "ras_affine",
    "replace_non_finite",
    "stem_of",
    "turned",
    "turned_affine",
    "whole_numbers",
    "write_volume",
]

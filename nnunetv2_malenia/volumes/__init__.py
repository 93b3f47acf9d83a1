"""Volumes from disk: open, check and compare them, with the exact place of every voxel in the patient."""

from nnunetv2_malenia.volumes.errors import InputError

__all__ = ["InputError"]

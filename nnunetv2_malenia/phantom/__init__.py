"""Phantom CTs: anatomy, lesions with attributes, rendering; CTs of real label maps, lesions in real CTs."""

from nnunetv2_malenia.phantom.anatomy import ORGANS
from nnunetv2_malenia.phantom.case import Phantom, PhantomConfig, make_phantom
from nnunetv2_malenia.phantom.lesions import LESION_TYPES
from nnunetv2_malenia.phantom.rendering import Scanner

__all__ = ["LESION_TYPES", "ORGANS", "Phantom", "PhantomConfig", "Scanner", "make_phantom"]

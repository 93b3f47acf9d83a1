"""Zero-shot lesion segmentation in CT for nnU-Net: lesions are asked for by their attributes."""

__version__ = "0.1.0"

"""Tensors in, tensors out: no file, no lesion name, no text."""

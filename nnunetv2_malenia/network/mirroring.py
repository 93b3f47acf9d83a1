"""Which axes may be mirrored when words name a side."""

from __future__ import annotations

from collections.abc import Sequence

LEFT_RIGHT_AXIS = 2  # of an image as NibabelIOWithReorient reads it: axes z, y, x
REORIENTING_READER = "NibabelIOWithReorient"


def axes_without_left_right(
    axes: Sequence[int] | None, reader: str, transpose_forward: Sequence[int]
) -> tuple[int, ...]:
    """The mirroring axes that keep left and right apart, in nnU-Net's axis order of a preprocessed image.

    Only NibabelIOWithReorient stores every image with the same axis as left-right; with another reader which axis that
    is differs from file to file, and no axis is safe.
    """
    if reader != REORIENTING_READER:
        return ()
    side = list(transpose_forward).index(LEFT_RIGHT_AXIS)
    return tuple(axis for axis in axes or () if axis != side)

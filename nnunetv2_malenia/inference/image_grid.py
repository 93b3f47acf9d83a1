"""From boxes of the preprocessed grid to boxes of the image as read: resampling, cropping and transposing undone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class ImageGrid:
    """Where a preprocessed grid lies in the image (Z, Y, X) as nnU-Net's reader gave it.

    shape, image_shape: of either grid. cropped: start and size of what nnU-Net cropped to, in the preprocessed order of
    axes. backward: that order -> the image's. nearest: the axis along which slices are copied and not interpolated, as
    nnU-Net does where slices are far apart, or None.
    """

    shape: tuple[int, ...]
    image_shape: tuple[int, ...]
    cropped: tuple[tuple[int, int], ...]
    backward: tuple[int, ...]
    nearest: int | None

    @classmethod
    def of(
        cls, shape: Sequence[int], properties: dict, plans: PlansManager, configuration: ConfigurationManager
    ) -> ImageGrid:
        """properties: what nnU-Net's preprocessor noted of its cropping and resampling."""
        spacing = [properties["spacing"][axis] for axis in plans.transpose_forward]
        kwargs = configuration.configuration["resampling_fn_probabilities_kwargs"]
        separate, axis = determine_do_sep_z_and_axis(kwargs.get("force_separate_z"), configuration.spacing, spacing)
        before = properties["shape_before_cropping"]
        return cls(
            shape=tuple(shape),
            image_shape=tuple(int(before[axis]) for axis in plans.transpose_backward),
            cropped=tuple((int(low), int(high - low)) for low, high in properties["bbox_used_for_cropping"]),
            backward=tuple(plans.transpose_backward),
            nearest=int(axis) if separate else None,
        )

    def resampled(self, values: np.ndarray, box: Box) -> np.ndarray:
        """Values (z, y, x) of a box -> float32, those of `in_image(box)`, linear between the centres of voxels."""
        result = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        for axis, side in enumerate(box):
            low, high, weight = self._neighbours(axis, side)
            shape = [-1 if each == axis else 1 for each in range(3)]
            result = torch.lerp(result.index_select(axis, low), result.index_select(axis, high), weight.view(shape))
        return result.numpy().transpose(self.backward)

    def in_image(self, box: Box) -> Box:
        """The voxels of the image whose neighbours on the preprocessed grid all lie in a box."""
        sides = []
        for (start, _), axis in zip(self.cropped, range(3), strict=True):
            covered = self._covered(axis, box[axis])
            sides.append(slice(start + covered.start, start + covered.stop))
        return tuple(sides[axis] for axis in self.backward)

    def _centres(self, axis: int) -> Tensor:
        """Of the cropped image's voxels, in voxels of the preprocessed grid, clamped to its outermost centres."""
        size, cropped = self.shape[axis], self.cropped[axis][1]
        return ((torch.arange(cropped, dtype=torch.float64) + 0.5) * (size / cropped) - 0.5).clamp(0, size - 1)

    def _ends(self, axis: int) -> tuple[Tensor, Tensor, Tensor]:
        """Each centre's lower and upper neighbour, and the upper one's weight."""
        centres = self._centres(axis)
        if axis == self.nearest:
            nearest = (centres + 0.5).floor().long()
            return nearest, nearest, torch.zeros(len(centres))
        low = centres.floor().long()
        return low, centres.ceil().long(), (centres - low).float()

    def _covered(self, axis: int, side: slice) -> slice:
        low, high, _ = self._ends(axis)
        inside = torch.nonzero((low >= side.start) & (high < side.stop)).ravel()
        return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)

    def _neighbours(self, axis: int, side: slice) -> tuple[Tensor, Tensor, Tensor]:
        covered = self._covered(axis, side)
        low, high, weight = (each[covered] for each in self._ends(axis))
        return low - side.start, high - side.start, weight

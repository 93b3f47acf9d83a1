"""Image and masks of a case as a report shows them: turned to RAS+, cropped to the body, small enough to embed."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from pathlib import Path

import cc3d
import nibabel as nib
import numpy as np
from scipy import ndimage
from skimage.measure import block_reduce

from nnunetv2_malenia.volumes import (
    InputError,
    Volume,
    grid_difference,
    open_volume,
    ras_affine,
    replace_non_finite,
    turned,
)

BODY_HU = -500.0  # skin lies above it, air below
ROOM_HU = -950.0  # lung lies above it, the air around a patient below
AIR_HU = -200.0  # an image whose darkest voxels are above it holds no Hounsfield units
CT_LEAST_HU, CT_STEP_HU = -1024.0, 8.0  # what 8 bits of the embedded image stand for
_MARGIN_MM = 6.0


@dataclass(frozen=True)
class Pictured:
    """What is drawn of a case; all arrays are on one grid, (X, Y, Z), with axes nearest to right, anterior, superior.

    image: float32; masks: query id -> bool, only of queries that found something; affine: (4, 4), voxel indices to RAS
    millimetres; is_ct: whether intensities look like Hounsfield units.
    """

    image: np.ndarray
    masks: dict[int, np.ndarray]
    affine: np.ndarray
    is_ct: bool

    @property
    def spacing_mm(self) -> np.ndarray:
        return nib.affines.voxel_sizes(self.affine)

    def voxel_at(self, ras_mm: tuple[float, float, float]) -> tuple[int, int, int]:
        """Index of the voxel at a place, or of the nearest one for a place outside."""
        index = np.rint(nib.affines.apply_affine(np.linalg.inv(self.affine), ras_mm)).astype(int)
        x, y, z = np.clip(index, 0, np.subtract(self.image.shape, 1)).tolist()
        return x, y, z


def read_pictured(
    image_file: Path,
    label_map: Path,
    mask_files: dict[int, Path],
    query_ids: list[int],
    *,
    numbers_lesions: bool = False,
) -> Pictured:
    """Read a case's image, and its masks: a query's own file where there is one, else its share of the label map.

    numbers_lesions: the label map's values are lesion ids of the one query, not query ids. Files are NIfTI, NRRD or
    MHA; the image may be a folder with a DICOM series. Raises InputError when one cannot be read or masks lie on
    another grid than the image.
    """
    image = open_volume(image_file, image_file.name)
    affine = ras_affine(image.affine, image.shape)
    labels = _labels(label_map, image) if set(query_ids) - set(mask_files) else None
    masks = {}
    for query_id in query_ids:
        is_own = query_id in mask_files
        voxels = _labels(mask_files[query_id], image) if is_own else labels
        voxels = voxels > 0 if is_own or numbers_lesions else voxels == query_id
        if voxels.any():
            masks[query_id] = turned(voxels, image.affine, affine)
    voxels = np.array(turned(image.voxels(), image.affine, affine), dtype=np.float32)
    replace_non_finite(image_file.name, voxels)
    return Pictured(voxels, masks, affine, is_ct=bool(voxels.min() < AIR_HU))


def _labels(path: Path, image: Volume) -> np.ndarray:
    mask = open_volume(path, path.name)
    if difference := grid_difference(mask, image):
        raise InputError(f"{difference}; predict the case anew")
    return mask.labels()


def cropped_to_body(case: Pictured) -> Pictured:
    """Without the air around a CT's largest connected part; every mask stays inside. Other images stay whole."""
    if not case.is_ct or not (case.image > BODY_HU).any():
        return case
    body = _body(case)
    box = []
    for axis, spacing in enumerate(case.spacing_mm):
        where = np.flatnonzero(body.any(axis=tuple({0, 1, 2} - {axis})))
        margin = round(_MARGIN_MM / spacing)
        box.append(slice(max(0, int(where[0]) - margin), int(where[-1]) + 1 + margin))
    affine = case.affine.copy()
    affine[:3, 3] = nib.affines.apply_affine(case.affine, [side.start for side in box])
    box = tuple(box)
    return Pictured(case.image[box], {key: mask[box] for key, mask in case.masks.items()}, affine, case.is_ct)


def _body(case: Pictured) -> np.ndarray:
    """A CT's largest connected part that is not air, and all masks: (X, Y, Z) bool."""
    body = cc3d.largest_k(case.image > BODY_HU, k=1, connectivity=6) > 0
    return np.logical_or.reduce([body, *case.masks.values()])


def reduced(case: Pictured, most_voxels: int) -> Pictured:
    """At most so many voxels: means of blocks for the image; a block is in a mask when one of its voxels is."""
    factors = np.ones(3, dtype=int)
    while np.prod(np.ceil(np.divide(case.image.shape, factors))) > most_voxels:
        factors[np.argmin(case.spacing_mm * factors)] += 1
    if (factors == 1).all():
        return case
    padding = [(0, -size % factor) for size, factor in zip(case.image.shape, factors, strict=True)]
    image = block_reduce(np.pad(case.image, padding, mode="edge"), tuple(factors), np.mean).astype(np.float32)
    masks = {key: block_reduce(mask, tuple(factors), np.max) for key, mask in case.masks.items()}
    affine = case.affine @ np.diag([*factors, 1.0])
    affine[:3, 3] = nib.affines.apply_affine(case.affine, (factors - 1) / 2)
    return Pictured(image, masks, affine, case.is_ct)


def without_room(case: Pictured) -> Pictured:
    """With -1024 HU where a CT shows the air around the patient: its noise, and the table in it, would fill the file.

    Air that the body encloses in an axial slice stays, and so does a lung that the image's border cuts open.
    """
    if not case.is_ct or not (case.image > BODY_HU).any():
        return case
    body = ndimage.binary_dilation(_body(case))  # the skin's outermost voxels are partly air
    body = np.stack([ndimage.binary_fill_holes(body[..., z]) for z in range(body.shape[2])], axis=-1)
    regions = cc3d.connected_components(~body, connectivity=6)
    medians = ndimage.median(case.image, regions, np.arange(regions.max() + 1))
    is_room = ~body & (medians < ROOM_HU)[regions]
    return replace(case, image=np.where(is_room, np.float32(CT_LEAST_HU), case.image))


def image_nifti(case: Pictured) -> bytes:
    """The image in 8 bits as the bytes of a .nii.gz: 8 HU a step for CT, 255 steps of its own range for others."""
    least, step = CT_LEAST_HU, CT_STEP_HU
    if not case.is_ct:
        least, most = np.percentile(case.image, (0.5, 99.5)).tolist()
        step = max(most - least, 1e-6) / 255
    voxels = np.clip(np.rint((case.image - least) / step), 0, 255).astype(np.uint8)
    return _nifti(voxels, case.affine, slope=step, intercept=least)


def mask_nifti(case: Pictured, query_id: int) -> bytes:
    """A query's mask as the bytes of a .nii.gz, 1 inside."""
    return _nifti(case.masks[query_id].astype(np.uint8), case.affine)


def _nifti(voxels: np.ndarray, affine: np.ndarray, slope: float = 1.0, intercept: float = 0.0) -> bytes:
    image = nib.Nifti1Image(voxels, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_slope_inter(slope, intercept)
    return gzip.compress(image.to_bytes(), 9, mtime=0)

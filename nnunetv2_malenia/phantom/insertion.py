"""Lesions with given attributes in a real CT: placed in a labelled organ, with partial volume, under the CT's noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from nnunetv2_malenia.attributes.schema import AttributeTable
from nnunetv2_malenia.phantom import lesions as words
from nnunetv2_malenia.phantom.anatomy import Anatomy, Box, Grid, PhantomError, Tissue
from nnunetv2_malenia.phantom.ducts import dilated_ducts
from nnunetv2_malenia.phantom.label_maps import checked_labels, label_anatomy
from nnunetv2_malenia.phantom.looks import choose_look, choose_phase
from nnunetv2_malenia.phantom.placement import Lesion, fit_lesions, locations_in
from nnunetv2_malenia.phantom.rendering import lesion_layers
from nnunetv2_malenia.phantom.volume import Volume
from nnunetv2_malenia.volumes import grid_difference

_FINE_MM = 1.0  # lesions are drawn on voxels of at most this size and averaged
_BLUR_MM = 0.7  # of the lesion, for the scanner's kernel
_MOST_HU = 2**15 - 1  # that CTs are stored with
_NOISE_MM = 2.5  # what is finer than this in the CT counts as its noise
_NEIGHBOURHOOD_MM = 15.0  # parenchyma that a lesion's density refers to
_ENHANCED_AORTA_HU = 90.0  # blood without contrast has 30 to 50
_BILE_HU = 8.0
_WALL_HU = (30.0, 120.0)
_VESSEL_OVER_LIVER_HU = 22.0


class InsertedLesions(NamedTuple):
    """A CT with lesions put in.

    image: (Z, Y, X) int16 HU on the CT's RAS+ grid. mask: uint8, 1 + row of the lesion type in the table.
    attributes: lesion type -> aspect -> values. remarks: what of the table could not be drawn; one line each.
    """

    image: np.ndarray
    mask: np.ndarray
    attributes: dict[str, dict[str, list[str]]]
    remarks: list[str]


def insert_lesions(
    image: Volume,
    organs: Volume,
    names: Mapping[str, int],
    table: AttributeTable,
    case_id: str,
    *,
    diameter_mm: tuple[float, float] | None = None,
    seed: int = 0,
) -> InsertedLesions:
    """Put one lesion of each type of a table into a CT. The same arguments give the same lesions.

    organs: label map on the image's grid, in any axis order; names: its labels' names -> values.
    Left and right are the patient's. Relative densities refer to the CT's own parenchyma around the lesion.
    Raises PhantomError for grids that differ, organs that are missing or too small, a phase that the CT does not have,
    and attributes that cannot be drawn.
    """
    scan = scan_anatomy(image, organs, names, (), np.random.default_rng(seed))
    hounsfield, anatomy = scan.hounsfield, scan.anatomy
    streams = np.random.SeedSequence([seed, *case_id.encode()]).spawn(3)
    look_rng, place_rng, draw_rng = (np.random.default_rng(stream) for stream in streams)
    phase = choose_phase(table, table.lesions, case_id, look_rng, scan=scan_phase(anatomy, scan.smooth))
    locations = locations_in(anatomy)
    wanted, remarks = [], list(scan.remarks)
    for name in table.lesions:
        look = choose_look(table, name, case_id, phase, look_rng, locations=locations)
        wanted.append((name, look.attributes))
        remarks += [f"{case_id}: {name}: {value} is not drawn" for value in look.left_out]
    mask = np.zeros(hounsfield.shape, np.uint8)
    for value, lesion in enumerate(fit_lesions(anatomy, wanted, place_rng, diameter_mm=diameter_mm), start=1):
        for share in dilated_ducts(anatomy, lesion, draw_rng):
            _fill_ducts(hounsfield, share, anatomy.grid)
        mask[lesion.box][draw_lesion(hounsfield, lesion, anatomy, phase, draw_rng)] = value
    attributes = {name: {aspect: list(v) for aspect, v in chosen.items() if v} for name, chosen in wanted}
    return InsertedLesions(np.rint(hounsfield).astype(np.int16), mask, attributes, remarks)


class Scan(NamedTuple):
    """A CT with labelled organs. hounsfield, smooth: (Z, Y, X) float32, all finite; smooth is without noise."""

    hounsfield: np.ndarray
    anatomy: Anatomy
    smooth: np.ndarray
    remarks: list[str]


def scan_anatomy(
    image: Volume, labels: Volume, organs: Mapping[str, int], others: Sequence[int], rng: np.random.Generator
) -> Scan:
    """Read a CT by its labelled organs.

    organs: label name -> value; others: label values that are no organs. Raises PhantomError as `insert_lesions` does.
    """
    if difference := grid_difference(labels, image):
        raise PhantomError(f"{difference}; resample the organs to the image")
    hounsfield, remarks = _hounsfield(image)
    named = checked_labels(labels, {**organs, **{f"other {value}": value for value in others}})
    structures = {name: value for name, value in organs.items() if value}
    anatomy = label_anatomy(named, structures, image.grid, rng)
    smooth = _smooth(hounsfield, anatomy.grid, _NOISE_MM)
    _complete(anatomy, smooth)
    return Scan(hounsfield, anatomy, smooth, remarks)


def _hounsfield(image: Volume) -> tuple[np.ndarray, list[str]]:
    """HU as float32, and a remark where voxels were no finite numbers: they become the least HU, as padding has it."""
    if image.array.dtype.kind not in "iuf":
        raise PhantomError(f"{image.source}: voxels of type {image.array.dtype}, not real numbers; give a CT")
    with np.errstate(over="ignore"):
        hounsfield = image.array.astype(np.float32)
    finite = np.isfinite(hounsfield)
    if not finite.any():
        raise PhantomError(f"{image.source}: no voxel is a finite number; give a CT")
    if (greatest := np.abs(hounsfield[finite]).max()) > _MOST_HU:
        raise PhantomError(f"{image.source}: intensities up to {greatest:.3g}, which are no HU; give a CT")
    if finite.all():
        return hounsfield, []
    hounsfield[~finite] = least = hounsfield[finite].min()
    return hounsfield, [f"{image.source.name}: {(~finite).sum()} voxels are NaN or infinite; they become {least:g} HU"]


def _smooth(hounsfield: np.ndarray, grid: Grid, sigma_mm: float) -> np.ndarray:
    return ndimage.gaussian_filter(hounsfield, [sigma_mm / step for step in grid.spacing_zyx], truncate=2.0)


def _complete(anatomy: Anatomy, smooth: np.ndarray) -> None:
    """Tell air, fat, soft tissue and bone apart by HU where nothing is labelled, and vessels in the liver; in place."""
    free = anatomy.tissue == Tissue.AIR
    for low, tissue in ((-250, Tissue.FAT), (-30, Tissue.MUSCLE), (180, Tissue.BONE)):
        anatomy.tissue[free & (smooth > low)] = tissue
    liver = anatomy.organ("liver")
    if liver.any():
        bright = smooth > np.median(smooth[liver]) + _VESSEL_OVER_LIVER_HU
        inner = ndimage.binary_erosion(liver, iterations=2)
        anatomy.tissue[inner & bright] = Tissue.HEPATIC_VESSEL


def scan_phase(anatomy: Anatomy, smooth: np.ndarray) -> str | None:
    """The phase that the blood in the aorta shows; None without an aorta."""
    inner = ndimage.binary_erosion(anatomy.organ("aorta"))
    if not inner.any():
        return None
    return words.ENHANCED if np.median(smooth[inner]) > _ENHANCED_AORTA_HU else words.NON_CONTRAST


def draw_lesion(
    hounsfield: np.ndarray, lesion: Lesion, anatomy: Anatomy, phase: str, rng: np.random.Generator
) -> np.ndarray:
    """Draw one lesion into the CT, in place -> its mask in `lesion.box`: voxels that it fills at least half."""
    grid, view = anatomy.grid, hounsfield[lesion.box]
    factor = [max(1, ceil(step / _FINE_MM)) for step in grid.spacing_zyx]
    fine, fine_grid = _refined(lesion, grid, factor)
    layers = lesion_layers(fine, _parenchyma(hounsfield, lesion, anatomy), phase, fine_grid, rng)
    coverage, interior = layers.coverage, layers.interior
    if layers.spikes is not None:
        coverage, interior = np.where(layers.spikes, 1, coverage), np.where(layers.spikes, layers.base, interior)
    sigma = [_BLUR_MM / step for step in fine_grid.spacing_zyx]
    amount, content = (
        _block_mean(ndimage.gaussian_filter(each, sigma), factor) for each in (coverage, coverage * interior)
    )
    plain = _smooth(view, grid, _NOISE_MM)
    noise = view - plain
    limit = 3 * 1.4826 * np.median(np.abs(noise[anatomy.organ(lesion.organ)[lesion.box]]))
    # where the lesion is, the CT's structure goes and its noise stays; larger residues are edges, not noise
    view += content - amount * (view - np.clip(noise, -limit, limit))
    share = _block_mean(fine.mask.astype(np.float32), factor)
    return share >= min(0.5, float(share.max()))


def _parenchyma(hounsfield: np.ndarray, lesion: Lesion, anatomy: Anatomy) -> float:
    """Median HU of the organ in a shell around the lesion.

    The wall of a hollow organ is thinner than many voxels: there the upper quartile counts, within soft tissue's range.
    """
    organ = anatomy.organ(lesion.organ)[lesion.box]
    tissue = anatomy.tissue[lesion.box]
    organ &= ~np.isin(tissue, (Tissue.BILE, Tissue.STOOL, Tissue.GAS, Tissue.HEPATIC_VESSEL))
    near = organ & (lesion.depth_mm > -_NEIGHBOURHOOD_MM)
    around = near & (lesion.depth_mm < 0)
    values = hounsfield[lesion.box][around if around.sum() > 20 else near]
    if (tissue[organ] == Tissue.BOWEL_WALL).any():
        return float(np.clip(np.quantile(values, 0.75), *_WALL_HU))
    return float(np.median(values))


def _refined(lesion: Lesion, grid: Grid, factor: list[int]) -> tuple[Lesion, Grid]:
    """The lesion on a grid with `factor` times as many voxels along z, y, x; its box stays that of the coarse grid."""
    fine = Grid(
        tuple(n * f for n, f in zip(lesion.depth_mm.shape, factor, strict=True)),
        tuple(step / f for step, f in zip(grid.spacing_zyx, factor, strict=True)),
    )
    at = [(np.arange(n) + 0.5) / f - 0.5 for n, f in zip(fine.shape, factor, strict=True)]
    at = np.meshgrid(*at, indexing="ij")
    depth, allowed = (
        ndimage.map_coordinates(each.astype(np.float32), at, order=1, mode="nearest")
        for each in (lesion.depth_mm, lesion.allowed)
    )
    return (
        Lesion(lesion.type_name, lesion.attributes, lesion.organ, lesion.radius_mm, lesion.box, depth, allowed >= 0.5),
        fine,
    )


def _block_mean(array: np.ndarray, factor: list[int]) -> np.ndarray:
    """Mean of each block of `factor` voxels along z, y, x."""
    z, y, x = (n // f for n, f in zip(array.shape, factor, strict=True))
    return array.reshape(z, factor[0], y, factor[1], x, factor[2]).mean((1, 3, 5), dtype=np.float32)


def _fill_ducts(hounsfield: np.ndarray, share: np.ndarray, grid: Grid) -> None:
    """Bring the CT down to the density of bile where ducts are, in place; its noise stays."""
    box: Box = ndimage.find_objects((share > 0).view(np.uint8))[0]
    view = hounsfield[box]
    amount = ndimage.gaussian_filter(share[box], [_BLUR_MM / step for step in grid.spacing_zyx])
    view -= amount * (_smooth(view, grid, _NOISE_MM) - _BILE_HU)

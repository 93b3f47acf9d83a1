"""CT from a real label map: its organs and lesions as they are, the looks of the lesions from an attribute table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from nnunetv2_malenia.attributes.schema import AttributeTable
from nnunetv2_malenia.phantom import lesions as words
from nnunetv2_malenia.phantom.anatomy import ORGANS, Anatomy, Box, Grid, PhantomError, Tissue
from nnunetv2_malenia.phantom.backdrop import add_backdrop
from nnunetv2_malenia.phantom.ducts import dilate_ducts
from nnunetv2_malenia.phantom.label_maps import checked_labels, is_named_as_lesion, label_anatomy
from nnunetv2_malenia.phantom.lesions import Attributes
from nnunetv2_malenia.phantom.looks import choose_look, choose_phase
from nnunetv2_malenia.phantom.placement import Lesion
from nnunetv2_malenia.phantom.rendering import Scanner, render
from nnunetv2_malenia.phantom.volume import Volume

_REACH_MM = 16.0  # how far around its mask a lesion may show: blurred borders, spicules
_SHELL_MM = 6.0  # the organ that most of this shell belongs to is the lesion's
_HARD = (Tissue.AIR, Tissue.BONE, Tissue.MARROW, Tissue.AORTA)
_TAKEN_FROM_MASK = ("location", "shape", "relationship")


class RenderedCase(NamedTuple):
    """A CT of a label map and what was decided for it.

    image: (Z, Y, X) int16 HU on the label map's RAS+ grid. attributes: lesion type -> aspect -> values, as drawn;
    shape and relationship are the mask's own and are repeated only where the table states them for this case.
    remarks: what of the table was not drawn, or does not fit the mask; one line each.
    """

    image: np.ndarray
    attributes: dict[str, dict[str, list[str]]]
    remarks: list[str]


def render_label_map(
    volume: Volume,
    names: Mapping[str, int],
    table: AttributeTable,
    case_id: str,
    *,
    scanner: Scanner,
    seed: int = 0,
) -> RenderedCase:
    """Draw a CT of one label map, in which every lesion of a type looks as the table says of the type or the case.

    names: label name -> value; labels that the table has as lesions are lesions, the others organs. The same arguments
    draw the same image. What has no label is drawn as a plain body, see `add_backdrop`.
    Raises PhantomError for names that stand for nothing, values without a name, a label map without labels or with a
    lesion that the table does not have, attributes that cannot be drawn.
    """
    labels, grid = checked_labels(volume, names), volume.grid
    streams = np.random.SeedSequence([seed, *case_id.encode()]).spawn(4)
    body_rng, look_rng, scan_rng, duct_rng = (np.random.default_rng(stream) for stream in streams)
    drawn = {name: value for name, value in names.items() if value}
    lesion_values = {name: v for name, v in drawn.items() if table.find(name) is not None and (labels == v).any()}
    organ_names = {name: v for name, v in drawn.items() if table.find(name) is None}
    if not labels.any():
        raise PhantomError(f"{volume.source}: nothing is labelled in it; take it out")
    if unstated := [name for name, v in organ_names.items() if is_named_as_lesion(name) and (labels == v).any()]:
        raise PhantomError(
            f"{volume.source}: {unstated[0]!r} is no lesion of the attribute table, and would be drawn as a healthy "
            "organ; add it to the table"
        )
    anatomy = label_anatomy(labels, organ_names, grid, body_rng)
    is_lesion = np.isin(labels, list(lesion_values.values()))
    anatomy.tissue[is_lesion] = Tissue.MUSCLE  # holds the place until the backdrop is there
    add_backdrop(anatomy, body_rng)
    phase = choose_phase(table, lesion_values, case_id, look_rng)
    lesions: list[Lesion] = []
    attributes: dict[str, dict[str, list[str]]] = {}
    remarks: list[str] = []
    for name, value in lesion_values.items():
        look = choose_look(table, name, case_id, phase, look_rng, locations=None)
        found = _lesions_of(labels == value, is_lesion & (labels != value), anatomy, name, look.attributes)
        lesions += found
        remarks += [f"{case_id}: {name}: {value} is not drawn" for value in look.left_out]
        remarks += _misplaced(table, name, case_id, found)
        attributes[name] = _as_drawn(table, name, case_id, found)
    _fill_with_host(anatomy, lesions)
    dilate_ducts(anatomy, lesions, duct_rng)
    image = render(anatomy, lesions, phase, scanner, scan_rng)
    return RenderedCase(np.rint(image).astype(np.int16), attributes, remarks)


def _lesions_of(
    mask: np.ndarray, others: np.ndarray, anatomy: Anatomy, name: str, attributes: Attributes
) -> list[Lesion]:
    """Every connected part of a mask as a lesion, with its signed depth, and the organ that it lies in."""
    parts, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    found = []
    for number, tight in enumerate(ndimage.find_objects(parts), start=1):
        box = _grown(tight, anatomy.grid)
        inside = parts[box] == number
        step = anatomy.grid.spacing_zyx
        half = min(step) / 2
        outward = ndimage.distance_transform_edt(~inside, step)
        depth = np.where(inside, ndimage.distance_transform_edt(inside, step) - half, half - outward)
        organ = _host(anatomy.organs[box], outward)
        allowed = inside | ~(np.isin(anatomy.tissue[box], _HARD) | mask[box] | others[box])
        radius = max(float(depth.max()), half)
        located = attributes | {"location": (organ,) if organ else ()}
        found.append(Lesion(name, located, organ, radius, box, depth.astype(np.float32), allowed))
    return found


def _grown(box: Box, grid: Grid) -> Box:
    margins = [int(np.ceil(_REACH_MM / step)) for step in grid.spacing_zyx]
    return tuple(
        slice(max(0, part.start - margin), min(size, part.stop + margin))
        for part, margin, size in zip(box, margins, grid.shape, strict=True)
    )


def _host(organs: np.ndarray, outward: np.ndarray) -> str:
    """The organ around a mask; "" if none is near."""
    near = np.bincount(organs[(outward > 0) & (outward <= _SHELL_MM)], minlength=len(ORGANS) + 1)[1:]
    return ORGANS[near.argmax()] if near.any() else ""


def _fill_with_host(anatomy: Anatomy, lesions: list[Lesion]) -> None:
    """Put the organ's own tissue under each lesion, so that a blurred border blends into it."""
    for lesion in lesions:
        tissue, organs = anatomy.tissue[lesion.box], anatomy.organs[lesion.box]
        if not lesion.organ:
            continue
        own = 1 + ORGANS.index(lesion.organ)
        under = np.bincount(tissue[organs == own])
        tissue[lesion.mask], organs[lesion.mask] = under.argmax(), own


def _misplaced(table: AttributeTable, name: str, case_id: str, found: list[Lesion]) -> list[str]:
    """Where the table states the other side for a case than the mask lies on."""
    stated = table.attributes_of(name, case_id).location
    sides = {side for side in ("left", "right") if any(side in place.split() for place in stated)}
    masks = {lesion.organ.split()[0] for lesion in found if lesion.organ.startswith(("left ", "right "))}
    if sides and masks and not sides & masks:
        return [f"{case_id}: {name}: the table says {' or '.join(stated)}, the mask is on the {masks.pop()}"]
    return []


def _as_drawn(table: AttributeTable, name: str, case_id: str, found: list[Lesion]) -> dict[str, list[str]]:
    """Aspect -> values: those that were drawn, and of those that the mask has decided already the stated ones."""
    drawn = {a: list(v) for a, v in found[0].attributes.items() if v and a not in _TAKEN_FROM_MASK}
    organs = sorted({lesion.organ for lesion in found} - {""})
    case = table.cases.get(case_id)
    own = {table.find(each): values for each, values in case.lesions.items()} if case else {}
    stated = own[table.find(name)].stated if table.find(name) in own else {}
    from_mask = {aspect: list(stated[aspect]) for aspect in ("shape", "relationship") if aspect in stated}
    drawn |= from_mask | ({"location": organs} if organs else {})
    return {aspect: drawn[aspect] for aspect in words.ASPECTS if aspect in drawn}

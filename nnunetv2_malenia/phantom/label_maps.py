"""Real label maps to anatomy: which tissue a label's name stands for, which side it is on, what a body around it has.

Names are those of TotalSegmentator, KiTS, MSD and this package ("kidney_left", "left kidney", "kidney"); a kidney or
lung without a side gets it from where it lies in the patient.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy import ndimage

from nnunetv2_malenia.attributes.tables import resolve_label_attributes
from nnunetv2_malenia.files.dataset_json import read_label_map, without_regions
from nnunetv2_malenia.phantom.anatomy import ORGANS, Anatomy, Grid, PhantomError, Tissue, smooth_noise
from nnunetv2_malenia.phantom.volume import Volume
from nnunetv2_malenia.volumes import whole_numbers

_SIDED = ("kidney", "lung")
# first match counts: what a structure's name contains -> its tissue throughout, and the tissue under its wall, if any
_STRUCTURES: tuple[tuple[str, Tissue, Tissue | None], ...] = (
    (r"\bkidney\b", Tissue.RENAL_CORTEX, Tissue.RENAL_MEDULLA),
    (r"\blung\b", Tissue.LUNG, None),
    (r"hepatic vessel|liver vessel", Tissue.HEPATIC_VESSEL, None),
    (r"\bliver\b", Tissue.LIVER, None),
    (r"\bspleen\b", Tissue.SPLEEN, None),
    (r"\bpancreas\b", Tissue.PANCREAS, None),
    (r"\bgallbladder\b|\bgall bladder\b", Tissue.BOWEL_WALL, Tissue.BILE),
    (r"\bbladder\b", Tissue.BOWEL_WALL, Tissue.BILE),
    (r"\b(colon|cecum|rectum|sigmoid)\b", Tissue.BOWEL_WALL, Tissue.STOOL),
    (r"stomach|duodenum|bowel|esophagus|intestine", Tissue.BOWEL_WALL, Tissue.BOWEL_FLUID),
    (r"\b(aorta|artery|trunk)\b", Tissue.AORTA, None),
    (r"\b(vein|vena|cava|vessel)\b", Tissue.VESSEL, None),
    (r"\b(heart|atrial|atrium|ventricle)\b", Tissue.HEART, None),
    (r"cartilage", Tissue.MARROW, None),
    (r"vertebra|sacrum|\b(rib|hip|femur|humerus|scapula|clavicula|sternum|skull|bone)\b", Tissue.BONE, Tissue.MARROW),
    (r"trachea", Tissue.GAS, None),
    (r"autochthon|psoas|gluteus|muscle|cord|brain|adrenal|thyroid|prostate|uterus|diaphragm", Tissue.MUSCLE, None),
)
_LESION = r"\b(tumou?r|cyst|stone|cancer|carcinoma|lesion|metastas[ei]s|nodule|abscess)s?\b"
_WALL_MM: Mapping[Tissue, float] = {
    Tissue.RENAL_MEDULLA: 9.0,
    Tissue.BILE: 2.5,
    Tissue.STOOL: 3.5,
    Tissue.BOWEL_FLUID: 3.5,
    Tissue.MARROW: 3.0,
}
_WIDTH_OF_TWO_MM = 150.0  # kidneys, or lungs, from outer border to outer border; one alone is narrower
_BOWEL_GAS = 0.9  # standard deviations of a smooth field above which stool is gas


def tissue_of(name: str) -> tuple[Tissue, Tissue | None]:
    """The tissue of a structure and, for a hollow or layered one, what is under its wall.

    Raises PhantomError for a name that stands for nothing known.
    """
    words = re.sub(r"[-_\s]+", " ", name.lower())
    for pattern, tissue, content in _STRUCTURES:
        if re.search(pattern, words):
            return tissue, content
    raise PhantomError(
        f"label {name!r} is neither a lesion of the attribute table nor a known organ; name it like one, "
        "e.g. 'kidney', 'liver' or TotalSegmentator's 'vertebrae_L1', or like the lesion in the table"
    )


def is_named_as_lesion(name: str) -> bool:
    """Whether the Clinical Knowledge Table has it, or it says so itself, like TotalSegmentator's "kidney_cyst_left"."""
    words = re.sub(r"[-_\s]+", " ", name.lower())
    return bool(re.search(_LESION, words) or resolve_label_attributes({name: 1}, None))


def organ_of(name: str) -> str | None:
    """The organ of ORGANS that a structure is or belongs to, "kidney" or "lung" where its side is not named, or None.

    "lung_upper_lobe_left" is part of the left lung.
    """
    words = re.sub(r"[-_\s]+", " ", name.lower())
    for organ in _SIDED:
        if re.search(rf"\b{organ}\b", words):
            side = re.search(r"\b(left|right)\b", words)
            return f"{side[1]} {organ}" if side else organ
    if re.search(r"\b(cecum|rectum|sigmoid)\b", words):
        return "colon"
    return next((organ for organ in ORGANS if re.search(rf"\b{organ}\b", words)), None)


def on_right(where: np.ndarray, first_column: int, grid: Grid) -> np.ndarray:
    """Which columns of a paired organ's label are the right one's: (x,) bool.

    where: (z, y, x) bool, a box of a volume in RAS+ order, in which x grows to the patient's right; first_column: where
    the box begins. A label as wide as two organs is split halfway between its outer borders; a narrower one is one
    organ, on the side of the volume's middle that its centre is on.
    """
    x = first_column + np.arange(where.shape[2])
    columns = where.sum((0, 1))
    used = x[columns > 0]
    if (used[-1] - used[0] + 1) * grid.spacing_zyx[2] >= _WIDTH_OF_TWO_MM:
        return x > (used[0] + used[-1]) / 2
    return np.full(len(x), (x * columns).sum() / columns.sum() > (grid.shape[2] - 1) / 2)


def label_anatomy(labels: np.ndarray, names: Mapping[str, int], grid: Grid, rng: np.random.Generator) -> Anatomy:
    """Organs and tissues of a label map; lesions, and what has no label, are left AIR.

    labels: (Z, Y, X) non-negative integers in RAS+ order. names: of organs, label name -> value.
    Raises PhantomError for a name that stands for nothing known.
    """
    organs, tissue = np.zeros((2, *grid.shape), np.uint8)
    parts: dict[str, np.ndarray] = {}
    boxes = dict(enumerate(ndimage.find_objects(labels), start=1))
    for name, value in names.items():
        outside, inside = tissue_of(name)
        if (box := boxes.get(value)) is None:
            continue
        box = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box)  # a layer of what is around it
        where = labels[box] == value
        tissue[box][where] = outside
        if inside is not None:
            _fill(tissue[box], where, inside, Grid(where.shape, grid.spacing_zyx), rng)
        if (organ := organ_of(name)) in ORGANS:
            organs[box][where] = 1 + ORGANS.index(organ)
        elif organ is not None:
            right = on_right(where, box[2].start, grid)
            for side, on_side in (("left", ~right), ("right", right)):
                organs[box][where & on_side] = 1 + ORGANS.index(f"{side} {organ}")
        if lobe := _lung_lobe(name):
            parts[lobe] = labels == value
    anatomy = Anatomy(grid, organs, tissue, parts)
    parts |= _pancreas_parts(anatomy)
    if cava := [value for name, value in names.items() if re.search("cava", name) and "inferior" in name.lower()]:
        parts |= _liver_lobes(anatomy, labels == cava[0])
    return anatomy


def _fill(tissue: np.ndarray, where: np.ndarray, inside: Tissue, grid: Grid, rng: np.random.Generator) -> None:
    """Put what is under an organ's wall into its box, in place."""
    padded = np.pad(where, 1, mode="edge")  # an organ that the volume cuts has no wall there
    depth = ndimage.distance_transform_edt(padded, grid.spacing_zyx) - min(grid.spacing_zyx) / 2
    core = (ndimage.binary_erosion(padded) & (depth > _WALL_MM[inside]))[(slice(1, -1),) * 3]
    tissue[core] = inside
    if inside == Tissue.STOOL:
        tissue[core & (smooth_noise(grid, 20.0, rng) > _BOWEL_GAS)] = Tissue.GAS


def _lung_lobe(name: str) -> str | None:
    words = re.sub(r"[-_\s]+", " ", name.lower())
    level, side = re.search(r"\b(upper|middle|lower)\b", words), re.search(r"\b(left|right)\b", words)
    return f"{side[1]} {level[1]} lung lobe" if "lung" in words and level and side else None


def _pancreas_parts(anatomy: Anatomy) -> dict[str, np.ndarray]:
    """Head, body and tail: a third each of its extent from the patient's right to the left."""
    pancreas = anatomy.organ("pancreas")
    columns = np.flatnonzero(pancreas.any((0, 1)))
    if not len(columns):
        return {}
    third = np.clip((np.arange(pancreas.shape[2]) - columns[0]) * 3 // len(range(columns[0], columns[-1] + 1)), 0, 2)
    return {f"pancreas {part}": pancreas & (third == i) for i, part in enumerate(("tail", "body", "head"))}


def _liver_lobes(anatomy: Anatomy, cava: np.ndarray) -> dict[str, np.ndarray]:
    """Left and right lobe, split by the upright plane through the middles of gallbladder and inferior vena cava."""
    liver, gallbladder = anatomy.organ("liver"), anatomy.organ("gallbladder")
    if not (liver.any() and gallbladder.any() and cava.any()):
        return {}
    (y0, x0), (y1, x1) = (np.argwhere(mask).mean(0)[1:] for mask in (cava, gallbladder))
    if y1 - y0 < 1:
        return {}
    y, x = np.arange(liver.shape[1])[:, None], np.arange(liver.shape[2])
    right = x > x0 + (y - y0) * (x1 - x0) / (y1 - y0)
    return {"right liver lobe": liver & right, "left liver lobe": liver & ~right}


def read_names(file: Path) -> dict[str, int]:
    """Label name -> value, from a dataset.json or a JSON object of labels. Raises PhantomError for what is neither."""
    return without_regions(read_label_map(file, error=PhantomError), file, error=PhantomError)


def checked_labels(volume: Volume, names: Mapping[str, int]) -> np.ndarray:
    """A volume's (Z, Y, X) array as uint8 or wider integers.

    Raises PhantomError for values that are no whole numbers, negative, or without a name; 0 is the background.
    """
    if (labels := whole_numbers(volume.array)) is None:
        raise PhantomError(f"{volume.source}: values that are no whole numbers; give a label map")
    values = np.unique(labels).tolist()
    if values[0] < 0:
        raise PhantomError(f"{volume.source}: label {values[0]} is negative; give a label map")
    if unnamed := sorted(set(values) - set(names.values()) - {0}):
        raise PhantomError(f"{volume.source}: no name for label {unnamed[0]}; name every value, e.g. in dataset.json")
    return labels

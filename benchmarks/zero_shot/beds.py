"""What the rows are tested on: the held-out phantoms, CTs drawn on real KiTS23 masks, lesions put into a real CT.

Every bed asks for the same types with the same queries, and has the label map of the phantoms' labelsTs.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from benchmarks.zero_shot.rows import Size
from nnunetv2_malenia.attributes.tables import write_table
from nnunetv2_malenia.dataset_conversion.nnunet_raw import FILE_ENDING
from nnunetv2_malenia.demo.real_anatomy import insert_into_image, render_dataset
from nnunetv2_malenia.demo.run import QUERY_TABLE, REFERENCE_LABELS
from nnunetv2_malenia.phantom import ORGANS
from nnunetv2_malenia.phantom.anatomy import PhantomError
from nnunetv2_malenia.phantom.dataset import SEEN, UNSEEN, phantom_table
from nnunetv2_malenia.phantom.volume import names_in_header, read_volume

LABELS = {name: value for value, name in enumerate(("background", *ORGANS, *SEEN, *UNSEEN))}
KITS_TYPES = ("kidney tumor", "kidney cyst")
MARGIN_MM = 40.0  # around the kidneys: about the phantoms' field of view
KITS_VALUES = {1: "kidney", 2: "kidney tumor", 3: "kidney cyst"}


# name of the folder -> title in tables, in their order
BEDS = {
    "phantoms": "Held-out phantoms",
    "kits": "CTs drawn on real KiTS23 masks",
    "ct": "Synthetic lesions in a real CT",
}


@dataclass(frozen=True)
class Bed:
    """One of BEDS and the files that it is made from, none for phantoms."""

    name: str
    source: tuple[Path, ...] = ()


PHANTOMS = Bed("phantoms")


def kits_bed(dataset: Path) -> Bed:
    """dataset: KiTS23's, CASE/segmentation.nii.gz; no image is needed."""
    return Bed("kits", (dataset,))


def ct_bed(image: Path, organs: Path) -> Bed:
    """A real CT, and a label map of its organs with names in its header, as TotalSegmentator writes it."""
    return Bed("ct", (image, organs))


def check_source(bed: Bed) -> None:
    """Raises PhantomError for a bed that cannot be made of its files, before anything is trained."""
    if bed.name == "kits" and not _kits_masks(bed):
        raise PhantomError(f"{bed.source[0]}: no CASE/segmentation.nii.gz; give KiTS23's dataset folder with --kits")
    if bed.name == "ct":
        image, organs = map(read_volume, bed.source)
        if not names_in_header(organs):
            raise PhantomError(
                f"{organs.source}: no names of organs in its header; give --ct a file of TotalSegmentator"
            )
        if not image.same_grid(organs):
            raise PhantomError(f"{organs.source}: not on the grid of {image.source}; resample it to the image")


def _kits_masks(bed: Bed) -> list[Path]:
    return sorted(bed.source[0].glob("*/segmentation.nii.gz"))


def write_bed(bed: Bed, folder: Path, size: Size, seed: int) -> None:
    """Write imagesTs and labelsTs of a bed other than the phantoms; a folder that is there stays."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / "made"
        for name in ("imagesTs", "labelsTs"):
            (made / name).mkdir(parents=True)
        write = _render_kits if bed.name == "kits" else _insert_into_ct
        write(bed, made, Path(scratch), size, seed)
        (made / REFERENCE_LABELS).write_text(json.dumps(LABELS), encoding="utf-8")
        write_table(phantom_table((*SEEN, *UNSEEN), {}, name="phantoms"), made / QUERY_TABLE)
        made.rename(folder)


def _render_kits(bed: Bed, made: Path, scratch: Path, size: Size, seed: int) -> None:
    """Masks around the kidneys on the phantoms' voxels, drawn with the phantoms' scanner and looks.

    Kidneys get no side as a label.
    """
    masks = _kits_masks(bed)[: size.kits_cases]
    (scratch / "masks").mkdir()
    for path in masks:
        coarse = _cropped(_resampled(sitk.ReadImage(str(path)), size.phantoms.spacing_zyx))
        sitk.WriteImage(coarse, str(scratch / "masks" / f"{path.parent.name}{FILE_ENDING}"))
    names = scratch / "names.json"
    names.write_text(json.dumps({name: value for value, name in KITS_VALUES.items()} | {"background": 0}))
    table = phantom_table(KITS_TYPES, {}, name="phantoms")
    render_dataset(scratch / "masks", table, scratch / "Dataset999_KiTS", names_file=names,
                   scanner=replace(size.phantoms.scanner, supersampling=1), seed=seed)  # fmt: skip
    values = np.zeros(1 + max(KITS_VALUES), np.uint8)
    for value, name in KITS_VALUES.items():
        values[value] = LABELS.get(name, 0)
    for path in sorted((scratch / "Dataset999_KiTS" / "labelsTr").iterdir()):
        case_id, stored = path.name.removesuffix(FILE_ENDING), nib.load(path)
        image = path.parents[1] / "imagesTr" / f"{case_id}_0000{FILE_ENDING}"
        shutil.move(image, made / "imagesTs" / image.name)
        nib.save(nib.Nifti1Image(values[np.asarray(stored.dataobj)], stored.affine), made / "labelsTs" / path.name)


def _insert_into_ct(bed: Bed, made: Path, scratch: Path, size: Size, seed: int) -> None:
    """Copies of the CT with one to three types each; a type that finds no place in this CT is left out."""
    types, rng = (*SEEN, *UNSEEN), np.random.default_rng([seed, 3])
    possible = [name for name in types if _inserted(bed, [name], scratch / name, 0)]
    if not possible:
        raise PhantomError(f"{bed.source[0]}: no lesion type finds a place in it; label its organs, e.g. liver, kidney")
    for i in range(size.ct_cases):
        number = min(len(possible), int(rng.integers(1, 4)))
        chosen = [str(name) for name in rng.choice(possible, size=number, replace=False)]
        folder, case_id = scratch / f"case_{i}", f"ct_{i:03d}"
        while chosen and not (name := _inserted(bed, chosen, folder, 1000 * seed + i)):
            chosen.pop()
        if not chosen:
            continue
        stored = nib.load(folder / f"{name}{FILE_ENDING}")
        values = np.array([0, *(LABELS[each] for each in chosen)], np.uint8)
        mask = nib.Nifti1Image(values[np.asarray(stored.dataobj)], stored.affine)
        nib.save(mask, made / "labelsTs" / f"{case_id}{FILE_ENDING}")
        image = folder / f"{name}_0000{FILE_ENDING}"
        shutil.move(image, made / "imagesTs" / f"{case_id}_0000{FILE_ENDING}")


def _inserted(bed: Bed, types: Sequence[str], folder: Path, seed: int) -> str | None:
    """Put a lesion of each type into the CT -> the name that its files in `folder` begin with; None: no place."""
    image, organs = bed.source
    try:
        return insert_into_image(image, organs, phantom_table(types, {}, name=""), folder, seed=seed)[0]
    except PhantomError:
        return None


def _cropped(mask: sitk.Image) -> sitk.Image:
    """What is labelled, and MARGIN_MM around it."""
    labelled = sitk.LabelShapeStatisticsImageFilter()
    labelled.Execute(mask > 0)
    x, y, z, *extent = labelled.GetBoundingBox(1)
    box = []
    for start, length, size, edge in zip((x, y, z), extent, mask.GetSize(), mask.GetSpacing(), strict=True):
        margin = round(MARGIN_MM / edge)
        box.append(slice(max(0, start - margin), min(size, start + length + margin)))
    return mask[tuple(box)]


def _resampled(mask: sitk.Image, spacing_zyx: tuple[float, float, float]) -> sitk.Image:
    """A label map in LPS order on voxels of another size, nearest neighbour, over the same field of view."""
    mask = sitk.DICOMOrient(mask, "LPS")
    spacing = spacing_zyx[::-1]
    shape = [
        max(1, round(n * old / new)) for n, old, new in zip(mask.GetSize(), mask.GetSpacing(), spacing, strict=True)
    ]
    # voxel corners stay where they are, centres move
    shift = [(new - old) / 2 for new, old in zip(spacing, mask.GetSpacing(), strict=True)]
    origin = mask.TransformContinuousIndexToPhysicalPoint(
        [s / o for s, o in zip(shift, mask.GetSpacing(), strict=True)]
    )
    return sitk.Resample(mask, shape, sitk.Transform(), sitk.sitkNearestNeighbor, origin, spacing, mask.GetDirection(),
                         0, mask.GetPixelID())  # fmt: skip

"""Phantoms in the layouts in which MSD and KiTS23 are published."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from nnunetv2_malenia.phantom import ORGANS, Phantom

# MSD task -> what it draws, organ or lesion type; and the label that MSD has for it, in their order. A phantom's truth
# has no vessels, so that their label stays unused.
TASKS: Mapping[str, Mapping[str, str]] = {
    "Task03_Liver": {"liver": "liver", "liver tumor": "cancer"},
    "Task06_Lung": {"lung tumor": "cancer"},
    "Task07_Pancreas": {"pancreas": "pancreas", "pancreas tumor": "cancer", "pancreas cyst": "cancer"},
    "Task08_HepaticVessel": {"hepatic vessels": "Vessel", "hepatic vessel tumor": "Tumour"},
    "Task10_Colon": {"colon tumor": "colon cancer primaries"},
}
KITS_AXES = "IPL"  # of KiTS23's files
KITS_LABELS = {"left kidney": 1, "right kidney": 1, "kidney tumor": 2, "kidney cyst": 3}


def write_msd_task(folder: Path, names: Mapping[str, str], phantoms: Mapping[str, Phantom]) -> None:
    """Write a task as MSD publishes it. names: as in TASKS; phantoms: case id -> phantom."""
    labels = list(dict.fromkeys(("background", *names.values())))
    drawn = {name: labels.index(label) for name, label in names.items()}
    for case_id, phantom in phantoms.items():
        save(folder / "imagesTr" / f"{case_id}.nii.gz", hounsfield(phantom), phantom.affine)
        save(folder / "labelsTr" / f"{case_id}.nii.gz", mask_of(phantom, drawn), phantom.affine)
    pairs = [{"image": f"./imagesTr/{i}.nii.gz", "label": f"./labelsTr/{i}.nii.gz"} for i in phantoms]
    about = {
        "name": folder.name,
        "modality": {"0": "CT"},
        "labels": {str(value): label for value, label in enumerate(labels)},
        "training": pairs,
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")


def write_kits_case(folder: Path, phantom: Phantom) -> None:
    """Write `imaging.nii.gz` and `segmentation.nii.gz` of one case of KiTS23, in the order of its axes."""
    save(folder / "imaging.nii.gz", hounsfield(phantom), phantom.affine, axes=KITS_AXES)
    save(folder / "segmentation.nii.gz", mask_of(phantom, KITS_LABELS), phantom.affine, axes=KITS_AXES)


def hounsfield(phantom: Phantom) -> np.ndarray:
    return np.rint(phantom.image).astype(np.int16)


def mask_of(phantom: Phantom, drawn: Mapping[str, int]) -> np.ndarray:
    """What a source draws of a phantom, organ or lesion type -> value; a lesion lies on top of its organ."""
    mask = np.zeros(phantom.lesion.shape, np.uint8)
    for name, value in drawn.items():
        if name in ORGANS:
            mask[phantom.anatomy == 1 + ORGANS.index(name)] = value
        elif name in phantom.lesion_types:
            mask[phantom.lesion == 1 + phantom.lesion_types.index(name)] = value
    return mask


def save(path: Path, array_zyx: np.ndarray, affine: np.ndarray, *, axes: Sequence[str] | None = None) -> None:
    """Store (Z, Y, X) in the affine's own order, or with axes that run as the codes say, e.g. "IPL"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array_zyx.transpose(2, 1, 0), affine)
    if axes:
        image = image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(tuple(axes))))
    nib.save(image, path)

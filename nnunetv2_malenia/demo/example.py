"""`malenia_predict_zeroshot --example`: one phantom CT and a table of what to ask for in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nnunetv2_malenia.attributes.schema import AttributeTable, LesionEntry
from nnunetv2_malenia.attributes.tables import write_table
from nnunetv2_malenia.dataset_conversion.nifti_files import write_nifti
from nnunetv2_malenia.demo.run import PHANTOMS
from nnunetv2_malenia.demo.shipped_model import CASES, SEED
from nnunetv2_malenia.files import write_whole
from nnunetv2_malenia.phantom import make_phantom
from nnunetv2_malenia.phantom.dataset import SEEN, UNSEEN, plan_test_cases

_CASE = 0  # of the demo's phantoms: the one in which the model misses no lesion


def write_example(folder: Path) -> tuple[Path, Path]:
    """Write CT.nii.gz, a phantom that the shipped model has not seen, and table.json, its lesions -> both paths."""
    case = plan_test_cases(CASES, SEEN, UNSEEN, SEED)[_CASE]
    phantom = make_phantom(PHANTOMS, SEED, case.case_index, case.lesion_types)
    image, table = folder / "CT.nii.gz", folder / "table.json"
    folder.mkdir(parents=True, exist_ok=True)
    voxels = np.rint(phantom.image).astype(np.int16)
    write_whole(image, lambda name: write_nifti(voxels, phantom.affine, name))
    lesions = {name: LesionEntry(**aspects) for name, aspects in phantom.attributes.items()}
    write_table(AttributeTable(name="example: lesions of a phantom", lesions=lesions), table)
    return image, table

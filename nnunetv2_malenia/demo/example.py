"""`malenia_predict_zeroshot --example`: one phantom CT and a table of what to ask for in it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np

from nnunetv2_malenia.attributes.schema import AttributeTable, LesionEntry
from nnunetv2_malenia.attributes.tables import table_to_dict
from nnunetv2_malenia.dataset_conversion.nifti_files import write_nifti
from nnunetv2_malenia.demo.run import PHANTOMS
from nnunetv2_malenia.demo.shipped_model import CASES, SEED
from nnunetv2_malenia.files import OutputFolder, json_text
from nnunetv2_malenia.phantom import make_phantom
from nnunetv2_malenia.phantom.dataset import SEEN, UNSEEN, plan_test_cases

_IMAGE, _TABLE = "CT.nii.gz", "table.json"
_CASE = 0  # of the demo's phantoms: the one in which the model misses no lesion


def write_example(folder: Path) -> tuple[Path, Path]:
    """Write CT.nii.gz, a phantom that the shipped model has not seen, and table.json, its lesions -> both paths.

    Raises MaleniaError if files of these names are there that are not from here, or were changed.
    """
    case = plan_test_cases(CASES, SEEN, UNSEEN, SEED)[_CASE]
    phantom = make_phantom(PHANTOMS, SEED, case.case_index, case.lesion_types)
    voxels = np.rint(phantom.image).astype(np.int16)
    lesions = {name: LesionEntry(**aspects) for name, aspects in phantom.attributes.items()}
    table = AttributeTable(name="example: lesions of a phantom", lesions=lesions)
    outputs = OutputFolder(folder)
    outputs.claim([_IMAGE, _TABLE])
    with closing(outputs):
        outputs.open()
        outputs.write(_IMAGE, lambda place: write_nifti(voxels, phantom.affine, place))
        outputs.write_text(_TABLE, json_text(table_to_dict(table)))
    return folder / _IMAGE, folder / _TABLE

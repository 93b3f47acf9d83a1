"""Files around `render` and `insert`: real label maps to a data set of drawn CTs, lesions into a real CT."""

from __future__ import annotations

import os
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from nnunetv2_malenia.attributes.schema import AttributeTable, CaseEntry
from nnunetv2_malenia.attributes.tables import write_table
from nnunetv2_malenia.dataset_conversion.nnunet_raw import FILE_ENDING, new_raw_dataset
from nnunetv2_malenia.files import OutputFolder, is_unicode, stage
from nnunetv2_malenia.phantom.anatomy import PhantomError
from nnunetv2_malenia.phantom.from_labels import render_label_map
from nnunetv2_malenia.phantom.insertion import insert_lesions
from nnunetv2_malenia.phantom.label_maps import read_names
from nnunetv2_malenia.phantom.rendering import Scanner
from nnunetv2_malenia.phantom.volume import Volume, names_in_header, read_volume
from nnunetv2_malenia.volumes import stem_of

KITS_MASK = "segmentation.nii.gz"
KITS_NAMES = {"background": 0, "kidney": 1, "kidney tumor": 2, "kidney cyst": 3}


def render_dataset(
    labels_folder: Path,
    table: AttributeTable,
    dataset_folder: str | os.PathLike[str],
    *,
    names_file: Path | None = None,
    scanner: Scanner,
    seed: int = 0,
) -> tuple[int, list[str]]:
    """Draw a CT of every label map of a folder and write an nnU-Net raw data set -> number of cases, remarks.

    labels_folder: CASE.nii.gz files, or KiTS's CASE/segmentation.nii.gz. Names of the labels: from `names_file`, the
    dataset.json of the folder or the one above, the label maps' own headers, or those of KiTS. Images and label maps
    have the geometry of the files given, label values without gaps; `attributes.json` says how each case's lesions were
    drawn, if there are any.
    Raises PhantomError as `render_label_map` does, FileExistsError if the data set is there; then nothing is written.
    """
    files = _label_maps(labels_folder)
    names = _names(read_volume(next(iter(files.values()))), labels_folder, names_file)
    values = [0, *sorted(value for value in names.values() if value)]
    labels = {"background": 0} | {name: values.index(value) for name, value in names.items() if value}
    lesions = [name for name in labels if table.find(name) is not None]
    cases, remarks = {}, []
    if values[-1] != len(values) - 1:
        remarks.append(f"{labels_folder}: its label values have gaps, which nnU-Net does not take; they are renumbered")
    if not lesions:
        remarks.append(
            f"{labels_folder}: no label is a lesion of the table; organs are drawn alone, without attributes"
        )
    about = {"description": "CTs drawn on real label maps by nnunetv2_malenia; not clinical data."}
    with new_raw_dataset(dataset_folder, labels, **about) as raw:
        for case_id, path in files.items():
            volume = read_volume(path)
            case = render_label_map(volume, names, table, case_id, scanner=scanner, seed=seed)
            masks = np.searchsorted(values, volume.array).astype(np.min_scalar_type(len(values) - 1))
            image, mask = (_as_stored(volume, each) for each in (case.image, masks))
            raw.add_training_case(case_id, [image], mask, volume.stored.affine)
            cases[case_id] = CaseEntry(lesions=case.attributes)
            remarks += [*volume.remarks(case.attributes), *case.remarks]
        if lesions:
            entries = {name: table.entry(name) for name in lesions}
            title = f"rendered from {table.name}" if table.name else "rendered"
            raw.write_attributes(AttributeTable(name=title, lesions=entries, cases=cases))
    return len(files), remarks


def insert_into_image(
    image_file: Path,
    organs_file: Path,
    table: AttributeTable,
    output_folder: Path,
    *,
    names_file: Path | None = None,
    diameter_mm: tuple[float, float] | None = None,
    seed: int = 0,
) -> tuple[str, list[str]]:
    """Put a lesion of every type of a table into a CT -> case id, remarks.

    Writes CASE_0000.nii.gz, the mask CASE.nii.gz (1 + row of the type in the table) and CASE.json, a table that says
    how each lesion was drawn, into `output_folder`, which is made. Names of the organs' labels as in `render_dataset`.
    Raises PhantomError as `insert_lesions` does, MaleniaError if other files have these names; then nothing is written.
    """
    image, organs = read_volume(image_file), read_volume(organs_file)
    case_id = stem_of(image_file).removesuffix("_0000")
    outputs = OutputFolder(output_folder)
    names_of_files = [f"{case_id}{ending}" for ending in (f"_0000{FILE_ENDING}", FILE_ENDING, ".json")]
    outputs.claim(names_of_files, [image_file, organs_file])
    names = _names(organs, organs_file.parent, names_file)
    done = insert_lesions(image, organs, names, table, case_id, diameter_mm=diameter_mm, seed=seed)
    remarks = [*image.remarks(done.attributes), *organs.remarks({}), *done.remarks]
    drawn = AttributeTable(lesions=table.lesions, cases={case_id: CaseEntry(lesions=done.attributes)})
    writes = (partial(image.save, done.image), partial(image.save, done.mask), partial(write_table, drawn))
    with closing(outputs):
        outputs.open()
        outputs.publish({name: stage(outputs.staging, name, w) for name, w in zip(names_of_files, writes, strict=True)})
    return case_id, remarks


def _label_maps(folder: Path) -> dict[str, Path]:
    """Case id -> label map."""
    if not folder.is_dir():
        raise PhantomError(f"{folder}: no such folder; give a folder of label maps, CASE.nii.gz")
    flat = {path.name.removesuffix(FILE_ENDING): path for path in sorted(folder.glob(f"*{FILE_ENDING}"))}
    found = flat or {path.parent.name: path for path in sorted(folder.glob(f"*/{KITS_MASK}"))}
    if not found:
        raise PhantomError(f"{folder}: neither CASE.nii.gz nor CASE/{KITS_MASK} in it; give a folder of label maps")
    if garbled := [path for case_id, path in found.items() if not is_unicode(case_id)]:
        raise PhantomError(f"{garbled[0]}: the name is no UTF-8 text; rename it")
    return found


def _names(volume: Volume, folder: Path, names_file: Path | None) -> dict[str, int]:
    """What the labels of a label map are called: label name -> value."""
    beside = (folder / "dataset.json", folder.parent / "dataset.json")
    source = names_file or next((path for path in beside if path.is_file()), None)
    if source is None:
        if names := names_in_header(volume):
            return names
        if volume.source.name == KITS_MASK:
            return KITS_NAMES
        raise PhantomError(f"{volume.source}: its labels have no names; give them with --names, e.g. a dataset.json")
    return read_names(source)


def _as_stored(volume: Volume, array: np.ndarray) -> np.ndarray:
    """A RAS+ array in the file's axis order, transposed as data sets take it."""
    return volume.in_file_order(array).transpose(2, 1, 0)

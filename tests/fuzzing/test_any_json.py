"""Attribute tables, dataset.json, label maps and answers, spoiled: a command works, or says in a line why not."""

import json
import shutil

import pytest
from fuzzed import ends_well, examples, spoiled_json
from hypothesis import given
from hypothesis import strategies as st
from tiny_data import ct, mask, msd_task, save
from tiny_study import AFFINE, LABELS, Study, volume

from nnunetv2_malenia import cli
from nnunetv2_malenia.attributes.tables import read_table, vocabulary

TABLE = {
    "name": "a table", "license": "MIT",
    "lesions": {
        "kidney tumor": {"location": ["left kidney", "right kidney"], "density": "hypodense", "aliases": "renal mass"},
        "liver tumor": {"location": "liver", "shape": "round-like", "references": "nobody, 2020"},
        "liver cyst": {"density": "fluid density", "specific_features": ["thin wall"]},
    },
    "cases": {"a": {"annotated": ["liver tumor"], "lesions": {"liver tumor": {"shape": "irregular"}}}, "b": {}},
}  # fmt: skip
MSD = {
    "name": "Liver", "description": "a miniature", "reference": "nobody", "licence": "CC-BY-SA 4.0", "release": "1.0",
    "modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver", "2": "cancer"}, "numTraining": 1,
    "training": [{"image": "./imagesTr/liver_0.nii.gz", "label": "./labelsTr/liver_0.nii.gz"}],
    "test": ["./imagesTs/liver_9.nii.gz"],
}  # fmt: skip
RAW = {
    "channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "liver tumor": 2}, "numTraining": 1,
    "file_ending": ".nii.gz", "overwrite_image_reader_writer": "NibabelIOWithReorient", "licence": "MIT",
}  # fmt: skip
LISTED = RAW | {"dataset": {"a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}}
QUERIES = [
    {"id": i, "name": name, "seen_in_training": i == 1, "attributes": {}}
    for i, name in enumerate(("liver tumor", "liver cyst"), start=1)
]
FINDINGS = [{"name": "liver tumor", "presence_score": 0.5}, {"name": "liver cyst", "presence_score": 0.1}]


def maybe_spoiled(content):
    return st.just(json.dumps(content).encode()) | spoiled_json(content)


@examples(40)
@given(content=spoiled_json(TABLE))
def test_any_table_can_be_checked_shown_and_embedded(tmp_path, content):
    path, bank = tmp_path / "t.json", tmp_path / "bank"
    path.write_bytes(content)
    is_sound = ends_well(cli.attributes, "validate", path, folder=tmp_path)
    assert ends_well(cli.attributes, "show", path, folder=tmp_path) is is_sound
    ends_well(cli.attributes, "show", path, "--lesion", "renal mass", folder=tmp_path)
    if is_sound and set(read_table(path).phrases()) <= set(vocabulary().phrases()):  # else it loads an encoder
        assert ends_well(cli.attributes, "embed", path, "-o", bank, folder=tmp_path)
        bank.unlink()


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return msd_task(tmp_path_factory.mktemp("msd") / "Task03_Liver", {"liver_0": (1, 2)}, test_cases=("liver_9",))


@examples(40)
@given(about=spoiled_json(MSD), is_dry=st.booleans())
def test_any_dataset_json_of_msd_is_converted_or_refused(task, tmp_path, about, is_dry):
    (task / "dataset.json").write_bytes(about)
    options = ["--dry-run"] if is_dry else []
    ends_well(cli.convert_msd, "-i", task, "-d", "3", "-o", tmp_path / "raw", *options, folder=tmp_path)
    shutil.rmtree(tmp_path / "raw", ignore_errors=True)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw") / "Dataset001_A"
    save(folder / "imagesTr" / "a_0000.nii.gz", ct())
    save(folder / "labelsTr" / "a.nii.gz", mask(1, 2))
    return folder


@examples(40)
@given(about=maybe_spoiled(RAW) | maybe_spoiled(LISTED), table=maybe_spoiled(TABLE), is_dry=st.booleans(),
       holdout=st.sampled_from(["", "liver tumor", "nothing"]))  # fmt: skip
def test_any_raw_data_set_is_merged_or_refused(raw, tmp_path, about, table, is_dry, holdout):
    (raw / "dataset.json").write_bytes(about)
    (raw / "attributes.json").write_bytes(table)
    options = ["--dry-run"] * is_dry + ["--holdout", holdout] * bool(holdout)
    ends_well(cli.merge, "-i", raw, "-d", "100", "-o", tmp_path / "raw", *options, folder=tmp_path)
    shutil.rmtree(tmp_path / "raw", ignore_errors=True)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = Study(tmp_path_factory.mktemp("study"))
    for case_id in "ab":
        study.predict(case_id, {1: (0, 0, 0), 2: (3, 3, 3)}, liver_tumor=0.9, liver_cyst=0.8)
    return study


@examples(20)
@given(data=st.data(), spoilt=st.integers(0, 3))
def test_any_labels_table_and_answers_are_evaluated_or_refused(study, data, spoilt):
    table, out = study.folder / "t.json", study.folder / "out"
    files = {
        study.labels: data.draw(st.sampled_from([LABELS, {"labels": LABELS, "file_ending": ".nii.gz"}])),
        table: TABLE,
        study.predictions / "queries.json": {"queries": QUERIES},
        study.predictions / "a.json": {"case": "a", "findings": FINDINGS},
    }
    for i, (path, content) in enumerate(files.items()):
        path.write_bytes(data.draw(spoiled_json(content)) if i == spoilt else json.dumps(content).encode())
    ends_well(cli.evaluate, "-i", study.predictions, "-g", study.references, "--labels", study.labels, "-np", "1",
              "--attributes", table, "-o", out, "--disable_progress_bar", folder=study.folder)  # fmt: skip
    shutil.rmtree(out, ignore_errors=True)


@pytest.fixture(scope="module")
def organs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("organs")
    labels = volume({1: (slice(2, 8),) * 3, 2: (4, 4, slice(4, 6))}, (10, 10, 10))
    save(folder / "labels" / "a.nii.gz", labels, AFFINE)
    return folder


@examples(12)
@given(names=maybe_spoiled({"labels": {"background": 0, "liver": 1, "liver tumor": 2}}), table=maybe_spoiled(TABLE),
       command=st.sampled_from(["render", "insert"]))  # fmt: skip
def test_any_names_and_table_are_drawn_or_refused(organs, names, table, command):
    (organs / "names.json").write_bytes(names)
    (organs / "t.json").write_bytes(table)
    label_map = organs / "labels" / "a.nii.gz"
    source = ["--labels", label_map.parent] if command == "render" else ["--image", label_map, "--organs", label_map]
    out = organs / "Dataset001_Out"
    ends_well(cli.phantom, command, *source, "--attributes", organs / "t.json", "--names", organs / "names.json",
              "-o", out, folder=organs)  # fmt: skip
    shutil.rmtree(out, ignore_errors=True)

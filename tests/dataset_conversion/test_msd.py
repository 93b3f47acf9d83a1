"""Tasks of the Medical Segmentation Decathlon, in MSD's own format, through malenia_convert_msd."""

import io
import json
import os
import tarfile

import nibabel as nib
import numpy as np
import pytest
from tiny_data import MSD_LABELS, SHAPE, ct, damage_the_middle, mask, msd_task, save, stored, tree, truncate

from nnunetv2_malenia.attributes.schema import AttributeTable, CaseEntry
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table, read_table, write_table
from nnunetv2_malenia.cli import convert_msd
from nnunetv2_malenia.dataset_conversion.case_attributes import read_annotations
from nnunetv2_malenia.dataset_conversion.msd import SIDES
from nnunetv2_malenia.dataset_conversion.summary import count_lesions

EXPECTED = {
    "Task03_Liver": ["background", "liver", "liver tumor"],
    "Task06_Lung": ["background", "lung tumor"],
    "Task07_Pancreas": ["background", "pancreas", "pancreas tumor", "pancreas cyst"],
    "Task08_HepaticVessel": ["background", "hepatic vessel", "hepatic vessel tumor"],
    "Task10_Colon": ["background", "colon tumor"],
}
LIVER = {"liver_0": (1, 2), "liver_1": (1,)}


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


def annotations(path, **types):
    """An annotation table. types: case id -> the lesion types that it lists."""
    known = clinical_knowledge_table().lesions
    cases = {case: CaseEntry(lesions={name: {"shape": "irregular"} for name in names}) for case, names in types.items()}
    lesions = {name: known[name] for name in ("pancreas tumor", "pancreas cyst", "liver tumor")}
    write_table(AttributeTable(name="by hand", license="MIT", lesions=lesions, cases=cases), path)
    return path


def run(task, raw, *options, dataset="3"):
    return convert_msd(["-i", str(task), "-d", dataset, "-o", str(raw), *map(str, options)])


def about(folder):
    return json.loads((folder / "dataset.json").read_text())


def summary(folder):
    return json.loads((folder / "conversion_summary.json").read_text())


@pytest.mark.parametrize("name", MSD_LABELS)
def test_the_five_tasks_get_the_names_of_the_knowledge_table(tmp_path, raw, name):
    values = tuple(range(1, len(MSD_LABELS[name])))
    task = msd_task(tmp_path / name, {"case_1": values, "case_2": values}, test_cases=("case_3",))
    table = annotations(tmp_path / "table.json", case_1=["pancreas tumor"], case_2=["pancreas cyst"])
    assert run(task, raw, "--annotations", table) == 0
    (folder,) = raw.iterdir()
    assert folder.name == f"Dataset003_{name.partition('_')[2]}"
    assert list(about(folder)["labels"]) == EXPECTED[name]
    assert list(about(folder)["labels"].values()) == list(range(len(EXPECTED[name])))
    assert about(folder)["overwrite_image_reader_writer"] == "NibabelIOWithReorient"
    assert about(folder)["channel_names"] == {"0": "CT"}
    assert about(folder)["numTraining"] == 2
    assert about(folder)["licence"] == "CC-BY-SA 4.0"
    lesions = {label for label in EXPECTED[name] if clinical_knowledge_table().find(label)}
    assert set(read_table(folder / "attributes.json").lesions) == lesions
    assert tree(folder) == {
        "attributes.json", "conversion_summary.json", "dataset.json", "imagesTr/case_1_0000.nii.gz",
        "imagesTr/case_2_0000.nii.gz", "imagesTs/case_3_0000.nii.gz",
        "labelsTr/case_1.nii.gz", "labelsTr/case_2.nii.gz",
    }  # fmt: skip


def test_images_are_linked_and_masks_have_the_geometry_of_their_image(tmp_path, raw):
    task = msd_task(tmp_path / "Task03_Liver", LIVER)
    save(task / "labelsTr" / "liver_0.nii.gz", mask(1, 2, dtype=np.float64))
    assert run(task, raw) == 0
    folder = raw / "Dataset003_Liver"
    image, label = (folder / name for name in ("imagesTr/liver_0_0000.nii.gz", "labelsTr/liver_0.nii.gz"))
    assert image.samefile(task / "imagesTr" / "liver_0.nii.gz")
    assert not image.is_symlink()
    headers = nib.load(image).header, nib.load(label).header
    for fields in ("pixdim", "qform_code", "sform_code", "quatern_b", "qoffset_x", "srow_x", "srow_y", "srow_z"):
        assert (headers[0][fields] == headers[1][fields]).all(), fields
    assert headers[1].get_data_dtype() == np.uint8
    assert (stored(label) == mask(1, 2)).all()


def test_on_another_file_system_images_are_referenced(tmp_path, raw, monkeypatch):
    def cross_device(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", cross_device)
    task = msd_task(tmp_path / "Task03_Liver", LIVER, test_cases=("liver_9",))
    assert run(task, raw) == 0
    for name in ("imagesTr/liver_0", "imagesTs/liver_9"):
        image = raw / "Dataset003_Liver" / f"{name}_0000.nii.gz"
        assert image.is_symlink()
        assert image.resolve() == (task / f"{name}.nii.gz").resolve()


def test_a_link_to_an_image_is_followed_before_it_is_linked(tmp_path, raw):
    task = msd_task(tmp_path / "Task03_Liver", LIVER)
    image = task / "imagesTr" / "liver_0.nii.gz"
    image.rename(tmp_path / "elsewhere.nii.gz")
    image.symlink_to(tmp_path / "elsewhere.nii.gz")
    assert run(task, raw) == 0
    linked = raw / "Dataset003_Liver" / "imagesTr" / "liver_0_0000.nii.gz"
    assert not linked.is_symlink()
    assert linked.samefile(tmp_path / "elsewhere.nii.gz")


def test_copies_can_be_asked_for(tmp_path, raw):
    task = msd_task(tmp_path / "Task03_Liver", LIVER)
    assert run(task, raw, "--copy") == 0
    source, image = task / "imagesTr/liver_0.nii.gz", raw / "Dataset003_Liver/imagesTr/liver_0_0000.nii.gz"
    assert image.read_bytes() == source.read_bytes()
    assert not image.samefile(source)


def test_images_are_not_decompressed(tmp_path, raw):
    task = msd_task(tmp_path / "Task03_Liver", LIVER)
    shape = (40, 50, 60)
    image = save(task / "imagesTr" / "liver_0.nii.gz", ct(shape=shape))
    save(task / "labelsTr" / "liver_0.nii.gz", mask(1, 2, shape=shape))
    damage_the_middle(image)
    assert run(task, raw) == 0


@pytest.mark.parametrize("options", [[], ["--skip-bad"]])
def test_an_image_that_must_be_stored_anew_is_found_damaged_before_anything_is_written(tmp_path, raw, capsys, options):
    task = msd_task(tmp_path / "Task03_Liver", LIVER)
    shape = (40, 50, 60)
    image = save(task / "imagesTr" / "liver_0.nii.gz", ct(shape=(*shape, 1)))
    save(task / "labelsTr" / "liver_0.nii.gz", mask(1, 2, shape=shape))
    damage_the_middle(image)
    assert run(task, raw, *options) == (0 if options else 1)
    assert "liver_0.nii.gz: the file is damaged" in capsys.readouterr().err
    assert tree(raw / "Dataset003_Liver" / "labelsTr") == ({"liver_1.nii.gz"} if options else set())
    assert raw.exists() is bool(options)


def test_a_tar_converts_as_its_folder_does(tmp_path, raw):
    task = msd_task(tmp_path / "Task03_Liver", LIVER, test_cases=("liver_9",))
    with tarfile.open(tmp_path / "Task03_Liver.tar", "w") as tar:
        tar.add(task, "./Task03_Liver")
    assert run(task, raw) == 0
    assert run(tmp_path / "Task03_Liver.tar", raw, dataset="4") == 0
    one, other = raw / "Dataset003_Liver", raw / "Dataset004_Liver"
    assert tree(one) == tree(other)
    for name in tree(one) - {"conversion_summary.json"}:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_a_tar_that_reaches_outside_itself_is_refused(tmp_path, raw, capsys):
    with tarfile.open(tmp_path / "Task03_Liver.tar", "w") as tar:
        member = tarfile.TarInfo("Task03_Liver/../../evil.nii.gz")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    assert run(tmp_path / "Task03_Liver.tar", raw) == 1
    assert "points outside the archive" in capsys.readouterr().err
    assert not raw.exists()


def test_a_tar_that_is_cut_short_or_compressed_is_told(tmp_path, raw, capsys):
    task = msd_task(tmp_path / "Task03_Liver", LIVER)
    for name, mode in (("short.tar", "w"), ("small.tar", "w:gz")):
        with tarfile.open(tmp_path / name, mode) as tar:
            tar.add(task, "Task03_Liver")
    truncate(tmp_path / "short.tar")
    for name in ("short.tar", "small.tar"):
        assert run(tmp_path / name, raw) == 1
        assert "neither a folder nor a whole, uncompressed tar" in capsys.readouterr().err


def test_pancreas_lesions_are_split_by_their_annotations_and_never_guessed(tmp_path, raw, capsys):
    cases = {f"pancreas_{i:03d}": (1, 2) for i in range(4)}
    task = msd_task(tmp_path / "Task07_Pancreas", cases)
    table = annotations(
        tmp_path / "table.json",
        pancreas_000=["pancreas tumor"],
        pancreas_001=["pancreas cyst"],
        pancreas_002=["pancreas tumor", "pancreas cyst"],
    )
    assert run(task, raw, "--annotations", table, dataset="7") == 0
    folder = raw / "Dataset007_Pancreas"
    assert (stored(folder / "labelsTr" / "pancreas_000.nii.gz") == mask(1, 2)).all()
    assert (stored(folder / "labelsTr" / "pancreas_001.nii.gz") == mask(1, 3)).all()
    assert about(folder)["numTraining"] == 2
    assert {name for name in tree(folder) if "Apart" in name} == {
        "labelsApart.json", "imagesApart/pancreas_002_0000.nii.gz", "imagesApart/pancreas_003_0000.nii.gz",
        "labelsApart/pancreas_002.nii.gz", "labelsApart/pancreas_003.nii.gz",
    }  # fmt: skip
    assert json.loads((folder / "labelsApart.json").read_text()) == {
        "background": 0, "pancreas": 1, "pancreas lesion": 2
    }  # fmt: skip
    assert (stored(folder / "labelsApart" / "pancreas_003.nii.gz") == mask(1, 2)).all()
    told = capsys.readouterr().out
    assert "1 kept apart, annotated as both of pancreas tumor and pancreas cyst: pancreas_002" in told
    assert "1 kept apart, annotated as neither of pancreas tumor and pancreas cyst: pancreas_003" in told
    attributes = read_table(folder / "attributes.json")
    assert set(attributes.cases) == {"pancreas_000", "pancreas_001"}
    assert attributes.attributes_of("pancreas tumor", "pancreas_000").shape == ("irregular",)
    assert attributes.license == "MIT"


def test_pancreas_lesions_are_split_by_the_published_annotations_that_ship(tmp_path, raw, capsys):
    shipped = read_annotations(None)
    of_pancreas = {case_id: case.lesions for case_id, case in shipped.cases.items() if case_id.startswith("pancreas_")}
    tumor, cyst = (next(i for i, sides in of_pancreas.items() if side in sides) for side in SIDES)
    assert run(msd_task(tmp_path / "Task07_Pancreas", {tumor: (1, 2), cyst: (1, 2)}), raw, dataset="7") == 0
    folder = raw / "Dataset007_Pancreas"
    assert (stored(folder / "labelsTr" / f"{tumor}.nii.gz") == mask(1, 2)).all()
    assert (stored(folder / "labelsTr" / f"{cyst}.nii.gz") == mask(1, 3)).all()
    own = read_table(folder / "attributes.json").attributes_of("pancreas tumor", tumor)
    assert own == shipped.attributes_of("pancreas tumor", tumor)


def test_another_task_keeps_its_labels_but_for_known_lesions(tmp_path, raw):
    labels = ("background", "spleen", "Splenic Cyst")
    assert run(msd_task(tmp_path / "Task99_Spleens", {"s_1": (1, 2)}, labels=labels), raw, dataset="99") == 0
    assert list(about(raw / "Dataset099_Spleens")["labels"]) == ["background", "spleen", "spleen cyst"]


def test_a_4d_image_with_one_volume_is_stored_as_3d(tmp_path, raw):
    task = msd_task(tmp_path / "Task03_Liver", LIVER)
    before = nib.load(save(task / "imagesTr" / "liver_0.nii.gz", ct()[..., None]))
    assert run(task, raw) == 0
    after = nib.load(raw / "Dataset003_Liver" / "imagesTr" / "liver_0_0000.nii.gz")
    assert after.shape == SHAPE
    assert (after.affine == before.affine).all()
    assert (np.asarray(after.dataobj) == ct()).all()
    assert after.get_data_dtype() == np.int16


def test_a_volume_per_modality_becomes_a_file_per_channel(tmp_path, raw):
    task = msd_task(tmp_path / "Task01_Heads", {"h_1": (1,)}, labels=("background", "edema"))
    volumes = np.stack([ct(1), ct(2)], -1)
    save(task / "imagesTr" / "h_1.nii.gz", volumes)
    own = json.loads((task / "dataset.json").read_text()) | {"modality": {"0": "FLAIR", "1": "T1w"}}
    (task / "dataset.json").write_text(json.dumps(own))
    assert run(task, raw, dataset="1") == 0
    folder = raw / "Dataset001_Heads"
    assert about(folder)["channel_names"] == {"0": "FLAIR", "1": "T1w"}
    for channel in range(2):
        assert (stored(folder / "imagesTr" / f"h_1_000{channel}.nii.gz") == volumes[..., channel]).all()


def four_d(task):
    save(task / "imagesTr" / "liver_0.nii.gz", np.stack([ct()] * 3, -1))


FAULTS = {
    "a truncated image": (lambda task: truncate(task / "imagesTr" / "liver_0.nii.gz"), "damaged"),
    "a truncated mask": (lambda task: truncate(task / "labelsTr" / "liver_0.nii.gz"), "damaged"),
    "a missing mask": (lambda task: (task / "labelsTr" / "liver_0.nii.gz").unlink(), "labelsTr/liver_0.nii.gz is miss"),
    "a missing image": (lambda task: (task / "imagesTr" / "liver_0.nii.gz").unlink(), "imagesTr/liver_0.nii.gz is mis"),
    "a 4-D image": (four_d, r"of shape (6, 7, 8, 3)"),
    "a label that is not in the map": (lambda task: save(task / "labelsTr" / "liver_0.nii.gz", mask(1, 5)), "value 5"),
    "another grid": (
        lambda task: save(task / "labelsTr" / "liver_0.nii.gz", mask(1), np.eye(4)),
        "differ in axis order",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_case_stops_the_conversion_before_anything_is_written(tmp_path, raw, capsys, fault):
    spoil, told = FAULTS[fault]
    task = msd_task(tmp_path / "Task03_Liver", LIVER)
    spoil(task)
    assert run(task, raw) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("warning", "error"))]
    assert lines[0].startswith("warning: liver_0: ")
    assert told in lines[0]
    assert "1 of 2 cases cannot be used" in lines[1]
    assert len(lines) == 2
    assert not raw.exists()


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_cases_can_be_left_out_and_are_listed(tmp_path, raw, capsys, fault):
    spoil, told = FAULTS[fault]
    task = msd_task(tmp_path / "Task03_Liver", LIVER)
    spoil(task)
    assert run(task, raw, "--skip-bad") == 0
    folder = raw / "Dataset003_Liver"
    assert told in summary(folder)["left_out"]["liver_0"]
    assert "liver_0 is left out" in capsys.readouterr().err
    assert about(folder)["numTraining"] == 1
    assert not [name for name in tree(folder) if "liver_0" in name]


def test_nothing_is_made_when_every_case_is_bad(tmp_path, raw, capsys):
    task = msd_task(tmp_path / "Task03_Liver", {"liver_0": (7,)})
    assert run(task, raw, "--skip-bad") == 1
    assert "no training case is left of 1" in capsys.readouterr().err
    assert not raw.exists()


def test_a_dry_run_tells_what_a_run_would_and_writes_nothing(tmp_path, raw, capsys):
    task = msd_task(tmp_path / "Task03_Liver", LIVER)
    assert run(task, raw, "--dry-run") == 0
    planned = capsys.readouterr().out
    assert not raw.exists()
    assert "dry run: nothing was written" in planned
    assert run(task, raw) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == planned.splitlines()[:-1]


def test_the_summary_counts_cases_lesions_and_millilitres(tmp_path, raw, capsys):
    task = msd_task(tmp_path / "Task03_Liver", {"liver_0": (1, 2, 2), "liver_1": (1, 2), "liver_2": (1,)})
    assert run(task, raw) == 0
    told = summary(raw / "Dataset003_Liver")
    cube_ml = 8 * 0.8 * 0.7 * 2.5 / 1000
    assert told["cases"] == {"training": 3}
    assert told["types"]["liver tumor"]["training"] == {
        "cases": 2, "lesions": 3, "volume_ml": pytest.approx(3 * cube_ml, abs=1e-3)
    }  # fmt: skip
    assert told["types"]["liver"]["training"] == {"cases": 3, "volume_ml": pytest.approx(3 * cube_ml, abs=2e-3)}
    assert told["by_case"]["liver_0"]["lesions"] == {"liver tumor": 2}
    assert "liver tumor  training      2        3  0.0" in capsys.readouterr().out


@pytest.mark.parametrize(("other", "count"), [((3, 3, 3), 1), ((4, 3, 3), 2)], ids=["a corner apart", "a gap apart"])
def test_lesions_that_touch_at_a_corner_are_one(other, count):
    labels = np.zeros(SHAPE, np.uint8, order="F")
    labels[2, 2, 2] = labels[other] = 2
    labels[0, 0, 0] = 1
    assert count_lesions(labels, 2) == count
    assert count_lesions(labels, 3) == 0


def test_an_id_that_is_taken_is_refused_before_the_work(tmp_path, raw, capsys):
    task = msd_task(tmp_path / "Task03_Liver", LIVER)
    (raw / "Dataset003_Other").mkdir(parents=True)
    assert run(task, raw) == 1
    assert "has the data set id 3; remove it or choose another id" in capsys.readouterr().err
    assert run(task, raw, dataset="Dataset030_Mine") == 0
    assert (raw / "Dataset030_Mine" / "dataset.json").is_file()
    assert run(task, raw, dataset="Liver") == 1
    assert "neither a data set id" in capsys.readouterr().err


def test_a_folder_that_is_no_task_is_told(tmp_path, raw, capsys):
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", raw) == 1
    assert "give one task, e.g. Task03_Liver" in capsys.readouterr().err
    assert run(tmp_path / "nowhere", raw) == 1
    assert "nowhere: No such file" in capsys.readouterr().err


def test_labels_that_are_not_those_of_the_task_are_told(tmp_path, raw, capsys):
    labels = ("background", "liver", "cancer", "cyst")
    assert run(msd_task(tmp_path / "Task03_Liver", LIVER, labels=labels), raw) == 1
    assert "where those of ['liver', 'cancer'] are due" in capsys.readouterr().err
    labels = ("background", "spleen", "spleen cyst")
    assert run(msd_task(tmp_path / "other" / "Task03_Liver", LIVER, labels=labels), raw) == 1
    assert "where those of ['liver', 'cancer'] are due" in capsys.readouterr().err


def test_labels_of_a_task_go_by_their_names_and_not_by_their_order(tmp_path, raw):
    swapped = msd_task(tmp_path / "Task03_Liver", LIVER, labels=("background", "Cancer", "Liver"))
    assert run(swapped, raw) == 0
    assert about(raw / "Dataset003_Liver")["labels"] == {"background": 0, "liver tumor": 1, "liver": 2}
    pancreas = msd_task(tmp_path / "Task07_Pancreas", {"p": (1, 2)}, labels=("background", "tumor", "pancreas"))
    table = annotations(tmp_path / "table.json", p=["pancreas cyst"])
    assert run(pancreas, raw, "--annotations", table, dataset="7") == 0
    assert (stored(raw / "Dataset007_Pancreas" / "labelsTr" / "p.nii.gz") == mask(3, 1)).all()


def test_the_raw_folder_is_nnunets_unless_another_is_given(tmp_path, raw, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(raw))
    assert convert_msd(["-i", str(msd_task(tmp_path / "Task03_Liver", LIVER)), "-d", "3"]) == 0
    assert (raw / "Dataset003_Liver").is_dir()
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(SystemExit):
        convert_msd(["-i", "x", "-d", "3"])


def test_a_type_that_only_the_given_table_knows_is_a_lesion(tmp_path, raw):
    write_table(AttributeTable(lesions={"thyroid nodule": {"shape": "irregular"}}), tmp_path / "table.json")
    task = msd_task(tmp_path / "Task11_Thyroid", {"a_1": (1, 2)}, labels=("background", "thyroid", "thyroid nodule"))
    assert run(task, raw, "--annotations", tmp_path / "table.json") == 0
    folder = raw / "Dataset003_Thyroid"
    assert list(read_table(folder / "attributes.json").lesions) == ["thyroid nodule"]
    assert summary(folder)["by_case"]["a_1"]["lesions"] == {"thyroid nodule": 1}


@pytest.mark.parametrize("name", ["liver tumor", "hepatic tumour"])
def test_a_type_that_the_given_table_describes_is_as_it_says(tmp_path, raw, capsys, name):
    known = clinical_knowledge_table().lesions["lung tumor"]
    own = {name: {"shape": "irregular", "aliases": ["liver tumor"] if name != "liver tumor" else []}}
    table = AttributeTable(name="by hand", license="MIT", lesions={**own, "lung tumor": known},
                           cases={"liver_00": CaseEntry()})  # fmt: skip
    write_table(table, tmp_path / "table.json")
    assert run(msd_task(tmp_path / "Task03_Liver", LIVER), raw, "--annotations", tmp_path / "table.json") == 0
    made = read_table(raw / "Dataset003_Liver" / "attributes.json")
    assert {label: entry.stated for label, entry in made.lesions.items()} == {"liver tumor": {"shape": ("irregular",)}}
    assert made.description == "Lesion types: Clinical Knowledge Table, but liver tumor: by hand."
    assert "liver_00 (closest: liver_" in capsys.readouterr().out

"""Whatever lies where results go: only what an earlier run wrote is replaced or removed, also after a kill."""

import gzip
import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from full_disk import small_disk
from tiny_model import bright_is_lesion, save_ct, tiny_ct, write_tiny_model

from nnunetv2_malenia.attributes.schema import AttributeTable
from nnunetv2_malenia.cli import predict_zeroshot
from nnunetv2_malenia.files import MaleniaError, sha256_of
from nnunetv2_malenia.inference.export import OutputOptions
from nnunetv2_malenia.inference.predictor import MaleniaPredictor

TABLE = {"lesions": {"liver tumor": {"location": "liver", "density": "hypodense"}, "kidney stone": {"shape": "round"}}}
MASKS = OutputOptions(save_masks=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def predict(model):
    """Answer a folder of images in this process."""
    predictor = MaleniaPredictor.from_model_folder(model, device="cpu", use_mirroring=False)
    predictor.ask(AttributeTable.model_validate(TABLE))
    bright_is_lesion(predictor)

    def run(source, output, options=MASKS, **how):
        return predictor.predict_cases(
            source, output, options, num_processes_preprocessing=0, num_processes_export=0, **how
        )

    return run


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for case_id in ("p1", "p2"):
        save_ct(folder / f"{case_id}.nii.gz", tiny_ct(int(case_id[1])))
    return folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


IN_THE_WAY = ["p1.nii.gz", "p2.json", "masks/p2/kidney_stone.nii.gz", "run.json", "findings.csv", "queries.json"]


@pytest.mark.parametrize("name", IN_THE_WAY)
@pytest.mark.parametrize("continue_prediction", [False, True])
def test_a_users_file_where_a_result_would_go_is_named_and_nothing_is_written(
    predict, images, tmp_path, name, continue_prediction
):
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_bytes(b"by hand")
    with pytest.raises(MaleniaError, match=rf"{Path(name).name} was not written by an earlier run.*--overwrite"):
        predict(images, out, continue_prediction=continue_prediction)
    assert contents(out) == {name: b"by hand"}


def test_a_damaged_image_does_not_cost_a_hand_drawn_mask_of_its_name(predict, images, tmp_path):
    labels = tmp_path / "labels"
    labels.mkdir()
    save_ct(labels / "p1.nii.gz")
    (labels / "p1.json").write_text('{"age": 61}')
    before = contents(labels)
    (images / "p1.nii.gz").write_bytes((images / "p1.nii.gz").read_bytes()[:500])
    with pytest.raises(MaleniaError, match=r"p1\.nii\.gz was not written"):
        predict(images, labels, OutputOptions())
    assert contents(labels) == before
    predict(images, labels, OutputOptions(), overwrite=True)  # there is nothing to replace it with
    assert contents(labels).items() >= before.items()


@pytest.mark.parametrize("changed", ["p1.nii.gz", "p1.json", "masks/p1/liver_tumor.nii.gz", "findings.csv"])
def test_a_result_that_the_user_corrected_is_not_replaced(predict, images, tmp_path, changed):
    out = tmp_path / "out"
    predict(images, out)
    with (out / changed).open("ab") as file:
        file.write(b" ")
    before = contents(out)
    with pytest.raises(MaleniaError, match="was changed since"):
        predict(images, out)
    assert contents(out) == before
    predict(images, out, overwrite=True)
    assert (out / changed).read_bytes() != before[changed]


def test_a_run_without_masks_leaves_corrected_masks_and_takes_its_own(predict, images, tmp_path):
    out = tmp_path / "out"
    predict(images, out)
    mask, reader = out / "masks/p1/liver_tumor.nii.gz", out / "masks/p1/liver_tumor_reader1.nii.gz"
    save_ct(mask, tiny_ct(7))
    shutil.copy(mask, reader)
    before = mask.read_bytes()
    predict(images, out, OutputOptions())
    assert mask.read_bytes() == reader.read_bytes() == before
    assert {path.name for path in (out / "masks").rglob("*.nii.gz")} == {mask.name, reader.name}


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_image_that_is_a_link_into_the_output_folder_stays(predict, images, tmp_path, link, overwrite):
    links = tmp_path / "links"
    links.mkdir()
    link(images / "p1.nii.gz", links / "p1.nii.gz")
    before = contents(images)
    with pytest.raises(MaleniaError, match=r"p1\.nii\.gz is read by this command"):
        predict(links, images, OutputOptions(), overwrite=overwrite)
    assert contents(images) == before


def test_results_go_beside_other_files_of_a_project(predict, images, tmp_path):
    (tmp_path / "masks/p1").mkdir(parents=True)
    (tmp_path / "masks/p1/kidney_tumor_reader1.nii.gz").write_bytes(b"by hand")
    (tmp_path / "report.html").write_text("a user's own")
    before = contents(tmp_path)
    for _ in range(2):
        predict(images, tmp_path)
        assert contents(tmp_path).items() >= before.items()
    with pytest.raises(MaleniaError, match=r"report\.html was not written"):
        predict(images, tmp_path, writes_report=True)


def test_what_may_be_overwritten_is_only_what_is_in_the_way(predict, images, tmp_path):
    out = tmp_path / "out"
    (out / "masks/p1").mkdir(parents=True)
    for name in ("p1.nii.gz", "masks/p1/reader.nii.gz", "p1.npz"):
        (out / name).write_bytes(b"by hand")
    predict(images, out, overwrite=True)
    after = contents(out)
    assert after["p1.nii.gz"] != b"by hand"
    assert after["masks/p1/reader.nii.gz"] == after["p1.npz"] == b"by hand"


def test_a_table_that_is_read_is_not_replaced_by_what_is_asked(predict, images, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "queries.json").write_text("a table")
    with pytest.raises(MaleniaError, match=r"queries\.json is read by this command"):
        predict(images, out, overwrite=True, reads=[out / "queries.json"])


def test_a_name_that_cannot_be_told_is_an_error_before_work_starts(predict, images, tmp_path):
    os.rename(images / "p1.nii.gz", os.path.join(os.fsencode(images), b"bad\xff.nii.gz"))
    with pytest.raises(MaleniaError, match="rename it"):
        predict(images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["answer.nii.gz", "answer.mha"])
def test_an_output_folder_named_like_an_image_is_refused(predict, images, tmp_path, name):
    with pytest.raises(MaleniaError, match="-o takes a folder"):
        predict(images / "p1.nii.gz", tmp_path / name)
    (tmp_path / "notes").write_text("a file")
    with pytest.raises(MaleniaError, match="is a file"):
        predict(images / "p1.nii.gz", tmp_path / "notes")
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("flag", [["-p", "liver tumor"], ["-tr", "X"], ["-c", "3d_lowres"], ["--threshold", "0"]])
def test_arguments_that_would_be_ignored_or_find_nothing_are_refused(images, tmp_path, capsys, flag):
    with pytest.raises(SystemExit) as end:
        predict_zeroshot(["-i", str(images), "-o", str(tmp_path / "out"), "-m", "phantom", *flag])
    assert end.value.code == 2
    assert flag[0] in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


# What happens to a process is tried in processes of their own, forked from one that has the libraries loaded.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["nnunetv2_malenia.inference.predictor", "tiny_model"])


def predict_until(call, model, images, out, counted):
    """Answer the images, and be killed at a file's `call`-th flush or renaming; with None, count these."""
    calls = 0

    def counting(function):
        def run(*arguments):
            nonlocal calls
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1
            return function(*arguments)

        return run

    predictor = MaleniaPredictor.from_model_folder(model, device="cpu", use_mirroring=False)
    predictor.ask(AttributeTable.model_validate(TABLE))
    bright_is_lesion(predictor)
    os.replace, os.fsync = counting(os.replace), counting(os.fsync)
    predictor.predict_cases(images, out, MASKS, continue_prediction=True, num_processes_preprocessing=0,
                            num_processes_export=0)  # fmt: skip
    counted.value = calls


def in_a_process(call, model, images, out):
    counted = PROCESSES.Value("i", -1)
    process = PROCESSES.Process(target=predict_until, args=(call, model, images, out, counted))
    process.start()
    process.join()
    return process.exitcode, counted.value


def without_times(folder):
    """All that a run leaves, but for when and with which hidden records."""
    kept = {}
    for name, content in contents(folder).items():
        if name.endswith(".nii.gz"):
            kept[name] = np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj).tolist()
        elif name == "run.json":
            kept[name] = sorted(json.loads(content)["cases"])
        elif not name.startswith(".malenia_outputs"):
            kept[name] = content
    return kept


def test_a_run_killed_at_any_moment_goes_on_to_the_result_of_an_uninterrupted_one(model, images, tmp_path):
    status, calls = in_a_process(None, model, images, tmp_path / "whole")
    assert status == 0
    assert calls > 20
    for call in range(1, calls, 8):
        out = tmp_path / f"killed_{call}"
        assert in_a_process(call, model, images, out)[0] == -signal.SIGKILL
        for path in out.glob("*.json"):
            json.loads(path.read_bytes())  # what is there under its name is whole
        assert in_a_process(None, model, images, out)[0] == 0
        assert without_times(out) == without_times(tmp_path / "whole")


@pytest.mark.parametrize("pages", [1, 3, 6, 9, 12])
def test_on_a_full_disk_nothing_half_written_has_a_results_name(model, images, tmp_path, capsys, pages):
    (tmp_path / "table.json").write_text(json.dumps(TABLE))
    with small_disk(tmp_path / "disk", pages * 4096) as disk:
        status = predict_zeroshot(
            ["-i", str(images), "-o", str(disk / "out"), "--attributes", str(tmp_path / "table.json"), "-m", str(model),
             "-device", "cpu", "-npp", "0", "-nps", "0", "--disable_progress_bar", "--disable_tta", "--save_masks"]
        )  # fmt: skip
        said = capsys.readouterr().err
        assert status == 1
        assert "Traceback" not in said
        assert "No space left" in said or "is full" in said
        for path in (disk / "out").glob("p*.json"):
            outputs = json.loads(path.read_bytes())["outputs"]
            assert all(sha256_of(disk / "out" / name) == digest for name, digest in outputs.items())
        for path in (disk / "out").rglob("*.nii.gz"):
            np.asarray(nib.load(path).dataobj)
        assert not (disk / "out" / ".malenia_partial").exists()

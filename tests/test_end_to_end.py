"""One tiny run of everything, by the console commands' own functions, on data on disk: nnU-Net's own and ours."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_workspace import DATASET, PLANS, TRAINER, executable

from nnunetv2_malenia.phantom.dataset import SEEN, UNSEEN

LENIENT = ("--threshold", "0.1", "--min_volume", "0.5")  # four steps of training make nobody sure
CHEAP = ("-device", "cpu", "--disable_tta", "-step_size", "1")


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_training_logs_every_loss_term_and_validates(trained):
    assert "train_loss terms: segmentation" in trained.log
    assert "Mean Validation Dice" in trained.log
    assert (trained.model / "fold_0" / "validation" / "summary.json").exists()
    assert (trained.model / "fold_0" / "progress.png").exists()


def test_left_right_mirroring_is_off_because_the_table_names_sides(trained):
    checkpoint = torch.load(trained.model / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert checkpoint["inference_allowed_mirroring_axes"] == (0, 1)


def test_the_model_folder_carries_what_prediction_needs(trained):
    malenia = json.loads((trained.model / "plans.json").read_text())["malenia"]
    assert list(malenia["lesions"]) == list(SEEN)
    assert len(malenia["phrases"]) == len(malenia["is_trained"])


def test_zero_shot_prediction_writes_every_query_in_the_images_geometry(trained, tmp_path):
    trained.ask(trained.raw / "imagesTs", tmp_path, "-m", trained.model, "--save_masks", "--disable_tta", *LENIENT)
    image = nib.load(next((trained.raw / "imagesTs").iterdir()))
    case_id = "phantom_test_0000"
    label_map = nib.load(tmp_path / f"{case_id}.nii.gz")
    assert label_map.shape == image.shape
    np.testing.assert_allclose(label_map.affine, image.affine)
    queries = json.loads((tmp_path / "queries.json").read_text())["queries"]
    assert [query["name"] for query in queries] == [*SEEN, *UNSEEN]
    assert [query["seen_in_training"] for query in queries] == [True] * len(SEEN) + [False] * len(UNSEEN)
    findings = json.loads((tmp_path / f"{case_id}.json").read_text())["findings"]
    voxel_ml = float(np.prod(image.header.get_zooms())) / 1000
    assert label_map.dataobj[:].any()
    for query, finding in zip(queries, findings, strict=True):
        mask = nib.load(tmp_path / "masks" / case_id / f"{query['name'].replace(' ', '_')}.nii.gz")
        np.testing.assert_allclose(mask.affine, image.affine)
        assert finding["volume_ml"] == pytest.approx(voxels_of(mask) * voxel_ml, rel=1e-5)
        assert 0 <= finding["presence_score"] < 1
        # what is left out as of another type can be all of the image after so few steps
        assert finding["presence_score"] > 0 or finding["other_type"]


def test_without_a_table_lesions_are_numbered_read_and_named_and_a_second_run_keeps_them(trained, tmp_path):
    command = ("malenia_predict_zeroshot", "-i", trained.raw / "imagesTs", "-o", tmp_path, "-m", trained.model, "-npp",
               "0", "-nps", "0", "-device", "cpu", "-step_size", "1", "--disable_tta", "--continue_prediction",
               *LENIENT)  # fmt: skip
    trained.run(*command)
    labels = nib.load(tmp_path / "phantom_test_0000.nii.gz")
    (finding,) = json.loads((tmp_path / "phantom_test_0000.json").read_text())["findings"]
    voxel_ml = float(np.prod(labels.header.get_zooms())) / 1000
    values = np.asarray(labels.dataobj)
    numbers, counts = np.unique(values[values > 0], return_counts=True)  # after a few steps all may be one lesion
    assert finding["lesions"]
    assert list(numbers) == [lesion["id"] for lesion in finding["lesions"]]
    np.testing.assert_allclose(counts * voxel_ml, [lesion["volume_ml"] for lesion in finding["lesions"]], rtol=1e-5)
    for lesion in finding["lesions"]:
        assert lesion["aspects"]
        assert lesion["diseases"]
    said = trained.run(*command)
    assert "1 kept from an earlier run" in said
    said = trained.run("malenia_evaluate", "-i", tmp_path, "-g", trained.raw / "labelsTs", "--labels",
                       trained.raw / "labelsTs.json", ok=False)  # fmt: skip
    assert "Traceback" not in said


def test_answers_can_be_evaluated_against_the_references(trained, tmp_path):
    trained.ask(trained.raw / "imagesTs", tmp_path, "-m", trained.model, "--save_masks", "--disable_tta", *LENIENT)
    table = trained.run("malenia_evaluate", "-i", tmp_path, "-g", trained.raw / "labelsTs", "--labels",
                        trained.raw / "labelsTs.json", "--attributes", trained.raw / "test_attributes.json",
                        "-np", "1")  # fmt: skip
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text())
    findings = json.loads((tmp_path / "phantom_test_0000.json").read_text())["findings"]
    assert [(each["name"], each["seen"]) for each in summary["types"]] == [
        *((name, True) for name in SEEN), *((name, False) for name in UNSEEN)]  # fmt: skip
    for case, finding in zip(summary["cases"], findings, strict=True):
        assert case["name"] == finding["name"]
        assert case["volume_ml"] == pytest.approx(finding["volume_ml"], rel=1e-5)
        assert case["presence_score"] == finding["presence_score"]
    assert "| **mean, unseen** " in table


def in_the_world(path: Path) -> np.ndarray:
    """Stored probability maps, brought to RAS: (Q, X, Y, Z)."""
    stored = np.load(path)
    maps = [nib.Nifti1Image(each.transpose(2, 1, 0), stored["affine_xyz_ras"]) for each in stored["probabilities"]]
    return np.stack([np.asarray(nib.as_closest_canonical(each).dataobj) for each in maps])


def voxels_of(mask: nib.Nifti1Image) -> int:
    return int(np.asarray(mask.dataobj).sum())


def test_stored_in_any_axis_order_the_answer_is_the_same_in_the_world(trained, tmp_path):
    source = nib.load(next((trained.raw / "imagesTs").iterdir()))
    images = tmp_path / "images"
    images.mkdir()
    orders = ("RAS", "LPS", "IPL", "ASR")
    for order in orders:
        change = nib.orientations.ornt_transform(
            nib.io_orientation(source.affine), nib.orientations.axcodes2ornt(order)
        )
        nib.save(source.as_reoriented(change), images / f"{order}.nii.gz")  # plain names, as a user's CT has
    trained.ask(images, tmp_path / "out", "-m", trained.model, "--save_masks", "--save_probabilities", "--disable_tta",
                *LENIENT)  # fmt: skip
    for name in (*SEEN, *UNSEEN):
        file = f"{name.replace(' ', '_')}.nii.gz"
        answers = [nib.load(tmp_path / "out" / "masks" / order / file) for order in orders]
        for order, answer in zip(orders, answers, strict=True):
            assert "".join(nib.aff2axcodes(answer.affine)) == order
        world = [np.asarray(nib.as_closest_canonical(answer).dataobj) for answer in answers]
        for other in world[1:]:
            np.testing.assert_array_equal(world[0], other)
    maps = [in_the_world(tmp_path / "out" / f"{order}.npz") for order in orders]
    spread = maps[0].std(axis=(1, 2, 3))  # masks of a hardly trained network may be full or empty; maps never are
    for other in maps[1:]:
        assert (np.abs(other - maps[0]).max(axis=(1, 2, 3)) < 0.05 * spread).all()
    findings = [json.loads((tmp_path / "out" / f"{order}.json").read_text())["findings"] for order in orders]
    scores = np.array([[finding["presence_score"] for finding in case] for case in findings])
    np.testing.assert_allclose(scores, scores[:1].repeat(len(orders), 0), atol=1e-6)


def test_plain_nnunet_commands_work_and_an_exported_model_predicts_the_same(trained, tmp_path):
    def predict(output: Path, **env: str) -> np.ndarray:
        trained.run("nnUNetv2_predict", "-i", trained.raw / "imagesTs", "-o", output, "-d", "901", "-c", "3d_fullres",
                    "-tr", TRAINER, "-p", PLANS, "-f", "0", "-npp", "0", "-nps", "0", *CHEAP, **env)  # fmt: skip
        return voxels(output / "phantom_test_0000.nii.gz")

    before = predict(tmp_path / "before")
    archive = tmp_path / "model.zip"
    trained.run("nnUNetv2_export_model_to_zip", "-d", "901", "-o", archive, "-c", "3d_fullres", "-tr", TRAINER,
                "-p", PLANS, "-f", "0")  # fmt: skip
    elsewhere = tmp_path / "installed"
    elsewhere.mkdir()
    trained.run("nnUNetv2_install_pretrained_model_from_zip", archive, nnUNet_results=str(elsewhere))
    assert (elsewhere / DATASET / trained.model.name).is_dir()
    np.testing.assert_array_equal(before, predict(tmp_path / "after", nnUNet_results=str(elsewhere)))
    assert len(np.unique(before)) > 1


@pytest.mark.parametrize("command", ["nnUNetv2_predict_from_modelfolder", "malenia_predict_zeroshot"])
def test_a_process_of_its_own_with_background_processes_predicts(trained, tmp_path, command):
    table = ("--attributes", trained.raw / "test_attributes.json", *LENIENT) if command.startswith("malenia") else ()
    trained.run_alone(command, "-i", trained.raw / "imagesTs", "-o", tmp_path, "-m", trained.model, "-f", "0",
                      "-npp", "1", "-nps", "1", *CHEAP, *table)  # fmt: skip
    image = nib.load(next((trained.raw / "imagesTs").iterdir()))
    answer = nib.load(tmp_path / "phantom_test_0000.nii.gz")
    assert answer.shape == image.shape
    np.testing.assert_allclose(answer.affine, image.affine)
    assert len(np.unique(voxels(tmp_path / "phantom_test_0000.nii.gz"))) > 1


def test_find_best_configuration_reads_the_trained_fold(trained):
    trained.run("nnUNetv2_find_best_configuration", "901", "-c", "3d_fullres", "-tr", TRAINER, "-p", PLANS, "-f", "0",
                "-np", "1", "--disable_ensembling")  # fmt: skip
    information = trained.model.parent / "inference_information.json"
    assert TRAINER in information.read_text()


def test_training_goes_on_after_a_kill_and_validates_again(trained):
    with subprocess.Popen(
        [executable("nnUNetv2_train"), *trained.training(1)],
        env=os.environ | trained.env,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    ) as process:
        assert any("Epoch 1" in line for line in process.stdout)
        os.killpg(process.pid, signal.SIGKILL)  # nnU-Net's augmentation processes too, or they would wait for ever
    fold = trained.model / "fold_1"
    assert not (fold / "checkpoint_final.pth").exists()
    assert not list(fold.glob("*.tmp"))
    log = trained.train(1, "--c")
    assert "Epoch 1" in log
    assert "Epoch 0" not in log
    resumed = torch.load(fold / "checkpoint_final.pth", weights_only=True)
    assert resumed["current_epoch"] == 2
    assert {len(values) for values in resumed["logging"].values()} == {2}
    shutil.rmtree(fold / "validation")
    trained.train(1, "--val")
    assert (fold / "validation" / "summary.json").exists()


def test_a_wrong_input_is_one_line_and_leaves_nothing(trained, tmp_path):
    (tmp_path / "empty").mkdir()
    said = trained.ask(tmp_path / "empty", tmp_path / "out", "-m", trained.model, ok=False)
    assert "holds no .nii.gz file" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    said = trained.ask(trained.raw / "imagesTs", tmp_path / "out", "-m", tmp_path / "empty", ok=False)
    assert "plans.json does not exist" in said.splitlines()[-1]
    assert "Traceback" not in said

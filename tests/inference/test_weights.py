"""Weights as they ship: small, without code, and the same answers; models found by name."""

import json
import pickle
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_model import AFFINE, save_ct, tiny_ct, write_tiny_model

from nnunetv2_malenia.attributes.schema import AttributeTable
from nnunetv2_malenia.cli import predict_zeroshot
from nnunetv2_malenia.inference.model_folder import SHIPPED_MODELS, PredictionError, find_model
from nnunetv2_malenia.inference.predictor import MaleniaPredictor
from nnunetv2_malenia.inference.weights import WeightsError, load_weights, save_weights

TABLE = AttributeTable(lesions={"liver tumor": {"location": "liver", "density": "hypodense"}})


def checkpoint_of(weights):
    return {
        "network_weights": weights,
        "trainer_name": "MaleniaTrainer",
        "init_args": {"configuration": "3d_fullres", "fold": 0},
        "inference_allowed_mirroring_axes": (0, 1),
        "optimizer_state": object(),
    }


@pytest.fixture
def shared():
    return torch.linspace(-3, 3, 1000).reshape(10, 100)


def test_weights_come_back_in_float32_under_all_their_names(tmp_path, shared):
    weights = {"encoder": shared, "decoder.encoder": shared, "part": shared[2:4], "twice": shared * 1.0,
               "steps": torch.tensor(7), "none": torch.zeros(0), "none_either": torch.zeros(0)}  # fmt: skip
    save_weights(checkpoint_of(weights), tmp_path / "a.safetensors")
    loaded = load_weights(tmp_path / "a.safetensors")
    assert loaded["trainer_name"] == "MaleniaTrainer"
    assert loaded["init_args"] == {"configuration": "3d_fullres"}
    assert loaded["inference_allowed_mirroring_axes"] == (0, 1)
    assert set(loaded["network_weights"]) == set(weights)
    for name, tensor in loaded["network_weights"].items():
        assert tensor.dtype == weights[name].dtype
        torch.testing.assert_close(tensor, weights[name], rtol=2**-11, atol=0)
    stored = (tmp_path / "a.safetensors").stat().st_size
    assert 2 * (2 * shared.numel() + 200) < stored < 2 * 3 * shared.numel()  # two bytes each, the shared ones once


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path, shared):
    for name in "ab":
        save_weights(checkpoint_of({"x": shared, "y": shared, "z": shared + 1}), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("value", [1e5, float("nan")])
def test_a_weight_that_float16_cannot_hold_is_named(tmp_path, shared, value):
    with pytest.raises(WeightsError, match="y is not finite in float16"):
        save_weights(checkpoint_of({"x": shared, "y": torch.tensor([1.0, value])}), tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("content", ["pickle", "truncated", "not ours"])
def test_any_other_file_is_refused(tmp_path, shared, content):
    path = tmp_path / "checkpoint_final.safetensors"
    if content == "pickle":
        path.write_bytes(pickle.dumps(checkpoint_of({}) | {"optimizer_state": None}))
    elif content == "truncated":
        save_weights(checkpoint_of({"x": shared}), path)
        path.write_bytes(path.read_bytes()[:-100])
    else:
        save_file({"x": shared}, path)
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        load_weights(path)


@pytest.fixture
def as_shipped(tmp_path):
    """The same model twice: as nnU-Net trains it, and with its folds' weights as they ship."""
    trained = write_tiny_model(tmp_path / "trained", folds=(0, 1))
    shipped = write_tiny_model(tmp_path / "shipped", folds=(0, 1))
    for path in shipped.glob("fold_*/checkpoint_final.pth"):
        save_weights(torch.load(path, weights_only=True), path.with_suffix(".safetensors"))
        path.unlink()
    return trained, shipped


def test_a_model_with_weights_as_they_ship_answers_the_same(as_shipped):
    predictors = [
        MaleniaPredictor.from_model_folder(folder, device="cpu", use_mirroring=False) for folder in as_shipped
    ]
    assert set(predictors[1].model_files) == {
        "plans.json", "fold_0/checkpoint_final.safetensors", "fold_1/checkpoint_final.safetensors"}  # fmt: skip
    assert {weight.dtype for weight in predictors[1].net.parameters()} == {torch.float32}
    trained, shipped = (each.predict(tiny_ct(), TABLE, affine=AFFINE).probabilities for each in predictors)
    assert trained.std() > 1e-4
    np.testing.assert_allclose(shipped, trained, atol=2e-3)


def test_a_fold_with_a_checkpoint_is_read_from_it(as_shipped):
    trained, _ = as_shipped
    (trained / "fold_0" / "checkpoint_final.safetensors").write_bytes(b"damaged")
    assert "fold_0/checkpoint_final.pth" in MaleniaPredictor.from_model_folder(trained, device="cpu").model_files


def test_names_are_of_shipped_models_and_paths_of_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model("phantom") == SHIPPED_MODELS / "phantom"
    assert find_model("./phantom").resolve() == tmp_path / "phantom"
    assert find_model(tmp_path / "phantom") == tmp_path / "phantom"
    with pytest.raises(PredictionError, match="shipped model 'ghost'; shipped models: phantom"):
        find_model("ghost")
    (tmp_path / "phantom").mkdir()
    assert find_model("phantom").resolve() == tmp_path / "phantom"


def test_the_command_answers_by_a_name_and_warns(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"lesions": {"liver tumor": {"location": "liver"}}}))
    options = ["-i", str(save_ct(tmp_path / "ct.nii.gz")), "-o", str(tmp_path / "out"), "--attributes", str(table),
               "-device", "cpu", "-npp", "0", "-nps", "0", "--disable_progress_bar"]  # fmt: skip
    assert predict_zeroshot([*options, "-m", "ghost"]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert "shipped models: phantom" in said
    assert not (tmp_path / "out").exists()
    assert predict_zeroshot([*options, "-m", "phantom"]) == 0
    assert "has seen nothing but phantoms" in capsys.readouterr().err
    assert (tmp_path / "out" / "ct.nii.gz").is_file()


def test_a_model_that_the_user_trained_is_not_warned_of(as_shipped, tmp_path, capsys):
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"lesions": {"liver tumor": {"location": "liver"}}}))
    assert predict_zeroshot(["-i", str(save_ct(tmp_path / "ct.nii.gz")), "-o", str(tmp_path / "out"), "--attributes",
                             str(table), "-device", "cpu", "-npp", "0", "-nps", "0", "--disable_progress_bar", "-m",
                             str(as_shipped[1])]) == 0  # fmt: skip
    assert "phantoms" not in capsys.readouterr().err


@pytest.fixture
def model(tmp_path):
    return write_tiny_model(tmp_path / "model")


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["subprocess.Popen", "os.system", "torch.hub.load", "torchvision.models.resnet18", ""])
@pytest.mark.parametrize("key", ["network_class_name", "norm_op"])
def test_plans_that_would_import_something_else_than_a_network_are_refused(model, name, key):
    def change(plans):
        architecture = plans["configurations"]["3d_fullres"]["architecture"]
        (architecture if key in architecture else architecture["arch_kwargs"])[key] = name

    change_json(model / "plans.json", change)
    with pytest.raises(PredictionError, match=f"it names {name!r} where only"):
        MaleniaPredictor.from_model_folder(model, device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        lambda plans: plans.pop("configurations"),
        lambda plans: plans["configurations"].pop("3d_fullres"),
        lambda plans: plans.update(configurations=[1]),
        lambda plans: plans["malenia"].update(phrases=3),
        lambda plans: plans["malenia"].update(unknown=1),
        lambda plans: plans["malenia"]["network"].update(num_tokens=5),
        lambda plans: plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].update(n_stages="three"),
        lambda plans: plans.update(image_reader_writer="Nobody"),
    ],
)
def test_damaged_plans_are_one_line(model, change):
    change_json(model / "plans.json", change)
    with pytest.raises(PredictionError, match="do not make a network") as error:
        MaleniaPredictor.from_model_folder(model, device="cpu").preparation  # noqa: B018
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"\x00\xff", b""])
def test_model_json_that_is_none_is_one_line(model, name, content):
    (model / name).write_bytes(content)
    with pytest.raises(PredictionError, match=name):
        MaleniaPredictor.from_model_folder(model, device="cpu")

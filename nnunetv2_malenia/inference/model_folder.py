"""What is read of a trained model: nnU-Net's folder, its folds, and checkpoints that cannot run code."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from nnunetv2.paths import nnUNet_results
from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunetv2_malenia.files import MaleniaError, read_json
from nnunetv2_malenia.inference.weights import load_weights

SHIPPED_MODELS = Path(__file__).parents[1] / "pretrained"
WEIGHTS_ENDING = ".safetensors"
NETWORK_PACKAGES = ("dynamic_network_architectures.architectures.",)
LAYER_PACKAGES = ("torch.nn.", "dynamic_network_architectures.building_blocks.")


class PredictionError(MaleniaError):
    """A model or an input that cannot be used; the message is one line: what is wrong, where, what to do."""


def best_device() -> torch.device:
    """CUDA where there is a device, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def set_up_device(name: str | None) -> torch.device:
    """The device, by default the best one, with threads set as nnUNetv2_predict sets them.

    Raises PredictionError if there is none of that name.
    """
    name = name or best_device().type
    if name == "cuda" and not torch.cuda.is_available():
        raise PredictionError("no CUDA device was found; choose another with -device cpu or -device mps")
    if name == "cpu":
        torch.set_num_threads(multiprocessing.cpu_count())
    elif name == "cuda":
        torch.set_num_threads(1)
        torch.set_num_interop_threads(1)
    return torch.device(name)


def model_folder(dataset: str, trainer: str, plans: str, configuration: str) -> Path:
    """nnU-Net's folder for a trained model. Raises PredictionError when nnUNet_results does not have it."""
    if not nnUNet_results.is_set():
        raise PredictionError("nnUNet_results is not set; export it, or give the model folder with -m")
    try:
        folder = Path(get_output_folder(dataset, trainer, plans, configuration))
    except RuntimeError as error:
        raise PredictionError(f"data set {dataset}: {error}") from error
    if not folder.is_dir():
        raise PredictionError(f"{folder} does not exist; train it, or check -d, -tr, -p and -c")
    return folder


def find_model(folder_or_name: Path | str) -> Path:
    """A model folder as it is given, or that of a shipped model: a name alone, of no existing folder.

    Raises PredictionError, naming the shipped models, if there is none of that name.
    """
    folder = Path(folder_or_name)
    if folder.is_dir() or str(folder_or_name) != folder.name:
        return folder
    shipped = sorted(path.parent.name for path in SHIPPED_MODELS.glob("*/plans.json"))
    if folder.name not in shipped:
        raise PredictionError(
            f"there is neither a folder nor a shipped model {folder.name!r}; shipped models: {', '.join(shipped)}"
        )
    return SHIPPED_MODELS / folder.name


def read_model_json(folder: Path, name: str) -> dict[str, Any]:
    """A model folder's plans.json or dataset.json. Raises PredictionError if it is missing or no JSON object."""
    if not (folder / name).is_file():
        raise PredictionError(f"{folder / name} does not exist; -m takes a folder that nnUNetv2_train made")
    return read_json(folder / name, dict[str, Any], error=PredictionError)


def check_architecture(plans: Mapping[str, Any], source: Path) -> None:
    """Raise PredictionError where plans name something else than a network to import.

    nnU-Net imports and calls whatever class plans name, and a model folder may come from anybody.
    """
    for configuration in plans["configurations"].values():
        architecture = configuration.get("architecture", {})
        names = [(architecture.get("network_class_name"), NETWORK_PACKAGES)]
        arguments = architecture.get("arch_kwargs", {})
        names += [(arguments.get(key), LAYER_PACKAGES) for key in architecture.get("_kw_requires_import", ())]
        for name, packages in names:
            if name is not None and not str(name).startswith(packages):
                raise PredictionError(f"{source}: it names {name!r} where only {' or '.join(packages)} may be imported")


def checkpoint_file(model_folder: Path, fold: int | str, checkpoint_name: str) -> Path:
    """A fold's checkpoint; of a fold without one, the weights as they ship: the same name, ending in .safetensors."""
    path = model_folder / f"fold_{fold}" / checkpoint_name
    weights = path.with_suffix(WEIGHTS_ENDING)
    return weights if weights.is_file() and not path.is_file() else path


def load_checkpoint(path: Path) -> dict:
    """Read a checkpoint without unpickling code. Raises PredictionError, or WeightsError for weights as they ship."""
    if not path.is_file():
        raise PredictionError(f"{path} does not exist; train that fold first, or name the folds that exist with -f")
    if path.suffix == WEIGHTS_ENDING:
        return load_weights(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise PredictionError(
            f"{path} cannot be read as plain weights ({type(error).__name__}); it is damaged or not a checkpoint of a "
            "MaleniaTrainer"
        ) from error


def find_folds(model_folder: Path, checkpoint_name: str) -> list[str]:
    """Folds of a model folder that hold the checkpoint, in order; `all` only if there is no other."""
    folds = sorted(path.name.removeprefix("fold_") for path in model_folder.glob("fold_*"))
    found = [fold for fold in folds if checkpoint_file(model_folder, fold, checkpoint_name).is_file()]
    return [fold for fold in found if fold != "all"] or found

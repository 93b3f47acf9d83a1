"""Weights as they ship: what prediction needs of a checkpoint, as float16 safetensors, which cannot hold code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nnunetv2_malenia.files import MaleniaError

_METADATA_KEY = "nnunetv2_malenia.weights"


class WeightsError(MaleniaError):
    """Weights that cannot be stored, or a file that does not hold any; the message is one line."""


def save_weights(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write the weights of an nnU-Net checkpoint and what rebuilds their network; the same checkpoint, the same bytes.

    Floating-point tensors become float16, others stay as they are. nnU-Net names some tensors several times, such as
    the encoder's, which its decoder holds too: each is stored once, under its first name.
    Raises WeightsError when a weight is not finite in float16.
    """
    stored: dict[str, Tensor] = {}
    first_name: dict[tuple, str] = {}
    same_as: dict[str, str] = {}
    for name, tensor in checkpoint["network_weights"].items():
        memory = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and (first := first_name.setdefault(memory, name)) != name:
            same_as[name] = first
            continue
        stored[name] = (tensor.half() if tensor.is_floating_point() else tensor).contiguous().clone()
        if not torch.isfinite(stored[name]).all():
            raise WeightsError(f"{name} is not finite in float16, whose largest value is 65504; ship it as a .pth")
    about = {
        "trainer_name": checkpoint["trainer_name"],
        "configuration": checkpoint["init_args"]["configuration"],
        "mirroring_axes": checkpoint["inference_allowed_mirroring_axes"],
        "same_as": same_as,
    }
    # one metadata entry only: safetensors writes several in random order
    path.write_bytes(save(stored, {_METADATA_KEY: json.dumps(about)}))


def load_weights(path: Path) -> dict[str, Any]:
    """What `save_weights` wrote, as the entries of an nnU-Net checkpoint that prediction reads; weights are float32.

    Raises WeightsError for any other or a damaged file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_METADATA_KEY])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        weights = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
        axes = about["mirroring_axes"]
        return {
            "trainer_name": about["trainer_name"],
            "init_args": {"configuration": about["configuration"]},
            "inference_allowed_mirroring_axes": None if axes is None else tuple(axes),
            "network_weights": weights | {name: weights[first] for name, first in about["same_as"].items()},
        }
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} does not hold weights as `save_weights` writes them; restore the file") from error

"""An untrained model folder, with plans small enough that a case takes no time, and images that fit it."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_malenia.attributes.bank import aspect_means
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table
from nnunetv2_malenia.inference.predictor import MaleniaPredictor
from nnunetv2_malenia.inference.preparation import Preparation
from nnunetv2_malenia.training.attribute_files import resolve_plans

SPACING_ZYX = (5.0, 4.0, 4.0)
SHAPE_XYZ = (14, 12, 10)
AFFINE = np.array([[4.0, 0, 0, -30], [0, 4.0, 0, -20], [0, 0, 5.0, 100], [0, 0, 0, 1]])
LABELS = {"background": 0, "liver": 1, "liver tumor": 2, "kidney cyst": 3}


def tiny_plans(*, reader: str = "NibabelIOWithReorient", num_channels: int = 1, is_ct: bool = True) -> dict:
    resampling = "resample_data_or_seg_to_shape"
    statistics = {"max": 900.0, "mean": 60.0, "median": 60.0, "min": -900.0, "percentile_00_5": -150.0,
                  "percentile_99_5": 350.0, "std": 80.0}  # fmt: skip
    configuration = {
        "data_identifier": "tiny", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "patch_size": [8, 8, 8], "median_image_size_in_voxels": [10, 12, 14], "spacing": list(SPACING_ZYX),
        "normalization_schemes": ["CTNormalization" if is_ct else "ZScoreNormalization"] * num_channels,
        "use_mask_for_norm": [False] * num_channels,
        "resampling_fn_data": resampling, "resampling_fn_seg": resampling, "resampling_fn_probabilities": resampling,
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 3, "features_per_stage": [4, 8, 8], "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * 3, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
                "n_conv_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1], "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }  # fmt: skip
    return {
        "dataset_name": "Dataset999_Tiny", "plans_name": "tiny", "image_reader_writer": reader,
        "original_median_spacing_after_transp": list(SPACING_ZYX),
        "original_median_shape_after_transp": [10, 12, 14],
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner", "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(i): statistics for i in range(num_channels)},
        "configurations": {"3d_fullres": configuration},
    }  # fmt: skip


def tiny_dataset_json(num_channels: int = 1) -> dict:
    return {"channel_names": {str(i): "CT" for i in range(num_channels)}, "labels": LABELS, "file_ending": ".nii.gz"}


def tiny_preparation(*, num_channels: int = 1, **plans: object) -> Preparation:
    manager = PlansManager(tiny_plans(num_channels=num_channels, **plans))
    return Preparation(manager, manager.get_configuration("3d_fullres"), tiny_dataset_json(num_channels), num_channels)


def write_tiny_model(folder: Path, *, folds: tuple[int, ...] = (0,)) -> Path:
    """A model folder as nnU-Net leaves it; each fold has its own random weights."""
    from nnunetv2_malenia.training.trainer import MaleniaTrainer  # seconds, which background processes need not spend

    ckt, plans = clinical_knowledge_table(), tiny_plans()
    table = ckt.model_copy(update={"lesions": {name: ckt.lesions[name] for name in ("liver tumor", "kidney cyst")}})
    network = {"num_tokens": 4, "token_dim": 12, "num_heads": 2, "embedding_dim": 6, "num_scales": 2}
    resolved, bank = resolve_plans(
        table,
        {name: (value,) for name, value in LABELS.items() if value},
        has_regions=False,
        network=network,
        bank_path=None,
    )
    plans["malenia"] = resolved.model_dump(mode="json")
    manager = PlansManager(plans)
    for fold in folds:
        torch.manual_seed(fold)
        net = MaleniaTrainer.build_network_architecture(manager, manager.get_configuration("3d_fullres"), 1, 4, False)
        net.set_phrase_vectors(torch.from_numpy(bank.vectors), torch.from_numpy(aspect_means(bank)))
        (folder / f"fold_{fold}").mkdir(parents=True)
        torch.save(
            {
                "trainer_name": "MaleniaTrainer",
                "init_args": {"configuration": "3d_fullres"},
                "inference_allowed_mirroring_axes": (0, 1),
                "network_weights": net.state_dict(),
            },
            folder / f"fold_{fold}" / "checkpoint_final.pth",
        )
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(tiny_dataset_json()))
    return folder


class BrightIsLesion(torch.nn.Module):
    """In place of a trained network: voxels above 140 HU are the first query's lesions and those of any type, above 340
    the second's."""

    def load_state_dict(self, *_, **__):
        pass

    def forward(self, x):
        return torch.cat([torch.where(x > limit, 5.0, -5.0) for limit in (1.0, 3.5, 1.0)], dim=1)


def bright_is_lesion(predictor: MaleniaPredictor) -> None:
    """Let BrightIsLesion answer, and every lesion fit every query."""
    predictor.network = BrightIsLesion()
    for weights in predictor.list_of_parameters:
        weights["dense_gate.bias"] = torch.full_like(weights["dense_gate.bias"], 100)


def tiny_ct(seed: int = 0, shape: tuple[int, ...] = SHAPE_XYZ) -> np.ndarray:
    """A body of 60 HU with noise, in air."""
    rng = np.random.default_rng(seed)
    image = np.full(shape, -1000, np.int16)
    body = tuple(slice(size // 5, size - size // 5) for size in shape[:3])
    image[body] = rng.normal(60, 20, image[body].shape)
    return image


def save_ct(path: Path, array: np.ndarray | None = None, affine: np.ndarray = AFFINE) -> Path:
    image = nib.Nifti1Image(tiny_ct() if array is None else array, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    nib.save(image, path)
    return path

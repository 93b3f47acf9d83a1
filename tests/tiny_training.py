"""A tiny preprocessed data set on disk, as nnU-Net leaves it, and a trainer for it whose steps take milliseconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2, nnUNetDatasetNumpy
from tiny_model import tiny_dataset_json, tiny_plans

from nnunetv2_malenia.network.config import MaleniaConfig
from nnunetv2_malenia.training.trainer import MaleniaTrainer

DATASET = "Dataset999_Tiny"
SHAPE = (10, 12, 14)
SOFTMAX = {"background": 0, "kidney": 1, "kidney tumor": 2, "kidney cyst": 3}
REGIONS = {"background": 0, "kidney": [1, 2, 3], "kidney tumor": 2, "kidney cyst": 3}
LESIONS = {
    "kidney tumor": {"location": ["left kidney", "right kidney"], "density": "hyperdense", "surface": "ill-defined"},
    "kidney cyst": {"location": "kidney", "density": "fluid density", "surface": "well-defined"},
    "kidney lesion": {"location": "kidney"},
}
CPU = torch.device("cpu")
MIDDLE = np.s_[1:9, 2:10, 3:11]
torch.set_num_threads(1)  # steps this small take many times as long with more


class TinyTrainer(MaleniaTrainer):
    """The real trainer, with a small network and two steps an epoch."""

    config = MaleniaConfig(num_tokens=4, token_dim=12, num_heads=2, embedding_dim=6, num_scales=2, num_fusion_layers=1)

    def __init__(self, plans, configuration, fold, dataset_json, device=CPU):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.save_every = 2, 1
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 1


class Workspace:
    """nnU-Net's three folders; `preprocessed` and `raw` are the data set's."""

    def __init__(self, folder: Path, monkeypatch, labels: Mapping[str, object] = SOFTMAX) -> None:
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (folder / name / DATASET).mkdir(parents=True)
            monkeypatch.setenv(name, str(folder / name))
        monkeypatch.setenv("nnUNet_n_proc_DA", "0")
        self.raw, self.preprocessed = folder / "nnUNet_raw" / DATASET, folder / "nnUNet_preprocessed" / DATASET
        self.cases = self.preprocessed / "tiny"
        self.dataset_json = {**tiny_dataset_json(), "labels": dict(labels)}
        if any(isinstance(value, list) for value in labels.values()):
            self.dataset_json["regions_class_order"] = [1, 2, 3]
        for name in ("dataset.json", "dataset_fingerprint.json"):
            (self.preprocessed / name).write_text(json.dumps(self.dataset_json))

    def write_table(self, folder: Path | None = None, **cases: object) -> None:
        """attributes.json of LESIONS and these cases; without it, the Clinical Knowledge Table is used."""
        ((folder or self.raw) / "attributes.json").write_text(json.dumps({"lesions": LESIONS, "cases": cases}))

    def write_cases(self, *case_ids: str, as_npz: bool = False) -> None:
        self.cases.mkdir(exist_ok=True)
        for i, case_id in enumerate(case_ids):
            image, labels = image_and_labels(i)
            where = {label: np.argwhere(labels == label) for label in (1, 2, 3)}
            properties = {"class_locations": {label: np.insert(at, 0, 0, axis=1) for label, at in where.items()}}
            to = str(self.cases / case_id)
            if as_npz:
                nnUNetDatasetNumpy.save_case(image[None], labels[None], properties, to)
            else:
                size = (1, 8, 8, 8)
                nnUNetDatasetBlosc2.save_case(image[None], labels[None], properties, to, chunks=size, blocks=size)
        split = {"train": list(case_ids), "val": list(case_ids)}
        (self.preprocessed / "splits_final.json").write_text(json.dumps([split, split]))

    def trainer(
        self, kind: type[MaleniaTrainer] = TinyTrainer, *, fold: int = 0, continues: bool = False, seed: int = 0
    ) -> MaleniaTrainer:
        """Not initialized; like nnU-Net's command, `continues` being its `--c`."""
        torch.manual_seed(seed)
        plans = {**tiny_plans(), "continue_training": continues}
        return kind(plans, "3d_fullres", fold, self.dataset_json, CPU)

    def ready(self, *args: object, **kwargs: object) -> MaleniaTrainer:
        """Initialized, with a case or two on disk; in no epoch yet."""
        if not self.cases.exists():
            self.write_cases("a", "b")
        trainer = self.trainer(*args, **kwargs)
        trainer.initialize()
        return trainer


def image_and_labels(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(Z, Y, X) float32 and int16: a kidney with a bright tumor and a dark cyst in it."""
    labels = np.zeros(SHAPE, np.int16)
    labels[1:9, 1:11, 1:13] = 1
    labels[2:5, 2:5, 2:6], labels[5:8, 6:10, 7:11] = 2, 3
    noise = np.random.default_rng(seed).normal(0, 0.3, SHAPE)
    return (noise + np.array([0, 1, 2, -1])[labels]).astype(np.float32), labels


def batch_of(
    trainer: MaleniaTrainer, *case_ids: str, labels: tuple[np.ndarray, ...] = (), seed: int | None = None
) -> dict:
    """What nnU-Net's loader, with validation transforms, makes of the middle of one image a case for training.

    labels: label maps (8, 8, 8), in place of those of the images. seed: of the queries; None: others each time.
    """
    manager = trainer.label_manager
    transforms = trainer.get_validation_transforms(
        trainer._get_deep_supervision_scales(),
        foreground_labels=manager.foreground_labels,
        regions=manager.foreground_regions if manager.has_regions else None,
        ignore_label=manager.ignore_label,
    )
    samples = []
    for i in range(len(case_ids)):
        image, own = (torch.from_numpy(volume[MIDDLE].copy())[None] for volume in image_and_labels(i))
        seg = torch.from_numpy(labels[i])[None] if labels else own
        samples.append(transforms(image=image, segmentation=seg))
    rng, maker = np.random.default_rng(seed), trainer.make_targets
    for sample, case_id in zip(samples, case_ids, strict=True):
        sample["segmentation"].append(maker.pack(**maker.draw(sample["segmentation"][0], case_id, rng)))
    targets = [torch.stack(level) for level in zip(*(sample["segmentation"] for sample in samples), strict=True)]
    return {"data": torch.stack([sample["image"] for sample in samples]), "target": targets, "keys": list(case_ids)}

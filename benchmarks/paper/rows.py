"""What is trained on what: the downloads, the published tables, and this project's rows in them. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from benchmarks.zero_shot.rows import ROWS as ZERO_SHOT_ROWS

MERGED = "Dataset100_MaleniaPaper"
KITS = "Dataset220_KiTS23"
SOURCES: Mapping[str, str] = MappingProxyType(  # data set -> MSD task that it is converted from; KiTS23 comes beside
    {
        "Dataset003_Liver": "Task03_Liver",
        "Dataset006_Lung": "Task06_Lung",
        "Dataset007_Pancreas": "Task07_Pancreas",
        "Dataset008_HepaticVessel": "Task08_HepaticVessel",
        "Dataset010_Colon": "Task10_Colon",
    }
)
WITH_SEEN_TYPES = (*(name for name in SOURCES if "HepaticVessel" not in name), KITS)
IN_HOUSE = "in-house"  # data of the authors that is not public


@dataclass(frozen=True)
class Row:
    """Trainings that fill one line of a table. trainer: class for `nnUNetv2_train -tr`; datasets: one training each."""

    name: str
    title: str
    trainer: str
    datasets: tuple[str, ...] = (MERGED,)

    @property
    def is_asked(self) -> bool:
        """By malenia_predict_zeroshot; else nnUNetv2_predict answers."""
        return self.trainer.startswith("MaleniaTrainer")


class Table(NamedTuple):
    """A table to fill: title, this project's rows in it, and what of the published one cannot be filled, and why."""

    title: str
    rows: tuple[str, ...]
    not_here: str


_ABLATIONS = ("single_scale", "no_alignment", "single_positive", "no_fusion", "no_evidence", "mask_branch",
              "text_branch", "tokens_1", "tokens_4", "tokens_8", "tokens_32")  # fmt: skip
ROWS: Mapping[str, Row] = MappingProxyType(
    {
        row.name: row
        for row in (
            Row("malenia", "MaleniaTrainer", "MaleniaTrainer"),
            Row("nnunet", "nnU-Net, one a data set", "nnUNetTrainer", WITH_SEEN_TYPES),
            *(Row(name, ZERO_SHOT_ROWS[name].title, ZERO_SHOT_ROWS[name].trainer) for name in _ABLATIONS),
        )
    }
)
TABLES: Mapping[str, Table] = MappingProxyType(
    {
        "seen": Table(
            "Seen lesion types",
            ("malenia", "nnunet"),
            "TransUNet, Swin UNETR and the Universal Model are not part of this project: their rows are the published "
            "ones.",
        ),
        "unseen": Table(
            "Unseen lesion types",
            ("malenia",),
            "Liver cyst, kidney stone and gallbladder tumor: the authors' in-house data, not public, so without a "
            "figure of ours. SAM, SAM2, SaLIP, H-SAM and ZePT are not part of this project: their rows are the "
            "published ones.",
        ),
        "ablations": Table(
            "Ablations",
            ("malenia", *_ABLATIONS),
            "The published figures of the ablations are not among those at hand (published_tables.json), so rows stand "
            "beside each other only. 16 tokens: MaleniaTrainer itself. Learned features for every aspect: the "
            "published form.",
        ),
    }
)


@cache
def published() -> dict[str, Any]:
    """published_tables.json: per table columns (lesion types), data, and method -> DSC and NSD in percent."""
    return json.loads(Path(__file__).with_name("published_tables.json").read_text(encoding="utf-8"))


def public_types(table: str) -> tuple[str, ...]:
    """Lesion types of the table "seen" or "unseen" whose data can be downloaded."""
    content = published()[table]
    return tuple(name for name, data in zip(content["columns"], content["data"], strict=True) if data != IN_HOUSE)

"""What is compared: the rows of the table, and the sizes at which they can be run. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from nnunetv2_malenia.demo.run import FEATURES, PATCH_SIZE, PHANTOMS
from nnunetv2_malenia.phantom import PhantomConfig

# the training data of a seed; all are of the same number of phantoms, and all are tested on those of `PHANTOM`
PHANTOM = "Dataset901_MaleniaPhantom"
ANY_LESION = "Dataset902_MaleniaPhantomAnyLesion"
ALL_TYPES = "Dataset903_MaleniaPhantomAllTypes"
ALL_TYPES_NO_ORGANS = "Dataset904_MaleniaPhantomAllTypesNoOrgans"
NO_ORGANS = "Dataset905_MaleniaPhantomNoOrgans"
ONE_HOT = "Dataset906_MaleniaPhantomOneHot"
SYNTHETIC = "Dataset907_MaleniaPhantomSynthetic"


@dataclass(frozen=True)
class Row:
    """One training. title: for tables; dataset: what it learns from; trainer: base class of the seeded one."""

    name: str
    title: str
    dataset: str
    trainer: str

    @property
    def is_asked(self) -> bool:
        """By malenia_predict_zeroshot; else nnUNetv2_predict answers."""
        return self.trainer.startswith("MaleniaTrainer")


ROWS: Mapping[str, Row] = MappingProxyType(
    {
        row.name: row
        for row in (
            Row("malenia", "MaleniaTrainer", PHANTOM, "MaleniaTrainer"),
            Row("any_lesion", "(a) any-lesion nnU-Net", ANY_LESION, "nnUNetTrainerAdamW"),
            Row("supervised", "(b) nnU-Net that saw all types", ALL_TYPES_NO_ORGANS, "nnUNetTrainerAdamW"),
            Row("malenia_all_types", "(b) MaleniaTrainer that saw all types", ALL_TYPES, "MaleniaTrainer"),
            Row("one_hot", "(c) one-hot class instead of attributes", ONE_HOT, "MaleniaTrainer"),
            Row("synthetic", "MaleniaTrainer with synthetic lesions", SYNTHETIC, "MaleniaTrainer"),
            Row("single_scale", "single scale", PHANTOM, "MaleniaTrainerSingleScale"),
            Row("no_alignment", "no alignment loss", PHANTOM, "MaleniaTrainerNoAlignment"),
            Row("single_positive", "single-positive contrast", PHANTOM, "MaleniaTrainerSinglePositive"),
            Row("no_dropout", "no attribute dropout", PHANTOM, "MaleniaTrainerNoAttributeDropout"),
            Row("no_fusion", "no fusion", PHANTOM, "MaleniaTrainerNoFusion"),
            Row("no_evidence", "learned features for every aspect", PHANTOM, "MaleniaTrainerNoEvidence"),
            Row("extremes", "specific features from evidence, with extremes", PHANTOM, "MaleniaTrainerExtremes"),
            Row("extremes_synthetic", "extremes and synthetic lesions", SYNTHETIC, "MaleniaTrainerExtremes"),
            Row("mask_branch", "mask branch only", PHANTOM, "MaleniaTrainerMaskBranch"),
            Row("text_branch", "text branch only", PHANTOM, "MaleniaTrainerTextBranch"),
            Row("no_anatomy", "no organ labels", NO_ORGANS, "MaleniaTrainer"),
            Row("tokens_1", "1 token", PHANTOM, "MaleniaTrainer1Token"),
            Row("tokens_4", "4 tokens", PHANTOM, "MaleniaTrainer4Tokens"),
            Row("tokens_8", "8 tokens", PHANTOM, "MaleniaTrainer8Tokens"),
            Row("tokens_32", "32 tokens", PHANTOM, "MaleniaTrainer32Tokens"),
        )
    }
)
MAIN_ROWS = ("malenia", "any_lesion", "supervised", "one_hot")


@dataclass(frozen=True)
class Size:
    """How much one training gets. patch_size, features: of the demo's small plan, None for nnU-Net's own plan.

    validation_cases: of the training phantoms, held out for nnU-Net's own validation. mirror_only: no augmentation but
    mirroring. loader_processes: 0 seeds everything that the loaders draw. processes: of preprocessing and scoring.
    kits_cases, ct_cases: of the other beds, at most.
    """

    train_cases: int
    test_cases: int
    validation_cases: int
    epochs: int
    steps: int
    phantoms: PhantomConfig
    patch_size: tuple[int, int, int] | None
    features: tuple[int, ...] | None
    mirror_only: bool
    loader_processes: int
    processes: int
    kits_cases: int
    ct_cases: int

    def trainer(self, row: Row) -> str:
        """The class for `nnUNetv2_train -tr`."""
        return f"ZeroShot{row.trainer}{'MirrorDA' if self.mirror_only else ''}"


SMALL = Size(
    train_cases=120,
    test_cases=24,
    validation_cases=6,
    epochs=5,
    steps=250,
    phantoms=PHANTOMS,
    patch_size=PATCH_SIZE,
    features=FEATURES,
    mirror_only=True,
    loader_processes=0,
    processes=2,
    kits_cases=40,
    ct_cases=16,
)

SIZES: Mapping[str, Size] = MappingProxyType(
    {
        "smoke": Size(
            train_cases=4,
            test_cases=2,
            validation_cases=1,
            epochs=1,
            steps=2,
            phantoms=PhantomConfig(shape=(22, 26, 34), spacing_zyx=(9.0, 8.4, 8.6), shape_jitter=1),
            patch_size=(16, 16, 24),
            features=(4, 4, 8, 8),
            mirror_only=True,
            loader_processes=0,
            processes=1,
            kits_cases=2,
            ct_cases=1,
        ),
        "small": SMALL,
        # nnU-Net's own plan, on the phantoms of small, in the steps that five minutes on a GPU allow
        "medium": replace(SMALL, train_cases=240, epochs=2, patch_size=None, features=None, loader_processes=4),
        "full": Size(
            train_cases=400,
            test_cases=80,
            validation_cases=6,
            epochs=250,
            steps=250,
            phantoms=PhantomConfig(),
            patch_size=None,
            features=None,
            mirror_only=False,
            loader_processes=8,
            processes=8,
            kits_cases=40,
            ct_cases=40,
        ),
    }
)

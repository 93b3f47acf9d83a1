"""Small attribute spaces, and patches and targets for them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from patch_views import by_sample, made

from nnunetv2_malenia.attributes.plans import MaleniaPlans
from nnunetv2_malenia.attributes.schema import AspectValues, AttributeTable
from nnunetv2_malenia.training.patch_targets import MakeTargets
from nnunetv2_malenia.training.targets import AttributeSpace

TABLE = {
    "kidney tumor": {"location": ["left kidney", "right kidney"], "density": "hyperdense", "surface": "ill-defined"},
    "kidney cyst": {"location": "kidney", "density": "fluid density", "surface": "well-defined"},
    "liver tumor": {"location": "liver", "density": "hypodense", "surface": "ill-defined"},
    "lung tumor": {"location": "lung", "density": "soft-tissue density", "shape": "irregular"},
}
LABELS = {"kidney": (1,), "kidney tumor": (2,), "kidney cyst": (3,), "liver tumor": (4,), "lung tumor": (5,)}


def space_of(lesions=TABLE, cases=None, labels=LABELS, has_regions=False) -> tuple[AttributeSpace, tuple]:
    """The space of a data set with these lesions, and a function from phrases to their row of bools."""
    table = AttributeTable.model_validate({"lesions": lesions, "cases": cases or {}})
    plans = MaleniaPlans(
        network={},
        encoder="none",
        text_dim=4,
        phrases=tuple(table.phrases()),
        is_trained=(True,) * len(table.phrases()),
        lesions={name: table.attributes_of(name) for name in table.lesions},
        lesion_channels={},
        has_regions=has_regions,
    )
    return AttributeSpace.build(plans, table, labels), plans.phrases


def asking(phrases: tuple, **aspects: object) -> np.ndarray:
    """Phrases by aspect -> (V,) bool."""
    row = np.zeros(len(phrases), dtype=bool)
    row[[phrases.index(pair) for pair in AspectValues(**aspects).phrases()]] = True
    return row


def patch_with(*labels: int, shape: tuple[int, int, int] = (4, 6, 8)) -> np.ndarray:
    """(Z, Y, X) int16: a row of 4 voxels of each label, background elsewhere."""
    patch = np.zeros(shape, dtype=np.int16)
    for i, label in enumerate(labels):
        patch[0, i, :4] = label
    return patch


def targets_of(
    labels: np.ndarray, case_ids: list[str], space: AttributeSpace, *, seed=0, level_size=None, has_ignore_label=False
) -> SimpleNamespace:
    """On a level as fine as the patch, unless told otherwise."""
    maker = MakeTargets(
        space,
        patch_size=labels.shape[1:],
        level_size=level_size or labels.shape[1:],
        num_queries=8,
        has_ignore_label=has_ignore_label,
    )
    return by_sample(made(maker, labels, case_ids, seed))

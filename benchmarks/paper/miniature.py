"""Phantoms in place of the downloads: the five MSD tasks and KiTS23 with two or three cases each."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from benchmarks.miniatures import TASKS, write_kits_case, write_msd_task
from benchmarks.zero_shot.rows import SIZES
from nnunetv2_malenia.phantom import Phantom, make_phantom

SEED = 5
# The ids are real ones, whose published annotations ship and tell pancreas tumors from pancreas cysts.
CASES = {
    "Task03_Liver": {"liver_2": ("liver tumor",), "liver_3": ("liver tumor",)},
    "Task06_Lung": {"lung_001": ("lung tumor",), "lung_003": ("lung tumor",)},
    "Task07_Pancreas": {
        "pancreas_001": ("pancreas tumor",),
        "pancreas_004": ("pancreas tumor",),
        "pancreas_035": ("pancreas cyst",),
    },
    "Task08_HepaticVessel": {"hepaticvessel_001": ("hepatic vessel tumor",)},
    "Task10_Colon": {"colon_001": ("colon tumor",), "colon_005": ("colon tumor",)},
}
KITS_CASES = {
    "case_00002": ("kidney tumor", "kidney cyst"),
    "case_00006": ("kidney tumor", "kidney cyst"),
    "case_00000": ("kidney tumor",),
}


def write_miniature(msd: Path, kits: Path) -> None:
    """Write the folders that `--msd` and `--kits` name; what is there already is written again, the same."""
    numbers = count()

    def draw(types: tuple[str, ...]) -> Phantom:
        return make_phantom(SIZES["smoke"].phantoms, SEED, next(numbers), types)

    for task, cases in CASES.items():
        write_msd_task(msd / task, TASKS[task], {case_id: draw(types) for case_id, types in cases.items()})
    for case_id, types in KITS_CASES.items():
        write_kits_case(kits / "dataset" / case_id, draw(types))

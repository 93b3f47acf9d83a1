"""Store figures in benchmarks/results and write docs/benchmarks.md and its pictures from all that is stored.

    python -m benchmarks.zero_shot.publish FOLDER [FOLDER ...]
    python -m benchmarks.zero_shot.publish --again FOLDER

FOLDER: output of `python -m benchmarks.zero_shot`; without one, the page is written anew from what is stored. Runs of a
folder take the place of stored ones of the same size, bed, row and seed, and join the others. With --again, what is
stored stays, and those of MaleniaTrainer become a row of their own: what the same seeds gave once more.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.aspects.figures import section as aspects_section
from benchmarks.commands import BenchmarkError
from benchmarks.zero_shot.figures import AGAIN, place, plot, section
from benchmarks.zero_shot.rows import SIZES
from nnunetv2_malenia.files import write_json, write_text, write_whole

REPOSITORY = Path(__file__).parents[2]
INTRODUCTION = """# Benchmarks

Phantoms, CTs drawn on real masks, and drawn lesions in a real CT; no clinical lesion. This page is written by
`python -m benchmarks.zero_shot.publish` from `benchmarks/results/zero_shot_*.json` and `aspects_*.json`.

Every row is trained through `nnUNetv2_train` with the same phantoms per seed, plan, optimiser, sampling and number of
steps; rows that saw all types learn from as many phantoms, with unseen types among their lesions, and rows with
synthetic lesions from the same phantoms with further lesions drawn into them (`malenia_phantom augment`), none of the
location and density of an unseen type. All rows are tested on the same images,
without mirroring at test time. Seeds set the phantoms, the weights and, in size `small`, all that nnU-Net's loader
draws; a training that was resumed draws anew, and on a GPU the loader's own processes and the order of sums are not
seeded. Another processor rounds otherwise, and trainings drift apart: `trained again` has the seeds of `MaleniaTrainer`
on another machine, by a later commit with the same losses, and shows how far the same seeds can drift.

A baseline without organ labels: the any-lesion and the all-types nnU-Net learn lesions only, since with ten organs to
learn besides a plain nnU-Net finds no lesion in a small training's steps. With nine classes of small lesions the
all-types nnU-Net hardly begins in them either, so at this size the upper bound is the MaleniaTrainer that saw all
types. The one-hot row asks each type by a code of its own, and the codes of unseen types were never trained; it was
answered before lesions were read as a whole ([method.md](method.md#a-lesion-as-a-whole)), unlike the other rows.

Choices of the method were made on development phantoms (seed 777), not on those of these tables, but some looked at
the unseen types there: evidence for four aspects, the text branch's weight, and the ranking of diseases, of which
variants had been seen on test phantoms too ([method.md](method.md)). Unseen types are unseen by every training; they
were not unseen by those who built the method.

Size `medium` was trained on one H100, with torch 2.11 and without torch.compile, and answered on a CPU.
"""


def publish(folders: list[Path], repository: Path, *, again: bool = False) -> None:
    """Store what the folders hold, then write the page. Raises FileNotFoundError for a folder without figures.json.

    again: take the place of no stored run, and store those of MaleniaTrainer as a row of their own.
    """
    results, docs = repository / "benchmarks" / "results", repository / "docs"
    for folder in folders:
        content = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
        if again:
            content["runs"] = [{**run, "row": AGAIN} if run["row"] == "malenia" else run for run in content["runs"]]
        stored = results / f"zero_shot_{content['size']}.json"
        if stored.exists():
            content = _merged(json.loads(stored.read_text(encoding="utf-8")), content, keep=again)
        write_json(stored, content)
    lines = [INTRODUCTION]
    for size in SIZES:
        stored = results / f"zero_shot_{size}.json"
        if stored.exists():
            content = json.loads(stored.read_text(encoding="utf-8"))
            picture = docs / f"benchmarks_{size}.png"
            write_whole(picture, partial(plot, content))
            lines += [
                *section(content, _silence(results, size)),
                f"![DSC of every row, size {size}]({picture.name})",
                "",
            ]
    for size in SIZES:
        stored = results / f"aspects_{size}.json"
        if stored.exists():
            lines += aspects_section(json.loads(stored.read_text(encoding="utf-8")))
    write_text(docs / "benchmarks.md", "\n".join(lines))


def _silence(results: Path, size: str) -> dict[str, float]:
    """Lesion type -> share of silent cases that its description allows, over seeds; of unseen types, if measured."""
    stored = results / f"descriptions_{size}.json"
    runs = json.loads(stored.read_text(encoding="utf-8"))["runs"] if stored.exists() else []
    types = [each for run in runs for each in run["types"] if not each["seen"] and each["can_coincide"] is not None]
    return {name: mean(each["can_coincide"] for each in types if each["name"] == name)
            for name in dict.fromkeys(each["name"] for each in types)}  # fmt: skip


def _merged(old: Mapping[str, Any], new: Mapping[str, Any], *, keep: bool) -> dict[str, Any]:
    """keep: of two runs of the same bed, row and seed the old one.

    Raises BenchmarkError if they were run with other settings, as their figures do not compare.
    """
    if old["settings"] != json.loads(json.dumps(new["settings"])):
        raise BenchmarkError("stored figures were run with other settings; move them away, or run those again")
    order = (*new["runs"], *old["runs"]) if keep else (*old["runs"], *new["runs"])
    runs = {(run["bed"], run["row"], run["seed"]): run for run in order}
    return {**new, "runs": sorted(runs.values(), key=place)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--again", action="store_true", help="keep MaleniaTrainer's runs beside the stored ones")
    args = parser.parse_args()
    publish(args.folders, REPOSITORY, again=args.again)


if __name__ == "__main__":
    main()

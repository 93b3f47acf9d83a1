"""Measure what stands in the way of lines that fall short, with the row `malenia` of trained seeds.

    python -m benchmarks.limits FOLDER

FOLDER: output of `python -m benchmarks.zero_shot`. Further phantoms go to FOLDER/limits, answers to
FOLDER/seed_SEED/limits, figures to benchmarks/results/limits_SIZE.json, and from there to docs/results.md by
`python -m benchmarks.write_results`. Only random forests of measurements are trained.
What the descriptions allow is measured by `python -m benchmarks.limits.descriptions FOLDER`, without any model.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.aspects.answers import VALIDATION_SEED, Phantoms, held_out_phantoms
from benchmarks.aspects.measures import aspect_accuracy, disease_accuracy, groups
from benchmarks.commands import BenchmarkError, revision
from benchmarks.limits.measurements import OwnMasks, forest_accuracy, measure_folder
from benchmarks.limits.reference_masks import read_references
from benchmarks.zero_shot.experiment import Experiment, ask, check_trained, environment, predict_classes, size_of
from benchmarks.zero_shot.rows import PHANTOM, ROWS, SIZES
from nnunetv2_malenia.cli.messages import fail, one_line_errors
from nnunetv2_malenia.cli.numeric import count_from_zero
from nnunetv2_malenia.demo.phantom_dataset import write_phantom_dataset
from nnunetv2_malenia.files import write_json
from nnunetv2_malenia.files.dataset_json import read_label_map
from nnunetv2_malenia.phantom.dataset import UNSEEN

RESULTS = Path(__file__).parents[1] / "results"


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int | None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.limits", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--seeds", nargs="+", type=count_from_zero, default=[0, 1, 2], help="default: 0 1 2")
    args = parser.parse_args(argv)
    folder = args.folder.resolve()
    try:
        size = size_of(folder)
        experiments = [Experiment(ROWS["malenia"], seed, SIZES[size], folder, "cpu") for seed in args.seeds]
        for experiment in experiments:
            check_trained(experiment, size)
        runs = [{"seed": experiment.seed, **_limits(experiment)} for experiment in experiments]
    except BenchmarkError as error:
        return fail(str(error))
    result = RESULTS / f"limits_{size}.json"
    write_json(result, {"data": "phantoms; not clinical", "size": size, "commit": revision(), "runs": runs})
    print(f"written: {result}")
    return 0


def _limits(experiment: Experiment) -> dict[str, Any]:
    os.environ.update(environment(experiment, "malenia_predict_zeroshot"))  # where nnU-Net finds the trainer
    further, test = further_phantoms(experiment), held_out_phantoms(experiment)
    train, tested = measure_folder(further), measure_folder(test)
    own_train = measure_folder(further, own_masks(experiment, "further", further))
    own_tested = measure_folder(test, own_masks(experiment, "test", test))
    same = [lesion for lesion, found in zip(tested, own_tested, strict=True) if found]
    figures: dict[str, Any] = {
        "measurements": forest_accuracy(train, tested, UNSEEN),
        "measurements of the same": forest_accuracy(train, same, UNSEEN),
        "own measurements": forest_accuracy(own_train, own_tested, UNSEEN),
    }  # fmt: skip
    for name, told in (("reference masks", False), ("told the masks", True)):
        lesions = groups(read_references(experiment, test, told=told), UNSEEN)
        figures[name] = {
            group: {"aspects": aspect_accuracy(each), "diseases": disease_accuracy(each, tuple(test.values))}
            for group, each in lesions.items()
        }
    return figures


def further_phantoms(experiment: Experiment) -> Phantoms:
    """Half as many as for training, of seen types only, that no training and no test of any seed has."""
    folder, size = experiment.folder / "limits", experiment.size
    if not folder.exists():
        write_phantom_dataset(
            folder, train_cases=size.train_cases // 2, test_cases=0, seed=VALIDATION_SEED, config=size.phantoms
        )
    return Phantoms(folder / "imagesTr", folder / "labelsTr", folder / "dataset.json", folder / "attributes.json")


def own_masks(experiment: Experiment, name: str, phantoms: Phantoms) -> OwnMasks:
    """What the row finds in phantoms without being asked. Answers that are there already are kept; those of an earlier
    training or version of the code have to be deleted by hand."""
    folder = experiment.home / "limits" / name
    folder.mkdir(parents=True, exist_ok=True)
    ask(experiment, phantoms.images, folder / "lesions", "--continue_prediction")
    predict_classes(experiment, phantoms.images, folder / "organs", "--continue_prediction")
    labels = read_label_map(experiment.raw / PHANTOM / "dataset.json")
    return OwnMasks(folder / "lesions", folder / "organs", {name: values[0] for name, values in labels.items()})


if __name__ == "__main__":
    raise SystemExit(main())

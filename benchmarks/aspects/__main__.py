"""Measure what trained rows read of lesions; run it again to go on where it stopped.

    python -m benchmarks.aspects FOLDER

FOLDER: output of `python -m benchmarks.zero_shot`. Answers go to FOLDER/seed_SEED/aspects, figures to
benchmarks/results/aspects_SIZE.json, and from there to docs/benchmarks.md by `python -m benchmarks.zero_shot.publish`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.aspects.answers import answer, held_out_phantoms, validation_phantoms
from benchmarks.aspects.figures import collect, measure, section
from benchmarks.commands import BenchmarkError, revision
from benchmarks.zero_shot.experiment import Experiment, check_trained, size_of
from benchmarks.zero_shot.rows import ONE_HOT, ROWS, SIZES
from nnunetv2_malenia.cli.messages import fail, one_line_errors
from nnunetv2_malenia.cli.numeric import count_from_zero
from nnunetv2_malenia.files import write_json
from nnunetv2_malenia.phantom.dataset import UNSEEN

RESULTS = Path(__file__).parents[1] / "results"
READABLE = [name for name, row in ROWS.items() if row.is_asked and row.dataset != ONE_HOT]


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int | None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.aspects",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--rows", nargs="+", choices=READABLE, default=["malenia"], metavar="ROW",
                        help=f"some of {', '.join(READABLE)} (default: malenia)")  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=count_from_zero, help="default: all that are there")
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu", help="default: %(default)s")
    args = parser.parse_args(argv)
    folder = args.folder.resolve()
    try:
        size = size_of(folder)
        seeds = args.seeds or sorted(int(path.name.removeprefix("seed_")) for path in folder.glob("seed_*"))
        experiments = [
            Experiment(ROWS[row], seed, SIZES[size], folder, args.device) for seed in seeds for row in args.rows
        ]
        for experiment in experiments:
            check_trained(experiment, size)
        for experiment in experiments:
            figures = measure(
                answer(experiment), held_out_phantoms(experiment), validation_phantoms(experiment), UNSEEN
            )
            about = {"row": experiment.row.name, "seed": experiment.seed, "revision": revision()}
            write_json(experiment.home / "aspects" / f"{experiment.row.name}.json", about | figures)
    except BenchmarkError as error:
        return fail(str(error))
    content = collect(folder, size)
    result = RESULTS / f"aspects_{size}.json"
    write_json(result, content)
    print("\n".join(section(content)))
    print(f"written: {result}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

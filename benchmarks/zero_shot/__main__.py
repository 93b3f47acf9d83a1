"""Run the comparison; run it again to go on where it stopped.

    python -m benchmarks.zero_shot small --seeds 0 1 2 -o FOLDER
    python -m benchmarks.zero_shot small --rows malenia no_fusion tokens_4 --seeds 0 1 2 -o FOLDER
    python -m benchmarks.zero_shot smoke --rows all -o FOLDER
    python -m benchmarks.zero_shot small --kits kits23/dataset --ct CT.nii.gz ORGANS.nii.gz -o FOLDER

FOLDER gets figures.json and figures.md, which grow with each row that is done.
`python -m benchmarks.zero_shot.publish FOLDER` stores them in benchmarks/results and writes docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.commands import BenchmarkError
from benchmarks.zero_shot.beds import PHANTOMS, Bed, check_source, ct_bed, kits_bed
from benchmarks.zero_shot.experiment import Experiment, run_experiment
from benchmarks.zero_shot.figures import collect, section
from benchmarks.zero_shot.rows import MAIN_ROWS, ROWS, SIZES
from nnunetv2_malenia.cli.messages import fail, one_line_errors
from nnunetv2_malenia.cli.numeric import count_from_zero
from nnunetv2_malenia.files import MaleniaError, write_json, write_text

FIGURES, PAGE = "figures.json", "figures.md"


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int | None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.zero_shot",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("size", choices=SIZES, help="smoke: the command itself; small: CPU; medium, full: GPU")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, "all"], default=list(MAIN_ROWS), metavar="ROW",
                        help=f"all, or some of {', '.join(ROWS)} (default: {' '.join(MAIN_ROWS)})")  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=count_from_zero, default=[0], help="of phantoms and of training")
    parser.add_argument("--kits", type=Path, metavar="DATASET",
                        help="KiTS23's dataset folder: test on CTs drawn on its masks too")  # fmt: skip
    parser.add_argument("--ct", type=Path, nargs=2, metavar=("CT", "ORGANS"),
                        help="a CT and its organs, names in the header: test on lesions put into it too")  # fmt: skip
    parser.add_argument("-o", type=Path, required=True, metavar="FOLDER", help="everything goes here")
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), help="default: cuda for medium and full, else cpu")
    args = parser.parse_args(argv)
    folder, size = args.o.resolve(), SIZES[args.size]
    folder.mkdir(parents=True, exist_ok=True)
    device = args.device or ("cuda" if args.size in ("medium", "full") else "cpu")
    beds = [PHANTOMS, *([kits_bed(args.kits)] if args.kits else []), *([ct_bed(*args.ct)] if args.ct else [])]
    rows = list(ROWS) if "all" in args.rows else args.rows
    try:
        _check_same_settings(folder, args.size)
        for bed in beds:
            check_source(bed)
        _check_same_sources(folder, beds)
        for seed in args.seeds:
            for name in rows:
                run_experiment(Experiment(ROWS[name], seed, size, folder, device, tuple(beds)))
                content = collect(folder, args.size)
                write_json(folder / FIGURES, content)
                write_text(folder / PAGE, "\n".join(section(content)))
    except MaleniaError as error:
        return fail(str(error))
    print((folder / PAGE).read_text(encoding="utf-8"))
    print(f"written: {folder / FIGURES}")
    return 0


def _check_same_settings(folder: Path, name: str) -> None:
    """One folder is one size: trainings of other settings must not be taken for this one's."""
    settings = json.loads(json.dumps({"size": name, **asdict(SIZES[name])}))
    record = folder / "settings.json"
    if record.exists() and json.loads(record.read_text(encoding="utf-8")) != settings:
        raise BenchmarkError(f"{folder} holds runs with other settings ({record}); choose another folder with -o")
    write_json(record, settings)


def _check_same_sources(folder: Path, beds: Sequence[Bed]) -> None:
    """A bed is of one source: figures of other files must not be taken for this one's."""
    record = folder / "beds.json"
    known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    for bed in beds:
        files = [str(path.resolve()) for path in bed.source]
        if known.setdefault(bed.name, files) != files:
            raise BenchmarkError(
                f"{folder} holds runs on {' '.join(known[bed.name])} ({record}); choose another folder with -o"
            )
    write_json(record, known)


if __name__ == "__main__":
    raise SystemExit(main())

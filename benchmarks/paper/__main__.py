"""Fill a published table from downloaded data; run it again to go on where it stopped.

    python -m benchmarks.paper seen --msd FOLDER --kits kits23 -o OUT
    python -m benchmarks.paper unseen --msd FOLDER --kits kits23 -o OUT     # the same training, other columns
    python -m benchmarks.paper ablations --rows malenia no_fusion --msd FOLDER --kits kits23 -o OUT
    python -m benchmarks.paper unseen --miniature -o OUT                    # phantoms, CPU: do the commands run?

OUT gets TABLE.md and TABLE.json, which grow with each row that is done. docs/paper.md says what is reproduced.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands import BenchmarkError
from benchmarks.paper.experiment import MINIATURE, TOLERANCE_MM, Settings, check_downloads, environment, run_row, steps
from benchmarks.paper.miniature import write_miniature
from benchmarks.paper.rows import ROWS, TABLES
from benchmarks.paper.tables import content, markdown
from nnunetv2_malenia.cli.messages import fail, one_line_errors
from nnunetv2_malenia.cli.numeric import at_least_one
from nnunetv2_malenia.files import write_json, write_text


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int | None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{name}: {' '.join(table.rows)}" for name, table in TABLES.items()),
    )
    parser.add_argument("table", choices=TABLES, help="the published table to fill")
    parser.add_argument("--msd", type=Path, metavar="FOLDER", help="holds Task03_Liver, Task06_Lung, Task07_Pancreas, "
                        "Task08_HepaticVessel, Task10_Colon, each a folder or a .tar")  # fmt: skip
    parser.add_argument("--kits", type=Path, metavar="FOLDER", help="the kits23 repository with its images")
    parser.add_argument("-o", type=Path, required=True, metavar="FOLDER", help="everything goes here")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="some of the table's rows (default: all, see below)")
    parser.add_argument("--epochs", type=at_least_one, help="of 250 steps (default: nnU-Net's own, 1000)")
    parser.add_argument("--device", choices=("cuda", "cpu", "mps"), help="default: cuda; cpu with --miniature")
    parser.add_argument("--miniature", action="store_true",
                        help="phantoms instead of the downloads, a tiny plan, one epoch of two steps")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print the commands that are not done yet, run none")
    args = parser.parse_args(argv)
    if args.miniature == bool(args.msd or args.kits) or bool(args.msd) != bool(args.kits):
        parser.error("give both --msd and --kits, or --miniature")
    names = args.rows or TABLES[args.table].rows
    if unknown := [name for name in names if name not in TABLES[args.table].rows]:
        parser.error(f"--rows {unknown[0]}: no row of {args.table}; it has {', '.join(TABLES[args.table].rows)}")
    folder = args.o.resolve()
    settings = Settings(
        folder=folder,
        msd=folder / "msd" if args.miniature else args.msd.resolve(),
        kits=folder / "kits23" if args.miniature else args.kits.resolve(),
        device=args.device or ("cpu" if args.miniature else "cuda"),
        epochs=args.epochs or (MINIATURE.epochs if args.miniature else None),
        miniature=args.miniature,
    )
    try:
        return _fill(args.table, names, settings, dry_run=args.dry_run)
    except BenchmarkError as error:
        return fail(str(error))


def _fill(table: str, names: Sequence[str], settings: Settings, *, dry_run: bool) -> None:
    record = _check_same_settings(settings)
    if not settings.miniature:
        check_downloads(settings)
    if dry_run:
        _print_commands(names, settings)
        return
    settings.folder.mkdir(parents=True, exist_ok=True)
    write_json(settings.folder / "settings.json", record)
    if settings.miniature and not settings.kits.exists():
        write_miniature(settings.msd, settings.kits)
    path = settings.folder / f"{table}.md"
    for name in names:
        run_row(settings, ROWS[name])
        filled = content(settings.folder, table, record)
        write_json(path.with_suffix(".json"), filled)
        write_text(path, markdown(filled))
    print(path.read_text(encoding="utf-8"))
    print(f"written: {path} and {path.with_suffix('.json').name}")


def _print_commands(names: Sequence[str], settings: Settings) -> None:
    """As one would type them; what rows share comes once."""
    for name, value in environment(settings, program="").items():
        if os.environ.get(name) != value:
            print(f"export {name}={shlex.quote(value)}")
    todo = (step for name in names for step in steps(settings, ROWS[name]) if not step.done.exists())
    print("\n".join(dict.fromkeys(map(str, todo))))


def _check_same_settings(settings: Settings) -> dict[str, object]:
    """One folder is one kind of run: trainings of other settings must not be taken for this one's."""
    record = {"epochs": settings.epochs, "miniature": settings.miniature, "tolerance_mm": TOLERANCE_MM}
    path = settings.folder / "settings.json"
    if path.exists() and (before := json.loads(path.read_text(encoding="utf-8"))) != record:
        raise BenchmarkError(f"{settings.folder} holds runs with {before}, not {record}; choose another folder with -o")
    return record


if __name__ == "__main__":
    raise SystemExit(main())

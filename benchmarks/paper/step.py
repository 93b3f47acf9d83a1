"""A step of `python -m benchmarks.paper` that is no command of its own, for those who run what `--dry-run` prints.

python -m benchmarks.paper.step split Dataset100_MaleniaPaper -o OUT
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.experiment import FUNCTIONS, Folders
from nnunetv2_malenia.cli.messages import one_line_errors


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int | None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper.step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{name}: {function.__doc__}" for name, function in FUNCTIONS.items()),
    )
    parser.add_argument("step", choices=FUNCTIONS)
    parser.add_argument("dataset", help="folder name of the data set")
    parser.add_argument("-o", type=Path, required=True, metavar="FOLDER", help="as of python -m benchmarks.paper")
    args = parser.parse_args(argv)
    FUNCTIONS[args.step](Folders(args.o.resolve()), args.dataset)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

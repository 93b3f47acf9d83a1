"""`malenia_demo`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_malenia.cli.messages import one_line_errors
from nnunetv2_malenia.cli.numeric import at_least_one


@one_line_errors
def demo(argv: Sequence[str] | None = None) -> int | None:
    """malenia_demo: the whole path on phantoms."""
    parser = argparse.ArgumentParser(
        prog="malenia_demo",
        description="Make phantom CTs, train a MaleniaTrainer on them through nnU-Net's own commands, ask for lesion "
        "types that it never saw, and score the answers. Needs no data, GPU or download.",
    )
    parser.add_argument("-o", type=Path, default=Path("malenia_demo_output"), metavar="FOLDER",
                        help="everything goes here; run again to go on (default: %(default)s)")  # fmt: skip
    parser.add_argument("--minutes", type=int, default=15, help="rough time on two cores (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu", help="default: %(default)s")
    parser.add_argument("--baseline", action="store_true", help="train an any-lesion nnU-Net of the same budget too")
    parser.add_argument("--train_cases", type=at_least_one, default=120, help="phantoms (default: %(default)s)")
    parser.add_argument("--test_cases", type=at_least_one, default=16, help="phantoms (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the phantoms (default: %(default)s)")
    args = parser.parse_args(argv)

    from nnunetv2_malenia.demo.run import DemoOptions, run_demo

    run_demo(
        DemoOptions(
            output_folder=args.o,
            minutes=args.minutes,
            device=args.device,
            baseline=args.baseline,
            train_cases=args.train_cases,
            test_cases=args.test_cases,
            seed=args.seed,
        )
    )

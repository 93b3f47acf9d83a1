"""`malenia_demo`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_malenia.cli.messages import one_line_errors
from nnunetv2_malenia.cli.numeric import at_least_one, count_from_zero

TRAINING_DEFAULTS = {"minutes": 15, "baseline": False, "train_cases": 120, "test_cases": 16, "seed": 0}


@one_line_errors
def demo(argv: Sequence[str] | None = None) -> int | None:
    """malenia_demo: answers of the shipped model on phantoms, or the whole path with --train."""
    parser = argparse.ArgumentParser(
        prog="malenia_demo",
        description="Make phantom CTs, ask the model that ships with the package for lesion types that it was and was "
        "never trained on, by their attributes, and score the answers. With --train, train such a model first, through "
        "nnU-Net's own commands. Needs no data, GPU or download.",
    )
    parser.add_argument("-o", type=Path, default=Path("malenia_demo_output"), metavar="FOLDER",
                        help="everything goes here (default: %(default)s)")  # fmt: skip
    parser.add_argument("-device", "--device", choices=("cpu", "cuda", "mps"), default="cpu",
                        help="default: %(default)s")  # fmt: skip
    parser.add_argument("--train", action="store_true", help="train from scratch; run again to go on where it stopped")
    training = parser.add_argument_group("with --train")

    def add(name: str, text: str, **options: object) -> None:
        training.add_argument(f"--{name}", default=None, help=text.format(TRAINING_DEFAULTS[name]), **options)

    add("minutes", "rough time on two cores (default: {})", type=int)
    add("baseline", "train an any-lesion nnU-Net of the same budget too", action="store_true")
    add("train_cases", "phantoms (default: {})", type=at_least_one)
    add("test_cases", "phantoms (default: {})", type=at_least_one)
    add("seed", "of the phantoms (default: {})", type=count_from_zero)
    args = parser.parse_args(argv)
    given = {name: getattr(args, name) for name in TRAINING_DEFAULTS if getattr(args, name) is not None}
    if given and not args.train:
        parser.error(f"--{next(iter(given))} is about training; add --train")

    if not args.train:
        from nnunetv2_malenia.demo.shipped_model import run_shipped_model

        run_shipped_model(args.o, args.device)
        return
    from nnunetv2_malenia.demo.run import DemoOptions, run_demo

    run_demo(DemoOptions(output_folder=args.o, device=args.device, **TRAINING_DEFAULTS | given))

"""Checkpoints that outlive kills and full disks, and `--c`, which never starts over unasked."""

from __future__ import annotations

import errno
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_malenia.files import MaleniaError, write_whole

NAMES = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
CUDA = torch.device("cuda")


class SafeCheckpoints(nnUNetTrainer):
    """nnU-Net's checkpoints: each whole or not there, all weights finite, and only read if whole."""

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = CUDA):
        errors_in_one_line()
        self.continues = plans["continue_training"]  # as `nnUNetv2_train --c` asks
        super().__init__(plans, configuration, fold, dataset_json, device)

    def on_train_start(self) -> None:
        """Refuse to start over where `--c` was to go on; remove what a kill left of a checkpoint."""
        folder = Path(self.output_folder)
        if self.continues and not self.was_initialized and (folder / "progress.png").exists():
            raise MaleniaError(
                f"{folder}: --c finds no checkpoint, though epochs were trained there (progress.png); put one back, or "
                "train anew without --c"
            )
        super().on_train_start()
        if self.local_rank == 0:
            for leftover in folder.glob(".partial_*_checkpoint_*.pth"):
                leftover.unlink(missing_ok=True)

    def run_training(self) -> None:
        try:
            super().run_training()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            place = error.filename or self.output_folder
            raise MaleniaError(f"{place}: {error.strerror}; free some space, then go on with --c") from error

    def save_checkpoint(self, filename: str) -> None:
        """Of plain Python numbers, so that `torch.load(weights_only=True)` takes it; written beside, then renamed."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        if not torch.stack([weights.isfinite().all() for weights in self.network.parameters()]).all():
            raise MaleniaError(
                f"weights are not finite after epoch {self.current_epoch}; {filename} was not written and is as it was "
                "before: go on from it with --c, or train anew"
            )
        logging = self.logger.local_logger.my_fantastic_logging
        logging.update({key: plain_numbers(values) for key, values in logging.items()})
        self._best_ema = plain_numbers(self._best_ema)
        try:
            write_whole(filename, super().save_checkpoint)
        except (OSError, RuntimeError) as error:  # torch tells of a full disk by the latter
            reason = str(error).split("\n")[0]
            raise MaleniaError(
                f"{filename} could not be written ({reason}) and is as it was before; free some space, then go on with "
                "--c"
            ) from error

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """nnU-Net's, of the file asked for if it is whole; instead of a damaged one, `--c` takes the newest whole."""
        if isinstance(filename_or_checkpoint, str):
            asked = Path(filename_or_checkpoint)
            path = whole_checkpoint(asked, or_another=self.continues and not self.was_initialized)
            if path != asked:
                self.print_to_log_file(f"{asked} is damaged; training goes on from {path}")
            filename_or_checkpoint = str(path)
        self.before_loading(filename_or_checkpoint)
        super().load_checkpoint(filename_or_checkpoint)

    def before_loading(self, filename_or_checkpoint: dict | str) -> None:
        """Where a trainer checks what it is about to load, and takes what it needs to build its network."""


def whole_checkpoint(asked: Path, *, or_another: bool) -> Path:
    """The checkpoint asked for; if it is damaged, the newest whole one beside it where another will do.

    Raises MaleniaError if there is none.
    """
    damage = damage_of(asked)
    if not damage:
        return asked
    others = [asked.with_name(name) for name in NAMES if or_another and name != asked.name]
    whole = [path for path in others if path.is_file() and not damage_of(path)]
    if not whole:
        none = ", and no other checkpoint beside it is whole" if or_another else ""
        raise MaleniaError(f"{asked} is damaged ({damage}){none}; put a copy of it back, or train anew without --c")
    return max(whole, key=lambda path: path.stat().st_mtime)


def damage_of(checkpoint: Path) -> str:
    """What is wrong with the file, "" if it is whole; PyTorch writes zip archives, but does not check their sums."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            record = archive.testzip()
            return f"checksum of {record}" if record else ""
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        return str(error)


def errors_in_one_line() -> None:
    """Let a MaleniaError end nnU-Net's commands as it ends ours: one line and exit status 1, without a traceback."""
    if sys.excepthook is sys.__excepthook__:  # nobody else has a say in it
        sys.excepthook = _show


def _show(kind: type[BaseException], error: BaseException, trace: object) -> None:
    if issubclass(kind, MaleniaError):
        print(f"error: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def plain_numbers(value: object) -> object:
    """numpy scalars, also inside lists, as Python floats."""
    if isinstance(value, list):
        return [plain_numbers(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value

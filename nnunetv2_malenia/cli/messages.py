"""What a command says, and how it ends: an exit status, and one line on stderr for what the user can put right."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from textwrap import shorten

from nnunetv2_malenia.files import MaleniaError, is_unicode

MAX_CELL = 40  # characters
Command = Callable[[Sequence[str] | None], int | None]


def one_line_errors(command: Command) -> Command:
    """Make a command end in an exit status: 0, or 1 with one line on stderr for what the user can put right.

    That is any MaleniaError, and any OSError. Other exceptions are faults of the program and keep their traceback.
    argparse exits with 2 on wrong arguments by itself; an interrupt gives 130.
    """

    @wraps(command)
    def run(argv: Sequence[str] | None = None) -> int:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed by the caller; a file that is opened later must not take its place
                setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # as stderr has it, for terminals with few characters
        for text in sys.argv[1:] if argv is None else argv:
            if not is_unicode(text):  # results could not say where they come from
                return fail(f"{text}: the name is no UTF-8 text; rename the file or folder", status=2)
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch")  # of its own parts
        try:
            status = command(argv) or 0
            sys.stdout.flush()
            return status
        except KeyboardInterrupt:
            return fail("interrupted", status=130)
        except BrokenPipeError:  # the reader, e.g. `| head`, has seen enough; keep the interpreter from flushing again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except OSError as error:
            return fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
        except MaleniaError as error:
            return fail(str(error))

    return run


def fail(message: str, *, status: int = 1) -> int:
    tell("error", message)
    return status


def warn(message: str) -> None:
    tell("warning", message)


def tell(kind: str, message: str) -> None:
    """One line on stderr; what file names and contents have of control characters is shown, not done."""
    line = " ".join(part.strip() for part in message.splitlines())  # spaces inside a name stay
    print(f"{kind}: {''.join(c if c.isprintable() else ascii(c)[1:-1] for c in line)}", file=sys.stderr)


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def print_table(rows: Sequence[Sequence[str]], *, most: int) -> None:
    """The first row is the head; of the others, at most so many are shown, and the rest are counted."""
    shown = [[shorten(cell, MAX_CELL, placeholder=" ...") for cell in row] for row in rows[: most + 1]]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if len(rows) > len(shown):
        print(f"... and {len(rows) - len(shown)} more")

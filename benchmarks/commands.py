"""Console commands that a benchmark runs one after the other, each with a log."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunetv2_malenia.files import MaleniaError

ROOT = Path(__file__).resolve().parents[1]


class BenchmarkError(MaleniaError):
    """A benchmark cannot go on; the message is one line: what is wrong, where, what to do."""


def run_logged(words: Sequence[object], *, env: Mapping[str, str], log: Path) -> None:
    """Run a program that is installed beside this Python, or a path; its output is appended to the log.

    Raises BenchmarkError if it is not installed or fails.
    """
    program, *arguments = map(str, words)
    executable = installed(program)
    with log.open("a", encoding="utf-8") as file:
        done = subprocess.run([executable, *arguments], env=env, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{Path(program).name} failed with status {done.returncode}; its output is in {log}")


def installed(program: str) -> str:
    """The path of a program that is installed beside this Python, or of a path. Raises BenchmarkError without one."""
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    executable = shutil.which(program, path=os.pathsep.join(places))
    if executable is None:
        raise BenchmarkError(f"{program} is not installed beside {sys.executable}; install nnunetv2_malenia again")
    return executable


def revision() -> str:
    """The commit of the code that measures, with -dirty if files differ from it; "unknown" without its git history."""
    if not (ROOT / ".git").exists():
        return "unknown"
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(words, capture_output=True, encoding="utf-8", check=False).stdout.strip() or "unknown"

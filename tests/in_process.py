"""Console commands, nnU-Net's and ours, called in this process; a process of their own imports for seconds first."""

from __future__ import annotations

import io
import multiprocessing
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import entry_points
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import pytest


def run_command(command: str, *arguments: object, ok: bool = True, **env: str) -> str:
    """Call what the console command calls -> what it prints, errors too. ok: whether it should end with status 0."""
    (script,) = entry_points(group="console_scripts", name=command)
    printed = io.StringIO()
    with workers_as_threads() as patch, redirect_stdout(printed), redirect_stderr(printed):
        for name, value in env.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", [command, *map(str, arguments)])
        try:
            status = script.load()()
        except SystemExit as end:
            status = end.code
    assert (not status) is ok, printed.getvalue()
    return printed.getvalue()


@contextmanager
def workers_as_threads():
    """nnU-Net's pools of background processes are pools of threads meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", lambda method: SimpleNamespace(Pool=ThreadPool))
        yield patch

"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[str], object]) -> None:
    """Call `write` with a name beside `path` that has the same ending, flush it to disk, then rename."""
    beside = path.with_name(f".partial_{secrets.token_hex(4)}_{path.name}")
    try:
        write(str(beside))
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_whole(path, lambda name: Path(name).write_bytes(text.encode("utf-8")))


def write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")

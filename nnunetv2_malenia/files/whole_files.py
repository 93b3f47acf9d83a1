"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def write_whole(path: str | os.PathLike[str], write: Callable[[str], object]) -> None:
    """Call `write` with a name beside `path` that has the same ending, flush it to disk, then rename.

    After an exception, also one for a full disk, nothing is left beside, and what had the name keeps it.
    Raises FileNotFoundError if the folder does not exist.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder; create it first", str(target.parent))
    beside = target.with_name(f".partial_{secrets.token_hex(4)}_{target.name}")
    try:
        write(str(beside))
        flush_to_disk(beside)
        os.replace(beside, target)
    except OSError as error:
        if error.errno is not None:  # Python names no file when the disk is full
            error.filename = error.filename or str(target)
        raise
    finally:
        beside.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    write_whole(path, lambda name: Path(name).write_bytes(content))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """UTF-8, with line ends as they are in the text."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], content: object) -> None:
    write_text(path, json_text(content))


def json_text(content: object) -> str:
    """Content as the text of a JSON file."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def flush_to_disk(path: str | os.PathLike[str]) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())

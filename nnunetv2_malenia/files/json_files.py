"""JSON that comes from outside, checked by a pydantic schema where it enters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from nnunetv2_malenia.files.errors import MaleniaError

MAX_JSON_BYTES = 256 * 2**20
_T = TypeVar("_T")


def read_json(path: Path, kind: type[_T] = Any, *, error: type[MaleniaError] = MaleniaError) -> _T:
    """The content of a JSON file (UTF-8, with or without a byte order mark), as `kind`.

    Raises `error`, in one line, for a file that cannot be read, is larger than MAX_JSON_BYTES, is not JSON, or does not
    hold a `kind`.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
    except OSError as reason:
        raise error(f"{path}: cannot be read ({reason.strerror or reason}); check the path and its rights") from None
    if len(content) > MAX_JSON_BYTES:
        raise error(f"{path}: larger than {MAX_JSON_BYTES // 2**20} MiB; is it the right file?")
    try:
        parsed = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as reason:
        raise error(f"{path}: not JSON in UTF-8 ({_one_line(reason)}); write or copy it again") from None
    return validated(parsed, kind, str(path), error=error)


def validated(content: object, kind: type[_T], source: str, *, error: type[MaleniaError] = MaleniaError) -> _T:
    """Parsed JSON as `kind`. Raises `error`, which names `source`, the path inside it and the number of faults."""
    from pydantic import TypeAdapter, ValidationError  # here: --help loads no library

    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as reason:
        first, *others = reason.errors()
        where = "/".join(map(str, first["loc"]))
        more = f" (+{len(others)} more)" if others else ""
        message = _one_line(first["msg"].removeprefix("Value error, "))
        raise error(f"{source}: {f'{where}: ' if where else ''}{message}{more}") from None


def _one_line(text: object) -> str:
    return " ".join(str(text).split())

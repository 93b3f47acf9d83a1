"""JSON that comes from outside, checked by a pydantic schema where it enters."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from nnunetv2_malenia.files.errors import MaleniaError

MAX_JSON_BYTES = 256 * 2**20
_SHOWN_AT_MOST = 100
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_T = TypeVar("_T")


def read_json(
    path: Path, kind: type[_T] = Any, *, error: type[MaleniaError] = MaleniaError, max_bytes: int = MAX_JSON_BYTES
) -> _T:
    """The content of a JSON file (UTF-8, with or without a byte order mark), as `kind`.

    Raises `error`, in one line, for a file that cannot be read, is larger than `max_bytes`, is not JSON, or does not
    hold a `kind`.
    """
    path = Path(path)
    try:
        if not path.is_file():  # a pipe would be waited for
            fault = (
                "is a directory" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"
            )
            raise error(f"{path}: {fault}; give the path of a JSON file")
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as reason:
        raise error(f"{path}: cannot be read ({reason.strerror or reason}); check the path and its rights") from None
    return parse_json(content, kind, str(path), error=error, max_bytes=max_bytes)


def parse_json(
    content: bytes,
    kind: type[_T],
    source: str,
    *,
    error: type[MaleniaError] = MaleniaError,
    max_bytes: int = MAX_JSON_BYTES,
) -> _T:
    """JSON in UTF-8 as `kind`; `source` is what errors name.

    Raises `error`, in one line, for more than `max_bytes`, for what is not JSON, NaN and infinities included, for an
    object that has a key twice, of which Python would take the second without a word, and for what is no `kind`.
    """
    if len(content) > max_bytes:
        raise error(f"{source}: larger than {max_bytes >> 20} MB; is it the right file?")
    try:
        parsed = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_object, parse_constant=_refuse_constant)
        fault = _fault(parsed)
    except UnicodeDecodeError as reason:
        raise error(f"{source}: not JSON: byte {reason.start} is not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as reason:
        where = f"line {reason.lineno}, column {reason.colno}"
        raise error(f"{source}: not JSON at {where}: {reason.msg}; correct it there or just before") from None
    except RecursionError:
        raise error(f"{source}: not JSON: nested too deeply; write or copy it again") from None
    except ValueError as reason:
        raise error(f"{source}: not JSON: {str(reason).partition(':')[0]}; correct the value") from None
    if fault:
        raise error(f"{source}: {fault}")
    return validated(parsed, kind, source, error=error)


def validated(content: object, kind: type[_T], source: str, *, error: type[MaleniaError] = MaleniaError) -> _T:
    """Parsed JSON as `kind`. Raises `error`, which names `source`, the path inside it and the number of faults."""
    if kind is Any:
        return content
    from pydantic import TypeAdapter, ValidationError  # here: --help loads no library

    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as reason:
        first, *others = reason.errors()
        where = json_path(first["loc"])
        more = f" (+{len(others)} more)" if others else ""
        message = " ".join(first["msg"].removeprefix("Value error, ").split())
        raise error(f"{source}: {f'{where}: ' if where else ''}{message}{more}") from None


def json_path(steps: Iterable[object]) -> str:
    """Where something is in parsed JSON, as one short line."""
    texts = map(str, steps)
    return "/".join(
        text if text.isprintable() and len(text) <= _SHOWN_AT_MOST else json.dumps(text[:_SHOWN_AT_MOST])
        for text in texts
    )


def is_unicode(text: str) -> bool:
    """Whether a file could hold the text; in names of files, bytes that are no UTF-8 are half characters to Python."""
    return not _HALF_CHARACTER.search(text)


class _RepeatedKey:
    """Stands in parsed JSON for the value of a key that an object has twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key, value in pairs:
        merged[key] = _RepeatedKey() if key in merged else value
    return merged


def _fault(node: object, path: tuple[str, ...] = ()) -> str | None:
    """The first key that an object in the parsed JSON has twice, or text that no file could hold; None without one."""
    if isinstance(node, _RepeatedKey):
        return f"{json_path(path)}: appears twice in the same object; merge the two entries"
    if not all(is_unicode(text) for text in (*path[-1:], node) if isinstance(text, str)):
        return f"{json_path(path)}: has half a character, an escape from \\ud800 to \\udfff alone; write the whole one"
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return next((found for key, child in children if (found := _fault(child, (*path, str(key))))), None)


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")

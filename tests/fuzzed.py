"""Inputs that Hypothesis spoils, and how a command may end on them.

Each test tries a few inputs, the same ones every time; with HYPOTHESIS_PROFILE=long in the environment a hundred times
as many, and others each time.
"""

from __future__ import annotations

import copy
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

_IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
_SHOWN_BY_PYTHON = (RuntimeWarning, UserWarning)  # on stderr, two lines each
_MOST_LINES = 3

_TEXTS = (
    "", " ", "\n", "\0", "\x1b[31m", "\x85", "\u2028", "\u202e", "e\u0301", "肾癌", "\ud800", "x" * 101, "x" * 100_000,
    "..", "../../etc/passwd", "/dev/null", "C:\\a", "$HOME", "%s{0}", "1", "1.0", "NaN", "null", "²", "background",
    "BACKGROUND ", "ignore", "kidney tumor", "liver tumor",
)  # fmt: skip
_NUMBERS = (0, 1, -1, 2, 255, 256, 2**15, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, 1.0, -0.0, 1e308)
_RAW = {  # what Python's encoder would not write
    "@nan": "NaN", "@infinite": "-Infinity", "@overflow": "1e999", "@digits": "9" * 5000, "@octal": "01",
    "@tab": '"\t"', "@deep": "[" * 3000 + "]" * 3000, "@deeper": '{"a":' * 200_000 + "1" + "}" * 200_000,
}  # fmt: skip
_SCALARS = st.sampled_from([None, True, False, *_NUMBERS, *_TEXTS, *_RAW]) | st.text(max_size=8)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_TEXTS), inner, max_size=3),
    max_leaves=4,
)


def examples(number: int) -> Callable:
    return settings(
        max_examples=number * (100 if _IS_LONG else 1),
        derandomize=not _IS_LONG,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def ends_well(command: Callable, *arguments: object, folder: Path) -> bool:
    """Call a console command -> whether it succeeded.

    Else it ends with status 1 or 2, says why in at most three lines that any terminal shows as they are, and leaves all
    in `folder` as it was.
    """
    before = _content(folder)
    said = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    printed = io.TextIOWrapper(io.BytesIO(), "utf-8")
    with redirect_stderr(said), redirect_stdout(printed), warnings.catch_warnings():
        for category in _SHOWN_BY_PYTHON:
            warnings.simplefilter("error", category)
        try:
            status = command([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
    said.flush()
    text = said.buffer.getvalue().decode()
    assert all(line.isprintable() for line in text.split("\n")), text
    if status == 0:
        return True
    assert status in (1, 2), text
    assert 1 <= len(text.splitlines()) <= _MOST_LINES, text
    assert _content(folder) == before
    return False


def _content(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@st.composite
def spoiled_json(draw: Callable, document: object) -> bytes:
    """JSON that was `document` once."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(0, 3))):
        _spoil(draw, document)
    text = json.dumps(document)
    for name, raw in _RAW.items():
        text = text.replace(f'"{name}"', raw)
    if draw(st.integers(0, 9)) == 0 and (keys := [key for parent, key in _places(document) if isinstance(key, str)]):
        key = json.dumps(draw(st.sampled_from(keys)))
        text = text.replace(f"{key}:", f"{key}: 1, {key}:", 1)
    return draw(spoiled_bytes(text.encode())) if draw(st.integers(0, 9)) == 0 else text.encode()


def _spoil(draw: Callable, document: object) -> None:
    """Change, remove, add or move one entry, in place."""
    if not (places := list(_places(document))):
        return
    parent, key = draw(st.sampled_from(places))
    match draw(st.sampled_from(["value", "value", "move", "remove", "rename", "add", "wrap"])):
        case "value":
            parent[key] = draw(_VALUES)
        case "move":
            other, name = draw(st.sampled_from(places))
            parent[key] = copy.deepcopy(other[name])
        case "remove":
            del parent[key]
        case "rename" if isinstance(parent, dict):
            parent[draw(st.sampled_from(_TEXTS))] = parent.pop(key)
        case "add" if isinstance(parent, dict):
            parent[draw(st.sampled_from(_TEXTS))] = draw(_VALUES)
        case "add":
            parent.append(draw(_VALUES))
        case _:
            parent[key] = draw(st.sampled_from([[parent[key]], {"a": parent[key]}, str(parent[key])]))


def _places(node: object) -> Iterator[tuple[dict | list, object]]:
    entries = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, child in entries:
        yield node, key
        yield from _places(child)


@st.composite
def spoiled_bytes(draw: Callable, content: bytes) -> bytes:
    """A file that was `content` once: cut off, overwritten, flipped, prolonged, or of another encoding."""
    place = draw(st.integers(0, max(0, len(content) - 1)))
    match draw(st.sampled_from(["cut", "overwrite", "flip", "prolong", "replace", "utf-16", "bom", "empty"])):
        case "cut":
            return content[:place]
        case "overwrite":
            litter = draw(st.binary(min_size=1, max_size=16))
            return content[:place] + litter + content[place + len(litter) :]
        case "flip":
            flipped = bytes([content[place] ^ 1 << draw(st.integers(0, 7))]) if content else b""
            return content[:place] + flipped + content[place + 1 :]
        case "prolong":
            return content + draw(st.binary(max_size=16)) + content[:place]
        case "replace":
            return draw(st.binary(max_size=64))
        case "utf-16":
            return content.decode("latin-1").encode("utf-16")
        case "bom":
            return b"\xef\xbb\xbf" + content
        case _:
            return b""

"""JSON from outside: read right, or refused in one line that names the file and the place in it."""

import os

import pytest

from nnunetv2_malenia.files import MaleniaError, read_json

FAULTS = {
    "cut off": (b'{"a": "b"', "not JSON at line 1, column"),
    "empty": (b"", "not JSON at line 1, column 1"),
    "UTF-16": ('{"a": "b"}'.encode("utf-16"), "byte 0 is not UTF-8; save the file as UTF-8"),
    "Latin-1": ('{"a": "ü"}'.encode("latin-1"), "is not UTF-8"),
    "nested": (b"[" * 100_000, "nested too deeply"),
    "a key twice": (b'{"a": "b", "a": "c"}', "a: appears twice in the same object"),
    "a key twice inside": (b'{"a": "b", "c": [{"d": {"e": 1, "e": 1}}]}', "c/0/d/e: appears twice"),
    "NaN": (b'{"a": NaN}', "NaN is not valid JSON"),
    "infinity": (b'{"a": -Infinity}', "-Infinity is not valid JSON"),
    "digits": (b'{"a": ' + b"1" * 5000 + b"}", "not JSON: Exceeds the limit"),
    "another type": (b'{"a": 1}', "a: Input should be a valid string"),
    "two faults": (b'{"a": 1, "b": 2}', r"\(\+1 more\)"),
    "half a character": (rb'{"a": ["\ud800"]}', "a/0: has half a character"),
    "no object": (b"[]", "Input should be a valid dictionary"),
    "a name of two lines": (b'{"a\\nb": 1}', r'json: "a\\nb": Input'),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_told_in_one_line_that_names_the_file(tmp_path, fault):
    content, message = FAULTS[fault]
    path = tmp_path / "names.json"
    path.write_bytes(content)
    with pytest.raises(MaleniaError, match=message) as error:
        read_json(path, dict[str, str])
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).isprintable()


def test_what_is_no_file_is_told_and_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in {"pipe": "not a regular file", "": "is a directory", "none": "does not exist"}.items():
        with pytest.raises(MaleniaError, match=message):
            read_json(tmp_path / name)


def test_a_file_that_is_too_large_is_refused_unparsed(tmp_path):
    (tmp_path / "large.json").write_bytes(b"[" * (2**20 + 1))
    with pytest.raises(MaleniaError, match="larger than 1 MB"):
        read_json(tmp_path / "large.json", max_bytes=2**20)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "names.json").write_bytes(b'\xef\xbb\xbf{"a": "b"}')
    assert read_json(tmp_path / "names.json", dict[str, str]) == {"a": "b"}

"""A file appears whole or not at all, and what had its name stays until then."""

import errno
from pathlib import Path

import pytest

from nnunetv2_malenia.files import MaleniaError, read_json, write_json, write_whole


def test_a_failed_write_leaves_the_earlier_file_and_nothing_beside(tmp_path):
    def disk_full(name):
        Path(name).write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", name)

    (tmp_path / "a.txt").write_text("earlier")
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "a.txt", disk_full)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "earlier"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="create it first"):
        write_json(tmp_path / "missing" / "a.json", {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON in UTF-8"),
        (b"\xff\xfe{\x00", "not JSON in UTF-8"),
        (b"[" * 100_000, "not JSON in UTF-8"),
        (b'{"a": 1}', "a: Input should be a valid string"),
        (b'{"a": 1, "b": 2}', r"\(\+1 more\)"),
        (b"[]", "Input should be a valid dictionary"),
    ],
)
def test_what_is_wrong_with_json_is_told_in_one_line_that_names_the_file(tmp_path, content, message):
    path = tmp_path / "names.json"
    path.write_bytes(content)
    with pytest.raises(MaleniaError, match=message) as error:
        read_json(path, dict[str, str])
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "names.json").write_bytes(b'\xef\xbb\xbf{"a": "b"}')
    assert read_json(tmp_path / "names.json", dict[str, str]) == {"a": "b"}

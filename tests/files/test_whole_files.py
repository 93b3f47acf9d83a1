"""A file appears whole or not at all, and what had its name stays until then."""

import errno
from pathlib import Path

import pytest

from nnunetv2_malenia.files import write_json, write_whole


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

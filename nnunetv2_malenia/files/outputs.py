"""Folders of results: what we wrote there may be replaced, whatever else lies there stays as it is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from nnunetv2_malenia.files.errors import MaleniaError
from nnunetv2_malenia.files.whole_files import flush_to_disk

RECORD, STAGING = ".malenia_outputs", ".malenia_partial"
_CHUNK = 2**20


def sha256_of(path: Path) -> str:
    """Of a file's content; of a folder, of the names and contents of the files in it and below."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in files_below(path):
            digest.update(f"{file.relative_to(path).as_posix()} {sha256_of(file)}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def files_below(folder: Path) -> list[Path]:
    """The files in a folder and in those below it, sorted; links are followed, and no folder is entered twice.

    Left out are hidden files and folders, and below the folder those that hold results of ours.
    """
    found, entered = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        place = os.path.realpath(parent)
        has_results = any(name.startswith(RECORD) for name in names) and Path(parent) != folder
        if place in entered or has_results:
            folders.clear()
            continue
        entered.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [path for name in names if not name.startswith(".") and (path := Path(parent, name)).is_file()]
    return sorted(found)


def check_free(paths: Iterable[Path], inputs: Iterable[Path] = (), *, overwrite: bool = False) -> None:
    """Raise MaleniaError if one of these files is there already, unless it may be overwritten; always for an input."""
    read = {_identity(path) for path in inputs if path.exists()}
    for path in paths:
        if path.exists() and _identity(path) in read:
            raise MaleniaError(f"{path} is read by this command, which would replace it; name another file to write")
        if path.is_dir():
            raise MaleniaError(f"{path} is a folder; name a file to write")
        if not overwrite and os.path.lexists(path):
            raise MaleniaError(f"{path} exists; choose another name, or give --overwrite to replace it")


class OutputFolder:
    """A folder of results, and the record of what was written there: names and SHA-256, in RECORD.

    A file is ours if a record lists it and its content is still one that was written. Only such files are replaced or
    removed. Files are written to a folder of their own, STAGING, and enter the record before they get their names: even
    after a kill, what is there under its name is whole, and ours.
    part: what the names of record and staging folder end in, when several runs write to one folder side by side.
    """

    def __init__(self, folder: Path, part: str = "") -> None:
        self.folder = folder
        self.staging = folder / f"{STAGING}{part}"
        self._record = folder / f"{RECORD}{part}.jsonl"
        self._written: dict[str, set[str]] = defaultdict(set)
        self._may_replace: set[str] = set()
        self._read_records()

    def is_own(self, name: str) -> bool:
        """Whether the file of this name is there, was written by us, and was not changed since."""
        path = self.folder / name
        if not path.is_file() or path.is_symlink():
            return False
        digest = sha256_of(path)
        if digest not in self._written[name]:
            self._read_records()  # a run beside this one may have written it
        return digest in self._written[name]

    def claim(self, names: Iterable[str], inputs: Iterable[Path] = (), *, overwrite: bool | None = None) -> None:
        """Make sure that files of these names may be written; nothing is changed on disk.

        overwrite: whether --overwrite was given; None where a command has no such option.
        Raises MaleniaError if one of them is there and is not ours, unless it may be overwritten, which replaces it by
        what is published under its name, and never removes it; always if it is a folder, or one of `inputs`, through
        whatever links.
        """
        read = {_identity(path) for path in inputs}
        for name in names:
            path = self.folder / name
            if not os.path.lexists(path):
                continue
            if path.exists() and _identity(path) in read:
                raise MaleniaError(f"{path} is read by this command, and results would replace it; choose another -o")
            if path.is_dir():
                raise MaleniaError(f"{path} is a folder where a result would go; choose another -o")
            if overwrite:
                self._may_replace.add(name)
            elif not overwrite and not self.is_own(name):
                way_out = "; move it, or choose another -o" + (", or give --overwrite" if overwrite is False else "")
                raise MaleniaError(f"{path} was not written by an earlier run, or was changed since{way_out}")

    def open(self) -> None:
        """Make the folder ready for writing; what a run that was stopped left in the staging folder goes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._record.touch()
        self.close()

    def write(self, name: str, write: Callable[[str], object]) -> None:
        """Write one file: `write` is called with a place in the staging folder that has the same name."""
        self.publish({name: stage(self.staging, name, write)})

    def write_text(self, name: str, text: str) -> None:
        self.write(name, lambda place: Path(place).write_bytes(text.encode("utf-8")))

    def publish(self, staged: Mapping[str, str]) -> None:
        """Give staged files their names, in this order. staged: name -> SHA-256.

        Raises MaleniaError, with none of them published, if a file that is not ours has come to be in the way.
        """
        if not staged:
            return
        for name in staged:
            if os.path.lexists(self.folder / name) and name not in self._may_replace and not self.is_own(name):
                raise MaleniaError(f"{self.folder / name} appeared during the run and was not written by it; move it")
        with self._record.open("a", encoding="utf-8") as file:
            file.writelines(_line(name, digest) for name, digest in staged.items())
            file.flush()
            os.fsync(file.fileno())
        self._note(staged.items())
        for name in staged:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.staging / name, self.folder / name)

    def remove(self, names: Iterable[str]) -> None:
        """Remove those of the files that are ours, and folders that this leaves empty."""
        for name in names:
            if self.is_own(name):
                path = self.folder / name
                path.unlink()
                for parent in path.parents:
                    if parent == self.folder or any(parent.iterdir()):
                        break
                    parent.rmdir()

    def written(self) -> list[str]:
        """All names in the record, whether the files are still there or not."""
        return list(self._written)

    def holds_only_ours(self) -> bool:
        """Whether results were written here before, or there is nothing."""
        return self._record.exists() or not (self.folder.is_dir() and any(self.folder.iterdir()))

    def close(self) -> None:
        """Remove the staging folder."""
        shutil.rmtree(self.staging, ignore_errors=True)

    def _read_records(self) -> None:
        for record in sorted(self.folder.glob(f"{RECORD}*.jsonl")):
            self._note(_read_record(record))

    def _note(self, written: Iterable[tuple[str, str]]) -> None:
        for name, digest in written:
            self._written[name].add(digest)  # a kill before the renaming leaves the earlier content, which is ours too


def stage(staging: Path, name: str, write: Callable[[str], object]) -> str:
    """Write a file in the staging folder, flushed to disk -> its SHA-256. Also for processes beside the main one."""
    place = staging / name
    place.parent.mkdir(parents=True, exist_ok=True)
    write(str(place))
    flush_to_disk(place)
    return sha256_of(place)


def _identity(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_dev, about.st_ino


def _line(name: str, digest: str) -> str:
    return json.dumps({"file": name, "sha256": digest}, ensure_ascii=False) + "\n"


def _read_record(path: Path) -> Iterator[tuple[str, str]]:
    """Name and SHA-256 of all that a record lists; a line that a kill cut off is passed over."""
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            entry = json.loads(line)
            yield str(entry["file"]), str(entry["sha256"])
        except (ValueError, KeyError, TypeError):
            continue

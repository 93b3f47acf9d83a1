"""The files of a downloaded data set, in its folder or in the tar that it came in, by their path inside it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol, TypeAlias, TypeVar

from nnunetv2_malenia.dataset_conversion.nifti_files import link_or_copy
from nnunetv2_malenia.files import MaleniaError
from nnunetv2_malenia.files.json_files import MAX_JSON_BYTES, parse_json

_LINKS_AT_MOST = 40  # on one path, as the kernel has it
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # no JSON could list these
_T = TypeVar("_T")


class ConversionError(MaleniaError):
    """Data that cannot be converted; the message is one line: what, where, what to do."""


class SourceFile(Protocol):
    """One file of a data set, wherever it lies."""

    @property
    def name(self) -> str:
        """What a user finds it by."""

    @property
    def identity(self) -> list[str | int]:
        """What changes when the file does: its place, size and time. Two names of one file share it."""

    @property
    def inode(self) -> tuple[str | int, ...]:
        """What all names of one file share, hard links too."""

    def open(self) -> AbstractContextManager[BinaryIO]:
        """The file's bytes, seekable."""

    def place(self, target: Path, *, copy: bool) -> None:
        """Make it appear at `target`: as a link where that is possible and `copy` is not asked for."""


@dataclass(frozen=True)
class FileInFolder:
    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def identity(self) -> list[str | int]:
        about = self.path.stat()
        return [str(self.path.resolve()), about.st_size, about.st_mtime_ns]

    @property
    def inode(self) -> tuple[str | int, ...]:
        about = self.path.stat()
        return about.st_dev, about.st_ino

    def open(self) -> AbstractContextManager[BinaryIO]:
        return self.path.open("rb")

    def place(self, target: Path, *, copy: bool) -> None:
        link_or_copy(self.path, target, copy=copy)


@dataclass(frozen=True)
class FileInTar:
    archive: Path
    member: tarfile.TarInfo

    @property
    def name(self) -> str:
        return f"{self.archive}: {self.member.name}"

    @property
    def identity(self) -> list[str | int]:
        return [str(self.archive.resolve()), self.member.offset_data, self.member.size, int(self.member.mtime)]

    @property
    def inode(self) -> tuple[str | int, ...]:
        return str(self.archive.resolve()), self.member.offset_data

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        if not self.member.isreg():
            why = f"a link to {self.member.linkname}, which is not in the archive: make the tar with tar -h"
            raise FileNotFoundError(errno.ENOENT, why, self.name)
        with tarfile.open(self.archive, "r:") as tar, tar.extractfile(self.member) as file:
            yield file

    def place(self, target: Path, *, copy: bool) -> None:
        with self.open() as file, target.open("wb") as out:
            shutil.copyfileobj(file, out, 2**20)


def source_files(source: str | os.PathLike[str]) -> dict[str, SourceFile]:
    """Path inside the data set, with "/" -> file, sorted. Hidden files, such as macOS's `._` litter, are left out.

    source: a folder, or an uncompressed tar. Links to files and folders are followed, in a tar as unpacking it would
    make them. Nothing of a tar is unpacked here or by its own names later, so none can escape; one that tries to is
    refused. Raises ConversionError for what is neither, OSError for what is not there or cannot be read.
    """
    source = Path(source)
    found = _files_in_folder(source) if source.is_dir() else _files_in_tar(source)
    for name in found:
        if _UNPRINTABLE.search(name):
            raise ConversionError(f"{source}: the file name {name!r} has bytes that are no UTF-8 text; rename it")
    return {name: found[name] for name in sorted(found)}


def load_json(file: SourceFile, kind: type[_T] = Any) -> _T:
    """The content of a JSON file as `kind`. Raises ConversionError if it is none."""
    with file.open() as stream:
        return parse_json(stream.read(MAX_JSON_BYTES + 1), kind, file.name, error=ConversionError)


def is_litter(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _files_in_folder(top: Path) -> dict[str, SourceFile]:
    found: dict[str, SourceFile] = {}
    waiting = [(top, frozenset[tuple[int, int]]())]
    while waiting:
        folder, above = waiting.pop()
        about = folder.stat()
        here = about.st_dev, about.st_ino
        if here in above:  # a link that leads back up
            continue
        for path in folder.iterdir():
            if is_litter(path.name):
                continue
            if path.is_dir():
                waiting.append((path, above | {here}))
            elif path.is_file() or not path.exists():  # a broken link is a file that cannot be read, not one less
                found[path.relative_to(top).as_posix()] = FileInFolder(path)
    return found


_TarEntry: TypeAlias = "_TarFolder | tarfile.TarInfo"


class _TarFolder(dict[str, _TarEntry]):
    """Name -> what a folder of a tar holds; of two members with one name the last, as unpacking leaves it."""

    def add(self, parts: tuple[str, ...], member: tarfile.TarInfo) -> None:
        *folders, name = parts
        folder = self
        for part in folders:
            if not isinstance(inner := folder.get(part), _TarFolder):
                inner = folder[part] = _TarFolder()
            folder = inner
        folder[name] = member

    def followed(self, entry: _TarEntry, links: int = _LINKS_AT_MOST) -> _TarEntry:
        """A folder or file, which for a link is what it leads to; a link that leads to nothing in here is itself."""
        if isinstance(entry, _TarFolder) or not (entry.issym() or entry.islnk()) or not links:
            return entry
        base = os.path.dirname(entry.name) if entry.issym() else ""
        target: _TarEntry = self
        for part in PurePosixPath(os.path.normpath(os.path.join(base, entry.linkname))).parts:
            if not isinstance(target, _TarFolder) or part not in target:
                return entry
            target = self.followed(target[part], links - 1)
        return target


def _files_in_tar(archive: Path) -> dict[str, SourceFile]:
    tree = _tree_of(archive)
    found: dict[str, SourceFile] = {}
    waiting = [("", tree, frozenset[int]())]
    while waiting:
        path, folder, above = waiting.pop()
        for name, entry in folder.items():
            if is_litter(name):
                continue
            target = tree.followed(entry)
            if isinstance(target, tarfile.TarInfo):
                found[f"{path}{name}"] = FileInTar(archive, target)
            elif id(target) not in above:
                waiting.append((f"{path}{name}/", target, above | {id(folder)}))
    return found


def _tree_of(archive: Path) -> _TarFolder:
    """Files and links of a tar; whatever else it holds is left out."""
    tree = _TarFolder()
    try:
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                parts = PurePosixPath(member.name).parts
                if member.name.startswith("/") or ".." in parts:
                    raise ConversionError(
                        f"{archive}: its file {member.name!r} points outside the archive; get it from the data set's "
                        "own site"
                    )
                if parts and (member.isreg() or member.issym() or member.islnk()):
                    tree.add(parts, member)
            tar.fileobj.seek(tar.offset)
            if not tar.fileobj.read(1):  # a tar ends in blocks of zeros
                raise tarfile.ReadError("its end is missing")
    except tarfile.TarError as error:
        raise ConversionError(
            f"{archive}: neither a folder nor a whole, uncompressed tar ({error}); download it again, or unpack it and "
            "give the folder"
        ) from None
    return tree

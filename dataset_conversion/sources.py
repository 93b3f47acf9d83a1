"""The files of a downloaded data set, in its folder or in the tar that it came in, by their path inside it."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from nnunetv2_malenia.dataset_conversion.nifti_files import link_or_copy
from nnunetv2_malenia.files import MaleniaError


class ConversionError(MaleniaError):
    """Data that cannot be converted; the message is one line: what, where, what to do."""


class SourceFile(Protocol):
    """One file of a data set, wherever it lies."""

    @property
    def name(self) -> str:
        """What a user finds it by."""

    @property
    def identity(self) -> list[str | int]:
        """What changes when the file does: its place, size and time."""

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
        return [str(self.archive.resolve()), self.member.name, self.member.size, int(self.member.mtime)]

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        with tarfile.open(self.archive, "r:") as tar, tar.extractfile(self.member) as file:
            yield file

    def place(self, target: Path, *, copy: bool) -> None:
        with self.open() as file, target.open("wb") as out:
            shutil.copyfileobj(file, out, 2**20)


def source_files(source: str | os.PathLike[str]) -> dict[str, SourceFile]:
    """Path inside the data set, with "/" -> file, sorted. Hidden files, such as macOS's `._` litter, are left out.

    source: a folder, or an uncompressed tar. Nothing of a tar is unpacked here or by its own names later, so none can
    escape; one that tries to is refused. Raises FileNotFoundError, or ConversionError for what is neither.
    """
    source = Path(source)
    found = _files_in_folder(source) if source.is_dir() else _files_in_tar(source)
    return {name: found[name] for name in sorted(found) if not _is_litter(name)}


def load_json(file: SourceFile) -> Any:
    """The content of a JSON file. Raises ConversionError if it is none."""
    with file.open() as stream:
        try:
            return json.load(stream)
        except ValueError as error:
            raise ConversionError(f"{file.name}: not JSON ({error}); get the file again") from None


def _is_litter(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _files_in_folder(folder: Path) -> dict[str, SourceFile]:
    paths = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return {path.relative_to(folder).as_posix(): FileInFolder(path) for path in paths}


def _files_in_tar(archive: Path) -> dict[str, SourceFile]:
    try:
        with tarfile.open(archive, "r:") as tar:
            members = [member for member in tar if member.isreg()]
    except tarfile.ReadError as error:
        raise ConversionError(
            f"{archive}: neither a folder nor a whole, uncompressed tar ({error}); download it again, or unpack it and "
            "give the folder"
        ) from None
    for member in members:
        if member.name.startswith("/") or ".." in PurePosixPath(member.name).parts:
            raise ConversionError(
                f"{archive}: its file {member.name!r} points outside the archive; get it from the data set's own site"
            )
    return {PurePosixPath(member.name).as_posix(): FileInTar(archive, member) for member in members}

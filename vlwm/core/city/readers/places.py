"""Places that hold city files by name: a folder of the disk, or a zip that stays unopened."""

from __future__ import annotations

import bz2
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO

from vlwm.core.errors import DataError
from vlwm.core.text import safe_text

DAMAGE = (
    OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError,
    struct.error, OverflowError, UnicodeError,
)  # fmt: skip
"""what reading a damaged or forged file raises"""
_METHODS = {0, 8, 12, 14}
"""stored, deflate, bzip2, lzma: what Python's zipfile unpacks"""
_METHOD_NAMES = {9: "Deflate64", 93: "Zstandard", 95: "XZ", 98: "PPMd", 99: "AES encryption"}
assert bz2 and lzma  # a Python without them cannot read every archive


@dataclass(frozen=True)
class Folder:
    """A folder of the disk, as a place where files are found by relative name."""

    path: Path

    def names(self) -> list[str]:
        """Return the names of all files below it; a linked folder is a folder, taken once.

        Raises:
            DataError: a folder cannot be read.
        """
        found: dict[object, str] = {}
        for name in sorted(self._walk()):
            try:
                status = os.stat(self.path / name)
            except OSError:
                continue
            # some network file systems give no file numbers
            found.setdefault((status.st_dev, status.st_ino) if status.st_ino else name, name)
        return sorted(found.values())

    def dead_links(self) -> list[str]:
        """Return names of links that lead to nothing."""
        return sorted(n for n in self._walk() if not (self.path / n).exists())

    def _walk(self) -> Iterator[str]:
        """Yield relative names of files; every real folder is entered once."""
        entered: set[str] = set()
        for top, folders, files in os.walk(self.path, followlinks=True, onerror=_unreadable):
            real = os.path.realpath(top)
            if real in entered:
                folders.clear()
                continue
            entered.add(real)
            # real folders come before links, so that a folder keeps its own name
            folders.sort(key=lambda n: (os.path.islink(os.path.join(top, n)), n))
            inside = os.path.relpath(top, self.path)
            for name in files:
                yield name if inside == "." else f"{inside}/{name}".replace(os.sep, "/")

    def has(self, name: str) -> bool:
        """Return True for a file that is there; a name that no file can have is not."""
        try:
            return (self.path / name).is_file()
        except (OSError, ValueError):
            return False

    def size(self, name: str) -> int:
        """Return the bytes of a file."""
        return (self.path / name).stat().st_size

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file."""
        with open(self.path / name, "rb") as stream:
            yield stream

    def where(self, name: str) -> str:
        """Return the file's path for people."""
        return str(self.path / name)


@dataclass(frozen=True)
class Archive:
    """A zip, read member by member and never unpacked."""

    path: Path

    def __reduce__(self) -> tuple[Callable[[Path], Archive], tuple[Path]]:
        """Travel to other processes by path: each reads the directory of the archive once."""
        return _archive_at, (self.path,)

    @cached_property
    def _members(self) -> dict[str, zipfile.ZipInfo]:
        try:
            with zipfile.ZipFile(self.path) as opened:
                infos = [i for i in opened.infolist() if not i.is_dir()]
        except PermissionError as error:
            raise unreadable(self.path) from error
        except (*DAMAGE, ValueError) as error:
            raise DataError(
                f"the archive is damaged: {error}", where=self.path, remedy="download it again"
            ) from error
        if any(i.flag_bits & 1 for i in infos):
            raise DataError("the archive is encrypted", where=self.path, remedy="unpack it first")
        return {i.filename: i for i in infos}

    def names(self) -> list[str]:
        """Return the names of all members."""
        return sorted(self._members)

    def has(self, name: str) -> bool:
        """Return True for a member."""
        return name in self._members

    def size(self, name: str) -> int:
        """Return the unpacked bytes of a member, as the archive's directory states them."""
        return self._members[name].file_size

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a member.

        Raises:
            DataError: it is packed by a method that is not read.
        """
        method = self._members[name].compress_type
        if method not in _METHODS:
            raise DataError(
                f"{safe_text(name)} is packed by {_METHOD_NAMES.get(method, f'method {method}')}, "
                "which is not read",
                where=self.path,
                remedy="unpack the archive (7-Zip can) and give the folder with --input",
            )
        with zipfile.ZipFile(self.path) as opened, opened.open(name) as stream:
            yield stream

    def where(self, name: str) -> str:
        """Return archive and member for people."""
        return f"{self.path}!{name}"


Place = Folder | Archive


def unreadable(path: str | Path) -> DataError:
    """Return the error of a file or folder that this user may not read."""
    return DataError(
        "cannot be read: permission denied",
        where=path,
        remedy="give this user the right to read it",
    )


def _unreadable(error: OSError) -> None:
    if isinstance(error, PermissionError):
        raise unreadable(error.filename) from error


def _archive_at(path: Path) -> Archive:
    """Return the archive of a path, with its directory as far as this process has read it."""
    try:
        status = path.stat()
    except OSError:
        return Archive(path)
    return _archive_as_it_is(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _archive_as_it_is(path: Path, size: int, modified_ns: int) -> Archive:
    return Archive(path)

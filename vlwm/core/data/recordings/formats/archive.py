"""Read a zip file as a folder, member by member, without unpacking it.

`ArchivePath` has the part of `pathlib.Path` that readers of recordings use. Members are read one at
a time and nothing is kept, so memory does not grow with the archive.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from vlwm.core.errors import DataError


class Archive:
    """A zip file and the tree of its members.

    Args:
        path: the file.

    Raises:
        DataError: it is missing, cut off or no zip file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.file = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            raise DataError(
                f"the archive cannot be read: {error}", where=path, remedy="download it again"
            ) from error
        self.files: set[str] = set()
        self.children: dict[str, set[str]] = {"": set()}
        for name in self.file.namelist():
            inner = PurePosixPath(name)
            if name.startswith("/") or ".." in inner.parts:
                continue
            if not name.endswith("/"):
                self.files.add(str(inner))
            for part in (inner, *inner.parents):
                above = "" if str(part.parent) == "." else str(part.parent)
                if str(part) != ".":
                    self.children.setdefault(above, set()).add(part.name)


class ArchivePath:
    """A file or folder in a zip file.

    Args:
        archive: the zip file.
        inner: its name in there; '' is the root.
    """

    def __init__(self, archive: Archive, inner: str = "") -> None:
        self.archive, self.inner = archive, inner

    @classmethod
    def open(cls, path: Path) -> ArchivePath:
        """Return the root of a zip file.

        Raises:
            DataError: it is missing, cut off or no zip file.
        """
        return cls(Archive(path))

    @property
    def name(self) -> str:
        return PurePosixPath(self.inner).name

    @property
    def stem(self) -> str:
        return PurePosixPath(self.inner).stem

    @property
    def parent(self) -> ArchivePath:
        above = str(PurePosixPath(self.inner).parent)
        return ArchivePath(self.archive, "" if above == "." else above)

    def __truediv__(self, name: str) -> ArchivePath:
        return ArchivePath(self.archive, f"{self.inner}/{name}" if self.inner else name)

    def __lt__(self, other: ArchivePath) -> bool:
        return self.inner < other.inner

    def __str__(self) -> str:
        return f"{self.archive.path}/{self.inner}"

    def is_file(self) -> bool:
        return self.inner in self.archive.files

    def is_dir(self) -> bool:
        return self.inner in self.archive.children

    def iterdir(self) -> Iterator[ArchivePath]:
        for name in sorted(self.archive.children.get(self.inner, ())):
            yield self / name

    def glob(self, pattern: str) -> Iterator[ArchivePath]:
        """Yield what matches a pattern of names with slashes; '**' is not understood."""
        first, _, rest = pattern.partition("/")
        for child in self.iterdir():
            if fnmatchcase(child.name, first):
                if rest:
                    yield from child.glob(rest)
                else:
                    yield child

    def rglob(self, name: str) -> Iterator[ArchivePath]:
        """Yield the files below with a name."""
        start = f"{self.inner}/" if self.inner else ""
        for inner in sorted(self.archive.files):
            if inner.startswith(start) and fnmatchcase(PurePosixPath(inner).name, name):
                yield ArchivePath(self.archive, inner)

    def read_bytes(self) -> bytes:
        """Return the content of a member.

        Raises:
            OSError: it is missing, cut off or differs from its checksum.
        """
        try:
            return self.archive.file.read(self.inner)
        except (
            KeyError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error,
            ValueError,
        ) as error:  # fmt: skip
            raise OSError(f"a damaged member of the archive: {error}") from error

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the content of a member as text; see `read_bytes`."""
        return self.read_bytes().decode(encoding)


AnyPath = Path | ArchivePath
"""a file or folder on disk, or in a zip file"""

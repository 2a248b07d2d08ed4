"""Archives from elsewhere are opened with suspicion.

Every member is checked before the first byte is written: no absolute path, no `..`, no link, no
device, nothing encrypted, no more members, bytes or compression than a real archive has. Each file
is written to a temporary name and renamed, so an interrupted extraction resumes where it stopped.
Our own check supplements the standard library's filter, which had a bypass (CVE-2025-4517).
"""

from __future__ import annotations

import fnmatch
import lzma
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from vlwm.core.errors import DataError, MachineError
from vlwm.core.files import atomic_path, free_bytes, make_folder
from vlwm.core.text import safe_text

_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError,
    NotImplementedError, RuntimeError, ValueError,
)  # fmt: skip
"""what the standard library raises on damaged, forged or unsupported archives"""


@dataclass(frozen=True)
class Limits:
    """More than this is a bomb and not a data set."""

    members: int = 500_000
    ratio: float = 200.0
    """uncompressed over compressed bytes, where more than `free_ride_bytes` come out"""
    free_ride_bytes: int = 64 << 20


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    crc: int | None
    open: Callable[[], IO[bytes]]


def extract(
    archive: Path,
    folder: Path,
    *,
    only: Sequence[str] = ("*",),
    limits: Limits | None = None,
    on_file: Callable[[str], None] = lambda name: None,
) -> list[Path]:
    """Extract the members that match `only` into `folder`; those already there are kept.

    Args:
        only: glob patterns over member paths, `*` also across folders.

    Returns:
        The files of the archive that are now under `folder`.

    Raises:
        DataError: a dangerous, encrypted or damaged member; it is named, and nothing outside
            `folder` was written.
        MachineError: the disk has no room.
    """
    with _members(archive, limits or Limits()) as members:
        wanted = [m for m in members if any(fnmatch.fnmatch(m.name, p) for p in only)]
        _check_room(wanted, folder)
        return [_write(archive, member, folder, on_file) for member in wanted]


@contextmanager
def _members(archive: Path, limits: Limits) -> Iterator[list[_Member]]:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                yield _zip_members(archive, opened, limits)
        else:
            with tarfile.open(archive) as opened:
                yield _tar_members(archive, opened, limits)
    except _DAMAGE as error:
        raise _bad(archive, f"it is damaged or no archive ({safe_text(error)})") from error
    except OSError as error:
        if error.errno is not None:  # the disk's; bzip2 has no number
            raise
        raise _bad(archive, f"it is damaged or no archive ({safe_text(error)})") from error


def _zip_members(archive: Path, opened: zipfile.ZipFile, limits: Limits) -> list[_Member]:
    infos = [i for i in opened.infolist() if not i.is_dir()]
    for info in infos:
        mode = info.external_attr >> 16
        if info.flag_bits & 0x1:
            raise _bad(archive, f"{info.filename!r} is encrypted")
        if mode and (mode & 0o170000) not in (0, 0o100000):
            raise _bad(archive, f"{info.filename!r} is a link or a device")
        _check_name(archive, info.filename)
    total = sum(i.file_size for i in infos)
    _check_bomb(archive, len(infos), total, limits)
    return [_Member(i.filename, i.file_size, i.CRC, partial(opened.open, i)) for i in infos]


def _open_regular(opened: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = opened.extractfile(info)
    assert stream is not None  # it is a regular file
    return stream


def _tar_members(archive: Path, opened: tarfile.TarFile, limits: Limits) -> list[_Member]:
    members, total = [], 0
    for info in opened:
        if info.isdir():
            continue
        if not info.isreg():
            raise _bad(archive, f"{info.name!r} is a link or a device")
        _check_name(archive, info.name)
        total += info.size
        members.append(_Member(info.name, info.size, None, partial(_open_regular, opened, info)))
        _check_bomb(archive, len(members), total, limits)
    return members


def _check_name(archive: Path, name: str) -> None:
    path = PurePosixPath(name)
    bad = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name
    if bad or not path.parts:
        raise _bad(archive, f"{name!r} leads out of the folder")


def _check_bomb(archive: Path, members: int, total: int, limits: Limits) -> None:
    if members > limits.members:
        raise _bad(archive, f"it holds more than {limits.members} files")
    allowed = max(limits.free_ride_bytes, limits.ratio * archive.stat().st_size)
    if total > allowed:
        raise _bad(archive, f"it would unpack to {total} bytes, more than {limits.ratio:g} times")


def _check_room(members: Sequence[_Member], folder: Path) -> None:
    missing = sum(m.size for m in members if not (folder / m.name).is_file())
    free = free_bytes(folder)
    if missing > free:
        raise MachineError(
            f"{missing / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free",
            where=folder,
            remedy="free some space or give a folder on another disk with --data-dir",
        )


def _write(archive: Path, member: _Member, folder: Path, on_file: Callable[[str], None]) -> Path:
    path = folder / member.name
    inside = folder.resolve()
    make_folder(path.parent)
    if not path.parent.resolve().is_relative_to(inside):
        raise _bad(archive, f"{member.name!r} leads out of the folder")
    if not _is_whole(path, member):
        with atomic_path(path) as temporary, open(temporary, "wb") as target:
            with member.open() as source:
                shutil.copyfileobj(source, target, 1 << 20)
            if target.tell() != member.size:
                raise _bad(archive, f"{member.name!r} is not as long as its header states")
    on_file(member.name)
    return path


def _is_whole(path: Path, member: _Member) -> bool:
    if not path.is_file() or path.is_symlink() or path.stat().st_size != member.size:
        return False
    return member.crc is None or _crc32(path) == member.crc


def _crc32(path: Path) -> int:
    value = 0
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            value = zlib.crc32(block, value)
    return value


def _bad(archive: Path, reason: str) -> DataError:
    return DataError(
        f"the archive is refused: {reason}",
        where=archive,
        remedy="delete it and download it again; if it stays so, report the address",
    )

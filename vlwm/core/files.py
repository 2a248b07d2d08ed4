"""Files that are whole or not there: write to a temporary name, flush, rename, flush the folder.

A process killed at any moment leaves either the old file or the new one under the final name.
Temporary names start with a dot and end in `.tmp`, so that a reader never takes one for a result.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vlwm.core.errors import DataError, MachineError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_own: set[Path] = set()  # temporary files and locks of this process
os.register_at_fork(after_in_child=_own.clear)


def own(path: Path) -> None:
    """Remember a file that must not outlive this process."""
    _own.add(path)


def disown(path: Path) -> None:
    """Forget a file that was removed or has its final name."""
    _own.discard(path)


def remove_own_files() -> None:
    """Remove the temporary files and locks of this process, before it ends at once."""
    for path in tuple(_own):
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def atomic_path(path: str | Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path next to `path`; it takes that name if the block ends without error.

    Args:
        flush: False leaves it to the caller to flush many files at once with `flush_disk`; until
            then a failing machine, unlike a killed process, may lose them.

    Raises:
        MachineError: the disk is full, over quota or read-only; the old file stays as it was.
    """
    final = Path(path)
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    own(temporary)
    try:
        yield temporary
        if flush:
            flush_file(temporary)
        os.replace(temporary, final)
        if flush:
            flush_folder(final.parent)
    except OSError as error:
        raise explain_os_error(error, final) from error
    finally:
        with suppress(OSError):  # a disk that turned read-only keeps it; the next run deletes it
            temporary.unlink(missing_ok=True)
        disown(temporary)


def remove_temporaries(folder: Path) -> None:
    """Delete what killed writers left in a folder; for a folder that nobody else writes to."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def flush_file(path: Path) -> None:
    """Force a file's bytes to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_disk(folder: Path) -> None:
    """Force everything written to the disk that holds `folder`: one call for many files."""
    import ctypes

    handle = os.open(folder, os.O_RDONLY)
    try:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(handle) != 0:
            code = ctypes.get_errno()
            raise explain_os_error(OSError(code, os.strerror(code)), folder)
    finally:
        os.close(handle)


def flush_folder(folder: Path) -> None:
    """Force a folder's entries to the disk, where the file system knows how."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


_WRONG_KIND = {
    errno.EISDIR: "a folder is where a file should be",
    errno.ENOTDIR: "a file is where a folder should be",
    errno.ELOOP: "its links lead around in a circle",
    errno.ENAMETOOLONG: "the name is too long for this disk",
}


def explain_os_error(error: OSError, path: str | Path) -> MachineError | DataError:
    """Return an operating-system error on `path` as one sentence with its remedy."""
    if error.errno in _FULL:
        free = free_bytes(Path(path).parent) / 1e9
        return MachineError(
            f"the disk is full or over quota, {free:.1f} GB shown as free",
            where=path,
            remedy="free some space or choose a folder on another disk, then run it again",
        )
    if error.errno == errno.EROFS:
        return MachineError(
            "the disk is read-only", where=path, remedy="choose a folder that can be written"
        )
    if isinstance(error, PermissionError):
        return _explain_permission(Path(error.filename or path))
    if isinstance(error, FileNotFoundError):
        return DataError(
            "no such file or folder", where=error.filename or path, remedy="check the path"
        )
    if error.errno in _WRONG_KIND:
        return DataError(
            _WRONG_KIND[error.errno], where=error.filename or path, remedy="check the path"
        )
    return MachineError(
        f"disk error ({error.strerror or error})",
        where=path,
        remedy="check dmesg; use a folder on another disk",
    )


def _explain_permission(path: Path) -> MachineError | DataError:
    """Tell whether reading or writing was refused, from what this user may do with the path."""
    folder_opens = os.access(path.parent, os.X_OK)
    if not folder_opens or (os.access(path, os.F_OK) and not os.access(path, os.R_OK)):
        return DataError(
            "cannot read: permission denied",
            where=path,
            remedy="see with ls -l who may read it; chmod or sudo chown changes that",
        )
    return MachineError("no permission to write", where=path, remedy="choose a folder that you own")


def make_folder(path: str | Path) -> Path:
    """Create a folder and its parents; the path itself is returned."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, folder) from error
    return folder


def write_text(path: str | Path, text: str) -> None:
    """Write a whole text file by rename."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    """Write one JSON value by rename; keys keep their order, NaN is refused."""
    write_text(path, json_text(value))


def json_text(value: object) -> str:
    """Return one JSON value as the text of a file; keys keep their order, NaN is refused."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: str | Path) -> Any:
    """Read one JSON value.

    Raises:
        DataError: the file is missing, unreadable or not JSON; the line is named.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():  # half a surrogate pair could never be written again
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        raise DataError(
            f"line {error.lineno} is not JSON: {error.msg}",
            where=path,
            remedy="fix the line, or delete the file if vlwm wrote it: it is made again",
        ) from error
    except UnicodeEncodeError as error:
        raise DataError(
            f"{error.object[error.start]!a} is half a character",
            where=path,
            remedy="fix the text, or delete the file if vlwm wrote it: it is made again",
        ) from error
    except (RecursionError, ValueError) as error:  # too deep, or a number of thousands of digits
        raise DataError(
            f"this JSON cannot be read: {type(error).__name__}",
            where=path,
            remedy="delete the file if vlwm wrote it; else write it as plain lists and objects",
        ) from error


def read_text(path: str | Path) -> str:
    """Read a UTF-8 text file.

    Raises:
        DataError: the file is missing, may not be read, or is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError("no such file", where=path, remedy="check the path") from error
    except PermissionError as error:
        raise DataError(
            "cannot read: permission denied",
            where=path,
            remedy="see with ls -l who may read it; chmod or sudo chown changes that",
        ) from error
    except (OSError, ValueError) as error:  # a folder, a NUL in the name, other bytes than UTF-8
        raise DataError(
            f"the file cannot be read: {error}", where=path, remedy="it should be UTF-8 text"
        ) from error


def sha256_file(path: str | Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def free_bytes(path: str | Path) -> int:
    """Return bytes free for this user on the disk of `path` or its nearest existing parent."""
    folder = Path(path).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free

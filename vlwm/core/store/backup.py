"""Copies of a run folder in a store: losing the machine costs the work since the last checkpoint.

    SHA256.part            content of a file, named by its hash
    manifest-000012.json   path -> hash of every file; written after its parts were read back

`backup_thread` copies whenever a checkpoint is new. The newest two manifests and their parts are
kept.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from vlwm.core.errors import DataError, MachineError
from vlwm.core.files import json_text, make_folder, sha256_file
from vlwm.core.store.object_store import ObjectStore
from vlwm.core.store.objects import open_store

log = logging.getLogger("vlwm.training")

KEPT = 2
_MANIFEST = re.compile(r"^manifest-(\d{6})\.json$")
_CHECKPOINTS = ("last.pth", "best.pth", "opening.pth")
_SMALL = ("config.json", "data.json", "splits.json", "scores.json", "metrics.jsonl", "status.json")


class Backup:
    """Copies one run folder to a store.

    Args:
        folder: the run folder.
        url: of the store.

    Attributes:
        store: of the copies.

    Raises:
        UsageError: the URL is not a store that can be written.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self.store = open_store(url)
        self._seen: dict[str, tuple[int, int]] = {}
        self._hashes: dict[tuple[str, int, int], str] = {}
        self._verified: set[str] = set()

    def copy_if_new(self) -> bool:
        """Copy the run folder if a checkpoint changed since the last copy; return True if so."""
        seen = {name: _stamp(self._folder / name) for name in self._checkpoints()}
        if not seen or seen == self._seen:
            return False
        self.copy()
        self._seen = seen
        return True

    def copy(self) -> None:
        """Copy the run folder, read the parts back, and write the manifest.

        Raises:
            MachineError: the store does not answer, or returns other bytes than it was given.
        """
        parts: dict[str, str] = {}
        present = self.store.list()
        for name in [*self._checkpoints(), *self._small()]:
            digest = self._put(name, present)
            if digest is not None:
                parts[name] = digest
        numbers = _numbers(present)
        number = numbers[-1] + 1 if numbers else 1
        manifest = json_text({"number": number, "files": parts}).encode()
        self.store.write(f"manifest-{number:06d}.json", manifest)
        self._prune([*numbers, number][-KEPT:], parts)

    def _put(self, name: str, present: Collection[str]) -> str | None:
        """Copy one file unless the store has it; return its hash, None if it is gone."""
        # a checkpoint is replaced by rename: a second name keeps its content while it is copied
        link = self._folder / f".backup.{os.getpid()}.tmp"
        link.unlink(missing_ok=True)
        source = self._folder / name
        try:
            if name.endswith(".pth"):
                os.link(source, link)
            else:
                link.write_bytes(source.read_bytes())
        except FileNotFoundError:
            return None
        except OSError:  # no hard links here: the file itself, checked by its hash below
            link = source
        try:
            key = (name, *_stamp(link))
            digest = self._hashes.get(key) or sha256_file(link)
            self._hashes[key] = digest
            part = f"{digest}.part"
            if digest not in self._verified:
                if part not in present or self.store.sha256(part) != digest:
                    self.store.write_file(part, link)
                if self.store.sha256(part) != digest:
                    self.store.delete(part)
                    raise MachineError(
                        "the backup returned other bytes than it was given",
                        where=self.store.place(part),
                        remedy="the next checkpoint is copied again; check that store",
                    )
            self._verified.add(digest)
            return digest
        finally:
            if link != source:
                link.unlink(missing_ok=True)

    def _prune(self, kept: list[int], newest: dict[str, str]) -> None:
        """Delete manifests but the newest ones, and parts that none of those names."""
        wanted = set(newest.values())
        for number in kept[:-1]:
            wanted |= set(files_of(self.store, number).values())
        for name in self.store.list():
            match = _MANIFEST.match(name)
            old = match is not None and int(match.group(1)) not in kept
            if old or (name.endswith(".part") and name.removesuffix(".part") not in wanted):
                self.store.delete(name)

    def _checkpoints(self) -> list[str]:
        names = [f"{stage}{name}" for stage in ("", "tokenizer/") for name in _CHECKPOINTS]
        return [name for name in names if (self._folder / name).exists()]

    def _small(self) -> list[str]:
        names = [f"{stage}{name}" for stage in ("", "tokenizer/") for name in _SMALL]
        return [name for name in names if (self._folder / name).exists()]


def restore(url: str, folder: Path) -> int:
    """Bring the newest whole copy of a run into an empty folder; return its number of files.

    Raises:
        DataError: the store holds no copy, or a part differs from its hash.
    """
    store = open_store(url)
    numbers = _numbers(store.list())
    if not numbers:
        raise DataError(
            "the store holds no backup of a run",
            where=url,
            remedy="leave out --resume to begin a run that is backed up there",
        )
    files = files_of(store, numbers[-1])
    # last.pth comes at the end: a folder without it holds no run, and is restored again
    for name in sorted(files, key=lambda n: (n.endswith(".pth"), n.endswith("last.pth"), n)):
        make_folder((folder / name).parent)
        if store.read_file(f"{files[name]}.part", folder / name) != files[name]:
            (folder / name).unlink()
            raise _damaged(store, f"{files[name]}.part")
    return len(files)


def newest_copy(names: Iterable[str]) -> int | None:
    """Return the number of the newest copy among the objects of a store; None without one."""
    numbers = _numbers(names)
    return numbers[-1] if numbers else None


def files_of(store: ObjectStore, number: int) -> dict[str, str]:
    """Return path -> hash of one manifest.

    Raises:
        DataError: it is damaged.
    """
    name = f"manifest-{number:06d}.json"
    try:
        files = json.loads(store.read(name) or b"")["files"]
        found = {str(path): str(digest) for path, digest in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(store, name) from error
    for path in found:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\0" in path:
            raise _damaged(store, name)
    return found


def _damaged(store: ObjectStore, name: str) -> DataError:
    return DataError(
        "the backup is damaged",
        where=store.place(name),
        remedy="delete the newest manifest-*.json there to take the copy before it",
    )


def _numbers(names: Iterable[str]) -> list[int]:
    return sorted(int(m.group(1)) for m in map(_MANIFEST.match, names) if m)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0, 0
    return stat.st_ino, stat.st_mtime_ns

"""Keep the signs of a run in its backup: `vlwm monitor URL` watches it from anywhere.

    live-status.json              status.json of the run folder, about every 30 s
    live-metrics.jsonl            metrics.jsonl; likewise live-tokenizer-…

These are plain objects next to the copies, and no copy names them. Where a backup has none, the
files of its newest copy are shown.
"""

from __future__ import annotations

import time
from pathlib import Path

from vlwm.core.errors import DataError
from vlwm.core.files import atomic_path, make_folder
from vlwm.core.store.backup import files_of, newest_copy
from vlwm.core.store.object_store import ObjectStore

_PREFIX = "live-"
_FILES = ("status.json", "metrics.jsonl", "tokenizer/status.json", "tokenizer/metrics.jsonl")
_SHOWN = ("config.json", "data.json", "splits.json", "scores.json")
_EVERY_S = 30.0
_LARGE_BYTES, _LARGE_EVERY_S = 4_000_000, 300.0


class SignsSender:
    """Copies the signs of a run folder to a store, at most every 30 s each.

    Args:
        folder: the run folder.
        store: of its backup.
    """

    def __init__(self, folder: Path, store: ObjectStore) -> None:
        self._folder, self._store = folder, store
        self._sent: dict[str, tuple[float, int, int]] = {}  # name -> time, its mtime and size

    def send(self, now_s: float | None = None) -> int:
        """Copy what has changed and is due; return the number of files.

        Args:
            now_s: of a clock that only rises.

        Raises:
            MachineError: the store does not answer.
        """
        now_s = time.monotonic() if now_s is None else now_s
        count = 0
        for name in _FILES:
            try:
                stat = (self._folder / name).stat()
                before = self._sent.get(name)
                every_s = _LARGE_EVERY_S if stat.st_size > _LARGE_BYTES else _EVERY_S
                stamp = (stat.st_mtime_ns, stat.st_size)
                if before and (now_s - before[0] < every_s or before[1:] == stamp):
                    continue
                content = (self._folder / name).read_bytes()
            except FileNotFoundError:
                continue
            self._store.write(_object(name), content)
            self._sent[name] = (now_s, *stamp)
            count += 1
        return count


def is_backup(store: ObjectStore) -> bool:
    """Return True for a store that a run was backed up to."""
    entries = store.list()
    return newest_copy(entries) is not None or any(n.startswith(_PREFIX) for n in entries)


class SignsReader:
    """Brings the signs of a run from its backup into a local folder.

    Args:
        store: of the backup.
        folder: looks like a run folder afterwards, without checkpoints.
    """

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._known: dict[str, object] = {}

    def fetch(self) -> int:
        """Fetch what has changed; return the number of files.

        Raises:
            DataError: the newest copy is damaged.
            MachineError: the store does not answer.
        """
        entries = self._store.list()
        number = newest_copy(entries)
        copied = {} if number is None else files_of(self._store, number)
        count = 0
        state: tuple[int, float | None] | str
        for name in (*_FILES, *_SHOWN):
            live = entries.get(_object(name))
            if live is not None:
                source, state = _object(name), (live.size, live.modified_s)
            elif name in copied:
                source, state = f"{copied[name]}.part", copied[name]
            else:
                continue
            if self._known.get(name) == state:
                continue
            content = self._store.read(source)
            if content is None:  # replaced just now: the next look finds it
                continue
            make_folder((self._folder / name).parent)
            with atomic_path(self._folder / name, flush=False) as temporary:
                temporary.write_bytes(content)
            self._known[name] = state
            count += 1
        if not self._known:
            raise DataError(
                "the backup shows nothing of a run yet",
                where=self._store.url,
                remedy="wait for its first status, or give another URL",
            )
        return count


def _object(name: str) -> str:
    return _PREFIX + name.replace("/", "-")

"""Shards of a local folder whose frames are still in a store: fetched when the first is read.

Such a shard has its size and its index, so a data folder opens and hashes as if it were whole; the
place of its frames is a hole in the file. `.unfetched.json` names the store and these shards.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from vlwm.core.errors import DataError
from vlwm.core.files import atomic_path, json_text, write_text
from vlwm.core.folder_lock import file_lock
from vlwm.core.store.object_store import gone
from vlwm.core.store.objects import open_store
from vlwm.core.store.shard_files import check_shard, read_index

FILE = ".unfetched.json"
_LONGEST_WAIT_S = 3600.0
log = logging.getLogger("vlwm.data")


def read_unfetched(folder: Path) -> tuple[str, set[str]]:
    """Return the store of a folder and the names of shards without frames; ("", empty) if none.

    Raises:
        DataError: the list is damaged.
    """
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return str(found["store"]), {str(name) for name in found["shards"]}
    except FileNotFoundError:
        return "", set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            "the list of shards that are not fetched yet is damaged",
            where=folder / FILE,
            remedy="delete the folder: the same command fetches it again",
        ) from error


def write_unfetched(folder: Path, url: str, names: Iterable[str]) -> None:
    """Write the names of shards without frames; no file where there are none."""
    listed = sorted(names)
    if listed:
        write_text(folder / FILE, json_text({"store": url, "shards": listed}))
    else:
        (folder / FILE).unlink(missing_ok=True)


class Unfetched:
    """Fetches shards whose frames are not here, when they are opened."""

    def __init__(self) -> None:
        self._names: dict[Path, set[str]] = {}

    def __call__(self, path: Path) -> None:
        """Fetch the frames of a shard if they are not here; other processes meanwhile wait.

        Raises:
            DataError: the store has another shard, or a damaged one.
            MachineError: the store does not answer.
        """
        folder, name = path.parent, path.name
        if folder not in self._names:
            self._names[folder] = read_unfetched(folder)[1]
        if name not in self._names[folder]:
            return
        with file_lock(folder / f".{name}.lock", wait_s=_LONGEST_WAIT_S):
            url, names = read_unfetched(folder)
            if name in names:
                log.info("data: fetching %s/%s, which is read for the first time", url, name)
                _fill(url, path)
        with file_lock(folder / f"{FILE}.lock", wait_s=_LONGEST_WAIT_S):
            url, names = read_unfetched(folder)
            write_unfetched(folder, url, names - {name})
        self._names[folder].discard(name)


def _fill(url: str, path: Path) -> None:
    """Write the frames into the file that is there: others may have it open."""
    store, whole = open_store(url), path.with_name(f".{path.name}.whole")
    raw = store.read(path.name)
    if raw is None:
        raise gone(store.place(path.name))
    with atomic_path(whole) as temporary:
        temporary.write_bytes(raw)
        index = check_shard(temporary)
    whole.unlink()
    known = read_index(path)
    if known.file_bytes != index.file_bytes or known.header != index.header:
        raise DataError(
            "the store has another shard than when its index was fetched",
            where=store.place(path.name),
            remedy=f"delete {path.parent}: the same command fetches it again",
        )
    with open(path, "r+b") as stream:
        stream.write(raw)
        stream.flush()
        os.fsync(stream.fileno())

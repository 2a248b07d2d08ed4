"""Bring the shards of a store into a local folder, whole, checked and resumable."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from vlwm.core.errors import DataError, MachineError
from vlwm.core.files import atomic_path, free_bytes, make_folder
from vlwm.core.store.object_store import Entry, ObjectStore, gone
from vlwm.core.store.objects import check_name, open_store
from vlwm.core.store.shard import PREFIX_BYTES, SUFFIX, index_bytes, parse_index
from vlwm.core.store.shard_files import check_shard
from vlwm.core.store.unfetched import read_unfetched, write_unfetched

LAST = ("splits.json",)
"""fetched after all shards: a folder without it is not complete"""
_OTHERS = (*LAST, "prepare.json", "city_report.json")  # tiles of the city stay where they are

_FIRST_READ = 1 << 17
"""bytes that hold the index of a session of 500 frames"""

OnObject = Callable[[str, int, int], None]
"""called with (name, bytes so far, bytes in all)"""


def cache_folder(url: str, cache: Path) -> Path:
    """Return the folder of a store inside a cache: its last name and a hash of its address."""
    key = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:12]
    return cache / "stores" / f"{url.rstrip('/').rsplit('/', 1)[-1]}-{key}"


def mirror(
    url: str,
    folder: Path,
    on_object: OnObject = lambda name, done, total: None,
    is_wanted: Callable[[str], bool] = lambda name: True,
) -> list[str]:
    """Fetch what `folder` lacks of a finished store; return the names that were fetched.

    Objects of the right size are kept; each shard is compared with its checksums before it gets
    its name, so the same command continues after an interruption.

    Args:
        is_wanted: False for a shard, by its name, of which the index is enough: its frames are
            fetched when the first is read (`unfetched`).

    Raises:
        DataError: the store is empty or unfinished, or sends damaged shards.
        MachineError: the disk has no room, or the store does not answer.
    """
    store = open_store(url)
    listed = {check_name(name): entry for name, entry in store.list().items()}
    entries = {n: e for n, e in listed.items() if n.endswith(SUFFIX) or n in _OTHERS}
    _check_finished(store, entries)
    make_folder(folder)
    without = read_unfetched(folder)[1]
    whole = {n for n in entries if not n.endswith(SUFFIX) or is_wanted(n)}
    missing = [
        n for n, e in entries.items()
        if not _is_there(folder / n, e) or (n in without and n in whole)
    ]  # fmt: skip
    _check_room(folder, sum(entries[name].size for name in missing))
    indexes = [name for name in missing if name not in whole]
    total = sum(entries[name].size for name in missing if name in whole)
    # the list is there before the first shard without frames has its name
    write_unfetched(folder, url, (without & set(entries)) | set(indexes))
    done = 0
    for name in indexes:
        _fetch_index(store, name, folder)
    for name in sorted((n for n in missing if n in whole), key=lambda n: (n in LAST, n)):
        _fetch(store, name, folder)
        done += entries[name].size
        on_object(name, done, total)
    write_unfetched(folder, url, ((without & set(entries)) | set(indexes)) - whole)
    return missing


def _check_room(folder: Path, needed: int) -> None:
    """Raise MachineError where the disk lacks room for all that is missing, now or later."""
    free = free_bytes(folder)
    if needed > free:
        raise MachineError(
            f"the store has {needed / 1e9:.2f} GB more and {free / 1e9:.2f} GB are free",
            where=folder,
            remedy="choose another disk: --packed-dir DIR or VLWM_CACHE=DIR",
        )


def _fetch_index(store: ObjectStore, name: str, folder: Path) -> None:
    """Fetch the index of a shard, into a file of the shard's size."""
    raw = store.read_start(name, _FIRST_READ)
    if raw is not None and (need := index_bytes(raw[:PREFIX_BYTES], store.place(name))) > len(raw):
        raw = store.read_start(name, need)
    if raw is None:
        raise gone(store.place(name))
    index = parse_index(raw, store.place(name))
    with atomic_path(folder / name) as temporary:
        temporary.write_bytes(raw[: index.data_at])
        os.truncate(temporary, index.file_bytes)


def _check_finished(store: ObjectStore, entries: dict[str, Entry]) -> None:
    if not any(name.endswith(SUFFIX) for name in entries):
        raise DataError(
            "the store holds no session", where=store.url, remedy="vlwm prepare --store fills it"
        )
    if any(name not in entries for name in LAST):
        raise DataError(
            "vlwm prepare has not finished this store",
            where=store.url,
            remedy="run the same vlwm prepare --store command again, on any machine",
        )


def _is_there(path: Path, entry: Entry) -> bool:
    return path.is_file() and path.stat().st_size == entry.size and path.suffix == SUFFIX


def _fetch(store: ObjectStore, name: str, folder: Path) -> None:
    """Fetch one object; a shard that differs from its checksums is fetched a second time."""
    for last in (False, True):
        raw = store.read(name)
        if raw is None:
            raise gone(store.place(name))
        try:
            with atomic_path(folder / name) as temporary:
                temporary.write_bytes(raw)
                if name.endswith(SUFFIX):
                    check_shard(temporary)
        except DataError:
            if last:
                raise
            continue
        return

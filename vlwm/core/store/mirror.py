"""Bring the shards of a store into a local folder, whole, checked and resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from vlwm.core.errors import DataError, MachineError
from vlwm.core.files import atomic_path, free_bytes, make_folder
from vlwm.core.store.object_store import Entry, ObjectStore, gone
from vlwm.core.store.objects import check_name, open_store
from vlwm.core.store.shard import SUFFIX
from vlwm.core.store.shard_files import check_shard

LAST = ("splits.json",)
"""fetched after all shards: a folder without it is not complete"""
_OTHERS = (*LAST, "prepare.json", "city_report.json")  # tiles of the city stay where they are

OnObject = Callable[[str, int, int], None]
"""called with (name, bytes so far, bytes in all)"""


def cache_folder(url: str, cache: Path) -> Path:
    """Return the folder of a store inside a cache: its last name and a hash of its address."""
    key = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:12]
    return cache / "stores" / f"{url.rstrip('/').rsplit('/', 1)[-1]}-{key}"


def mirror(
    url: str, folder: Path, on_object: OnObject = lambda name, done, total: None
) -> list[str]:
    """Fetch what `folder` lacks of a finished store; return the names that were fetched.

    Objects of the right size are kept; each shard is compared with its checksums before it gets
    its name, so the same command continues after an interruption.

    Raises:
        DataError: the store is empty or unfinished, or sends damaged shards.
        MachineError: the disk has no room, or the store does not answer.
    """
    store = open_store(url)
    listed = {check_name(name): entry for name, entry in store.list().items()}
    entries = {n: e for n, e in listed.items() if n.endswith(SUFFIX) or n in _OTHERS}
    _check_finished(store, entries)
    make_folder(folder)
    missing = [n for n, e in entries.items() if not _is_there(folder / n, e)]
    total = sum(entries[name].size for name in missing)
    free = free_bytes(folder)
    if total > free:
        raise MachineError(
            f"the store has {total / 1e9:.2f} GB more and {free / 1e9:.2f} GB are free",
            where=folder,
            remedy="choose another disk: --packed-dir DIR or VLWM_CACHE=DIR",
        )
    done = 0
    for name in sorted(missing, key=lambda n: (n in LAST, n)):
        _fetch(store, name, folder)
        done += entries[name].size
        on_object(name, done, total)
    return missing


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

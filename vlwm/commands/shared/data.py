"""Options of several commands about data: stores as --data, and a place for derived files."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

PackedDir = Annotated[
    Path | None,
    typer.Option(
        "--packed-dir",
        metavar="DIR",
        help="Folder for files made from the data, for data on a read-only disk. [VLWM_CACHE]",
        rich_help_panel="What goes in and out",
    ),
]


def local_data(
    data: str | Path | None,
    packed_dir: Path | None,
    *,
    fetch: bool = True,
    later: tuple[str, ...] = (),
) -> Path | None:
    """Return --data as a local folder; a store is brought into the cache first.

    Args:
        packed_dir: value of --packed-dir; it is also set for the processes that this one starts.
        fetch: False returns the folder in the cache as it is.
        later: splits whose frames are fetched when they are read.
    """
    from vlwm.core.store.objects import is_url

    if packed_dir is not None:
        os.environ["VLWM_CACHE"] = str(packed_dir)
    if data is None or not is_url(data):
        return None if data is None else Path(data)
    url = str(data)
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    return fetch_store(url, None, fetch=fetch, later=later)


def fetch_store(
    url: str, folder: Path | None, *, fetch: bool = True, later: tuple[str, ...] = ()
) -> Path:
    """Bring a store into `folder`, by default its folder in the cache, and return the folder.

    Args:
        later: splits whose frames are fetched when they are read.
    """
    from vlwm.commands.shared.output import note
    from vlwm.core.folder_lock import file_lock
    from vlwm.core.store.mirror import cache_folder, mirror

    cache = os.environ.get("VLWM_CACHE") or Path.home() / ".cache/vlwm"
    target = cache_folder(url, Path(cache)) if folder is None else folder
    if not fetch:
        return target
    spoken = 0.0

    def tell(name: str, done: int, total: int) -> None:
        nonlocal spoken
        if done == total or time.monotonic() - spoken > 2.0:
            spoken = time.monotonic()
            note(f"fetching {url}: {done / 1e6:.1f} of {total / 1e6:.1f} MB")

    target.parent.mkdir(parents=True, exist_ok=True)
    # the processes of one machine fetch once: the others wait and find everything there
    with file_lock(target.with_name(f".{target.name}.lock"), wait_s=86_400.0):
        waiting = _waiting(url, later)
        mirror(url, target, tell, lambda name: name not in waiting)
    return target


def _waiting(url: str, splits: tuple[str, ...]) -> set[str]:
    """Return the shards of splits that are fetched later, as far as a store's plan tells them."""
    from vlwm.commands.shared.output import note
    from vlwm.core.data.splits import PLAN_FILE, planned_splits
    from vlwm.core.store.objects import open_store
    from vlwm.core.store.shard import SUFFIX

    if not splits:
        return set()
    store = open_store(url)
    planned = planned_splits(store.read(PLAN_FILE) or b"")
    found = {f"{name}{SUFFIX}" for name, split in planned.items() if split in splits}
    sizes = [entry.size for name, entry in store.list().items() if name in found]
    if sizes:
        note(
            f"{' and '.join(splits)}: {len(sizes)} sessions, {sum(sizes) / 1e6:.1f} MB, are "
            "fetched when they are scored"
        )
    return found

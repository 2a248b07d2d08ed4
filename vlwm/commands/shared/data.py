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
    data: str | Path | None, packed_dir: Path | None, *, fetch: bool = True
) -> Path | None:
    """Return --data as a local folder; a store is brought into the cache first.

    Args:
        packed_dir: value of --packed-dir; it is also set for the processes that this one starts.
        fetch: False returns the folder in the cache as it is.
    """
    from vlwm.core.store.objects import is_url

    if packed_dir is not None:
        os.environ["VLWM_CACHE"] = str(packed_dir)
    if data is None or not is_url(data):
        return None if data is None else Path(data)
    url = str(data)
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    return fetch_store(url, None, fetch=fetch)


def fetch_store(url: str, folder: Path | None, *, fetch: bool = True) -> Path:
    """Bring a store into `folder`, by default its folder in the cache, and return the folder."""
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
        mirror(url, target, tell)
    return target

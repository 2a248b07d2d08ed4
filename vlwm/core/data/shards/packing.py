"""Pack session folders into shards of their own, and again when a session changes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from vlwm.core.data.session import Session
from vlwm.core.data.shards.session_shard import grid_header, shard_of_session
from vlwm.core.errors import DataError
from vlwm.core.files import atomic_path, make_folder
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.parallel import each
from vlwm.core.store.shard import SUFFIX, ShardIndex
from vlwm.core.store.shard_files import read_index

FOLDER = ".packed"
CACHE = "VLWM_CACHE"
"""environment variable: folder for derived files of data on a disk that cannot be written"""


def list_shards(root: Path) -> list[Path]:
    """Return the shards of a data folder, by name."""
    if not root.is_dir():
        return []
    return [root / name for name in sorted(os.listdir(root)) if name.endswith(SUFFIX)]


def shard_header(path: Path) -> dict[str, Any]:
    """Return the header of a shard: session, frames, grid, meta."""
    return dict(read_index(path).header)


def derived_folder(root: Path) -> Path:
    """Return the folder of files derived from a data folder.

    It is `.packed` in there; one in $VLWM_CACHE where that is set; or, for data that are read-only
    and have no `.packed`, one in the user's cache folder.
    """
    cache = os.environ.get(CACHE)
    if not cache:
        if (root / FOLDER).exists() or not root.is_dir() or os.access(root, os.W_OK):
            return root / FOLDER
        cache = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlwm")
    place = root.resolve()
    key = hashlib.sha256(str(place).encode()).hexdigest()[:12]
    return Path(cache) / "packed" / f"{place.name}-{key}"


def _signature(path: Path) -> str:
    """Return a hash of names, sizes and times of a session's files."""
    digest = hashlib.sha256()
    for folder in ("occupancy", "poses"):
        if (path / folder).is_dir():
            for entry in sorted(os.scandir(path / folder), key=lambda e: e.name):
                stat = entry.stat()
                digest.update(f"{entry.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    meta = path / "session.json"
    digest.update(meta.read_bytes() if meta.exists() else b"")
    return digest.hexdigest()


def pack_sessions(
    folder: Path,
    paths: list[Path],
    grid: VoxelGrid,
    strict: bool,
    on_session: Callable[[str, int, int], None],
    workers: int,
) -> tuple[dict[str, ShardIndex], list[str]]:
    """Pack the session folders that are new or changed; return every index and the notes."""
    make_folder(folder)
    notes = _notes_of_old(folder)
    indexes: dict[str, ShardIndex] = {}
    old: list[tuple[Path, str]] = []
    for path in paths:
        signature = _signature(path)
        index = _current(folder / f"{path.name}{SUFFIX}", signature, grid, strict)
        if index is None:
            old.append((path, signature))
        else:
            indexes[path.name] = index
    place = {path.name: number for number, path in enumerate(paths)}
    packed = each(partial(_pack, folder, grid, strict), old, workers)
    for (path, _), _ in zip(old, packed, strict=True):
        on_session(path.name, place[path.name], len(paths))
        indexes[path.name] = read_index(folder / f"{path.name}{SUFFIX}")
    for file in list_shards(folder):
        if file.stem not in place:
            file.unlink(missing_ok=True)
    for file in (folder / "index.json", *folder.glob("*.bits")):
        file.unlink(missing_ok=True)
    return indexes, notes


def _notes_of_old(folder: Path) -> list[str]:
    if not (folder / "index.json").exists():
        return []
    return [f"the packed frames of an earlier version in {folder} are built again as shards"]


def _current(path: Path, signature: str, grid: VoxelGrid, strict: bool) -> ShardIndex | None:
    """Return the index of a packed session if it is whole and its source has not changed."""
    if not path.exists():
        return None
    try:
        index = read_index(path)
    except DataError:
        return None
    header = index.header
    same = header.get("signature") == signature and header.get("grid") == grid_header(grid)
    return index if same and not (strict and header.get("damaged")) else None


def _pack(folder: Path, grid: VoxelGrid, strict: bool, item: tuple[Path, str]) -> None:
    path, signature = item
    session = Session(path, strict=strict)
    raw = shard_of_session(session, grid, strict=strict, more={"signature": signature})
    with atomic_path(folder / f"{path.name}{SUFFIX}") as temporary:
        temporary.write_bytes(raw)

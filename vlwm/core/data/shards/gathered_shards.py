"""Gather the tables of many shards, and keep them for the next time a folder is opened."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.shards.session_shard import KINDS, grid_header, other_grid
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.store.kept_arrays import keep_arrays, kept_arrays
from vlwm.core.store.shard import ShardIndex
from vlwm.core.store.shard_files import read_index, read_indexes

MANY = 200
"""shards from which on the tables are kept in one file"""
_COMPARED = 8
"""shards that are read and compared with that file each time"""
_FILE = "gathered.index"
_TABLES = ("poses", "ground_z", "believed", "believed_ground_z", "session", "frame")
_PARTS = ("at", "size", "crc", "content")


@dataclass(frozen=True, eq=False)
class LayerRows:
    """Places of a layer's compressed frames in the shards, a row per frame of the store.

    Attributes:
        at: uint64 (N,), offset in the shard's file.
        size: uint32 (N,), 0 where the frame lacks the layer.
        crc: uint32 (N,), CRC-32 of the compressed bytes.
        content: uint32 (N,), CRC-32 of the decompressed ones.
    """

    at: NDArray[np.uint64]
    size: NDArray[np.uint32]
    crc: NDArray[np.uint32]
    content: NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class GatheredShards:
    """Tables of many shards, one after another; `PackedStore` has the same names.

    Attributes:
        poses, ground_z, believed, believed_ground_z, frame: a row per frame.
        session: int64 (N,), number of each frame's shard.
        meta: `session.json` of each session.
        damaged, notes: of all shards.
        layers: by name.
    """

    poses: NDArray[np.float64]
    ground_z: NDArray[np.float64]
    believed: NDArray[np.float64] | None
    believed_ground_z: NDArray[np.float64] | None
    session: NDArray[np.int64]
    frame: NDArray[np.int64]
    meta: list[dict[str, Any]]
    damaged: list[tuple[str, str]]
    notes: list[str]
    layers: dict[str, LayerRows]


def gather(
    shards: Sequence[tuple[Path, ShardIndex]], grid: VoxelGrid, notes: Sequence[str] = ()
) -> GatheredShards:
    """Return the tables of shards by their indexes.

    Raises:
        DataError: a shard has another grid.
    """
    for path, index in shards:
        shape = tuple(index.header["grid"]["shape"])
        if index.header["grid"] != grid_header(grid):
            raise other_grid(shape, grid, str(path))
    indexes = [index for _, index in shards]
    headers = [index.header for index in indexes]
    counts = [int(h["frames"]) for h in headers]
    believed = any("pose.believed" in i.tables for i in indexes)
    names = sorted({n for i in indexes for n in i.layers} & set(KINDS))
    return GatheredShards(
        poses=_table(indexes, "pose.true"),
        ground_z=_table(indexes, "ground_z.true"),
        believed=_table(indexes, "pose.believed", "pose.true") if believed else None,
        believed_ground_z=(
            _table(indexes, "ground_z.believed", "ground_z.true") if believed else None
        ),
        session=np.repeat(np.arange(len(indexes)), counts),
        frame=_table(indexes, "number"),
        meta=[h["meta"] for h in headers],
        damaged=[(f, r) for h in headers for f, r in h.get("damaged", ())],
        notes=[*notes, *(f"{p.stem}: {n}" for p, i in shards for n in i.header.get("notes", ()))],
        layers={name: _layer_rows(indexes, name, counts) for name in names},
    )


def gather_many(shards: list[Path], grid: VoxelGrid, derived: Path) -> GatheredShards:
    """Return the tables of many shards of one folder, those kept the last time where they hold.

    They count only while every shard has its name, size and time, and some shards, other ones each
    time, are read and compared with them.

    Args:
        derived: folder of derived files; one that cannot be written costs only time.

    Raises:
        DataError: a shard is damaged or has another grid.
    """
    path = derived / _FILE
    stats = [os.stat(shard) for shard in shards]
    files = [[p.name, s.st_size, s.st_mtime_ns] for p, s in zip(shards, stats, strict=True)]
    key = {"grid": grid_header(grid), "files": files}
    kept = kept_arrays(path, key)
    if kept is not None:
        found = _from_kept(*kept)
        some = random.sample(range(len(shards)), min(_COMPARED, len(shards)))
        if all(_agrees(found, number, shards[number], grid) for number in some):
            return found
    found = gather(list(zip(shards, read_indexes(shards), strict=True)), grid)
    keep_arrays(path, key, *_to_keep(found))
    return found


def _to_keep(found: GatheredShards) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return plain values and arrays by name."""
    values = {"meta": found.meta, "damaged": found.damaged, "notes": found.notes}
    arrays = {name: getattr(found, name) for name in _TABLES if getattr(found, name) is not None}
    for name, layer in found.layers.items():
        arrays |= {f"{name}/{part}": getattr(layer, part) for part in _PARTS}
    return values, arrays


def _from_kept(values: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> GatheredShards:
    names = sorted({name.partition("/")[0] for name in arrays if "/" in name})
    tables: dict[str, Any] = {name: arrays.get(name) for name in _TABLES}
    return GatheredShards(
        meta=values["meta"],
        damaged=[(file, reason) for file, reason in values["damaged"]],
        notes=values["notes"],
        layers={n: LayerRows(*(arrays[f"{n}/{part}"] for part in _PARTS)) for n in names},
        **tables,
    )


def _agrees(found: GatheredShards, number: int, path: Path, grid: VoxelGrid) -> bool:
    """Compare what is known of one shard with the shard itself."""
    values, arrays = _to_keep(gather([(path, read_index(path))], grid))
    _, known = _to_keep(found)
    rows = slice(*np.searchsorted(found.session, [number, number + 1]))
    del arrays["session"]  # numbered from 0 there
    return values["meta"] == [found.meta[number]] and all(
        name in known and np.array_equal(array, known[name][rows]) for name, array in arrays.items()
    )


def _table(indexes: list[ShardIndex], name: str, default: str | None = None) -> NDArray[Any]:
    """Return a table of all shards, one after another; `default` where a shard lacks it."""
    return np.concatenate(
        [i.tables[name] if name in i.tables else i.tables[default or name] for i in indexes]
    )


def _layer_rows(indexes: list[ShardIndex], name: str, counts: list[int]) -> LayerRows:
    parts: list[tuple[NDArray[Any], ...]] = []
    for index, count in zip(indexes, counts, strict=True):
        layer = index.layers.get(name)
        none = np.zeros(count, np.uint32)
        if layer is None:
            parts.append((none.astype(np.uint64), none, none, none))
        else:
            at = layer.offset + np.uint64(index.data_at)
            parts.append((at, layer.size, layer.crc, layer.content))
    return LayerRows(*(np.concatenate(column) for column in zip(*parts, strict=True)))

"""3D Tiles: the leaves of a `tileset.json`, brought to the ground.

Refinement is REPLACE and parents are simplified, so only leaves are read; under ADD every tile
belongs. Heights in tiles are above the ellipsoid. The batch table knows each building's lowest
height above sea level (`_zmin`), so a plane through the differences is the geoid under the tile.
Where no tile knows it, the lowest building is put at height 0, with a note. Nothing is fetched: a
tile that is not here is named.
"""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.area import Area, LatLonBounds
from vlwm.core.city.crs import from_earth_centered, project
from vlwm.core.city.crs_zone import Zone
from vlwm.core.city.readers.b3dm import BrokenTile, Tile, read_b3dm
from vlwm.core.city.readers.feature_batch import BUILDING, Batch, Skipped
from vlwm.core.city.readers.source_files import Source

_NAMES = ("gml_id", "gml:id", "gmlId", "id")
_BASES = ("_zmin", "zmin")
_LODS = ("_lod", "lod")
_MARGIN_M = 200.0
_DEEPEST = 64
_ODD_M = 1.0


@dataclass(frozen=True, eq=False)
class Leaf:
    """One tile to read: its file and where it is placed (4×4)."""

    source: Source
    matrix: NDArray[np.float64]


@dataclass
class Leaves:
    """Tiles of a set that are here, and names of those that are not."""

    found: list[Leaf] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_leaves(source: Source, area: Area | None = None) -> Leaves:
    """Leaf tiles of a tile set; with an area only those that may touch it.

    Raises:
        DataError: the file is no tile set.
    """
    leaves = Leaves()
    try:
        _read_set(source, np.eye(4), area, leaves, 0)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise source.broken(0, f"not a tile set: {error}") from error
    return leaves


def _read_set(
    source: Source, matrix: NDArray[np.float64], area: Area | None, leaves: Leaves, depth: int
) -> None:
    root = json.loads(source.read())["root"]
    stack: list[tuple[dict[str, Any], NDArray[np.float64], str]] = [(root, matrix, "REPLACE")]
    while stack:
        node, above, refine = stack.pop()
        placed = above
        if "transform" in node:
            placed = above @ np.array(node["transform"], dtype=np.float64).reshape(4, 4).T
        refine = str(node.get("refine", refine)).upper()
        if area is not None and not _may_touch(node, area):
            continue
        children = node.get("children") or []
        contents = node.get("contents") or [node.get("content") or {}]
        for uri in filter(None, (c.get("uri") or c.get("url") for c in contents)):
            if not children or refine == "ADD" or uri.endswith(".json"):
                _take(source, uri, placed, area, leaves, depth)
        stack += [(child, placed, refine) for child in reversed(children)]


def _take(
    source: Source,
    uri: str,
    matrix: NDArray[np.float64],
    area: Area | None,
    leaves: Leaves,
    depth: int,
) -> None:
    folder = posixpath.dirname(source.member)
    member = posixpath.normpath(posixpath.join(folder, unquote(uri.split("?")[0])))
    outside = "://" in uri or member.startswith(("..", "/"))
    if outside or not source.place.has(member):
        leaves.missing.append(uri)
    elif member.endswith(".json"):
        if depth < _DEEPEST:
            leaves.nested.append(member)
            _read_set(Source(source.place, member), matrix, area, leaves, depth + 1)
    else:
        leaves.found.append(Leaf(Source(source.place, member), matrix))


def _may_touch(node: dict[str, Any], area: Area) -> bool:
    region = node.get("boundingVolume", {}).get("region")
    if not isinstance(region, list) or len(region) < 4:
        return True
    west, south, east, north = (math.degrees(v) for v in region[:4])
    bounds: LatLonBounds = (south, west, north, east)
    return area.may_touch(bounds, _MARGIN_M)


def tile_batches(leaves: Leaves, zone: Zone) -> Iterator[Batch]:
    """One batch a leaf tile; heights above sea level.

    Tiles that know their heights come first, so that the others can lean on them.
    """
    undulation: float | None = None
    waiting: list[Leaf] = []
    lowest = math.inf
    for leaf in leaves.found:
        try:
            tile = read_b3dm(leaf.source.read())
        except BrokenTile as error:
            yield _broken(leaf.source, str(error))
            continue
        placed = _place(tile, leaf, zone)
        if placed is None:
            continue
        geoid = _geoid(placed, tile)
        if geoid is None:
            waiting.append(leaf)  # and read again: all of them at once would fill the memory
            lowest = min(lowest, float(placed[:, :, 2].min()))
            continue
        undulation = float(np.median(geoid))
        placed[:, :, 2] -= geoid
        yield _batch(leaf.source, tile, placed)
    if undulation is None and waiting:
        undulation = lowest
        leaves.notes.append(
            "tiles do not tell heights above the sea: the lowest corner is put at 0"
        )
    for leaf in waiting:
        tile = read_b3dm(leaf.source.read())
        placed = _place(tile, leaf, zone)
        assert undulation is not None and placed is not None
        placed[:, :, 2] -= undulation
        yield _batch(leaf.source, tile, placed)


def _place(tile: Tile, leaf: Leaf, zone: Zone) -> NDArray[np.float64] | None:
    """Triangles (T, 3, 3): easting, northing, ellipsoidal height; None of an empty tile."""
    if not len(tile.triangles):
        return None
    points = tile.triangles.reshape(-1, 3) @ leaf.matrix[:3, :3].T + leaf.matrix[:3, 3]
    where = from_earth_centered(points)
    if not np.isfinite(where).all():
        raise leaf.source.broken(0, "a coordinate of this tile is not on the earth")
    crs = zone.settle(float(where[0, 0]), float(where[0, 1]))
    return project(where, crs).reshape(-1, 3, 3)


def _geoid(placed: NDArray[np.float64], tile: Tile) -> NDArray[np.float64] | None:
    """Height (T, 3) of the sea level above the ellipsoid under each corner, metres.

    A plane through the differences of the buildings' lowest heights; those that lie more than a
    metre off the median (a building that the simplification has cut) do not count.
    """
    column = tile.column(*_BASES)
    if column is None:
        return None
    known = np.array([math.nan if v is None else float(v) for v in column])
    lowest = np.full(tile.count, np.inf)
    np.minimum.at(lowest, tile.rows, placed[:, :, 2].min(axis=1))
    middle = np.zeros((tile.count, 2))
    middle[tile.rows] = placed[:, :, :2].mean(axis=1)
    rise = lowest - known
    good = np.isfinite(rise)
    if not good.any():
        return None
    good &= np.abs(rise - np.median(rise[good])) < _ODD_M
    center = middle[good].mean(axis=0)
    arms = np.column_stack([middle[good] - center, np.ones(good.sum())])
    plane = np.linalg.lstsq(arms, rise[good], rcond=None)[0]
    if good.sum() < 6 or np.abs(plane[:2]).max() > 1e-3:
        plane = np.array([0.0, 0.0, np.median(rise[good])])
    return (placed[:, :, :2] - center) @ plane[:2] + plane[2]


def _batch(source: Source, tile: Tile, placed: NDArray[np.float64]) -> Batch:
    names = tile.column(*_NAMES) or [f"{source.name}#{i}" for i in range(tile.count)]
    lods = tile.column(*_LODS) or [source.lod or 1] * tile.count
    order = np.argsort(tile.rows, kind="stable")
    batch = Batch(
        BUILDING,
        [str(name) if name else f"{source.name}#{i}" for i, name in enumerate(names)],
        [_lod(value) for value in lods],
        placed[order],
        tile.rows[order].astype(np.int32),
    )
    return batch.chosen(np.isin(np.arange(tile.count), tile.rows))


def _lod(value: Any) -> int:
    try:
        return min(9, max(0, int(value)))
    except (OverflowError, TypeError, ValueError):
        return 1


def _broken(source: Source, reason: str) -> Batch:
    empty = np.zeros((0, 3, 3))
    return Batch(
        BUILDING, [], [], empty, np.zeros(0, dtype=np.int32), [Skipped(source.name, reason)]
    )

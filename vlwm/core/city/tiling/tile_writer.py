"""Write a city that was read as 1 km tiles: other machines and later runs read those.

    city.json          origin, sources with hashes, report, and of each object its hash and bounds
    tile_E_N.city      triangles of the square that begins E, N kilometres from the origin
    ground_I_J.city    terrain: a block of nodes of its grid
    roads_E_N.city     roads of a square
    features_K.city    names and kinds of the features, 65,536 in each
    built.city         squares of 50 m that are built on, and how high

A tile holds the triangles whose middle is in its square, in the order of the city, with the kinds
of their features. Objects are npz files compressed by zstd; `city.json` is written last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.city import City
from vlwm.core.city.tiling.packing import (
    FEATURES,
    GROUND_NODES,
    INDEX,
    SUFFIX,
    TILE_M,
    VERSION,
    as_text,
    hash_of,
    pack,
)
from vlwm.core.files import json_text
from vlwm.core.geometry.mapped_arrays import Scratch, let_go, pieces
from vlwm.core.store.object_store import ObjectStore

_HALF = 1 << 20  # squares are within this many of the origin


def write_tiles(city: City, store: ObjectStore) -> str:
    """Write a city into a store and return its hash.

    Objects that the store has with the right hash are written again with the same bytes, so two
    machines may do this at once.
    """
    writer = _Writer(city, store)
    writer.tiles()
    writer.ground()
    writer.roads()
    writer.features()
    built = {"squares": city.built_squares, "heights": city.built_heights}
    writer.put(f"built{SUFFIX}", built)
    index = {
        "version": VERSION,
        "name": city.name,
        "origin": asdict(city.origin),
        "bounds": list(city.bounds_xy),
        "triangles": len(city.triangles),
        "features": len(city.feature_ids),
        "has_kinds": bool(city.feature_kinds),
        "roads": [len(city.roads), len(city.roads.triangles)],
        "ground": {
            "place": [city.terrain.x0, city.terrain.y0, city.terrain.spacing_m],
            "shape": list(city.terrain.shape),
        },
        "procedural": city.procedural,
        "attribution": city.attribution,
        "sources": [asdict(s) for s in city.sources],
        "report": asdict(city.report),
        "objects": writer.objects,
    }
    index["hash"] = hash_of(index)
    store.write(INDEX, json_text(index).encode())
    return str(index["hash"])


class _Writer:
    """Writes the objects of a city.

    Attributes:
        objects: of each object written its hash, bytes and, where it has a place, bounds.
    """

    def __init__(self, city: City, store: ObjectStore) -> None:
        self._city, self._store = city, store
        self.objects: dict[str, dict[str, Any]] = {}

    def put(self, name: str, arrays: Mapping[str, Any], **more: Any) -> None:
        """Write one object."""
        raw = pack(arrays)
        self._store.write(name, raw)
        digest = hashlib.sha256(raw).hexdigest()
        self.objects[name] = {"sha256": digest, "bytes": len(raw), **more}

    def tiles(self) -> None:
        """Write the triangles of each square."""
        city = self._city
        for (east, north), faces in _by_square(city.triangles, city.scratch):
            triangles = np.asarray(city.triangles[faces])  # (n, 3, 3)
            owners = city.feature_of_face[faces]
            numbers = np.unique(owners)
            kinds = [str(city.feature_kinds[n]) for n in numbers] if city.feature_kinds else []
            arrays = {
                "face": faces,
                "triangles": triangles,
                "owners": owners,
                "features": numbers,
                "kinds": as_text(kinds),
            }
            self.put(f"tile_{east}_{north}{SUFFIX}", arrays, bounds=_bounds(triangles))
            let_go(city.triangles, city.feature_of_face)

    def ground(self) -> None:
        """Write the terrain in blocks of nodes."""
        terrain = self._city.terrain
        for i in range(0, terrain.shape[0], GROUND_NODES):
            for j in range(0, terrain.shape[1], GROUND_NODES):
                block = terrain.heights[i : i + GROUND_NODES, j : j + GROUND_NODES]
                self.put(f"ground_{i}_{j}{SUFFIX}", {"heights": np.ascontiguousarray(block)})
                let_go(terrain.heights)

    def roads(self) -> None:
        """Write the names of the roads, and their triangles of each square."""
        roads = self._city.roads
        self.put(f"roads{SUFFIX}", {"names": as_text(list(roads.names))})
        for (east, north), numbers in _by_square(roads.triangles, self._city.scratch):
            triangles = np.asarray(roads.triangles[numbers])  # (n, 3, 2)
            arrays = {
                "number": numbers,
                "triangles": triangles,
                "owners": roads.road_of_triangle[numbers],
            }
            self.put(f"roads_{east}_{north}{SUFFIX}", arrays, bounds=_bounds(triangles))

    def features(self) -> None:
        """Write the names and kinds of all features, some at a time."""
        city = self._city
        for start in range(0, len(city.feature_ids), FEATURES):
            part = slice(start, start + FEATURES)
            kinds = list(city.feature_kinds[part])
            text = as_text({"ids": list(city.feature_ids[part]), "kinds": kinds})
            self.put(f"features_{start // FEATURES}{SUFFIX}", {"text": text})


def _bounds(triangles: NDArray[np.float64]) -> list[float]:
    """Return x from, y from, x to, y to of triangles (n, 3, 2 or 3), metres."""
    corners = triangles[:, :, :2].reshape(-1, 2)
    return [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()]


def _by_square(
    triangles: NDArray[np.float64], scratch: Scratch | None
) -> Iterator[tuple[tuple[int, int], NDArray[np.int64]]]:
    """Yield each square of the plan with the numbers (n,) of its triangles, rising.

    A counting sort in two passes, whose arrays are where the city's are.
    """
    zeros = np.zeros if scratch is None else scratch.zeros
    keys: NDArray[np.int64] = zeros(len(triangles), np.int64)
    squares, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for start, some in pieces(triangles):
        # the middle of a triangle decides, whatever its corners reach into
        square = np.floor(some[:, :, :2].mean(axis=1) / TILE_M).astype(np.int64)  # (n, 2)
        keys[start : start + len(some)] = (square + _HALF) @ (2 * _HALF, 1)
        here = np.unique(keys[start : start + len(some)])
        squares = np.union1d(squares, here)
        let_go(keys)
    counts = np.zeros(len(squares) + 1, np.int64)
    for _, some_keys in pieces(keys):
        np.add.at(counts, np.searchsorted(squares, some_keys) + 1, 1)
    free = np.cumsum(counts)
    order: NDArray[np.int64] = zeros(len(triangles), np.int64)
    for start, some_keys in pieces(keys):
        rank = np.argsort(some_keys, kind="stable")
        found, first = np.unique(some_keys[rank], return_index=True)
        for key, run in zip(found, np.split(rank, first[1:]), strict=True):
            at = int(np.searchsorted(squares, key))
            order[free[at] : free[at] + len(run)] = run + start
            free[at] += len(run)
        let_go(order)
    ends = np.cumsum(counts)
    for at, key in enumerate(squares.tolist()):
        east, north = divmod(key, 2 * _HALF)
        yield (east - _HALF, north - _HALF), np.array(order[ends[at] : ends[at + 1]])

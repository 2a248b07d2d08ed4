"""A city as tiles in a store (`tile_writer`): all of it, or what a window needs.

Reading all tiles gives back the city bit for bit. `TiledCity.window` reads the tiles that reach
into a rectangle; triangles keep their order and features their numbers, and heights of the ground
are computed from the whole grid's corner, so what is made inside the rectangle is bit-equal too.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.city import City, Origin, ReadReport, SourceFile
from vlwm.core.city.roads import Roads
from vlwm.core.city.terrain import Bounds, Terrain, nodes_for
from vlwm.core.city.tiling.packing import (
    FEATURES,
    GROUND_NODES,
    INDEX,
    SUFFIX,
    VERSION,
    from_text,
    hash_of,
    unpack,
)
from vlwm.core.errors import DataError
from vlwm.core.geometry.mapped_arrays import Scratch
from vlwm.core.store.object_store import ObjectStore

_KEPT = 24
"""objects that stay in memory, for the next window"""


class TiledCity:
    """A city in a store.

    Args:
        store: with `city.json`.

    Attributes:
        index: content of `city.json`.

    Raises:
        DataError: the store holds no city, or a damaged one.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._kept: OrderedDict[str, dict[str, NDArray[Any]]] = OrderedDict()
        raw = store.read(INDEX)
        if raw is None:
            raise DataError(
                "the store holds no city",
                where=store.url,
                remedy="give the city models by --input: the first machine writes their tiles",
            )
        try:
            index = json.loads(raw)
            whole = index["version"] == VERSION and index["hash"] == hash_of(index)
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise self._damaged(INDEX)
        self.index: dict[str, Any] = index

    @property
    def hash(self) -> str:
        """Hash of everything in the city."""
        return str(self.index["hash"])

    @property
    def name(self) -> str:
        """Short name of the city."""
        return str(self.index["name"])

    @property
    def origin(self) -> Origin:
        """Origin of the city's frame."""
        return Origin(**self.index["origin"])

    @property
    def attribution(self) -> str:
        """Credit line that anything made from the city must carry."""
        return str(self.index["attribution"])

    @property
    def procedural(self) -> bool:
        """True for a city that was generated, not read."""
        return bool(self.index["procedural"])

    @property
    def bounds_xy(self) -> Bounds:
        """Return (x from, y from, x to, y to) of the features, metres."""
        x0, y0, x1, y1 = self.index["bounds"]
        return x0, y0, x1, y1

    @cached_property
    def sources(self) -> tuple[SourceFile, ...]:
        """Files that the city was read from."""
        return tuple(SourceFile(**s) for s in self.index["sources"])

    @cached_property
    def report(self) -> ReadReport:
        """Return the reader's report: what it found and left out."""
        values = dict(self.index["report"])
        values["skipped"] = tuple(tuple(s) for s in values["skipped"])
        values["notes"] = tuple(values["notes"])
        return ReadReport(**values)

    @cached_property
    def built_squares(self) -> NDArray[np.int64]:
        """Squares (N, 2) that are built on, as of `City.built_squares`."""
        return self._read(f"built{SUFFIX}")["squares"]

    @cached_property
    def built_heights(self) -> NDArray[np.float64]:
        """Heights (N,) in those squares, as of `City.built_heights`."""
        return self._read(f"built{SUFFIX}")["heights"]

    def city(self, scratch: Scratch | None = None) -> City:
        """Return the whole city, equal bit for bit to the one that was written.

        Args:
            scratch: for the arrays that grow with the city; None is memory.
        """
        zeros: Callable[..., NDArray[Any]] = np.zeros if scratch is None else scratch.zeros
        count = int(self.index["triangles"])
        triangles = zeros((count, 3, 3), np.float64)
        owners = zeros(count, np.int32)
        for name in self.tiles_in("tile_"):
            tile = self._read(name)
            triangles[tile["face"]] = tile["triangles"]
            owners[tile["face"]] = tile["owners"]
        ids, kinds = [], []
        for part in range(-(-int(self.index["features"]) // FEATURES)):
            text = from_text(self._read(f"features_{part}{SUFFIX}")["text"])
            ids += text["ids"]
            kinds += text["kinds"]
        names = from_text(self._read(f"roads{SUFFIX}")["names"])
        roads = Roads(names, *self._roads(None))
        heights = zeros(tuple(self.index["ground"]["shape"]), np.float64)
        self._fill(heights, (0, 0))
        x0, y0, spacing_m = self.index["ground"]["place"]
        terrain = Terrain(x0, y0, spacing_m, heights)
        return self._around(triangles, owners, ids, kinds, roads, terrain, scratch)

    def window(self, bounds: Bounds) -> City:
        """Return the part of the city whose tiles reach into a rectangle of its plan.

        Its terrain raises IndexError outside of the rectangle. Roads get new numbers and have no
        names.
        """
        tiles = [self._read(name) for name in self.tiles_in("tile_", bounds)]
        faces = np.concatenate([np.zeros(0, np.int64), *(t["face"] for t in tiles)])
        triangles = np.concatenate([np.zeros((0, 3, 3)), *(t["triangles"] for t in tiles)])
        owners = np.concatenate([np.zeros(0, np.int32), *(t["owners"] for t in tiles)])
        order = np.argsort(faces, kind="stable")
        kinds = _Numbered({})
        if self.index["has_kinds"]:
            kinds = _Numbered(
                {
                    int(number): kind
                    for t in tiles
                    for number, kind in zip(t["features"], from_text(t["kinds"]), strict=True)
                }
            )
        road_triangles, road_owners = self._roads(bounds)
        numbers, renumbered = np.unique(road_owners, return_inverse=True)
        roads = Roads([""] * len(numbers), road_triangles, renumbered.astype(np.int32))
        terrain = self._ground(bounds)
        return self._around(triangles[order], owners[order], [], kinds, roads, terrain, None)

    def tiles_in(self, prefix: str, bounds: Bounds | None = None) -> list[str]:
        """Return the names of the objects that reach into a rectangle; all for None."""
        found = []
        for name, entry in self.index["objects"].items():
            if not name.startswith(prefix) or "bounds" not in entry:
                continue
            x0, y0, x1, y1 = entry["bounds"]
            if bounds is None or (
                x0 <= bounds[2] and x1 >= bounds[0] and y0 <= bounds[3] and y1 >= bounds[1]
            ):
                found.append(name)
        return found

    def _roads(self, bounds: Bounds | None) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Return triangles (T, 3, 2) of roads in their order, and the road (T,) of each."""
        parts = [self._read(name) for name in self.tiles_in("roads_", bounds)]
        numbers = np.concatenate([np.zeros(0, np.int64), *(p["number"] for p in parts)])
        triangles = np.concatenate([np.zeros((0, 3, 2)), *(p["triangles"] for p in parts)])
        owners = np.concatenate([np.zeros(0, np.int32), *(p["owners"] for p in parts)])
        order = np.argsort(numbers, kind="stable")
        return triangles[order], owners[order]

    def _ground(self, bounds: Bounds) -> Terrain:
        """Return the terrain of a rectangle, in the grid of the whole."""
        x0, y0, spacing_m = self.index["ground"]["place"]
        nx, ny = self.index["ground"]["shape"]
        i, j = nodes_for(bounds, (x0, y0), spacing_m, (nx, ny))
        heights = np.zeros((i.stop - i.start, j.stop - j.start))
        self._fill(heights, (i.start, j.start))
        return Terrain(x0, y0, spacing_m, heights, (i.start, j.start), (nx, ny))

    def _fill(self, heights: NDArray[np.float64], first: tuple[int, int]) -> None:
        """Read heights (n, m) of the nodes that begin with `first`."""
        starts = [
            range(low - low % GROUND_NODES, low + size, GROUND_NODES)
            for low, size in zip(first, heights.shape, strict=True)
        ]
        for bi in starts[0]:
            for bj in starts[1]:
                block = self._read(f"ground_{bi}_{bj}{SUFFIX}")["heights"]
                i, j = bi - first[0], bj - first[1]
                target = heights[max(0, i) : i + block.shape[0], max(0, j) : j + block.shape[1]]
                # the first block may begin before the window, the last may end after it
                part = block[max(0, -i) :, max(0, -j) :]
                target[:] = part[: target.shape[0], : target.shape[1]]

    def _around(
        self,
        triangles: NDArray[np.float64],
        owners: NDArray[np.int32],
        ids: Sequence[str],
        kinds: Sequence[str],
        roads: Roads,
        terrain: Terrain,
        scratch: Scratch | None,
    ) -> City:
        return City(
            name=self.name,
            origin=self.origin,
            triangles=triangles,
            feature_ids=ids,
            feature_of_face=owners,
            feature_kinds=kinds,
            terrain=terrain,
            roads=roads,
            sources=self.sources,
            procedural=self.procedural,
            attribution=self.attribution,
            report=self.report,
            scratch=scratch,
        )

    def _read(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the arrays of one object.

        Raises:
            DataError: it is missing or differs from its hash.
        """
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        raw = self._store.read(name)
        if raw is None or hashlib.sha256(raw).hexdigest() != self.index["objects"][name]["sha256"]:
            raise self._damaged(name)
        self._kept[name] = unpack(raw, self._store.place(name))
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return self._kept[name]

    def _damaged(self, name: str) -> DataError:
        return DataError(
            "a tile of the city is missing or damaged",
            where=self._store.place(name),
            remedy=f"delete {INDEX} there and run the same command with --input again",
        )


class _Numbered(Sequence[str]):
    """Words of some features by their number in the whole city."""

    def __init__(self, words: dict[int, str]) -> None:
        self._words = words

    def __len__(self) -> int:
        return max(self._words, default=-1) + 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._words[i] for i in range(*index.indices(len(self)))]
        return self._words[int(index)]

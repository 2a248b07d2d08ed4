"""A city that was read, as 1 km tiles in a store: other machines and later runs read those.

    city.json          origin, sources with hashes, report, and of each object its hash and bounds
    tile_E_N.city      triangles of the square that begins E, N kilometres from the origin
    features.city      names and kinds of the features
    ground.city        the terrain
    roads.city         the roads

A tile holds the triangles whose middle is in its square, in the order of the city, so reading all
tiles gives back the city bit for bit; `TiledCity.window` reads only those that reach into a
rectangle. Objects are npz files compressed by zstd; `city.json` is written last.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.city import City, Origin, ReadReport, SourceFile
from vlwm.core.city.roads import Roads
from vlwm.core.city.terrain import Bounds, Terrain
from vlwm.core.errors import DataError
from vlwm.core.files import json_text
from vlwm.core.geometry.mapped_arrays import Scratch, pieces
from vlwm.core.store.objects import ObjectStore
from vlwm.core.store.shard import compress, decompress

INDEX = "city.json"
SUFFIX = ".city"
TILE_M = 1000.0
_VERSION = 1


def write_tiles(city: City, store: ObjectStore) -> str:
    """Write a city into a store and return its hash.

    Objects that the store has with the right hash are written again with the same bytes, so two
    machines may do this at once.
    """
    objects: dict[str, dict[str, Any]] = {}

    def put(name: str, arrays: Mapping[str, Any], **more: Any) -> None:
        raw = _pack(arrays)
        store.write(name, raw)
        objects[name] = {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw), **more}

    for (east, north), faces in _squares(city).items():
        triangles = np.asarray(city.triangles[faces])
        corners = triangles[:, :, :2].reshape(-1, 2)
        bounds = [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()]
        arrays = {"face": faces, "triangles": triangles, "owners": city.feature_of_face[faces]}
        put(f"tile_{east}_{north}{SUFFIX}", arrays, bounds=bounds)
    kinds = list(city.feature_kinds)
    put(f"features{SUFFIX}", {"text": _text({"ids": list(city.feature_ids), "kinds": kinds})})
    ground, roads = city.terrain, city.roads
    place = np.array([ground.x0, ground.y0, ground.spacing_m])
    put(f"ground{SUFFIX}", {"place": place, "heights": ground.heights})
    put(
        f"roads{SUFFIX}",
        {
            "text": _text(list(roads.names)),
            "triangles": roads.triangles,
            "owners": roads.road_of_triangle,
        },
    )
    index = {
        "version": _VERSION,
        "name": city.name,
        "origin": asdict(city.origin),
        "triangles": len(city.triangles),
        "procedural": city.procedural,
        "attribution": city.attribution,
        "sources": [asdict(s) for s in city.sources],
        "report": asdict(city.report),
        "objects": objects,
    }
    index["hash"] = _hash_of(index)
    store.write(INDEX, json_text(index).encode())
    return str(index["hash"])


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
        raw = store.read(INDEX)
        if raw is None:
            raise DataError(
                "the store holds no city",
                where=store.url,
                remedy="give the city models by --input: the first machine writes their tiles",
            )
        try:
            index = json.loads(raw)
            whole = index["version"] == _VERSION and index["hash"] == _hash_of(index)
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise self._damaged(INDEX)
        self.index: dict[str, Any] = index

    @property
    def hash(self) -> str:
        """Hash of everything in the city."""
        return str(self.index["hash"])

    def city(self, scratch: Scratch | None = None) -> City:
        """Return the whole city, equal bit for bit to the one that was written.

        Args:
            scratch: for the arrays that grow with the city; None is memory.
        """
        zeros: Callable[..., NDArray[Any]] = np.zeros if scratch is None else scratch.zeros
        count = int(self.index["triangles"])
        triangles = zeros((count, 3, 3), np.float64)
        owners = zeros(count, np.int32)
        for name in self._tiles(None):
            tile = self._read(name)
            triangles[tile["face"]] = tile["triangles"]
            owners[tile["face"]] = tile["owners"]
        return self._around(triangles, owners, scratch)

    def window(self, bounds: Bounds) -> City:
        """Return the part of the city whose tiles reach into a rectangle of its plan.

        Triangles keep their order, features their numbers, and the terrain is whole, so what is
        made inside `bounds` is bit-equal to what the whole city makes.
        """
        tiles = [self._read(name) for name in self._tiles(bounds)]
        faces = np.concatenate([np.zeros(0, np.int64), *(t["face"] for t in tiles)])
        triangles = np.concatenate([np.zeros((0, 3, 3)), *(t["triangles"] for t in tiles)])
        owners = np.concatenate([np.zeros(0, np.int32), *(t["owners"] for t in tiles)])
        order = np.argsort(faces, kind="stable")
        return self._around(triangles[order], owners[order], None)

    def _tiles(self, bounds: Bounds | None) -> list[str]:
        """Return the names of the tiles that reach into a rectangle; all for None."""
        found = []
        for name, entry in self.index["objects"].items():
            if not name.startswith("tile_"):
                continue
            x0, y0, x1, y1 = entry["bounds"]
            if bounds is None or (
                x0 <= bounds[2] and x1 >= bounds[0] and y0 <= bounds[3] and y1 >= bounds[1]
            ):
                found.append(name)
        return found

    def _around(
        self, triangles: NDArray[np.float64], owners: NDArray[np.int32], scratch: Scratch | None
    ) -> City:
        index = self.index
        features = json.loads(self._read(f"features{SUFFIX}")["text"].tobytes())
        ground, roads = self._read(f"ground{SUFFIX}"), self._read(f"roads{SUFFIX}")
        x0, y0, spacing_m = (float(v) for v in ground["place"])
        report = dict(index["report"])
        report["skipped"] = tuple(tuple(s) for s in report["skipped"])
        report["notes"] = tuple(report["notes"])
        return City(
            name=index["name"],
            origin=Origin(**index["origin"]),
            triangles=triangles,
            feature_ids=features["ids"],
            feature_of_face=owners,
            feature_kinds=features["kinds"],
            terrain=Terrain(x0, y0, spacing_m, ground["heights"]),
            roads=Roads(json.loads(roads["text"].tobytes()), roads["triangles"], roads["owners"]),
            sources=tuple(SourceFile(**s) for s in index["sources"]),
            procedural=index["procedural"],
            attribution=index["attribution"],
            report=ReadReport(**report),
            scratch=scratch,
        )

    def _read(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the arrays of one object.

        Raises:
            DataError: it is missing or differs from its hash.
        """
        raw = self._store.read(name)
        if raw is None or hashlib.sha256(raw).hexdigest() != self.index["objects"][name]["sha256"]:
            raise self._damaged(name)
        return _unpack(raw, self._store.place(name))

    def _damaged(self, name: str) -> DataError:
        return DataError(
            "a tile of the city is missing or damaged",
            where=self._store.place(name),
            remedy=f"delete {INDEX} there and run the same command with --input again",
        )


def _squares(city: City) -> dict[tuple[int, int], NDArray[np.int64]]:
    """Return the faces (N,) of each square of the plan, rising."""
    found: dict[tuple[int, int], list[NDArray[np.int64]]] = {}
    for start, some in pieces(city.triangles):
        # the middle of a triangle decides, whatever its corners reach into
        square = np.floor(some[:, :, :2].mean(axis=1) / TILE_M).astype(np.int64)  # (n, 2)
        for east, north in np.unique(square, axis=0).tolist():
            inside = np.flatnonzero((square == (east, north)).all(axis=1))
            found.setdefault((east, north), []).append(inside + start)
    return {key: np.concatenate(parts) for key, parts in sorted(found.items())}


def _pack(arrays: Mapping[str, Any]) -> bytes:
    """Return arrays as an uncompressed npz file inside one zstd frame, behind its size."""
    out = io.BytesIO()
    np.savez(out, **dict(arrays))  # numpy dates the members 1980: the same bytes every time
    raw = out.getvalue()
    return len(raw).to_bytes(8, "little") + compress(raw)


def _unpack(packed: bytes, where: str) -> dict[str, NDArray[Any]]:
    raw = decompress(packed[8:], int.from_bytes(packed[:8], "little"), where)
    with np.load(io.BytesIO(raw), allow_pickle=False) as opened:
        return {name: opened[name] for name in opened.files}


def _text(value: Any) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(value, ensure_ascii=False).encode(), np.uint8)


def _hash_of(index: dict[str, Any]) -> str:
    plain = {k: v for k, v in index.items() if k != "hash"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

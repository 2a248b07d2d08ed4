"""PLATEAU's OBJ tiles: absolute easting, northing, height in metres, z up.

Objects (`o`, else `g`) are buildings. The official tiles name none, so there every shell (faces
that hang together by their corners) is a feature. The coordinate system stands in a header comment
(`EPSG:6677`, or WKT), or in the file's name (`…_6677.obj`); else it is Tokyo's zone IX, with a
note.

Two ways through a file: plain triangles with positive indices are read as whole arrays; anything
else (polygons, negative indices, a line that is wrong) line by line, which finds the line to name.
"""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from vlwm.core.city.readers.source_files import Source
from vlwm.core.geometry.triangulate import triangulate_ring

DEFAULT_CRS = "EPSG:6677"
_EPSG = re.compile(r"(?:EPSG[:\"',\s]+|_)(66(?:69|7\d|8[0-7]))(?!\d)")
_HEADER_LINES = 200
_SAME_CORNER_M = 0.005


@dataclass(frozen=True, eq=False)
class ObjFile:
    """Vertices (V, 3) float64 absolute metres, faces (F, 3), and the feature of each face.

    `named` is False where the features are shells that the file does not name.
    """

    crs: str | None
    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    feature_ids: list[str]
    feature_of_face: NDArray[np.int64]
    named: bool = True


def read_obj(source: Source) -> ObjFile:
    """Read one OBJ file.

    Raises:
        DataError: a malformed line or a coordinate that is no number; file and line are named.
    """
    lines = source.read().splitlines()
    vertices, faces, owners, names = _read_plain(lines) or _read_careful(lines, source)
    crs = _crs_of(lines, source.name)
    if names:
        names = [name or f"{source.name}#{i}" for i, name in enumerate(names)]
        return ObjFile(crs, vertices, faces, names, owners)
    owners, count = _shells(vertices, faces)
    names = [f"{source.name}#{i}" for i in range(count)]
    return ObjFile(crs, vertices, faces, names, owners, named=False)


def _crs_of(lines: list[bytes], name: str) -> str | None:
    head = b"\n".join(line for line in lines[:_HEADER_LINES] if line.startswith(b"#"))
    found = _EPSG.search(head.decode("utf-8", "replace")) or _EPSG.search(name)
    return f"EPSG:{found.group(1)}" if found else None


_Parsed = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], list[str]]


def _read_plain(lines: list[bytes]) -> _Parsed | None:
    """Vertices, faces, owners, names; None where the file is not that plain."""
    kinds = np.array([line[:2] for line in lines], dtype="S2")
    vertices = _numbers([line[2:] for line in lines if line[:2] == b"v "], float)
    text = [line[2:] for line in lines if line[:2] == b"f "]
    if text and b"/" in text[0]:
        text = [re.sub(rb"/[^ ]*", b"", line) for line in text]
    faces = _numbers(text, np.int64)
    if vertices is None or faces is None or not np.isfinite(vertices).all():
        return None
    if len(faces) and (faces.min() < 1 or faces.max() > len(vertices)):
        return None
    mark = b"o " if (kinds == b"o ").any() else b"g "
    names = [_name(line) for line in lines if line[:2] == mark]
    owners = np.cumsum(kinds == mark)[kinds == b"f "] - 1
    if names and len(owners) and owners.min() < 0:
        return None
    return vertices, faces - 1, owners, names


def _numbers(lines: list[bytes], kind: type) -> NDArray | None:
    """Lines of exactly three numbers as (N, 3); None where one is anything else."""
    if not lines:
        return np.zeros((0, 3), dtype=kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        try:
            values: NDArray = np.fromstring(b"\n".join(lines), dtype=kind, sep=" ")
        except (DeprecationWarning, ValueError):
            return None
    if len(values) != 3 * len(lines) or any(len(line.split()) != 3 for line in lines):
        return None
    return values.reshape(-1, 3)


def _name(line: bytes) -> str:
    return line[2:].decode("utf-8", "replace").strip()


@dataclass
class _Found:
    vertices: list[tuple[float, float, float]] = field(default_factory=list)
    faces: list[tuple[int, ...]] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def _read_careful(lines: list[bytes], source: Source) -> _Parsed:
    mark = b"o " if any(line.startswith(b"o ") for line in lines) else b"g "
    found = _Found()
    for number, line in enumerate(lines, 1):
        if line.startswith(b"v "):
            found.vertices.append(_vertex(line, source, number))
        elif line.startswith(b"f "):
            _face(found, line, source, number)
        elif line.startswith(mark):
            found.names.append(_name(line))
    owners = np.array(found.owners, dtype=np.int64)
    if found.names and len(owners) and owners.min() < 0:  # faces before the first name
        found.names.insert(0, "")
        owners += 1
    return (
        np.array(found.vertices, dtype=np.float64).reshape(-1, 3),
        np.array(found.faces, dtype=np.int64).reshape(-1, 3),
        owners,
        found.names,
    )


def _vertex(line: bytes, source: Source, number: int) -> tuple[float, float, float]:
    try:
        x, y, z = (float(part) for part in line.split()[1:4])
    except ValueError:
        raise source.broken(number, "a vertex needs three numbers") from None
    if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(z)):
        raise source.broken(number, "a coordinate is not a finite number")
    return x, y, z


def _face(found: _Found, line: bytes, source: Source, number: int) -> None:
    try:
        corners = [int(part.split(b"/", 1)[0]) for part in line.split()[1:]]
    except ValueError:
        raise source.broken(number, "a face needs whole numbers") from None
    count = len(found.vertices)
    index = [c - 1 if c > 0 else count + c for c in corners]
    if len(index) < 3 or min(index) < 0 or max(index) >= count or 0 in corners:
        raise source.broken(number, "a face names a vertex that is not there")
    triangles = [tuple(index)] if len(index) == 3 else _split(found, index)
    found.faces.extend(triangles)
    found.owners.extend([len(found.names) - 1] * len(triangles))


def _split(found: _Found, index: list[int]) -> list[tuple[int, ...]]:
    ring = np.array([found.vertices[i] for i in index])
    return [tuple(index[k] for k in triangle) for triangle in triangulate_ring([ring])]


def _shells(
    vertices: NDArray[np.float64], faces: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    """Shell of each face, numbered in the order of the file, and how many there are."""
    if not len(faces):
        return np.zeros(0, dtype=np.int64), 0
    keys = np.round(vertices / _SAME_CORNER_M).astype(np.int64)
    _, corner = np.unique(keys, axis=0, return_inverse=True)
    corners = corner.reshape(-1)[faces]
    links = (np.repeat(corners[:, 0], 2), corners[:, 1:].reshape(-1))
    size = int(corners.max()) + 1
    graph = coo_matrix((np.ones(len(links[0]), dtype=bool), links), shape=(size, size))
    _, label = connected_components(graph, directed=False)
    _, first, owner = np.unique(label[corners[:, 0]], return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[owner.reshape(-1)], len(first)

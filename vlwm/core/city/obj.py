"""PLATEAU's OBJ tiles: absolute easting, northing, height in metres, z up.

One `o` (or `g`) per building. The coordinate system stands in a header comment (`EPSG:6677`, or
WKT), or in the file's name (`…_6677.obj`); else it is Tokyo's zone IX, with a note.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.triangulate import triangulate_ring
from vlwm.core.errors import DataError

DEFAULT_CRS = "EPSG:6677"
_EPSG = re.compile(r"(?:EPSG[:\"',\s]+|_)(66(?:69|7\d|8[0-7]))\b")


@dataclass
class ObjFile:
    """Vertices (V, 3) float64 absolute metres, faces (F, 3), and the feature of each face."""

    crs: str | None
    vertices: NDArray[np.float64]
    faces: NDArray[np.int32]
    feature_ids: list[str]
    feature_of_face: NDArray[np.int32]


@dataclass
class _Lines:
    vertices: list[tuple[float, float, float]] = field(default_factory=list)
    faces: list[tuple[int, int, int]] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    crs: str | None = None


def read_obj(path: Path) -> ObjFile:
    """Read one OBJ file.

    Raises:
        DataError: a malformed line or a coordinate that is no number; file and line are named.
    """
    found = _Lines()
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                _line(found, line, path, number)
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}", where=path) from error
    name_crs = _EPSG.search(path.name)
    crs = found.crs or (f"EPSG:{name_crs.group(1)}" if name_crs else None)
    return ObjFile(
        crs,
        np.array(found.vertices, dtype=np.float64).reshape(-1, 3),
        np.array(found.faces, dtype=np.int32).reshape(-1, 3),
        found.ids,
        np.array(found.owners, dtype=np.int32),
    )


def _line(found: _Lines, line: str, path: Path, number: int) -> None:
    if line.startswith("v "):
        found.vertices.append(_vertex(line, path, number))
    elif line.startswith("f "):
        _face(found, line, path, number)
    elif line.startswith(("o ", "g ")):
        found.ids.append(line[2:].strip() or f"{path.stem}:{number}")
    elif line.startswith("#") and found.crs is None:
        match = _EPSG.search(line)
        found.crs = f"EPSG:{match.group(1)}" if match else None


def _vertex(line: str, path: Path, number: int) -> tuple[float, float, float]:
    try:
        x, y, z = (float(part) for part in line.split()[1:4])
    except ValueError:
        raise _bad(path, number, "a vertex needs three numbers") from None
    if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(z)):
        raise _bad(path, number, "a coordinate is not a finite number")
    return x, y, z


def _face(found: _Lines, line: str, path: Path, number: int) -> None:
    try:
        corners = [int(part.split("/", 1)[0]) for part in line.split()[1:]]
    except ValueError:
        raise _bad(path, number, "a face needs whole numbers") from None
    count = len(found.vertices)
    index = [c - 1 if c > 0 else count + c for c in corners]
    if len(index) < 3 or min(index) < 0 or max(index) >= count or 0 in corners:
        raise _bad(path, number, "a face names a vertex that is not there")
    if not found.ids:
        found.ids.append(path.stem)
    owner = len(found.ids) - 1
    triangles = [tuple(index)] if len(index) == 3 else _split(found, index)
    found.faces.extend(triangles)  # type: ignore[arg-type]
    found.owners.extend([owner] * len(triangles))


def _split(found: _Lines, index: list[int]) -> list[tuple[int, ...]]:
    ring = np.array([found.vertices[i] for i in index])
    return [tuple(index[k] for k in triangle) for triangle in triangulate_ring([ring])]


def _bad(path: Path, number: int, reason: str) -> DataError:
    return DataError(reason, where=f"{path}:{number}", remedy="download the tile again")

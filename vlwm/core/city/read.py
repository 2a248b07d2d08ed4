"""From files to one City: find them, read each, join, lay the ground below.

Formats are told by the files' names: `.obj`, `.gml`, `.gml.gz`. A building that stands in two files
(at a ward's border) is taken once. A broken feature is left out, counted and named; `strict` stops
at the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.city import City, Origin, ReadReport, SourceFile, feature_bases
from vlwm.core.city.citygml import Feature, Skipped, read_features
from vlwm.core.city.obj import DEFAULT_CRS, read_obj
from vlwm.core.city.projection import project, zone_of
from vlwm.core.city.terrain import Terrain
from vlwm.core.city.triangulate import triangulate_ring
from vlwm.core.errors import DataError
from vlwm.core.files import sha256_file
from vlwm.core.geometry.mesh import TriangleMesh

ATTRIBUTION = "3D都市モデル（Project PLATEAU）{place}（国土交通省）, CC BY 4.0"
MARGIN_M = 150.0
_SAME_M = 0.1  # of two features with one name: nearer bounds than this are the same building
_PATTERNS = ("*.obj", "*.gml", "*.gml.gz")


@dataclass
class _Parts:
    """What the files gave so far: loose triangles with their feature, absolute metres."""

    crs: str | None = None
    triangles: list[NDArray[np.float64]] = field(default_factory=list)
    owners: list[NDArray[np.int32]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    known: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    lods: list[int] = field(default_factory=list)
    duplicates: int = 0
    skipped: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, triangles: NDArray[np.float64], lod: int) -> None:
        bounds = np.stack([triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))])
        if name in self.known and np.abs(self.known[name] - bounds).max() < _SAME_M:
            self.duplicates += 1
            return
        self.known[name] = bounds
        self.owners.append(np.full(len(triangles), len(self.ids), dtype=np.int32))
        self.ids.append(name)
        self.triangles.append(triangles)
        self.lods.append(lod)


def find_files(inputs: Sequence[Path]) -> list[Path]:
    """City files below the inputs (files or folders), sorted by name.

    Raises:
        DataError: an input is missing, or no city file lies in any of them.
    """
    found: list[Path] = []
    for given in inputs:
        if not given.exists():
            raise DataError(
                "no such file or folder",
                where=given,
                remedy="give a folder of OBJ or CityGML files with --input, or vlwm download",
            )
        if given.is_file():
            found.append(given)
        else:
            found += [p for pattern in _PATTERNS for p in given.rglob(pattern)]
    if not found:
        where = ", ".join(str(p) for p in inputs)
        raise DataError(
            "no city model here: no .obj, .gml or .gml.gz file",
            where=where,
            remedy="vlwm download fetches Tokyo; or give another folder with --input",
        )
    return sorted(set(found))


def read_city(inputs: Sequence[Path], *, strict: bool = False) -> City:
    """Read every city file below the inputs into one City.

    Raises:
        DataError: nothing to read, a broken file, two coordinate systems, or, with `strict`, the
            first broken feature.
    """
    paths = find_files([Path(p) for p in inputs])
    parts = _Parts()
    for path in paths:
        _read_file(parts, path, strict)
    if not parts.ids:
        raise DataError("no building in any file", where=paths[0].parent)
    return _join(parts, paths)


def _read_file(parts: _Parts, path: Path, strict: bool) -> None:
    name = path.name.lower()
    if name.endswith(".obj"):
        _add_obj(parts, path)
    elif name.endswith((".gml", ".gml.gz")):
        _add_gml(parts, path, strict)
    else:
        raise DataError("not a city model: .obj, .gml and .gml.gz are read", where=path)


def _use_crs(parts: _Parts, crs: str, path: Path) -> None:
    if parts.crs not in (None, crs):
        raise DataError(
            f"this file is in {crs} and the others are in {parts.crs}",
            where=path,
            remedy="prepare places of different zones one by one",
        )
    parts.crs = crs


def _add_obj(parts: _Parts, path: Path) -> None:
    read = read_obj(path)
    if read.crs is None:
        parts.notes.append(f"{path.name} names no coordinate system; {DEFAULT_CRS} is taken")
    _use_crs(parts, read.crs or DEFAULT_CRS, path)
    triangles = read.vertices[read.faces]
    order = np.argsort(read.feature_of_face, kind="stable")
    cuts = np.searchsorted(read.feature_of_face[order], np.arange(len(read.feature_ids) + 1))
    for index, name in enumerate(read.feature_ids):
        chosen = order[cuts[index] : cuts[index + 1]]
        if len(chosen):
            parts.add(name, triangles[chosen], 1)
        else:
            parts.skipped.append((path.name, name, "it has no faces"))


def _add_gml(parts: _Parts, path: Path, strict: bool) -> None:
    for feature in read_features(path):
        if isinstance(feature, Skipped):
            if strict:
                raise DataError(f"{feature.name}: {feature.reason}", where=path)
            parts.skipped.append((path.name, feature.name, feature.reason))
            continue
        if parts.crs is None:
            latitude, longitude, _ = feature.polygons[0][0][0]
            parts.crs = zone_of(latitude, longitude)
        parts.add(feature.name, _project_feature(feature, parts.crs), feature.lod)


def _project_feature(feature: Feature, crs: str) -> NDArray[np.float64]:
    """Triangles (T, 3, 3) of a building, absolute metres."""
    rings = [ring for polygon in feature.polygons for ring in polygon]
    metres = project(np.concatenate(rings), crs)
    cuts = np.cumsum([0, *(len(r) for r in rings)])
    pieces, at = [], 0
    for polygon in feature.polygons:
        count = len(polygon)
        placed = [metres[cuts[at + k] : cuts[at + k + 1]] for k in range(count)]
        corners = metres[cuts[at] : cuts[at + count]]
        pieces.append(corners[triangulate_ring(placed)])
        at += count
    return np.concatenate(pieces)


def _join(parts: _Parts, paths: Sequence[Path]) -> City:
    assert parts.crs is not None
    triangles = np.concatenate(parts.triangles)
    owners = np.concatenate(parts.owners)
    low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
    east, north = np.round((low[:2] + high[:2]) / 2)
    triangles -= np.array([east, north, 0.0])
    mesh = TriangleMesh.from_triangles(triangles)
    report = ReadReport(
        files=len(paths),
        features=len(parts.ids),
        lod1=parts.lods.count(1),
        lod2=parts.lods.count(2),
        triangles=len(triangles),
        duplicates=parts.duplicates,
        skipped=tuple(parts.skipped),
        notes=tuple(parts.notes),
    )
    name = paths[0].parent.name or "city"
    return City(
        name=name,
        origin=Origin(parts.crs, float(east), float(north), 0.0),
        mesh=mesh,
        feature_ids=parts.ids,
        feature_of_face=owners,
        terrain=ground_below(mesh, owners, len(parts.ids)),
        sources=tuple(SourceFile(p.name, p.stat().st_size, sha256_file(p)) for p in paths),
        attribution=ATTRIBUTION.format(place=name),
        report=report,
    )


def ground_below(mesh: TriangleMesh, owners: NDArray[np.int32], features: int) -> Terrain:
    """Terrain through the bases of the features, reaching `MARGIN_M` beyond them."""
    bases = feature_bases(mesh, owners, features)
    low, high = mesh.bounds
    bounds = (
        float(low[0] - MARGIN_M), float(low[1] - MARGIN_M),
        float(high[0] + MARGIN_M), float(high[1] + MARGIN_M),
    )  # fmt: skip
    return Terrain.from_points(bases, bounds)

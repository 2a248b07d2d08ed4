"""Define the city that every reader yields: triangles in metres about an origin, and the ground.

Arrays that grow with a city are in mapped files (`Scratch`), so a city of any size takes little
memory; read them in pieces, or at a place.

The city's frame is local east-north-up: x east, y north, z up, metres, about `Origin`. Heights are
above sea level (T.P.) less `origin.height`. The frame of a session differs by a translation only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.roads import Roads
from vlwm.core.city.terrain import Terrain
from vlwm.core.geometry.mapped_arrays import Scratch, pieces
from vlwm.core.geometry.mesh import TriangleMesh

BUILT_CELL_M = 50.0
"""side of the squares that tell where a city is built"""


@dataclass(frozen=True)
class Origin:
    """Position of (0, 0, 0) of a local frame in a projected coordinate system."""

    crs: str
    easting: float
    northing: float
    height: float

    def moved(self, x_m: float, y_m: float, z_m: float) -> Origin:
        """Return the origin of a frame that is shifted by (x, y, z) metres."""
        return Origin(self.crs, self.easting + x_m, self.northing + y_m, self.height + z_m)


@dataclass(frozen=True)
class SourceFile:
    """A file that went into a city."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ReadReport:
    """Counts of what a reader found and left out, with reasons."""

    files: int = 0
    features: int = 0
    """buildings, bridges and plants"""
    buildings: int = 0
    bridges: int = 0
    plants: int = 0
    roads: int = 0
    """in the files; `City.roads` holds those near the buildings"""
    lod1: int = 0
    lod2: int = 0
    lod3: int = 0
    triangles: int = 0
    open_shells: int = 0
    """features whose faces do not close edge to edge"""
    duplicates: int = 0
    """features that are there twice, in one file or two, and were taken once"""
    superseded: int = 0
    """features left out because a finer level of detail or another format has them"""
    outside: int = 0
    """features outside the area asked for"""
    missing_tiles: int = 0
    ground: str = "flat"
    """source of the terrain: relief, bases or flat"""
    skipped: tuple[tuple[str, str, str], ...] = ()
    """(file, feature, reason) of each feature that was left out"""
    notes: tuple[str, ...] = ()
    summary: str = ""
    """extent, heights, density, share left out, system and ground in one line"""


@dataclass(frozen=True, eq=False)
class City:
    """Buildings and terrain of one place.

    Attributes:
        name: short name.
        origin: of the local frame.
        triangles: float64 (F, 3, 3), surfaces of all features but the terrain, local frame, metres.
        feature_ids: names of the features, G of them.
        feature_of_face: int32 (F,), the feature of each triangle, non-decreasing.
        terrain: the ground.
        feature_kinds: building, bridge or vegetation, G of them; empty means buildings.
        roads: road surfaces in plan, where the source has them.
        sources: files it was read from.
        procedural: generated, not read; labelled wherever the city is shown.
        attribution: credit line that anything made from the city must carry.
        scratch: place of its arrays and of arrays made from them; None is memory.
    """

    name: str
    origin: Origin
    triangles: NDArray[np.float64]
    feature_ids: Sequence[str]
    feature_of_face: NDArray[np.int32]
    terrain: Terrain
    feature_kinds: Sequence[str] = ()
    roads: Roads = field(default_factory=Roads.none)
    sources: tuple[SourceFile, ...] = ()
    procedural: bool = False
    attribution: str = ""
    report: ReadReport = field(default_factory=ReadReport)
    scratch: Scratch | None = None

    @property
    def mesh(self) -> TriangleMesh:
        """Return all surfaces at once; its faces take memory for the whole city."""
        return TriangleMesh.from_triangles(self.triangles)

    @property
    def bounds_xy(self) -> tuple[float, float, float, float]:
        """Return (x from, y from, x to, y to) of the features, metres."""
        low, high = np.full(2, np.inf), np.full(2, -np.inf)
        for _, some in pieces(self.triangles):
            low = np.minimum(low, some[:, :, :2].min(axis=(0, 1)))
            high = np.maximum(high, some[:, :, :2].max(axis=(0, 1)))
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    @cached_property
    def built_squares(self) -> NDArray[np.int64]:
        """Return the squares (N, 2) of `BUILT_CELL_M` that a corner is in, from the origin."""
        x0, y0, _, y1 = (int(np.floor(v / BUILT_CELL_M)) for v in self.bounds_xy)
        columns = y1 - y0 + 1
        keys = np.zeros(0, dtype=np.int64)  # one number sorts faster than two
        for _, some in pieces(self.triangles):
            squares = np.floor(some[:, :, :2].reshape(-1, 2) / BUILT_CELL_M).astype(np.int64)
            keys = np.union1d(keys, (squares - (x0, y0)) @ (columns, 1))
        i, j = np.divmod(keys, columns)
        return np.stack([i + x0, j + y0], axis=1)

    @cached_property
    def built_heights(self) -> NDArray[np.float64]:
        """Return the height (N,) above ground of the highest corner in each built square."""
        x0, y0, _, y1 = (int(np.floor(v / BUILT_CELL_M)) for v in self.bounds_xy)
        weights = np.array([y1 - y0 + 1, 1])
        keys = (self.built_squares - (x0, y0)) @ weights  # rising
        tops = np.full(len(keys), -np.inf)
        for _, some in pieces(self.triangles):
            corners = some.reshape(-1, 3)
            squares = np.floor(corners[:, :2] / BUILT_CELL_M).astype(np.int64) - (x0, y0)
            np.maximum.at(tops, np.searchsorted(keys, squares @ weights), corners[:, 2])
        ground = self.terrain.height((self.built_squares + 0.5) * BUILT_CELL_M)
        return np.asarray(np.maximum(tops - ground, 0.0))

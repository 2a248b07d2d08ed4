"""Joins what the readers give: each feature once, at its finest level, inside the area.

- CityGML and 3D Tiles name a building by its `gml:id`: one name is one building. Of two levels of
  detail the finer stays, of two equal ones the first.
- OBJ tiles cut a building at their border, so one name may stand for two pieces; only a piece with
  the same bounds is the same.
- OBJ shells without names are the same where their bounds are; a coarse shell under which finer
  ones lie (the `lod1` and `lod2` folders of one archive) is left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.area import Area
from vlwm.core.city.assembly.feature_table import FeatureIndex, Features
from vlwm.core.city.readers.feature_batch import ROAD, Batch
from vlwm.core.errors import DataError
from vlwm.core.geometry.mapped_arrays import Scratch
from vlwm.core.geometry.plan_grid import PlanGrid, nodes_under

_SAME_M = 0.1
_COVER_M = 1.0
_COVERED_SHARE = 0.5

Key = tuple[str, object]
"""kind of a feature, and its name or, of a shell, its bounds"""


class Collector:
    """Features of all files so far.

    Attributes:
        features: with those that were replaced later.
        skipped: (file, feature, reason).
    """

    def __init__(
        self, area: Area | None = None, *, strict: bool = False, scratch: Scratch | None = None
    ) -> None:
        self._area = area
        self._strict = strict
        place = scratch or Scratch()
        self.features = Features(place)
        self._known = FeatureIndex(place)
        self._fine = _FineShells(place)
        self.duplicates = 0
        self.superseded = 0
        self.outside = 0
        self.skipped: list[tuple[str, str, str]] = []
        self.notes: list[str] = []

    def add(self, batch: Batch, file: str, crs: str, naming: str = "unique") -> None:
        """Take the features of a batch.

        Args:
            naming: "unique" where a name is one feature in all files, "pieces" where one name may
                stand for several pieces, "shells" where the file gives no names.

        Raises:
            DataError: with `strict`, a feature that was left out as broken.
        """
        for broken in batch.skipped:
            if self._strict:
                raise DataError(
                    f"{broken.name}: {broken.reason}",
                    where=file,
                    remedy="mend it there; without --strict it is left out and named",
                )
            self.skipped.append((file, broken.name, broken.reason))
        if not batch.names:
            return
        if self._area is not None and batch.kind != ROAD:
            inside = self._area.contains(batch.centers(), crs)
            self.outside += int((~inside).sum())
            batch = batch.chosen(inside)
        if naming == "shells":
            batch = self._without_covered(batch)
        if batch.names:
            self._take(batch, naming)

    def _take(self, batch: Batch, naming: str) -> None:
        bounds = batch.bounds()
        keep = np.zeros(len(batch.names), dtype=bool)
        start = len(self.features)
        keys: list[Key] = []
        for i, name in enumerate(batch.names):
            key: Key = (batch.kind, _shell_key(bounds[i]) if naming == "shells" else name)
            keep[i] = self._is_new(key, bounds[i], batch.lods[i], naming)
            if not keep[i]:
                continue
            keys.append(key)
            number = self.features.add(name, batch.kind, batch.lods[i], bounds[i])
            if naming != "shells":  # one file may hold two shells of the same extent
                self._known.add(key, number)
        if naming == "shells":
            for i, key in enumerate(keys):
                self._known.add(key, start + i)
        self.features.add_triangles(batch.chosen(keep), start)
        self._known.let_go()

    def _is_new(self, key: Key, bounds: NDArray[np.float64], lod: int, naming: str) -> bool:
        features = self.features
        same = [i for i in self._known.find(key) if self._has_key(i, key) and features.is_alive(i)]
        finer = [i for i in same if features.lod_of(i) > lod]
        if finer:
            self.superseded += 1
            return False
        for coarser in [i for i in same if features.lod_of(i) < lod]:
            features.alive.put(coarser, False)
            self.superseded += 1
        equal = [i for i in same if features.lod_of(i) == lod]
        if naming == "pieces":
            equal = [i for i in equal if np.abs(features.bounds_of(i) - bounds).max() < _SAME_M]
        self.duplicates += bool(equal)
        return not equal

    def _has_key(self, number: int, key: Key) -> bool:
        kind, given = key
        features = self.features
        mine = (
            features.name_of(number)
            if isinstance(given, str)
            else _shell_key(features.bounds_of(number))
        )
        return mine == given and features.kind_of(number) == kind

    def _without_covered(self, batch: Batch) -> Batch:
        """Shells of a batch under which no finer shell lies; finer ones are remembered."""
        if not batch.names:
            return batch
        if max(batch.lods) > 1:
            self._fine.add(batch.triangles)
            return batch
        bounds = batch.bounds()
        low, high = bounds[:, 0, :2].min(axis=0), bounds[:, 1, :2].max(axis=0)
        near = self._fine.near(low, high)
        if not near:
            return batch
        grid = PlanGrid.over((*low, *high), _COVER_M)
        fine = np.zeros(grid.shape, dtype=bool)
        for triangles in near:
            for hits in nodes_under(triangles, grid):
                fine[hits.i, hits.j] = True
        share = _covered_share(batch, grid, fine)
        self.superseded += int((share >= _COVERED_SHARE).sum())
        return batch.chosen(share < _COVERED_SHARE)

    def bounds(self) -> tuple[float, float, float, float] | None:
        """x from, y from, x to, y to of everything but roads; None where there is nothing."""
        return self.features.extent(self.features.standing())


class _FineShells:
    """Triangles of finer levels, file by file."""

    def __init__(self, scratch: Scratch) -> None:
        self._triangles = scratch.rows(np.float64, (3, 3))
        self._files: list[tuple[int, int, NDArray[np.float64], NDArray[np.float64]]] = []

    def add(self, triangles: NDArray[np.float64]) -> None:
        start = len(self._triangles)
        self._triangles.append(triangles)
        plan = triangles[:, :, :2]
        low, high = plan.min(axis=(0, 1)), plan.max(axis=(0, 1))
        self._files.append((start, len(self._triangles), low, high))

    def near(
        self, low: NDArray[np.float64], high: NDArray[np.float64]
    ) -> list[NDArray[np.float64]]:
        """Triangles (T, 3, 3) of each file that reaches into a rectangle of the plan."""
        met = [f for f in self._files if (f[3] >= low).all() and (f[2] <= high).all()]
        return [self._triangles.read(start, stop) for start, stop, _, _ in met]


def _shell_key(bounds: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(np.round(bounds.ravel(), 1).tolist())


def _covered_share(batch: Batch, grid: PlanGrid, fine: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share (G,) of each feature's plan that is marked in `fine`."""
    under = np.zeros(len(batch.names))
    all_nodes = np.zeros(len(batch.names))
    for hits in nodes_under(batch.triangles, grid):
        owner = batch.owners[hits.triangle]
        all_nodes += np.bincount(owner, minlength=len(under))
        under += np.bincount(owner, fine[hits.i, hits.j], minlength=len(under))
    return under / np.maximum(all_nodes, 1)

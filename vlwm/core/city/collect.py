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
from vlwm.core.city.batch import ROAD, Batch
from vlwm.core.city.raster import PlanGrid, nodes_under
from vlwm.core.errors import DataError

_SAME_M = 0.1
_COVER_M = 1.0
_COVERED_SHARE = 0.5


class Collector:
    """Features of all files so far.

    Attributes:
        names, lods, kinds: of the features, with those that were replaced later.
        skipped: (file, feature, reason).
    """

    def __init__(self, area: Area | None = None, *, strict: bool = False) -> None:
        self._area = area
        self._strict = strict
        self.names: list[str] = []
        self.lods: list[int] = []
        self.kinds: list[str] = []
        self._alive: list[bool] = []
        self._bounds: list[NDArray[np.float64]] = []
        self._triangles: list[NDArray[np.float64]] = []
        self._owners: list[NDArray[np.int64]] = []
        self._known: dict[object, list[int]] = {}
        self._fine: list[NDArray[np.float64]] = []
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
                raise DataError(f"{broken.name}: {broken.reason}", where=file)
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
        start = len(self.names)
        keys: list[tuple[str, object]] = []
        for i, name in enumerate(batch.names):
            given: object = _shell_key(bounds[i]) if naming == "shells" else name
            key = (batch.kind, given)
            keep[i] = self._is_new(key, bounds[i], batch.lods[i], naming)
            if not keep[i]:
                continue
            keys.append(key)
            if naming != "shells":  # one file may hold two shells of the same extent
                self._known.setdefault(key, []).append(len(self.names))
            self.names.append(name)
            self.lods.append(batch.lods[i])
            self.kinds.append(batch.kind)
            self._alive.append(True)
            self._bounds.append(bounds[i])
        if naming == "shells":
            for i, key in enumerate(keys):
                self._known.setdefault(key, []).append(start + i)
        kept = batch.chosen(keep)
        self._triangles.append(kept.triangles)
        self._owners.append(kept.owners.astype(np.int64) + start)

    def _is_new(
        self, key: tuple[str, object], bounds: NDArray[np.float64], lod: int, naming: str
    ) -> bool:
        same = [i for i in self._known.get(key, ()) if self._alive[i]]
        finer = [i for i in same if self.lods[i] > lod]
        if finer:
            self.superseded += 1
            return False
        for coarser in [i for i in same if self.lods[i] < lod]:
            self._alive[coarser] = False
            self.superseded += 1
        equal = [i for i in same if self.lods[i] == lod]
        if naming == "pieces":
            equal = [i for i in equal if np.abs(self._bounds[i] - bounds).max() < _SAME_M]
        self.duplicates += bool(equal)
        return not equal

    def _without_covered(self, batch: Batch) -> Batch:
        """Shells of a batch under which no finer shell lies; finer ones are remembered."""
        if not batch.names:
            return batch
        if max(batch.lods) > 1:
            self._fine.append(batch.triangles)
            return batch
        bounds = batch.bounds()
        low, high = bounds[:, 0, :2].min(axis=0), bounds[:, 1, :2].max(axis=0)
        near = [
            t
            for t in self._fine
            if (t[:, :, :2].max(axis=(0, 1)) >= low).all()
            and (t[:, :, :2].min(axis=(0, 1)) <= high).all()
        ]
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
        chosen = [
            b
            for b, kind, alive in zip(self._bounds, self.kinds, self._alive, strict=True)
            if alive and kind != ROAD
        ]
        if not chosen:
            return None
        all_bounds = np.array(chosen)
        low, high = all_bounds[:, 0].min(axis=0), all_bounds[:, 1].max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def joined(self) -> Batch:
        """Everything that is left, as one batch in the order of reading."""
        if not self._triangles:
            return Batch("", [], [], np.zeros((0, 3, 3)), np.zeros(0, dtype=np.int32))
        whole = Batch(
            "",
            self.names,
            self.lods,
            np.concatenate(self._triangles),
            np.concatenate(self._owners).astype(np.int32),
        )
        self._triangles, self._owners = [], []
        return whole.chosen(np.array(self._alive))

    def alive_kinds(self) -> list[str]:
        """Kinds of the features of `joined`."""
        return [k for k, alive in zip(self.kinds, self._alive, strict=True) if alive]


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

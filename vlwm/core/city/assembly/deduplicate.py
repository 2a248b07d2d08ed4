"""Joins what the readers yield: each feature once, at its finest level, inside the area.

- A `gml:id` is one building where the places agree. The same id at another place is another
  building, or another piece of one that a tile border cuts: both are kept. Of two levels of detail
  at one place the finer stays, of two equal ones the first.
- OBJ tiles cut a building at their border, so one name may denote two pieces; only a piece with
  the same bounds is the same.
- OBJ shells and the rows of a tile without names are the same where their bounds are; a coarse
  shell that encloses finer ones (the `lod1` and `lod2` folders of one archive) is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.area import Area
from vlwm.core.city.assembly.feature_table import FeatureIndex, Features
from vlwm.core.city.readers.feature_batch import (
    BRIDGE,
    BUILDING,
    LOCAL,
    PIECES,
    ROAD,
    SHELLS,
    UNIQUE,
    Batch,
    Skipped,
)
from vlwm.core.errors import DataError
from vlwm.core.geometry.mapped_arrays import Scratch
from vlwm.core.geometry.plan_grid import PlanGrid, nodes_under

_SAME_M = 0.1
"""bounds that differ by less are those of one feature"""
_COVER_M = 1.0
"""cells of the plan in which covered areas are counted"""
_COVERED_SHARE = 0.5
"""of a plan: from it on the finer features above replace a coarse one"""
_SAME_PLAN, _LIKE_PLAN = 0.8, 0.5
_MOST_NAMESAKES = 64
"""a name that occurs more often names nothing: from there on bounds tell features apart"""
_TALLEST_M = 1500.0
"""a taller feature is a fault of the file"""
_WIDEST_M = {BUILDING: 5_000.0, BRIDGE: 20_000.0}
_WIDEST_ELSE_M = 100_000.0
"""the same of a kind that `_WIDEST_M` does not name"""
_DEEPEST_M, _HIGHEST_M = -600.0, 9_500.0
_EARTH_M = 1e8
"""coordinates beyond it are a fault of the file"""

Mask = NDArray[np.bool_]
Key = tuple[str, object]
"""kind of a feature, and its name or, of a shell, its bounds"""


@dataclass(frozen=True)
class FileOf:
    """A file that features came from.

    Attributes:
        name: for people.
        format: obj, gml or tiles.
        crs: metric system that it states; None where it states degrees or nothing.
        where: path, which tells files of one name apart.
    """

    name: str
    format: str = "gml"
    crs: str | None = None
    where: str = ""


class Collector:
    """Features of all files so far.

    Attributes:
        features: with those that were replaced later.
        files: what each was read from.
        skipped: (file, feature, reason).
        namesakes: features whose name another feature has at another place.
    """

    def __init__(
        self, area: Area | None = None, *, strict: bool = False, scratch: Scratch | None = None
    ) -> None:
        self._area = area
        self._strict = strict
        place = scratch or Scratch()
        self.features = Features(place)
        self.files: list[FileOf] = []
        self._known = FeatureIndex(place)
        self._fine = _FineShells(place)
        self.duplicates = 0
        self.superseded = 0
        self.outside = 0
        self.namesakes = 0
        self.skipped: list[tuple[str, str, str]] = []
        self.notes: list[str] = []

    def add(self, batch: Batch, file: FileOf, crs: str) -> None:
        """Take the features of a batch that is placed in `crs`.

        Raises:
            DataError: with `strict`, a feature that was left out as broken.
        """
        if not self.files or self.files[-1] != file:
            self.files.append(file)
        self.skip(batch.skipped, file)
        batch = self._without_odd(batch, file)
        if not batch.names:
            return
        if self._area is not None and batch.kind != ROAD:
            inside = self._area.contains(batch.centers(), crs)
            self.outside += int((~inside).sum())
            batch = batch.chosen(inside)
        if batch.naming == SHELLS:
            batch = self._without_covered(batch)
        if batch.names:
            self._take(batch)

    def skip(self, skipped: list[Skipped], file: FileOf) -> None:
        """Count features that were left out.

        Raises:
            DataError: with `strict`, at the first.
        """
        for broken in skipped:
            if self._strict:
                raise DataError(
                    f"{broken.name}: {broken.reason}",
                    where=file.name,
                    remedy="correct it there; without --strict it is left out and named",
                )
            self.skipped.append((file.name, broken.name, broken.reason))

    def _without_odd(self, batch: Batch, file: FileOf) -> Batch:
        """Return a batch without features whose size or height is that of no building."""
        if not batch.names:
            return batch
        bounds = batch.bounds()
        with np.errstate(over="ignore", invalid="ignore"):
            sides = (bounds[:, 1] - bounds[:, 0])[:, :2].max(axis=1)
            tall = bounds[:, 1, 2] - bounds[:, 0, 2]
        lost: Mask = np.asarray(~(np.abs(bounds) < _EARTH_M).all(axis=(1, 2)))
        wide = sides > _WIDEST_M.get(batch.kind, _WIDEST_ELSE_M)
        high = (bounds[:, 0, 2] < _DEEPEST_M) | (bounds[:, 1, 2] > _HIGHEST_M)
        odd = lost | wide | (tall > _TALLEST_M) | high
        if not odd.any():
            return batch
        reasons = []
        for i in np.flatnonzero(odd):
            reason = f"its heights are {bounds[i, 0, 2]:g} to {bounds[i, 1, 2]:g} m"
            if wide[i]:
                reason = f"it is {sides[i] / 1000:.0f} km wide"
            if lost[i]:
                reason = "its coordinates are beyond the earth"
            reasons.append(Skipped(batch.names[i], reason))
        self.skip(reasons, file)
        return batch.chosen(~odd)

    def _take(self, batch: Batch) -> None:
        bounds = batch.bounds()
        keep = np.zeros(len(batch.names), dtype=bool)
        start = len(self.features)
        by_bounds = batch.naming in (SHELLS, LOCAL)
        keys: list[Key] = []
        for i, name in enumerate(batch.names):
            shell: Key = (batch.kind, _shell_key(bounds[i]))
            key: Key = shell if by_bounds else (batch.kind, name)
            keep[i], key = self._is_new(key, shell, bounds[i], batch.lods[i], batch.naming)
            if not keep[i]:
                continue
            keys.append(key)
            number = self.features.add(
                name, batch.kind, batch.lods[i], bounds[i], len(self.files) - 1
            )
            if not by_bounds:  # one file may hold two shells of the same extent
                self._known.add(key, number)
        if by_bounds:
            for i, key in enumerate(keys):
                self._known.add(key, start + i)
        self.features.add_triangles(batch.chosen(keep), start)
        self._known.let_go()

    def _is_new(
        self, key: Key, shell: Key, bounds: NDArray[np.float64], lod: int, naming: str
    ) -> tuple[bool, Key]:
        """Return False for a feature that is there already, and the key to enter it under."""
        features = self.features
        found = self._known.find(key)
        if len(found) >= _MOST_NAMESAKES:
            key, found = shell, self._known.find(shell)
        same = [i for i in found if self._has_key(i, key) and features.is_alive(i)]
        if naming not in (SHELLS, LOCAL):
            others = len(same)
            same = [i for i in same if self._is_at(i, bounds, lod, naming)]
            self.namesakes += bool(others and not same and naming == UNIQUE)
        finer = [i for i in same if features.lod_of(i) > lod]
        if finer:
            self.superseded += 1
            return False, key
        for coarser in [i for i in same if features.lod_of(i) < lod]:
            features.alive.put(coarser, False)
            self.superseded += 1
        equal = [i for i in same if features.lod_of(i) == lod]
        self.duplicates += bool(equal)
        return not equal, key

    def _is_at(self, number: int, bounds: NDArray[np.float64], lod: int, naming: str) -> bool:
        """Return True where a feature of the same name is at the same place."""
        mine = self.features.bounds_of(number)
        if np.abs(mine - bounds).max() < _SAME_M:
            return True
        share = _shared_plan(mine, bounds)
        if self.features.lod_of(number) != lod:
            return share >= _LIKE_PLAN
        if naming == PIECES or share < _SAME_PLAN:
            return False
        # the same walls at another precision, but not a storey on top of another one
        common = min(mine[1, 2], bounds[1, 2]) - max(mine[0, 2], bounds[0, 2])
        return bool(common >= 0.5 * min(np.ptp(mine[:, 2]), np.ptp(bounds[:, 2])) and common >= 0)

    def _has_key(self, number: int, key: Key) -> bool:
        kind, name = key
        features = self.features
        mine = (
            features.name_of(number)
            if isinstance(name, str)
            else _shell_key(features.bounds_of(number))
        )
        return mine == name and features.kind_of(number) == kind

    def _without_covered(self, batch: Batch) -> Batch:
        """Return shells of a batch with no finer shell below them; finer ones are remembered."""
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
        """Return x from, y from, x to, y to of everything but roads; None if there is nothing."""
        return self.features.extent(self.features.standing())


class _FineShells:
    """Triangles of finer levels, file by file."""

    def __init__(self, scratch: Scratch) -> None:
        self._triangles = scratch.rows(np.float64, (3, 3))
        self._files: list[tuple[int, int, NDArray[np.float64], NDArray[np.float64]]] = []

    def add(self, triangles: NDArray[np.float64]) -> None:
        """Add the triangles (T, 3, 3) of a file."""
        start = len(self._triangles)
        self._triangles.append(triangles)
        plan = triangles[:, :, :2]
        low, high = plan.min(axis=(0, 1)), plan.max(axis=(0, 1))
        self._files.append((start, len(self._triangles), low, high))

    def near(
        self, low: NDArray[np.float64], high: NDArray[np.float64]
    ) -> list[NDArray[np.float64]]:
        """Return triangles (T, 3, 3) of each file that reaches into a rectangle of the plan."""
        met = [f for f in self._files if (f[3] >= low).all() and (f[2] <= high).all()]
        return [self._triangles.read(start, stop) for start, stop, _, _ in met]


def _shell_key(bounds: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(np.round(bounds.ravel(), 1).tolist())


def _shared_plan(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the common share (intersection over union) of two plans, from bounds (2, 3)."""
    low, high = np.maximum(a[0], b[0])[:2], np.minimum(a[1], b[1])[:2]
    common = float(np.prod(np.maximum(high - low + _SAME_M, 0.0)))
    areas = [float(np.prod(x[1, :2] - x[0, :2] + _SAME_M)) for x in (a, b)]
    return common / (sum(areas) - common)


def _covered_share(batch: Batch, grid: PlanGrid, fine: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the share (G,) of each feature's plan that is marked in `fine`."""
    under = np.zeros(len(batch.names))
    all_nodes = np.zeros(len(batch.names))
    for hits in nodes_under(batch.triangles, grid):
        owner = batch.owners[hits.triangle]
        all_nodes += np.bincount(owner, minlength=len(under))
        under += np.bincount(owner, fine[hits.i, hits.j], minlength=len(under))
    return under / np.maximum(all_nodes, 1)

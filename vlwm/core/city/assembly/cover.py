"""Marks where buildings are in plan, and between which heights, to find duplicates.

A building is a duplicate where four fifths of its plan are covered at its own heights. One that is
on top of another (a tower on a podium, a storey on a storey) or covered in part is kept: losing an
obstacle is worse than having it twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.assembly.feature_table import Features
from vlwm.core.geometry.mapped_arrays import Scratch, let_go, pieces
from vlwm.core.geometry.plan_grid import Hits, PlanGrid, nodes_under

COVERED_SHARE = 0.8
"""of a plan: from it on the building is there twice"""
_COVER_M = 1.0
"""cells of the plan in which covered areas are counted"""
_UNIT_M, _LOWEST_M = 0.5, -1_000.0
"""heights are counted in such units from there"""
_DEEPEST = 60_000
"""units; heights are kept in 16 bits, deep and high ones as large numbers, 0 where nothing is"""
_FLAT_M = 1.0
"""a lower feature is a sheet, which only a sheet covers"""
_SHIFTED_M, _SPREAD_M = 1.0, 1.0
"""a smaller difference of heights is none; a shift spreads less among the buildings"""

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Overlap:
    """Measures of features over those that were marked before, G of each.

    Attributes:
        plan: share of the plan that is covered at any height.
        same: share that is covered at the feature's own heights.
        base, top: mean distance above the lowest and the highest point of what covers, metres.
        contact: mean distance between the base and the highest point of what covers, metres.
    """

    plan: Values
    same: Values
    base: Values
    top: Values
    contact: Values

    def shift(self, mine: Mask) -> float | None:
        """Return how much higher the chosen features are than the same ones below; None if not so.

        A copy in another height system has every base and every top moved by one distance; storeys
        on storeys touch what is below them.
        """
        both = mine & (self.plan >= COVERED_SHARE)
        if not both.any() or both.sum() < COVERED_SHARE * mine.sum():
            return None
        base = self.base[both]
        middle = float(np.median(base))
        spread = float(np.median(np.abs(base - middle)))
        other = float(np.median(np.abs(self.top[both] - base)))
        touching = float(np.median(self.contact[both])) < _SHIFTED_M
        if abs(middle) < _SHIFTED_M or max(spread, other) > _SPREAD_M or touching:
            return None
        return middle


class Cover:
    """Nodes of the plan under the features that were added, with their heights.

    Args:
        extent: x from, y from, x to, y to, metres.
        scratch: makes the files of the two maps: four bytes a square metre are too much for memory.
    """

    def __init__(self, extent: tuple[float, float, float, float], scratch: Scratch) -> None:
        self._grid = PlanGrid.over(extent, _COVER_M)
        self._depth = scratch.zeros(self._grid.shape, np.uint16)
        self._height = scratch.zeros(self._grid.shape, np.uint16)

    def add(self, features: Features, chosen: Mask) -> None:
        """Mark the plan of chosen features (G,)."""
        bounds = features.bounds.array()
        low = np.floor((bounds[:, 0, 2] - _LOWEST_M) / _UNIT_M)
        high = np.ceil((bounds[:, 1, 2] - _LOWEST_M) / _UNIT_M)
        for hits, owners in _hits(features, chosen, self._grid):
            owner = owners[hits.triangle]
            at = (hits.i, hits.j)
            deep = np.clip(_DEEPEST - low[owner], 1, _DEEPEST).astype(np.uint16)
            np.maximum.at(self._depth, at, deep)
            np.maximum.at(self._height, at, np.clip(high[owner], 1, _DEEPEST).astype(np.uint16))
            let_go(self._depth, self._height)

    def overlap(self, features: Features, chosen: Mask) -> Overlap:
        """Return how the chosen features (G,) cover what was added; zeros for the others."""
        bounds = features.bounds.array()
        base, top = bounds[:, 0, 2], bounds[:, 1, 2]
        sums = np.zeros((6, len(chosen)))
        for hits, owners in _hits(features, chosen, self._grid):
            owner = owners[hits.triangle]
            low, high, there = self._around(hits)
            b, t = base[owner], top[owner]
            common = np.minimum(t, high) - np.maximum(b, low)
            flat = t - b < _FLAT_M
            as_flat = (high - low < 2 * _FLAT_M) & (common > -_FLAT_M)
            same = there & np.where(flat, as_flat, common >= 0.5 * (t - b))
            rows = (np.ones(len(owner)), there, same, there * (b - low), there * (t - high),
                    there * np.abs(b - high))  # fmt: skip
            for row, values in enumerate(rows):
                sums[row] += np.bincount(owner, values, minlength=len(chosen))
            let_go(self._depth, self._height)
        nodes, covered = np.maximum(sums[0], 1), np.maximum(sums[1], 1)
        return Overlap(
            sums[1] / nodes, sums[2] / nodes, sums[3] / covered, sums[4] / covered,
            sums[5] / covered,
        )  # fmt: skip

    def _around(self, hits: Hits) -> tuple[Values, Values, Mask]:
        """Return lowest, highest and whether anything is at or next to each node (K,)."""
        nx, ny = self._grid.shape
        deep = np.zeros(len(hits.i), dtype=np.uint16)
        high = np.zeros(len(hits.i), dtype=np.uint16)
        # two models of one place are apart by a metre or so
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                i, j = np.clip(hits.i + di, 0, nx - 1), np.clip(hits.j + dj, 0, ny - 1)
                deep = np.maximum(deep, self._depth[i, j])
                high = np.maximum(high, self._height[i, j])
        low_m = _LOWEST_M + _UNIT_M * (_DEEPEST - deep.astype(np.float64))
        return low_m, _LOWEST_M + _UNIT_M * high.astype(np.float64), high > 0


def _hits(
    features: Features, chosen: Mask, grid: PlanGrid
) -> Iterator[tuple[Hits, NDArray[np.int32]]]:
    """Yield (nodes under triangles of chosen features, owners (T,) of those triangles)."""
    owners = features.owners.array()
    for start, some in pieces(features.triangles.array()):
        mine = owners[start : start + len(some)]
        keep = chosen[mine]
        for hits in nodes_under(some[keep], grid):
            yield hits, mine[keep]
        let_go(owners)

"""Assemble the features of a city from everything that was read, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.assembly.feature_table import KINDS, Features
from vlwm.core.city.assembly.string_column import Kinds, Names
from vlwm.core.city.assembly.watertight import open_features
from vlwm.core.city.readers.feature_batch import BUILDING
from vlwm.core.city.relief import MARGIN_M
from vlwm.core.city.roads import Roads
from vlwm.core.city.terrain import Bounds
from vlwm.core.geometry.mapped_arrays import PIECE_ROWS, Scratch, let_go, pieces

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Shift = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Standing:
    """Features (G,) of a city except roads, in a local frame.

    Attributes:
        names, kinds: of the features.
        levels: how many were taken from LOD0, 1, 2, 3 and beyond.
        bases: float64 (G, 3) middle of the plan and lowest z, metres.
        tops: float64 (G,) highest z, metres.
        triangles: float64 (T, 3, 3), metres.
        owners: int32 (T,) feature of each, non-decreasing.
    """

    names: Names
    kinds: Kinds
    levels: list[int]
    bases: Floats
    tops: Floats
    triangles: Floats
    owners: NDArray[np.int32]

    def count(self, kind: str) -> int:
        """Return the number of features of a kind."""
        code = KINDS.index(kind)
        return sum(int((some == code).sum()) for _, some in pieces(self.kinds.codes))

    def bases_of(self, kind: str, scratch: Scratch) -> Floats:
        """Return bases (N, 3) of the features of a kind; all bases if there are none of it."""
        if self.count(kind) in (0, len(self.kinds)):
            return self.bases
        found = scratch.rows(np.float64, (3,))
        for start, some in pieces(self.bases):
            found.append(some[self.kinds.codes[start : start + len(some)] == KINDS.index(kind)])
        return found.array()

    def heights(self, scratch: Scratch) -> Floats:
        """Return heights (N,) of the buildings, metres; of all features where there is none."""
        found = scratch.rows(np.float64)
        is_all = self.count(BUILDING) == 0
        for start, some in pieces(self.bases):
            part = slice(start, start + len(some))
            mine = is_all | (self.kinds.codes[part] == KINDS.index(BUILDING))
            found.append((self.tops[part] - some[:, 2])[mine])
        return found.array()

    def open_shells(self) -> int:
        """Return the number of features that do not close edge to edge."""
        count = 0
        for part in whole_features(self.owners):
            owners = self.owners[part]
            first = int(owners[0])
            is_open = open_features(
                self.triangles[part], owners - owners[0], int(owners[-1]) - first + 1
            )
            count += int(is_open[np.unique(owners) - first].sum())
            let_go(self.triangles, self.owners)
        return count + len(self.kinds) - _features_in(self.owners)


def standing_of(features: Features, shift: Shift, scratch: Scratch) -> Standing:
    """Return the features that are left, except roads, in a frame with its origin at `shift`."""
    chosen = features.standing()
    names = features.names
    if not chosen.all():
        names = Names(scratch)
        names.extend(features.names, chosen)
    names.flush()
    triangles, owners = scratch.rows(np.float64, (3, 3)), scratch.rows(np.int32)
    for some, numbers in _triangles_of(features, chosen):
        triangles.append(some - shift)
        owners.append(numbers)
    kinds, bases = scratch.rows(np.uint8), scratch.rows(np.float64, (3,))
    tops = scratch.rows(np.float64)
    levels = np.zeros(5, dtype=np.int64)
    all_kinds, all_lods = features.kinds.array(), features.lods.array()
    for start, bounds in pieces(features.bounds.array()):
        there = np.flatnonzero(chosen[start : start + len(bounds)])
        kinds.append(all_kinds[start + there])
        levels += np.bincount(np.clip(all_lods[start + there], 0, 4), minlength=5)
        low, high = bounds[there, 0] - shift, bounds[there, 1] - shift
        bases.append(np.column_stack([(low[:, :2] + high[:, :2]) / 2, low[:, 2]]))
        tops.append(high[:, 2])
    return Standing(
        names, Kinds(kinds.array(), KINDS), levels.tolist(), bases.array(), tops.array(),
        triangles.array(), owners.array(),
    )  # fmt: skip


def roads_of(
    features: Features, shift: Shift, bounds: Bounds, scratch: Scratch
) -> tuple[Roads, int]:
    """Return roads near local bounds of the buildings, and the number of roads in all."""
    chosen = features.roads()
    count = int(chosen.sum())
    if not count:
        return Roads.none(), 0
    reach = grown(bounds)
    for start, some in pieces(features.bounds.array()):
        part = chosen[start : start + len(some)]
        part &= np.all(some[:, 1, :2] - shift[:2] >= reach[:2], axis=1)
        part &= np.all(some[:, 0, :2] - shift[:2] <= reach[2:], axis=1)
    names = Names(scratch)
    names.extend(features.names, chosen)
    names.flush()
    plan, owners = scratch.rows(np.float64, (3, 2)), scratch.rows(np.int32)
    for some, numbers in _triangles_of(features, chosen):
        plan.append((some - shift)[:, :, :2])
        owners.append(numbers)
    return Roads(names, plan.array(), owners.array()), count


def grown(bounds: Bounds) -> Bounds:
    """Return bounds grown by the margin of the ground around the buildings."""
    low, high = np.array(bounds[:2]) - MARGIN_M, np.array(bounds[2:]) + MARGIN_M
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def whole_features(owners: NDArray[np.int32]) -> Iterator[slice]:
    """Yield parts of a non-decreasing array of owners, about `PIECE_ROWS` long, features whole."""
    start = 0
    while start < len(owners):
        stop = min(start + PIECE_ROWS, len(owners))
        if stop < len(owners):
            stop = int(np.searchsorted(owners, owners[stop - 1], side="right"))
        yield slice(start, stop)
        start = stop


def _features_in(owners: NDArray[np.int32]) -> int:
    """Return the number of different features among non-decreasing owners."""
    count, last = 0, -1
    for _, some in pieces(owners):
        count += int((np.diff(some, prepend=last) != 0).sum())
        last = int(some[-1])
    return count


def _triangles_of(features: Features, chosen: Mask) -> Iterator[tuple[Floats, NDArray[np.int32]]]:
    """Yield triangles (N, 3, 3) of chosen features in pieces, and their new numbers (N,)."""
    numbers = np.cumsum(chosen, dtype=np.int32) - np.int32(1)
    owners = features.owners.array()
    for start, some in pieces(features.triangles.array()):
        mine = owners[start : start + len(some)]
        keep = chosen[mine]
        yield some[keep], numbers[mine[keep]]
        let_go(owners)

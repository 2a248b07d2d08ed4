"""Table of all features that were read, in mapped files: kind, level, bounds and triangles.

Features have numbers, in the order of reading. A feature is found again by a key; names and bounds
decide whether two are equal, the hash of the key is only where to look.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.assembly.string_column import Names
from vlwm.core.city.readers.feature_batch import BRIDGE, BUILDING, ROAD, TERRAIN, VEGETATION, Batch
from vlwm.core.geometry.mapped_arrays import Scratch, let_go, pieces

KINDS = (BUILDING, BRIDGE, VEGETATION, ROAD, TERRAIN)


class Features:
    """Tables of features (G,) and of their triangles (T,).

    Attributes:
        scratch: makes the files.
        names: of the features.
        kinds: places in `KINDS`; lods: levels of detail; alive: False where it was replaced or left
            out since; files: number of its file; bounds: (2, 3) lowest and highest corner, metres.
        triangles: (3, 3) metres in the city's projected system; owners: their features,
            non-decreasing.
    """

    def __init__(self, scratch: Scratch) -> None:
        self.scratch = scratch
        self.names = Names(scratch)
        self.kinds = scratch.rows(np.uint8)
        self.lods = scratch.rows(np.int64)
        self.alive = scratch.rows(np.bool_)
        self.files = scratch.rows(np.int32)
        self.bounds = scratch.rows(np.float64, (2, 3))
        self.triangles = scratch.rows(np.float64, (3, 3))
        self.owners = scratch.rows(np.int32)

    def __len__(self) -> int:
        return len(self.lods)

    def add(
        self, name: str, kind: str, lod: int, bounds: NDArray[np.float64], file: int = 0
    ) -> int:
        """Enter a feature without triangles and return its number."""
        self.names.append(name)
        self.kinds.append([KINDS.index(kind)])
        self.lods.append([lod])
        self.alive.append([True])
        self.files.append([file])
        self.bounds.append(bounds)
        return len(self) - 1

    def add_triangles(self, batch: Batch, first: int) -> None:
        """Enter the triangles of a batch whose features have the numbers from `first` on."""
        self.triangles.append(batch.triangles)
        self.owners.append(batch.owners + np.int32(first))

    def leave_out(self, chosen: NDArray[np.bool_]) -> None:
        """Take chosen features (G,) out."""
        for number in np.flatnonzero(chosen):
            self.alive.put(int(number), False)

    def name_of(self, number: int) -> str:
        """Return a feature's name."""
        return self.names[number]

    def kind_of(self, number: int) -> str:
        """Return a feature's kind."""
        return KINDS[int(self.kinds.read(number, number + 1)[0])]

    def lod_of(self, number: int) -> int:
        """Return a feature's level of detail."""
        return int(self.lods.read(number, number + 1)[0])

    def bounds_of(self, number: int) -> NDArray[np.float64]:
        """Return a feature's (2, 3) bounds, metres."""
        return np.asarray(self.bounds.read(number, number + 1)[0])

    def is_alive(self, number: int) -> bool:
        """Return False where a feature was replaced or left out."""
        return bool(self.alive.read(number, number + 1)[0])

    def standing(self) -> NDArray[np.bool_]:
        """Return which features (G,) are left and not roads."""
        roads = self.kinds.array() == KINDS.index(ROAD)
        return np.asarray(self.alive.array() & ~roads)

    def roads(self) -> NDArray[np.bool_]:
        """Return which features (G,) are left and roads."""
        return np.asarray(self.alive.array() & (self.kinds.array() == KINDS.index(ROAD)))

    def extent(self, chosen: NDArray[np.bool_]) -> tuple[float, float, float, float] | None:
        """Return x from, y from, x to, y to of chosen features; None where there are none."""
        low, high = np.full(2, np.inf), np.full(2, -np.inf)
        for start, some in pieces(self.bounds.array()):
            there = some[chosen[start : start + len(some)]]
            low = np.minimum(low, there[:, 0, :2].min(axis=0, initial=np.inf))
            high = np.maximum(high, there[:, 1, :2].max(axis=0, initial=-np.inf))
        if not np.isfinite(low).all():
            return None
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


_ROWS = 1 << 12
"""rows of a table that are Python's objects at a time"""


class FeatureIndex:
    """Numbers of features by the hash of a key: a table with open addressing, half empty."""

    def __init__(self, scratch: Scratch, slots: int = 1 << 12) -> None:
        self._scratch, self._used = scratch, 0
        self._table = scratch.zeros((slots, 2), np.int64)

    def find(self, key: object) -> list[int]:
        """Return numbers that were entered under a key of the same hash, first come first."""
        code, table, found = hash(key), self._table, list[int]()
        at = code % len(table)
        while entry := int(table[at, 1]):
            if table[at, 0] == code:
                found.append(entry - 1)
            at = (at + 1) % len(table)
        return found

    def add(self, key: object, number: int) -> None:
        """Enter a number under a key."""
        if 2 * (self._used + 1) > len(self._table):
            self._grow()
        self._enter(hash(key), number + 1)

    def let_go(self) -> None:
        """Give its pages back to the kernel."""
        let_go(self._table)

    def _enter(self, code: int, entry: int) -> None:
        table = self._table
        at = code % len(table)
        while table[at, 1]:
            at = (at + 1) % len(table)
        table[at] = code, entry
        self._used += 1

    def _grow(self) -> None:
        old, self._used = self._table, 0
        self._table = self._scratch.zeros((2 * len(old), 2), np.int64)
        for code, entry in _in_order(old):
            self._enter(code, entry)


def _in_order(table: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield entries in an order that keeps those of one key as they came."""
    free = 0  # the first free slot: no run of entries passes over it
    for start, some in pieces(table):
        empty = np.flatnonzero(some[:, 1] == 0)
        if len(empty):
            free = start + int(empty[0])
            break
    for part in (table[free:], table[:free]):
        for _, some in pieces(part, _ROWS):
            yield from (row for row in some.tolist() if row[1])

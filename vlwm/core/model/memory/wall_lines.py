"""Place a wall where the columns of all frames allow it, and nowhere else.

A vertical wall marks each column that its line crosses, and no other. A marked column bounds the
line to its square, an unmarked one keeps it out of that. The lines that agree with one raster are
the preimage of a digital line (Dorst and Smeulders, *Discrete representation of straight lines*,
1984); four rasters that are turned against each other leave it a hundredth of a cell of room, of
which the middle is taken. A line that no place satisfies is two walls: it is split where both parts
violate least.

Axes: P past frames, N points or columns, K places of a line, X, Y cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.geometry.frames import from_ego, to_ego
from vlwm.core.geometry.grid import VoxelGrid

Array = NDArray[np.float64]

_BESIDE = 1.5  # cells across the line that are looked at
_BEFORE_END = 1.0  # cells at each end that are not: another wall may begin there
_OTHER = 0.3  # cells beyond its square from which a marked column is another wall's
_MOST = 0.15  # cells of violation that a column counts at most
_SOFT = 0.02  # cells of violation that make a place e times less likely
_SEARCH = ((0.5, 15), (0.12, 11))  # cells to either side of both ends, and places in them
_UNSATISFIED = 0.001  # cells of violation a column from which a line is split
_LESS = 0.6  # of the violation that a split may leave
_SPLIT = (0.25, 0.4, 0.5, 0.6, 0.75)
_SPLITS = 2  # times that a part may be split again
_SPLIT_FROM = 6.0  # cells of a line that may be split
_END = 3.0  # cells from an end within which it is looked for


@dataclass(frozen=True)
class Wall:
    """A vertical plane, in the outer frame of the past's ego frames.

    Attributes:
        centre: (2,) a point of the line, metres.
        along: (2,) unit vector.
        start, end: metres along the line from `centre`.
    """

    centre: Array
    along: Array
    start: float
    end: float

    @property
    def normal(self) -> Array:
        """Unit vector (2,) across the wall."""
        return np.array([-self.along[1], self.along[0]])

    def at(self, s: float | Array) -> Array:
        """Return points (..., 2) at `s` metres along the line."""
        return self.centre + np.asarray(s)[..., None] * self.along

    def coordinates(self, points: Array) -> tuple[Array, Array]:
        """Return metres (N,) along the line and across it, of points (N, 2)."""
        off = points - self.centre
        return off @ self.along, off @ self.normal

    def half_width(self, yaw: Array) -> Array:
        """Return the distance (...), in cells, up to which the line meets a column's square from
        its centre, in ego frames of a heading (...)."""
        heading = np.arctan2(self.along[1], self.along[0]) - yaw
        return 0.5 * (np.abs(np.cos(heading)) + np.abs(np.sin(heading)))


@dataclass(frozen=True)
class _Evidence:
    """Columns next to a line.

    Attributes:
        part: (N,), place along the line, 0 at its start and 1 at its end.
        across: (N,), signed distance of the centre, in cells.
        half_width: (N,), up to which the line meets the square, in cells.
        sign: (N,), 1 where the column is marked, -1 where it is not.
    """

    part: Array
    across: Array
    half_width: Array
    sign: Array

    def violation(self, start: Array, end: Array) -> Array:
        """Return the mean violation (K,), in cells, of lines moved by `start` and `end` (K,) cells
        at their two ends."""
        moved = start[:, None] + (end - start)[:, None] * self.part  # (K, N)
        missed = self.sign * (np.abs(self.across - moved) - self.half_width)
        return np.clip(missed, 0.0, _MOST).mean(axis=1)


@dataclass(frozen=True)
class TallMaps:
    """Columns of the past frames that are tall enough to be parts of walls.

    Attributes:
        tall: bool (P, X, Y).
        ego: float64 (P, 4), the ego frames.
        grid: of all frames.
        known: bool (P, X, Y), columns that count when they are not tall; None: all.
    """

    tall: NDArray[np.bool_]
    ego: Array
    grid: VoxelGrid
    known: NDArray[np.bool_] | None = None

    def placed(self, wall: Wall) -> list[Wall]:
        """Return a wall where all columns allow it, in parts if it is none of one line."""
        return self._parts(wall, _SPLITS)

    def _parts(self, wall: Wall, splits: int) -> list[Wall]:
        whole, violation, count = self._place(wall)
        long_enough = wall.end - wall.start > _SPLIT_FROM * self.grid.cell_m[0]
        if violation <= _UNSATISFIED or not splits or not long_enough:
            return [whole]
        best, halves = _LESS * violation * count, None
        for share in _SPLIT:
            middle = whole.start + share * (whole.end - whole.start)
            pair = [
                Wall(whole.centre, whole.along, whole.start, middle),
                Wall(whole.centre, whole.along, middle, whole.end),
            ]
            found = [self._place(part) for part in pair]
            if all(number for _, _, number in found):
                left = sum(each * number for _, each, number in found)
                # the columns at the cut are looked at by neither part
                left *= count / sum(number for _, _, number in found)
                if left < best:
                    best, halves = left, pair
        if halves is None:
            return [whole]
        return [part for half in halves for part in self._parts(half, splits - 1)]

    def _place(self, wall: Wall) -> tuple[Wall, float, int]:
        """Return the wall in the middle of its room, its mean violation, and the columns looked
        at; 0 of them if the wall is too short."""
        seen = self._evidence(wall)
        if seen is None:
            return wall, 0.0, 0
        start = end = least = 0.0
        for reach, steps in _SEARCH:
            offsets = np.linspace(-reach, reach, steps)
            starts, ends = (g.ravel() for g in np.meshgrid(start + offsets, end + offsets))
            cost = seen.violation(starts, ends)
            least = float(cost.min())
            weight = np.exp((least - cost) * len(seen.part) / _SOFT)
            start, end = float(weight @ starts), float(weight @ ends)
            start, end = start / weight.sum(), end / weight.sum()
        cell = self.grid.cell_m[0]
        first = wall.at(wall.start) + start * cell * wall.normal
        last = wall.at(wall.end) + end * cell * wall.normal
        length = float(np.linalg.norm(last - first))
        line = Wall(0.5 * (first + last), (last - first) / length, -length / 2, length / 2)
        return line, least, len(seen.part)

    def _evidence(self, wall: Wall) -> _Evidence | None:
        cell = self.grid.cell_m[0]
        low, high = wall.start + _BEFORE_END * cell, wall.end - _BEFORE_END * cell
        if high - low < 2 * cell:
            return None
        s = np.arange(low, high, 0.5 * cell)
        off = np.arange(-_BESIDE, _BESIDE + 0.5, 0.5) * cell
        points = (wall.at(s)[:, None] + off[:, None] * wall.normal).reshape(-1, 2)
        p, i, j = self._columns(points)
        place, across = wall.coordinates(self.centres(p, i, j))
        across = across / cell
        half_width = wall.half_width(self.ego[p, 3])
        marked = self.tall[p, i, j]
        far = np.where(marked, _OTHER, 1.0)
        used = (place >= low) & (place <= high) & (np.abs(across) < half_width + far)
        if self.known is not None:
            used &= marked | self.known[p, i, j]
        if not used.any():
            return None
        part = (place - wall.start) / (wall.end - wall.start)
        sign = np.where(marked, 1.0, -1.0)
        return _Evidence(part[used], across[used], half_width[used], sign[used])

    def _columns(self, points: Array) -> tuple[NDArray[np.int64], ...]:
        """Return frame, x and y (N,) of the columns that hold points (..., 2), each once."""
        x, y = self.grid.shape[:2]
        local = to_ego(_flat(points), self.ego[:, None])[..., :2]
        index = np.floor((local - self.grid.lower_m[:2]) / self.grid.cell_m[:2]).astype(np.int64)
        inside = ((index >= 0) & (index < (x, y))).all(axis=-1)
        p, n = np.nonzero(inside)
        i, j = index[p, n].T
        p, i, j = np.unravel_index(np.unique((p * x + i) * y + j), (len(self.ego), x, y))
        return p, i, j

    def centres(self, p: NDArray[np.int64], i: NDArray[np.int64], j: NDArray[np.int64]) -> Array:
        """Return the centres (N, 2) of columns of some frames, in the outer frame."""
        cell = np.array(self.grid.cell_m[:2])
        local = np.array(self.grid.lower_m[:2]) + (np.stack([i, j], axis=-1) + 0.5) * cell
        return from_ego(_flat(local), self.ego[p])[:, :2]

    def ended(self, wall: Wall) -> Wall:
        """Return a wall with its ends where its columns begin and end.

        The wall ends behind the place where its line enters the last marked column, and before
        the place where it enters the next one.
        """
        back = Wall(wall.centre, -wall.along, -wall.end, -wall.start)
        start, end = -self._end(back), self._end(wall)
        return Wall(wall.centre, wall.along, start, end) if start < end else wall

    def _end(self, wall: Wall) -> float:
        cell = self.grid.cell_m[0]
        s = np.arange(wall.end - _END * cell, wall.end + _END * cell, 0.25 * cell)
        bounds: list[float] = []
        for p, own in enumerate(self.ego):
            entered, marked = self._along(wall, s, p, own)
            # the wall must be there first, and then no more
            if len(marked) and marked[0] and not marked.all():
                first = int(np.argmin(marked))
                bounds += [entered[first - 1], entered[first]]
        # the middle of all bounds violates the least of them
        middle = len(bounds) // 2
        return float(np.mean(np.sort(bounds)[middle - 1 : middle + 1])) if bounds else wall.end

    def _along(self, wall: Wall, s: Array, p: int, own: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Return where a line enters the columns of a frame that hold its points at `s` (N,), and
        whether they are tall, in their order; nothing if the frame does not contain all of them or
        does not know one."""
        low, cell = np.array(self.grid.lower_m[:2]), np.array(self.grid.cell_m[:2])
        points = to_ego(_flat(wall.at(s)), own)[:, :2]
        index = np.floor((points - low) / cell).astype(np.int64)
        nothing = np.zeros(0), np.zeros(0, bool)
        if (index < 0).any() or (index >= self.grid.shape[:2]).any():
            return nothing
        column = index[np.r_[True, (index[1:] != index[:-1]).any(axis=1)]]
        i, j = column.T
        if self.known is not None and not (self.known[p, i, j] | self.tall[p, i, j]).all():
            return nothing
        # by slabs: a line enters a square where it is within both pairs of sides
        base, ahead = to_ego(_flat(np.stack([wall.at(0.0), wall.at(1.0)])), own)[:, :2]
        way = np.where(np.abs(ahead - base) < 1e-9, 1e-9, ahead - base)
        near = np.minimum(
            (low + column * cell - base) / way, (low + (column + 1) * cell - base) / way
        )
        return near.max(axis=1), self.tall[p, i, j]


def _flat(points: Array) -> Array:
    """Return points (..., 2) of the plane as points (..., 3) at height 0."""
    return np.concatenate([points, np.zeros_like(points[..., :1])], axis=-1)

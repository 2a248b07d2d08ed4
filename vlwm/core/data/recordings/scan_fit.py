"""Compare other mounts and delays of the sensor on the scans themselves, before they are added up.

Scans that were accumulated over seconds with a wrong mount agree with each other: in the cells of a
session the fault is hard to see. A single scan, moved into a later one by the poses and the mount,
shows it: its walls should meet walls. How often they do depends on the scene, so other mounts and
delays are tried, and a fault is reported where one of them fits clearly better on pairs of scans
that it was not chosen on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.formats.extrinsic import inverse
from vlwm.core.data.recordings.mount import PROBE, Mount, best_mount
from vlwm.core.data.recordings.placing import place_scan
from vlwm.core.data.recordings.pose_track import PoseTrack, matrix_of
from vlwm.core.data.recordings.recording import Scan
from vlwm.core.geometry.frames import heading_of, wrap_angle

Floats = NDArray[np.float64]

_PAIRS = 32  # of scans, half of which choose a mount and half of which test it
_LEAST_PAIRS = 6  # that have to show a fault and to have structure; fewer claim nothing
_APART_S = (1.0, 2.0, 3.0)  # between the scans of a pair
_FARTHEST_M = 20.0  # between them
_LATE_S = 0.3  # a scan is taken for a time at most this much before it
_SHOWN_M = 0.25  # by which a fault has to move a wall in a pair
_CELL_M = 0.4
_REACH_M = 50.0
_COUNT = int(2 * _REACH_M / _CELL_M)
_POINTS = 800  # of a scan that are moved
_WALL_M = 0.6  # least height of the returns in a column of cells: a wall, not the ground
_FEWEST = 80  # points of walls in each scan of a pair
_DELAYS_S = (-0.5, -0.25, -0.1, 0.1, 0.25, 0.5)
_TURNS_DEG = (90.0, 180.0, -90.0)
_GAIN, _SIGMAS = 0.04, 3.0  # as in the check of a session
_LARGE_GAIN, _TIE = 0.2, 0.01  # of the fit as written; a gain that counts for neither
_CHANCE = 1e-3  # probability that this many pairs gain by chance
_FREE_FIT = 0.005  # a mount of three fitted numbers has to fit this much better than one delay


@dataclass(frozen=True, eq=False)
class _View:
    """A scan: points (N, 3) in the sensor frame at `time_s`, without the motion during it."""

    time_s: float
    points: Floats


@dataclass(frozen=True)
class _Reading:
    """Another mount, or another time of the scans."""

    extrinsic: Floats  # (4, 4), sensor frame to body frame
    delay_s: float = 0.0


class ScanFit:
    """Some scans of a recording, chosen by its motion, and the mounts that they agree with.

    Args:
        poses: of the body.
        extrinsics: sensor name → 4×4 matrix, sensor frame to body frame.
    """

    def __init__(self, poses: PoseTrack, extrinsics: Mapping[str, Floats]) -> None:
        self.poses, self.extrinsics = poses, extrinsics
        self.pairs, self.showing = chosen_pairs(poses)
        self._wanted = sorted({t for pair in self.pairs for t in pair})
        self._sensor: str | None = None
        self._views: dict[float, _View] = {}
        self._bodies: dict[float, Floats] = {}  # poses (4, 4) by time
        self._grids: dict[tuple[float, bytes], NDArray[np.bool_]] = {}
        self._walls: dict[tuple[float, bytes], Floats] = {}

    def take(self, scan: Scan) -> None:
        """Keep a scan if it is the first at one of the chosen times; scans come in time order."""
        self._sensor = self._sensor or scan.sensor
        if scan.sensor != self._sensor:
            return
        while self._wanted and self._wanted[0] < scan.time_s - _LATE_S:
            self._wanted.pop(0)
        if not self._wanted or scan.time_s < self._wanted[0]:
            return
        wanted = self._wanted.pop(0)
        placed = place_scan(scan, self.poses, self.extrinsics, range_m=(1.0, _REACH_M))
        places, turns, valid = self.poses.at([scan.time_s])
        if placed is None or not valid[0]:
            return
        sensor = matrix_of(places[0], turns[0]) @ self.extrinsics[scan.sensor]
        self._views[wanted] = _View(scan.time_s, _moved(placed.points, inverse(sensor)))

    def sentences(self) -> tuple[list[str], list[str]]:
        """Return the fault that the scans show, if any, and what they cannot tell."""
        if self._sensor is None:
            return [], []
        written = _Reading(self.extrinsics[self._sensor])
        rows = [k for k, pair in enumerate(self.pairs) if self._has_structure(pair, written)]
        shown = self.showing[rows].sum(axis=0)  # (2,), pairs that show a yaw, and a shift
        if len(rows) < _LEAST_PAIRS or not len(self.showing):
            return [], ["the mount of the sensor: too few scans with walls while the vehicle moves"]
        unsure = [words for count, words in zip(shown, _HARD_TO_SHOW, strict=True)
                  if count < _LEAST_PAIRS]  # fmt: skip
        fitted, held_out = rows[::2], rows[1::2]
        before = self._shares(held_out, written)
        best: tuple[float, str] | None = None
        for words, reading, free in self._alternatives(fitted, written):
            after = self._shares(held_out, reading)
            gain = after - before
            if _is_clear(gain, float(before.mean())) and (
                best is None or gain.mean() - free > best[0]
            ):
                numbers = f"{100 * after.mean():.0f} % of the cases so, {100 * before.mean():.0f} %"
                best = float(gain.mean()) - free, f"{words} (walls meet in {numbers} as written)"
        return ([] if best is None else [best[1]]), unsure

    def _alternatives(
        self, rows: list[int], written: _Reading
    ) -> list[tuple[str, _Reading, float]]:
        """Return other readings, each in words, with what it has to gain more than the others."""
        base = written.extrinsic
        found = [("the extrinsic leads from the body to the sensor; invert it",
                  _Reading(inverse(base)), 0.0)]  # fmt: skip
        found += [(f"the mount of the sensor is off in yaw by {turn:+.0f} degrees",
                   _Reading(Mount(turn).matrix @ base), 0.0) for turn in _TURNS_DEG]  # fmt: skip
        late = [_Reading(base, delay) for delay in _DELAYS_S]
        best = max(late, key=lambda r: self._shares(rows, r).mean())
        more = "later" if best.delay_s > 0 else "earlier"
        found.append((f"the scans fit better {abs(best.delay_s):g} s {more}: --lidar-delay "
                      f"{best.delay_s:+g}", best, 0.0))  # fmt: skip

        def share(mount: Mount) -> float:
            return float(self._shares(rows, _Reading(mount.matrix @ base)).mean())

        fitted = best_mount(share)
        found.append((fitted.words, _Reading(fitted.matrix @ base), _FREE_FIT))
        return found

    def _has_structure(self, pair: tuple[float, float], reading: _Reading) -> bool:
        """Return True where both scans of a pair were read and see walls."""
        views = [self._views.get(t) for t in pair]
        return all(v is not None and len(self._structure(v, reading)) >= _FEWEST for v in views)

    def _shares(self, rows: list[int], reading: _Reading) -> Floats:
        """Return for each pair (P,) the share of points of the first scan that meet the second."""
        return np.array([self._share(*self.pairs[row], reading) for row in rows])

    def _share(self, first: float, second: float, reading: _Reading) -> float:
        one, other = self._views[first], self._views[second]
        # the sensor at the time of each scan, level frame of the second scan at the end
        start, stop = (self._sensor_at(v.time_s, reading) for v in (one, other))
        points = self._structure(one, reading)
        moved = _moved(points, _level(stop) @ inverse(stop) @ start)
        return float(_in_cells(moved, self._cells(other, reading)).mean())

    def _sensor_at(self, time_s: float, reading: _Reading) -> Floats:
        now = time_s + reading.delay_s
        if now not in self._bodies:
            places, turns, _ = self.poses.at([now])
            self._bodies[now] = matrix_of(places[0], turns[0])
        return self._bodies[now] @ reading.extrinsic

    def _structure(self, view: _View, reading: _Reading) -> Floats:
        """Return points (K, 3) of walls in the sensor frame, at most `_POINTS`.

        A yaw or a shift of the mount leaves the same points on walls; an inverse may not.
        """
        key = view.time_s, (np.round(reading.extrinsic[2], 6) + 0.0).tobytes()
        if key not in self._walls:
            level = _moved(view.points, _level(self._sensor_at(view.time_s, reading)))
            walls = view.points[_on_walls(level)]
            rng = np.random.default_rng(0)
            if len(walls) > _POINTS:
                walls = walls[rng.choice(len(walls), _POINTS, replace=False)]
            self._walls[key] = walls
        return self._walls[key]

    def _cells(self, view: _View, reading: _Reading) -> NDArray[np.bool_]:
        """Return the cells (X, Y) of the level frame of a scan that hold its walls."""
        sensor = self._sensor_at(view.time_s, reading)
        level = _level(sensor)
        key = view.time_s, (np.round(level, 6) + 0.0).tobytes()
        if key not in self._grids:
            points = _moved(view.points, level)
            cells = np.zeros((_COUNT, _COUNT), dtype=bool)
            index, inside = _index(points[_on_walls(points)])
            cells[tuple(index[inside].T)] = True
            self._grids[key] = cells
        return self._grids[key]


_HARD_TO_SHOW = (
    "a mount that is off in yaw by some degrees: the vehicle moves too little",
    "a mount that is off by a metre: the vehicle turns too little",
)


def _is_clear(gain: Floats, before: float) -> bool:
    """Return True where pairs (P,) gain clearly: in the mean, or, if by much, in nearly all.

    In some pairs most walls are hidden, so gains differ by more than a normal error.
    """
    error = float(gain.std(ddof=1)) / np.sqrt(len(gain))
    if gain.mean() > max(_GAIN * max(before, 0.05), _SIGMAS * error):
        return True
    told = gain[np.abs(gain) > _TIE]
    by_chance = _at_least(int((told > 0).sum()), len(told))
    return bool(gain.mean() > _LARGE_GAIN * before and by_chance < _CHANCE)


def _at_least(heads: int, tosses: int) -> float:
    """Return the probability of at least `heads` heads (scipy.stats takes 60 MB to import)."""
    return sum(math.comb(tosses, k) for k in range(heads, tosses + 1)) / 2**tosses


def chosen_pairs(poses: PoseTrack) -> tuple[list[tuple[float, float]], NDArray[np.bool_]]:
    """Return the times of pairs of scans that show a wrong mount best, by the motion alone.

    Returns:
        (first, second) in s, and bool (P, 2): does the pair show a yaw, and a shift, of `PROBE`.
    """
    degrees, metres = PROBE
    span = poses.times_s[-1] - poses.times_s[0]
    starts = poses.times_s[0] + np.arange(0.0, span, 0.5)
    found: list[tuple[float, float]] = []
    effects: list[tuple[float, float]] = []
    for apart in _APART_S:
        ends = starts + apart
        (place, turn, valid), (other, turned, good) = poses.at(starts), poses.at(ends)
        away = np.linalg.norm(other - place, axis=1)  # (N,)
        turns = np.abs(wrap_angle(heading_of(turned) - heading_of(turn)))
        rows = np.searchsorted(poses.times_s, [starts, ends], side="right")
        jumps = np.cumsum(poses.breaks)[np.minimum(rows, len(poses)) - 1]
        usable = valid & good & (away < _FARTHEST_M) & (jumps[0] == jumps[1])
        for k in np.flatnonzero(usable):
            found.append((float(starts[k]), float(ends[k])))
            effects.append((np.radians(degrees) * away[k], metres * 2 * np.sin(turns[k] / 2)))
    size = np.array(effects).reshape(-1, 2)  # (N, 2), m by which a wall moves
    best: dict[int, None] = {}
    for fault in (0, 1):
        taken: dict[float, int] = {}
        largest_first = np.argsort(-size[:, fault], kind="stable").tolist()
        for k in (row for row in largest_first if size[row, fault] > _SHOWN_M):
            first = round(found[k][0])
            if taken.get(first, 0) < 2 and sum(taken.values()) < _PAIRS // 2:
                taken[first] = taken.get(first, 0) + 1
                best[k] = None
    chosen = sorted(best, key=lambda k: found[k])
    return [found[k] for k in chosen], size[chosen] > _SHOWN_M


def _moved(points: Floats, matrix: Floats) -> Floats:
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])


def _level(sensor: Floats) -> Floats:
    """Return the 4×4 turn from a sensor's frame to a level frame at the same place."""
    heading = np.arctan2(sensor[1, 0], sensor[0, 0])
    out = np.eye(4)
    out[:3, :3] = Mount(float(-np.degrees(heading))).matrix[:3, :3] @ sensor[:3, :3]
    return out


def _on_walls(points: Floats) -> NDArray[np.bool_]:
    """Return for points (N, 3) of a level frame if their column of cells holds a wall."""
    index, inside = _index(points)
    columns = np.where(inside, index[:, 0] * _COUNT + index[:, 1], -1)
    lowest = np.full(_COUNT * _COUNT + 1, np.inf)  # the last one is for points outside
    highest = np.full(_COUNT * _COUNT + 1, -np.inf)
    np.minimum.at(lowest, columns, points[:, 2])
    np.maximum.at(highest, columns, points[:, 2])
    return np.asarray(inside & (highest[columns] - lowest[columns] > _WALL_M))


def _index(points: Floats) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    index = np.floor((points[:, :2] + _REACH_M) / _CELL_M).astype(np.int64)
    return index, np.asarray(((index >= 0) & (index < _COUNT)).all(axis=1))


def _in_cells(points: Floats, cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return for points (N, 3) if they are in one of the cells; outside of the grid is not."""
    index, inside = _index(points)
    found = np.zeros(len(points), dtype=bool)
    found[inside] = cells[tuple(index[inside].T)]
    return found

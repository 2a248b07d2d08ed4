"""Check a session folder: counts, rates and units, and if another reading of its poses fits better.

Occupied cells of one frame, moved into another frame by the poses, should meet occupied cells. How
often they do depends on the scene, so no fixed share is asked for. Instead the poses are read in
other ways (an axis flipped, the quaternion w first, half a frame later, the sensor turned by a
degree), and a fault is reported where such a reading fits clearly better in most pairs of frames.
Where the motion cannot show a difference, nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.formats.extrinsic import TOLERANCE
from vlwm.core.data.recordings.readings import READINGS
from vlwm.core.data.session import Session
from vlwm.core.errors import DataError
from vlwm.core.geometry.frames import (
    LINEAR_VELOCITY,
    ego_of,
    finite_difference_velocity,
    from_ego,
    to_ego,
    wrap_angle,
)
from vlwm.core.geometry.grid import VoxelGrid

Floats = NDArray[np.float64]

_PAIRS = 64  # pairs of frames that are compared
_APART = (1, 2, 4, 8)  # frames between the two of a pair
_CELLS = 1500  # cells of a frame that are moved
_GAIN = 0.04  # least share by which a better reading fits better ...
_SIGMAS = 3.0  # ... and how sure that has to be
_SHOWN_CELLS = 0.5  # a reading that moves cells by less than this cannot be told from the own one
_TURN_DEG = 10.0  # a session that turns less cannot show faults of the heading
_MOVE_M = 2.0
_RATIOS = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}


@dataclass
class SessionCheck:
    """Result of a check.

    Attributes:
        session: name.
        frames: number of frames with poses.
        facts: counts and rates by name.
        faults: one sentence each.
        cannot_tell: what the motion cannot show.
        fits: mean share of cells that meet, by reading; 'as written' first.
    """

    session: str
    frames: int
    facts: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    cannot_tell: list[str] = field(default_factory=list)
    fits: dict[str, float] = field(default_factory=dict)


def check_session(session: Session, grid: VoxelGrid) -> SessionCheck:
    """Check a session.

    Raises:
        DataError: its frames are of another grid.
    """
    found = SessionCheck(session.path.name, len(session.numbers))
    _check_times(session, found)
    _check_mounts(session.meta.sensors, found)
    ego = ego_of(session.poses, session.ground_z)
    turn = float(np.degrees(np.abs(wrap_angle(np.diff(ego[:, 3]))).sum()))
    way = float(np.linalg.norm(np.diff(ego[:, :2], axis=0), axis=1).sum())
    found.facts |= {"turn_deg": round(turn, 1), "way_m": round(way, 1)}
    if way < _MOVE_M:
        found.cannot_tell.append("the vehicle hardly moves: poses and cells cannot be compared")
        return found
    if turn < _TURN_DEG:
        found.cannot_tell.append("the vehicle hardly turns: faults of the heading and the mount")
    _check_readings(session, grid, found, turns=turn >= _TURN_DEG)
    return found


def _check_times(session: Session, found: SessionCheck) -> None:
    """Compare time stamps, the step and the velocities with the positions."""
    dt_s = session.meta.dt_s
    gaps = session.gaps
    found.facts |= {"step_s": dt_s, "missing_frames": gaps, "damaged": len(session.damaged)}
    for file, reason in session.damaged[:3]:
        found.faults.append(f"a frame has no usable pose: {reason} ({file})")
    stamps = session.timestamps[~np.isnan(session.timestamps)]
    steps = np.diff(session.timestamps) / np.diff(session.numbers)
    steps = steps[np.isfinite(steps)]
    if len(stamps) > 2 and len(steps):
        step = float(np.median(steps))
        if step <= 0:
            found.faults.append("the time stamps do not increase")
        else:
            _name_unit(found, step / dt_s, "the time stamps are in")
    speeds = np.linalg.norm(session.poses[:, LINEAR_VELOCITY], axis=1)
    spans = np.diff(session.numbers) * dt_s
    moved, _ = finite_difference_velocity(session.poses[:, :3], session.poses[:, 3:7], spans)
    true = np.linalg.norm(moved, axis=1)
    fast = (true > 0.5) & (speeds > 1e-12)
    if fast.sum() >= 3:
        ratio = float(np.median(speeds[fast] / true[fast]))
        found.facts["velocity_ratio"] = ratio
        _name_unit(found, 1.0 / ratio, "the velocities were computed from times in")


def _name_unit(found: SessionCheck, ratio: float, words: str) -> None:
    """Report a unit if the ratio is nearer to that of another unit than to 1."""
    every = {"seconds": 1.0, **_RATIOS}
    best = min(every, key=lambda n: abs(np.log(max(ratio, 1e-12) / every[n])))
    if best != "seconds":
        found.faults.append(f"{words} {best}, not seconds")


def _check_mounts(sensors: Mapping[str, Any], found: SessionCheck) -> None:
    for name, values in sensors.items():
        try:
            if "matrix" in values:
                turn = np.array(values["matrix"], dtype=np.float64)[:3, :3]
                error = float(np.abs(turn @ turn.T - np.eye(3)).max())
                mirrors = np.linalg.det(turn) < 0
            else:
                length = np.linalg.norm(np.array(values["rotation"], dtype=np.float64))
                error, mirrors = abs(float(length) - 1.0), False
        except (KeyError, TypeError, ValueError, IndexError):
            found.faults.append(f"session.json has no readable mount of {name}")
            continue
        if error > TOLERANCE or mirrors:
            found.faults.append(f"the mount of {name} in session.json is not a rotation")


def _check_readings(session: Session, grid: VoxelGrid, found: SessionCheck, *, turns: bool) -> None:
    """Move cells between frames by each reading, and report the one that fits clearly better."""
    frames = _Frames(session, grid)
    pairs = list(_pairs(len(session.numbers), frames))
    if len(pairs) < 4:
        found.cannot_tell.append("too few pairs of frames with structure to compare")
        return
    own = frames.fit(ego_of(session.poses, session.ground_z), pairs)  # (P,)
    found.fits["as written"] = round(float(own.mean()), 4)
    better: dict[str, float] = {}
    for name, (reading, _) in READINGS.items():
        other = frames.fit(reading(session.poses, session.ground_z), pairs)
        found.fits[name] = round(float(other.mean()), 4)
        gain = other - own
        spread = float(gain.std(ddof=1)) / np.sqrt(len(gain))
        if gain.mean() > _GAIN * max(own.mean(), 0.05) and gain.mean() > _SIGMAS * spread:
            better[name] = float(gain.mean())
    if better:
        best = max(better, key=lambda n: better[n])
        found.faults.append(
            f"{READINGS[best][1]} (cells meet in {100 * found.fits[best]:.0f} % of the cases so, "
            f"{100 * found.fits['as written']:.0f} % as written)"
        )
    found.cannot_tell += _too_small(frames, pairs)
    if not better and turns and max(found.fits.values()) < 0.1:
        found.cannot_tell.append("cells of neighbouring frames hardly meet under any reading")


_HARD_TO_SHOW = {
    "a delay of half a frame: the motion is too steady": (
        "half a frame later", "half a frame earlier",
    ),
    "a mount that is off in yaw by some degrees: the vehicle moves too little": (
        "turned 4", "turned -4",
    ),
    "a mount that is off by a metre: the vehicle turns too little": (
        "1 m ahead", "1 m back", "1 m left", "1 m right",
    ),
}  # fmt: skip
"""faults that only some motions show → readings that would explain them"""


def _too_small(frames: _Frames, pairs: list[tuple[int, int]]) -> list[str]:
    """Return the faults that would hardly move a cell under this motion."""
    session = frames.session
    own = ego_of(session.poses, session.ground_z)
    found = []
    for words, names in _HARD_TO_SHOW.items():
        others = (READINGS[name][0](session.poses, session.ground_z) for name in names)
        cells = max(frames.moved_apart(own, other, pairs) for other in others)
        if cells < _SHOWN_CELLS:
            found.append(words)
    return found


class _Frames:
    """Occupied cells above the ground of a session's frames, read once."""

    def __init__(self, session: Session, grid: VoxelGrid) -> None:
        self.session, self.grid = session, grid
        self.cells: dict[int, NDArray[np.uint8]] = {}
        self.known: dict[int, NDArray[np.uint8]] = {}
        self.points: dict[int, Floats] = {}

    def load(self, row: int) -> bool:
        """Read a frame; False where it has no structure."""
        if row not in self.cells:
            layers = self.session.read_layers(int(self.session.numbers[row]))
            cells = layers["occupancy"]
            if cells.shape != self.grid.shape:
                has, wants = ("x".join(map(str, s)) for s in (cells.shape, self.grid.shape))
                raise DataError(
                    f"the session has {has} cells and the config {wants}",
                    where=self.session.path,
                    remedy="give the --config that it was prepared with",
                )
            self.cells[row] = cells
            self.known[row] = layers.get("known", np.ones_like(cells))
            above = _structure(cells)
            index = np.argwhere(above)
            rng = np.random.default_rng(row)
            if len(index) > _CELLS:
                index = index[rng.choice(len(index), _CELLS, replace=False)]
            # Points anywhere in their cells, so that shifts below a cell show in the mean.
            inside = index + rng.random(index.shape)
            self.points[row] = np.asarray(self.grid.lower_m) + inside * np.asarray(self.grid.cell_m)
        return len(self.points[row]) >= 50

    def moved_apart(self, one: Floats, other: Floats, pairs: list[tuple[int, int]]) -> float:
        """Return by how many cells two readings (N, 4) place the same points apart, on average."""
        away = []
        for first, second in pairs[:: max(1, len(pairs) // 16)]:
            points = self.points[first][::10]
            a, b = (to_ego(from_ego(points, e[first]), e[second]) for e in (one, other))
            away.append(float(np.linalg.norm((a - b)[:, :2], axis=1).mean()))
        return float(np.mean(away)) / self.grid.cell_m[0]

    def fit(self, ego: Floats, pairs: list[tuple[int, int]]) -> Floats:
        """Return for each pair the share (P,) of moved cells that meet an occupied one."""
        shares = []
        for first, second in pairs:
            world = from_ego(self.points[first], ego[first])
            index = self.grid.index_of(to_ego(world, ego[second]))
            inside = ((index >= 0) & (index < self.grid.shape)).all(axis=1)
            at = tuple(index[inside].T)
            known = self.known[second][at] > 0
            hit = self.cells[second][at][known]
            # All cells count that fell into the grid or out of it: leaving it must not help.
            shares.append(float(hit.sum()) / max(50, len(index) - int((~known).sum())))
        return np.array(shares)


def _structure(cells: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the occupied cells above the lowest one of their column, (X, Y, Z)."""
    lowest = cells.argmax(axis=2)  # the first of equal maxima
    height = np.arange(cells.shape[2])
    return np.asarray((cells > 0) & (height > lowest[..., None]))


def _pairs(count: int, frames: _Frames) -> Iterator[tuple[int, int]]:
    """Yield pairs of frames some steps apart, spread over the session."""
    for apart in _APART:
        if count <= apart:
            continue
        rows = np.unique(np.linspace(0, count - 1 - apart, _PAIRS // len(_APART)).astype(int))
        for row in rows[rows >= 0]:
            if frames.load(int(row)) and frames.load(int(row) + apart):
                yield int(row), int(row) + apart

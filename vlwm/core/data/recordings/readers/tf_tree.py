"""Resolve ROS transforms: a tree of frames, some of whose edges move."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlwm.core.data.recordings.formats.extrinsic import inverse
from vlwm.core.data.recordings.pose_track import PoseTrack, matrix_of
from vlwm.core.geometry.frames import multiply_quaternions, rotate

Floats = NDArray[np.float64]

WORLDS = ("odom", "map", "world")
"""fixed frames in the order in which they are taken: odometry does not jump"""


class TransformTree:
    """Frames with their parents.

    Attributes:
        parents: child → parent.
        fixed: child → matrix (4, 4), child → parent, of edges that never move.
        moving: child → track of the child in its parent.
    """

    def __init__(self) -> None:
        self.parents: dict[str, str] = {}
        self.fixed: dict[str, Floats] = {}
        self.moving: dict[str, PoseTrack] = {}
        self._rows: dict[str, list[list[float]]] = {}

    def add(self, parent: str, child: str, row: list[float], static: bool) -> None:
        """Add one transform: time, position, quaternion of `child` in `parent`."""
        self.parents[child] = parent
        if static:
            self.fixed[child] = matrix_of(row[1:4], _unit(row[4:8]))
        else:
            self._rows.setdefault(child, []).append(row)

    def close(self) -> None:
        """Build the tracks; an edge on /tf that never changes is a fixed one."""
        for child, rows in self._rows.items():
            table = np.array(rows)
            if child in self.fixed:
                continue
            if np.ptp(table[:, 1:], axis=0).max() < 1e-9:
                self.fixed[child] = matrix_of(table[0, 1:4], _unit(table[0, 4:8]))
            else:
                self.moving[child] = PoseTrack.of(table[:, 0], table[:, 1:4], table[:, 4:8])
        self._rows.clear()

    @property
    def frames(self) -> list[str]:
        """Return the names of all frames."""
        return sorted({*self.parents, *self.parents.values()})

    def up(self, frame: str) -> list[str]:
        """Return a frame and its ancestors, the nearest first."""
        chain = [frame]
        while chain[-1] in self.parents and self.parents[chain[-1]] not in chain:
            chain.append(self.parents[chain[-1]])
        return chain

    def between(self, source: str, target: str) -> Floats | None:
        """Return the fixed matrix (4, 4) source → target, or None without a fixed way."""
        ups, downs = self.up(source), self.up(target)
        common = next((f for f in ups if f in downs), None)
        if common is None:
            return None
        rise = self._fixed_product(ups[: ups.index(common)])
        fall = self._fixed_product(downs[: downs.index(common)])
        if rise is None or fall is None:
            return None
        return np.asarray(inverse(fall) @ rise)

    def _fixed_product(self, chain: Iterable[str]) -> Floats | None:
        out = np.eye(4)
        for child in chain:
            if child not in self.fixed:
                return None
            out = self.fixed[child] @ out
        return out

    def world_of(self, body: str) -> str | None:
        """Return the fixed frame to which the moves of a body are given, or None."""
        chain = self.up(body)
        above = [f for k, f in enumerate(chain) if any(c in self.moving for c in chain[:k])]
        named = next((w for w in WORLDS if w in above), None)
        return named if named is not None else (above[-1] if above else None)

    def track(self, body: str, world: str) -> PoseTrack:
        """Return the poses of a body in a frame above it, at the times of its first moving edge."""
        chain = self.up(body)
        chain = chain[: chain.index(world)]
        times = next(self.moving[c] for c in chain if c in self.moving).times_s
        places = np.zeros((len(times), 3))
        turns = np.tile([0.0, 0.0, 0.0, 1.0], (len(times), 1))
        kept = np.ones(len(times), bool)
        for child in chain:  # from the body upwards: pose in parent = edge · pose in child
            if child in self.moving:
                place, turn, valid = self.moving[child].at(times)
                kept &= valid
            else:
                fixed = PoseTrack.of([0.0], [[0, 0, 0]], [[0, 0, 0, 1]]).moved_by(self.fixed[child])
                place, turn = fixed.positions, fixed.quaternions
            places = rotate(turn, places) + place
            turns = multiply_quaternions(turn, turns)
        return PoseTrack.of(times[kept], places[kept], turns[kept])


def _unit(quaternion: ArrayLike) -> Floats:
    turn = np.asarray(quaternion, dtype=np.float64)
    length = float(np.linalg.norm(turn))
    return turn / length if length > 1e-9 else np.array([0.0, 0.0, 0.0, 1.0])

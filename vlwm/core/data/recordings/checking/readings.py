"""Read the poses of a session in other ways, each of which a common fault would explain."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from vlwm.core.geometry.frames import conjugate, ego_of, turn_vectors, wrap_angle

Floats = NDArray[np.float64]

Reading = Callable[[Floats, Floats], Floats]
"""poses (N, 13) and ground_z (N,) to ego frames (N, 4)"""


def _changed(change: Callable[[Floats], Floats]) -> Reading:
    """Return the reading of poses that `change` alters first."""
    return lambda poses, ground: ego_of(change(poses.copy()), ground)


def _w_first(poses: Floats) -> Floats:
    poses[:, 3:7] = poses[:, [4, 5, 6, 3]]
    return poses


def _inverse(poses: Floats) -> Floats:
    poses[:, 3:7] = conjugate(poses[:, 3:7])
    return poses


def _scaled(*signs: float) -> Callable[[Floats], Floats]:
    def change(poses: Floats) -> Floats:
        poses[:, :2] *= signs
        return poses

    return change


def _swapped(poses: Floats) -> Floats:
    poses[:, :2] = poses[:, [1, 0]]
    return poses


def _turned(degrees: float) -> Reading:
    def reading(poses: Floats, ground: Floats) -> Floats:
        ego = ego_of(poses, ground)
        ego[:, 3] = wrap_angle(ego[:, 3] + np.radians(degrees))
        return ego

    return reading


def _shifted(ahead: float, left: float) -> Reading:
    def reading(poses: Floats, ground: Floats) -> Floats:
        ego = ego_of(poses, ground)
        ego[:, :2] += turn_vectors(np.array([ahead, left, 0.0]), ego[:, 3])[:, :2]
        return ego

    return reading


def _later(frames: float) -> Reading:
    """Return the reading of poses some frames later, by cubic splines.

    Half a second apart, a vehicle that begins to turn leaves a straight line by half a cell.
    """

    def reading(poses: Floats, ground: Floats) -> Floats:
        ego = ego_of(poses, ground)
        if len(ego) < 4:
            return ego
        ego[:, 3] = np.unwrap(ego[:, 3])
        steps = np.arange(len(ego))
        at = np.clip(steps + frames, 0, len(ego) - 1)
        return np.asarray(CubicSpline(steps, ego)(at))

    return reading


def _twice(poses: Floats, ground: Floats) -> Floats:
    ego = ego_of(poses, ground)
    twice = ego.copy()
    twice[:, :2] = _from_rows(ego[:, :2], ego)
    twice[:, 3] = wrap_angle(2 * ego[:, 3])
    return twice


def _from_rows(points: Floats, ego: Floats) -> Floats:
    """Return points (N, 2), each in its own ego frame (N, 4), in the outer frame."""
    flat = np.concatenate([points, np.zeros((len(points), 1))], axis=1)
    return turn_vectors(flat, ego[:, 3])[:, :2] + ego[:, :2]


READINGS: Mapping[str, tuple[Reading, str]] = {
    "w first": (_changed(_w_first), "the quaternions are written w first; write x, y, z, w"),
    "inverse": (_changed(_inverse), "the quaternions lead from the world to the body; invert them"),
    "mirrored y": (_changed(_scaled(1.0, -1.0)), "y is mirrored: it should point left"),
    "mirrored x": (_changed(_scaled(-1.0, 1.0)), "x is mirrored: an axis of the world is flipped"),
    "swapped": (_changed(_swapped), "x and y are exchanged, as between north-east and east-north"),
    "turned 90": (_turned(90.0), "the heading is off by a quarter turn: forward is not x"),
    "turned -90": (_turned(-90.0), "the heading is off by a quarter turn: forward is not x"),
    "turned 180": (_turned(180.0), "the heading is off by half a turn: forward is -x"),
    "twice": (_twice, "the ego transform was applied twice to the points"),
    "half a frame later": (_later(0.5), "the cells are later than the poses by half a frame"),
    "half a frame earlier": (_later(-0.5), "the cells are earlier than the poses by half a frame"),
    "turned 1": (_turned(1.0), "the mount of the sensor is off in yaw"),
    "turned -1": (_turned(-1.0), "the mount of the sensor is off in yaw"),
    "turned 4": (_turned(4.0), "the mount of the sensor is off in yaw by some degrees"),
    "turned -4": (_turned(-4.0), "the mount of the sensor is off in yaw by some degrees"),
    "0.2 m ahead": (_shifted(0.2, 0.0), "the mount of the sensor is off along x"),
    "0.2 m back": (_shifted(-0.2, 0.0), "the mount of the sensor is off along x"),
    "0.2 m left": (_shifted(0.0, 0.2), "the mount of the sensor is off along y"),
    "0.2 m right": (_shifted(0.0, -0.2), "the mount of the sensor is off along y"),
    "1 m ahead": (_shifted(1.0, 0.0), "the mount of the sensor is off along x by a metre or so"),
    "1 m back": (_shifted(-1.0, 0.0), "the mount of the sensor is off along x by a metre or so"),
    "1 m left": (_shifted(0.0, 1.0), "the mount of the sensor is off along y by a metre or so"),
    "1 m right": (_shifted(0.0, -1.0), "the mount of the sensor is off along y by a metre or so"),
}
"""name of a reading → how it reads the poses, and the fault that it would explain"""

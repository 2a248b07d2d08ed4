"""Turn the axes of a source into the toolkit's: world z up, body x forward, y left, z up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.pose_track import PoseTrack, quaternion_of_matrix
from vlwm.core.errors import UsageError
from vlwm.core.geometry.frames import multiply_quaternions, rotate

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Axes:
    """Axes of a source.

    Attributes:
        world: (3, 3), source world to a world with z up.
        body: (3, 3), source body to x forward, y left, z up.
    """

    world: Floats
    body: Floats


_FRD = np.diag([1.0, -1.0, -1.0])  # forward, right, down
_NED = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])  # right, down, forward

AXES: Mapping[str, Axes] = {
    "enu": Axes(np.eye(3), np.eye(3)),
    "ned": Axes(_NED, _FRD),
    "camera": Axes(_OPTICAL, _OPTICAL),
}
"""by name: world z up and body forward-left-up; aviation; those of a camera"""


def check_frame(poses_of: str, axes: str | None) -> None:
    """Raise UsageError where --poses-of or --axes has another value than the known ones."""
    if poses_of not in ("body", "sensor"):
        raise UsageError(
            f"--poses-of {poses_of} is unknown", remedy="use --poses-of body or sensor"
        )
    if axes not in (None, *AXES):
        raise UsageError(f"--axes {axes} is unknown", remedy=f"use one of {', '.join(AXES)}")


def to_standard(track: PoseTrack, axes: Axes) -> PoseTrack:
    """Return a track of source axes in the toolkit's: world' = W · pose · Bᵀ."""
    world = quaternion_of_matrix(axes.world)
    body = quaternion_of_matrix(axes.body.T)
    turns = multiply_quaternions(multiply_quaternions(world, track.quaternions), body)
    return PoseTrack(track.times_s, rotate(world, track.positions), turns, track.breaks)


def mount_to_standard(mount: Floats, axes: Axes) -> Floats:
    """Return a mount (4, 4), sensor → source body, as sensor → the toolkit's body."""
    turned = np.eye(4)
    turned[:3, :3] = axes.body
    return np.asarray(turned @ mount)

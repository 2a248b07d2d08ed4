"""Cells that a vehicle may sweep in the next seconds: 33 candidate manoeuvres from the last pose.

A manoeuvre keeps a turn rate, a climb rate and a deceleration for three seconds: five turn rates,
three climb rates, cruising or braking at 3 m/s², and three straight emergency stops at 6 m/s². The
vehicle starts with the planar speed of the last past pose. Its body is a box of 1 m, aligned with
the world; `MARGIN_M` is added on every side.

Axes: M manoeuvres, T instants, X, Y, Z cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vlwm.core.geometry.frames import heading_of, to_ego
from vlwm.core.geometry.grid import VoxelGrid

DURATION_S = 3.0
"""of a manoeuvre"""
MARGIN_M = 0.5
"""around the body"""
BODY_M = 0.5  # half the side of the body
TURNS = (-0.8, -0.4, 0.0, 0.4, 0.8)  # rad/s
CLIMBS = (-2.0, 0.0, 2.0)  # m/s
BRAKES = (0.0, 3.0)  # m/s²
EMERGENCY = 6.0
"""braking, m/s²"""
_STEP_S = 0.1
"""between two places of a manoeuvre"""
_LOWEST_M = 2.0
"""a vehicle whose pose is lower above the terrain than this drives: it does not climb"""
_LIFT_M = 1.0
"""the ground under a driving vehicle is not an obstacle: its box begins at its pose"""


@dataclass(frozen=True)
class Manoeuvre:
    """Controls that are kept for `DURATION_S`.

    Attributes:
        turn: yaw rate, rad/s, left is positive.
        climb: m/s.
        brake: deceleration, m/s², until the vehicle stops.
    """

    turn: float
    climb: float
    brake: float

    def path(self, pose: np.ndarray, times_s: np.ndarray) -> np.ndarray:
        """Return positions (T, 3) after `times_s` (T,) from x, y, z, yaw, planar speed (5,)."""
        x, y, z, yaw, speed = pose
        fine = np.arange(0.0, times_s[-1] + 1e-9, _STEP_S / 5)
        pace = np.maximum(speed - self.brake * fine, 0.0)
        heading = yaw + self.turn * fine
        # Midpoint sums over steps of 20 ms: exact to millimetres at these rates.
        step = 0.5 * (pace[1:] + pace[:-1]) * np.diff(fine)
        middle = 0.5 * (heading[1:] + heading[:-1])
        along = np.concatenate([[0.0], np.cumsum(step * np.cos(middle))])
        across = np.concatenate([[0.0], np.cumsum(step * np.sin(middle))])
        return np.stack(
            [
                x + np.interp(times_s, fine, along),
                y + np.interp(times_s, fine, across),
                z + self.climb * times_s,
            ],
            axis=-1,
        )


def candidates(*, climbs: bool = True) -> list[Manoeuvre]:
    """Return the 33 manoeuvres; a vehicle that does not climb keeps its height in all of them."""
    rates = CLIMBS if climbs else (0.0,) * len(CLIMBS)
    manoeuvres = [Manoeuvre(t, c, b) for t in TURNS for c in rates for b in BRAKES]
    return manoeuvres + [Manoeuvre(0.0, c, EMERGENCY) for c in rates]


def paths_ahead(pose: np.ndarray, ground_z: float) -> np.ndarray:
    """Return positions float64 (M, T, 3) of all manoeuvres, every 0.1 s, in the frame of the pose.

    Args:
        pose: (13,), the last past pose.
        ground_z: terrain under it, metres.
    """
    speed = float(np.hypot(pose[7], pose[8]))
    start = np.array([*pose[:3], float(heading_of(pose[3:7])), speed])
    times = np.arange(_STEP_S, DURATION_S + 1e-9, _STEP_S)
    climbs = pose[2] - ground_z > _LOWEST_M
    start[2] += 0.0 if climbs else _LIFT_M
    return np.stack([m.path(start, times) for m in candidates(climbs=climbs)])


def swept_cells(
    paths: np.ndarray, ego: np.ndarray, grid: VoxelGrid, margin_m: float = MARGIN_M
) -> Tensor:
    """Return how many manoeuvres sweep each cell of a frame, uint8 (X, Y, Z).

    Args:
        paths: (M, T, 3), in the frame of `ego`.
        ego: (4,), ego frame of the grid.
        margin_m: added to the body on every side.
    """
    half = BODY_M + margin_m
    # Points of the box no farther apart than half a cell: every cell that it meets holds one.
    axes = [np.linspace(-half, half, int(np.ceil(4 * half / size)) + 1) for size in grid.cell_m]
    box = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)  # (P, 3)
    counts = np.zeros(grid.num_cells, dtype=np.uint8)
    shape = np.array(grid.shape)
    for path in paths:
        points = (path[:, None] + box).reshape(-1, 3)  # (T * P, 3)
        index = grid.index_of(to_ego(points, ego))
        inside = ((index >= 0) & (index < shape)).all(axis=1)
        flat = np.ravel_multi_index(tuple(index[inside].T), grid.shape)
        counts[np.unique(flat)] += 1
    return torch.from_numpy(counts.reshape(grid.shape))

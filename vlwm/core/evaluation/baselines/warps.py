"""Forecast without learning, with nearest cells: the baselines that need no parameter.

    without motion        empty, ground_prior, copy_last
    predicted motion      constant_velocity_warp, memory_baseline       (nobody knows the future)
    true motion given     true_pose_warp, true_pose_memory              (a drone knows its plan)

A warp is nearest and backward: the centre of each target cell goes to the world and into the
source frame's ego frame, and the cell it falls into is read. Predicted motion is the constant body
twist between the last two past poses (planar speed and yaw rate on an exact arc); the ground height
is held at its last value. With true motion, the true ground height is given as well.

These functions receive the past only, and the future ego frames only where they are given on
purpose, so that nothing else of the future can leak in.

Axes: F past frames, H horizons; X, Y, Z cells; C = X * Y columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vlwm.core.evaluation.baselines.motions import PastMotion
from vlwm.core.geometry.frames import constant_twist, quaternion_from_heading
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.warp import ego_memory

WITHOUT_MOTION = ("empty", "ground_prior", "copy_last")
PREDICTED_MOTION = ("constant_velocity_warp", "memory_baseline")
TRUE_MOTION = ("true_pose_warp", "true_pose_memory")
BASELINES = WITHOUT_MOTION + PREDICTED_MOTION + TRUE_MOTION
"""Names as in scores.json."""


@dataclass(frozen=True)
class PastFrames:
    """The past of one window, all that a forecast may read.

    Attributes:
        occupancy: uint8 (F, X, Y, Z), 0 or 1.
        ego: float64 (F, 4): the past ego frames x, y, ground z (m), heading (rad), all in one
            common frame (any gravity-aligned one).
        poses: float64 (F, 13), in the same frame; None: level vehicles at rest on the ground.
    """

    occupancy: Tensor
    ego: np.ndarray
    poses: np.ndarray | None = None

    def motion(self, dt_s: float) -> PastMotion:
        """Return the past poses as the motions of `motions` take them."""
        poses = self.poses
        if poses is None:
            poses = np.zeros((len(self.ego), 13))
            poses[:, :3] = self.ego[:, :3]
            poses[:, 3:7] = quaternion_from_heading(self.ego[:, 3])
        return PastMotion(poses[None], self.ego[None, :, 2], dt_s)


@dataclass(frozen=True)
class WarpedFrame:
    """The past in one future ego frame.

    Attributes:
        last: uint8 (X, Y, Z): the last frame, empty where its grid does not reach.
        memory: uint8 (X, Y, Z): occupied where at least half of the frames whose grid contains
            the cell have it occupied; the column prior where none contains it.
        seen: uint8 (X, Y, Z): cells inside the grid of at least one past frame.
    """

    last: Tensor
    memory: Tensor
    seen: Tensor


def predicted_ego(ego: np.ndarray, dt_s: float, horizons_s: np.ndarray) -> np.ndarray:
    """Return future ego frames by constant body twist between the last two past ones.

    Args:
        ego: float64 (F, 4).
        dt_s: time between the last two frames.
        horizons_s: (H,) seconds after the last frame.

    Returns:
        float64 (H, 4); the ground height is the last one.
    """
    return constant_twist(ego[-2], ego[-1], dt_s, horizons_s)


def warped_past(
    past: PastFrames, future_ego: np.ndarray, prior: np.ndarray, grid: VoxelGrid
) -> Iterator[WarpedFrame]:
    """Yield the past moved into each future ego frame, one horizon at a time to bound memory.

    Args:
        past: the past frames.
        future_ego: float64 (H, 4), in the frame of `past.ego`.
        prior: bool (Z,): layers that the column prior calls occupied.
        grid: the grid of all frames.
    """
    device = past.occupancy.device
    layers = torch.as_tensor(prior, dtype=torch.uint8, device=device)
    frames, past_ego = past.occupancy[None], torch.as_tensor(past.ego, device=device)[None]
    for target in future_ego:
        target_ego = torch.as_tensor(target, device=device)[None, None]
        votes = ego_memory(frames, past_ego, target_ego, grid)
        reach, occupied = votes.frames[0, 0], votes.occupied[0, 0]
        seen = (reach > 0).view(torch.uint8)
        memory = occupied.mul_(2).ge_(reach)  # true where no frame reaches
        memory.bitwise_and_(seen | layers)
        yield WarpedFrame(votes.last[0, 0], memory, seen)


def ground_forecast(prior: np.ndarray, grid: VoxelGrid, device: torch.device) -> Tensor:
    """Return uint8 (X, Y, Z): the column prior everywhere."""
    layers = torch.as_tensor(prior, dtype=torch.uint8, device=device)
    return layers.expand(grid.shape).contiguous()


def predicted_track(
    past: PastFrames, prior: np.ndarray, grid: VoxelGrid, dt_s: float, horizons_s: np.ndarray
) -> Iterator[dict[str, Tensor]]:
    """Yield forecasts from the past alone, one dict of uint8 (X, Y, Z) by method per horizon."""
    device = past.occupancy.device
    still = {
        "empty": torch.zeros(grid.shape, dtype=torch.uint8, device=device),
        "ground_prior": ground_forecast(prior, grid, device),
        "copy_last": past.occupancy[-1],
    }
    for warped in warped_past(past, predicted_ego(past.ego, dt_s, horizons_s), prior, grid):
        moved = dict(zip(PREDICTED_MOTION, (warped.last, warped.memory), strict=True))
        yield {**still, **moved}


def plan_track(
    past: PastFrames, future_ego: np.ndarray, prior: np.ndarray, grid: VoxelGrid
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Yield forecasts that get the true future motion, and the mask of what was seen.

    The mask is the zone `seen` of every method: cells inside the grid of at least one past frame
    under true poses.
    """
    for warped in warped_past(past, future_ego, prior, grid):
        yield dict(zip(TRUE_MOTION, (warped.last, warped.memory), strict=True)), warped.seen

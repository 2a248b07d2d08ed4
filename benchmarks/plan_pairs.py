"""Compare two plans from the same past: one through a wall, one next to it.

A forecast under a plan (`condition="plan"`) answers "what would be met there". Whether it answers
rightly can be told without driving: the last past frame holds the true walls around the vehicle. A
pair is a straight way on, at the vehicle's own height and speed, that hits one of them, and the
nearest heading that is free; the forecast must see more in the way of the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vlwm.core.data.batch import Batch, Plan
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.world_model import WorldModel

_STEP_DEG = 10
_BESIDE_DEG = 60
_CLEAR_M = 1.6  # of nothing on either side of a free way
_BEGIN_M = 2.0  # nearer than this is the vehicle itself
_LEAST_M_S = 4.0


@dataclass(frozen=True)
class Pair:
    """Two plans of one window.

    Attributes:
        into, beside: float64 (H, 4), future ego frames in the anchor frame.
        height_m: of the body above the ground.
    """

    into: np.ndarray
    beside: np.ndarray
    height_m: float


def straight(heading_rad: float, speed_m_s: float, horizons_s: np.ndarray) -> np.ndarray:
    """Return ego frames float64 (H, 4) of going straight on from the anchor under a heading."""
    way = speed_m_s * horizons_s
    cos, sin = np.cos(heading_rad), np.sin(heading_rad)
    return np.stack(
        [cos * way, sin * way, np.zeros_like(way), np.full_like(way, heading_rad)], axis=-1
    )


def pair_of(
    last: np.ndarray, height_m: float, speed_m_s: float, horizons_s: np.ndarray, grid: VoxelGrid
) -> Pair | None:
    """Return the pair of a window, or None if no wall is in reach or no way past it is free.

    Of several the one with the smallest turn from straight on.

    Args:
        last: uint8 (X, Y, Z), the last past frame.
        height_m: of the body above the ground there.
        speed_m_s: at least 4 m/s are driven.
        horizons_s: (H,).
        grid: the grid.
    """
    layer = _layer(height_m, grid)
    if layer is None or not last[..., :layer].any():  # in the ground, or none below
        return None
    speed = max(speed_m_s, _LEAST_M_S)
    reach = np.arange(_BEGIN_M, speed * horizons_s[-1], min(grid.cell_m[:2]) / 2)
    headings = sorted(range(-180, 180, _STEP_DEG), key=abs)
    walls = last[..., layer].astype(bool)
    hit = {h: bool(_along(walls, h, reach, (0.0,), grid).any()) for h in headings}
    free = {
        h for h in headings
        if not _along(walls, h, reach, (-_CLEAR_M, -_CLEAR_M / 2, 0.0, _CLEAR_M / 2, _CLEAR_M),
                      grid).any()
    }  # fmt: skip
    for heading in (h for h in headings if hit[h]):
        near = [h for h in free if abs((h - heading + 180) % 360 - 180) <= _BESIDE_DEG]
        if near:
            beside = min(near, key=lambda h: abs((h - heading + 180) % 360 - 180))
            into, free_way = (straight(np.radians(h), speed, horizons_s) for h in (heading, beside))
            return Pair(into, free_way, height_m)
    return None


def _layer(height_m: float, grid: VoxelGrid) -> int | None:
    layer = int(np.floor((height_m - grid.lower_m[2]) / grid.cell_m[2]))
    return layer if 1 <= layer < grid.shape[2] else None


def _along(
    walls: np.ndarray, heading_deg: int, reach: np.ndarray, aside: tuple[float, ...],
    grid: VoxelGrid,
) -> np.ndarray:  # fmt: skip
    """Return whether anything is occupied at each place along a way and at each offset from it."""
    cos, sin = np.cos(np.radians(heading_deg)), np.sin(np.radians(heading_deg))
    left = np.array(aside)[:, None]
    return _read(walls, cos * reach - sin * left, sin * reach + cos * left, grid)


def _read(plane: np.ndarray, x: np.ndarray, y: np.ndarray, grid: VoxelGrid) -> np.ndarray:
    """Return values of a plane (X, Y) at places in metres; 0 outside."""
    row = np.floor((x - grid.lower_m[0]) / grid.cell_m[0]).astype(np.int64)
    column = np.floor((y - grid.lower_m[1]) / grid.cell_m[1]).astype(np.int64)
    inside = (row >= 0) & (row < plane.shape[0]) & (column >= 0) & (column < plane.shape[1])
    found = plane[row.clip(0, plane.shape[0] - 1), column.clip(0, plane.shape[1] - 1)]
    return np.where(inside, found, 0)


def in_the_way(probability: Tensor, plan: np.ndarray, height_m: float, grid: VoxelGrid) -> float:
    """Return the highest predicted occupancy that the vehicle meets along a straight plan.

    Each frame is read from where the vehicle is in it back to where it was in the frame before.

    Args:
        probability: (H, X, Y, Z), each frame in its planned ego frame.
        plan: float64 (H, 4).
        height_m: of the body above the ground.
        grid: the grid.
    """
    layer = _layer(height_m, grid)
    if layer is None:
        raise ValueError(f"a height of {height_m} m is outside the grid")
    step = float(np.hypot(*plan[0, :2]))
    back = np.arange(0.0, step, min(grid.cell_m[:2]) / 2)
    met = 0.0
    for h, frame in enumerate(probability[..., layer].float().cpu().numpy()):
        behind = back[back < (h + 1) * step - _BEGIN_M]
        if len(behind):
            met = max(met, float(_read(frame, -behind, np.zeros_like(behind), grid).max()))
    return met


@torch.inference_mode()
def met_by(model: WorldModel, batch: Batch, history: int, pair: Pair) -> tuple[float, float]:
    """Return the occupancy that the model predicts on both plans of a window (a batch of one)."""
    past = batch.past(history)
    found = []
    for way in (pair.into, pair.beside):
        ego = torch.from_numpy(way).float()[None].to(batch.bits.device)
        poses = torch.zeros(1, len(way), 13).to(ego)
        forecast = model.forecast(past, Plan(ego, poses))
        found.append(in_the_way(torch.sigmoid(forecast.logits[0]), way, pair.height_m, model.grid))
    return found[0], found[1]


def pair_in(batch: Batch, model: WorldModel, horizons_s: np.ndarray, history: int) -> Pair | None:
    """Return the pair of a window (a batch of one)."""
    last = history - 1
    frame = model.reader.voxels(batch.bits[:, last:history], batch.symmetry)[0, 0].cpu().numpy()
    pose, terrain = batch.poses[0, last].double().cpu().numpy(), float(batch.ground_z[0, last])
    speed = float(np.hypot(pose[7], pose[8]))
    return pair_of(frame, float(pose[2]) - terrain, speed, horizons_s, model.grid)

"""Forecast future frames from the past frames alone: fusion, extrapolation, spread of the motion.

    past voxels ─► fusion ─► logits where a past frame reaches ─┐
                └► extrapolation ─► logits beyond its edge ─────┴─► averaged over the motion

Nothing here takes a gradient from the forecast: the fusion is trained by a loss of its own
(`world_loss`), the extrapolation counts cells.

Axes: B windows, P past frames, R target frames (future frames of windows), N of them with a
predicted motion, X, Y, Z cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.extrapolation import Extrapolation, unseen_columns
from vlwm.core.model.memory.fusion import FrameFusion
from vlwm.core.model.memory.plane_reading import PlaneFrames, PlaneReading
from vlwm.core.model.memory.warp import under_spread

Walls = list[PlaneReading]
"""the walls of each window"""


@dataclass(frozen=True)
class MemoryForecast:
    """Future frames as the past frames have them.

    Attributes:
        logits: (R, Z, X, Y).
        reach: (R, 1, X, Y), share of the past frames that reach a column; None where the logits
            are decoded tokens and not memory.
    """

    logits: Tensor
    reach: Tensor | None


@dataclass(frozen=True)
class TargetFrames:
    """Future frames that a forecast is made of, whichever windows they belong to.

    Attributes:
        window: int64 (R,), row of each frame's window in the batch.
        horizon: int64 (R,), number of the future frame.
        past_ego: (R, P, 4), ego frames of its window's past.
        ego: (R, 4), its own, predicted or planned.
    """

    window: Tensor
    horizon: Tensor
    past_ego: Tensor
    ego: Tensor


@dataclass(frozen=True)
class MotionSpread:
    """Draws of the place of target frames whose motion is predicted.

    Attributes:
        rows: int64 (N,), those target frames; all others follow a plan and have no spread.
        moves: (N, D, 3), D draws of x, y (m) and yaw (rad) beyond the expected motion.
    """

    rows: Tensor
    moves: Tensor


class MemoryBranch(nn.Module):
    """Reads the past frames at the place of future ones.

    Args:
        history: past frames.
        channels: width of the fusion.
        grid: the grid of all frames.
        planes: let the fusion read walls as planes.
    """

    def __init__(
        self, history: int, channels: int, grid: VoxelGrid, *, planes: bool = False
    ) -> None:
        super().__init__()
        self.grid = grid
        self.fusion = FrameFusion(history, channels, planes=planes)
        self.extrapolation = Extrapolation()

    @torch.no_grad()
    def forward(
        self,
        voxels: Tensor,
        target: TargetFrames,
        prior: Tensor,
        spread: MotionSpread | None,
        known: Tensor | None = None,
        walls: Walls | None = None,
    ) -> MemoryForecast:
        """Return the target frames, as sure as their motion is.

        The host waits for a GPU once, in `unseen_columns`, before the past is read; everything
        after that is queued while the GPU reads.

        Args:
            voxels: uint8 (B, F, X, Y, Z), the P past frames first; later ones are not read.
            target: the frames to forecast.
            prior: logits (Z,) of the column prior.
            spread: of the predicted motions; None where every target frame is planned.
            known: uint8 (B, P, X, Y, Z), cells of the past that are known; None: all of them.
            walls: of `fit_walls`, if the fusion reads them.
        """
        # (B, P, X, Y, Z); asked for first, since the host waits here
        past = voxels[:, : target.past_ego.shape[1]]
        unseen = unseen_columns(past, target.past_ego, target.ego, self.grid, target.window)
        logits, reach = self.fusion.read(
            voxels, target.window, target.past_ego, target.ego, self.grid, prior, known,
            None if walls is None else self.planes(walls, target.window, target.ego),
        )  # fmt: skip
        # where no past frame reaches, the column's state at the edge decides
        unseen.put(logits, self.extrapolation(unseen, prior))
        if spread is not None:
            logits = self._averaged(logits, target.ego, spread)
        return MemoryForecast(logits, reach)

    def fit_walls(
        self, past: Tensor, past_ego: Tensor, known: Tensor | None = None
    ) -> Walls | None:
        """Return the walls of windows as planes; None where the fusion does not read them.

        Args:
            past: uint8 (B, P, X, Y, Z).
            past_ego: (B, P, 4).
            known: uint8 (B, P, X, Y, Z), cells of the past that are known; None: all of them.
        """
        if not self.fusion.planes:
            return None
        ego = past_ego.double().cpu().numpy()
        masks = [None] * len(past) if known is None else list(known)
        windows = zip(past, ego, masks, strict=True)
        return [PlaneReading(frames, own, self.grid, mask) for frames, own, mask in windows]

    def planes(self, walls: Walls, window: Tensor, ego: Tensor) -> PlaneFrames:
        """Return ego frames (R, 4) as the walls of windows (R,) have them."""
        rows = zip(window.tolist(), ego.double().cpu().numpy(), strict=True)
        return PlaneFrames.joined([walls[row].read(place) for row, place in rows])

    def _averaged(self, logits: Tensor, ego: Tensor, spread: MotionSpread) -> Tensor:
        """Return logits (R, Z, X, Y) whose predicted rows are means over their motion."""
        if len(spread.rows) == len(logits):  # then a copy by index is not needed
            return self._mean_over_draws(logits, ego, spread.moves)
        # planned rows have no spread and stay as they are
        rows = spread.rows
        logits[rows] = self._mean_over_draws(logits[rows], ego[rows], spread.moves)
        return logits

    def _mean_over_draws(self, logits: Tensor, ego: Tensor, moves: Tensor) -> Tensor:
        # the mean is over probabilities: a wall of uncertain place is improbable everywhere
        with torch.autocast(logits.device.type, enabled=False):
            mean = under_spread(torch.sigmoid(logits), ego, moves, self.grid)
        # a mean of 0 or 1 is bounded: its logit would be infinite
        return torch.logit(mean, eps=1e-4)

    @torch.no_grad()
    def count_unseen(
        self,
        past: Tensor,
        past_ego: Tensor,
        future: Tensor,
        ego: Tensor,
        horizons: range,
        known: Tensor | None = None,
    ) -> None:
        """Count what is in the columns of future frames that no past frame reaches.

        Args:
            past: uint8 (B, P, X, Y, Z).
            past_ego: (B, P, 4).
            future: uint8 (B, H, X, Y, Z), the truth.
            ego: (B, H, 4), where it is.
            horizons: numbers of the future frames to count.
            known: uint8 (B, H, X, Y, Z), cells whose truth is known; None: all of them.
        """
        for h in horizons:
            # one target frame for each window
            unseen = unseen_columns(past, past_ego, ego[:, h], self.grid)
            counted = None if known is None else known[:, h]
            self.extrapolation.count(unseen, future[:, h], counted)

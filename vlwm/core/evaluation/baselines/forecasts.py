"""Probabilities of the fitted baselines for one window, one horizon at a time.

Axes: H horizons; X, Y, Z cells.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from torch import Tensor

from vlwm.core.evaluation.baselines.fitted import FittedBaselines
from vlwm.core.evaluation.baselines.planes import PlaneScene
from vlwm.core.evaluation.baselines.scenes import MeanScene, Scene, spread
from vlwm.core.evaluation.baselines.warps import PastFrames
from vlwm.core.geometry.grid import VoxelGrid


class BaselineForecasts:
    """Forecasts of one window.

    Args:
        past: its past frames and poses, in the anchor frame.
        fitted: parameters of the baselines.
        grid: of all frames.
        dt_s: seconds between frames.
        only: methods that are wanted; None: all.
    """

    def __init__(
        self,
        past: PastFrames,
        fitted: FittedBaselines,
        grid: VoxelGrid,
        dt_s: float,
        only: Collection[str] | None = None,
    ) -> None:
        self.past, self.fitted, self.grid = past, fitted, grid
        self.only = fitted.methods if only is None else only
        self._scenes: dict[str, Scene] = {}
        motion = past.motion(dt_s)
        self.ego: dict[str, np.ndarray] = {}  # (H, 4) by motion
        self._draws: dict[str, np.ndarray] = {}  # (M, H, 3) by motion
        for name, found in fitted.motions.items():
            self.ego[name] = found.expected(motion)[0]
            self._draws[name] = found.draws(motion)[0]

    def predicted(self, horizon: int) -> dict[str, Tensor]:
        """Return float32 (X, Y, Z) by method of the predicted track."""
        sources = {f"mean_{name}": ("mean", name) for name in self.fitted.motions}
        motion = self.fitted.planes_motion
        sources[f"planes_{motion}"] = ("planes", motion)
        return {
            method: self._moved(scene, motion, horizon)
            for method, (scene, motion) in sources.items()
            if method in self.only
        }

    def planned(self, ego: np.ndarray) -> dict[str, Tensor]:
        """Return float32 (X, Y, Z) by method in the true ego frame (4,)."""
        return {
            method: self._scene(method.removeprefix("true_pose_")).read(ego).permute(1, 2, 0)
            for method in ("true_pose_mean", "true_pose_mean_edges", "true_pose_planes")
            if method in self.only
        }

    def _moved(self, scene: str, motion: str, horizon: int) -> Tensor:
        """Return the scene at the expected motion, averaged over the spread of its errors."""
        ego = self.ego[motion][horizon]
        here = self._scene(scene).read(ego)
        return spread(here, ego, self._draws[motion][:, horizon], self.grid).permute(1, 2, 0)

    def _scene(self, kind: str) -> Scene:
        """Return the scene of a kind, made at first use: planes take the longest."""
        if kind not in self._scenes:
            device = self.past.occupancy.device
            background = self.fitted.background(device, edges=kind != "mean")
            make = PlaneScene if kind == "planes" else MeanScene
            self._scenes[kind] = make(self.past, self.grid, background)
        return self._scenes[kind]


def at_threshold(
    forecasts: dict[str, Tensor], fitted: FittedBaselines, horizon: int
) -> dict[str, Tensor]:
    """Return uint8 (X, Y, Z) of probabilities by method, each at its own thresholds."""
    return {
        method: fitted.thresholds_of(method).occupied(probability.contiguous(), horizon)
        for method, probability in forecasts.items()
    }

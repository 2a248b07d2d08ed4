"""Turn depth pictures into points of a camera that looks along x, with y right and z down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DepthCamera:
    """A pinhole camera that measures depth along its axis.

    Attributes:
        focal_px: focal length.
        centre_px: (u, v) of the axis; the centre of the first pixel is at `first_px`.
        first_px: 0 or 0.5.
        farthest_m: greater depths are sky.
        step: each `step`-th pixel along both axes becomes a point.
    """

    focal_px: float
    centre_px: tuple[float, float]
    first_px: float = 0.0
    farthest_m: float = 100.0
    step: int = 3

    def points(self, depth: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return points (N, 3), forward, right, down in metres, of a depth picture (V, U)."""
        rows = np.arange(self.step // 2, depth.shape[0], self.step)
        columns = np.arange(self.step // 2, depth.shape[1], self.step)
        along = depth[np.ix_(rows, columns)].astype(np.float64)  # (V', U')
        right = (columns + self.first_px - self.centre_px[0]) / self.focal_px  # (U',)
        down = (rows + self.first_px - self.centre_px[1]) / self.focal_px  # (V',)
        valid = np.isfinite(along) & (along > 0.0) & (along < self.farthest_m)
        points = np.stack([along, along * right[None, :], along * down[:, None]], axis=-1)
        return points[valid].astype(np.float32)

"""The answer of a model as NumPy arrays in the caller's world frame.

Axes: H future frames, X, Y, Z cells, D numbers of a vehicle's state; a batch adds B in front.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from os import PathLike

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlwm.core.errors import UsageError
from vlwm.core.geometry.frames import ego_of, to_ego
from vlwm.core.geometry.grid import VoxelGrid

_ARRAYS = ("probability", "occupied", "poses", "ego", "sigma")
_STEP = 0.5  # of the radius between two samples of a swept volume


@dataclass(frozen=True, eq=False)
class Forecast:
    """The future of one window, or of B windows where every array has an axis B in front.

    Frame h is the occupancy at `horizons_s[h]` after the last past frame, in the ego frame
    `ego[h]`: x ahead, y left, z up from the terrain, with the heading of the vehicle then.

    Attributes:
        probability: float32 (H, X, Y, Z), that a cell is occupied.
        occupied: bool (H, X, Y, Z), the probability at the thresholds that validation chose.
        poses: float64 (H, 13), predicted poses in the world frame of the poses that were given;
            metres, quaternions x, y, z, w, m/s and rad/s. Under a plan they are still predicted.
        ego: float64 (H, 4), x, y, terrain height (m) and heading (rad) of the frames in which
            `probability` is given: predicted, or those of the plan.
        sigma: float64 (H, D), standard deviation of the predicted motion: x, y, z (m), yaw (rad)
            and, with six degrees of freedom, roll, pitch (rad), velocities (m/s, rad/s).
        horizons_s: float64 (H,), seconds after the last past frame.
        grid: the cells of a frame.
        planned: True where the future motion was given as a plan.
        attribution: sources of the training data, to be shown with what is made of the forecast.
        classes: uint8 (H, X, Y, Z), the class of each cell, free where it is not occupied; None
            of a model without classes.
    """

    probability: NDArray[np.float32]
    occupied: NDArray[np.bool_]
    poses: NDArray[np.float64]
    ego: NDArray[np.float64]
    sigma: NDArray[np.float64]
    horizons_s: NDArray[np.float64]
    grid: VoxelGrid
    planned: bool = False
    attribution: str = ""
    classes: NDArray[np.uint8] | None = None

    @property
    def batched(self) -> bool:
        """Return True where the arrays have an axis of windows in front."""
        return self.ego.ndim == 3

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.ego) if self.batched else 1

    def __getitem__(self, window: int) -> Forecast:
        """Return one window of a batch.

        Raises:
            UsageError: this is one window already.
        """
        if not self.batched:
            raise UsageError(
                "this forecast is of one window, not of a batch",
                remedy="index its arrays: forecast.probability[h]",
            )
        kinds = None if self.classes is None else self.classes[window]
        return replace(
            self, classes=kinds, **{name: getattr(self, name)[window] for name in _ARRAYS}
        )

    def at(self, points: ArrayLike, horizon: int) -> NDArray[np.float64]:
        """Return the probability (...) that points (..., 3) are occupied at a future frame.

        Args:
            points: metres, in the world frame of the poses.
            horizon: index of the future frame.

        Returns:
            NaN for points outside the grid, where there is no forecast.
        """
        self._require_one_window()
        local = to_ego(points, self.ego[horizon])
        inside = self.grid.contains(local)
        found = np.full(inside.shape, np.nan)
        index = self.grid.index_of(local)[inside]
        found[inside] = self.probability[horizon][tuple(index.T)]
        return found

    def along(self, path: ArrayLike, radius_m: float) -> NDArray[np.float64]:
        """Return the highest probability (H,) of a cell that a vehicle sweeps on its way.

        Between two positions the vehicle is a ball that moves in a straight line. The way to the
        first position of the path is not part of it.

        Args:
            path: (H, 3) positions or (H, 13) poses in metres, one a future frame.
            radius_m: radius of the vehicle with its margin, metres.

        Returns:
            NaN where a part of the swept volume leaves the grid at that frame: unknown, not free.

        Raises:
            UsageError: another number of positions, or a radius that is not positive.
        """
        self._require_one_window()
        places = np.asarray(path, dtype=np.float64)[..., :3]
        if places.shape != (len(self.horizons_s), 3) or not radius_m > 0:
            raise UsageError(
                f"a path of shape {np.shape(path)} with a radius of {radius_m:g} m",
                remedy=f"give ({len(self.horizons_s)}, 3) metres and a radius above 0",
            )
        ball = _ball(radius_m, min(self.grid.cell_m))
        before = np.concatenate([places[:1], places[:-1]])
        worst = []
        for h, (start, end) in enumerate(zip(before, places, strict=True)):
            steps = 1 + int(np.ceil(np.linalg.norm(end - start) / (_STEP * radius_m)))
            line = np.linspace(start, end, steps)  # (S, 3)
            worst.append(np.max(self.at(line[:, None] + ball, h)))  # NaN spreads: unknown
        return np.array(worst)

    def to_mcap(
        self,
        path: str | PathLike[str],
        *,
        past: ArrayLike | None = None,
        past_poses: ArrayLike | None = None,
        ground_z: ArrayLike = 0.0,
        truth: ArrayLike | None = None,
        plan: ArrayLike | None = None,
    ) -> int:
        """Write the forecast as MCAP for Foxglove; returns the number of messages.

        Args:
            path: the file; needs the extra vlwm[mcap].
            past: (P, X, Y, Z) of 0 and 1 with `past_poses` (P, 13), to be shown before it.
            past_poses: as `Model.forecast` takes them, quaternions x, y, z, w.
            ground_z: terrain height under the vehicle: a number or (P,), metres.
            truth: (H, X, Y, Z) of 0 and 1, to be compared with.
            plan: (H, 3) positions or (H, 13) poses to be flown.

        Raises:
            UsageError: this is a batch, or one of `past` and `past_poses` is missing.
            MachineError: the extra is not installed.
        """
        from vlwm.core.export.mcap_file import McapWindow, write_mcap

        self._require_one_window()
        if (past is None) != (past_poses is None):
            raise UsageError(
                "past frames are placed by their poses, and one of both is missing",
                remedy="give past= and past_poses=, or neither",
            )
        cells = np.asarray([] if past is None else past, dtype=np.uint8)
        cells = cells.reshape(-1, *self.grid.shape)  # (P, X, Y, Z)
        ego = self.ego
        if past_poses is not None:
            ego = np.concatenate([ego_of(past_poses, ground_z), ego])
        step = float(self.horizons_s[0])
        window = McapWindow(
            grid=self.grid,
            times_s=np.concatenate([step * np.arange(1 - len(cells), 1), self.horizons_s]),
            ego=ego,
            past=cells,
            truth=None if truth is None else np.asarray(truth, dtype=np.uint8),
            forecast=self.occupied,
            probability=self.probability,
            plan=None if plan is None else np.asarray(plan, dtype=np.float64),
            attribution=self.attribution,
        )
        return write_mcap(path, [window])

    def _require_one_window(self) -> None:
        if self.batched:
            raise UsageError("this forecast is of a batch", remedy="take one window: forecast[0]")

    def __repr__(self) -> str:
        """Return the sizes, not the numbers."""
        shapes = {f.name: getattr(self, f.name).shape for f in fields(self) if f.name in _ARRAYS}
        return f"Forecast({shapes}, horizons_s={self.horizons_s.tolist()})"


def _ball(radius_m: float, cell_m: float) -> NDArray[np.float64]:
    """Return points (N, 3) of a ball about 0, at most half a cell apart, its surface included."""
    count = 2 * int(np.ceil(radius_m / (cell_m / 2))) + 1
    axis = np.linspace(-radius_m, radius_m, count)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    distance = np.linalg.norm(points, axis=1, keepdims=True)
    shell = points / np.maximum(distance, 1e-12) * radius_m  # the surface between the lattice
    return np.concatenate([points[distance[:, 0] <= radius_m], shell])

"""Forecast with the files of `vlwm export --onnx`: NumPy and onnxruntime, no torch.

`vlwm export --onnx` copies this file, `runtime.py`, `vehicle_motion.py` and `frames.py` next to the
graphs, where they need nothing of vlwm:

    from onnx_model import OnnxModel

    model = OnnxModel("exported/onnx")
    forecast = model.forecast(occupancy, poses)

A pose is x y z, qx qy qz qw, vx vy vz, wx wy wz in one world frame, m, m/s and rad/s.

Axes: P past and H future frames, X, Y, Z cells, D components of a state, N draws.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vlwm.core.export.onnx import runtime, vehicle_motion
from vlwm.core.geometry import frames

_PLANNED_LOG_SIGMA = -5.0
"""a planned motion counts as known to 7 mm"""
_FAR = 4.0
"""size at which scaled features are squashed"""
_MARGIN = 8
"""cells kept around the window's frame while an observed past is fused"""
_TYPES = {"tensor(uint8)": np.uint8, "tensor(int32)": np.int32, "tensor(float)": np.float32,
          "tensor(double)": np.float64}  # fmt: skip


@dataclass(frozen=True)
class OnnxForecast:
    """The future of one window, as `vlwm.Forecast` has it.

    Attributes:
        probability: float32 (H, X, Y, Z), that a cell is occupied.
        occupied: bool (H, X, Y, Z), at the thresholds that validation chose.
        poses: (H, 13), predicted, world frame.
        ego: (H, 4), x, y, terrain height (m), heading (rad) of the frames of `probability`.
        sigma: (H, D), standard deviation of the predicted motion.
    """

    probability: np.ndarray
    occupied: np.ndarray
    poses: np.ndarray
    ego: np.ndarray
    sigma: np.ndarray


@dataclass(frozen=True)
class _Track:
    """The motion of one window, in the frame of its last past pose.

    Attributes:
        anchor: (4,), that frame in the world: x, y, terrain height (m), heading (rad).
        poses: (P, 13), past poses.
        ground: (P,), metres of terrain under them.
        ego: (P, 4), past ego frames.
        plan: (H, 4), ego frames to be flown; None: they are predicted.
    """

    anchor: np.ndarray
    poses: np.ndarray
    ground: np.ndarray
    ego: np.ndarray
    plan: np.ndarray | None


class OnnxModel:
    """An exported model.

    Args:
        folder: with the graphs, onnx.json and constants.npz.
        providers: of onnxruntime, such as ["TensorrtExecutionProvider"]; motion.onnx, which is
            small and in float64, always runs on the CPU.
        threads: of the CPU provider; 0: as many as it likes.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int = 0,
    ) -> None:
        import onnxruntime

        self.folder = Path(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.about = json.loads((self.folder / "onnx.json").read_text(encoding="utf-8"))
        self.constants = dict(np.load(self.folder / "constants.npz"))
        cpu = ["CPUExecutionProvider"]
        self._graphs = {
            name: onnxruntime.InferenceSession(
                str(self.folder / f"{name}.onnx"), options,
                providers=cpu if name == "motion" else list(providers),
            )
            for name in self.about["graphs"]
        }  # fmt: skip

    def _run(self, graph: str, **arrays: np.ndarray | None) -> list[np.ndarray]:
        """Run a graph with those of the arrays that it reads."""
        session = self._graphs[graph]
        wanted = {node.name: _TYPES[node.type] for node in session.get_inputs()}
        return list(session.run(None, {k: np.asarray(arrays[k], t) for k, t in wanted.items()}))

    def forecast(
        self,
        occupancy: ArrayLike,
        poses: ArrayLike,
        *,
        plan: ArrayLike | None = None,
        ground_z: ArrayLike = 0.0,
        known: ArrayLike | None = None,
    ) -> OnnxForecast:
        """Forecast one window.

        Args:
            occupancy: (P, X, Y, Z) of 0 and 1, oldest frame first, each in its own ego frame.
            poses: (P, 13), quaternions x, y, z, w and velocities of the world frame.
            plan: (H, 13), the poses to be flown; None: the motion is predicted.
            ground_z: terrain under the vehicle, world frame, m: a number, (P,) or (P + H,).
            known: like occupancy, 1 where a cell was observed; None: everywhere.
        """
        occupied, free = self._cells(occupancy, known)
        track = self._track(poses, plan, ground_z)
        outputs = self._run("past", occupied=occupied, past_ego=track.ego)
        shared = dict(zip(self.about["past_outputs"], outputs, strict=True))
        state, log_sigma, sigma, moves = self._motion(
            track.poses, track.ground, shared.get("context")
        )
        predicted = np.stack([state[:, 0], state[:, 1], 0 * state[:, 0], state[:, 3]], -1)
        planned = track.plan is not None
        ego = predicted if track.plan is None else track.plan
        if self.about["tokens"]:
            every_ego = np.concatenate([track.ego, ego])
            (shared["maps"],) = self._run("tokens", tokens=shared["tokens"], ego=every_ego)
        unsure = np.full((len(ego), 4), _PLANNED_LOG_SIGMA) if planned else log_sigma[:, :4]
        walls = _Walls(occupied, track.ego, self.about) if self.about.get("planes") else None
        cells = []
        for h in range(len(ego)):
            marked = {} if walls is None else walls.arrays(ego[h])
            one_hot = np.eye(len(ego))[h]
            condition = np.concatenate([one_hot, [float(planned)], unsure[h] / 5, ego[h] / 10])
            draws = self._drawn(moves[h], ego[h])
            arrays = {"past": occupied, "free": free, "draws": draws, **marked}
            arrays["condition"] = condition
            cells.append(self._frame(h, arrays, shared, track, ego[h]))
        name = "model_plan" if planned else "model"
        return OnnxForecast(
            probability=np.stack(cells),
            occupied=np.stack([self._cut(p, name, h) for h, p in enumerate(cells)]),
            poses=frames.poses_from_ego(vehicle_motion.poses_of(state), track.anchor),
            ego=frames.compose_ego(track.anchor, ego),
            sigma=sigma,
        )

    def _cells(
        self, occupancy: ArrayLike, known: ArrayLike | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return uint8 (P, X, Y, Z), the cells that are known as occupied, and as free.

        Raises:
            ValueError: cells are unknown, and the model was trained on complete frames.
        """
        cells = np.asarray(occupancy, np.uint8)
        seen = np.ones_like(cells) if known is None else np.asarray(known, np.uint8)
        if not self.about["observed"] and not seen.all():
            raise ValueError("this model was trained on complete frames: it would read unknown "
                             "cells as free; complete the frames first")  # fmt: skip
        return cells & seen, seen & (1 - cells)

    def _track(self, poses: ArrayLike, plan: ArrayLike | None, ground_z: ArrayLike) -> _Track:
        """Move poses and plan from the world into the frame of the last past pose."""
        past, future = self.about["history"], self.about["future"]
        own = _unit(poses)[:past]
        heights = np.broadcast_to(np.asarray(ground_z, np.float64), np.shape(ground_z) or (past,))
        later = heights[past:] if len(heights) > past else np.repeat(heights[past - 1], future)
        anchor = frames.ego_of(own[-1], heights[past - 1])
        flown = own[past:] if plan is None else _unit(plan)
        every, above = np.concatenate([own, flown]), np.concatenate([heights[:past], later])
        moved, above = frames.anchor_poses(every, above[: len(every)], past - 1)
        here, ground = _rounded(moved[:past]), _rounded(above[:past])
        ahead = None if plan is None else _rounded(frames.ego_of(moved[past:], above[past:]))
        return _Track(anchor, here, ground, frames.ego_of(here, ground), ahead)

    def _frame(
        self,
        h: int,
        arrays: dict[str, np.ndarray],
        shared: dict[str, np.ndarray],
        track: _Track,
        ego: np.ndarray,
    ) -> np.ndarray:
        """Return the probability (X, Y, Z) of future frame `h`, which is at `ego` (4,).

        Args:
            arrays: further inputs of the graph, by name.
            shared: by name, what past.onnx computes once for all future frames.
        """
        about = self.about
        away = frames.relative_ego(track.ego, ego)
        reading = runtime.reading(away, about)
        if about["observed"]:
            reading = runtime.column_reading(away, about, _MARGIN)
        (frame,) = self._run(
            "frame" if track.plan is None else "plan_frame", **arrays, edges=shared["edges"],
            **reading,
            unseen=runtime.unseen_columns(away, about, about["distances"]),
            tokens=shared["maps"][h] if about["tokens"] else None,
        )  # fmt: skip
        return frame

    def _motion(
        self, poses: np.ndarray, ground: np.ndarray, context: np.ndarray | None
    ) -> list[np.ndarray]:
        """Return state, log-sigma, sigma (H, D) and moves (H, N, 3) in the last ego frame."""
        about, fitted = self.about, self.constants
        future, dt_s = about["future"], about["dt_s"]
        features = vehicle_motion.pose_features(poses, ground, dt_s).reshape(-1) - fitted["mean"]
        features = _FAR * np.tanh(features @ fitted["matrix"] / _FAR)
        constant = vehicle_motion.constant_motion(poses, future, about["size"])
        ridge = None
        if about["ridge"]:
            ridge = vehicle_motion.ridge_motion(poses, ground, fitted, dt_s, future)[None]
        return self._run("motion", features=features[None], constant=constant[None],
                         ridge=ridge, context=context)  # fmt: skip

    def _drawn(self, moves: np.ndarray, ego: np.ndarray) -> np.ndarray:
        """Return affine factors (N, 6) of drawn frames in the expected one."""
        x, y = vehicle_motion.turn_plane(moves[:, 0], moves[:, 1], -ego[3])
        drawn = np.stack([x, y, 0 * x, moves[:, 2]], -1)
        return runtime.affine_factors(drawn, self.about["lower_m"], self.about["cell_m"])

    def _cut(self, probability: np.ndarray, track: str, horizon: int) -> np.ndarray:
        """Return bool (X, Y, Z) at the thresholds of the ground of a column and above it."""
        cut = self.about["thresholds"][track]
        if not cut["ground"]:
            return probability >= np.float32(cut["threshold"])
        ground = (probability >= probability.max(-1, keepdims=True) / 2).argmax(-1)[..., None]
        above = np.arange(probability.shape[-1]) > ground
        limits = np.float32(cut["above"][horizon]), np.float32(cut["ground"][horizon])
        return probability >= np.where(above, *limits)


def _unit(poses: ArrayLike) -> np.ndarray:
    """Return a copy of poses (F, 13) in float64 whose quaternions have length 1, as vlwm's have."""
    copied = np.array(poses, np.float64)
    copied[:, 3:7] /= np.linalg.norm(copied[:, 3:7], axis=-1, keepdims=True)
    return copied


def _rounded(values: np.ndarray) -> np.ndarray:
    """Return values in the precision in which the model takes them."""
    return values.astype(np.float32).astype(np.float64)


class _Walls:
    """Walls of one window as planes, fitted by vlwm's own code, which needs no torch.

    Args:
        cells: uint8 (P, X, Y, Z), the past.
        past_ego: (P, 4).
        about: of onnx.json.
    """

    def __init__(self, cells: np.ndarray, past_ego: np.ndarray, about: dict[str, Any]) -> None:
        try:
            from vlwm.core.geometry.grid import VoxelGrid
            from vlwm.core.model.memory.walls import fit_planes, plane_voxels
        except ImportError as error:
            raise ImportError("this model reads walls as planes: pip install vlwm") from error
        self._marked = plane_voxels
        self.grid = VoxelGrid(*(tuple(about[key]) for key in ("lower_m", "cell_m", "shape")))
        self.triangles = fit_planes(cells, past_ego, self.grid)
        self.explained = np.stack([self._voxels(own) for own in past_ego])

    def arrays(self, ego: np.ndarray) -> dict[str, np.ndarray]:
        """Return the inputs of a frame's graph: the cells that walls meet there and in the past."""
        return {"planes": self._voxels(ego), "explained": self.explained}

    def _voxels(self, ego: np.ndarray) -> np.ndarray:
        return self._marked(self.triangles, ego, self.grid)

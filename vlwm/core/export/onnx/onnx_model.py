"""Forecast with the files of `vlwm export --onnx`: NumPy and onnxruntime, no torch.

`vlwm export --onnx` copies this file and `runtime.py` next to the graphs, where they need nothing
of vlwm:

    from onnx_model import OnnxModel

    model = OnnxModel("exported/onnx")
    forecast = model.forecast(occupancy, poses)

A pose is x y z, qx qy qz qw, vx vy vz, wx wy wz in one world frame, m, m/s and rad/s.

Axes: P past and H future frames, X, Y, Z cells, D components of a state, N draws.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlwm.core.export.onnx import runtime

_PLANNED_LOG_SIGMA = -5.0
_FAR = 4.0
_MARGIN = 8


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


class OnnxModel:
    """An exported model.

    Args:
        folder: with past.onnx, frame.onnx, plan_frame.onnx, onnx.json and constants.npz.
        providers: of onnxruntime, such as ["TensorrtExecutionProvider"].
        threads: of the CPU provider; 0: as many as it likes.
    """

    def __init__(self, folder: Any, providers: Any = ("CPUExecutionProvider",), threads: int = 0):
        import onnxruntime

        self.folder, options = Path(folder), onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.about = json.loads((self.folder / "onnx.json").read_text(encoding="utf-8"))
        self.constants = dict(np.load(self.folder / "constants.npz"))
        self._graphs = {
            name: onnxruntime.InferenceSession(
                str(self.folder / f"{name}.onnx"), options, providers=list(providers)
            )
            for name in ("past", "frame", "plan_frame")
        }

    def _run(self, graph: str, **given: Any) -> list[np.ndarray]:
        """Run a graph with those of the arrays that it reads."""
        session = self._graphs[graph]
        wanted = {node.name: np.uint8 if "uint8" in node.type else np.float32
                  for node in session.get_inputs()}  # fmt: skip
        return list(session.run(None, {k: np.asarray(given[k], t) for k, t in wanted.items()}))

    def forecast(
        self,
        occupancy: Any,
        poses: Any,
        *,
        plan: Any = None,
        ground_z: Any = 0.0,
        known: Any = None,
    ) -> OnnxForecast:
        """Forecast one window.

        Args:
            occupancy: (P, X, Y, Z) of 0 and 1, oldest frame first, each in its own ego frame.
            poses: (P, 13), quaternions x, y, z, w and velocities of the world frame.
            plan: (H, 13), the poses to be flown; None: the motion is predicted.
            ground_z: terrain under the vehicle, world frame, m: a number, (P,) or (P + H,).
            known: like occupancy, 1 where a cell was observed; None: everywhere.
        """
        about, cells = self.about, np.asarray(occupancy, np.uint8)
        past, future = about["history"], about["future"]
        seen = np.ones_like(cells) if known is None else np.asarray(known, np.uint8)
        if not about["observed"] and not seen.all():
            raise ValueError("this model was trained on complete frames: it would read unknown "
                             "cells as free; complete the frames first")  # fmt: skip
        own = np.asarray(poses, np.float64)[:past]
        heights = np.broadcast_to(np.asarray(ground_z, np.float64), np.shape(ground_z) or (past,))
        later = heights[past:] if len(heights) > past else np.repeat(heights[past - 1], future)
        anchor = runtime.ego_of(own[-1], heights[past - 1])
        here, ground = runtime.anchored(own, heights[:past], anchor)
        past_ego = runtime.ego_of(here, ground)
        features = (
            runtime.pose_features(here, ground, about["dt_s"]).reshape(-1) - self.constants["mean"]
        )
        features = _FAR * np.tanh(features @ self.constants["matrix"] / _FAR)
        plan_ego = np.zeros((future, 4))
        if plan is not None:
            plan_ego = runtime.ego_of(
                *runtime.anchored(np.asarray(plan, np.float64), later, anchor)
            )
        constant = runtime.constant_motion(here, future, about["size"])
        ridge = None
        if about["ridge"]:
            ridge = runtime.ridge_motion(here, ground, self.constants, about["dt_s"], future)[None]
        wide_places, wide_lift = self._factors(past_ego, past_ego[-1], _MARGIN)
        found = self._run(
            "past", features=features[None], constant=constant[None], ridge=ridge,
            occupied=cells & seen, free=seen & (1 - cells), places=wide_places, lift=wide_lift,
            past_ego=past_ego, plan_ego=plan_ego, planned=[float(plan is not None)],
        )  # fmt: skip
        state, log_sigma, sigma, moves, edges = found[:5]
        fused = found[5] if about["observed"] else None
        predicted = np.stack([state[:, 0], state[:, 1], 0 * state[:, 0], state[:, 3]], -1)
        ego = plan_ego if plan is not None else predicted.astype(np.float64)
        frames = []
        for h in range(future):
            places, lift = self._factors(past_ego, ego[h])
            wide, wide_up = self._factors(past_ego[-1:], ego[h], _MARGIN)
            unsure = log_sigma[h, :4] if plan is None else np.full(4, _PLANNED_LOG_SIGMA)
            flag = [float(plan is not None)]
            condition = np.concatenate([np.eye(future)[h], flag, unsure / 5, ego[h] / 10])
            (frame,) = self._run(
                "frame" if plan is None else "plan_frame", past=cells & seen, edges=edges,
                places=places, lift=lift, condition=condition, fused=fused, anchor=wide,
                anchor_lift=wide_up, draws=self._drawn(moves[h], ego[h]),
                tokens=found[-1][h] if about["tokens"] else None,
            )  # fmt: skip
            frames.append(frame)
        track = "model" if plan is None else "model_plan"
        return OnnxForecast(
            probability=np.stack(frames),
            occupied=np.stack([self._cut(p, track, h) for h, p in enumerate(frames)]),
            poses=runtime.in_world(runtime.poses_of(state.astype(np.float64)), anchor),
            ego=runtime.compose_ego(anchor, ego),
            sigma=sigma,
        )

    def _factors(self, source: np.ndarray, ego: np.ndarray, margin: int = 0) -> Any:
        """Return affine factors (P, 6) of a frame in source frames (P, 4), and its lift (P,)."""
        seen = runtime.relative_ego(source, ego)
        grid = self.about["lower_m"], self.about["cell_m"]
        return runtime.affine_factors(seen, *grid, margin), seen[:, 2] / grid[1][2]

    def _drawn(self, moves: np.ndarray, ego: np.ndarray) -> np.ndarray:
        """Return affine factors (N, 6) of drawn frames in the expected one."""
        x, y = runtime.turn_plane(
            moves[:, 0].astype(np.float64), moves[:, 1].astype(np.float64), -ego[3]
        )
        seen = np.stack([x, y, 0 * x, moves[:, 2].astype(np.float64)], -1)
        return runtime.affine_factors(seen, self.about["lower_m"], self.about["cell_m"])

    def _cut(self, probability: np.ndarray, track: str, horizon: int) -> np.ndarray:
        """Return bool (X, Y, Z) at the thresholds of the ground of a column and above it."""
        cut = self.about["thresholds"][track]
        if not cut["ground"]:
            return probability >= np.float32(cut["threshold"])
        ground = (probability >= probability.max(-1, keepdims=True) / 2).argmax(-1)[..., None]
        above = np.arange(probability.shape[-1]) > ground
        limits = np.float32(cut["above"][horizon]), np.float32(cut["ground"][horizon])
        return probability >= np.where(above, *limits)

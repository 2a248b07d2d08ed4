"""Every parameter of the baselines that came from train and validation windows, and their names.

    mean_MOTION            the resampled mean moved by a motion and its spread    (predicted track)
    planes_MOTION          the same with walls as planes; the motion is the one with the lowest
                           energy score on validation
    true_pose_mean         the resampled mean under the true motion               (plan track)
    true_pose_mean_edges   with counts of what is beyond the edge of the view
    true_pose_planes       with walls as planes

*The* baseline of a track is the one that is strongest on validation by the sum of IoU and structure
IoU, the merit by which the model's own thresholds are chosen; the methods of `warps` take part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlwm.core.evaluation.baselines.motions import (
    Analogs,
    ConstantTwist,
    MotionBaseline,
    Ridge,
    TurnRate,
)
from vlwm.core.evaluation.baselines.scenes import Background
from vlwm.core.evaluation.calibration.thresholds import Thresholds
from vlwm.core.model.memory.extrapolation import Extrapolation
from vlwm.core.vocabulary import Track

MEMORY = {"predicted": "memory_baseline", "plan": "true_pose_memory"}
"""Track -> the baseline without parameters, with which every sheet compares as well."""
PLAN_METHODS = ("true_pose_mean", "true_pose_mean_edges", "true_pose_planes")


def track_of(method: str) -> str:
    """Return 'predicted', 'plan' or 'round_trip': what a method is given. Never mixed."""
    if method == "tokenizer_round_trip":
        return "round_trip"
    return "plan" if method == Track.PLAN or method.startswith("true_pose_") else "predicted"


def strongest(merits: Mapping[str, float]) -> dict[str, str]:
    """Return track -> the method with the highest merit; on a tie the memory baseline.

    A track without any merit keeps its memory baseline.
    """
    strongest_of = dict(MEMORY)
    for track, memory in MEMORY.items():
        names = [method for method in merits if track_of(method) == track]
        if names:
            strongest_of[track] = max(names, key=lambda m: (merits[m], m == memory))
    return strongest_of


@dataclass
class FittedBaselines:
    """Parameters of the baselines of one data set.

    Attributes:
        motions: name of a motion -> the motion.
        planes_motion: name of the motion that planes are moved by.
        column: float32 (Z,), share of occupied cells by height layer in the train split.
        edges: counts of what is beyond the edge of the view.
        thresholds: method -> its thresholds.
        baseline: track -> name of the strongest method on validation.
        merits: method -> sum of IoU and structure IoU over the horizons, on validation.
        windows: train and validation windows that were used.
    """

    motions: dict[str, MotionBaseline]
    planes_motion: str
    column: Tensor
    edges: Extrapolation
    thresholds: dict[str, Thresholds] = field(default_factory=dict)
    baseline: dict[str, str] = field(default_factory=lambda: dict(MEMORY))
    merits: dict[str, float] = field(default_factory=dict)
    windows: dict[str, int] = field(default_factory=dict)

    @property
    def predicted(self) -> tuple[str, ...]:
        """Names of the methods of the predicted track."""
        return (*(f"mean_{name}" for name in self.motions), f"planes_{self.planes_motion}")

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of all methods."""
        return (*self.predicted, *PLAN_METHODS)

    def thresholds_of(self, method: str) -> Thresholds:
        """Return the thresholds of a method; 0.5 without validation windows."""
        return self.thresholds.get(method, Thresholds())

    def background(self, device: torch.device, *, edges: bool = False) -> Background:
        """Return what is expected where no past frame reaches."""
        return Background(self.column.to(device), self.edges.to(device) if edges else None)

    def content(self) -> dict[str, Any]:
        """Return everything as tensors and plain Python, for a checkpoint."""
        motions = {name: _content_of(motion) for name, motion in self.motions.items()}
        return {
            "horizons_s": torch.from_numpy(next(iter(self.motions.values())).horizons_s),
            "motions": motions,
            "planes_motion": self.planes_motion,
            "column": self.column.cpu(),
            "edges": self.edges.counts.cpu(),
            "thresholds": {name: found.content() for name, found in self.thresholds.items()},
            "baseline": dict(self.baseline),
            "merits": dict(self.merits),
            "windows": dict(self.windows),
        }

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> FittedBaselines:
        """Return what `content` wrote."""
        edges = Extrapolation()
        edges.counts.copy_(content["edges"])
        return cls(
            motions=_motions_of(content["motions"], content["horizons_s"].numpy()),
            planes_motion=content["planes_motion"],
            column=content["column"],
            edges=edges,
            thresholds={
                name: Thresholds.of(found) for name, found in content["thresholds"].items()
            },
            baseline=dict(content["baseline"]),
            merits=dict(content["merits"]),
            windows=dict(content["windows"]),
        )

    def summary(self) -> dict[str, Any]:
        """Return the parameters as a score sheet states them, as plain JSON values."""
        turn = self.motions["turn_rate"]
        assert isinstance(turn, TurnRate)
        return {
            "windows": dict(self.windows),
            "planes_motion": self.planes_motion,
            "decay_s": list(turn.decay_s),
            "validation_merit": dict(self.merits),
            "thresholds": {name: found.content() for name, found in self.thresholds.items()},
        }


def _content_of(motion: MotionBaseline) -> dict[str, Any]:
    if isinstance(motion, Analogs):
        arrays = {"keys": motion.keys, "errors": motion.errors}
        tensors: dict[str, Any] = {
            name: torch.from_numpy(value.astype(np.float32)) for name, value in arrays.items()
        }
        return tensors | {"neighbours": motion.neighbours}
    if isinstance(motion, Ridge):
        names = ("centre", "scale", "weights", "errors")
        return {name: torch.from_numpy(getattr(motion, name)) for name in names}
    assert isinstance(motion, ConstantTwist | TurnRate)
    decay = {"decay_s": list(motion.decay_s)} if isinstance(motion, TurnRate) else {}
    return {"errors": torch.from_numpy(motion.errors), **decay}


def _motions_of(content: Mapping[str, Any], horizons_s: np.ndarray) -> dict[str, MotionBaseline]:
    twist = ConstantTwist(horizons_s, content["constant_twist"]["errors"].numpy())
    turn = content["turn_rate"]
    tau_v, tau_w = turn["decay_s"]
    rate = TurnRate(horizons_s, (tau_v, tau_w), turn["errors"].numpy())
    motions: dict[str, MotionBaseline] = {"constant_twist": twist, "turn_rate": rate}
    if "ridge" in content:
        names = ("centre", "scale", "weights", "errors")
        ridge = Ridge(rate, *(content["ridge"][name].numpy() for name in names))
        analogs = content["analogs"]
        keys, errors = (analogs[name].double().numpy() for name in ("keys", "errors"))
        motions |= {"ridge": ridge, "analogs": Analogs(ridge, keys, errors, analogs["neighbours"])}
    return motions

"""What an evaluation adds up, window by window: memory grows with the area, not with the windows.

Counts are kept per cluster (a 120 m tile of the world) for the bootstrap and per stratum; their sum
over clusters is the pooled score.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from vlwm.core.evaluation.calibration import ProbabilityHistogram
from vlwm.core.evaluation.metrics import Confusion
from vlwm.core.evaluation.strata import STRATA
from vlwm.core.geometry.frames import relative_ego


@dataclass
class PoseErrors:
    """Errors of predicted ego frames: metres in the plane, degrees of heading, per horizon."""

    metres: list[np.ndarray] = field(default_factory=list)
    degrees: list[np.ndarray] = field(default_factory=list)

    def add(self, predicted: np.ndarray, true: np.ndarray) -> None:
        """Add one window's predicted and true ego frames, float64 (H, 4), in one frame."""
        error = relative_ego(true, predicted)
        self.metres.append(np.hypot(error[:, 0], error[:, 1]).astype(np.float32))
        self.degrees.append(np.degrees(np.abs(error[:, 3])).astype(np.float32))

    def summary(self) -> dict[str, list[float]]:
        """Mean and median over the windows, per horizon."""
        metres, degrees = (np.asarray(v, np.float64) for v in (self.metres, self.degrees))
        return {
            "m": metres.mean(0).tolist(),
            "deg": degrees.mean(0).tolist(),
            "m_median": np.median(metres, axis=0).tolist(),
            "deg_median": np.median(degrees, axis=0).tolist(),
        }


@dataclass
class Tally:
    """Counts of all methods over the windows of a split.

    Attributes:
        methods: names, in the order of every counts array.
        horizons: H.
        total: pooled counts of all windows.
        clusters: cluster -> int64 (M, H, Z, Q).
        strata: (stratum, bin) -> pooled counts of its windows.
        poses: "model", "constant_twist" -> errors.
        probabilities: of the model, all horizons together.
    """

    methods: tuple[str, ...]
    horizons: int
    total: Confusion = field(init=False)
    clusters: dict[Hashable, np.ndarray] = field(default_factory=dict)
    strata: dict[tuple[str, str], Confusion] = field(init=False)
    poses: dict[str, PoseErrors] = field(default_factory=dict)
    probabilities: ProbabilityHistogram = field(default_factory=ProbabilityHistogram)

    def __post_init__(self) -> None:
        self.total = Confusion(self.methods, self.horizons)
        self.strata = {
            (name, part): Confusion(self.methods, self.horizons)
            for name, parts in STRATA.items()
            for part in parts
        }

    def add(self, counts: np.ndarray, cluster: Hashable, strata: list[tuple[str, str]]) -> None:
        """Add one window's counts, int64 (M, H, Z, Q)."""
        self.total.add(counts)
        if cluster in self.clusters:
            self.clusters[cluster] += counts
        else:
            self.clusters[cluster] = counts.copy()
        for key in strata:
            self.strata[key].add(counts)

    def add_pose(self, who: str, predicted: np.ndarray, true: np.ndarray) -> None:
        """Add one window's predicted and true ego frames, float64 (H, 4)."""
        self.poses.setdefault(who, PoseErrors()).add(predicted, true)

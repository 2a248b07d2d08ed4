"""Add up counts and errors window by window; memory grows with the area, not with the windows.

Counts are kept per cluster (a 120 m tile of the world) for the bootstrap and per stratum; their sum
over clusters is the pooled score.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlwm.core.evaluation.calibration.histogram import ProbabilityHistogram
from vlwm.core.evaluation.classes import ClassTally
from vlwm.core.evaluation.metrics import ZONES, Confusion, iou_of
from vlwm.core.evaluation.observed.tally import ObservedTally
from vlwm.core.evaluation.scores.strata import STRATA
from vlwm.core.geometry.frames import relative_ego

STATE_NAMES = ("x", "y", "z", "yaw", "roll", "pitch", "vx", "vy", "vz", "wx", "wy", "wz")
"""Components of a motion: m, rad, m/s, rad/s; the first four with three degrees of freedom."""


@dataclass
class PoseErrors:
    """Errors of predicted ego frames: metres in the plane, degrees of heading, per horizon."""

    metres: list[np.ndarray] = field(default_factory=list)
    degrees: list[np.ndarray] = field(default_factory=list)
    strata: list[list[tuple[str, str]]] = field(default_factory=list)

    def add(
        self, predicted: np.ndarray, true: np.ndarray, strata: list[tuple[str, str]] | None = None
    ) -> None:
        """Add one window's predicted and true ego frames, float64 (H, 4), in one frame."""
        error = relative_ego(true, predicted)
        self.strata.append(strata or [])
        self.metres.append(np.hypot(error[:, 0], error[:, 1]).astype(np.float32))
        self.degrees.append(np.degrees(np.abs(error[:, 3])).astype(np.float32))

    def merge(self, other: PoseErrors) -> None:
        """Append the errors of later windows."""
        self.metres += other.metres
        self.degrees += other.degrees
        self.strata += other.strata

    def summary(self) -> dict[str, Any]:
        """Return the mean and median over the windows, per horizon; means of each stratum."""
        metres, degrees = (np.asarray(v, np.float64) for v in (self.metres, self.degrees))
        return {
            "m": metres.mean(0).tolist(),
            "deg": degrees.mean(0).tolist(),
            "m_median": np.median(metres, axis=0).tolist(),
            "deg_median": np.median(degrees, axis=0).tolist(),
            "strata": {
                name: {part: self._of(metres, degrees, (name, part)) for part in parts}
                for name, parts in STRATA.items()
            },
        }

    def _of(
        self, metres: np.ndarray, degrees: np.ndarray, stratum: tuple[str, str]
    ) -> dict[str, Any]:
        """Return windows of a stratum, and means per horizon where there are any."""
        here = np.array([stratum in found for found in self.strata], bool)
        means = [v[here].mean(0).tolist() if here.any() else None for v in (metres, degrees)]
        return {"n_windows": int(here.sum()), "m": means[0], "deg": means[1]}


@dataclass
class StateErrors:
    """Errors of the predicted motion, and whether they are within its own sigma.

    Attributes:
        errors: windows of float32 (H, D), without sign.
        within: windows of bool (H, D).
    """

    errors: list[np.ndarray] = field(default_factory=list)
    within: list[np.ndarray] = field(default_factory=list)

    def add(self, error: np.ndarray, sigma: np.ndarray) -> None:
        """Add one window's errors and standard deviations, (H, D)."""
        self.errors.append(np.abs(error).astype(np.float32))
        self.within.append(np.abs(error) <= sigma)

    def merge(self, other: StateErrors) -> None:
        """Append the errors of later windows."""
        self.errors += other.errors
        self.within += other.within

    def summary(self) -> dict[str, Any]:
        """Return each component's mean absolute error and share within one sigma, per horizon."""
        errors, within = np.asarray(self.errors, np.float64), np.asarray(self.within)
        names = STATE_NAMES[: errors.shape[-1]]
        return {
            "mean_error": dict(zip(names, errors.mean(0).T.tolist(), strict=True)),
            "within_sigma": dict(zip(names, within.mean(0).T.tolist(), strict=True)),
            "within_sigma_all": float(within.mean()),
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
        state: errors of the model's motion, and its own sigma.
        probabilities: of the model, all horizons together.
        observed: counts in the zones of an observed past; None where the past is the truth.
        classes: counts of classes; None without them.
        window_structure: structure IoU of the first method a window, mean over the horizons that
            have structure; None without any.
    """

    methods: tuple[str, ...]
    horizons: int
    total: Confusion = field(init=False)
    clusters: dict[Hashable, np.ndarray] = field(default_factory=dict)
    strata: dict[tuple[str, str], Confusion] = field(init=False)
    poses: dict[str, PoseErrors] = field(default_factory=dict)
    state: StateErrors = field(default_factory=StateErrors)
    probabilities: ProbabilityHistogram = field(default_factory=ProbabilityHistogram)
    observed: ObservedTally | None = None
    classes: ClassTally | None = None
    window_structure: list[float | None] = field(default_factory=list)

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
        iou = iou_of(counts[0, :, ZONES.index("structure")])  # (H,), NaN without structure
        with_structure = iou[~np.isnan(iou)]
        self.window_structure.append(float(with_structure.mean()) if len(with_structure) else None)
        if cluster in self.clusters:
            self.clusters[cluster] += counts
        else:
            self.clusters[cluster] = counts.copy()
        for key in strata:
            self.strata[key].add(counts)

    def add_pose(
        self,
        who: str,
        predicted: np.ndarray,
        true: np.ndarray,
        strata: list[tuple[str, str]] | None = None,
    ) -> None:
        """Add one window's predicted and true ego frames, float64 (H, 4)."""
        self.poses.setdefault(who, PoseErrors()).add(predicted, true, strata)

    def merge(self, later: Tally) -> None:
        """Add the windows that follow, counted elsewhere: as if they had been added here."""
        self.total.merge(later.total)
        self.window_structure += later.window_structure
        for cluster, counts in later.clusters.items():
            self.clusters[cluster] = self.clusters.get(cluster, 0) + counts
        for key, confusion in later.strata.items():
            self.strata[key].merge(confusion)
        for who, errors in later.poses.items():
            self.poses.setdefault(who, PoseErrors()).merge(errors)
        self.state.merge(later.state)
        self.probabilities.merge(later.probabilities)
        if self.observed is not None and later.observed is not None:
            self.observed.merge(later.observed)
        if self.classes is not None and later.classes is not None:
            self.classes.merge(later.classes)

"""The score sheet: from counts to the dict that `scores.json` and `vlwm eval --json` hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlwm.core.evaluation.accumulators import Tally
from vlwm.core.evaluation.baselines.fitted import MEMORY
from vlwm.core.evaluation.baselines.tri_state import PLANNED, PREDICTED
from vlwm.core.evaluation.metrics import CELLS, SCORES, TRUE, ZONES, iou_of, none_for_nan
from vlwm.core.evaluation.observed.tally import SCORES as OBSERVED_SCORES
from vlwm.core.evaluation.observed.tally import ZONE_NAMES
from vlwm.core.evaluation.scores.bootstrap import FEWEST_CLUSTERS, interval_of, resampled_iou
from vlwm.core.vocabulary import Track

TRACKS: dict[str, str] = {Track.PREDICTED: "predicted", Track.PLAN: "plan"}
"""Learned method -> its track; the tracks are never mixed."""


def score_sheet(
    tally: Tally, baseline: Mapping[str, str] | None = None, *, seed: int = 0
) -> dict[str, Any]:
    """Return scores, intervals, differences, strata and poses of a tally, as plain JSON values.

    Args:
        baseline: track -> its strongest method without learning, chosen on validation; None: the
            memory baselines.
    """
    chosen = {**MEMORY, **(baseline or {})}
    clusters = list(tally.clusters.values())
    enough = len(clusters) >= FEWEST_CLUSTERS
    samples = resampled_iou(np.stack(clusters), seed=seed) if enough else None  # (R, M, H, Z)
    return {
        "n_windows": tally.total.windows,
        "n_clusters": len(tally.clusters),
        "too_few_clusters": not enough,
        "baseline": chosen,
        "scores": _scores(tally),
        "pose": _pose(tally),
        "intervals": _intervals(tally, samples),
        "differences": _differences(tally, samples, chosen),
        "strata": _strata(tally),
        "zones": _zones(tally),
        **_observed(tally, seed),
        "window_structure_iou": tally.window_structure,
    }


def _scores(tally: Tally) -> dict[str, dict[str, list]]:
    """Return every method's scores, with those of an observed past where there is one."""
    scores = {method: tally.total.scores(method) for method in tally.methods}
    more = {} if tally.observed is None else tally.observed.scores()
    return {method: {**block, **more.get(method, {})} for method, block in scores.items()}


def _observed(tally: Tally, seed: int) -> dict[str, Any]:
    """Return the block `observed`: zones, calibration, and paired differences in each zone."""
    observed = tally.observed
    if observed is None:
        return {}
    clusters, iou = list(observed.clusters.values()), iou_of(observed.total())
    enough = len(clusters) >= FEWEST_CLUSTERS
    samples = resampled_iou(np.stack(clusters), seed=seed) if enough else None  # (R, M, H, Z)
    differences: dict[str, dict[str, Any]] = {}
    for method, others in ((Track.PREDICTED, PREDICTED), (Track.PLAN, PLANNED)):
        for other in others if method in observed.methods else ():
            m, r = observed.methods.index(method), observed.methods.index(other)
            differences[f"{method}-{other}"] = {
                key: {
                    "difference": none_for_nan(iou[m, :, z] - iou[r, :, z]),
                    "interval": _ends(
                        None if samples is None else samples[:, m, :, z] - samples[:, r, :, z],
                        tally.horizons,
                    ),
                }
                for key, z in ((k, ZONE_NAMES.index(name)) for k, name in OBSERVED_SCORES.items())
            }
    return {"observed": {**observed.summary(), "differences": differences}}


def _ends(samples: np.ndarray | None, horizons: int) -> list[list[float] | None]:
    """Return [low, high] per horizon from (R, H) samples; None where there is no interval."""
    if samples is None:
        return [None] * horizons
    interval = interval_of(samples)
    pairs = zip(interval.low, interval.high, strict=True)
    return [None if np.isnan(low) else [float(low), float(high)] for low, high in pairs]


def _intervals(tally: Tally, samples: np.ndarray | None) -> dict[str, dict[str, list]]:
    return {
        method: {
            key: _ends(None if samples is None else samples[:, m, :, z], tally.horizons)
            for key, z in _score_zones()
        }
        for m, method in enumerate(tally.methods)
    }


def _score_zones() -> list[tuple[str, int]]:
    return [(key, ZONES.index(zone)) for key, zone in SCORES.items()]


def _differences(
    tally: Tally, samples: np.ndarray | None, baseline: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Return method minus baseline: the pooled difference and its paired interval, per score."""
    differences = {}
    pairs = [
        (method, other)
        for method, track in TRACKS.items()
        for other in dict.fromkeys((MEMORY[track], baseline[track]))
    ]
    for method, other in pairs:
        if method not in tally.methods or other not in tally.methods:
            continue
        m, r = tally.methods.index(method), tally.methods.index(other)
        iou = iou_of(tally.total.counts)  # (M, H, Z)
        differences[f"{method}-{other}"] = {
            key: {
                "difference": none_for_nan(iou[m, :, z] - iou[r, :, z]),
                "interval": _ends(
                    None if samples is None else samples[:, m, :, z] - samples[:, r, :, z],
                    tally.horizons,
                ),
            }
            for key, z in _score_zones()
        }
    return differences


def _pose(tally: Tally) -> dict[str, dict[str, Any]]:
    sheet = {who: errors.summary() for who, errors in tally.poses.items()}
    if tally.state.errors:
        sheet["model"] |= tally.state.summary()
    return sheet


def _strata(tally: Tally) -> dict[str, dict[str, Any]]:
    sheet: dict[str, dict[str, Any]] = {}
    for (name, part), confusion in tally.strata.items():
        scores = {method: confusion.scores(method) for method in tally.methods}
        sheet.setdefault(name, {})[part] = {
            "n_windows": confusion.windows,
            "iou": {method: block["iou"] for method, block in scores.items()},
            "iou_structure": {method: block["iou_structure"] for method, block in scores.items()},
        }
    return sheet


def _zones(tally: Tally) -> dict[str, dict[str, list]]:
    """Return per zone and horizon: share of cells, occupied share, frames without the class."""
    counts = tally.total.counts[0]  # (H, Z, Q): truth and cells are the same for every method
    every = np.maximum(counts[:, :1, CELLS], 1)
    return {
        zone: {
            "share_of_cells": (counts[:, z, CELLS] / every[:, 0]).tolist(),
            "occupied_share": (counts[:, z, TRUE] / np.maximum(counts[:, z, CELLS], 1)).tolist(),
            "frames_without_occupied_cells": tally.total.absent_frames[:, z].tolist(),
        }
        for z, zone in enumerate(ZONES)
    }

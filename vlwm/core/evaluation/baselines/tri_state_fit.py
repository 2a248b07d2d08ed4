"""Choose the parameters of the tri-state baselines on validation windows.

The best are those of the highest sum of IoU and structure IoU over the horizons, by which a model
chooses its own and by which the strongest baseline is chosen. Hit and miss odds and the threshold
of each horizon are exact: the number of frames that saw a cell occupied and free takes few values,
so one table of counts holds the scores of every choice. Reach and radius are then swept with these.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vlwm.core.evaluation.baselines.tri_state import (
    VARIANTS,
    Fillings,
    TriState,
    TriStateParameters,
    evidence_of,
)
from vlwm.core.evaluation.metrics import ratio, structure_mask
from vlwm.core.evaluation.zones import SeenPast
from vlwm.core.geometry.grid import VoxelGrid

RATIOS = (0.1, 0.25, 0.47, 1.0, 2.0)
"""miss over hit; 0.47 is OctoMap's"""
THRESHOLDS = (-0.9, -0.5, -0.1, 0.0, 0.3, 0.6, 0.9, 1.5)
"""log-odds, hits weighing 0.85"""
REACHES = (0, 2, 4, 8)
RADII = (0, 1, 3)
_SWEPT = {"tri_state_edges": (1,), "tri_state_walls": RADII, "tri_state_ground": RADII}
"""variants with a reach, and the radii of each"""
_HIT = 0.85
"""log-odds of one hit, OctoMap's"""
_EVERY = 2  # future frames: reach and radius hardly depend on the horizon


@dataclass(frozen=True)
class ValidationWindow:
    """One window's inputs to the sweep.

    Attributes:
        seen: the observed past.
        truth: uint8 (H, X, Y, Z).
        future_ego: float64 (H, 4), true ones.
    """

    seen: SeenPast
    truth: Tensor
    future_ego: np.ndarray


def fit_tri_state(
    windows: Sequence[ValidationWindow],
    layers: np.ndarray,
    grid: VoxelGrid,
    frames: int,
    horizons: int,
) -> TriState:
    """Return the variants with the best parameters on validation windows.

    Args:
        windows: validation windows; without any, the parameters are OctoMap's.
        layers: bool (Z,), of the column prior.
        frames, horizons: past and future frames of a window.
    """
    if not windows:
        return TriState(layers, grid)
    table = _evidence_table(windows, layers, grid, frames, horizons)
    bare = _best_odds(table, fill_prior=False)
    filled = _best_odds(table, fill_prior=True)
    parameters = {name: bare if name == "tri_state" else filled for name in VARIANTS}
    options = {
        name: [replace(filled, reach=r, radius=k) for r, k in itertools.product(REACHES, radii)]
        for name, radii in _SWEPT.items()
    }
    parameters |= _best_of(options, windows, TriState(layers, grid, parameters))
    return TriState(layers, grid, parameters)


def _evidence_table(
    windows: Sequence[ValidationWindow],
    layers: np.ndarray,
    grid: VoxelGrid,
    frames: int,
    horizons: int,
) -> np.ndarray:
    """Return int64 (H, F + 1, F + 1, 2, 2, 2): cells by frames that saw them occupied and free, by
    whether the prior fills their layer, whether they are structure, and by truth."""
    size = frames + 1
    table = np.zeros((horizons, size * size * 8), np.int64)
    prior = torch.as_tensor(layers, dtype=torch.int64)
    for window in windows:
        fill = prior.to(window.truth.device)
        evidence = evidence_of(window.seen, window.future_ego, grid)
        for h, found in enumerate(evidence):
            code = (found.occupied.long() * size + found.free.long()) * 2 + fill
            code = (code * 2 + structure_mask(window.truth[h])) * 2 + window.truth[h]
            table[h] += torch.bincount(code.flatten(), minlength=size * size * 8).cpu().numpy()
    return table.reshape(horizons, size, size, 2, 2, 2)


def _best_odds(table: np.ndarray, *, fill_prior: bool) -> TriStateParameters:
    """Return the best odds and thresholds for a table of `_evidence_table`."""
    horizons, size = table.shape[:2]
    hits, misses = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    unknown = (hits + misses == 0)[..., None]  # (F + 1, F + 1, 1)
    filled = unknown & np.array([False, True]) & fill_prior  # (F + 1, F + 1, 2)
    best_merit, parameters = -1.0, TriStateParameters()
    for share in RATIOS:
        odds = _HIT * (hits - share * misses)
        scores = np.zeros((len(THRESHOLDS), horizons))
        for k, threshold in enumerate(THRESHOLDS):
            occupied = ((odds > threshold)[..., None] & ~unknown) | filled
            said = table * occupied[..., None, None]
            for part in (slice(None), slice(1, 2)):  # all cells, structure alone
                empty, hit = said[..., part, :].sum(axis=(1, 2, 3, 4)).T  # (H,) each
                true = table[..., part, 1].sum(axis=(1, 2, 3, 4))
                scores[k] += np.nan_to_num(ratio(hit, empty + true))
        merit = float(scores.max(axis=0).sum())
        if merit > best_merit + 1e-12:
            chosen = tuple(THRESHOLDS[k] for k in scores.argmax(axis=0))
            best_merit, parameters = merit, TriStateParameters(_HIT, _HIT * share, chosen)
    return parameters


def _best_of(
    options: dict[str, list[TriStateParameters]],
    windows: Sequence[ValidationWindow],
    chosen: TriState,
) -> dict[str, TriStateParameters]:
    """Return the best option of each variant, by counts pooled over the windows."""
    horizons = len(windows[0].truth)
    # (options, horizons, all cells and structure alone, intersection and union)
    counts = {
        name: np.zeros((len(some), horizons, 2, 2), np.int64) for name, some in options.items()
    }
    methods = {
        name: [TriState(chosen.layers, chosen.grid, {name: option}) for option in some]
        for name, some in options.items()
    }
    for window in windows:
        evidence = evidence_of(window.seen, window.future_ego, chosen.grid)
        for h, found in enumerate(evidence):
            if h % _EVERY:
                continue
            fillings: Fillings = {}  # all options share what they have in common
            true, structure = window.truth[h] > 0, structure_mask(window.truth[h]) > 0
            for name, some in methods.items():
                for k, method in enumerate(some):
                    plane = method.plane(name, found, h, fillings)
                    both, either = plane & true, plane | true
                    counts[name][k, h] += [
                        [int(both.sum()), int(either.sum())],
                        [int((both & structure).sum()), int((either & structure).sum())],
                    ]
    merits = {
        name: np.nan_to_num(ratio(c[..., 0], c[..., 1])).sum(axis=(1, 2))
        for name, c in counts.items()
    }
    return {name: some[int(merits[name].argmax())] for name, some in options.items()}

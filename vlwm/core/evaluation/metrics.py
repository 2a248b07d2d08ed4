"""Pooled counts and the ratios made of them: the only place where a score is computed.

Counts are int64 and are summed over windows before any ratio is taken (float32 counters are exact
to 2**24 only, which one window of 200 x 200 x 121 cells already passes in six frames). A ratio
whose denominator is zero is None, never 1: a class that does not occur has no score.

Axes: M methods, H horizons, Z zones, Q quantities; X, Y, N cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

ZONES = ("all", "seen", "new", "structure")
"""Sets of cells that are counted; one mask for all methods (docs/evaluation.md)."""

HIT, PREDICTED, TRUE, CELLS = range(4)
"""Quantities: occupied in both; in the forecast; in truth; cells of the zone."""

MOST_FORECASTS = 12
"""forecasts that are counted at once: one bit each, next to three others, in an int16"""

SCORES = {
    "iou": "all", "iou_structure": "structure", "iou_seen": "seen", "iou_new": "new",
}  # fmt: skip
"""Key in scores.json -> zone."""


def structure_mask(truth: Tensor) -> Tensor:
    """Return cells above the lowest occupied cell of their column; empty columns count whole.

    The bare ground is most of what is occupied and proves nothing about foresight; what is
    on it does.

    Args:
        truth: uint8 (..., X, Y, Z), 0 or 1: the true frame.

    Returns:
        uint8 (..., X, Y, Z).
    """
    height = torch.arange(truth.shape[-1], device=truth.device, dtype=torch.int16)
    lowest = truth.argmax(-1, keepdim=True).to(torch.int16)  # the first of equal maxima
    occupied = truth.gather(-1, lowest.long())  # 0 where the column is empty
    lowest = torch.where(occupied > 0, lowest, -1)
    return (height > lowest).to(torch.uint8)


def count_zones(
    forecasts: Sequence[Tensor],
    truth: Tensor,
    seen: Tensor,
    structure: Tensor,
    known: Tensor | None = None,
) -> np.ndarray:
    """Count every forecast in every zone, exactly, in one pass over the cells.

    Each cell is written as a code of its bits (one per forecast, then truth, seen, structure);
    the histogram of the codes holds every count that is asked for.

    Args:
        forecasts: uint8 (X, Y, Z) of 0 or 1, at most twelve.
        truth, seen, structure: uint8 (X, Y, Z) of 0 or 1.
        known: bool (X, Y, Z), cells whose truth is known; others are in no zone. None: all.

    Returns:
        int64 (M, Z, Q): zones as `ZONES`, quantities hit, predicted, true, cells.
    """
    planes = [*forecasts, truth, seen, structure]
    if len(forecasts) > MOST_FORECASTS:
        raise ValueError(f"{len(forecasts)} forecasts at once, at most {MOST_FORECASTS}")
    if known is not None:
        planes = [plane[known] for plane in planes]
    code = torch.zeros(planes[0].numel(), dtype=torch.int16, device=truth.device)
    for bit, plane in enumerate(planes):
        code.add_(plane.reshape(-1), alpha=1 << bit)
    histogram = torch.bincount(code, minlength=1 << len(planes)).cpu().numpy()
    return _counts_of_codes(histogram.astype(np.int64), len(forecasts))


def _counts_of_codes(histogram: np.ndarray, methods: int) -> np.ndarray:
    code = np.arange(len(histogram))
    bits = (code[:, None] >> np.arange(methods + 3)) & 1  # (codes, M + 3)
    truth, seen, structure = bits[:, methods].astype(np.int64), bits[:, -2], bits[:, -1]
    zones = np.stack([np.ones_like(seen), seen, 1 - seen, structure])  # (Z, codes)
    weighted = (zones * histogram).astype(np.int64)
    counts = np.empty((methods, len(ZONES), 4), np.int64)
    counts[:, :, HIT] = (bits[:, :methods] * truth[:, None]).T @ weighted.T
    counts[:, :, PREDICTED] = bits[:, :methods].T @ weighted.T
    counts[:, :, TRUE] = weighted @ truth
    counts[:, :, CELLS] = weighted.sum(-1)
    return counts


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient, float64, NaN where the denominator is zero."""
    quotient = np.full(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)), np.nan)
    np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator) != 0)
    return quotient


def iou_of(counts: np.ndarray) -> np.ndarray:
    """Return intersection over union of counts (..., Q); NaN where no cell is occupied."""
    union = counts[..., PREDICTED] + counts[..., TRUE] - counts[..., HIT]
    return ratio(counts[..., HIT], union)


def none_for_nan(values: np.ndarray) -> list:
    """Return a nested list for JSON in which NaN ("does not occur") is None."""
    if values.ndim > 1:
        return [none_for_nan(row) for row in values]
    return [None if np.isnan(v) else float(v) for v in values]


@dataclass
class Confusion:
    """Pooled counts of several methods over horizons and zones.

    Attributes:
        methods: names, M.
        horizons: number of horizons, H.
        counts: int64 (M, H, Z, Q).
        absent_frames: int64 (H, Z): true frames in which the zone holds no occupied cell; they
            add nothing to a hit and are counted here.
        windows: windows added.
    """

    methods: tuple[str, ...]
    horizons: int
    counts: np.ndarray = field(init=False)
    absent_frames: np.ndarray = field(init=False)
    windows: int = 0

    def __post_init__(self) -> None:
        shape = (len(self.methods), self.horizons, len(ZONES), 4)
        self.counts = np.zeros(shape, np.int64)
        self.absent_frames = np.zeros(shape[1:3], np.int64)

    def add(self, counts: np.ndarray) -> None:
        """Add one window's counts, int64 (M, H, Z, Q)."""
        self.counts += counts
        self.absent_frames += counts[0, :, :, TRUE] == 0
        self.windows += 1

    def merge(self, other: Confusion) -> None:
        """Add the counts of other windows, of the same methods and horizons."""
        self.counts += other.counts
        self.absent_frames += other.absent_frames
        self.windows += other.windows

    def scores(self, method: str) -> dict[str, list[float | None]]:
        """Return the method's block of scores.json: a list over horizons per key."""
        counts = self.counts[self.methods.index(method)]  # (H, Z, Q)
        block = {key: iou_of(counts[:, ZONES.index(zone)]) for key, zone in SCORES.items()}
        everywhere = counts[:, ZONES.index("all")]
        hit, predicted, true = (everywhere[:, q] for q in (HIT, PREDICTED, TRUE))
        block["precision"] = ratio(hit, predicted)
        block["recall"] = ratio(hit, true)
        block["mean_ratio"] = ratio(predicted, true)
        return {key: none_for_nan(values) for key, values in block.items()}

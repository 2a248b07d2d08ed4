"""Cut a large city into many regions, so that each split holds every kind of quarter.

Three regions of a city of 600 km² would test on one corner of it: the villas or the towers. Above
20 km² the plan is cut into 27 rectangles that hold about the same built area; four become val, four
test, the others train. Of several thousand ways to deal them out, the one is taken whose splits
agree best in building density and height.

Rectangles do not overlap and poses keep the margin from the border of their own, so two poses of
different splits are two margins apart, whatever regions they are in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.splits import NAMES, Region
from vlwm.core.vocabulary import Split

LARGE_M2 = 20e6
"""a plan larger than this is cut into many regions"""
_CELLS, _HELD_OUT = 27, 4
_LEAST_INSIDE_M = 300.0
_LEAST_SHARE = 0.3  # of the length that equal parts would have
_WAYS = 4000
_DIGITS = 6  # of the costs: machines differ in the last bits

Floats = NDArray[np.float64]
Rectangle = tuple[float, float, float, float]


def is_large(bounds: Rectangle) -> bool:
    """Return True for a plan that is cut into many regions, where it can be."""
    x0, y0, x1, y1 = bounds
    return (x1 - x0) * (y1 - y0) > LARGE_M2


def plan_many_regions(
    bounds: Rectangle, margin_m: float, seed: int, built: Floats, heights: Floats
) -> tuple[Region, ...] | None:
    """Return 19 regions of train, 4 of val and 4 of test; None where the place is too small.

    Args:
        bounds: x from, y from, x to, y to, metres.
        margin_m: distance that poses keep from the border of their region.
        built: (N, 2) middles of the squares that are built on, metres.
        heights: (N,) height of the highest building in each, metres.
    """
    if not is_large(bounds) or len(built) < _CELLS:
        return None
    rng = np.random.default_rng([seed, 0x27CE])
    need = 2 * margin_m + _LEAST_INSIDE_M
    cells = _cells(bounds, built, _CELLS, need, rng)
    if min(min(c[2] - c[0], c[3] - c[1]) for c in cells) < need:
        return None
    splits = _dealt(_character(cells, built, heights), rng)
    order = sorted(range(len(cells)), key=lambda k: (NAMES.index(splits[k]), cells[k]))
    return tuple(Region(splits[k], *cells[k]) for k in order)


def _cells(
    bounds: Rectangle, built: Floats, count: int, need: float, rng: np.random.Generator
) -> list[Rectangle]:
    """Return `count` rectangles that tile `bounds`, of about the same built area."""
    if count == 1:
        return [bounds]
    x0, y0, x1, y1 = bounds
    axis = 0 if x1 - x0 >= y1 - y0 else 1
    low, high = (x0, x1) if axis == 0 else (y0, y1)
    # the smaller part of an odd number is on either side
    first = count // 2 if rng.random() < 0.5 else count - count // 2
    share = first / count
    at = float(np.quantile(built[:, axis], share)) if len(built) else low + share * (high - low)
    least, most = (max(need, _LEAST_SHARE * part * (high - low)) for part in (share, 1 - share))
    at = round(float(np.clip(at, low + least, max(low + least, high - most))), 3)
    below = built[:, axis] < at
    parts: tuple[Rectangle, Rectangle] = (
        ((x0, y0, at, y1), (at, y0, x1, y1)) if axis == 0 else ((x0, y0, x1, at), (x0, at, x1, y1))
    )
    return [
        *_cells(parts[0], built[below], first, need, rng),
        *_cells(parts[1], built[~below], count - first, need, rng),
    ]


def _character(cells: list[Rectangle], built: Floats, heights: Floats) -> Floats:
    """Return km², built squares, sums of their heights and of the squares of these (cells, 4)."""
    rows = []
    for x0, y0, x1, y1 in cells:
        inside = (built[:, 0] >= x0) & (built[:, 0] < x1)
        inside &= (built[:, 1] >= y0) & (built[:, 1] < y1)
        mine = heights[inside]
        rows.append([(x1 - x0) * (y1 - y0) / 1e6, len(mine), mine.sum(), (mine**2).sum()])
    return np.array(rows)


def _dealt(character: Floats, rng: np.random.Generator) -> list[str]:
    """Return the split of each cell: the most even of many ways to deal them out."""
    ways = rng.permuted(np.tile(np.arange(len(character)), (_WAYS, 1)), axis=1)
    ends = (_HELD_OUT, 2 * _HELD_OUT)
    sides = []
    for part in np.split(ways, ends, axis=1):
        area, count, total, squares = character[part].sum(axis=1).T  # each (ways,)
        count, total = np.maximum(count, 1.0), np.maximum(total, 1e-9)
        # logarithms: what counts is the ratio of two splits; the spread counts half
        traits = (count / area, total / count, np.sqrt(np.maximum(squares, 1e-9) / count))
        sides.append(np.log(np.stack(traits, axis=-1)) * (1.0, 1.0, 0.5))  # (ways, 3)
    val, test, train = sides
    cost = sum(((a - b) ** 2).sum(axis=1) for a, b in ((val, test), (val, train), (test, train)))
    best = ways[int(np.round(cost, _DIGITS).argmin())]
    splits = [str(Split.TRAIN)] * len(character)
    for name, numbers in ((Split.VAL, best[: ends[0]]), (Split.TEST, best[ends[0] : ends[1]])):
        for number in numbers:
            splits[int(number)] = str(name)
    return splits

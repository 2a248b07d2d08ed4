"""Average a frame over draws of its motion on a CPU: each distinct column is read once.

Many draws move a column into the same cell. They are counted first; then torch sums the distinct
columns, each weighted with its count.

Axes: X, Y, Z cells, N draws.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vlwm.core.geometry.jit import compiled

_ROWS = 4
"""rows of columns whose draws stay in a processor's cache"""


def averaged_rows(table: Tensor, places: Tensor) -> Iterator[Tensor]:
    """Yield the mean over draws of a frame, float32 (rows, Y, Z), a few rows at a time.

    Nearest cell; at the border the outermost one.

    Args:
        table: float32 (X, Y, Z), contiguous.
        places: float32 (N, 6), factors of `warp.affine_places`.
    """
    x, y, z = table.shape
    factors = np.ascontiguousarray(places.t().numpy())
    # the bags of a few rows: cells of all columns one after the other, and where each begins
    cells = torch.empty(_ROWS * y * len(places), dtype=torch.int32)
    weights = torch.empty(cells.shape, dtype=torch.float32)
    starts = torch.zeros(_ROWS * y + 1, dtype=torch.int32)
    counts = np.zeros(x * y, np.int32)
    for first in range(0, x, _ROWS):
        last = min(first + _ROWS, x)
        found = _count_draws(
            first, last, (x, y), factors, counts, cells.numpy(), weights.numpy(), starts.numpy()
        )
        mean = functional.embedding_bag(
            cells[:found],
            table.flatten(0, 1),
            starts[: (last - first) * y + 1],
            mode="sum",
            per_sample_weights=weights[:found],
            include_last_offset=True,
        )
        yield mean.view(last - first, y, z)


@compiled
def _count_draws(
    first: int,
    last: int,
    shape: tuple[int, int],
    places: NDArray[np.float32],
    counts: NDArray[np.int32],
    cells: NDArray[np.int32],
    weights: NDArray[np.float32],
    starts: NDArray[np.int32],
) -> int:
    """Fill the bags of rows first … last − 1; return how many entries they have.

    Places are in float32: a rounding that picks the next cell is one draw of many.

    Args:
        shape: X, Y.
        places: (6, N).
        counts: (X · Y,), zeros, and zeros again at the end.
        cells, weights: filled with the distinct cells of each column and their shares of the draws.
        starts: filled with the number of each column's first entry, and at last of all entries.
    """
    x, y = shape
    draws = places.shape[1]
    rows = np.empty(draws, np.int32)
    step_x, step_y = places[1], places[4]
    zero, top_x, top_y = np.float32(0.0), np.float32(x - 1), np.float32(y - 1)
    share = np.float32(1.0) / np.float32(draws)
    found = 0
    for i in range(first, last):
        # the affine map in parts: what depends on the row, and what on the column
        from_x = places[0] * np.float32(i) + places[2]
        from_y = places[3] * np.float32(i) + places[5]
        for j in range(y):
            column = np.float32(j)
            for n in range(draws):
                at_x = min(max(np.floor(from_x[n] + step_x[n] * column), zero), top_x)
                at_y = min(max(np.floor(from_y[n] + step_y[n] * column), zero), top_y)
                rows[n] = np.int32(at_x) * np.int32(y) + np.int32(at_y)
            # the first draw that meets a cell opens its entry, the others count it up
            start = found
            starts[(i - first) * y + j] = start
            for n in range(draws):
                if counts[rows[n]] == 0:
                    cells[found] = rows[n]
                    found += 1
                counts[rows[n]] += 1
            for m in range(start, found):
                weights[m] = np.float32(counts[cells[m]]) * share
                counts[cells[m]] = 0
    starts[(last - first) * y] = found
    return found

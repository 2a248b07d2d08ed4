"""Average a frame over draws of its motion on a CPU: each distinct column is read once.

Many draws move a column into the same cell. They are counted first; then each distinct column is
read once and weighted with its count.

Axes: X, Y, Z cells, D layers with padding, N draws.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlwm.core.geometry.jit import compiled
from vlwm.core.model.memory.cpu.threads import by_rows

_VECTOR = 64
"""numbers of one step of a vectorised loop: four vectors of 512 bits"""


def padded(layers: int) -> int:
    """Return the layers of a column with padding, a whole number of steps of a vectorised loop."""
    return -(-layers // _VECTOR) * _VECTOR


def padded_columns(columns: Tensor) -> Tensor:
    """Return columns float32 (X, Y, D) of (X, Y, Z), with zeros after the last layer."""
    table = columns.new_zeros(*columns.shape[:2], padded(columns.shape[2]))
    table[..., : columns.shape[2]] = columns
    return table


def average_columns(table: Tensor, places: Tensor, out: Tensor) -> None:
    """Write the mean over draws into `out` (X, Y, Z), nearest cell, at the border the outermost.

    Args:
        table: float32 (X, Y, D), columns to read, contiguous.
        places: float32 (N, 6), factors of `warp.affine_places`.
    """
    factors = np.ascontiguousarray(places.t().numpy())
    by_rows(_mean_rows, len(out), table.flatten(0, 1).numpy(), factors, out.numpy())


@compiled
def _add_cells(
    table: NDArray[np.float32],
    cells: NDArray[np.uint64],
    weight: NDArray[np.float32],
    found: int,
    total: NDArray[np.float32],
) -> None:
    """Add columns of the table (X · Y, D) to `total` (D,), weighted; four are loaded at once.

    `cells` and `weight` have three more entries, of weight 0.
    """
    # unsigned numbers are never counted from the end: without that check the loop is vectorised
    depth = np.uint64(table.shape[1])
    for m in range(0, found, 4):
        at_0, at_1, at_2, at_3 = cells[m], cells[m + 1], cells[m + 2], cells[m + 3]
        weight_0, weight_1 = weight[m], weight[m + 1]
        weight_2, weight_3 = weight[m + 2], weight[m + 3]
        for k in range(depth):
            total[k] += (
                weight_0 * np.float32(table[at_0, k])
                + weight_1 * np.float32(table[at_1, k])
                + weight_2 * np.float32(table[at_2, k])
                + weight_3 * np.float32(table[at_3, k])
            )


@compiled
def _mean_rows(
    first: int,
    last: int,
    table: NDArray[np.float32],
    places: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write rows first … last − 1 of the mean over draws.

    Args:
        table: float32 (X · Y, D).
        places: float32 (6, N), factors of `affine_places`.
        out: float32 (X, Y, Z).
    """
    x, y, layers = out.shape
    draws = places.shape[1]
    rows = np.empty(draws, np.int32)
    counts = np.zeros(x * y, np.int32)
    # three more than the draws: four columns are added at once, the last of them without weight
    distinct = np.zeros(draws + 3, np.uint64)
    weight = np.zeros(draws + 3, np.float32)
    total = np.empty(table.shape[1], np.float32)
    step_x, step_y = places[1], places[4]
    zero, top_x, top_y = np.float32(0.0), np.float32(x - 1), np.float32(y - 1)
    share = np.float32(1.0) / np.float32(draws)
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
            found = 0
            for n in range(draws):
                if counts[rows[n]] == 0:
                    distinct[found] = rows[n]
                    found += 1
                counts[rows[n]] += 1
            for m in range(found):
                weight[m] = np.float32(counts[distinct[m]]) * share
                counts[distinct[m]] = 0
            weight[found : found + 3] = 0.0
            total[:] = 0.0
            _add_cells(table, distinct, weight, found, total)
            for k in range(layers):
                out[i, j, k] = total[k]

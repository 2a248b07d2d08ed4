"""Read observed frames on a CPU, column by column: the compiled twin of `warp.resampled_memory`.

Height is the innermost axis of a frame, so a column is contiguous and a turn in the plane moves
whole columns. The general path makes a float map of every past frame and mixes its layers by a
matrix; here each target column reads four source columns of each frame and adds up its evidence,
without a gradient and without anything of the size of a frame in between.

Axes: P past frames, X, Y, Z cells of a source, U, V columns of a target.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.jit import compiled
from vlwm.core.model.memory.warp import affine_places
from vlwm.core.model.torch_frames import relative_ego


def evidence_columns(
    occupied: Tensor,
    free: Tensor,
    past_ego: Tensor,
    ego: Tensor,
    grid: VoxelGrid,
    margin: int,
    odds: tuple[float, float],
) -> Tensor:
    """Return the weighted count of evidence and the evidence, float32 (U, V, 2, Z).

    Args:
        occupied, free: uint8 (P, X, Y, Z) of 0 and 1, of one window.
        past_ego: (P, 4).
        ego: (4,), of the target, which is `margin` cells wider than a frame on every side.
        grid: the grid of the past frames.
        odds: log-odds of a hit and of a miss.
    """
    here = relative_ego(past_ego.double(), ego.double()[None])  # (P, 4)
    x, y, z = grid.shape
    wide = (x + 2 * margin, y + 2 * margin)
    factors = _numpy(affine_places(here, grid))
    # column (i, j) of the target is column (i − margin, j − margin) of a frame's own raster
    factors[:, 2] -= margin * (factors[:, 0] + factors[:, 1])
    factors[:, 5] -= margin * (factors[:, 3] + factors[:, 4])
    lift = _numpy(here[:, 2] / grid.cell_m[2])
    out = np.zeros((*wide, 2, z), dtype=np.float32)
    planes = _numpy(occupied), _numpy(free)
    _by_rows(_add_evidence, wide[0], *planes, factors, lift, np.array(odds, np.float32), out)
    return torch.from_numpy(out)


def _numpy(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().numpy())


def _by_rows(kernel: Callable[..., None], rows: int, *arguments: object) -> None:
    """Run a kernel on bands of rows, one for each of torch's threads: it releases the GIL."""
    threads = min(torch.get_num_threads(), rows)
    if threads == 1:
        kernel(0, rows, *arguments)
        return
    # bands of nearly equal height, one for each thread
    edges = [rows * k // threads for k in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        bands = [
            pool.submit(kernel, first, last, *arguments)
            for first, last in itertools.pairwise(edges)
        ]
        for band in bands:
            band.result()


@compiled
def _add_evidence(
    first: int,
    last: int,
    occupied: NDArray[np.uint8],
    free: NDArray[np.uint8],
    factors: NDArray[np.float64],
    lift: NDArray[np.float64],
    odds: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Fill rows first … last − 1 of `out` (U, V, 2, Z): weighted count, evidence."""
    frames, x, y, z = occupied.shape
    hits = np.empty(z, np.float32)
    misses = np.empty(z, np.float32)
    for i in range(first, last):
        for j in range(out.shape[1]):
            for p in range(frames):
                # place of the target's centre in the frame, measured from its first cell's centre
                u = factors[p, 0] * i + factors[p, 1] * j + factors[p, 2] - 0.5
                v = factors[p, 3] * i + factors[p, 4] * j + factors[p, 5] - 0.5
                if u <= -1.0 or v <= -1.0 or u >= x or v >= y:
                    continue
                hits[:] = 0.0
                misses[:] = 0.0
                low_u = int(np.floor(u))
                low_v = int(np.floor(v))
                for corner in range(4):
                    at_u = low_u + (corner >> 1)
                    at_v = low_v + (corner & 1)
                    if at_u < 0 or at_v < 0 or at_u >= x or at_v >= y:
                        continue  # nothing is known there
                    # bilinear weight of this corner
                    share = (1.0 - abs(u - at_u)) * (1.0 - abs(v - at_v))
                    weight = np.float32(share)
                    here_hit = occupied[p, at_u, at_v]
                    here_miss = free[p, at_u, at_v]
                    for k in range(z):
                        hits[k] += weight * np.float32(here_hit[k])
                        misses[k] += weight * np.float32(here_miss[k])
                # linear in height: two neighbouring layers
                whole = int(np.floor(lift[p]))
                part = np.float32(lift[p] - whole)
                for k in range(z):
                    if k + 0.5 + lift[p] < 0 or k + 0.5 + lift[p] >= z:
                        continue
                    below = min(max(k + whole, 0), z - 1)
                    above = min(max(k + whole + 1, 0), z - 1)
                    hit = (np.float32(1.0) - part) * hits[below] + part * hits[above]
                    miss = (np.float32(1.0) - part) * misses[below] + part * misses[above]
                    out[i, j, 0, k] += odds[0] * hit - odds[1] * miss
                    # the evidence is that of the frame that knows the cell best
                    known = min(hit + miss, np.float32(1.0))
                    if known > out[i, j, 1, k]:
                        out[i, j, 1, k] = known

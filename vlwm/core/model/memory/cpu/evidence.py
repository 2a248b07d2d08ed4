"""Read observed frames on a CPU, column by column: the compiled twin of `warp.resampled_memory`.

Height is the innermost axis of a frame, so a column is contiguous and a turn in the plane moves
whole columns. The general path makes a float map of every past frame and mixes its layers by a
matrix; here each target column reads four source columns of each frame and adds up its evidence,
without a gradient and without anything of the size of a frame in between. Columns are padded to
whole vectors (`padded`), so that no loop has a remainder.

Axes: P past frames, X, Y, Z cells of a source, D layers with padding, U, V columns of a target, N
of its rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.jit import compiled
from vlwm.core.model.memory.cpu.threads import by_rows
from vlwm.core.model.memory.warp import affine_places
from vlwm.core.model.torch_frames import relative_ego

_VECTOR = 64
"""numbers of one step of a vectorised loop: four vectors of 512 bits"""


def padded(layers: int) -> int:
    """Return the layers of a column with padding, a whole number of steps of a vectorised loop."""
    return -(-layers // _VECTOR) * _VECTOR


@dataclass(frozen=True)
class SeenColumns:
    """The observed past of one window.

    Attributes:
        cells: uint8 (P, X, Y, 2, D) of 0 and 1, seen occupied and seen free.
        known: bool (P, X, Y), columns with any evidence.
        layers: Z.
    """

    cells: NDArray[np.uint8]
    known: NDArray[np.bool_]
    layers: int

    @staticmethod
    def of(occupied: Tensor, free: Tensor) -> SeenColumns:
        """Return the columns of a past uint8 (P, X, Y, Z)."""
        frames, x, y, z = occupied.shape
        cells = np.empty((frames, x, y, 2, padded(z)), dtype=np.uint8)
        known = np.empty((frames, x, y), dtype=np.bool_)
        by_rows(_find_known, frames * x, _numpy(occupied).reshape(frames * x, y, z),
                _numpy(free).reshape(frames * x, y, z), cells.reshape(frames * x, y, 2, -1),
                known.reshape(frames * x, y))  # fmt: skip
        return SeenColumns(cells, known, z)


@dataclass(frozen=True)
class EvidenceReader:
    """Reads the evidence of one window's past at the columns of one target frame.

    Attributes:
        seen: the past.
        factors: float64 (P, 6), of `affine_places`, of the wide raster in each past frame.
        lift: float64 (P,), layers by which the target is higher.
        odds: float32 (2,), log-odds of a hit and of a miss.
    """

    seen: SeenColumns
    factors: NDArray[np.float64]
    lift: NDArray[np.float64]
    odds: NDArray[np.float32]

    @staticmethod
    def at(
        seen: SeenColumns,
        past_ego: Tensor,
        ego: Tensor,
        grid: VoxelGrid,
        margin: int,
        odds: tuple[float, float],
    ) -> EvidenceReader:
        """Return the reader of a target at `ego` (4,), `margin` cells wider than a frame.

        Args:
            past_ego: (P, 4).
            grid: of the past frames.
        """
        here = relative_ego(past_ego.double(), ego.double()[None])  # (P, 4)
        factors = _numpy(affine_places(here, grid))
        # column (i, j) of the target is column (i − margin, j − margin) of a frame's own raster
        factors[:, 2] -= margin * (factors[:, 0] + factors[:, 1])
        factors[:, 5] -= margin * (factors[:, 3] + factors[:, 4])
        lift = _numpy(here[:, 2] / grid.cell_m[2])
        return EvidenceReader(seen, factors, lift, np.array(odds, np.float32))

    def rows(self, first: int, last: int, out: NDArray[np.float32]) -> None:
        """Write rows first … last − 1 of the target into `out` (N, V, 2, D): count, evidence."""
        self._add(first, last, first, out)

    def whole(self, out: NDArray[np.float32]) -> None:
        """Write the target (U, V, 2, D), its rows shared among the threads."""
        by_rows(lambda first, last: self._add(first, last, 0, out), len(out))

    def _add(self, first: int, last: int, origin: int, out: NDArray[np.float32]) -> None:
        cells, known, layers = self.seen.cells, self.seen.known, self.seen.layers
        _add_evidence(
            first, last, origin, cells.reshape(-1), known, layers, cells.shape[-1], self.factors,
            self.lift, self.odds, out.shape[1], out.reshape(-1),
        )  # fmt: skip


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
    x, y, z = grid.shape
    out = np.empty((x + 2 * margin, y + 2 * margin, 2, padded(z)), dtype=np.float32)
    seen = SeenColumns.of(occupied, free)
    EvidenceReader.at(seen, past_ego, ego, grid, margin, odds).whole(out)
    return torch.from_numpy(out)[..., :z]


def _numpy(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().numpy())


@compiled
def _find_known(
    first: int,
    last: int,
    occupied: NDArray[np.uint8],
    free: NDArray[np.uint8],
    cells: NDArray[np.uint8],
    known: NDArray[np.bool_],
) -> None:
    """Fill rows first … last − 1 of `cells` (N, Y, 2, D) and `known` (N, Y) from (N, Y, Z)."""
    _, columns, layers = occupied.shape
    for i in range(first, last):
        for j in range(columns):
            seen = np.uint8(0)
            for k in range(layers):
                hit = occupied[i, j, k]
                miss = free[i, j, k]
                cells[i, j, 0, k] = hit
                cells[i, j, 1, k] = miss
                seen |= hit | miss
            cells[i, j, :, layers:] = 0
            known[i, j] = seen > 0


# Numbers of cells are unsigned below: those are never counted from the end of an array, and without
# that check a loop over a column is vectorised.


@compiled
def _mix(
    cells: NDArray[np.uint8],
    at: NDArray[np.uint64],
    share: NDArray[np.float32],
    depth: int,
    out: NDArray[np.float32],
    first: int,
) -> None:
    """Fill out[first … first + D − 1] with the weighted sum of the columns that begin `at` (4,)."""
    at_0, at_1, at_2, at_3 = at[0], at[1], at[2], at[3]
    share_0, share_1, share_2, share_3 = share[0], share[1], share[2], share[3]
    to = np.uint64(first)
    for k in range(np.uint64(depth)):
        out[to + k] = (
            share_0 * np.float32(cells[at_0 + k])
            + share_1 * np.float32(cells[at_1 + k])
            + share_2 * np.float32(cells[at_2 + k])
            + share_3 * np.float32(cells[at_3 + k])
        )


@compiled
def _count(
    mixed: NDArray[np.float32],
    first: int,
    part: np.float32,
    odds: NDArray[np.float32],
    out: NDArray[np.float32],
    at: int,
    depth: int,
) -> None:
    """Add a column of one frame to the weighted count out[at …] and the evidence after it.

    Layer k of the hits is read between mixed[first + k] and the next, that of the misses 3 D later.
    """
    rest = np.float32(1.0) - part
    hit_odds, miss_odds = odds[0], odds[1]
    one = np.uint64(1)
    hits, misses = np.uint64(first), np.uint64(first + 3 * depth)
    to, best = np.uint64(at), np.uint64(at + depth)
    for k in range(np.uint64(depth)):
        hit = rest * mixed[hits + k] + part * mixed[hits + k + one]
        miss = rest * mixed[misses + k] + part * mixed[misses + k + one]
        out[to + k] += hit_odds * hit - miss_odds * miss
        # the evidence is that of the frame that knows the cell best
        known = min(hit + miss, np.float32(1.0))
        out[best + k] = known if known > out[best + k] else out[best + k]


@compiled
def _corners(
    known: NDArray[np.bool_],
    u: float,
    v: float,
    at: NDArray[np.uint64],
    share: NDArray[np.float32],
) -> bool:
    """Return True if a column around place u, v of a frame is known.

    Args:
        known: (X, Y), of the frame.
        u, v: in columns, from the centre of the first one.
        at, share: (4,), filled with the number of each column and its bilinear weight; nothing is
            known beyond the frame.
    """
    x, y = known.shape
    low_u = int(np.floor(u))
    low_v = int(np.floor(v))
    found = False
    for corner in range(4):
        m = low_u + (corner >> 1)
        n = low_v + (corner & 1)
        share[corner] = 0.0
        at[corner] = 0
        if m >= 0 and n >= 0 and m < x and n < y and known[m, n]:
            share[corner] = np.float32((1.0 - abs(u - m)) * (1.0 - abs(v - n)))
            at[corner] = m * y + n
            found = True
    return found


@compiled
def _add_frame(
    cells: NDArray[np.uint8],
    frame: np.uint64,
    at: NDArray[np.uint64],
    share: NDArray[np.float32],
    lift: float,
    layers: int,
    odds: NDArray[np.float32],
    mixed: NDArray[np.float32],
    out: NDArray[np.float32],
    to: int,
) -> None:
    """Add a column of one past frame, whose first column is `frame`, to out[to …].

    `mixed` (6 D + 1,) is scratch: hits and misses, each with D empty layers below and above.
    """
    depth = len(mixed) // 6
    whole = int(np.floor(lift))
    part = np.float32(lift - whole)
    lower = lift - whole < 0.5
    for corner in range(4):
        column = frame + at[corner]
        at[corner] = np.uint64(2 * depth) * column
    for kind in range(2):
        start = (3 * kind + 1) * depth
        _mix(cells, at, share, depth, mixed, start)
        # the outermost layer is repeated where a centre is inside and its neighbour not
        mixed[start - 1] = 0.0 if lower else mixed[start]
        mixed[start + layers] = mixed[start + layers - 1] if lower else 0.0
        for corner in range(4):
            at[corner] += np.uint64(depth)
    # linear in height; the next layers have their centre outside: they stay as they are
    below = -1 - whole if lower else -2 - whole
    above = layers - whole if lower else layers - 1 - whole
    if 0 <= below < layers:
        old_below = out[to + below], out[to + depth + below]
    if 0 <= above < layers:
        old_above = out[to + above], out[to + depth + above]
    _count(mixed, depth + whole, part, odds, out, to, depth)
    if 0 <= below < layers:
        out[to + below], out[to + depth + below] = old_below
    if 0 <= above < layers:
        out[to + above], out[to + depth + above] = old_above


@compiled
def _add_evidence(
    first: int,
    last: int,
    origin: int,
    cells: NDArray[np.uint8],
    known: NDArray[np.bool_],
    layers: int,
    depth: int,
    factors: NDArray[np.float64],
    lift: NDArray[np.float64],
    odds: NDArray[np.float32],
    width: int,
    out: NDArray[np.float32],
) -> None:
    """Fill rows first … last − 1 of a target: weighted count and evidence.

    Row `origin` of the target, of `width` columns, is row 0 of `out`, a flat (N, V, 2, D). The past
    frames are flat too; `layers` is Z and `depth` is D. Layers after Z are meaningless.
    """
    frames, x, y = known.shape
    mixed = np.zeros(6 * depth + 1, np.float32)
    share = np.zeros(4, np.float32)
    at = np.zeros(4, np.uint64)
    for i in range(first, last):
        for j in range(width):
            to = ((i - origin) * width + j) * 2 * depth
            out[to : to + 2 * depth] = 0.0
            for p in range(frames):
                whole = int(np.floor(lift[p]))
                # place of the target's centre in the frame, measured from its first cell's centre
                u = factors[p, 0] * i + factors[p, 1] * j + factors[p, 2] - 0.5
                v = factors[p, 3] * i + factors[p, 4] * j + factors[p, 5] - 0.5
                if u <= -1.0 or v <= -1.0 or u >= x or v >= y or abs(whole) > layers:
                    continue
                if not _corners(known[p], u, v, at, share):
                    continue
                _add_frame(
                    cells, np.uint64(p * x * y), at, share, lift[p], layers, odds, mixed, out, to
                )

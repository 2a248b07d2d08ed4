"""Split a plan grid into blocks, so that making the ground needs memory for one block only.

A grid of up to `BLOCK_NODES` each way is one block. Larger grids are split into equal blocks that
overlap by `FADE_NODES`; overlaps are blended with linear weights that sum to one, so a result that
is continuous in each block is continuous everywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.geometry.mapped_arrays import pieces
from vlwm.core.geometry.plan_grid import PlanGrid

BLOCK_NODES = 640
"""nodes of one block along each axis"""
FADE_NODES = 20
"""nodes by which blocks reach over their border, on each side"""
_HALO_M = 500.0
"""points so far outside a block are part of its triangulation"""
_FEWEST = 64
"""points that a block has, taken from farther away if need be"""


@dataclass(frozen=True, eq=False)
class Block:
    """One block of a grid.

    Attributes:
        where: its nodes in the whole grid, those it shares with others among them.
        grid: the same nodes.
        rim: `grid` and its surroundings that influence it.
        sight: the nodes of `rim` in the whole grid.
        share: (nx, ny) part that its heights have in the result; None where it is the only block.
    """

    where: tuple[slice, slice]
    grid: PlanGrid
    rim: PlanGrid
    sight: tuple[slice, slice]
    share: NDArray[np.float64] | None

    def add(self, heights: NDArray[np.float64], whole: NDArray[np.float64]) -> None:
        """Add its heights (nx, ny) to those of the whole grid."""
        if self.share is None:
            whole[self.where] = heights
        else:
            whole[self.where] += self.share * heights

    def points(self, scattered: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return scattered points (N, 3) that matter here, with a few farther off if needed."""
        if self.share is None:
            return np.asarray(scattered)
        low = np.array([self.rim.x0, self.rim.y0])
        high = low + (np.array(self.rim.shape) - 1) * self.rim.spacing_m
        middle = (low + high) / 2
        found, rest = [], np.zeros((0, 3))
        for _, some in pieces(scattered):
            some = some[np.isfinite(some).all(axis=1)]
            near = ((some[:, :2] >= low) & (some[:, :2] <= high)).all(axis=1)
            found.append(some[near])
            away = np.concatenate([rest, some[~near]])
            nearest = np.argsort(np.linalg.norm(away[:, :2] - middle, axis=1), kind="stable")
            rest = away[nearest[:_FEWEST]]
        here = np.concatenate([np.zeros((0, 3)), *found])
        return here if len(here) >= _FEWEST else np.concatenate([here, rest])


def blocks_of(grid: PlanGrid) -> Iterator[Block]:
    """Yield the blocks of a grid; one for a grid of ordinary size."""
    if max(grid.shape) <= BLOCK_NODES:
        everything = (slice(0, grid.shape[0]), slice(0, grid.shape[1]))
        yield Block(everything, grid, grid, everything, None)
        return
    halo = int(np.ceil(_HALO_M / grid.spacing_m))
    for (x, share_x), (y, share_y) in itertools.product(*map(_stretches, grid.shape)):
        sight_x, sight_y = (
            slice(max(0, s.start - halo), min(size, s.stop + halo))
            for s, size in zip((x, y), grid.shape, strict=True)
        )
        yield Block(
            (x, y),
            _part_of(grid, (x, y)),
            _part_of(grid, (sight_x, sight_y)),
            (sight_x, sight_y),
            share_x[:, None] * share_y,
        )


def windows_of(
    shape: tuple[int, int], halo: int
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice], tuple[slice, slice]]]:
    """Yield parts of a grid that do not overlap, each with up to `halo` nodes around it.

    Yields the part, the part with its surroundings, and the part within that.
    """
    for x, y in itertools.product(*(itertools.pairwise(_cuts(n)) for n in shape)):
        inner, outer, within = [], [], []
        for (start, stop), size in zip((x, y), shape, strict=True):
            first, last = max(0, start - halo), min(size, stop + halo)
            inner.append(slice(start, stop))
            outer.append(slice(first, last))
            within.append(slice(start - first, stop - first))
        yield (inner[0], inner[1]), (outer[0], outer[1]), (within[0], within[1])


def _cuts(size: int) -> list[int]:
    count = -(-size // BLOCK_NODES)
    return [round(k * size / count) for k in range(count + 1)]


def _stretches(size: int) -> list[tuple[slice, NDArray[np.float64]]]:
    """Return the nodes of each block along one axis, with its share at each of them."""
    stretches = []
    ramp = (np.arange(2 * FADE_NODES) + 0.5) / (2 * FADE_NODES)
    for start, stop in itertools.pairwise(_cuts(size)):
        first, last = max(0, start - FADE_NODES), min(size, stop + FADE_NODES)
        share = np.ones(last - first)
        if start > 0:
            share[: 2 * FADE_NODES] = ramp
        if stop < size:
            share[-2 * FADE_NODES :] = ramp[::-1]
        stretches.append((slice(first, last), share))
    return stretches


def _part_of(grid: PlanGrid, nodes: tuple[slice, slice]) -> PlanGrid:
    """Return some nodes of a grid, as a grid."""
    x0, y0 = (
        low + part.start * grid.spacing_m
        for low, part in zip((grid.x0, grid.y0), nodes, strict=True)
    )
    x, y = nodes
    return PlanGrid(x0, y0, grid.spacing_m, (x.stop - x.start, y.stop - y.start))

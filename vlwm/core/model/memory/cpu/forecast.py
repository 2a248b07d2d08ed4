"""Forecast from an observed past on a CPU: whole columns from the evidence to the mean over draws.

The general path (`ObservedBranch.completed`, `under_spread`) keeps height layers apart, as a GPU
and a gradient need it; here a column of cells stays in one piece, and target frames are made side
by side, one for each thread. Both compute the same, within the rounding of float32.

Axes: B windows, P past frames, R target frames, X, Y, Z cells, U, V columns of the wide raster, N
rows of it, D layers with padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.jit import compiled
from vlwm.core.model.memory.completion_net import CompletionNet
from vlwm.core.model.memory.cpu.completion import ROWS, CompletionOnCpu
from vlwm.core.model.memory.cpu.draws import averaged_rows
from vlwm.core.model.memory.cpu.evidence import EvidenceReader, SeenColumns, padded
from vlwm.core.model.memory.cpu.threads import in_threads


@dataclass(frozen=True)
class ColumnForecast:
    """Makes target frames of an observed past, column by column.

    Attributes:
        net: completes the fused map.
        grid: of all frames.
        margin: cells by which the fused map is wider on every side.
        odds: log-odds of a hit and of a miss.
        prior: logits (Z,) of the column prior.
    """

    net: CompletionNet
    grid: VoxelGrid
    margin: int
    odds: tuple[float, float]
    prior: Tensor

    def frames(
        self,
        past: tuple[Tensor, Tensor],
        window: Tensor,
        past_ego: Tensor,
        ego: Tensor,
        draws: dict[int, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Return logits and evidence float32 (R, Z, X, Y), views of columns.

        Args:
            past: seen occupied and seen free, uint8 (B, P, X, Y, Z).
            window: int64 (R,), row of each target frame's window.
            past_ego: (R, P, 4).
            ego: (R, 4).
            draws: places float32 (N, 6) of the draws of the target frames that are averaged.
        """
        rows = window.tolist()
        # the frames of one window share their past
        seen = {b: SeenColumns.of(*(kind[b] for kind in past)) for b in dict.fromkeys(rows)}
        net = CompletionOnCpu(self.net, self.grid.shape[2], padded(self.grid.shape[2]))
        logits = torch.empty(len(rows), *self.grid.shape)
        evidence = torch.empty_like(logits)

        def make(r: int) -> None:
            reader = EvidenceReader.at(
                seen[rows[r]], past_ego[r], ego[r], self.grid, self.margin, self.odds
            )
            if r not in draws:
                self._complete(net, reader, logits[r], evidence[r])
                return
            table = torch.empty(self.grid.shape)
            self._complete(net, reader, table, evidence[r])
            # the mean is over probabilities: a wall of uncertain place is improbable everywhere
            first = 0
            for mean in averaged_rows(table.sigmoid_(), draws[r]):
                # a mean of 0 or 1 is bounded: its logit would be infinite
                torch.logit(mean, eps=1e-4, out=logits[r, first : first + len(mean)])
                first += len(mean)

        in_threads(make, len(rows))
        return logits.permute(0, 3, 1, 2), evidence.permute(0, 3, 1, 2)

    def _complete(
        self, net: CompletionOnCpu, reader: EvidenceReader, logits: Tensor, evidence: Tensor
    ) -> None:
        """Write the logits and the evidence of a completed frame, float32 (X, Y, Z) each."""
        (x, y, z), margin = self.grid.shape, self.margin
        width, depth = y + 2 * margin, padded(z)
        prior = np.ascontiguousarray(self.prior.float().numpy())
        block = torch.empty(ROWS, width, 2, depth)
        first_map: Tensor | None = None
        # a block of rows stays in the cache between its evidence and the network's first layer
        for first in range(0, x + 2 * margin, ROWS):
            last = min(first + ROWS, x + 2 * margin)
            rows = block[: last - first]
            reader.rows(first, last, rows.numpy())
            _enter(rows.numpy(), prior, first - margin, margin, logits.numpy(), evidence.numpy())
            rows[:, :, 0].sigmoid_()
            entered = net.entered(rows.flatten(2))  # (N, V, C)
            if first_map is None:
                first_map = torch.empty(x + 2 * margin, *entered.shape[1:])
            first_map[first:last] = entered
        assert first_map is not None
        final = net.map_of(first_map)[margin:-margin]  # (X, V, C)
        for rows, of_map in zip(logits.split(ROWS), final.split(ROWS), strict=True):
            rows += net.residual(of_map)[:, margin:-margin]


@compiled
def _enter(
    block: NDArray[np.float32],
    prior: NDArray[np.float32],
    first: int,
    margin: int,
    logits: NDArray[np.float32],
    evidence: NDArray[np.float32],
) -> None:
    """Turn the weighted counts of rows (N, V, 2, D) into half the logits of the fused map.

    Cells within the frame also go into `logits` and their evidence into `evidence`, (X, Y, Z) each.
    Row 0 of the block is row `first` of the frame.
    """
    x, y, layers = evidence.shape
    half = np.float32(0.5)
    for n in range(block.shape[0]):
        i = first + n
        for v in range(block.shape[1]):
            j = v - margin
            inside = 0 <= i < x and 0 <= j < y
            # where the evidence is weak, the column prior fills up
            count, known = block[n, v, 0], block[n, v, 1]
            if inside:
                logit, seen = logits[i, j], evidence[i, j]
                for k in range(layers):
                    seen[k] = known[k]
                    logit[k] = count[k] + (np.float32(1.0) - known[k]) * prior[k]
                for k in range(layers):
                    count[k] = half * logit[k]
            else:
                for k in range(layers):
                    count[k] = half * (count[k] + (np.float32(1.0) - known[k]) * prior[k])

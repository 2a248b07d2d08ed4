"""Fuse an observed past in the frame of each future one, and complete what nobody saw there.

    seen occupied ┐  moved into the     evidence + small network     completion
    seen free     ┴─► target frame ───► log-odds, evidence ────────► log-odds

A cell has three states: evidence of a surface, evidence of free space, none. Log-odds are a
weighted count of both kinds over the past frames, with weights that are learned, plus the residual
of a small convolutional network, the same for every height layer. Without evidence the log-odds are
those of the column prior: unknown is not free. A second network (`completion_net`) then predicts
what nobody saw from what was seen around it, also beyond the past frames.

Axes: B windows, P past frames, R target frames, X, Y, Z cells (with a margin while fused), L height
layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.branch import (
    MemoryBranch,
    MemoryForecast,
    MotionSpread,
    TargetFrames,
)
from vlwm.core.model.memory.completion_net import CompletionNet
from vlwm.core.model.memory.cpu.evidence import evidence_columns
from vlwm.core.model.memory.cpu.forecast import ColumnForecast
from vlwm.core.model.memory.extrapolation import unseen_columns
from vlwm.core.model.memory.fusion import fusion_loss
from vlwm.core.model.memory.warp import draw_places, resampled_memory
from vlwm.core.model.tokenizer.conv_blocks import bias_of

MARGIN = 8
"""cells kept around the window's frame: corners of past frames that are turned against it"""
_LAYERS_AT_ONCE = 8
"""height layers whose maps stay in a processor's cache"""
_DILATIONS = (1, 2)
_FIRST_ODDS = (2.0, 1.2)
"""log-odds that one frame's evidence of a surface and of free space has before training"""


@dataclass(frozen=True)
class Seen:
    """Evidence of the past frames on some layers of one raster.

    Attributes:
        occupied, free: float32 (B, P, L, X, Y) in [0, 1], read between cell centres.
    """

    occupied: Tensor
    free: Tensor

    def evidence(self) -> Tensor:
        """Return (B, L, X, Y) in [0, 1]: how far some frame knows the cell."""
        return (self.occupied + self.free).amax(dim=1).clamp(max=1.0)

    def layers(self, first: int, last: int) -> Seen:
        """Return the layers first…last − 1."""
        return Seen(self.occupied[:, :, first:last], self.free[:, :, first:last])


class ObservedFusion(nn.Module):
    """Log-odds of cells from the evidence of the past frames; 0 where there is none.

    Args:
        frames: past frames.
        channels: width; 0 for the weighted count alone, which is enough where a completion follows.

    Attributes:
        planes: False; walls are fitted to complete frames alone.
    """

    planes = False

    def __init__(self, frames: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.odds = nn.Parameter(torch.tensor(_FIRST_ODDS))
        if not channels:
            return
        self.conv_in = nn.Conv2d(2 * frames + 4, channels, 3, padding=1)
        self.hidden = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=d, dilation=d) for d in _DILATIONS
        )
        self.conv_out = nn.Conv2d(channels, 1, 1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(bias_of(self.conv_out))

    def forward(self, seen: Seen, below: Seen, above: Seen) -> Tensor:
        """Return log-odds float32 (B, L, X, Y).

        Args:
            seen: L layers.
            below, above: the neighbours of each of them.
        """
        odds = self.odds[0] * seen.occupied.sum(1) - self.odds[1] * seen.free.sum(1)
        if not self.channels:
            return odds
        around = [
            kind.mean(1, keepdim=True)
            for near in (below, above)
            for kind in (near.occupied, near.free)
        ]
        x = torch.cat([seen.occupied, seen.free, *around], dim=1).transpose(1, 2)
        batch, layers = x.shape[:2]  # (B, L, 2P + 4, X, Y): a layer is an image of its own
        x = self.conv_in(x.flatten(0, 1)).relu()
        for layer in self.hidden:
            x = x + layer(x).relu()
        residual = self.conv_out(x).view(batch, layers, *x.shape[-2:])
        # What nobody saw stays at log-odds 0, whatever the network makes of its neighbours.
        return (odds + residual) * seen.evidence()


class ObservedBranch(MemoryBranch):
    """Memory of an observed past.

    Args:
        history: past frames.
        channels: width of the fusion.
        grid: the grid of all frames.
        completion: width of the network that completes the map; 0 for none.
        blocks: of attention in that network.
    """

    fusion: ObservedFusion  # type: ignore[assignment]  # takes the place of the frames' fusion

    def __init__(
        self, history: int, channels: int, grid: VoxelGrid, completion: int = 0, blocks: int = 0
    ) -> None:
        super().__init__(history, channels or 1, grid)  # its fusion is replaced
        self.fusion = ObservedFusion(history, channels)
        layers = grid.shape[2]
        self.completion = CompletionNet(layers, completion, blocks) if completion else None
        (x, y, z), (cell_x, cell_y, _) = grid.shape, grid.cell_m
        low_x, low_y, low_z = grid.lower_m
        self.wide_grid = VoxelGrid(
            (low_x - MARGIN * cell_x, low_y - MARGIN * cell_y, low_z),
            grid.cell_m,
            (x + 2 * MARGIN, y + 2 * MARGIN, z),
        )

    @torch.no_grad()
    def read(
        self,
        voxels: Tensor,
        free: Tensor,
        target: TargetFrames,
        prior: Tensor,
        spread: MotionSpread | None,
    ) -> MemoryForecast:
        """Return the target frames, as sure as their motion is.

        Args:
            voxels: uint8 (B, F, X, Y, Z), the P past frames first, as seen occupied.
            free: uint8 (B, P, X, Y, Z).
            target: the frames to forecast.
            prior: logits (Z,) of the column prior.
            spread: of the predicted motions; None where every target frame is planned.
        """
        past = voxels[:, : target.past_ego.shape[1]]
        # a network of another design takes the general path
        if isinstance(self.completion, CompletionNet) and self._by_columns(past):
            return self._column_forecast(self.completion, past, free, target, prior, spread)
        rows = (past[target.window], free[target.window], target.past_ego, target.ego)
        logits, evidence = self.completed(*rows, prior)
        if self.completion is None:
            # where no past frame reaches, the column's state at the edge decides
            unseen = unseen_columns(past, target.past_ego, target.ego, self.grid, target.window)
            unseen.put(logits, self.extrapolation(unseen, prior))
        if spread is not None:
            logits = self._averaged(logits, target.ego, spread)
        return MemoryForecast(logits, evidence)

    def _by_columns(self, voxels: Tensor) -> bool:
        """Return True if a CPU counts the evidence column by column."""
        return voxels.device.type == "cpu" and not self.fusion.channels

    def _column_forecast(
        self,
        net: CompletionNet,
        past: Tensor,
        free: Tensor,
        target: TargetFrames,
        prior: Tensor,
        spread: MotionSpread | None,
    ) -> MemoryForecast:
        """Return what `read` does, made column by column."""
        hit, miss = self.fusion.odds.tolist()
        maker = ColumnForecast(net, self.grid, MARGIN, (hit, miss), prior)
        draws: dict[int, Tensor] = {}
        if spread is not None:
            places = draw_places(target.ego[spread.rows], spread.moves, self.grid)
            draws = dict(zip(spread.rows.tolist(), places, strict=True))
        logits, evidence = maker.frames(
            (past, free), target.window, target.past_ego, target.ego, draws
        )
        return MemoryForecast(logits, evidence)

    def completed(
        self, occupied: Tensor, free: Tensor, past_ego: Tensor, ego: Tensor, prior: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return logits and evidence float32 (B, Z, X, Y) of frames at `ego`, completed.

        A gradient reaches the completion alone: the fusion has a loss of its own.

        Args:
            occupied, free: uint8 (B, P, X, Y, Z).
            past_ego: (B, P, 4).
            ego: (B, 4).
            prior: logits (Z,) of the column prior.
        """
        logits, evidence = self.fused(occupied, free, past_ego, ego, prior)
        # the margin goes last: the network reads beyond the border of the frame
        if self.completion is not None:
            logits = logits + self.completion(logits, evidence)
        return _inner(logits).contiguous(), _inner(evidence).contiguous()

    @torch.no_grad()
    def fused(
        self, occupied: Tensor, free: Tensor, past_ego: Tensor, ego: Tensor, prior: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return logits and evidence float32 (B, Z, X, Y) at `ego` (B, 4), not yet completed."""
        if self._by_columns(occupied):
            hit, miss = self.fusion.odds.tolist()
            columns = torch.stack(
                [
                    evidence_columns(*of_window, self.grid, MARGIN, (hit, miss))
                    for of_window in zip(occupied, free, past_ego, ego, strict=True)
                ]
            )  # (B, X, Y, 2, Z)
            odds, evidence = columns.permute(0, 3, 4, 1, 2).unbind(1)
            return odds + (1 - evidence) * prior[:, None, None], evidence
        seen = self._read(occupied, free, past_ego, ego)
        depth = seen.occupied.shape[2]
        parts = []
        for first in range(0, depth, _LAYERS_AT_ONCE):  # few layers stay in a processor's cache
            last = min(first + _LAYERS_AT_ONCE, depth)
            parts.append(self.fusion(*_with_neighbours(seen, first, last)))
        evidence = seen.evidence()
        return torch.cat(parts, dim=1) + (1 - evidence) * prior[:, None, None], evidence

    def loss(
        self,
        occupied: Tensor,
        free: Tensor,
        past_ego: Tensor,
        ego: Tensor,
        layers: Tensor,
        truth: Tensor,
        known: Tensor | None = None,
    ) -> Tensor:
        """Return the cross-entropy of the fusion where there is evidence.

        Args:
            occupied, free: uint8 (B, P, X, Y, Z).
            past_ego: (B, P, 4).
            ego: (B, 4), of a future frame of each window.
            layers: int64 (B, L), height layers of it to learn from.
            truth: uint8 (B, L, X, Y).
            known: uint8 of the same shape, cells whose truth is known; None: all of them.
        """
        depth, count = occupied.shape[-1], layers.shape[1]
        # the wanted layers with both neighbours are read at once: (B, 3 L)
        stacked = [(layers + offset).clamp(0, depth - 1) for offset in (-1, 0, 1)]
        seen = self._read(occupied, free, past_ego, ego, torch.cat(stacked, dim=1), margin=False)
        below, here, above = (seen.layers(k * count, (k + 1) * count) for k in range(3))
        # without evidence the answer is the prior's, and there is nothing to learn
        counted = here.evidence() > 0.5
        if known is not None:
            counted = counted & (known > 0)
        return fusion_loss(self.fusion(here, below, above), truth, counted)

    @torch.no_grad()
    def _read(
        self,
        occupied: Tensor,
        free: Tensor,
        past_ego: Tensor,
        ego: Tensor,
        layers: Tensor | None = None,
        *,
        margin: bool = True,
    ) -> Seen:
        """Read both kinds of evidence of the past frames at the cells of a frame at `ego`."""
        frames, grid = occupied.shape[1], self.grid
        # both kinds move alike: they are frames of one memory
        both = torch.cat([occupied, free], dim=1)  # (B, 2P, X, Y, Z)
        if margin:
            grid = self.wide_grid
            both = functional.pad(both, (0, 0, MARGIN, MARGIN, MARGIN, MARGIN))
        memory = resampled_memory(both, past_ego.repeat(1, 2, 1), ego, grid, layers).occupied
        return Seen(memory[:, :frames], memory[:, frames:])


def _inner(values: Tensor) -> Tensor:
    """Return values (…, X, Y) of the wide grid without its margin."""
    return values[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def _with_neighbours(seen: Seen, first: int, last: int) -> tuple[Seen, Seen, Seen]:
    """Return layers first…last − 1, those below and those above; the outermost repeat."""
    depth = seen.occupied.shape[2]
    at = torch.arange(first, last, device=seen.occupied.device)
    picked = [(at + offset).clamp(0, depth - 1) for offset in (0, -1, 1)]
    here, below, above = (Seen(seen.occupied[:, :, p], seen.free[:, :, p]) for p in picked)
    return here, below, above

"""Fuse the past frames into one frame: find where a surface is inside the cells they marked.

Each past frame marked every cell that a surface touches, on a raster of its own. Resampled onto the
raster of a future frame (`warp.resampled_memory`), each of them is blurred; together they locate
the surface, along a wall to a tenth of a cell. A small convolutional network, the same for every
height layer, reads them and the means of the layers below and above. Its output is a residual on
the mean of the frames, trained on the probability of a cell, so that it can be averaged over
motions. Where walls are read as planes (`plane_reading`), it is a residual on that reading, which
needs no learning either and is stronger than the mean, and the network reads it as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.plane_reading import PlaneFrames
from vlwm.core.model.memory.warp import (
    Resampled,
    affine_places,
    kernels,
    resampled_memory,
)
from vlwm.core.model.tokenizer.conv_blocks import bias_of
from vlwm.core.model.torch_frames import relative_ego

READING_SCALE = 6.0
"""logit of a cell that every past frame marks (at 4, the many empty cells would hold so much
probability that dice and mean-matching see a forecast twice too full)"""
TIE_BIAS = 0.01
"""lets a cell that half of the frames mark count as occupied, in spite of rounding"""

_DILATIONS = (1, 2, 4, 2, 1)
_CELLS_IN_CACHE = 120_000
"""cells of a pass without gradient on a CPU"""
_CELLS_AT_ONCE = 4_000_000
"""cells of a pass without gradient on a GPU"""


class FrameFusion(nn.Module):
    """Computes logits of a future frame from its resampled past frames.

    At first it returns their mean or, with planes, the reading of the walls.

    Args:
        frames: past frames.
        channels: width.
        planes: read walls as planes too.
    """

    def __init__(self, frames: int, channels: int, *, planes: bool = False) -> None:
        super().__init__()
        self.planes = planes
        self.conv_in = nn.Conv2d(frames + 2 + 2 * planes, channels, 3, padding=1)
        self.hidden = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=d, dilation=d) for d in _DILATIONS
        )
        self.conv_out = nn.Conv2d(channels, 1, 1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(bias_of(self.conv_out))

    def forward(
        self,
        memory: Resampled,
        neighbours: tuple[Tensor, Tensor] | None = None,
        planes: PlaneFrames | None = None,
    ) -> Tensor:
        """Return logits float32 (B, L, X, Y), meaningless where no frame contains the cell.

        Args:
            memory: L layers of the future frame.
            neighbours: means (B, L, X, Y) of the layers below and above each; None if the L layers
                are the whole frame.
            planes: the same layers as the walls have them, if they are read.
        """
        mean = memory.mean()
        below, above = neighbours or _neighbours(mean)
        # the reading without learning; the network adds a residual to it
        plain = mean if planes is None else planes.probability()
        logits = READING_SCALE * (2 * plain - 1) + TIE_BIAS
        # with a gradient all layers at once; without, as many as fit into the cache
        layers = mean.shape[1]
        step = layers
        if not torch.is_grad_enabled():
            cells = _CELLS_IN_CACHE if mean.device.type == "cpu" else _CELLS_AT_ONCE
            step = max(1, cells // mean[:, 0].numel())
        residuals = []
        for first in range(0, layers, step):
            part = slice(first, first + step)
            # +1 occupied, −1 empty, 0 beyond the frame
            votes = 2 * memory.occupied[:, :, part] - memory.inside[:, :, part]
            around = [2 * below[:, part] - 1, 2 * above[:, part] - 1]
            if planes is not None:
                around += [2 * planes.planes[:, part] - 1, 2 * planes.rest[:, part] - 1]
            # (B, L, P + 2 or 4, X, Y)
            x = torch.cat([votes, torch.stack(around, dim=1)], dim=1).transpose(1, 2)
            residuals.append(self._residual(x.flatten(0, 1)).reshape_as(logits[:, part]))
        return logits + torch.cat(residuals, dim=1)

    @torch.no_grad()
    def read(
        self,
        voxels: Tensor,
        window: Tensor,
        past_ego: Tensor,
        ego: Tensor,
        grid: VoxelGrid,
        otherwise: Tensor,
        known: Tensor | None = None,
        planes: PlaneFrames | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return some future frames as the past frames have them.

        Args:
            voxels: uint8 (B, F, X, Y, Z), the P past frames first.
            window: int64 (R,), row of the window of each future frame.
            past_ego: (R, P, 4), in any common frame.
            ego: (R, 4), in the same frame.
            grid: the grid of all frames.
            otherwise: logits (Z,) where no past frame contains a cell.
            known: uint8 (B, P, X, Y, Z), cells of the past that are known; None: all of them. The
                kernels of a GPU have no such mask: the plain operations run then.
            planes: the R future frames as the walls have them, if they are read; the plain
                operations run then too.

        Returns:
            logits float32 (R, Z, X, Y), and the share of past frames (R, 1, X, Y) that reach the
            lowest layer.
        """
        past = past_ego.shape[1]
        if known is None and planes is None and self._fits_kernels(voxels):
            # on a GPU: the same, in three kernels that keep the intermediate values in registers
            here = relative_ego(past_ego.double(), ego.double()[:, None])
            lift = here[..., 2] / grid.cell_m[2]
            kind = torch.float32
            if torch.is_autocast_enabled("cuda"):
                kind = torch.get_autocast_dtype("cuda")
            places = affine_places(here, grid).float()
            votes, mean, reach = kernels.read_past(voxels, window, places, lift, kind)
            maps = kernels.folded_maps(
                votes, self.conv_in, cast("Iterable[nn.Conv2d]", self.hidden)
            )
            scale = (2 * READING_SCALE, TIE_BIAS - READING_SCALE)
            return kernels.fused_logits(maps, mean, self.conv_out, scale, otherwise), reach
        certain = None if known is None else known[window]
        memory = resampled_memory(voxels[window, :past], past_ego, ego, grid, known=certain)
        unseen = otherwise[:, None, None]
        logits = torch.where(memory.seen(), self(memory, planes=planes).float(), unseen)
        return logits, memory.inside[:, :, 0].float().mean(dim=1, keepdim=True)

    def _fits_kernels(self, voxels: Tensor) -> bool:
        channels = (self.conv_in.in_channels, self.conv_in.out_channels)
        fits = channels[0] <= kernels.CHANNELS == channels[1]
        return fits and voxels.shape[3] % kernels.FOLD == 0 and kernels.usable(voxels.device)

    def _residual(self, x: Tensor) -> Tensor:
        # channels-last takes half the time at this width
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.conv_in(x).relu_()
        for layer in self.hidden:
            # in place where no gradient needs the old value
            more = layer(x).relu_()
            x = x + more if torch.is_grad_enabled() else x.add_(more)
        return self.conv_out(x)


def _neighbours(mean: Tensor) -> tuple[Tensor, Tensor]:
    """Return the layers below and above each; the outermost repeat themselves."""
    below = torch.cat([mean[:, :1], mean[:, :-1]], dim=1)
    return below, torch.cat([mean[:, 1:], mean[:, -1:]], dim=1)


def fusion_loss(logits: Tensor, truth: Tensor, seen: Tensor) -> Tensor:
    """Return the mean over windows of the binary cross-entropy per seen cell, times 20.

    A proper scoring rule, unlike the composite of the forecast: the output is a probability.

    Args:
        logits: (B, L, X, Y).
        truth: uint8 of the same shape.
        seen: bool of the same shape; other cells do not count.
    """
    # (B, L, X, Y), each window weighs the same, however many of its cells were seen
    each = functional.binary_cross_entropy_with_logits(
        logits.float(), truth.float(), reduction="none"
    )
    counted = (each * seen).flatten(1).sum(1) / seen.flatten(1).sum(1).clamp(min=1)
    return 20.0 * counted.mean()

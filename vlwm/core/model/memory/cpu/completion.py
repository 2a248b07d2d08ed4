"""Run the completion of a fused map on a CPU, without a gradient.

It computes what `CompletionNet` does, within the rounding of float32, in less time:

- A finer map is met by a coarser one that repeats each cell 2 × 2 times. A 3 × 3 convolution of it
  reads at most 2 × 2 different cells, so each of the four places of a cell has a 2 × 2 convolution
  of the coarse map, with summed weights: four ninths of the products.
- Group norm is two passes over a map, with sums in float64.
- The map enters and leaves in rows of columns, so that nothing of the size of a frame is copied.

Axes: U, V columns of the wide raster, N rows of it, Z layers, D layers with padding, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vlwm.core.geometry.jit import compiled
from vlwm.core.model.memory.completion_net import CompletionNet
from vlwm.core.model.tokenizer.conv_blocks import bias_of

ROWS = 24
"""rows of columns that enter or leave together (torch gives a 1 × 1 convolution of fewer than 16
images to a slower routine)"""


@dataclass(frozen=True)
class _Layer:
    """A convolution with group norm and SiLU.

    Attributes:
        weight: (C, own C, 3, 3), in channels-last memory.
        bias: (C,).
        coarse: (4 · C, coarse C, 2, 2), of the four places of a cell, first x; None without a
            coarse map.
        repeated: (C, coarse C, 3, 3), the same before they were summed.
        norm: scale and shift after the normalisation.
    """

    weight: Tensor
    bias: Tensor
    coarse: Tensor | None
    repeated: Tensor | None
    norm: nn.GroupNorm


class CompletionOnCpu:
    """Runs a completion net on one window at a time; weights are taken when it is made.

    Args:
        net: the network.
        layers: Z.
        depth: D.
    """

    def __init__(self, net: CompletionNet, layers: int, depth: int) -> None:
        self.layers = layers
        weight, bias = net.stem.weight, bias_of(net.stem)
        # the map enters as s = sigmoid(logit / 2), and tanh(logit / 4) = 2 s − 1
        of_map = weight[:, :layers]
        self.stem_bias = bias - of_map.sum(dim=(1, 2, 3))
        self.stem = weight.new_zeros(len(weight), 2 * depth, 1, 1)
        self.stem[:, :layers] = 2 * of_map
        self.stem[:, depth : depth + layers] = weight[:, layers:]
        self.down = [_layers_of(block) for block in net.down]
        # the finer map of a level comes first, the coarser one after it
        widths = [layers[-1].weight.shape[0] for layers in self.down]
        self.up = [_layers_of(block, own) for block, own in zip(net.up, widths, strict=False)]
        self.attention = net.attention
        self.out, self.out_bias = net.out.weight, bias_of(net.out)

    def entered(self, block: Tensor) -> Tensor:
        """Return the first map float32 (N, V, C) of a block (N, V, 2 D) of rows of columns.

        In a column, sigmoid(logit / 2) of the fused map comes first, the evidence after D.
        """
        images = block.permute(0, 2, 1)[:, :, None]  # (N, 2 D, 1, V): a row is an image
        return functional.conv2d(images, self.stem, self.stem_bias)[:, :, 0].permute(0, 2, 1)

    def map_of(self, first: Tensor) -> Tensor:
        """Return the last map float32 (U, V, C) of the first one, which is overwritten."""
        x = first.permute(2, 0, 1)[None]  # (1, C, U, V) in channels-last memory
        skips: list[Tensor] = []
        for level, layers in enumerate(self.down):
            if level:
                x = functional.avg_pool2d(x, 2, ceil_mode=True)
            for layer in layers:
                x = _applied(layer, x)
            skips.append(x)
        if self.attention is not None:
            x = self.attention(x).contiguous(memory_format=torch.channels_last)
        for level in reversed(range(len(self.up))):
            x = _applied(self.up[level][0], skips[level], x)
            x = _applied(self.up[level][1], x)
        return x[0].permute(1, 2, 0)

    def residual(self, rows: Tensor) -> Tensor:
        """Return the residual float32 (N, V, Z) of rows (N, V, C) of the last map."""
        images = rows.permute(0, 2, 1)[:, :, None]
        return functional.conv2d(images, self.out, self.out_bias)[:, :, 0].permute(0, 2, 1)


def _layers_of(block: nn.Module, own: int | None = None) -> list[_Layer]:
    """Return the layers of a block whose first convolution reads `own` channels of a finer map."""
    layers = []
    modules = list(block.children())
    for conv, norm in zip(modules[0::3], modules[1::3], strict=True):
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.GroupNorm)
        weight = conv.weight if own is None else conv.weight[:, :own]
        coarse = repeated = None
        if own is not None:
            repeated = conv.weight[:, own:].contiguous(memory_format=torch.channels_last)
            coarse = _of_places(repeated)
        weight = weight.contiguous(memory_format=torch.channels_last)
        layers.append(_Layer(weight, bias_of(conv), coarse, repeated, norm))
        own = None
    return layers


def _of_places(weight: Tensor) -> Tensor:
    """Return weights (4 · O, I, 2, 2) of the places of a cell from weights (O, I, 3, 3).

    Place 0 of a cell meets its neighbour before it and itself, place 1 itself and the one after.
    """

    def halves(taps: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        one, two, three = taps.unbind(axis)
        return torch.stack([one, two + three], axis), torch.stack([one + two, three], axis)

    places = [part for half in halves(weight, 2) for part in halves(half, 3)]
    return torch.cat(places).contiguous(memory_format=torch.channels_last)


def _applied(layer: _Layer, x: Tensor, coarse: Tensor | None = None) -> Tensor:
    """Return a layer's output (1, C, U, V) of a map, and of a coarser one where there is one."""
    y = functional.conv2d(x, layer.weight, layer.bias, padding=1)
    cells = y[0].permute(1, 2, 0).numpy()  # (U, V, C)
    places: NDArray[np.float32] = cells[:0]
    if coarse is not None:
        assert layer.coarse is not None and layer.repeated is not None
        if cells.shape[0] == 2 * coarse.shape[2] and cells.shape[1] == 2 * coarse.shape[3]:
            made = functional.conv2d(coarse, layer.coarse, padding=1)
            places = made[0].permute(1, 2, 0).numpy()  # (U / 2 + 1, V / 2 + 1, 4 C)
        else:  # an odd border cuts a cell in half
            repeated = functional.interpolate(coarse, size=y.shape[-2:], mode="nearest")
            y += functional.conv2d(repeated, layer.repeated, padding=1)
    sums = np.zeros((2, cells.shape[2]))
    _add_and_sum(cells, places, sums)
    scale, shift = _affine(layer.norm, sums, cells.shape[0] * cells.shape[1])
    torch.addcmul(shift, y, scale, out=y)
    return functional.silu(y, inplace=True)


def _affine(norm: nn.GroupNorm, sums: NDArray[np.float64], cells: int) -> tuple[Tensor, Tensor]:
    """Return scale and shift (1, C, 1, 1) of a group norm from sums and squares (2, C)."""
    # channels of a group are next to each other
    groups = sums.reshape(2, norm.num_groups, -1)
    mean, square = groups.mean(axis=2) / cells  # (G,)
    spread = 1.0 / np.sqrt(np.maximum(square - mean**2, 0.0) + norm.eps)
    width = groups.shape[2]
    scale = norm.weight.double().numpy() * spread.repeat(width)
    shift = norm.bias.double().numpy() - scale * mean.repeat(width)
    both = torch.from_numpy(np.stack([scale, shift])).float()[:, None, :, None, None]
    return both[0], both[1]


@compiled
def _add_and_sum(
    cells: NDArray[np.float32], places: NDArray[np.float32], sums: NDArray[np.float64]
) -> None:
    """Add the places of coarse cells to a map (U, V, C); sum it and its squares in (2, C).

    Args:
        places: (U / 2 + 1, V / 2 + 1, 4 C), one row and column more than there are coarse cells;
            (0, …) for none.
    """
    rows, columns, channels = cells.shape
    coarse = places.shape[0] > 0
    for i in range(rows):
        for j in range(columns):
            cell = cells[i, j]
            if coarse:
                # place a, b of a coarse cell is made at that cell, a rows and b columns further
                a, b = i % 2, j % 2
                first = (2 * a + b) * channels
                more = places[i // 2 + a, j // 2 + b, first : first + channels]
                for k in range(channels):
                    cell[k] += more[k]
            # of a whole map, sums in float32 would lose the last digits of a small variance
            for k in range(channels):
                value = np.float64(cell[k])
                sums[0, k] += value
                sums[1, k] += value * value

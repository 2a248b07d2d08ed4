"""Complete a fused observation: predict what the past frames did not see from what they saw.

A lidar sees the near wall of a house and nothing behind it. A city is regular enough that the rest
can be guessed: roofs are flat, walls continue, houses are as deep as they are wide. The network is
a U-Net over the fused map with height in its channels (Ronneberger et al., MICCAI 2015), so that
one pass serves every future frame of a window. Its output is a residual: untrained, the map stays
what counting made of it.

Axes: B windows, Z height layers, X, Y cells.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlwm.core.model.tokenizer.conv_blocks import bias_of
from vlwm.core.model.transformer.map_attention import MapAttention

_GROUPS = 8
"""groups of the normalisation; every width is a multiple of it"""
_LEVELS = 4
"""resolutions: at the coarsest, a cell is eight cells wide and a convolution spans a block"""


def fast_convolutions(device: torch.device) -> AbstractContextManager[object]:
    """Return bf16 autocast where a processor trains and multiplies tiles of it; else nothing.

    Intel's AMX takes a third of the time of float32; other processors would take longer. A forecast
    stays in float32: its probabilities are those of an exported graph and of other machines.
    """
    # older versions of torch cannot tell, and stay with float32
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if device.type != "cpu" or not torch.is_grad_enabled() or not capabilities.get("amx_bf16"):
        return nullcontext()
    return torch.autocast("cpu", torch.bfloat16)


class CompletionNet(nn.Module):
    """Predicts a residual on the logits of a fused map; at first 0.

    Args:
        layers: Z.
        channels: width at full resolution, a multiple of 16; it grows by a half at each level.
        blocks: of attention over the coarsest level, where a token is eight cells wide and sees
            all others, as in TransUNet (Chen et al., 2021, arXiv 2102.04306); 0 for none.
    """

    def __init__(self, layers: int, channels: int, blocks: int = 0) -> None:
        super().__init__()
        widths = [channels]
        for _ in range(_LEVELS - 1):
            grown = widths[-1] * 3 // 2
            widths.append(grown - grown % _GROUPS)
        # height is mixed by a 1×1 convolution first: 3×3 ones over all layers cost most of a pass
        self.stem = nn.Conv2d(2 * layers, channels, 1)
        self.down = nn.ModuleList(
            _block(narrow, wide) for narrow, wide in zip([channels, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            _block(narrow + wide, narrow) for narrow, wide in itertools.pairwise(widths)
        )
        self.out = nn.Conv2d(channels, layers, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(bias_of(self.out))
        self.attention = MapAttention(widths[-1], blocks) if blocks else None

    def forward(self, logits: Tensor, evidence: Tensor) -> Tensor:
        """Return the residual float32 (B, Z, X, Y).

        Args:
            logits: float32 (B, Z, X, Y) of the fused map.
            evidence: float32 (B, Z, X, Y) in [0, 1], how far some frame knows the cell.
        """
        # a logit beyond ±8 is certain: squashed, its size no longer dominates the input
        planes = torch.cat([torch.tanh(logits / 4.0), evidence], dim=1)  # (B, 2Z, X, Y)
        with fast_convolutions(planes.device):
            return self._residual(planes).float()

    def _residual(self, planes: Tensor) -> Tensor:
        x = self.stem(planes.contiguous(memory_format=torch.channels_last))
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            if level:
                x = functional.avg_pool2d(x, 2, ceil_mode=True)
            x = block(x)
            skips.append(x)
        if self.attention is not None:
            x = self.attention(x)
        for level in reversed(range(len(self.up))):
            finer = skips[level]
            x = functional.interpolate(x, size=finer.shape[-2:], mode="nearest")
            x = self.up[level](torch.cat([finer, x], dim=1))
        residual: Tensor = self.out(x)
        return residual.contiguous()


class _GroupNorm(nn.GroupNorm):
    """Group norm; without a gradient its sums are precise on a CPU too.

    torch sums a group of a channels-last map in one float32: with 100,000 values it is 5e-5 of a
    deviation off, in place of 1e-6.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, C, X, Y), normalised."""
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return super().forward(x)
        precise = super().forward(x.contiguous())
        return precise.contiguous(memory_format=torch.channels_last)


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    """Return two 3×3 convolutions, each with group norm and SiLU."""
    layers: list[nn.Module] = []
    for source in (channels_in, channels_out):
        layers += [
            nn.Conv2d(source, channels_out, 3, padding=1),
            _GroupNorm(_GROUPS, channels_out),
            nn.SiLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def completion_loss(logits: Tensor, truth: Tensor, counted: Tensor | None) -> Tensor:
    """Return the mean over windows of the binary cross-entropy per counted cell, times 20.

    A proper scoring rule, so that the output is a probability that can be averaged over motions.

    Args:
        logits: float32 (B, Z, X, Y).
        truth: uint8 of the same shape.
        counted: bool of the same shape; None counts all cells.
    """
    each = functional.binary_cross_entropy_with_logits(
        logits.float(), truth.float(), reduction="none"
    )
    if counted is None:
        return 20.0 * each.mean()
    mean = (each * counted).flatten(1).sum(1) / counted.flatten(1).sum(1).clamp(min=1)
    return 20.0 * mean.mean()

"""Correct the memory's forecast with a 2-D U-Net whose channels are the height layers.

Its output is a residual on the memory's logits, and zero at the start: untrained, the forecast is
the memory's.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlwm.core.model.tokenizer.conv_blocks import Down, Up, bias_of, group_norm, map_sizes


class Conditioned(nn.Module):
    """Two convolutions with a shortcut, shifted and scaled by a vector of the whole frame."""

    def __init__(self, channels_in: int, channels_out: int, condition: int) -> None:
        super().__init__()
        self.norm1 = group_norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.film = nn.Linear(condition, 2 * channels_out)
        self.norm2 = group_norm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut = (
            nn.Conv2d(channels_in, channels_out, 1)
            if channels_in != channels_out
            else nn.Identity()
        )

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = self.conv1(functional.silu(self.norm1(x)))
        # FiLM: the frame's vector scales and shifts each channel
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
        hidden = self.norm2(hidden) * (1 + scale) + shift
        return self.shortcut(x) + self.conv2(functional.silu(hidden))


class RefinementNet(nn.Module):
    """Computes residual logits (N, Z, X, Y) of future frames.

    Args:
        planes: input channels at full resolution.
        layers: Z.
        size: X, Y.
        channels, levels: width of the first resolution, number of resolutions.
        condition: width of the vector of a whole frame.
        tokens: channels of a token map, 0 for none; it joins at the lowest resolution.
    """

    def __init__(
        self,
        planes: int,
        layers: int,
        size: tuple[int, int],
        channels: int,
        levels: int,
        condition: int,
        tokens: int,
    ) -> None:
        super().__init__()
        # width doubles with each halving, up to four times
        widths = [channels * min(2**i, 4) for i in range(levels)]
        self.sizes = map_sizes(size, levels)
        self.condition = nn.Sequential(
            nn.Linear(condition, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, 4 * channels)
        )
        inside = 4 * channels
        self.conv_in = nn.Conv2d(planes, widths[0], 3, padding=1)
        self.down = nn.ModuleList(Conditioned(w, w, inside) for w in widths)
        self.lower = nn.ModuleList(Down(w) for w in widths[:-1])
        self.widen = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in itertools.pairwise(widths))
        self.tokens = nn.Conv2d(tokens, widths[-1], 3, padding=1) if tokens else None
        self.middle = Conditioned(widths[-1], widths[-1], inside)
        self.lift = nn.ModuleList(Up(w) for w in widths[1:])
        self.up = nn.ModuleList(
            Conditioned(a + b, a, inside) for a, b in itertools.pairwise(widths)
        )
        self.norm_out = group_norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], layers, 3, padding=1)
        # zero residual at the start
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(bias_of(self.conv_out))

    def forward(self, planes: Tensor, condition: Tensor, tokens: Tensor | None) -> Tensor:
        """Return the residual (N, Z, X, Y).

        Args:
            planes: (N, P, X, Y), the memory's logits, and its reach.
            condition: (N, D).
            tokens: predicted token maps (N, C, h, w), if any.
        """
        vector = self.condition(condition)  # (N, 4 · channels)
        x = self.conv_in(planes)
        # down: a skip is kept at each resolution but the lowest
        skips = []
        for i, block in enumerate(self.down):
            x = block(x, vector)
            if i < len(self.lower):
                skips.append(x)
                x = self.widen[i](self.lower[i](x))
        if self.tokens is not None and tokens is not None:
            # token maps have a resolution of their own
            here = functional.interpolate(tokens, size=x.shape[-2:], mode="bilinear")
            x = x + self.tokens(here)
        x = self.middle(x, vector)
        # up: back to the size that each skip has
        for i in reversed(range(len(self.up))):
            x = self.lift[i](x, self.sizes[i])
            x = self.up[i](torch.cat([skips[i], x], dim=1), vector)
        return self.conv_out(functional.silu(self.norm_out(x)))

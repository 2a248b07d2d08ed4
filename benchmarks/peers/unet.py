"""Complete the fused observation by a plain 2-D U-Net, one future frame at a time.

Ronneberger et al., MICCAI 2015, with two 3×3 convolutions a level, group norm and SiLU, height in
channels, and a residual on the fused log-odds: untrained it is log-odds fusion.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from peers.frames import fused_planes
from peers.interface import Peer, PeerInput, PeerShape


def double_conv(channels_in: int, channels_out: int) -> nn.Sequential:
    """Return two 3×3 convolutions, each with group norm and SiLU."""
    layers: list[nn.Module] = []
    for source in (channels_in, channels_out):
        layers += [
            nn.Conv2d(source, channels_out, 3, padding=1),
            nn.GroupNorm(8, channels_out),
            nn.SiLU(),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """A U-Net of `levels` resolutions whose width doubles at each.

    Args:
        channels_in, channels_out: planes read and answered.
        width: channels at full resolution, a multiple of 8.
        levels: resolutions.
    """

    def __init__(self, channels_in: int, channels_out: int, width: int, levels: int = 4) -> None:
        super().__init__()
        widths = [width * 2**k for k in range(levels)]
        self.down = nn.ModuleList(
            double_conv(a, b) for a, b in zip([channels_in, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(double_conv(a + b, a) for a, b in itertools.pairwise(widths))
        self.out = nn.Conv2d(width, channels_out, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, channels_out, X, Y) of (N, channels_in, X, Y)."""
        skips = []
        for k, block in enumerate(self.down):
            x = block(x if k == 0 else functional.max_pool2d(x, 2))
            skips.append(x)
        for k in reversed(range(len(self.up))):
            size = skips[k].shape[-2:]
            x = functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
            x = self.up[k](torch.cat([skips[k], x], dim=1))
        return self.out(x)


class UNetCompletion(Peer):
    def __init__(self, shape: PeerShape, width: int = 48) -> None:
        super().__init__(shape, width)
        self.net = UNet(2 * shape.layers, shape.layers, width)
        self.prior = nn.Parameter(torch.full((shape.layers,), -3.0))

    def forward(self, given: PeerInput) -> Tensor:
        frames = []
        for k in range(given.horizons.shape[1]):
            planes = fused_planes(given, given.ego[:, k], self.shape.grid)  # (B, 2Z, X, Y)
            odds, evidence = planes.chunk(2, dim=1)
            base = 4 * odds + (1 - evidence) * self.prior[:, None, None]
            frames.append((base + self.net(planes)).permute(0, 2, 3, 1))
        return torch.stack(frames, dim=1)

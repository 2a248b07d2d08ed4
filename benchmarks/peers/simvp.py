"""SimVP: a video predictor of convolutions alone.

Gao et al., "SimVP: Simpler yet Better Video Prediction", CVPR 2022: a spatial encoder that is
shared by the frames (strided convolutions, group norm, SiLU), a translator over the stacked frames
made of Inception blocks (group convolutions with kernels 3, 5, 7, 11), a spatial decoder, and a
skip from the first encoder layer. Here a frame has 2Z planes in and Z out, all future frames leave
at once, and the future ego motion joins the translator as constant planes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from peers.frames import motion_planes, own_planes
from peers.interface import Peer, PeerInput, PeerShape

_KERNELS = (3, 5, 7, 11)
_GROUPS = 8


class ConvSC(nn.Module):
    """Convolution, group norm, SiLU; halves or doubles the map where `stride` is 2."""

    def __init__(self, source: int, target: int, stride: int = 1, up: bool = False) -> None:
        super().__init__()
        if up:
            self.conv: nn.Module = nn.Sequential(
                nn.Conv2d(source, 4 * target, 3, padding=1), nn.PixelShuffle(2)
            )
        else:
            self.conv = nn.Conv2d(source, target, 3, stride=stride, padding=1)
        self.norm, self.act = nn.GroupNorm(2, target), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class Inception(nn.Module):
    """Sum of group convolutions with different kernels, on a 1×1 bottleneck."""

    def __init__(self, source: int, hidden: int, target: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(source, hidden, 1)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(hidden, target, k, padding=k // 2, groups=_GROUPS),
                nn.GroupNorm(_GROUPS, target),
                nn.LeakyReLU(0.2),
            )
            for k in _KERNELS
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        return torch.stack([branch(x) for branch in self.branches]).sum(0)


class SimVP(Peer):
    def __init__(self, shape: PeerShape, width: int = 32, blocks: int = 4) -> None:
        super().__init__(shape, width)
        history, future, layers = shape.history, shape.future, shape.layers
        self.first = ConvSC(2 * layers, width)
        self.encode = nn.Sequential(ConvSC(width, width, stride=2), ConvSC(width, width, stride=2))
        inside, hidden = history * width + 4 * future, 8 * width
        self.translate = nn.ModuleList(
            Inception(inside if k == 0 else hidden, hidden // 2, hidden) for k in range(blocks)
        )
        self.spread = nn.Conv2d(hidden, future * width, 1)
        self.decode = nn.Sequential(ConvSC(width, width, up=True), ConvSC(width, width, up=True))
        self.out = nn.Conv2d(2 * width, layers, 1)

    def forward(self, given: PeerInput) -> Tensor:
        planes = own_planes(given)  # (B, P, 2Z, X, Y)
        batch, history = planes.shape[:2]
        size = planes.shape[-2:]
        first = self.first(planes.flatten(0, 1))  # (B * P, C, X, Y)
        deep = self.encode(first)  # (B * P, C, x, y)
        skip = first.view(batch, history, *first.shape[1:])[:, -1]  # of the last frame
        stacked = deep.reshape(batch, -1, *deep.shape[-2:])
        x = torch.cat([stacked, motion_planes(given.plan, deep.shape[-2:])], dim=1)
        for k, block in enumerate(self.translate):
            x = block(x) + (x if k else 0)
        x = self.spread(x).reshape(batch * self.shape.future, self.width, *deep.shape[-2:])
        x = self.decode(x)
        x = nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
        skips = skip.repeat_interleave(self.shape.future, dim=0)
        logits = self.out(torch.cat([x, skips], dim=1))  # (B * H, Z, X, Y)
        frames = logits.view(batch, self.shape.future, -1, *size).permute(0, 1, 3, 4, 2)
        return frames[torch.arange(batch, device=frames.device)[:, None], given.horizons]

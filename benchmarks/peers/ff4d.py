"""The baseline of 4D Occupancy Forecasting: aligned sweeps through a 2-D encoder and decoder.

Khurana et al., "Point Cloud Forecasting as a Proxy for 4D Occupancy Forecasting", CVPR 2023: past
sweeps are aligned to the last pose and voxelised, height and time are channels, a 2-D convolutional
encoder and decoder (residual blocks, four strides) adds to a linear map of the input, and every
future frame is a group of channels in the frame of the last pose. Each is then read at the ego
frame where it is wanted; beyond the last frame's grid it has a learned constant for each layer's
mean.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from peers.frames import moved_planes, read_at
from peers.interface import Peer, PeerInput, PeerShape


class Residual(nn.Module):
    """Two 3×3 convolutions with batch norm and ReLU, and a shortcut; strided where asked."""

    def __init__(self, source: int, target: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(source, target, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(target)
        self.conv2 = nn.Conv2d(target, target, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(target)
        self.shortcut = nn.Conv2d(source, target, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x))


class FF4D(Peer):
    def __init__(self, shape: PeerShape, width: int = 48) -> None:
        super().__init__(shape, width)
        planes, answers = 2 * shape.layers * shape.history, shape.layers * shape.future
        widths = [width, 2 * width, 4 * width]
        self.down = nn.ModuleList(
            Residual(a, b, stride) for a, b, stride in zip(
                [planes, *widths], widths, (1, 2, 2), strict=False
            )
        )  # fmt: skip
        self.up = nn.ModuleList(Residual(a + b, a) for a, b in itertools.pairwise(widths))
        self.out = nn.Conv2d(width, answers, 3, padding=1)
        self.linear = nn.Conv2d(planes, answers, 1)  # the paper's linear skip
        self.outside = nn.Parameter(torch.tensor(-4.0))

    def forward(self, given: PeerInput) -> Tensor:
        anchor = given.past_ego[:, -1]
        aligned = moved_planes(given, anchor, self.shape.grid).flatten(1, 2)  # (B, P * 2Z, X, Y)
        skips, x = [], aligned
        for block in self.down:
            x = block(x)
            skips.append(x)
        for k in reversed(range(len(self.up))):
            size = skips[k].shape[-2:]
            x = functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
            x = self.up[k](torch.cat([skips[k], x], dim=1))
        logits = self.out(x) + self.linear(aligned)
        frames = logits.unflatten(1, (self.shape.future, -1))  # (B, H, Z, X, Y)
        rows = torch.arange(len(frames), device=frames.device)
        found = []
        for k in range(given.horizons.shape[1]):
            frame = frames[rows, given.horizons[:, k]]
            moved = read_at(frame, given.ego[:, k], self.shape.grid, 0.0)
            inside = read_at(torch.ones_like(frame), given.ego[:, k], self.shape.grid, 0.0)
            found.append((moved + (1 - inside) * self.outside).permute(0, 2, 3, 1))
        return torch.stack(found, dim=1)

"""What a peer reads and answers.

Axes: B windows, P past and K wanted future frames, Z height layers, X, Y cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlwm.core.geometry.grid import VoxelGrid


@dataclass(frozen=True)
class PeerShape:
    """Sizes of the data.

    Attributes:
        grid: of all frames.
        history, future: frames of a window.
    """

    grid: VoxelGrid
    history: int
    future: int

    @property
    def layers(self) -> int:
        """Z."""
        return self.grid.shape[2]


@dataclass(frozen=True)
class PeerInput:
    """An observed past, and where the wanted future frames are.

    Attributes:
        occupied, free: uint8 (B, P, X, Y, Z), each frame in its own ego frame.
        past_ego: float32 (B, P, 4), the last one is the origin.
        plan: float32 (B, H, 4), all future ego frames.
        horizons: int64 (B, K), numbers of the wanted ones, 0 … H − 1.
    """

    occupied: Tensor
    free: Tensor
    past_ego: Tensor
    plan: Tensor
    horizons: Tensor

    @property
    def ego(self) -> Tensor:
        """Ego frames (B, K, 4) of the wanted future frames."""
        return self.plan[
            torch.arange(len(self.plan), device=self.plan.device)[:, None], self.horizons
        ]


class Peer(nn.Module):
    """A forecaster: logits (B, K, X, Y, Z) of the wanted frames, each in its own ego frame.

    Args:
        shape: sizes of the data.
        width: channels of the first layers.
    """

    def __init__(self, shape: PeerShape, width: int) -> None:
        super().__init__()
        self.shape, self.width = shape, width

    def forward(self, given: PeerInput) -> Tensor:
        raise NotImplementedError

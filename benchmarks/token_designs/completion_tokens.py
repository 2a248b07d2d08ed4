"""Complete a fused observation by the default U-Net with a transformer at its coarsest level.

It is `model.completion_blocks`; everything else, the loss included, is the default's.
"""

from __future__ import annotations

from torch import Tensor

from token_designs.interface import TokenDesign
from vlwm.core.config.schema import Config
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.completion_net import CompletionNet

_BLOCKS = 3


class CompletionTokens(TokenDesign):
    """The completion network with attention; untrained, the residual is 0.

    Args:
        config: whose model gives the width.
        grid: of all frames.
    """

    def __init__(self, config: Config, grid: VoxelGrid) -> None:
        super().__init__()
        self.net = CompletionNet(grid.shape[2], config.model.completion_channels, _BLOCKS)

    def forward(self, logits: Tensor, evidence: Tensor) -> Tensor:
        residual: Tensor = self.net(logits, evidence)
        return residual

"""Complete a fused observation by the default U-Net with a transformer at its coarsest level.

A token is eight cells wide there and all places of the map see each other, as in TransUNet (Chen et
al., 2021, arXiv 2102.04306). Everything else, the loss included, is the default's.
"""

from __future__ import annotations

from torch import Tensor, nn

from token_designs.attention import TokenBlocks
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
        self.net = CompletionNet(grid.shape[2], config.model.completion_channels)
        coarsest = self.net.down[-1]
        width = coarsest[0].out_channels
        self.net.down[-1] = nn.Sequential(coarsest, TokenBlocks(width, _BLOCKS))

    def forward(self, logits: Tensor, evidence: Tensor) -> Tensor:
        residual: Tensor = self.net(logits, evidence)
        return residual

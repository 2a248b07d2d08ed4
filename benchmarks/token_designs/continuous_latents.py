"""Complete a fused observation in a grid of continuous latents.

The tokenizer's encoder, reading the evidence, and its decoder, with a bottleneck of the same grid
and width but without codes (an autoencoder as in Rombach et al., CVPR 2022, section 3.1), and a
transformer over the latents between them. Nothing passes the bottleneck by: what a forecast draws,
it draws from the tokens. Trained end to end by the occupancy alone.
"""

from __future__ import annotations

from torch import Tensor, nn

from token_designs.interface import TokenDesign, evidence_planes
from vlwm.core.config.schema import Config
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.tokenizer.conv_blocks import Decoder, Encoder, bias_of, map_sizes
from vlwm.core.model.transformer.map_attention import MapAttention

_BLOCKS = 4


class ContinuousLatents(TokenDesign):
    """Encoder, transformer over latents, decoder; untrained, the residual is 0.

    Args:
        config: whose tokenizer gives the grid and the width of the latents. The convolutions are
            half as wide again as the tokenizer's: there is no other part to spend the time on.
        grid: of all frames.
    """

    def __init__(self, config: Config, grid: VoxelGrid) -> None:
        super().__init__()
        shape, layers = config.tokenizer, grid.shape[2]
        sizes = (
            3 * shape.base_channels // 2,
            shape.channel_mult,
            shape.num_res_blocks,
            shape.embed_dim,
        )
        self.levels = len(shape.channel_mult)
        self.encoder = Encoder(2 * layers, *sizes)
        self.blocks = MapAttention(shape.embed_dim, _BLOCKS)
        self.decoder = Decoder(layers, *sizes)
        nn.init.zeros_(self.decoder.conv_out.weight)
        nn.init.zeros_(bias_of(self.decoder.conv_out))

    def forward(self, logits: Tensor, evidence: Tensor) -> Tensor:
        planes = evidence_planes(logits, evidence)  # (B, 2Z, X', Y')
        latents = self.encoder(self.encoder.conv_in(planes))  # (B, C, h, w)
        latents = self.blocks(latents)
        size = (logits.shape[2], logits.shape[3])
        features = self.decoder(latents, map_sizes(size, self.levels))  # (B, base, X', Y')
        residual: Tensor = self.decoder.conv_out(features)
        return residual.float().contiguous()

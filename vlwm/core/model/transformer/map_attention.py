"""Let all places of a map of tokens see each other.

Blocks of a vision transformer (Dosovitskiy et al., ICLR 2021) with the norm first, from the
attention and the feed-forward layer of the world model's transformer. Positions come from
a depthwise convolution at the head of each block (Chu et al., ICLR 2023), which serves maps of any
size, and from sines of row and column, which the attention alone reads. Untrained, a block changes
nothing.

Axes: N maps, C channels, h, w the token map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlwm.core.model.tokenizer.conv_blocks import bias_of
from vlwm.core.model.transformer.token_transformer import Attention, FeedForward

_LONGEST = 64.0
"""tokens of the longest wave of a position"""


class _MapBlock(nn.Module):
    """Convolution, attention and feed-forward, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.forward_net = FeedForward(width)
        nn.init.zeros_(self.near.weight)
        nn.init.zeros_(bias_of(self.near))
        nn.init.zeros_(self.attention.out_proj.weight)
        nn.init.zeros_(self.forward_net.fc2.weight)
        nn.init.zeros_(self.forward_net.fc2.bias)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Return tokens (N, C, h, w); positions (h · w, C) steer the attention alone."""
        size = x.shape[-2:]
        x = x + self.near(x)
        row = x.flatten(2).transpose(1, 2)  # (N, h · w, C)
        placed = self.norm1(row) + positions
        row = row + self.attention(placed, placed, causal=False)
        row = row + self.forward_net(self.norm2(row))
        return row.transpose(1, 2).unflatten(2, size)


class MapAttention(nn.Module):
    """A stack of blocks.

    Args:
        width: C, a multiple of 4 and of the heads.
        count: blocks.
        heads: of the attention.
    """

    def __init__(self, width: int, count: int, heads: int = 4) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_MapBlock(width, heads) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (N, C, h, w)."""
        positions = position_waves(x.shape[2], x.shape[3], x.shape[1]).to(x.device)
        for block in self.blocks:
            x = block(x, positions)
        return x


def position_waves(height: int, width: int, channels: int) -> Tensor:
    """Return sines and cosines (h · w, C) of row and column (Vaswani et al., NeurIPS 2017)."""
    count = channels // 4
    rates = 2 * torch.pi * _LONGEST ** (-torch.arange(count) / max(1, count - 1))  # per token

    def waves(length: int) -> Tensor:
        angle = torch.arange(length)[:, None] * rates
        return torch.cat([angle.sin(), angle.cos()], dim=1)  # (length, C / 2)

    rows = waves(height)[:, None].expand(-1, width, -1)
    columns = waves(width)[None].expand(height, -1, -1)
    both = torch.cat([rows, columns], dim=-1).flatten(0, 1)  # (h · w, C or up to 3 less)
    return nn.functional.pad(both, (0, channels - both.shape[1]))

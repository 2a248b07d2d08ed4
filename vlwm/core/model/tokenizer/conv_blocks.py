"""Define the convolutional blocks of the tokenizer: residual, attention, down and up.

The shapes and names are those of OccWorld's VQ-VAE (arXiv 2311.16038, section 3.2), which follows
the image tokenizer of Esser et al. 2021 (arXiv 2012.09841): GroupNorm (eps 1e-6), swish, 3 × 3
convolutions, single-head attention over the map. Maps of odd size are halved rounding up and come
back to the size they had.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

GROUP_NORM_EPS = 1e-6
_WORTH_IT = 1 << 18
"""elements of a tensor from which recomputing pays"""


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a norm of up to 32 groups, as many as divide the channels."""
    return nn.GroupNorm(math.gcd(32, channels), channels, eps=GROUP_NORM_EPS)


def bias_of(conv: nn.Conv2d) -> Tensor:
    """Return the bias of a convolution that has one."""
    assert conv.bias is not None
    return conv.bias


def checkpointed(work: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Run `work(x)`, storing only `x` and recomputing the intermediate activations in backward.

    Use it for cheap prefixes of an expensive operation: of `conv(silu(norm(x)))` the norm and the
    silu are recomputed, the convolution is not, since backward does not need its result. Small
    tensors are stored as usual: they are not worth the time.
    """
    if x.numel() < _WORTH_IT or not torch.is_grad_enabled():
        return work(x)
    result: Tensor = checkpoint(work, x, use_reentrant=False, preserve_rng_state=False)
    return result


class ResBlock(nn.Module):
    """Two convolutions with a shortcut, (N, in, h, w) → (N, out, h, w)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1 = group_norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = group_norm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        if channels_in != channels_out:
            self.nin_shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpointed(lambda x: self.conv1(functional.silu(self.norm1(x))), x)
        hidden = checkpointed(lambda h: self.conv2(functional.silu(self.norm2(h))), hidden)
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + hidden


class AttnBlock(nn.Module):
    """Single-head attention over the places of a map, with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(x)
        # each place of the map is a token: (N, 1 head, h · w, C)
        q, k, v = (f(hidden).flatten(2).transpose(1, 2)[:, None] for f in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(q, k, v)[:, 0]  # one head: (N, h·w, C)
        return x + self.proj_out(mixed.transpose(1, 2).reshape(x.shape))


class Down(nn.Module):
    """Halve a map, rounding up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Up(nn.Module):
    """Double a map to a given size, nearest, then smooth it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.conv(functional.interpolate(x, size=size, mode="nearest"))


class Middle(nn.Module):
    """Residual, attention, residual at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels)
        self.attn_1 = AttnBlock(channels)
        self.block_2 = ResBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    """The residual blocks of one resolution, each followed by attention at the lowest."""

    downsample: Down
    upsample: Up

    def __init__(self, channels_in: int, channels_out: int, blocks: int, attention: bool) -> None:
        super().__init__()
        # the first block changes the width, the others keep it
        widths = [channels_in] + [channels_out] * blocks
        self.block = nn.ModuleList(ResBlock(a, b) for a, b in itertools.pairwise(widths))
        self.attn = nn.ModuleList(
            AttnBlock(channels_out) for _ in range(blocks if attention else 0)
        )

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[index](x)
        return x


class Encoder(nn.Module):
    """Map (N, in, h, w) → (N, z, h', w'), halved after each level but the last."""

    def __init__(
        self, channels_in: int, base: int, mult: tuple[int, ...], blocks: int, z_channels: int
    ) -> None:
        super().__init__()
        widths = [base * m for m in mult]
        self.conv_in = nn.Conv2d(channels_in, base, 3, padding=1)
        self.down = nn.ModuleList()
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            level = Level(widths[i - 1] if i else base, width, blocks, attention=last)
            # halved after each level but the lowest
            if not last:
                level.downsample = Down(width)
            self.down.append(level)
        self.mid = Middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], z_channels, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Run everything after `conv_in`, which the tokenizer applies in its own way."""
        for level in cast("Iterable[Level]", self.down):
            hidden = level(hidden)
            if hasattr(level, "downsample"):
                hidden = level.downsample(hidden)
        hidden = self.mid(hidden)
        return self.conv_out(functional.silu(self.norm_out(hidden)))


class Decoder(nn.Module):
    """Map (N, z, h', w') → features (N, base, h, w) before `conv_out`."""

    def __init__(
        self, channels_out: int, base: int, mult: tuple[int, ...], blocks: int, z_channels: int
    ) -> None:
        super().__init__()
        widths = [base * m for m in mult]
        self.conv_in = nn.Conv2d(z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        levels: list[Level] = []
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            above = width if last else widths[i + 1]
            level = Level(above, width, blocks, attention=last)
            if i > 0:
                level.upsample = Up(width)
            levels.append(level)
        self.up = nn.ModuleList(levels)
        self.norm_out = group_norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], channels_out, 3, padding=1)

    def forward(self, z: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
        """Return features before `conv_out`; `sizes` are the map's sizes from the finest on."""
        hidden = self.mid(self.conv_in(z))
        for i in reversed(range(len(self.up))):
            level = cast(Level, self.up[i])
            hidden = level(hidden)
            if i > 0:
                hidden = level.upsample(hidden, sizes[i - 1])
        return functional.silu(self.norm_out(hidden))


def map_sizes(size: tuple[int, int], levels: int) -> list[tuple[int, int]]:
    """Return the sizes of a map at each resolution, halved rounding up."""
    sizes = [size]
    for _ in range(levels - 1):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


def conv_of_constant(size: tuple[int, int], weight: Tensor) -> Tensor:
    """Return a 3 × 3 convolution (O, 1, 3, 3) of a map of ones, zero outside: (1, O, h, w)."""
    ones = torch.ones(1, 1, *size, dtype=weight.dtype, device=weight.device)
    return functional.conv2d(ones, weight, padding=1)

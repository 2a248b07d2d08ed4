"""Predict the next frame's tokens: OccWorld's space-time transformer (arXiv 2311.16038, 3.3).

- Two streams in one U-Net: tokens of the frames so far, and queries for the frame after each.
- At each resolution every place of the queries attends, causally in time, to the tokens of that
  place; the same convolutions then mix the places of both streams.
- Pose queries attend to pose tokens, and to the place queries of their frame: on the way down
  before those have attended to the past, on the way up after it.
- 2 × 2 convolutions halve and double the map; skips are concatenated.
- Names, shapes and, with 8 heads, outputs are OccWorld's (benchmarks/occworld_parity.py); widths
  and map sizes are free.

Axes: B batch, F frames, C channels, h, w the token map, K codes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vlwm.core.model.tokenizer.conv_blocks import checkpointed
from vlwm.core.model.transformer.two_stream import Streams, by_place, each


class FeedForward(nn.Module):
    """Two linear layers with GELU between, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return checkpointed(lambda x: self.fc2(functional.gelu(self.fc1(x))), x)


class Attention(nn.Module):
    """Multi-head attention; parameters are named as `nn.MultiheadAttention` names them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, other: Tensor, *, causal: bool) -> Tensor:
        """Let x (N, L, C) attend to `other` (N, M, C)."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        # queries come from x, keys and values from the other: (N, heads, L or M, C / heads)
        sources = (x, other, other)
        q, k, v = (
            functional.linear(s, w, b).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for s, w, b in zip(sources, weights, biases, strict=True)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        # re-assemble the heads and project back
        return self.out_proj(mixed.transpose(1, 2).flatten(-2))


def temporal_block(width: int, heads: int) -> nn.ModuleList:
    """Build attention over time, norm, feed-forward, norm: indices 0 to 3 of OccWorld's names."""
    return nn.ModuleList(
        [Attention(width, heads), nn.LayerNorm(width), FeedForward(width), nn.LayerNorm(width)]
    )


def pose_block(width: int, heads: int) -> nn.ModuleList:
    """Build attention over time, norm, attention to tokens, norm, feed-forward, norm."""
    return nn.ModuleList(
        [
            Attention(width, heads),
            nn.LayerNorm(width),
            Attention(width, heads),
            nn.LayerNorm(width),
            FeedForward(width),
            nn.LayerNorm(width),
        ]
    )


class ConvBlock(nn.Module):
    """Norm over the map, two convolutions, shortcut, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, normed: tuple[int, ...]) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(normed)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        if channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv2(functional.relu(self.conv1(self.ln(x))))
        return functional.relu(hidden + (self.shortcut(x) if hasattr(self, "shortcut") else x))


def _mlp(width_in: int, width_out: int) -> nn.Sequential:
    """Build two linear layers with ReLU, the pose's counterpart of the convolutions."""
    return nn.Sequential(
        nn.Linear(width_in, width_out), nn.ReLU(), nn.Linear(width_out, width_out), nn.ReLU()
    )


def _over_time(
    block: nn.ModuleList, asked: Tensor, known: Tensor, *, causal: bool = True
) -> Tensor:
    """Run one temporal block: queries (N, F, C) attend to known frames (N, F, C)."""
    attention, norm1, forward, norm2 = block
    # post-norm, as OccWorld has it
    asked = norm1(asked + attention(asked, known, causal=causal))
    return norm2(asked + forward(asked))


class TokenTransformer(nn.Module):
    """Predicts the codes of the next frame from the frames so far.

    Args:
        channels: of each resolution, the middle last; the first is the width of a token.
        codes: size of the codebook.
        map_size: h, w.
        frames: longest sequence, the frame to be predicted included.
        heads, layers: attention heads, temporal blocks per resolution.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        codes: int,
        map_size: tuple[int, int],
        frames: int,
        heads: int,
        layers: int,
        pose_layers: int = 2,
    ) -> None:
        super().__init__()
        # widths of the encoder's levels, and of the bottom of the U
        *widths, middle = channels
        entry = [widths[0], *widths[:-1]]
        # map size at each level, halved and rounded down
        self.sizes = [map_size]
        for _ in widths:
            self.sizes.append((self.sizes[-1][0] // 2, self.sizes[-1][1] // 2))
        self.temporal_embeddings = nn.Embedding(frames, widths[0])
        self.pose_temporal_embeddings = nn.Embedding(frames, widths[0])
        self.temporal_attentions_en = _stacks(entry, temporal_block, heads, layers)
        self.encoders = nn.ModuleList(
            _convs(a, b, size) for a, b, size in zip(entry, widths, self.sizes, strict=False)
        )
        self.downsamples = nn.ModuleList(nn.Conv2d(w, w, 2, stride=2) for w in widths)
        self.mid = _convs(widths[-1], middle, self.sizes[-1], whole=True)
        going_up = list(itertools.pairwise([middle, *reversed(widths)]))
        # a decoder's level reads its own channels and those of the skip
        joined = [2 * w for w in reversed(widths)]
        up_sizes = list(reversed(self.sizes[:-1]))
        self.upsamples = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in going_up)
        self.temporal_attentions_de = _stacks(joined, temporal_block, heads, layers)
        self.decoders = nn.ModuleList(
            _convs(j, b, size, whole=True)
            for j, (_, b), size in zip(joined, going_up, up_sizes, strict=True)
        )
        self.pose_attn_en = _stacks(entry, pose_block, heads, pose_layers)
        self.pose_en = nn.ModuleList(_mlp(a, b) for a, b in zip(entry, widths, strict=True))
        self.pose_mid = _mlp(widths[-1], middle)
        self.pose_up = nn.ModuleList(nn.Linear(a, b) for a, b in going_up)
        self.pose_attn_de = _stacks(joined, pose_block, heads, pose_layers)
        self.pose_de = nn.ModuleList(_mlp(j, b) for j, (_, b) in zip(joined, going_up, strict=True))
        self.conv_out = nn.Conv2d(widths[0], codes, 3, padding=1)
        self.pose_out = nn.Linear(widths[0], widths[0])

    def forward(
        self, tokens: Tensor, pose: Tensor, recompute: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return code logits (B, F, K, h, w) of each frame's next one, pose features (B, F, C).

        Args:
            tokens: (B, F, C, h, w).
            pose: (B, F, C).
            recompute: temporal blocks keep their input alone and run again in the backward pass.
        """
        places = Streams.over_time(tokens, self.temporal_embeddings.weight[..., None, None])
        poses = Streams.over_time(pose, self.pose_temporal_embeddings.weight)
        # down: the pose attends before the places have attended to the past
        skips: list[tuple[Streams, Streams]] = []
        for i, convs in enumerate(self.encoders):
            poses = self._look(poses, places.queries, self.pose_attn_en[i])
            poses = poses.through(self.pose_en[i])
            places = self._remember(places, self.temporal_attentions_en[i], recompute).each(convs)
            skips.append((places, poses))
            places = places.each(self.downsamples[i])
        places, poses = places.each(self.mid), poses.through(self.pose_mid)
        # up: the pose attends after them
        for i, convs in enumerate(self.decoders):
            skip, pose_skip = skips.pop()
            places = places.each(self.upsamples[i]).joined(skip)
            poses = poses.through(self.pose_up[i]).joined(pose_skip)
            places = self._remember(places, self.temporal_attentions_de[i], recompute)
            poses = self._look(poses, places.queries, self.pose_attn_de[i])
            poses = poses.through(self.pose_de[i])
            last = i == len(self.decoders) - 1  # the known stream is not read after it
            known = places.known if last else each(convs, places.known)
            places = Streams(known, each(convs, places.queries))
        return each(self.conv_out, places.queries), self.pose_out(poses.queries)

    @torch.no_grad()
    def next_logits(self, tokens: Tensor, kv_cache: list[Tensor]) -> Tensor:
        """Return code logits (B, K, h, w) of the frame after the last one, as `forward` does.

        Keys and values of a frame do not depend on later frames, so they are cached.

        Args:
            tokens: (B, n, C, h, w), frames that are not in `kv_cache` yet.
            kv_cache: empty list on the first call; filled in place.
        """
        first = kv_cache[0].shape[1] if kv_cache else 0
        # known frames carry their own time, the query the time of the next frame
        count, times = first + tokens.shape[1], self.temporal_embeddings.weight[..., None, None]
        places = Streams(tokens + times[first:count], tokens[:, -1:] + times[count : count + 1])
        # one cache entry for each stack of temporal blocks, in the order they run
        skips: list[Streams] = []
        sites = iter(range(2 * len(self.encoders)))
        for i, convs in enumerate(self.encoders):
            blocks = self.temporal_attentions_en[i]
            places = self._ask(places, blocks, kv_cache, next(sites)).each(convs)
            skips.append(places)
            places = places.each(self.downsamples[i])
        places = places.each(self.mid)
        for i, convs in enumerate(self.decoders):
            places = places.each(self.upsamples[i]).joined(skips.pop())
            blocks = self.temporal_attentions_de[i]
            places = self._ask(places, blocks, kv_cache, next(sites)).each(convs)
        return each(self.conv_out, places.queries)[:, 0]

    def _ask(
        self, places: Streams, blocks: nn.Module, kv_cache: list[Tensor], site: int
    ) -> Streams:
        """Let the one query of each place attend to all cached frames, the new ones included."""
        # a new site is filled by the first call, later calls append their frame
        if site == len(kv_cache):
            kv_cache.append(places.known)
        else:
            kv_cache[site] = torch.cat([kv_cache[site], places.known], dim=1)
        b, _, c, h, w = places.queries.shape
        known, asked = (by_place(x) for x in (kv_cache[site], places.queries))
        for block in cast("Iterable[nn.ModuleList]", blocks):
            asked = _over_time(block, asked, known, causal=False)
        return Streams(places.known, asked.view(b, h, w, 1, c).permute(0, 3, 4, 1, 2))

    def _remember(self, places: Streams, blocks: nn.Module, recompute: bool) -> Streams:
        """Let every place of the queries attend to that place in the frames up to its own."""
        # attention over time alone: every place is a sequence of frames, (B · h · w, F, C)
        b, f, c, h, w = places.queries.shape
        known, asked = (by_place(x) for x in (places.known, places.queries))
        for block in cast("Iterable[nn.ModuleList]", blocks):
            if recompute and torch.is_grad_enabled():
                asked = checkpoint(_over_time, block, asked, known, use_reentrant=False)
            else:
                asked = _over_time(block, asked, known)
        return Streams(places.known, asked.view(b, h, w, f, c).permute(0, 3, 4, 1, 2))

    def _look(self, poses: Streams, queries: Tensor, blocks: nn.Module) -> Streams:
        """Let pose queries attend to known poses up to their frame, then to its place queries.

        Args:
            queries: of the places, (B, F, C, h, w).
        """
        b, f, c = poses.queries.shape
        # each frame is a sequence of its places: (B · F, h · w, C)
        frame = queries.flatten(3).transpose(2, 3).reshape(b * f, -1, c)
        asked = poses.queries
        for block in cast("Iterable[nn.ModuleList]", blocks):
            own, norm1, cross, norm2, forward, norm3 = block
            # first the poses so far, then the places of its own frame
            asked = norm1(asked + own(asked, poses.known, causal=True))
            seen = cross(asked.reshape(b * f, 1, c), frame, causal=False)
            asked = norm2(asked + seen.view(b, f, c))
            asked = norm3(asked + forward(asked))
        return Streams(poses.known, asked)


def _stacks(
    widths: list[int], block: Callable[[int, int], nn.Module], heads: int, count: int
) -> nn.ModuleList:
    return nn.ModuleList(
        nn.ModuleList(block(width, heads) for _ in range(count)) for width in widths
    )


def _convs(
    channels_in: int, channels_out: int, size: tuple[int, int], *, whole: bool = False
) -> nn.Sequential:
    """Build two convolution blocks; the norm is over the map, with `whole` over channels too."""
    first = (channels_in, *size) if whole else size
    second = (channels_out, *size) if whole else size
    return nn.Sequential(
        ConvBlock(channels_in, channels_out, first), ConvBlock(channels_out, channels_out, second)
    )

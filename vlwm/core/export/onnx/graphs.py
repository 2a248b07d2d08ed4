"""Define the two graphs of an ONNX export: what the past gives once, and one future frame.

    PastGraph    past cells, motion features ─► motion, draws, edge states[, fused past][, tokens]
    FrameGraph   the same cells, what PastGraph gave, affine factors ─► probability of one frame

Every shape is fixed. Nothing depends on data but values: masks take the place of `nonzero`, maps
are 4-D for `grid_sample`, and numbers are float32, since TensorRT knows no float64. The angles, the
frames of the poses and the affine factors are computed in float64 by `runtime`, outside.

Axes: P past and H future frames, X, Y, Z cells, C = X · Y columns, E columns of an edge, N draws,
D components of a state; a leading 1 is the batch that layers of torch want.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlwm.core.errors import UsageError
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.extrapolation import (
    DISTANCES,
    INWARD,
    PRIOR_CELLS,
    RUNS,
)
from vlwm.core.model.memory.fusion import READING_SCALE, TIE_BIAS
from vlwm.core.model.memory.observed_fusion import MARGIN, ObservedBranch, Seen
from vlwm.core.model.motion.motion_head import Motion
from vlwm.core.model.motion.vehicle_state import planar_of
from vlwm.core.model.torch_frames import step_features, turn_plane
from vlwm.core.model.world_model import WorldModel

_FLOATS_AT_ONCE = 6_000_000
"""size of one gather while draws are averaged: 24 MB"""


def check_exportable(model: WorldModel) -> None:
    """Raise UsageError, with the name of the key, for a model that these graphs do not cover."""
    if not model.config.model.use_memory:
        raise UsageError(
            "a model without memory is not exported to ONNX",
            where="model.use_memory=False",
            remedy="train with model.use_memory=True; every preset of vlwm does",
        )
    if model.config.tokenizer.num_classes != 2:
        raise UsageError(
            "a tokenizer of several classes is not exported to ONNX",
            where=f"tokenizer.num_classes={model.config.tokenizer.num_classes}",
            remedy="train with two classes, occupied and free",
        )


class PastGraph(nn.Module):
    """Compute what all future frames share.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model
        self.observed = model.config.data.observed
        self.tokens = model.config.model.use_tokens

    def forward(
        self,
        features: Tensor,
        constant: Tensor,
        occupied: Tensor,
        ridge: Tensor | None = None,
        free: Tensor | None = None,
        places: Tensor | None = None,
        lift: Tensor | None = None,
        past_ego: Tensor | None = None,
        plan_ego: Tensor | None = None,
        planned: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Return state, log-sigma and published sigma (H, D), moves (H, N, 3), edges (P, E, Z).

        Args:
            features: (1, P · 22), scaled.
            constant: (1, H, D), the state after constant motion.
            occupied, free: uint8 (P, X, Y, Z); `free` of an observed past.
            ridge: (1, H, 3), x, y and yaw of the ridge motion, of a model that mixes it in.
            places, lift: (P, 6) and (P,), of the last past frame in each past one, wide grid;
                of an observed past.
            past_ego, plan_ego, planned: (P, 4), (H, 4) and (1,); of a model with tokens.

        Returns:
            also the fused past (2, Z, X + 2 · MARGIN, Y + 2 · MARGIN) of an observed past, and the
            token maps (H, C, h, w) of a model with tokens, in this order.
        """
        model, head = self.model, self.model.motion_head
        tokens = context = None
        if self.tokens:
            assert past_ego is not None and plan_ego is not None and planned is not None
            vae = model.vae
            tokens = vae.embed(vae.tokenise(occupied.float()))[None]  # (1, P, C, h, w)
            context = model.transform(tokens, past_ego[None])[1][:, -1]
        motion = head.decoded(features, constant, context, ridge)
        moves = self._draws(motion, ridge) - planar_of(motion.state)[..., None, :]
        sigma = motion.log_sigma.exp() * head.sigma_scale
        edges = edge_states(occupied.float()).float()
        found = [motion.state[0], motion.log_sigma[0], sigma[0], moves[0], edges]
        if self.observed:
            assert free is not None and places is not None and lift is not None
            found.append(self._fused(occupied, free, places, lift))
        if tokens is not None and past_ego is not None and plan_ego is not None:
            assert planned is not None
            ego = torch.where(planned[:, None, None] > 0, plan_ego[None], motion.ego)
            found.append(self._rolled_out(tokens, torch.cat([past_ego[None], ego], dim=1))[0])
        return tuple(found)

    def _draws(self, motion: Motion, ridge: Tensor | None) -> Tensor:
        """Return draws (1, H, N, 3) of x, y and yaw, as `MotionHead._draws` does."""
        head = self.model.motion_head
        planar = motion.planar.widened(head.spread_scale[None])
        if ridge is None or head.ridge is None:
            return planar.draws(head.even)
        count = len(head.even)
        own = 2 * round(float(head.network_share) * count / 2)
        drawn = [planar.draws(head.even[:own])] if own else []
        if own < count:
            rows = torch.arange(count - own) * len(head.ridge.errors) // (count - own)
            errors = head.ridge.errors[rows].transpose(0, 1).float()  # (H, N, 3)
            x, y = turn_plane(errors[None, ..., 0], errors[None, ..., 1], ridge[..., 2:])
            turn = errors[None, ..., 2]
            drawn.append(ridge[:, :, None] + torch.stack([x, y, turn], dim=-1))
        return torch.cat(drawn, dim=2)

    def _rolled_out(self, tokens: Tensor, ego: Tensor) -> Tensor:
        """Return token maps (1, H, C, h, w) along ego frames (1, P + H, 4)."""
        model, steps = self.model, step_features(ego)
        kv_cache: list[Tensor] = []
        maps = tokens
        for k in range(model.future):
            done = 0 if k == 0 else model.history + k - 1
            new = model._entered(maps[:, done:], steps[:, done : model.history + k])
            codes = model.transformer.next_logits(new, kv_cache).argmax(dim=1)
            maps = torch.cat([maps, model.vae.embed(codes)[:, None]], dim=1)
        return maps[:, model.history :]

    def _fused(self, occupied: Tensor, free: Tensor, places: Tensor, lift: Tensor) -> Tensor:
        """Return what `ObservedBranch.fuse` does, (2, Z, Xw, Yw), in the last past frame."""
        branch = self.model.memory
        assert isinstance(branch, ObservedBranch)
        both = torch.cat([occupied, free]).permute(0, 3, 1, 2).float()  # (2P, Z, X, Y)
        both = functional.pad(both, (MARGIN, MARGIN, MARGIN, MARGIN))
        twice, wide = places.repeat(2, 1), branch.wide_grid
        read, _ = resampled(both, twice, lift.repeat(2), wide)  # (2P, Z, Xw, Yw)
        seen = Seen(read[None, : len(occupied)], read[None, len(occupied) :])
        depth = read.shape[1]
        below = [0, *range(depth - 1)]
        above = [*range(1, depth), depth - 1]
        near = [Seen(seen.occupied[:, :, at], seen.free[:, :, at]) for at in (below, above)]
        evidence = seen.evidence()  # (1, Z, Xw, Yw)
        unknown = (1 - evidence) * self.model.column_logit[:, None, None]
        logits = branch.fusion(seen, *near) + unknown
        if branch.completion is not None:
            logits = logits + branch.completion(logits, evidence)
        above_prior = logits - self.model.column_logit[:, None, None]
        return torch.cat([above_prior, evidence])


class FrameGraph(nn.Module):
    """Compute one future frame.

    Args:
        model: in evaluation mode.
        planned: along a plan; else averaged over the draws of the motion.
    """

    prior: Tensor
    beyond: Tensor

    def __init__(self, model: WorldModel, planned: bool) -> None:
        super().__init__()
        self.model, self.planned = model, planned
        self.grid = model.grid
        self.weight = float(model.residual_weight[int(planned)])
        prior = model.column_logit.detach()
        cells, occupied = model.memory.extrapolation.counts[:, :, None]  # (S, 1) each
        share = (occupied + PRIOR_CELLS * torch.sigmoid(prior)) / (cells + PRIOR_CELLS)
        self.register_buffer("beyond", torch.logit(share, eps=1e-4).flatten())  # (S · Z,)
        self.register_buffer("prior", prior[:, None, None].clone())

    def forward(
        self,
        past: Tensor,
        edges: Tensor,
        places: Tensor,
        lift: Tensor,
        condition: Tensor,
        draws: Tensor | None = None,
        fused: Tensor | None = None,
        anchor: Tensor | None = None,
        anchor_lift: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Tensor:
        """Return the probability (X, Y, Z) of a future frame.

        Args:
            past: uint8 (P, X, Y, Z), occupied cells of the past.
            edges: (P, E, Z) of `PastGraph`.
            places, lift: (P, 6) and (P,), of the future frame in each past one.
            condition: (F,), of the refinement net.
            draws: (N, 6), of the drawn frames in the expected one; not along a plan.
            fused, anchor, anchor_lift: (2, Z, Xw, Yw), (1, 6) and (1,), of an observed past.
            tokens: (C, h, w), of a model with tokens.
        """
        maps = past.permute(0, 3, 1, 2).float()  # (P, Z, X, Y)
        if fused is None:
            logits, reach = self._read(maps, places, lift)
        else:
            assert anchor is not None and anchor_lift is not None
            logits, reach = self._read_fused(fused, anchor, anchor_lift)
        inside, values = self._extrapolated(edges, places, lift)
        logits = torch.where(inside, logits, values)  # (Z, X, Y)
        if draws is not None:
            logits = self._averaged(torch.sigmoid(logits), draws)
        if self.weight:
            planes = torch.cat([torch.tanh(logits / 4.0), reach])[None]
            maps_of_tokens = None if tokens is None else tokens[None]
            net = self.model.refinement_net
            logits = logits + self.weight * net(planes, condition[None], maps_of_tokens)[0]
        return torch.sigmoid(logits).permute(1, 2, 0)

    def _read(self, maps: Tensor, places: Tensor, lift: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (Z, X, Y) of a true past and its reach (1, X, Y), as `FrameFusion.read`."""
        occupied, inside = resampled(maps, places, lift, self.grid)  # (P, Z, X, Y) each
        frames = inside.sum(0)
        mean = occupied.sum(0) / frames.clamp(min=1.0)  # (Z, X, Y)
        below = torch.cat([mean[:1], mean[:-1]])
        above = torch.cat([mean[1:], mean[-1:]])
        votes = (2 * occupied - inside).transpose(0, 1)  # (Z, P, X, Y)
        around = torch.stack([2 * below - 1, 2 * above - 1], dim=1)
        residual = self._fusion(torch.cat([votes, around], dim=1))[:, 0]
        logits = READING_SCALE * (2 * mean - 1) + TIE_BIAS + residual
        reach = inside[:, 0].mean(dim=0, keepdim=True)
        return torch.where(frames > 0, logits, self.prior), reach

    def _fusion(self, x: Tensor) -> Tensor:
        net = self.model.memory.fusion
        x = functional.relu(net.conv_in(x))
        for layer in net.hidden:
            x = x + functional.relu(layer(x))
        return net.conv_out(x)

    def _read_fused(self, fused: Tensor, anchor: Tensor, lift: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and evidence (Z, X, Y) of an observed past, as `read_fused` does."""
        assert isinstance(self.model.memory, ObservedBranch)
        wide = self.model.memory.wide_grid
        read, _ = resampled(fused, anchor.expand(2, -1), lift.expand(2), wide)
        above_prior, evidence = read[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN].unbind(0)
        return above_prior + self.prior, evidence

    def _extrapolated(self, edges: Tensor, places: Tensor, lift: Tensor) -> tuple[Tensor, Tensor]:
        """Return bool (1, X, Y), columns that a past frame reaches, and logits (Z, X, Y) else."""
        x, y, z = self.grid.shape
        at_x, at_y = places_of(places, self.grid)  # (P, X, Y) each
        inside = in_plane(at_x, at_y, self.grid).amax(dim=0, keepdim=True) > 0
        over_x, over_y = _overshoot(at_x, x), _overshoot(at_y, y)
        off = torch.sqrt(over_x * over_x + over_y * over_y)
        # the closest frame decides; ties go to the most recent one
        last = len(lift) - 1
        best = [off[last], at_x[last], at_y[last], lift[last].expand(x, y)]
        frame = torch.full((x, y), float(last))
        for p in range(last - 1, -1, -1):
            closer = off[p] < best[0]
            mine = (off[p], at_x[p], at_y[p], lift[p].expand(x, y))
            best = [torch.where(closer, a, b) for a, b in zip(mine, best, strict=True)]
            frame = torch.where(closer, float(p), frame)
        distance, at_x, at_y, high = best
        along_x, along_y = at_x.floor().clamp(0, x - 1), at_y.floor().clamp(0, y - 1)
        ahead = y * (at_x >= 0).float() + along_y
        beside = 2 * y + x * (at_y >= 0).float() + along_x
        edge = torch.where(_overshoot(at_x, x) >= _overshoot(at_y, y), ahead, beside)
        # the state of the edge cell at the same height: (C, Z) of (P · E · Z)
        row = (frame * (2 * x + 2 * y) + edge).flatten()[:, None]
        layer = torch.arange(z).float() + torch.floor(0.5 + high).flatten()[:, None]
        index = row.long() * z + layer.clamp(0, z - 1).long()
        state = functional.embedding(index, edges.reshape(-1, 1))[..., 0]
        nearness = (
            torch.stack([(distance > b).float() for b in DISTANCES]).sum(0).flatten()[:, None]
        )
        code = (state * (len(DISTANCES) + 1) + nearness).long() * z + torch.arange(z)
        values = functional.embedding(code, self.beyond[:, None])[..., 0]  # (C, Z)
        return inside, values.t().reshape(z, x, y)

    def _averaged(self, probability: Tensor, draws: Tensor) -> Tensor:
        """Return logits (Z, X, Y) of the mean over draws (N, 6), nearest cell."""
        x, y, z = self.grid.shape
        table = probability.flatten(1).t()  # (C, Z)
        at_x, at_y = places_of(draws, self.grid)  # (N, X, Y)
        at_x, at_y = at_x.floor().clamp(0, x - 1), at_y.floor().clamp(0, y - 1)
        rows = (at_x * y + at_y).flatten(1).t().int()  # (C, N)
        step = max(1, _FLOATS_AT_ONCE // (x * y * z))
        total = torch.zeros_like(table)
        for first in range(0, len(draws), step):
            total = total + functional.embedding(rows[:, first : first + step], table).sum(1)
        mean = (total / len(draws)).t().reshape(z, x, y).clamp(1e-4, 1 - 1e-4)
        return torch.log(mean / (1 - mean))


def places_of(factors: Tensor, grid: VoxelGrid) -> tuple[Tensor, Tensor]:
    """Return x and y (P, X, Y) of all columns in other frames, in cells, by factors (P, 6)."""
    x, y, _ = grid.shape
    i = torch.arange(x).float()[:, None]
    j = torch.arange(y).float()
    a, b, c, d, e, f = (value[:, None, None] for value in factors.unbind(-1))
    return (a * i + c) + b * j, (d * i + f) + e * j


def in_plane(at_x: Tensor, at_y: Tensor, grid: VoxelGrid) -> Tensor:
    """Return float (P, X, Y), 1 for places within the plane of a grid."""
    x, y, _ = grid.shape
    return ((at_x >= 0) & (at_x < x) & (at_y >= 0) & (at_y < y)).float()


def resampled(
    maps: Tensor, factors: Tensor, lift: Tensor, grid: VoxelGrid
) -> tuple[Tensor, Tensor]:
    """Return maps (P, Z, X, Y) read at the cells of another frame, and 1 inside of them.

    As `warp.resampled_memory`: bilinear in the plane, linear in height.

    Args:
        factors, lift: (P, 6) and (P,), of the other frame in each map.
    """
    (x, y, z), frames = grid.shape, len(maps)
    at_x, at_y = places_of(factors, grid)
    corners = torch.stack([2 * at_y / y - 1, 2 * at_x / x - 1], dim=-1)
    flat = functional.grid_sample(maps, corners, padding_mode="border", align_corners=False)
    layers = torch.arange(z).float()
    height = layers + lift[:, None]  # (P, Z), in layers of the source
    # a hat at the height: two neighbours share it, at the ends both are the outermost layer
    hat = 1 - (height.clamp(0, z - 1)[..., None] - layers).abs()
    lifted = torch.bmm(hat.clamp(min=0), flat.flatten(2)).reshape(frames, z, x, y)
    reached = ((height >= -0.5) & (height < z - 0.5)).float()
    inside = in_plane(at_x, at_y, grid)[:, None] * reached[:, :, None, None]
    return lifted * inside, inside


def edge_states(frames: Tensor) -> Tensor:
    """Return states (P, E, Z) of the edge cells of frames (P, X, Y, Z) of 0.0 and 1.0.

    As `extrapolation._edge_states`, by comparisons and sums alone.
    """
    across = frames.transpose(1, 2)
    sides = []
    for side in (frames, frames.flip(1), across, across.flip(1)):
        sides.append(side[:, : INWARD + 1])  # from the edge inward
    strips = torch.cat(sides, dim=2)  # (P, inward, E, Z)
    cell, inward = strips[:, 0], strips[:, 1:]
    up_to = cell.cumsum(dim=-1)
    above, below = (up_to[..., -1:] > up_to).float(), (up_to > cell).float()
    row, length = torch.ones_like(cell), torch.zeros_like(cell)
    for k in range(INWARD):
        row = row * inward[:, k]
        length = length + row
    run = sum((length >= b).float() for b in RUNS)
    around = 2 * below + above
    return torch.where(cell > 0, 8 + 4 * around + run, 2 * around + inward.amax(dim=1))


def _overshoot(place: Tensor, cells: int) -> Tensor:
    return torch.maximum(-place, place - cells).clamp(min=0)


def draws_at_once(grid: VoxelGrid) -> int:
    """Return how many draws one gather of `FrameGraph` takes."""
    return max(1, _FLOATS_AT_ONCE // math.prod(grid.shape))

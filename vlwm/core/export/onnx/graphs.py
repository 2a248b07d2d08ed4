"""Define the graphs of an ONNX export.

    MotionGraph  scaled features of the past poses, in float64 ─► motion and its draws
    PastGraph    past cells ─► edge states[, tokens and context]
    TokensGraph  tokens, ego frames ─► token maps of the future frames
    FrameGraph   the same cells, what PastGraph gave, places ─► probability of one frame

Every shape is fixed. Nothing depends on data but values: masks take the place of `nonzero`, maps
are 4-D for `grid_sample`, group norms are written out. Which cell is read is never decided in
float32, whose last bits differ between libraries: places, and what is within a grid, come from
`runtime` in float64, and so does the motion, from a graph of its own. All else is float32, since
TensorRT knows no float64.

Axes: P past and H future frames, X, Y, Z cells, C = X · Y columns, E columns of an edge, N draws,
D components of a state, U, V cells of the plane with `MARGIN`; a leading 1 is the batch that layers
of torch want.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlwm.core.errors import UsageError
from vlwm.core.export.onnx.gelu import gelu
from vlwm.core.export.onnx.resampling import read_columns, resampled
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.extrapolation import DISTANCES, INWARD, PRIOR_CELLS, RUNS
from vlwm.core.model.memory.fusion import READING_SCALE, TIE_BIAS
from vlwm.core.model.memory.observed_fusion import MARGIN, Seen
from vlwm.core.model.memory.plane_reading import REST
from vlwm.core.model.motion.member import Member
from vlwm.core.model.motion.motion_head import Motion
from vlwm.core.model.motion.vehicle_state import planar_of
from vlwm.core.model.torch_frames import step_features, turn_plane
from vlwm.core.model.world_model import WorldModel

_FLOATS_AT_ONCE = 6_000_000
"""size of one gather while draws are averaged: 24 MB"""

Reading = tuple[Tensor, Tensor, Tensor, Tensor]
"""corners, within, mixing, reached: arguments of `resampled`"""


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


class MotionGraph(nn.Module):
    """Compute the motion and its draws, in float64.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.head = copy.deepcopy(model.motion_head)
        for member in cast("Iterable[Member]", self.head.members):
            member.gelu = gelu

    def forward(
        self,
        features: Tensor,
        constant: Tensor,
        ridge: Tensor | None = None,
        context: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Return state, log-sigma and published sigma (H, D), and moves (H, N, 3), all float64.

        Args:
            features: (1, P · 22), scaled.
            constant: (1, H, D), the state after constant motion.
            ridge: (1, H, 3), x, y and yaw of the ridge motion, of a model that mixes it in.
            context: (1, W), of the past's tokens, of a model with tokens.
        """
        motion = self.head.decoded(features, constant, context, ridge)
        moves = self._draws(motion, ridge) - planar_of(motion.state)[..., None, :]
        sigma = motion.log_sigma.exp() * self.head.sigma_scale
        return motion.state[0], motion.log_sigma[0], sigma[0], moves[0]

    def _draws(self, motion: Motion, ridge: Tensor | None) -> Tensor:
        """Return draws (1, H, N, 3) of x, y and yaw, as `MotionHead._draws` does."""
        head = self.head
        planar = motion.planar.widened(head.spread_scale[None])
        if ridge is None or head.ridge is None:
            return planar.draws(head.even)
        count = len(head.even)
        own = 2 * round(float(head.network_share) * count / 2)
        drawn = [planar.draws(head.even[:own])] if own else []
        if own < count:
            rows = torch.arange(count - own) * len(head.ridge.errors) // (count - own)
            errors = head.ridge.errors[rows].transpose(0, 1)  # (H, N, 3)
            x, y = turn_plane(errors[None, ..., 0], errors[None, ..., 1], ridge[..., 2:])
            turn = errors[None, ..., 2]
            drawn.append(ridge[:, :, None] + torch.stack([x, y, turn], dim=-1))
        return torch.cat(drawn, dim=2)


class PastGraph(nn.Module):
    """Compute what all future frames share.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model
        self.tokens = model.config.model.use_tokens

    def forward(self, occupied: Tensor, past_ego: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the states of edge cells (P, E, Z) and what this kind of model adds.

        Args:
            occupied: uint8 (P, X, Y, Z).
            past_ego: (P, 4), of a model with tokens.

        Returns:
            also tokens (P, T, h, w) and their context (1, W) of a model with tokens.
        """
        found = [edge_states(occupied.float()).float()]
        if self.tokens:
            assert past_ego is not None
            vae = self.model.vae
            tokens = vae.embed(vae.tokenise(occupied.float()))[None]  # (1, P, T, h, w)
            context = self.model.transform(tokens, past_ego[None])[1][:, -1]
            found += [tokens[0], context]
        return tuple(found)


class TokensGraph(nn.Module):
    """Predict the token maps of the future frames, each from the ones before it.

    Args:
        model: in evaluation mode, with tokens.
    """

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, ego: Tensor) -> Tensor:
        """Return token maps (H, T, h, w) of past ones (P, T, h, w) along ego frames (P + H, 4)."""
        return self._rolled_out(tokens[None], ego[None])[0]

    def _rolled_out(self, tokens: Tensor, ego: Tensor) -> Tensor:
        """Return token maps (1, H, T, h, w) along ego frames (1, P + H, 4)."""
        model, steps = self.model, step_features(ego)
        kv_cache: list[Tensor] = []
        maps = tokens
        for k in range(model.future):
            done = 0 if k == 0 else model.history + k - 1
            new = model._entered(maps[:, done:], steps[:, done : model.history + k])
            codes = model.transformer.next_logits(new, kv_cache).argmax(dim=1)
            maps = torch.cat([maps, model.vae.embed(codes)[:, None]], dim=1)
        return maps[:, model.history :]


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
        refined = model.refinement_net is not None
        self.weight = float(model.residual_weight[int(planned)]) if refined else 0.0
        prior = model.column_logit.detach()
        cells, occupied = model.memory.extrapolation.counts[:, :, None]  # (S, 1) each
        share = (occupied + PRIOR_CELLS * torch.sigmoid(prior)) / (cells + PRIOR_CELLS)
        self.register_buffer("beyond", torch.logit(share, eps=1e-4).flatten())  # (S · Z,)
        self.register_buffer("prior", prior[:, None, None].clone())

    def forward(
        self,
        edges: Tensor,
        unseen: Tensor,
        mixing: Tensor,
        reached: Tensor,
        condition: Tensor,
        past: Tensor,
        corners: Tensor | None = None,
        within: Tensor | None = None,
        rows: Tensor | None = None,
        shares: Tensor | None = None,
        draws: Tensor | None = None,
        free: Tensor | None = None,
        tokens: Tensor | None = None,
        planes: Tensor | None = None,
        explained: Tensor | None = None,
    ) -> Tensor:
        """Return the probability (X, Y, Z) of a future frame.

        Args:
            edges: (P, E, Z) of `PastGraph`.
            unseen: int32 (4, X, Y) of `runtime.unseen_columns`.
            mixing, reached: layers of the future frame in those of each past one.
            condition: (F,), of the refinement net.
            past: uint8 (P, X, Y, Z), occupied cells of the past.
            corners, within: the future frame in each past one, as `resampled` takes it.
            rows, shares: the same with `MARGIN`, of an observed past, as `read_columns` takes it.
            draws: (N, 6), affine factors of the drawn frames in the expected one; not of a plan.
            free: uint8 (P, X, Y, Z), free cells of an observed past.
            tokens: (T, h, w), of a model with tokens.
            planes, explained: uint8 (X, Y, Z) and (P, X, Y, Z), cells that the walls meet in the
                future frame and in the past ones, of a model that reads walls as planes.
        """
        if free is None:
            assert corners is not None and within is not None
            maps = past.permute(0, 3, 1, 2).float()  # (P, Z, X, Y)
            logits, reach = self._read(maps, (corners, within, mixing, reached), planes, explained)
        else:
            assert rows is not None and shares is not None
            both = torch.stack([past, free], dim=3).float()  # (P, X, Y, 2, Z)
            logits, reach = self._completed(read_columns(both, rows, shares, mixing, reached))
        if not self.model.completes:
            beyond = self._extrapolated(edges, unseen)  # (Z, X, Y)
            logits = torch.where(unseen[0] > 0, beyond, logits)
        if draws is not None:
            logits = self._averaged(torch.sigmoid(logits), draws)
        if self.weight:
            planes = torch.cat([torch.tanh(logits / 4.0), reach])[None]
            maps_of_tokens = None if tokens is None else tokens[None]
            net = self.model.refinement_net
            assert net is not None
            logits = logits + self.weight * net(planes, condition[None], maps_of_tokens)[0]
        return torch.sigmoid(logits).permute(1, 2, 0)

    def _read(
        self, maps: Tensor, reading: Reading, planes: Tensor | None, explained: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return logits (Z, X, Y) of a true past and its reach (1, X, Y), as `FrameFusion.read`."""
        occupied, inside = resampled(maps, *reading)  # (P, Z, X, Y) each
        frames = inside.sum(0)
        mean = occupied.sum(0) / frames.clamp(min=1.0)  # (Z, X, Y)
        below = torch.cat([mean[:1], mean[:-1]])
        above = torch.cat([mean[1:], mean[-1:]])
        votes = (2 * occupied - inside).transpose(0, 1)  # (Z, P, X, Y)
        around, plain = [2 * below - 1, 2 * above - 1], mean
        if planes is not None and explained is not None:
            walls = planes.permute(2, 0, 1).float()
            rest = self._rest(maps, explained.permute(0, 3, 1, 2) * maps, reading)
            around, plain = [*around, 2 * walls - 1, 2 * rest - 1], torch.maximum(rest, walls)
        residual = self._fusion(torch.cat([votes, torch.stack(around, dim=1)], dim=1))[:, 0]
        logits = READING_SCALE * (2 * plain - 1) + TIE_BIAS + residual
        reach = inside[:, 0].mean(dim=0, keepdim=True)
        return torch.where(frames > 0, logits, self.prior), reach

    def _rest(self, maps: Tensor, explained: Tensor, reading: Reading) -> Tensor:
        """Return the mean (Z, X, Y) of what walls do not explain, as `PlaneReading.read` does."""
        valid = 1 - explained  # (P, Z, X, Y)
        both = torch.cat([valid * maps, valid])
        left, sure = resampled(both, *(torch.cat([part, part]) for part in reading))[0].chunk(2)
        return (left.sum(0) / sure.sum(0).clamp(min=REST)).clamp(max=1.0)

    def _fusion(self, x: Tensor) -> Tensor:
        net = self.model.memory.fusion
        x = functional.relu(net.conv_in(x))
        for layer in net.hidden:
            x = x + functional.relu(layer(x))
        return net.conv_out(x)

    def _completed(self, read: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and evidence (Z, X, Y) of an observed past, as `ObservedBranch.completed`.

        Args:
            read: (2, P, Z, U, V), evidence of surfaces and of free space.
        """
        branch = self.model.observed_branch()
        seen = Seen(read[:1], read[1:])  # (1, P, Z, U, V) each
        depth = read.shape[2]
        below = [0, *range(depth - 1)]
        above = [*range(1, depth), depth - 1]
        near = [Seen(seen.occupied[:, :, at], seen.free[:, :, at]) for at in (below, above)]
        evidence = seen.evidence()  # (1, Z, U, V)
        logits = branch.fusion(seen, *near) + (1 - evidence) * self.prior
        if branch.completion is not None:
            logits = logits + branch.completion(logits, evidence)
        inner = slice(MARGIN, -MARGIN)
        return logits[0, :, inner, inner], evidence[0, :, inner, inner]

    def _extrapolated(self, edges: Tensor, unseen: Tensor) -> Tensor:
        """Return logits (Z, X, Y), which are valid in columns that no past frame reaches."""
        x, y, z = self.grid.shape
        _, row, shift, nearness = unseen.flatten(1)[..., None].unbind(0)  # (C, 1) each
        # the state of the edge cell at the same height: (C, Z) of (P · E · Z)
        layer = (torch.arange(z, dtype=torch.int32) + shift).clamp(0, z - 1)
        state = functional.embedding(row * z + layer, edges.reshape(-1, 1))[..., 0]
        code = state.int() * (len(DISTANCES) + 1) + nearness
        index = code * z + torch.arange(z, dtype=torch.int32)
        values = functional.embedding(index, self.beyond[:, None])[..., 0]  # (C, Z)
        return values.t().reshape(z, x, y)

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

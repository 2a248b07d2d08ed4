"""AerialWorld: tokens, motion and memory into a forecast of occupancy.

    past bits ─► tokenizer ─► transformer ─► predicted token maps ─┐
    past poses ─► pose module ─► future ego frames (or the plan) ──┼─► memory net ─► logits
    past bits ─► ego-motion memory ─► fusion ─► spread of motion ──┘
                  └─► beyond its edge ─┘

A forecast knows the past alone: `forecast` takes a `Past`, and a `Plan` where the future motion is
given on purpose. What it is trained on is `world_loss`.

Axes: B batch, P past and H future frames, X, Y, Z cells, C token channels, h, w the token map.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vlwm.core.config.schema import Config
from vlwm.core.data.batch import Batch, Past, Plan, apply_symmetry
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.bit_packing import unpack_bits
from vlwm.core.model.memory.extrapolation import Beyond, unseen_columns
from vlwm.core.model.memory.fusion import FrameFusion
from vlwm.core.model.memory.refinement_net import MemoryNet
from vlwm.core.model.memory.warp import under_spread
from vlwm.core.model.motion.motion_head import Motion, PoseModule
from vlwm.core.model.tokenizer.vqvae import Tokenizer
from vlwm.core.model.torch_frames import ego_of, step_features
from vlwm.core.model.transformer.token_transformer import TokenTransformer

_STEP_FEATURES = 5  # dx, dy, dz, sin, cos of a step
_SIGMAS = 4
_ROWS_AT_ONCE = 6


@dataclass(frozen=True)
class Forecast:
    """What the model says of the future, in the anchor frame.

    Attributes:
        logits: float32 (B, H, X, Y, Z), each frame in its own (predicted or planned) ego frame.
        known: the same before the memory net has looked at it.
        ego: (B, H, 4), predicted ego frames (also under a plan).
        poses: (B, H, 13), predicted.
        log_sigma: (B, H, D), of the predicted motion, scaled by what validation showed.
    """

    logits: Tensor
    known: Tensor
    ego: Tensor
    poses: Tensor
    log_sigma: Tensor


class Said(NamedTuple):
    """What is known of a future frame before the memory net looks at it.

    Attributes:
        logits: (B, Z, X, Y).
        reach: (B, 1, X, Y), share of the past frames that reach a place; None without memory.
    """

    logits: Tensor
    reach: Tensor | None


class WorldModel(nn.Module):
    """See the module.

    Args:
        config: sizes, losses, which branches are used.
        grid: the grid of all frames.

    Attributes:
        vae: the tokenizer; frozen where `model.freeze_vae`.
        trust: (2,), how much of the memory net's residual a forecast takes, in the predicted track
            and along a plan; chosen on validation. Training takes all of it.
    """

    def __init__(self, config: Config, grid: VoxelGrid) -> None:
        super().__init__()
        self.config, self.grid = config, grid
        self.history, self.future = config.history_frames, config.future_frames
        model = config.model
        self.vae = Tokenizer(config.tokenizer, grid.shape)
        width, height, depth = self.vae.latent_shape
        if model.use_tokens:
            self.token_in = nn.Conv2d(width, model.channels[0], 1)
            self.step_in = nn.Linear(_STEP_FEATURES, model.channels[0])
            self.pose_in = nn.Linear(_STEP_FEATURES, model.channels[0])
            self.transformer = TokenTransformer(
                model.channels,
                config.tokenizer.codebook_size,
                (height, depth),
                config.window_frames,
                model.num_heads,
                model.layers_per_level,
            )
        context = model.channels[0] if model.use_tokens else 0
        self.pose = PoseModule(
            self.history, self.future, config.frame_dt_s, model.pose_channels, model.pose_dof,
            context,
        )  # fmt: skip
        layers = grid.shape[2]
        self.memory_net = MemoryNet(
            planes=layers + 1 if model.use_memory else layers,
            layers=layers,
            size=grid.shape[:2],
            channels=model.memory_channels,
            levels=model.memory_levels,
            condition=self.future + 1 + _SIGMAS + 4,
            tokens=width if model.use_tokens else 0,
        )
        if model.use_memory:
            self.fusion = FrameFusion(self.history, model.fusion_channels)
            self.beyond = Beyond()
        self.register_buffer("trust", torch.ones(2))
        self.register_buffer("column_logit", torch.full((layers,), -4.0))
        self.freeze()

    def freeze(self, fresh: Collection[str] = ()) -> tuple[str, ...]:
        """Apply the config's freezes; frozen parts take no gradient.

        Args:
            fresh: parameters that no weights covered: what was never trained is not frozen. Those
                of the tokenizer are: stage 1 has trained them.

        Returns:
            the parameters of frozen parts that are trained all the same.
        """
        model = self.config.model
        self.vae.requires_grad_(not model.freeze_vae)
        if model.use_tokens:
            self.transformer.requires_grad_(not model.freeze_transformer)
        self.pose.requires_grad_(not model.freeze_pose)
        kept = {
            name: parameter
            for name, parameter in self.named_parameters()
            if name in fresh and not name.startswith("vae.") and not parameter.requires_grad
        }
        for parameter in kept.values():
            parameter.requires_grad_(True)
        return tuple(kept)

    @torch.no_grad()
    def set_prior(self, column: np.ndarray | Tensor) -> None:
        """Take the share of occupied cells by height (Z,) of the train split."""
        share = torch.as_tensor(column, dtype=torch.float32).clamp(1e-3, 1 - 1e-3)
        self.column_logit.copy_(torch.logit(share))
        if self.config.model.use_memory:
            self.beyond.counts.zero_()

    @torch.no_grad()
    def count_beyond(self, batch: Batch) -> None:
        """Count what stood where the past frames of some windows of the train split do not reach,
        in every second future frame."""
        voxels = self.voxels(batch.bits, batch.symmetry)
        past_ego = self.past_ego(batch.past(self.history))
        ego = batch.plan(self.history).ego
        for h in range(1, self.future, 2):
            unseen = unseen_columns(voxels[:, : self.history], past_ego, ego[:, h], self.grid)
            self.beyond.count(unseen, voxels[:, self.history + h])

    # Inputs

    def voxels(self, bits: Tensor, symmetry: Tensor) -> Tensor:
        """Voxels uint8 (B, F, X, Y, Z) of packed frames (B, F, packed_bytes)."""
        return apply_symmetry(unpack_bits(bits, self.grid.shape), symmetry)

    def past_ego(self, past: Past) -> Tensor:
        """Ego frames (B, P, 4) of the past."""
        return ego_of(past.poses, past.ground_z)

    # Forecast

    @torch.no_grad()
    def forecast(self, past: Past, plan: Plan | None = None) -> Forecast:
        """The future frames from the past, along the given motion if there is a plan."""
        trust = float(self.trust[int(plan is not None)])
        voxels = self.voxels(past.bits, past.symmetry)
        tokens = self._tokens(voxels) if self.config.model.use_tokens else None
        motion = self.motion(past, tokens)
        ego = motion.ego if plan is None else plan.ego.to(motion.ego)
        planned = torch.full((len(voxels),), plan is not None, device=voxels.device)
        maps = self.roll_out(past, tokens, ego)
        every = torch.arange(self.future, device=voxels.device).expand(len(voxels), -1)
        remembered, corrected = [], []
        together = frames_at_once(len(voxels), voxels.device)
        for said, condition, of in self.given(
            voxels, past, ego, motion, planned, maps, every, together
        ):
            remembered.append(said.logits)
            if trust:
                corrected.append(said.logits + trust * self._residual(said, condition, of))
        known = _frames_of(remembered, len(voxels))
        logits = _frames_of(corrected, len(voxels)) if trust else known
        log_sigma = motion.log_sigma + torch.log(self.pose.sigma_scale)
        return Forecast(logits, known, motion.ego, motion.poses, log_sigma)

    def _tokens(self, voxels: Tensor) -> Tensor:
        """Tokens (B, F, C, h, w) of frames; no gradient."""
        return self.embedded(self.codes(voxels))

    @torch.no_grad()
    def codes(self, voxels: Tensor) -> Tensor:
        """Codes int64 (B, F, h, w) of frames."""
        return self.vae.tokenise(voxels.flatten(0, 1)).unflatten(0, voxels.shape[:2])

    @torch.no_grad()
    def embedded(self, codes: Tensor) -> Tensor:
        """Tokens (B, F, C, h, w) of codes (B, F, h, w)."""
        return self.vae.embed(codes.flatten(0, 1)).unflatten(0, codes.shape[:2])

    def motion(self, past: Past, tokens: Tensor | None) -> Motion:
        """The motion from the past, tokens (B, F, C, h, w) of its frames included if there are
        any; later ones are not looked at."""
        context = None
        if tokens is not None:
            ego = self.past_ego(past)
            context = self.transform(tokens[:, : self.history], ego)[1][:, -1]
        return self.pose(past.poses, past.ground_z, context)

    def transform(self, tokens: Tensor, ego: Tensor) -> tuple[Tensor, Tensor]:
        """Run the transformer on frames with the steps that lead on from each.

        Args:
            tokens: (B, F, C, h, w).
            ego: (B, F or F + 1, 4); a step that is not known yet is no step.
        """
        steps = step_features(ego)
        if steps.shape[1] < tokens.shape[1]:
            steps = torch.cat([steps, torch.zeros_like(steps[:, :1])], dim=1)
        self.transformer.recompute = self.config.model.checkpoint_activations
        return self.transformer(self._enter(tokens, steps), self.pose_in(steps))

    @torch.no_grad()
    def roll_out(self, past: Past, tokens: Tensor | None, ego: Tensor) -> Tensor | None:
        """Token maps (B, H, C, h, w) of the future, each from the ones before it."""
        if tokens is None:
            return None
        steps = step_features(torch.cat([self.past_ego(past), ego], dim=1))
        held: list[Tensor] = []
        maps = tokens[:, : self.history]
        for k in range(self.future):
            done = 0 if k == 0 else self.history + k - 1
            here = self._enter(maps[:, done:], steps[:, done : self.history + k])
            codes = self.transformer.next_logits(here, held).argmax(dim=1)
            maps = torch.cat([maps, self.vae.embed(codes)[:, None]], dim=1)
        return maps[:, self.history :]

    def _enter(self, tokens: Tensor, steps: Tensor) -> Tensor:
        """Tokens (B, F, C, h, w) with the steps (B, F, 5) that lead on from them."""
        x = self.token_in(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        return x + self.step_in(steps)[..., None, None]

    def given(
        self,
        voxels: Tensor,
        past: Past,
        ego: Tensor,
        motion: Motion,
        planned: Tensor,
        maps: Tensor | None,
        horizons: Tensor,
        together: int = 1,
    ) -> Iterator[tuple[Said, Tensor, Tensor | None]]:
        """What the memory net is given for the future frames `horizons` (B, K), so many of them
        `together`: rows (B · together), those of a window one after the other."""
        every = torch.arange(len(ego), device=ego.device)
        for group in horizons.split(together, dim=1):
            window, h = every[:, None].expand_as(group).flatten(), group.flatten()
            tokens = None if maps is None else maps[window, h]
            to, along = ego[window, h], planned[window, None]
            if self.config.model.use_memory:
                guessed = (~along[:, 0]).nonzero()[:, 0]
                said = self._remembered(voxels, past, window, h, to, motion, guessed)
            else:
                assert tokens is not None
                frozen = self.config.model.freeze_vae
                with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
                    said = Said(self.vae.decode(tokens).permute(0, 3, 1, 2), None)
            one_hot = torch.eye(self.future, device=h.device)[h]
            sigma = motion.log_sigma[window, h, :_SIGMAS].detach()
            unsure = torch.where(along, torch.full_like(sigma, -5.0), sigma)
            parts = [one_hot, along.float(), unsure / 5.0, to / 10.0]
            yield said, torch.cat(parts, dim=1).float(), tokens

    @torch.no_grad()
    def _remembered(
        self,
        voxels: Tensor,
        past: Past,
        window: Tensor,
        horizon: Tensor,
        ego: Tensor,
        motion: Motion,
        guessed: Tensor,
    ) -> Said:
        """What the past frames say of some future frames, as sure as their motion is.

        A GPU is waited for before it reads the past; what follows is started while it does.

        Args:
            window, horizon: int64 (R,), which future frame of which window each is.
            ego: (R, 4), where each is.
            motion: what is known of the motions of `guessed`.
            guessed: int64 (N,), the rows whose motion is a guess.
        """
        frames, past_ego = voxels[:, : self.history], self.past_ego(past)[window]
        otherwise = self.column_logit
        unseen = unseen_columns(frames, past_ego, ego, self.grid, window)
        logits, reach = self.fusion.read(voxels, window, past_ego, ego, self.grid, otherwise)
        unseen.put(logits, self.beyond(unseen, otherwise))
        if len(guessed) == len(logits):  # a GPU need not copy them all
            logits = self._spread(motion, logits, window, horizon, ego)
        elif len(guessed):
            some = (part[guessed] for part in (logits, window, horizon, ego))
            logits[guessed] = self._spread(motion, *some)
        return Said(logits, reach)

    def _spread(
        self, motion: Motion, logits: Tensor, window: Tensor, horizon: Tensor, ego: Tensor
    ) -> Tensor:
        """Logits (R, Z, X, Y) of frames whose motion is known up to its spread."""
        moves = self.pose.moves(motion, window, horizon)
        with torch.autocast(logits.device.type, enabled=False):
            mean = under_spread(torch.sigmoid(logits), ego, moves, self.grid)
        return torch.logit(mean, eps=1e-4)

    def logits(self, said: Said, condition: Tensor, tokens: Tensor | None) -> Tensor:
        """Logits (B, X, Y, Z) of one future frame of each window, all of the residual taken."""
        return (said.logits + self._residual(said, condition, tokens)).permute(0, 2, 3, 1)

    def _residual(self, said: Said, condition: Tensor, tokens: Tensor | None) -> Tensor:
        planes = torch.tanh(said.logits / 4.0)
        if said.reach is not None:
            planes = torch.cat([planes, said.reach], dim=1)
        return self.memory_net(planes, condition, tokens)


def _frames_of(parts: list[Tensor], windows: int) -> Tensor:
    """Logits float32 (B, H, X, Y, Z) of groups of frames, (B · K, Z, X, Y) each."""
    each = [part.unflatten(0, (windows, -1)) for part in parts]
    whole = torch.cat(each, dim=1) if len(each) > 1 else each[0]
    return whole.permute(0, 1, 3, 4, 2).float()


def frames_at_once(windows: int, device: torch.device) -> int:
    """Future frames of each window that a forecast makes together: a GPU has room for six at the
    full grid, and waits less; a CPU has none to spare and gains nothing."""
    return 1 if device.type == "cpu" else max(1, _ROWS_AT_ONCE // windows)

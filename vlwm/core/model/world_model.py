"""Define the world model (AerialWorld): tokens, motion and memory into a forecast of occupancy.

    past voxels ─► tokenizer ─► transformer ─► predicted token maps ──┐
    past poses ─► motion head ─► future ego frames (or the plan) ─┬───┼─► refinement net ─► logits
    past voxels ─────────────────────────────► memory branch ◄────┴───┘

`WorldModel.forward` is the one pass that both `forecast` and the loss (`world_loss`) use. It reads
a `Scene`, which is the past alone, and a `Plan` where the future motion is given on purpose.

Axes: B windows, P past and H future frames, R target frames (future frames of windows), X, Y, Z
cells, C token channels, h, w the token map.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from vlwm.core.config.schema import Config
from vlwm.core.data.batch import Past, Plan
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.forward import (
    Forecast,
    RefinementInput,
    Scene,
    SceneReader,
    WorldModelOutput,
    condition_of,
    condition_width,
    ego_of_past,
    frames_at_once,
    frames_of,
    reach_planes,
)
from vlwm.core.model.memory.branch import (
    MemoryBranch,
    MemoryForecast,
    MotionSpread,
    TargetFrames,
    Walls,
)
from vlwm.core.model.memory.observed_fusion import ObservedBranch
from vlwm.core.model.memory.refinement_net import RefinementNet
from vlwm.core.model.motion.motion_head import Motion, MotionHead
from vlwm.core.model.semantic import ClassHead, warped_classes
from vlwm.core.model.tokenizer.vqvae import Tokenizer
from vlwm.core.model.torch_frames import step_features
from vlwm.core.model.transformer.token_transformer import TokenTransformer

_STEP_FEATURES = 5
"""values of `torch_frames.step_features`"""


class WorldModel(nn.Module):
    """Forecasts occupancy; see the module for the parts.

    Args:
        config: sizes, losses, which branches are used.
        grid: the grid of all frames.

    Attributes:
        vae: the tokenizer, under OccWorld's name for it; frozen where `model.freeze_vae`.
        reader: unpacks frames.
        memory: the memory branch; absent without `model.use_memory`.
        refinement_net: None without `model.memory_channels`.
        residual_weight: (2,), share of the refinement net's residual that a forecast takes, in
            the predicted track and along a plan; chosen on validation. Training takes all of it.
        checkpoint_activations: recompute activations in the backward pass to save memory.
    """

    residual_weight: Tensor
    column_logit: Tensor

    def __init__(self, config: Config, grid: VoxelGrid) -> None:
        super().__init__()
        self.config = config
        self.grid = grid
        self.history = config.history_frames
        self.future = config.future_frames
        self.reader = SceneReader(config, grid)
        model = config.model
        self.checkpoint_activations = model.checkpoint_activations
        # The order of the parts is the order of the optimizer's state: do not change it.
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
        self.motion_head = MotionHead(
            self.history,
            self.future,
            config.frame_dt_s,
            model.pose_channels,
            model.pose_dof,
            context=model.channels[0] if model.use_tokens else 0,
            ridge=model.pose_ridge,
        )
        layers = grid.shape[2]
        self.refinement_net: RefinementNet | None = None
        if model.memory_channels:
            self.refinement_net = RefinementNet(
                planes=layers + reach_planes(config, layers),
                layers=layers,
                size=grid.shape[:2],
                channels=model.memory_channels,
                levels=model.memory_levels,
                condition=condition_width(self.future),
                tokens=width if model.use_tokens else 0,
            )
        if model.use_memory:
            sizes = (self.history, model.fusion_channels, grid)
            self.memory: MemoryBranch = (
                ObservedBranch(*sizes, model.completion_channels, model.completion_blocks)
                if config.data.observed
                else MemoryBranch(*sizes, planes=model.fusion_planes)
            )
        self.free_class = self.reader.free_class
        if config.semantic:
            self.class_head = ClassHead(self.history, self.free_class, layers)
        self.register_buffer("residual_weight", torch.ones(2))
        self.register_buffer("column_logit", torch.full((layers,), -4.0))
        self.freeze()

    def freeze(self, fresh: Collection[str] = ()) -> tuple[str, ...]:
        """Apply the config's freezes; frozen parts take no gradient.

        Args:
            fresh: names of parameters that are not in the loaded weights. They stay trainable even
                in a frozen part, except in the tokenizer, which stage 1 has trained.

        Returns:
            the parameters of frozen parts that stay trainable.
        """
        model = self.config.model
        self.vae.requires_grad_(not model.freeze_vae)
        if model.use_tokens:
            self.transformer.requires_grad_(not model.freeze_transformer)
        self.motion_head.requires_grad_(not model.freeze_pose)
        kept = {
            name: parameter
            for name, parameter in self.named_parameters()
            if name in fresh and not name.startswith("vae.") and not parameter.requires_grad
        }
        for parameter in kept.values():
            parameter.requires_grad_(True)
        return tuple(kept)

    @property
    def completes(self) -> bool:
        """True if a network completes what an observed past did not see."""
        model = self.config.model
        return bool(model.use_memory and self.config.data.observed and model.completion_channels)

    # Priors, counted on the train split before the first step

    @torch.no_grad()
    def set_prior(self, column: np.ndarray | Tensor) -> None:
        """Take the share of occupied cells by height (Z,) of the train split."""
        # no height is certain: a logit of ±∞ could never be corrected
        share = torch.as_tensor(column, dtype=torch.float32).clamp(1e-3, 1 - 1e-3)
        self.column_logit.copy_(torch.logit(share))
        if self.config.model.use_memory:
            self.memory.extrapolation.counts.zero_()

    # Inputs

    def scene(self, past: Past) -> Scene:
        """Unpack and tokenise a past."""
        voxels = self.reader.voxels(past.bits, past.symmetry)
        classes = self.reader.classes(past.classes, voxels, past.symmetry)
        tokens = None
        if self.config.model.use_tokens:
            tokens = self.embedded(self.codes(voxels if classes is None else classes))
        free, known = self.reader.free_space(past), self.reader.known_past(past)
        return Scene(past, voxels, tokens, free, known, classes, self.walls(past, voxels))

    def walls(self, past: Past, voxels: Tensor) -> Walls | None:
        """Return the walls of the past frames of voxels (B, F, X, Y, Z) as planes, if read."""
        if not self.config.model.use_memory:
            return None
        frames, known = voxels[:, : self.history], self.reader.known_past(past)
        return self.memory.fit_walls(frames, ego_of_past(past), known)

    @torch.no_grad()
    def codes(self, voxels: Tensor) -> Tensor:
        """Return codes int64 (B, F, h, w) of frames (B, F, X, Y, Z): voxels, or classes."""
        return self.vae.tokenise(voxels.flatten(0, 1)).unflatten(0, voxels.shape[:2])

    @torch.no_grad()
    def embedded(self, codes: Tensor) -> Tensor:
        """Return tokens (B, F, C, h, w) of codes (B, F, h, w)."""
        return self.vae.embed(codes.flatten(0, 1)).unflatten(0, codes.shape[:2])

    # Forward pass

    @torch.no_grad()
    def forecast(self, past: Past, plan: Plan | None = None) -> Forecast:
        """Predict the future frames from the past, along the given motion if there is a plan."""
        weight = 0.0
        if self.refinement_net is not None:
            weight = float(self.residual_weight[int(plan is not None)])
        scene = self.scene(past)
        windows = len(scene.voxels)
        device = scene.voxels.device
        planned = torch.full((windows,), plan is not None, device=device)
        every = torch.arange(self.future, device=device).expand(windows, -1)  # (B, H)
        chunk = frames_at_once(windows, device)
        if self.completes and device.type == "cpu":  # frames side by side, one for each thread
            chunk = max(chunk, self.future // windows)
        out = self(scene, plan, planned, every, chunk)
        memory: list[Tensor] = []
        refined: list[Tensor] = []
        classes: list[Tensor] = []
        for inputs in out.inputs:
            memory.append(inputs.memory.logits)
            if weight:  # without any weight the net need not run
                refined.append(inputs.memory.logits + weight * self._residual(inputs))
            if self.config.semantic:
                classes.append(self.class_logits(scene, inputs).argmax(dim=-1).to(torch.uint8))
        memory_logits = frames_of(memory, windows)
        logits = frames_of(refined, windows) if weight else memory_logits
        motion = out.motion
        log_sigma = motion.log_sigma + torch.log(self.motion_head.sigma_scale)
        kinds = None
        if classes:
            kinds = torch.cat([c.unflatten(0, (windows, -1)) for c in classes], dim=1)
        return Forecast(logits, memory_logits, motion.ego, motion.poses, log_sigma, kinds)

    def forward(
        self, scene: Scene, plan: Plan | None, planned: Tensor, horizons: Tensor, chunk: int = 1
    ) -> WorldModelOutput:
        """Predict the motion, and the inputs of the refinement net along it or along the plan.

        Args:
            scene: the past.
            plan: the true future motion; None where no window follows one.
            planned: bool (B,), windows that follow the plan.
            horizons: int64 (B, K), numbers of the future frames that are wanted of each window.
            chunk: horizons of a window that are made together.
        """
        motion = self.predict_motion(scene.past, scene.tokens)
        # the forecast trains the networks that read the motion, not the motion itself
        ego = motion.ego.detach()  # (B, H, 4)
        if plan is not None:
            ego = torch.where(planned[:, None, None], plan.ego.to(ego), ego)
        inputs = self._refinement_inputs(scene, motion, ego, planned, horizons, chunk)
        return WorldModelOutput(motion, ego, inputs)

    def predict_motion(self, past: Past, tokens: Tensor | None) -> Motion:
        """Return the motion from the past poses, and from tokens (B, F, C, h, w) if there are any.

        Tokens of frames after the past are not read.
        """
        context = None
        if tokens is not None:
            _, features = self.transform(tokens[:, : self.history], ego_of_past(past))
            context = features[:, -1]  # (B, C), after the last past frame
        return self.motion_head(past.poses, past.ground_z, context)

    def transform(self, tokens: Tensor, ego: Tensor) -> tuple[Tensor, Tensor]:
        """Run the transformer on frames with the steps that lead on from each.

        Args:
            tokens: (B, F, C, h, w).
            ego: (B, F or F + 1, 4); without the last one, the last step is unknown and zero.

        Returns:
            Code logits (B, F, K, h, w) of each frame's next one, pose features (B, F, C).
        """
        steps = step_features(ego)  # (B, F or F − 1, 5)
        if steps.shape[1] < tokens.shape[1]:
            steps = torch.cat([steps, torch.zeros_like(steps[:, :1])], dim=1)
        entered = self._entered(tokens, steps)
        return self.transformer(entered, self.pose_in(steps), self.checkpoint_activations)

    @torch.no_grad()
    def roll_out(self, past: Past, tokens: Tensor | None, ego: Tensor) -> Tensor | None:
        """Return token maps (B, H, C, h, w) of the future, each from the ones before it.

        Args:
            tokens: (B, F, C, h, w), the past frames first; later ones are not read.
            ego: (B, H, 4), where the future frames are.
        """
        if tokens is None:
            return None
        steps = step_features(torch.cat([ego_of_past(past), ego], dim=1))  # (B, P + H − 1, 5)
        kv_cache: list[Tensor] = []
        maps = tokens[:, : self.history]
        for k in range(self.future):
            # the first call takes the whole past, each later one the frame predicted last
            done = 0 if k == 0 else self.history + k - 1
            new = self._entered(maps[:, done:], steps[:, done : self.history + k])
            codes = self.transformer.next_logits(new, kv_cache).argmax(dim=1)  # (B, h, w)
            maps = torch.cat([maps, self.vae.embed(codes)[:, None]], dim=1)
        return maps[:, self.history :]

    def _entered(self, tokens: Tensor, steps: Tensor) -> Tensor:
        """Return transformer inputs of tokens (B, F, C, h, w) and their steps (B, F, 5)."""
        x = self.token_in(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        return x + self.step_in(steps)[..., None, None]

    def _refinement_inputs(
        self,
        scene: Scene,
        motion: Motion,
        ego: Tensor,
        planned: Tensor,
        horizons: Tensor,
        chunk: int,
    ) -> Iterator[RefinementInput]:
        """Yield the refinement net's inputs, `chunk` horizons of every window at a time."""
        maps = self.roll_out(scene.past, scene.tokens, ego)
        past_ego = ego_of_past(scene.past)  # (B, P, 4)
        rows = torch.arange(len(ego), device=ego.device)
        for group in horizons.split(chunk, dim=1):
            # R = B · chunk target frames, window by window
            window = rows[:, None].expand_as(group).flatten()
            horizon = group.flatten()
            target = TargetFrames(window, horizon, past_ego[window], ego[window, horizon])
            along = planned[window, None]  # (R, 1)
            tokens = None if maps is None else maps[window, horizon]
            if self.config.model.use_memory:
                memory = self._memory(scene, target, motion, along)
            else:
                assert tokens is not None  # the config refuses a model without both
                memory = self._decoded(tokens)
            condition = condition_of(target, motion, along, self.future)
            yield RefinementInput(memory, condition, tokens, target)

    def observed_branch(self) -> ObservedBranch:
        """Return the memory branch of a model that forecasts from an observed past."""
        assert isinstance(self.memory, ObservedBranch)  # the config chose the class
        return self.memory

    def _memory(
        self,
        scene: Scene,
        target: TargetFrames,
        motion: Motion,
        along: Tensor,
    ) -> MemoryForecast:
        """Read the past at the target frames, averaged over the spread of a predicted motion."""
        spread = None
        rows = (~along[:, 0]).nonzero()[:, 0]
        if len(rows):
            moves = self.motion_head.moves(motion, target.window[rows], target.horizon[rows])
            spread = MotionSpread(rows, moves)
        if scene.free is not None:
            branch = self.observed_branch()
            return branch.read(scene.voxels, scene.free, target, self.column_logit, spread)
        return self.memory(
            scene.voxels, target, self.column_logit, spread, scene.known, scene.walls
        )

    def _decoded(self, tokens: Tensor) -> MemoryForecast:
        """Decode token maps (R, C, h, w) where there is no memory; a trained decoder learns."""
        learns = torch.is_grad_enabled() and not self.config.model.freeze_vae
        with torch.set_grad_enabled(learns):
            return MemoryForecast(self.vae.decode_occupancy(tokens).permute(0, 3, 1, 2), None)

    def refined(self, inputs: RefinementInput) -> Tensor:
        """Return logits (R, X, Y, Z) with all of the residual, as training uses them."""
        logits = inputs.memory.logits
        if self.refinement_net is not None:
            logits = logits + self._residual(inputs)
        return logits.permute(0, 2, 3, 1)

    def class_logits(self, scene: Scene, inputs: RefinementInput) -> Tensor:
        """Return logits (R, X, Y, Z, C) of the class that a cell of the target frames has."""
        assert scene.classes is not None
        target, free = inputs.target, self.free_class
        past = scene.classes[:, : self.history][target.window]  # (R, P, X, Y, Z)
        moved = warped_classes(past, target.past_ego, target.ego, self.grid, free)
        decoded = None
        if inputs.tokens is not None:
            with torch.no_grad():
                decoded = self.vae.decode(inputs.tokens)[..., :free]
        logits: Tensor = self.class_head(moved, decoded)
        return logits

    def _residual(self, inputs: RefinementInput) -> Tensor:
        """Return the correction (R, Z, X, Y) of the memory's logits."""
        assert self.refinement_net is not None  # who calls has looked
        # beyond ±8 a logit is certain: squashed, its size no longer dominates the input
        planes = torch.tanh(inputs.memory.logits / 4.0)
        if inputs.memory.reach is not None:
            planes = torch.cat([planes, inputs.memory.reach], dim=1)
        return self.refinement_net(planes, inputs.condition, inputs.tokens)

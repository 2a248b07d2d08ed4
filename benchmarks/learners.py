"""The forecasters that `ladder.py` trains: peers and this project's model, behind one interface."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from peers import PEERS, PeerShape
from peers.interface import PeerInput
from token_designs import DESIGNS
from token_designs.interface import fused_frame
from vlwm.core.config.schema import Config
from vlwm.core.data.batch import Batch, apply_symmetry
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.bit_packing import unpack_bits
from vlwm.core.model.losses import occupancy_loss
from vlwm.core.model.torch_frames import ego_of
from vlwm.core.model.world_loss import WorldLoss
from vlwm.core.model.world_model import WorldModel
from vlwm.core.training.tasks.prior_pretraining import count_unseen

OURS = ("memory", "completion", "tokens", "all")
LEARNERS = (*PEERS, *OURS, *DESIGNS)
_FEW = 2  # future frames of a window that a step learns from, where a method makes each by itself
_SEQUENCES = ("simvp", "convlstm")
_REFINEMENT = 32  # channels of the refinement net where a learner has one
_COUNTED = 8  # train windows that count what stands beyond the edge
_WARM_UP = 0.03  # share of a stage in which the rate of a token design rises


class Learner:
    """A forecaster that can be trained.

    Attributes:
        module: its parameters.
        progress: share of its training time that is spent.
    """

    module: nn.Module
    progress: float = 0.0

    def prepare(self, column: np.ndarray) -> None:
        """Take the share of occupied cells by height (Z,) of the train split."""

    def rate(self) -> float:
        """Return the factor of the learning rate: a cosine over the time."""
        return 0.5 * (1 + float(np.cos(np.pi * self.progress)))

    def loss(self, batch: Batch, step: int, rng: np.random.Generator) -> Tensor:
        """Return the loss of a step."""
        raise NotImplementedError

    def probabilities(self, batch: Batch) -> Tensor:
        """Return float32 (B, H, X, Y, Z) along the plan."""
        raise NotImplementedError


def learner_of(name: str, config: Config, grid: VoxelGrid) -> Learner:
    """Return an untrained forecaster by name."""
    if name in PEERS:
        shape = PeerShape(grid, config.history_frames, config.future_frames)
        return PeerLearner(name, PEERS[name](shape), config, grid)
    if name in DESIGNS:
        return DesignLearner(name, config, grid)
    return OwnLearner(name, config, grid)


class PeerLearner(Learner):
    """A peer of `peers/`."""

    def __init__(self, name: str, module: Any, config: Config, grid: VoxelGrid) -> None:
        self.name, self.module, self.config, self.grid = name, module, config, grid

    def prepare(self, column: np.ndarray) -> None:
        """Set the logit of unknown cells where the peer has one for each height."""
        prior = getattr(self.module, "prior", None)
        if prior is not None:
            share = torch.as_tensor(column, dtype=torch.float32).clamp(1e-3, 1 - 1e-3)
            with torch.no_grad():
                prior.copy_(torch.logit(share))

    def loss(self, batch: Batch, step: int, rng: np.random.Generator) -> Tensor:
        future = self.config.future_frames
        count = future if self.name in _SEQUENCES else min(_FEW, future)
        chosen = np.stack([rng.permutation(future)[:count] for _ in range(len(batch.index))])
        horizons = torch.from_numpy(np.sort(chosen, axis=1))
        logits = self.module(self._input(batch, horizons))  # (B, K, X, Y, Z)
        truth = self._voxels(batch.bits[:, self.config.history_frames :], batch)
        rows = torch.arange(len(truth))
        terms = [
            occupancy_loss(logits[:, k], truth[rows, horizons[:, k]], self.config.loss).total
            for k in range(count)
        ]
        return torch.stack(terms).mean()

    def probabilities(self, batch: Batch) -> Tensor:
        every = torch.arange(self.config.future_frames).expand(len(batch.index), -1)
        return torch.sigmoid(self.module(self._input(batch, every)).float())

    def _input(self, batch: Batch, horizons: Tensor) -> PeerInput:
        history = self.config.history_frames
        past = batch.past(history)
        assert past.seen_occupied is not None and past.seen_free is not None
        return PeerInput(
            self._voxels(past.seen_occupied, batch),
            self._voxels(past.seen_free, batch),
            ego_of(past.poses, past.ground_z).float(),
            batch.plan(history).ego,
            horizons,
        )

    def _voxels(self, bits: Tensor, batch: Batch) -> Tensor:
        return apply_symmetry(unpack_bits(bits, self.grid.shape), batch.symmetry)


class OwnLearner(Learner):
    """This project's world model with some of its parts, trained along the plan.

    memory       the count of evidence alone
    completion   and the network that completes it: the default of the lidar presets
    tokens       tokenizer and transformer, OccWorld's recipe
    all          completion, tokens, and a refinement net that reads both

    Codes are trained by gradient, as OccWorld's are: moving means are kept by stage 1 alone, which
    no learner has.
    """

    def __init__(self, name: str, config: Config, grid: VoxelGrid) -> None:
        tokens, completes = name in ("tokens", "all"), name in ("completion", "all")
        model = replace(
            config.model,
            use_tokens=tokens,
            use_memory=name != "tokens",
            freeze_vae=not tokens,
            completion_channels=config.model.completion_channels if completes else 0,
            memory_channels=0 if name == "completion" else _REFINEMENT,
        )
        tokenizer = replace(config.tokenizer, ema_decay=0.0)
        self.name, self.config = name, replace(config, model=model, tokenizer=tokenizer)
        self.module = self.model = WorldModel(self.config, grid)
        self.objective = WorldLoss(self.model)
        self.counted = 0

    def prepare(self, column: np.ndarray) -> None:
        self.model.set_prior(column)
        if self.config.model.use_tokens:
            self.model.vae.init_output_rate(torch.as_tensor(column))

    def loss(self, batch: Batch, step: int, rng: np.random.Generator) -> Tensor:
        if self.name == "completion":
            return self.objective.completion_term(batch, step).value
        if self.config.model.use_memory and self.counted < _COUNTED:
            count_unseen(self.model, batch)
            self.counted += 1
        if self.name == "memory":
            return self.objective.fusion_term(batch, step).value
        return self.objective(batch, step).total

    def probabilities(self, batch: Batch) -> Tensor:
        history = self.config.history_frames
        forecast = self.model.forecast(batch.past(history), batch.plan(history))
        logits = forecast.memory_logits if self.name == "memory" else forecast.logits
        return torch.sigmoid(logits.float())


class DesignLearner(OwnLearner):
    """The model of `completion` with a design of `token_designs/` in the network's place."""

    def __init__(self, name: str, config: Config, grid: VoxelGrid) -> None:
        super().__init__("completion", config, grid)
        self.name = name
        self.module = self.design = DESIGNS[name](config, grid)
        self.model.observed_branch().completion = self.design

    def prepare(self, column: np.ndarray) -> None:
        super().prepare(column)
        self.design.prepare(column)

    def rate(self) -> float:
        """Return the factor of the learning rate: a short rise and a cosine in each stage."""
        _, spent = self.design.stage(min(self.progress, 1.0))
        return min(1.0, spent / _WARM_UP) * 0.5 * (1 + float(np.cos(np.pi * spent)))

    def loss(self, batch: Batch, step: int, rng: np.random.Generator) -> Tensor:
        horizons = torch.from_numpy(rng.integers(self.config.future_frames, size=len(batch.index)))
        return self.design.loss(fused_frame(self.model, batch, horizons), self.progress, rng)

"""Memory in three states: evidence of a surface, of free space, and none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.small_world import OVERRIDES, batch_of, grid_of, model_of
from vlwm.core.config.load import load_config
from vlwm.core.config.schema import Config
from vlwm.core.data.batch import Batch
from vlwm.core.errors import ConfigError, DataError
from vlwm.core.model.bit_packing import pack_bits, unpack_bits
from vlwm.core.model.memory.branch import TargetFrames
from vlwm.core.model.memory.observed_fusion import MARGIN, ObservedBranch
from vlwm.core.model.world_loss import WorldLoss
from vlwm.core.training.tasks.prior_pretraining import count_unseen


def observed(*more: str) -> Config:
    return load_config("test_local_lidar", [*OVERRIDES, "model.use_tokens=False", *more])


def observed_batch(config: Config, size: int = 2) -> Batch:
    """Random cells, of which the past saw about a third."""
    batch = batch_of(config, size)
    history, shape = config.history_frames, grid_of(config).shape
    rng = np.random.default_rng(3)
    truth = unpack_bits(batch.bits[:, :history], shape)
    seen = torch.from_numpy(rng.random(truth.shape) < 0.3)
    occupied, free = pack_bits(seen & (truth > 0)), pack_bits(seen & (truth == 0))
    bits = torch.cat([occupied, batch.bits[:, history:]], dim=1)
    return dataclasses.replace(batch, bits=bits, seen_occupied=occupied, seen_free=free)


def still(branch: ObservedBranch, occupied: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """Logits and evidence at the pose of the last frame, none of the frames moved."""
    past_ego = torch.zeros(1, occupied.shape[1], 4)
    target = TargetFrames(
        torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), past_ego,
        torch.zeros(1, 4),
    )  # fmt: skip
    prior = torch.full((occupied.shape[-1],), -2.0)
    found = branch.read(occupied, free, target, prior, None)
    return torch.cat([found.logits, found.reach])


def test_untrained_it_adds_evidence_and_leaves_the_unknown_to_the_prior() -> None:
    config = observed()
    grid = grid_of(config)
    branch = ObservedBranch(3, 8, grid)
    occupied, free = (torch.zeros(1, 3, *grid.shape, dtype=torch.uint8) for _ in range(2))
    occupied[:, :2, 3, 4, 2] = 1
    free[:, :1, 5, 6, 1] = 1
    logits, evidence = still(branch, occupied, free)
    hit, miss = branch.fusion.odds.tolist()
    torch.testing.assert_close(logits[2, 3, 4], torch.tensor(2 * hit))
    torch.testing.assert_close(logits[1, 5, 6], torch.tensor(-miss))
    assert evidence.sum() == 2
    assert (logits[evidence == 0] == -2.0).all()


def test_the_margin_keeps_what_the_target_frame_does_not_contain() -> None:
    branch = ObservedBranch(2, 8, grid_of(observed()))
    grid = branch.wide_grid
    assert grid.shape[0] == branch.grid.shape[0] + 2 * MARGIN
    occupied, free = (torch.zeros(1, 2, *branch.grid.shape, dtype=torch.uint8) for _ in range(2))
    occupied[:, 0, 0, 4, 2] = 1  # the rear edge of a frame 3 m behind
    past_ego = torch.zeros(1, 2, 4)
    past_ego[0, 0, 0] = -3.0
    prior = torch.full((branch.grid.shape[2],), -2.0)
    _, evidence = branch.fused(occupied, free, past_ego, past_ego[:, -1], prior)
    assert evidence[0, 2, MARGIN - 3, MARGIN + 4] == 1.0


def test_a_model_reads_what_was_seen_and_no_truth_of_the_past() -> None:
    config = observed()
    model, batch = model_of(config).eval(), observed_batch(config)
    past, plan = batch.past(config.history_frames), batch.plan(config.history_frames)
    torch.manual_seed(0)
    whole = model.forecast(past, plan)
    assert whole.logits.shape[2:] == grid_of(config).shape
    nothing = dataclasses.replace(
        past, bits=torch.zeros_like(past.bits), seen_occupied=None,
        seen_free=torch.zeros_like(past.seen_free),
    )  # fmt: skip
    assert not torch.allclose(model.forecast(nothing, plan).logits, whole.logits)
    with pytest.raises(DataError, match="forecasts from what a sensor saw"):
        model.forecast(dataclasses.replace(past, seen_free=None), plan)


def test_the_loss_trains_the_fusion_and_the_net() -> None:
    config = observed("model.fusion_channels=8")
    model, batch = model_of(config).train(), observed_batch(config)
    count_unseen(model, batch)
    report = WorldLoss(model)(batch, 3)
    report.total.backward()
    assert torch.isfinite(report.total)
    assert model.memory.fusion.odds.grad.abs().sum() > 0
    assert model.refinement_net.conv_out.weight.grad.abs().sum() > 0


def test_without_a_refinement_net_the_completion_is_the_forecast_and_learns() -> None:
    more = ("model.memory_channels=0", "model.completion_channels=16", "model.use_tokens=False")
    config = observed(*more)
    model, batch = model_of(config).train(), observed_batch(config)
    assert model.refinement_net is None
    report = WorldLoss(model)(batch, 3)
    report.total.backward()
    out = model.memory.completion.out.weight
    assert out.grad.abs().sum() > 0
    assert {"loss/completion", "loss/dice", "loss/pose"} <= set(report.numbers())
    torch.nn.init.normal_(out, std=0.1)
    forecast = model.eval().forecast(batch.past(config.history_frames))
    torch.testing.assert_close(forecast.logits, forecast.memory_logits)
    with pytest.raises(ConfigError, match=r"model\.memory_channels"):
        observed("model.memory_channels=0", "model.completion_channels=0")


def test_training_the_fusion_learns_to_trust_the_sensor() -> None:
    config = observed()
    model, batch = model_of(config).train(), observed_batch(config)
    # A world that stands still and looks the same in all frames: what was seen is true.
    history, shape = config.history_frames, grid_of(config).shape
    poses = torch.zeros_like(batch.poses)
    poses[..., 6] = 1.0
    truth = unpack_bits(batch.bits[:, -1:], shape).expand(-1, config.window_frames, -1, -1, -1)
    bits = pack_bits(truth > 0)
    free = pack_bits(truth[:, :history] == 0)
    batch = dataclasses.replace(
        batch, bits=bits, poses=poses, seen_occupied=bits[:, :history], seen_free=free
    )
    objective = WorldLoss(model)
    optimizer = torch.optim.Adam(model.memory.parameters(), lr=6e-2)
    losses = []
    for step in range(12):
        loss = objective.fusion_term(batch, step).value
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]

"""A forecast knows the past alone; untrained it is resampled memory; full size steps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from vlwm.core.config import Config, load_config
from vlwm.core.data.dataset import Batch
from vlwm.core.geometry.frames import quaternion_from_heading
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.bits import pack_bits
from vlwm.core.model.memory import resampled_memory
from vlwm.core.model.transformer import TokenTransformer
from vlwm.core.model.world_model import WorldModel, ego_frames, planned_half

OVERRIDES = (
    "model.channels=[16,16,24]",
    "model.layers_per_level=1",
    "model.memory_channels=8",
    "tokenizer.base_channels=8",
    "tokenizer.embed_dim=16",
    "tokenizer.codebook_size=32",
    "point_cloud_range=[-8,-8,-2,8,8,14]",
    "voxel_size=[1,1,2]",
)


def small(*more: str) -> Config:
    return load_config("test_local", [*OVERRIDES, *more])


def grid_of(config: Config) -> VoxelGrid:
    return VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)


def batch_of(config: Config, size: int = 3, seed: int = 0) -> Batch:
    """Windows that drive ahead through random cells."""
    rng = np.random.default_rng(seed)
    shape = grid_of(config).shape
    cells = torch.from_numpy(rng.random((size, config.window_frames, *shape)) < 0.1)
    poses = np.zeros((size, config.window_frames, 13))
    steps = np.arange(config.window_frames) - (config.history_frames - 1)
    poses[..., 0] = steps * rng.uniform(0.5, 2.0, (size, 1))
    poses[..., 2] = 3.0
    yaw = steps * rng.uniform(-0.1, 0.1, (size, 1))
    poses[..., 3:7] = quaternion_from_heading(yaw)
    return Batch(
        bits=pack_bits(cells),
        poses=torch.from_numpy(poses).float(),
        ground_z=torch.zeros(size, config.window_frames),
        index=torch.arange(size),
        symmetry=torch.zeros(size, dtype=torch.int64),
    )


def model_of(config: Config) -> WorldModel:
    torch.manual_seed(0)
    model = WorldModel(config, grid_of(config))
    model.set_prior(np.linspace(0.9, 0.01, grid_of(config).shape[2]))
    return model


def test_a_poisoned_future_changes_no_forecast() -> None:
    config = small()
    model, batch = model_of(config).eval(), batch_of(config)
    clean = model.forecast(batch.past(4))
    poses, ground, bits = batch.poses.clone(), batch.ground_z.clone(), batch.bits.clone()
    poses[:, 4:], ground[:, 4:], bits[:, 4:] = torch.nan, torch.nan, 255
    poisoned = dataclasses.replace(batch, poses=poses, ground_z=ground, bits=bits)
    again = model.forecast(poisoned.past(4))
    for name in ("logits", "ego", "poses", "log_sigma"):
        assert torch.equal(getattr(clean, name), getattr(again, name))
        assert torch.isfinite(getattr(again, name)).all()


def test_a_plan_reaches_the_forecast_and_only_the_forecast() -> None:
    config = small()
    model, batch = model_of(config).eval(), batch_of(config)
    free, planned = model.forecast(batch.past(4)), model.forecast(batch.past(4), batch.plan(4))
    assert torch.equal(free.ego, planned.ego)
    assert not torch.equal(free.logits, planned.logits)


def test_untrained_it_is_the_resampled_memory() -> None:
    config = small()
    model, batch = model_of(config).eval(), batch_of(config)
    forecast = model.forecast(batch.past(4), batch.plan(4))
    past = model.voxels(batch.bits, batch.symmetry)[:, :4]
    ego, future = ego_frames(batch.poses[:, :4], batch.ground_z[:, :4]), batch.plan(4).ego
    for h in range(config.future_frames):
        memory = resampled_memory(past, ego, future[:, h], model.grid)
        seen, mean = (x.permute(0, 2, 3, 1) for x in (memory.seen(), memory.mean()))
        expected = torch.where(seen, mean >= 0.5, model.column_logit >= 0)
        tie = seen & ((mean - 0.5).abs() < 2e-3)
        assert tie.float().mean() < 0.1
        assert torch.equal((forecast.logits[:, h] >= 0) & ~tie, expected & ~tie)


@pytest.mark.parametrize("more", [(), ("model.use_tokens=False",), ("model.use_memory=False",),
                                  ("model.pose_dof=6",)])  # fmt: skip
def test_every_variant_learns(more: tuple[str, ...]) -> None:
    config = small(*more)
    model, batch = model_of(config), batch_of(config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(12):
        report = model.loss(batch)
        optimizer.zero_grad()
        report.total.backward()
        optimizer.step()
        losses.append(float(report.total.detach()))
    assert losses[-1] < losses[0]
    assert {"focal", "dice", "mean", "pose"} <= set(report.parts)
    assert all(p.grad is None for p in model.vae.parameters())


def test_microbatches_add_up() -> None:
    config = small()
    model, batch = model_of(config), batch_of(config, size=4)
    whole = model.loss(batch).total
    parts = []
    for i in range(4):
        fields = dataclasses.fields(batch)
        part = Batch(**{f.name: getattr(batch, f.name)[i : i + 1] for f in fields})
        parts.append(model.loss(part).total)
    torch.testing.assert_close(whole, torch.stack(parts).mean(), rtol=2e-4, atol=1e-4)


def test_a_step_learns_from_a_few_future_frames_and_in_time_from_all() -> None:
    config = small("data.horizons=2")
    model, batch = model_of(config), batch_of(config)
    found = set()
    for draw in range(12):
        model.draw = draw
        horizons = model._horizons(batch)
        assert horizons.shape == (3, 2)
        assert ((horizons[:, 0] - horizons[:, 1]).abs() == 3).all()
        found |= set(horizons.flatten().tolist())
    assert found == set(range(6))
    draws = [float(model.loss(batch).total) for model.draw in (0, 1, 0)]
    assert draws[0] == draws[2] != draws[1]
    model.eval()
    assert model._horizons(batch).tolist() == [list(range(6))] * 3
    assert len({float(model.loss(batch).total) for model.draw in (0, 1)}) == 1


def test_an_unsure_motion_makes_an_unsure_forecast() -> None:
    config = small("model.use_tokens=False")
    model, batch = model_of(config).eval(), batch_of(config)
    sureness = []
    for log_sigma in (-6.0, 2.0):
        with torch.no_grad():
            model.pose.out.bias.view(6, 2, 4)[:, 1] = log_sigma
        sureness.append(float(model.forecast(batch.past(4)).logits.abs().mean()))
    assert sureness[1] < 0.9 * sureness[0]


def test_checkpointed_activations_change_no_gradient() -> None:
    grads = []
    for flag in (False, True):
        config = small(f"model.checkpoint_activations={flag}")
        model = model_of(config)
        model.loss(batch_of(config)).total.backward()
        grads.append(model.memory_net.conv_in.weight.grad.clone())
    torch.testing.assert_close(grads[0], grads[1])


def test_the_loss_of_a_forecast_that_is_known_already_is_the_same() -> None:
    config = small()
    model, batch = model_of(config).eval(), batch_of(config, size=4)
    with torch.no_grad():
        torch.nn.init.normal_(model.memory_net.conv_out.weight, std=0.1)
        plain = model.loss(batch)
        free, given = (model.forecast(batch.past(4), plan).logits for plan in (None, batch.plan(4)))
        along = planned_half(batch)
        assert 0 < along.sum() < 4
        known = torch.where(along[:, None, None, None, None], given, free)
        again = model.loss(batch, forecast=known)
        other = model.loss(batch, forecast=free)
    torch.testing.assert_close(again.total, plain.total)
    assert again.parts.keys() == plain.parts.keys()
    assert not torch.allclose(other.total, plain.total)


def test_half_of_the_windows_are_planned() -> None:
    config = small()
    batch = batch_of(config, size=2)
    many = dataclasses.replace(
        batch, index=torch.arange(4000), symmetry=torch.zeros(4000, dtype=torch.int64)
    )
    mirrored = dataclasses.replace(many, symmetry=torch.full((4000,), 4))
    share = planned_half(many).float().mean()
    assert 0.45 < float(share) < 0.55
    assert (planned_half(many) != planned_half(mirrored)).any()


def test_the_transformer_is_causal() -> None:
    torch.manual_seed(0)
    transformer = TokenTransformer((16, 24, 32), 20, (13, 13), 10, heads=4, layers=2).eval()
    tokens, pose = torch.randn(1, 6, 16, 13, 13), torch.randn(1, 6, 16)
    logits, features = transformer(tokens, pose)
    assert logits.shape == (1, 6, 20, 13, 13) and features.shape == (1, 6, 16)
    tokens[:, 4:], pose[:, 4:] = 9.0, 9.0
    other, moved = transformer(tokens, pose)
    torch.testing.assert_close(logits[:, :4], other[:, :4])
    torch.testing.assert_close(features[:, :4], moved[:, :4])
    assert not torch.allclose(logits[:, 4:], other[:, 4:])


_SHORT = ("history_frames=2", "future_frames=2")


@pytest.mark.parametrize(
    "window", [_SHORT, pytest.param((), marks=pytest.mark.endurance)], ids=["short", "whole"]
)
def test_full_size_is_built_and_stepped(window: tuple[str, ...]) -> None:
    """The guide's grid. Frames share every weight, so a window of four meets all that one of ten
    meets, in a third of the time."""
    config = load_config("finetune_tokyo", ["model.checkpoint_activations=True",
                                            "model.layers_per_level=1", *window])  # fmt: skip
    grid = grid_of(config)
    assert grid.shape == (200, 200, 121)
    model = WorldModel(config, grid)
    assert model.vae.latent_shape == (128, 50, 50)
    batch = batch_of(config, size=1)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, 1e-4)
    before = parameters[-1].detach().clone()
    report = model.loss(batch)
    report.total.backward()
    optimizer.step()
    assert torch.isfinite(report.total) and not torch.equal(before, parameters[-1].detach())


def test_gradients_sent_back_summand_by_summand_are_those_of_the_whole() -> None:
    config = small()
    batch, grads, totals = batch_of(config), [], []

    def take(summand: torch.Tensor) -> torch.Tensor:
        summand.backward()
        return summand.detach()

    for way in (take, None):
        model = model_of(config)
        report = model.loss(batch) if way is None else model.loss(batch, take=way)
        if report.total.requires_grad:
            report.total.backward()
        totals.append(report.total.detach())
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert torch.equal(*totals) and grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], rtol=1e-4, atol=1e-6)


def test_frames_asked_for_one_by_one_are_those_of_the_whole_sequence() -> None:
    torch.manual_seed(0)
    transformer = TokenTransformer((16, 24, 32), 20, (13, 13), 10, heads=4, layers=2).eval()
    tokens, pose = torch.randn(2, 9, 16, 13, 13), torch.randn(2, 9, 16)
    whole, _ = transformer(tokens, pose)
    held: list[torch.Tensor] = []
    for count in range(4, 10):
        new = tokens[:, :4] if count == 4 else tokens[:, count - 1 : count]
        asked = transformer.next_logits(new, held)
        torch.testing.assert_close(asked, whole[:, count - 1], rtol=1e-4, atol=1e-5)

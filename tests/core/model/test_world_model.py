"""A forecast knows the past alone; untrained it is resampled memory; full size steps."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.small_world import batch_of, grid_of, model_of, small
from vlwm.core.config.load import load_config
from vlwm.core.model.memory.warp import resampled_memory
from vlwm.core.model.torch_frames import ego_of
from vlwm.core.model.transformer.token_transformer import TokenTransformer
from vlwm.core.model.world_loss import WorldLoss
from vlwm.core.model.world_model import WorldModel


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
    past = model.reader.voxels(batch.bits, batch.symmetry)[:, :4]
    ego, future = ego_of(batch.poses[:, :4], batch.ground_z[:, :4]), batch.plan(4).ego
    for h in range(config.future_frames):
        memory = resampled_memory(past, ego, future[:, h], model.grid)
        seen, mean = (x.permute(0, 2, 3, 1) for x in (memory.seen(), memory.mean()))
        expected = torch.where(seen, mean >= 0.5, model.column_logit >= 0)
        tie = seen & ((mean - 0.5).abs() < 2e-3)
        assert tie.float().mean() < 0.1
        assert torch.equal((forecast.logits[:, h] >= 0) & ~tie, expected & ~tie)


def test_a_forecast_takes_as_much_of_the_residual_as_it_trusts_each_track() -> None:
    config = small()
    model, batch = model_of(config).eval(), batch_of(config)
    torch.nn.init.normal_(model.refinement_net.conv_out.weight, std=0.1)
    whole = [model.forecast(batch.past(4), plan) for plan in (None, batch.plan(4))]
    assert not torch.equal(whole[0].logits, whole[0].memory_logits)
    model.residual_weight.copy_(torch.tensor([0.0, 0.5]))
    free, planned = (model.forecast(batch.past(4), plan) for plan in (None, batch.plan(4)))
    assert torch.equal(free.logits, whole[0].memory_logits)
    torch.testing.assert_close(planned.logits, (whole[1].logits + whole[1].memory_logits) / 2)
    model.train()
    assert float(WorldLoss(model)(batch).total) > 0
    model.refinement_net.conv_out.weight.grad = None
    WorldLoss(model)(batch).total.backward()  # training listens to all of it
    assert bool(model.refinement_net.conv_out.weight.grad.any())


def test_an_unsure_motion_makes_an_unsure_forecast() -> None:
    config = small("model.use_tokens=False")
    model, batch = model_of(config).eval(), batch_of(config)
    sureness = []
    for log_sigma in (-6.0, 2.0):
        with torch.no_grad():
            for member in model.motion_head.members:
                model.motion_head.split_output(member.out.bias)[0][..., 3:6] = log_sigma
        sureness.append(float(model.forecast(batch.past(4)).logits.abs().mean()))
    assert sureness[1] < 0.9 * sureness[0]


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
    report = WorldLoss(model)(batch)
    report.total.backward()
    optimizer.step()
    assert torch.isfinite(report.total) and not torch.equal(before, parameters[-1].detach())


def test_frames_asked_for_one_by_one_are_those_of_the_whole_sequence() -> None:
    torch.manual_seed(0)
    transformer = TokenTransformer((16, 24, 32), 20, (13, 13), 10, heads=4, layers=2).eval()
    tokens, pose = torch.randn(2, 9, 16, 13, 13), torch.randn(2, 9, 16)
    whole, _ = transformer(tokens, pose)
    kv_cache: list[torch.Tensor] = []
    for count in range(4, 10):
        new = tokens[:, :4] if count == 4 else tokens[:, count - 1 : count]
        asked = transformer.next_logits(new, kv_cache)
        torch.testing.assert_close(asked, whole[:, count - 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("together", [2, 3, 6])
def test_how_many_future_frames_are_made_together_changes_nothing(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small()
    model, batch = model_of(config).eval(), batch_of(config)
    wanted = [model.forecast(batch.past(4), plan) for plan in (None, batch.plan(4))]
    monkeypatch.setattr(
        "vlwm.core.model.world_model.frames_at_once", lambda windows, device: together
    )
    found = [model.forecast(batch.past(4), plan) for plan in (None, batch.plan(4))]
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(one.logits, other.logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(one.memory_logits, other.memory_logits, rtol=1e-4, atol=1e-4)


class Waits(TorchDispatchMode):
    """Counts operations for which a GPU is waited for: numbers that go to the host or come from
    it, such as a Python list that serves as an index."""

    NAMES = ("_local_scalar_dense", "nonzero", "lift_fresh")

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.update(name for name in self.NAMES if name in str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dof", [3, 6])
def test_a_gpu_is_waited_for_three_times_a_forecast_and_never_once_it_reads(
    dof: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How far the network is trusted, whose motion is a guess, which columns nobody saw; then the
    host goes ahead, and what it starts waits in line behind the longest kernels."""
    # walls as planes are fitted on the host, which therefore waits: presets for GPUs go without
    planes = "model.fusion_planes=False"
    config = small("model.use_tokens=False", f"model.pose_dof={dof}", planes)
    model, batch = model_of(config).eval(), batch_of(config)
    model.residual_weight.zero_()
    voxels = model.reader.voxels(batch.bits, batch.symmetry)[:, :4]
    monkeypatch.setattr(model.reader, "voxels", lambda bits, symmetry: voxels)  # on a CPU NumPy's
    monkeypatch.setattr("vlwm.core.model.world_model.frames_at_once", lambda *which: 6)
    past = batch.past(4)
    model.forecast(past)  # what is made once for all
    before: list[Counter[str]] = []
    read = model.memory.fusion.read

    def told(*given: Any) -> Any:
        before.append(waits.found.copy())
        return read(*given)

    monkeypatch.setattr(model.memory.fusion, "read", told)
    with torch.no_grad(), Waits() as waits:
        model.forecast(past)
    assert before == [waits.found] == [{"_local_scalar_dense": 1, "nonzero": 2}]

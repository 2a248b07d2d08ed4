"""The loss is the same however it is taken: in parts, at once, of a forecast known already."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.small_world import OVERRIDES, batch_of, grid_of, model_of, small
from vlwm.core.config.load import load_config
from vlwm.core.config.schema import Config
from vlwm.core.data.batch import Batch
from vlwm.core.errors import ConfigError
from vlwm.core.model.bit_packing import pack_bits, unpack_bits
from vlwm.core.model.loss_report import LossReport
from vlwm.core.model.losses import token_loss, token_weight
from vlwm.core.model.world_loss import WorldLoss, planned_half
from vlwm.core.model.world_model import WorldModel
from vlwm.core.training.tasks.prior_pretraining import count_unseen


def learnt(*more: str) -> tuple[WorldModel, list[LossReport]]:
    """A model after twelve steps on one batch, and what each step reported."""
    config = small(*more)
    model, batch = model_of(config), batch_of(config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 3e-3)
    reports = []
    for _ in range(12):
        reports.append(WorldLoss(model)(batch))
        optimizer.zero_grad()
        reports[-1].total.backward()
        optimizer.step()
    return model, reports


MEMORY_ALONE = ("model.use_tokens=False", "model.memory_channels=0")


@pytest.mark.parametrize("more", [(), ("model.use_tokens=False",), ("model.use_memory=False",),
                                  ("model.pose_dof=6",), MEMORY_ALONE])  # fmt: skip
def test_every_variant_learns(more: tuple[str, ...]) -> None:
    model, reports = learnt(*more)
    assert float(reports[-1].total.detach()) < float(reports[0].total.detach())
    names = {f"loss/{name}" for name in ("focal", "dice", "mean", "pose")}
    assert names | {"pred/min", "train/loss"} <= set(reports[-1].numbers())
    assert all(p.grad is None for p in model.vae.parameters())


def test_without_a_refinement_net_the_fused_past_is_the_forecast_and_learns() -> None:
    model, reports = learnt(*MEMORY_ALONE)
    assert model.refinement_net is None
    fusion = [float(report.numbers()["loss/fusion"]) for report in reports]
    assert fusion[-1] < fusion[0]
    numbers = reports[-1].numbers()
    assert 0 < numbers["pred/mean"] < 1 and numbers["pred/min"] < numbers["pred/max"]
    batch = batch_of(model.config, 2)
    forecast = model.eval().forecast(batch.past(model.history))
    torch.testing.assert_close(forecast.logits, forecast.memory_logits)


@pytest.mark.parametrize("more", [("model.use_tokens=True",), ("model.use_memory=False",),
                                  ("tokenizer.num_classes=5",)])  # fmt: skip
def test_what_reads_a_refinement_net_is_not_left_without_one(more: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"model\.(memory_channels|use_tokens)"):
        load_config("test_local", [*OVERRIDES, *MEMORY_ALONE, *more])


@pytest.mark.parametrize("memory", [True, False])
def test_a_tokenizer_that_is_not_frozen_learns_along(memory: bool) -> None:
    model, reports = learnt("model.freeze_vae=False", f"model.use_memory={memory}")
    trips = [float(report.numbers()["loss/round_trip"]) for report in reports]
    assert trips[-1] < 0.9 * trips[0]
    parts = (model.vae.encoder.conv_in, model.vae.decoder.conv_out)
    assert all(part.weight.grad.abs().sum() > 0 for part in parts)


def test_only_where_tokens_alone_forecast_does_the_forecast_train_the_decoder() -> None:
    config = small("model.freeze_vae=False", "model.use_memory=False")
    model, batch = model_of(config), batch_of(config)
    horizons = torch.arange(6).expand(3, -1)
    out = model(model.scene(batch.past(4)), batch.plan(4), planned_half(batch), horizons)
    next(out.inputs).memory.logits.sum().backward()
    assert model.vae.decoder.conv_out.weight.grad.abs().sum() > 0
    assert model.vae.encoder.conv_in.weight.grad is None


def test_microbatches_add_up() -> None:
    config = small()
    model, batch = model_of(config), batch_of(config, size=4)
    whole = WorldLoss(model)(batch).total
    parts = []
    for i in range(4):
        named = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
        part = Batch(**{k: v if v is None else v[i : i + 1] for k, v in named.items()})
        parts.append(WorldLoss(model)(part).total)
    torch.testing.assert_close(whole, torch.stack(parts).mean(), rtol=2e-4, atol=1e-4)


def test_a_step_learns_from_a_few_future_frames_and_in_time_from_all() -> None:
    config = small("data.horizons=2")
    model, batch = model_of(config), batch_of(config)
    loss = WorldLoss(model)
    found = set()
    for step in range(12):
        horizons = loss._horizons(loss._sample_seed(batch, step))
        assert horizons.shape == (3, 2)
        assert ((horizons[:, 0] - horizons[:, 1]).abs() == 3).all()
        found |= set(horizons.flatten().tolist())
    assert found == set(range(6))
    draws = [float(loss(batch, step).total) for step in (0, 1, 0)]
    assert draws[0] == draws[2] != draws[1]
    model.eval()
    assert loss._horizons(loss._sample_seed(batch, 3)).tolist() == [list(range(6))] * 3
    assert len({float(loss(batch, step).total) for step in (0, 1)}) == 1


def test_checkpointed_activations_change_no_gradient() -> None:
    grads = []
    for flag in (False, True):
        config = small(f"model.checkpoint_activations={flag}")
        model = model_of(config)
        WorldLoss(model)(batch_of(config)).total.backward()
        grads.append(model.refinement_net.conv_in.weight.grad.clone())
    torch.testing.assert_close(grads[0], grads[1])


def test_the_loss_of_a_forecast_that_is_known_already_is_the_same() -> None:
    config = small()
    model, batch = model_of(config).eval(), batch_of(config, size=4)
    with torch.no_grad():
        torch.nn.init.normal_(model.refinement_net.conv_out.weight, std=0.1)
        plain = WorldLoss(model)(batch)
        free, given = (model.forecast(batch.past(4), plan).logits for plan in (None, batch.plan(4)))
        along = planned_half(batch)
        assert 0 < along.sum() < 4
        known = torch.where(along[:, None, None, None, None], given, free)
        again = WorldLoss(model)(batch, forecast=known)
        other = WorldLoss(model)(batch, forecast=free)
    torch.testing.assert_close(again.total, plain.total)
    assert again.numbers().keys() == plain.numbers().keys()
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


def test_gradients_sent_back_term_by_term_are_those_of_the_whole() -> None:
    config = small("model.freeze_vae=False")
    batch, grads, totals = batch_of(config), [], []
    for by_terms in (True, False):
        model = model_of(config)
        if by_terms:
            report = LossReport()
            for term in WorldLoss(model).terms(batch):
                term.contribution().backward()  # each before the next one is made
                report.add(term, term.contribution().detach())
        else:
            report = WorldLoss(model)(batch)
            report.total.backward()
        totals.append(report.total.detach())
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert torch.equal(*totals) and grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], rtol=1e-4, atol=1e-6)


def test_a_forecast_that_is_known_needs_no_roll_out(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small()
    model, batch = model_of(config).eval(), batch_of(config)
    logits = model.forecast(batch.past(4)).logits

    def refused(*arguments: object) -> None:
        raise AssertionError("the tokens are rolled out")

    monkeypatch.setattr(model, "roll_out", refused)
    with torch.no_grad():
        assert bool(torch.isfinite(WorldLoss(model)(batch, forecast=logits).total))


def test_the_truth_of_unknown_cells_changes_no_term() -> None:
    config = small("model.use_tokens=False", "model.freeze_vae=True")
    model, batch = model_of(config), batch_of(config)
    history = config.history_frames
    generator = torch.Generator().manual_seed(1)
    known = torch.randint(0, 256, batch.bits.shape, dtype=torch.uint8, generator=generator)
    noise = torch.randint(0, 256, batch.bits.shape, dtype=torch.uint8, generator=generator)
    noise[:, :history] = 0  # the past is the model's input
    poisoned = batch.bits ^ (noise & ~known)
    losses = [
        WorldLoss(model)(dataclasses.replace(batch, bits=bits, known=known))
        for bits in (batch.bits, poisoned)
    ]
    assert torch.equal(losses[0].total, losses[1].total)
    plain = WorldLoss(model)(dataclasses.replace(batch, bits=poisoned))
    assert not torch.equal(plain.total, losses[0].total)


def masked(config: Config, share: float = 0.4) -> Batch:
    """Windows of which a part of the cells is known; unknown cells are empty, as in a store."""
    batch = batch_of(config)
    rng = torch.Generator().manual_seed(5)
    voxels = unpack_bits(batch.bits, grid_of(config).shape)
    known = (torch.rand(voxels.shape, generator=rng) < share).to(torch.uint8)
    return dataclasses.replace(batch, bits=pack_bits(voxels & known), known=pack_bits(known))


@pytest.mark.parametrize("more", [("model.use_tokens=False",), ("model.freeze_vae=False",)])
def test_what_unknown_cells_hold_changes_no_term(more: tuple[str, ...]) -> None:
    """Filled with anything, unknown cells of the future give the same loss, but for the tokens'."""
    config = small(*more)
    model, batch = model_of(config).eval(), masked(config)
    assert batch.known is not None
    history, shape = config.history_frames, grid_of(config).shape
    voxels, known = unpack_bits(batch.bits, shape), unpack_bits(batch.known, shape)
    voxels[:, history:] |= 1 - known[:, history:]
    filled = dataclasses.replace(batch, bits=pack_bits(voxels))
    one, other = (
        {t.name: t.value.detach() for t in WorldLoss(model).terms(b)} for b in (batch, filled)
    )
    same = {"pose", "occupancy", "fusion"}
    assert same <= set(one)
    for name in same:
        torch.testing.assert_close(one[name], other[name])
    plain = dataclasses.replace(filled, known=None)
    bare = {t.name: t.value.detach() for t in WorldLoss(model).terms(plain)}
    assert abs(float(bare["occupancy"] - one["occupancy"])) > 1e-3  # the mask matters at all


def test_unknown_cells_of_the_past_are_not_taken_for_free_space() -> None:
    """Where nothing of the past is known, the forecast is the column prior, not empty space."""
    config = small("model.use_tokens=False")
    model, batch = model_of(config).eval(), batch_of(config, size=1)
    history, shape = config.history_frames, grid_of(config).shape
    known = torch.ones(1, config.window_frames, *shape, dtype=torch.uint8)
    known[:, :history, : shape[0] // 2] = 0  # the half behind the vehicle
    voxels = unpack_bits(batch.bits, shape) & known
    still = dataclasses.replace(
        batch, bits=pack_bits(voxels), known=pack_bits(known),
        poses=batch.poses[:, history - 1 : history].expand_as(batch.poses).contiguous(),
    )  # fmt: skip
    forecast = model.forecast(still.past(history), still.plan(history)).memory_logits[0, 0]
    prior = model.column_logit.expand(shape[0] // 2 - 1, shape[1], -1)
    torch.testing.assert_close(forecast[: shape[0] // 2 - 1], prior)
    full = dataclasses.replace(still, known=None)
    naive = model.forecast(full.past(history), full.plan(history)).memory_logits[0, 0]
    assert float(naive[: shape[0] // 2 - 1].max()) < float(prior.max()) - 2.0


def test_a_token_counts_as_its_cells_are_known() -> None:
    logits = torch.randn(2, 3, 7, 4, 5, requires_grad=True)
    codes = torch.randint(0, 7, (2, 3, 4, 5))
    known = torch.zeros(2, 3, 8, 10, 6, dtype=torch.uint8)
    known[:, :, :4] = 1
    weight = token_weight(known, (4, 5))
    assert weight.unique().tolist() == [0.0, 1.0] and (weight[:, :, :2] == 1).all()
    loss = token_loss(logits, codes, weight)
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad[..., 2:, :].any() and logits.grad[..., :2, :].any()
    half = token_loss(logits[..., :2, :], codes[..., :2, :])
    torch.testing.assert_close(loss, half)
    assert float(token_loss(logits, codes, torch.zeros_like(weight))) == 0.0


def test_counts_beyond_the_edge_leave_unknown_cells_out() -> None:
    config = small("model.use_tokens=False")
    model, batch = model_of(config), masked(config)
    assert batch.known is not None
    count_unseen(model, batch)
    counted = model.memory.extrapolation.counts.clone()
    model.memory.extrapolation.counts.zero_()
    count_unseen(model, dataclasses.replace(batch, known=None))
    whole = model.memory.extrapolation.counts
    assert 0 < counted[0].sum() < 0.6 * whole[0].sum()
    assert counted[1].sum() == whole[1].sum()  # occupied cells are all known here


def test_an_observed_past_learns_where_the_truth_is_known() -> None:
    config = small("data.observed=True", "data.cache_tokens=False", "model.use_tokens=False")
    model, batch = model_of(config).train(), masked(config)
    assert batch.known is not None
    history, shape = config.history_frames, grid_of(config).shape
    voxels, known = unpack_bits(batch.bits, shape), unpack_bits(batch.known, shape)
    seen = {"seen_occupied": pack_bits(voxels[:, :history]),
            "seen_free": pack_bits(1 - voxels[:, :history])}  # fmt: skip
    voxels[:, history:] |= 1 - known[:, history:]
    filled = dataclasses.replace(batch, bits=pack_bits(voxels), **seen)
    one = WorldLoss(model).fusion_term(dataclasses.replace(batch, **seen), 3)
    other = WorldLoss(model).fusion_term(filled, 3)
    torch.testing.assert_close(one.value, other.value)

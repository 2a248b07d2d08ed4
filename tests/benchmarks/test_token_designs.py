"""Token designs: untrained they add nothing, every parameter learns, hidden cells are filled."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.core.model.memory.test_completion_net import GRID, PRIOR, houses
from tests.core.model.memory.test_observed_fusion import observed, observed_batch
from tests.small_world import grid_of
from vlwm.core.model.memory.observed_fusion import MARGIN, ObservedBranch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from learners import learner_of
from token_designs import DESIGNS, FusedFrame, TokenDesign
from token_designs.masked_tokens import EvidenceMix, MaskedTokens

STAGES = (0.0, 0.9)  # of the training: the tokenizer's, where there is one, and the last
CONFIG = observed("model.completion_channels=16")
CONTINUOUS = ("continuous_latents", "completion_tokens")


def design_of(name: str) -> TokenDesign:
    torch.manual_seed(0)
    small = replace(CONFIG, tokenizer=replace(CONFIG.tokenizer, codebook_size=16))
    return DESIGNS[name](small, GRID)


def some_frame(count: int = 2, seed: int = 0) -> FusedFrame:
    """Houses of which the near side was seen, fused by the count of evidence."""
    occupied, free, truth = houses(count, seed)
    branch = ObservedBranch(1, 0, GRID)
    ego = torch.zeros(count, 4)
    logits, evidence = branch.fused(occupied, free, ego[:, None], ego, PRIOR)
    return FusedFrame(logits, evidence, truth, None)


def train(design: TokenDesign, steps: int, rate: float = 3e-3) -> list[float]:
    """Return the losses of steps that go through all of the design's stages."""
    optimizer = torch.optim.Adam(design.parameters(), lr=rate)
    rng = np.random.default_rng(0)
    losses = []
    for step in range(steps):
        loss = design.loss(some_frame(4, step), step / steps, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("name", CONTINUOUS)
def test_untrained_the_map_stays_as_it_was(name: str) -> None:
    frame = some_frame()
    assert not design_of(name)(frame.logits, frame.evidence).any()


@pytest.mark.parametrize("name", DESIGNS)
def test_a_residual_has_the_shape_of_the_map_and_every_parameter_a_gradient(name: str) -> None:
    design, frame = design_of(name), some_frame()
    assert design(frame.logits, frame.evidence).shape == frame.logits.shape
    for progress in STAGES:
        design.loss(frame, progress, np.random.default_rng(0)).backward()
    trained = [p for p in design.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


@pytest.mark.parametrize(
    ("name", "steps"),
    [("masked_tokens", 150), ("continuous_latents", 120), ("completion_tokens", 60)],
)
def test_it_learns_what_stands_behind_a_wall(name: str, steps: int) -> None:
    design = design_of(name)
    losses = train(design, steps)
    first = int(steps * sum(design.stages[:-1]))  # step of the last stage
    assert losses[-1] < 0.5 * losses[first]
    frame = some_frame(4, 1000)
    with torch.no_grad():
        logits = frame.logits + design.eval()(frame.logits, frame.evidence)
    inside = slice(MARGIN, -MARGIN)
    found = logits[..., inside, inside].permute(0, 2, 3, 1) > 0
    hidden = frame.evidence[..., inside, inside].permute(0, 2, 3, 1) == 0
    both = (found & (frame.truth > 0))[hidden].sum()
    either = (found | (frame.truth > 0))[hidden].sum()
    assert both / either > 0.6  # counting alone answers the prior there: 0


@pytest.mark.parametrize("name", DESIGNS)
def test_a_learner_forecasts_along_the_plan_and_resumes(name: str) -> None:
    config = CONFIG
    batch, grid = observed_batch(config), grid_of(config)
    learner = learner_of(name, config, grid)
    learner.prepare(np.full(grid.shape[2], 0.1))
    for progress in STAGES:
        learner.progress = progress
        learner.loss(batch, 0, np.random.default_rng(0)).backward()
    learner.module.eval()
    found = learner.probabilities(batch)
    assert found.shape == (2, config.future_frames, *grid.shape)
    assert ((found >= 0) & (found <= 1)).all()
    file = io.BytesIO()
    torch.save(learner.module.state_dict(), file)
    file.seek(0)
    resumed = learner_of(name, config, grid)
    resumed.prepare(np.full(grid.shape[2], 0.1))
    resumed.module.load_state_dict(torch.load(file, weights_only=True))
    resumed.module.eval()
    torch.testing.assert_close(resumed.probabilities(batch), found, rtol=0, atol=0)


def test_a_learner_s_rate_rises_and_falls_in_each_stage() -> None:
    learner = learner_of("masked_tokens", CONFIG, grid_of(CONFIG))
    rates = []
    for progress in (0.0, 0.03, 0.33, 0.34, 0.4, 1.0):
        learner.progress = progress
        rates.append(learner.rate())
    assert rates[0] == 0 and rates[1] > 0.9 and rates[2] < 0.01
    assert rates[3] < rates[4] and rates[4] > 0.9 and rates[5] < 1e-6


def test_a_tokenizer_is_left_alone_once_its_codes_are_targets() -> None:
    design, frame = design_of("masked_tokens"), some_frame()
    rng = np.random.default_rng(0)
    design.loss(frame, 0.0, rng)
    design.loss(frame, 0.9, rng).backward()
    assert isinstance(design, MaskedTokens)
    assert all(p.grad is None for p in design.tokenizer.encoder.parameters())
    assert design.tokenizer.vqvae.embedding.weight.grad is None


def test_the_codes_of_a_codebook_do_not_collapse() -> None:
    design = design_of("masked_tokens")
    assert isinstance(design, MaskedTokens)
    design.stages = (0.999, 1.0)  # the tokenizer alone
    train(design, 40)
    assert design.codebook.health.numbers()["codebook/used"] >= 8


@pytest.mark.parametrize("name", DESIGNS)
def test_it_learns_in_bf16_too(name: str) -> None:
    """The ladder trains in bf16 where a processor multiplies tiles of it."""
    design, frame = design_of(name), some_frame()
    for progress in STAGES:
        with torch.autocast("cpu", torch.bfloat16):
            loss = design.loss(frame, progress, np.random.default_rng(0))
        loss.backward()
        assert loss.isfinite() and loss.dtype == torch.float32


def test_passes_keep_the_surest_codes_and_all_passes_answer_probabilities() -> None:
    design, frame = design_of("masked_tokens"), some_frame()
    assert isinstance(design, MaskedTokens)
    train(design, 20)
    once = design(frame.logits, frame.evidence)
    design.passes = 2
    twice = design(frame.logits, frame.evidence)
    assert once.shape == twice.shape and twice.isfinite().all()
    assert not torch.equal(once, twice)


def test_at_first_evidence_outweighs_tokens_where_there_is_some() -> None:
    fused, decoded = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    evidence = torch.zeros(2, 3, 4, 5)
    evidence[:, 1] = 1
    mixed = EvidenceMix(3)(fused, decoded, evidence)
    torch.testing.assert_close(mixed[:, 1], fused[:, 1])
    torch.testing.assert_close(mixed[:, [0, 2]], decoded[:, [0, 2]])


def test_the_codes_of_occworld_s_recipe_learn() -> None:
    """Fault: moving means were configured, and nothing in the ladder moved them."""
    learner = learner_of("tokens", CONFIG, grid_of(CONFIG))
    learner.prepare(np.full(grid_of(CONFIG).shape[2], 0.1))
    learner.loss(observed_batch(CONFIG), 0, np.random.default_rng(0)).backward()
    gradient = learner.model.vae.vqvae.embedding.weight.grad
    assert gradient is not None and gradient.any()

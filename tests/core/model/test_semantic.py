"""Classes of cells: what the tokenizer reads, the loss, the warp, and a model that learns them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.small_world import batch_of, grid_of, small
from vlwm.core.data.batch import MIRROR, Batch
from vlwm.core.errors import VlwmError
from vlwm.core.model.bit_packing import unpack_bits
from vlwm.core.model.memory.warp import ego_memory
from vlwm.core.model.semantic import (
    cells_with_class,
    class_loss,
    occupancy_logit,
    warped_classes,
)
from vlwm.core.model.tokenizer.vqvae import Tokenizer
from vlwm.core.model.world_loss import WorldLoss
from vlwm.core.model.world_model import WorldModel
from vlwm.core.vocabulary import OCC3D_CLASSES, UNLABELLED

FREE = len(OCC3D_CLASSES) - 1
CONFIG = small("tokenizer.num_classes=18")
GRID = grid_of(CONFIG)


def with_classes(batch: Batch, seed: int = 0) -> Batch:
    """Classes that depend on the height of a cell alone, so that they can be learned."""
    voxels = unpack_bits(batch.bits, GRID.shape)
    kinds = torch.arange(GRID.shape[2], dtype=torch.uint8) % FREE
    classes = torch.where(voxels > 0, kinds, FREE).to(torch.uint8)
    return replace(batch, classes=classes)


@pytest.fixture(scope="module")
def model() -> WorldModel:
    torch.manual_seed(0)
    made = WorldModel(CONFIG, GRID)
    made.set_prior(np.linspace(0.9, 0.01, GRID.shape[2]))
    return made


def test_cells_without_a_label_keep_whether_they_are_occupied() -> None:
    voxels = torch.tensor([0, 1, 1, 0], dtype=torch.uint8)
    classes = torch.tensor([UNLABELLED, UNLABELLED, 4, FREE], dtype=torch.uint8)
    assert cells_with_class(voxels, classes, FREE).tolist() == [FREE, 0, 4, FREE]


def test_the_occupancy_logit_is_that_of_all_classes_against_free_space() -> None:
    logits = torch.randn(50, 18, dtype=torch.float64)
    share = torch.softmax(logits, dim=-1)
    wanted = torch.logit(1 - share[:, -1])
    torch.testing.assert_close(occupancy_logit(logits), wanted)


def test_only_known_labelled_occupied_cells_count_in_the_class_loss() -> None:
    shape = (2, 3, 4, 5)
    logits = torch.randn(*shape, FREE, requires_grad=True)
    classes = torch.randint(0, FREE, shape, dtype=torch.uint8)
    classes[0, 0] = FREE
    classes[0, 1] = UNLABELLED
    known = torch.ones(shape, dtype=torch.uint8)
    known[0, 2, 0] = 0
    loss = class_loss(logits, classes, FREE, known)
    loss.backward()
    assert logits.grad is not None
    counted = (classes < FREE) & (known > 0)
    assert not logits.grad[~counted].any() and (logits.grad[counted].abs().sum(-1) > 0).all()
    frames = [
        torch.nn.functional.cross_entropy(logits[n][counted[n]], classes[n][counted[n]].long())
        for n in range(2)
    ]
    torch.testing.assert_close(loss, torch.stack(frames).mean())
    nothing = class_loss(logits, torch.full(shape, FREE, dtype=torch.uint8), FREE)
    assert float(nothing.detach()) == 0.0


def test_classes_are_warped_as_the_memory_baseline_warps_occupancy() -> None:
    batch = with_classes(batch_of(CONFIG, 2))
    history = CONFIG.history_frames
    voxels = unpack_bits(batch.bits, GRID.shape)[:, :history]
    assert batch.classes is not None
    from vlwm.core.model.torch_frames import ego_of

    past_ego = ego_of(batch.poses[:, :history], batch.ground_z[:, :history])
    target = batch.plan(history).ego[:, 2]
    moved = warped_classes(batch.classes[:, :history], past_ego, target, GRID, FREE)
    memory = ego_memory(voxels, past_ego, target[:, None], GRID)
    assert torch.equal((moved != FREE).sum(1), memory.occupied[:, 0].long())
    assert torch.equal(moved[:, -1] != FREE, memory.last[:, 0] > 0)


def test_a_tokenizer_of_classes_starts_at_the_rate_of_the_data() -> None:
    torch.manual_seed(1)
    tokenizer = Tokenizer(CONFIG.tokenizer, GRID.shape)
    rate = torch.linspace(0.3, 0.01, GRID.shape[2])
    tokenizer.init_output_rate(rate)
    cells = torch.full((1, *GRID.shape), FREE, dtype=torch.uint8)
    with torch.no_grad():
        logits = tokenizer.decode_occupancy(tokenizer.embed(tokenizer.tokenise(cells)))
    share = torch.sigmoid(logits).mean(dim=(0, 1, 2))
    assert ((share / rate).log().abs() < 1.0).all(), share


def test_the_class_head_learns_and_occupancy_is_as_without_classes(model: WorldModel) -> None:
    batch = with_classes(batch_of(CONFIG, 2))
    objective = WorldLoss(model)
    model.train()
    optimizer = torch.optim.Adam(model.class_head.parameters(), lr=0.05)
    losses = []
    for step in range(12):
        terms = list(objective.terms(batch, step))
        found = [t for t in terms if t.name == "class"]
        assert len(found) == len([t for t in terms if t.name == "occupancy"]) > 0
        loss = torch.stack([t.contribution() for t in found]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0], losses
    forecast = model.eval().forecast(batch.past(CONFIG.history_frames))
    assert forecast.classes is not None and forecast.classes.shape == forecast.logits.shape
    assert int(forecast.classes.max()) < FREE


def test_the_future_and_missing_classes_do_not_enter(model: WorldModel) -> None:
    history = CONFIG.history_frames
    batch = with_classes(batch_of(CONFIG, 1))
    assert batch.classes is not None
    poisoned = batch.classes.clone()
    poisoned[:, history:] = 3
    first = model.eval().forecast(batch.past(history))
    second = model.forecast(replace(batch, classes=poisoned).past(history))
    assert first.classes is not None and second.classes is not None
    assert torch.equal(first.classes, second.classes)
    with pytest.raises(VlwmError, match="this model forecasts classes, and the frames have none"):
        model.forecast(batch_of(CONFIG, 1).past(history))


def test_a_mirrored_window_has_mirrored_classes(model: WorldModel) -> None:
    batch = with_classes(batch_of(CONFIG, 1))
    code = torch.tensor([MIRROR])
    voxels = model.reader.voxels(batch.bits, code)
    classes = model.reader.classes(batch.classes, voxels, code)
    assert classes is not None and batch.classes is not None
    assert torch.equal(classes, batch.classes.flip(-2))
    assert torch.equal(classes != FREE, voxels > 0)

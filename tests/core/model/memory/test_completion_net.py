"""The completion of a fused map: untrained it changes nothing, trained it fills what is hidden."""

from __future__ import annotations

import pytest
import torch

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.branch import TargetFrames
from vlwm.core.model.memory.completion_net import CompletionNet, completion_loss
from vlwm.core.model.memory.observed_fusion import ObservedBranch

GRID = VoxelGrid((-8.0, -8.0, -2.0), (1.0, 1.0, 1.0), (16, 16, 6))
PRIOR = torch.full((6,), -3.0)


def read(branch: ObservedBranch, occupied: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """Logits (X, Y, Z) at the last past pose; no frame has moved."""
    past_ego = torch.zeros(1, occupied.shape[1], 4)
    zero = torch.zeros(1, dtype=torch.int64)
    target = TargetFrames(zero, zero, past_ego, torch.zeros(1, 4))
    return branch.read(occupied, free, target, PRIOR, None).logits[0].permute(1, 2, 0)


def houses(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Solid blocks 5 cells deep and 4 high of which a sensor saw the near side.

    Returns:
        seen occupied and seen free (count, 1, 16, 16, 6), truth (count, 16, 16, 6).
    """
    rng = torch.Generator().manual_seed(seed)
    occupied, free = (torch.zeros(count, 1, 16, 16, 6, dtype=torch.uint8) for _ in range(2))
    truth = torch.zeros(count, 16, 16, 6, dtype=torch.uint8)
    for k in range(count):
        near = int(torch.randint(3, 10, (), generator=rng))
        left = int(torch.randint(0, 10, (), generator=rng))
        truth[k, near : near + 5, left : left + 6, :4] = 1
        occupied[k, 0, near, left : left + 6, :4] = 1
        free[k, 0, :near] = 1
    return occupied, free, truth


def test_untrained_the_map_stays_as_it_was() -> None:
    torch.manual_seed(0)
    plain = ObservedBranch(1, 8, GRID)
    completing = ObservedBranch(1, 8, GRID, completion=16)
    completing.load_state_dict(plain.state_dict(), strict=False)
    occupied, free, _ = houses(1, 0)
    torch.testing.assert_close(
        read(completing, occupied, free), read(plain, occupied, free), atol=1e-6, rtol=0
    )


def test_a_forecast_is_as_precise_as_float32_allows() -> None:
    """Fault: torch sums a whole group of a channels-last map in one float32."""
    torch.manual_seed(0)
    net = CompletionNet(6, 16)
    torch.nn.init.normal_(net.out.weight)
    logits = torch.full((1, 6, 120, 120), -3.0)  # nothing is known of most of the map
    logits[..., 40:80, 40:80] = 3 * torch.randn(1, 6, 40, 40)
    evidence = (logits > 0).float()
    with torch.no_grad():
        found = net(logits, evidence)
        exact = net.double()._residual(torch.cat([torch.tanh(logits / 4), evidence], 1).double())
    assert (found - exact).abs().max() < 1e-4 * exact.std()  # 3e-3 with the fault


@pytest.mark.parametrize("blocks", [0, 1])
def test_it_learns_what_stands_behind_a_wall(blocks: int) -> None:
    torch.manual_seed(0)
    branch = ObservedBranch(1, 8, GRID, 16, blocks)
    assert branch.completion is not None
    optimizer = torch.optim.Adam(branch.completion.parameters(), lr=3e-3)
    ego, past_ego = torch.zeros(8, 4), torch.zeros(8, 1, 4)
    for step in range(60):
        occupied, free, truth = houses(8, step)
        logits, _ = branch.completed(occupied, free, past_ego, ego, PRIOR)
        loss = completion_loss(logits, truth.permute(0, 3, 1, 2), None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    occupied, free, truth = houses(1, 1000)
    hidden = (occupied + free)[0, 0] == 0
    found = read(branch, occupied, free) > 0
    both = (found & (truth[0] > 0))[hidden].sum()
    either = (found | (truth[0] > 0))[hidden].sum()
    assert both / either > 0.8  # counting alone answers the prior there: 0


def test_cells_of_unknown_truth_do_not_count() -> None:
    logits = torch.zeros(1, 2, 3, 3, requires_grad=True)
    truth = torch.ones(1, 2, 3, 3, dtype=torch.uint8)
    counted = torch.zeros(1, 2, 3, 3, dtype=torch.bool)
    counted[0, 0, 1, 1] = True
    completion_loss(logits, truth, counted).backward()
    assert logits.grad is not None
    assert (logits.grad != 0).sum() == 1


@pytest.mark.parametrize("blocks", [0, 1])
@pytest.mark.parametrize("size", [(16, 16), (29, 31)])
def test_any_size_of_map_is_read(size: tuple[int, int], blocks: int) -> None:
    net = CompletionNet(5, 16, blocks)
    planes = torch.randn(2, 5, *size)
    assert net(planes, planes.sigmoid()).shape == (2, 5, *size)

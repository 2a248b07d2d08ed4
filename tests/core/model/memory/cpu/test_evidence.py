"""The compiled columns equal the general path, wherever a frame lies and however it is turned."""

from __future__ import annotations

import pytest
import torch

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.branch import TargetFrames
from vlwm.core.model.memory.cpu.evidence import evidence_columns
from vlwm.core.model.memory.observed_fusion import MARGIN, ObservedBranch

GRID = VoxelGrid((-6.0, -5.0, -2.0), (0.5, 0.5, 1.0), (24, 20, 7))
EGO = torch.tensor(
    [[-3.2, 0.4, 0.3, 0.2], [1.7, -2.1, -1.4, -0.9], [0.0, 0.0, 0.0, 0.0], [40.0, 0.0, 9.0, 2.0]]
)


@pytest.fixture
def past() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    state = torch.randint(0, 4, (1, 3, *GRID.shape), generator=rng)
    return (state == 1).to(torch.uint8), (state == 2).to(torch.uint8)


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("threads", [1, 3])
def test_evidence_equals_resampled_frames(
    past: tuple[torch.Tensor, torch.Tensor], at: int, threads: int
) -> None:
    branch = ObservedBranch(3, 0, GRID)
    occupied, free = past
    past_ego = EGO[None, :3]
    seen = branch._read(occupied, free, past_ego, EGO[None, at])
    hit, miss = branch.fusion.odds.tolist()
    odds = hit * seen.occupied.sum(1) - miss * seen.free.sum(1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = evidence_columns(
            occupied[0], free[0], past_ego[0], EGO[at], GRID, MARGIN, (hit, miss)
        )
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found[:, :, 0].permute(2, 0, 1), odds[0].detach())
    torch.testing.assert_close(found[:, :, 1].permute(2, 0, 1), seen.evidence()[0])


def test_a_map_is_the_same_with_and_without_the_network_of_the_fusion(
    past: tuple[torch.Tensor, torch.Tensor],
) -> None:
    plain, general = ObservedBranch(3, 0, GRID), ObservedBranch(3, 8, GRID)
    prior = torch.linspace(-1.0, -4.0, GRID.shape[2])
    target = TargetFrames(
        torch.zeros(2, dtype=torch.int64), torch.arange(2), EGO[None, :3].expand(2, -1, -1), EGO[:2]
    )
    found = []
    for branch in (plain, general):
        found.append(branch.read(*past, target, prior, None))
    # untrained, the network's residual is 0; its output is weighted with the evidence
    known = found[0].reach > 0.999
    torch.testing.assert_close(found[0].logits[known], found[1].logits[known], atol=0.05, rtol=0.05)
    torch.testing.assert_close(found[0].reach, found[1].reach)

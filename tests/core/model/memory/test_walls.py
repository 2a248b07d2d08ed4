"""Walls are found where they are, and marked again in any frame."""

from __future__ import annotations

import numpy as np
import torch

from tests.core.walled_town import AHEAD, CITY, EGO, GRID, GROUND, HOUSES, WALLS, frames, seen
from vlwm.core.evaluation.baselines.planes import PlaneScene
from vlwm.core.evaluation.baselines.scenes import Background
from vlwm.core.evaluation.baselines.warps import PastFrames
from vlwm.core.model.memory.branch import MemoryBranch, TargetFrames, Walls
from vlwm.core.model.memory.fusion import READING_SCALE, TIE_BIAS, fusion_loss
from vlwm.core.model.memory.walls import (
    find_walls,
    fit_planes,
    plane_voxels,
    tall_columns,
    tall_maps,
)
from vlwm.core.model.memory.warp import resampled_memory


def test_straight_walls_are_found_to_centimetres() -> None:
    maps = tall_maps(frames(), EGO, GRID)
    walls = find_walls(tall_columns(frames(), maps), maps)
    assert 10 <= len(walls) <= 16
    corners = np.unique(CITY[2:, :, :2].reshape(-1, 2).round(6), axis=0)
    across = [np.sort(np.abs((corners - wall.centre) @ wall.normal))[:2] for wall in walls]
    assert np.median(across) < 0.04 and np.max(across) < 0.3
    ends = np.concatenate([wall.at(np.array([wall.start, wall.end])) for wall in walls])
    off = np.linalg.norm(corners[:, None] - ends, axis=-1).min(axis=1)
    assert np.median(off) < 0.08 and np.max(off) < 0.3


def test_the_walls_mark_cells_of_the_truth() -> None:
    there, walls = plane_voxels(fit_planes(frames(), EGO, GRID), AHEAD, GRID), seen(AHEAD, WALLS)
    assert (there & seen(AHEAD)).sum() > 0.95 * there.sum()
    near = np.s_[:40, 8:42]  # columns that the past frames reach
    assert (there & walls)[near].sum() > 0.8 * walls[near].sum()


def test_without_walls_there_is_nothing_to_mark() -> None:
    assert fit_planes(frames(GROUND), EGO, GRID).shape == (0, 3, 3)
    assert not plane_voxels(np.zeros((0, 3, 3)), AHEAD, GRID).any()


def branch(planes: bool) -> MemoryBranch:
    torch.manual_seed(0)
    made = MemoryBranch(4, 8, GRID, planes=planes)
    torch.nn.init.normal_(made.fusion.conv_out.weight)  # zero at first: nothing would be read
    return made


def test_each_target_frame_has_the_walls_of_its_own_window() -> None:
    memory, ego = branch(planes=True), torch.from_numpy(EGO)
    towns = torch.from_numpy(np.stack([frames(), frames(GROUND), frames(HOUSES[0])]))
    past_ego = ego.expand(3, -1, -1)
    walls = memory.fit_walls(towns, past_ego)
    assert walls is not None
    window = torch.tensor([2, 0, 1, 0])
    ahead = torch.from_numpy(np.stack([AHEAD, EGO[3], AHEAD, AHEAD]))
    target = TargetFrames(window, torch.zeros(4).long(), past_ego[window], ahead)
    prior = torch.full((GRID.shape[2],), -4.0)
    together = memory(towns, target, prior, None, None, walls).logits
    for row, number in enumerate(window.tolist()):
        own = towns[number : number + 1]
        one = TargetFrames(*(part[row : row + 1] for part in (window * 0, target.horizon,
                                                              target.past_ego, ahead)))  # fmt: skip
        alone = memory(own, one, prior, None, None, memory.fit_walls(own, ego[None])).logits
        torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-4)
    marked = memory.planes(walls, window, ahead).planes
    assert not torch.equal(marked[1], marked[3])


def test_untrained_the_fusion_is_the_reading_without_learning() -> None:
    memory, past = MemoryBranch(4, 8, GRID, planes=True), torch.from_numpy(frames())
    scene = PlaneScene(PastFrames(past, EGO), GRID, Background(torch.zeros(GRID.shape[2])))
    plain = scene.read(AHEAD)
    place = torch.from_numpy(AHEAD)[None]
    walls = memory.fit_walls(past[None], torch.from_numpy(EGO)[None])
    assert walls is not None
    frame = memory.planes(walls, torch.tensor([0]), place)
    logits = memory.fusion(resampled_memory(past[None], torch.from_numpy(EGO)[None], place, GRID),
                           planes=frame)  # fmt: skip
    seen_cells = frame.seen[0]
    torch.testing.assert_close(
        (logits[0] - TIE_BIAS)[seen_cells], READING_SCALE * (2 * plain - 1)[seen_cells]
    )


def test_layers_of_a_frame_are_those_of_the_whole() -> None:
    memory, past = branch(planes=True), torch.from_numpy(frames())[None]
    ego, place = torch.from_numpy(EGO)[None], torch.from_numpy(AHEAD)[None]
    walls = memory.fit_walls(past, ego)
    assert walls is not None
    frame = memory.planes(walls, torch.tensor([0]), place)
    wanted = torch.tensor([[1, 4, 6]])
    whole = memory.fusion(resampled_memory(past, ego, place, GRID), planes=frame)
    stacked = torch.cat([(wanted + offset).clamp(0, GRID.shape[2] - 1) for offset in (-1, 0, 1)], 1)
    below, here, above = resampled_memory(past, ego, place, GRID, stacked).split(3)
    some = memory.fusion(here, (below.mean(), above.mean()), frame.layers(wanted))
    torch.testing.assert_close(some, whole[:, wanted[0]], rtol=1e-4, atol=1e-4)


def test_a_branch_without_planes_fits_no_walls() -> None:
    assert (
        branch(planes=False).fit_walls(torch.from_numpy(frames())[None], torch.zeros(1, 4, 4))
        is None
    )


def test_the_fusion_learns_a_wall_better_with_its_plane() -> None:
    """A few steps on one town, read at places between those that it is trained on."""
    past, ego = torch.from_numpy(frames())[None], torch.from_numpy(EGO)[None]
    places = [AHEAD * share for share in np.linspace(0.1, 1.0, 6)]
    losses = []
    for planes in (False, True):
        torch.manual_seed(0)
        memory = MemoryBranch(4, 8, GRID, planes=planes)
        walls = memory.fit_walls(past, ego)
        optimizer = torch.optim.AdamW(memory.fusion.parameters(), lr=1e-2)
        for step in range(40):
            losses.append(_loss(memory, walls, past, ego, places[step % 5]))
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
        losses[-1] = _loss(memory, walls, past, ego, places[5])
    without, with_planes = losses[39], losses[79]
    assert with_planes < 0.8 * without


def _loss(
    memory: MemoryBranch, walls: Walls | None, past: torch.Tensor, ego: torch.Tensor, at: np.ndarray
) -> torch.Tensor:
    place = torch.from_numpy(at)[None]
    read = resampled_memory(past, ego, place, GRID)
    planes = None
    if walls is not None:
        planes = memory.planes(walls, torch.tensor([0]), place)
    truth = torch.from_numpy(seen(at))[None].permute(0, 3, 1, 2)
    return fusion_loss(memory.fusion(read, planes=planes), truth, read.seen())

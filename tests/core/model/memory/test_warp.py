"""The warp is the literal one: target centre, world, source frame, cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from tests.measures import center_of
from vlwm.core.geometry.frames import from_ego, to_ego
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.warp import ego_memory, resampled_memory, under_spread
from vlwm.core.model.motion.planar_mixture import normal_draws

GRID = VoxelGrid.from_range((-5, -4, -1, 5, 4, 4), (1.0, 1.0, 0.5))


def literal(past: np.ndarray, past_ego: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, ...]:
    """Cell by cell, frame by frame."""
    occupied, frames = np.zeros(GRID.shape, int), np.zeros(GRID.shape, int)
    last = np.zeros(GRID.shape, int)
    for index in np.ndindex(*GRID.shape):
        world = from_ego(center_of(GRID, np.array(index)), target)
        for p, ego in enumerate(past_ego):
            there = to_ego(world, ego)
            if GRID.contains(there):
                value = past[(p, *GRID.index_of(there))]
                occupied[index] += value
                frames[index] += 1
                last[index] = value if p == len(past_ego) - 1 else last[index]
    return occupied, frames, last


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_literal_warp(seed: int) -> None:
    rng = np.random.default_rng(seed)
    past = (rng.random((3, *GRID.shape)) < 0.3).astype(np.uint8)
    past_ego = np.column_stack(
        [rng.normal(size=(3, 2)) * 2, rng.normal(size=3), rng.normal(size=3)]
    )
    targets = np.column_stack([rng.normal(size=(2, 2)) * 2, rng.normal(size=2), rng.normal(size=2)])
    memory = ego_memory(
        torch.from_numpy(past)[None], torch.from_numpy(past_ego)[None],
        torch.from_numpy(targets)[None], GRID,
    )  # fmt: skip
    for h in range(2):
        occupied, frames, last = literal(past, past_ego, targets[h])
        np.testing.assert_array_equal(memory.occupied[0, h].numpy(), occupied)
        np.testing.assert_array_equal(memory.frames[0, h].numpy(), frames)
        np.testing.assert_array_equal(memory.last[0, h].numpy(), last)


def test_standing_still_returns_the_frame() -> None:
    past = torch.randint(0, 2, (2, 4, *GRID.shape), dtype=torch.uint8)
    past[:, 1:] = past[:, :1]
    ego = torch.randn(2, 1, 4).double().expand(2, 4, 4)
    memory = ego_memory(past, ego, ego[:, :2], GRID)
    assert (memory.frames == 4).all()
    torch.testing.assert_close(memory.share(), past[:, :1].expand(2, 2, *GRID.shape).float())


def test_far_away_nothing_is_seen() -> None:
    past = torch.ones(1, 4, *GRID.shape, dtype=torch.uint8)
    far = torch.tensor([[[100.0, 0, 0, 0]]])
    memory = ego_memory(past, torch.zeros(1, 4, 4), far, GRID)
    assert not memory.frames.any() and not memory.occupied.any() and not memory.share().any()


@pytest.mark.parametrize("seed", range(4))
def test_resampling_is_linear_between_centres(seed: int) -> None:
    """Against SciPy's interpolator on cell centres; beyond the outermost centres they hold."""
    rng = np.random.default_rng(seed)
    past = (rng.random((3, *GRID.shape)) < 0.3).astype(np.uint8)
    past_ego, target = rng.normal(size=(3, 4)), rng.normal(size=4)
    memory = resampled_memory(
        torch.from_numpy(past)[None], torch.from_numpy(past_ego)[None],
        torch.from_numpy(target)[None], GRID,
    )  # fmt: skip
    axes = GRID.axis_centers()
    low, high = (np.array([a[end] for a in axes]) for end in (0, -1))
    centres = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    world = np.stack([from_ego(c, target) for c in centres.reshape(-1, 3)])
    for p, ego in enumerate(past_ego):
        there = np.stack([to_ego(w, ego) for w in world])
        inside = np.array([GRID.contains(t) for t in there]).reshape(GRID.shape)
        read = RegularGridInterpolator(axes, past[p].astype(float))(np.clip(there, low, high))
        expected = np.where(inside, read.reshape(GRID.shape), 0.0)
        np.testing.assert_array_equal(memory.inside[0, p].permute(1, 2, 0).numpy() > 0, inside)
        found = memory.occupied[0, p].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_resampled_by_whole_cells_and_quarter_turns_it_is_the_nearest_cell() -> None:
    past = torch.randint(0, 2, (1, 3, 9, 9, 10), dtype=torch.uint8)
    square = VoxelGrid.from_range((-4.5, -4.5, -1, 4.5, 4.5, 4), (1.0, 1.0, 0.5))
    ego = torch.tensor([[[0, 0, 0, 0], [2, -1, 0.5, np.pi / 2], [-3, 1, -1, np.pi]]]).double()
    target = torch.tensor([[1, 2, 0.5, -np.pi / 2]]).double()
    nearest = ego_memory(past, ego, target[:, None], square)
    memory = resampled_memory(past, ego, target, square)
    share = nearest.share()[0, 0].permute(2, 0, 1)
    torch.testing.assert_close(memory.mean()[0], share, atol=1e-4, rtol=0)
    assert torch.equal(memory.seen()[0], nearest.frames[0, 0].permute(2, 0, 1) > 0)


def test_a_wall_seen_askew_is_torn_by_the_nearest_cell_and_kept_by_resampling() -> None:
    """A straight wall in four frames turned against each other, against its own rasterisation."""
    grid = VoxelGrid.from_range((-20, -20, 0, 20, 20, 2), (0.8, 0.8, 1.0))

    def wall(ego: np.ndarray) -> np.ndarray:
        """Cells of the plane x = 5 in the world, crossed within half a cell's reach."""
        along = np.linspace(-60, 60, 20001)
        points = np.column_stack([np.full_like(along, 5.0), along, np.full_like(along, 0.5)])
        seen = np.zeros(grid.shape, np.uint8)
        there = to_ego(points, ego)
        inside = np.array([grid.contains(p) for p in there])
        for index in {tuple(grid.index_of(p)) for p in there[inside]}:
            seen[index] = 1
        return seen

    egos = np.array(
        [[-2.3, 0.1, 0, 0.31], [-1.1, 0.4, 0, 0.22], [0.2, 0.6, 0, 0.1], [1.3, 0.7, 0, 0]]
    )
    target = np.array([2.4, 0.7, 0, -0.17])
    past = torch.from_numpy(np.stack([wall(e) for e in egos]))[None]
    truth = torch.from_numpy(wall(target)) > 0
    ego, to = torch.from_numpy(egos)[None], torch.from_numpy(target)[None]
    nearest = ego_memory(past, ego, to[:, None], grid)
    voted = (2 * nearest.occupied[0, 0] >= nearest.frames[0, 0]) & (nearest.frames[0, 0] > 0)
    mean = resampled_memory(past, ego, to, grid).mean()[0].permute(1, 2, 0) >= 0.5

    def iou(a: torch.Tensor) -> float:
        return float((a & truth).sum() / (a | truth).sum())

    assert iou(mean) > iou(voted) + 0.02


def test_wanted_layers_are_those_of_the_whole() -> None:
    past = torch.randint(0, 2, (2, 3, *GRID.shape), dtype=torch.uint8)
    ego, target = torch.randn(2, 3, 4), torch.randn(2, 4)
    whole = resampled_memory(past, ego, target, GRID)
    wanted = torch.tensor([[7, 0, 3], [9, 9, 1]])
    some = resampled_memory(past, ego, target, GRID, wanted)
    for b in range(2):
        torch.testing.assert_close(some.occupied[b], whole.occupied[b][:, wanted[b]])
        assert torch.equal(some.inside[b], whole.inside[b][:, wanted[b]])


FINE = VoxelGrid.from_range((-8, -8, 0, 8, 8, 2), (0.25, 0.25, 1.0))


def post(x: float, y: float) -> torch.Tensor:
    """Probability (1, Z, X, Y) that is 1 in the cells about one place."""
    ahead, left = (torch.as_tensor(c) for c in FINE.axis_centers()[:2])
    near = ((ahead[:, None] - x).abs() < 0.6) & ((left[None] - y).abs() < 0.6)
    return near.float().expand(1, 2, -1, -1).contiguous()


def moments(probability: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (m) of x and y."""
    weight = probability[0, 0].double().numpy()
    ahead, left = FINE.axis_centers()[:2]
    weight = weight / weight.sum()
    marginals = ((weight.sum(1), ahead), (weight.sum(0), left))
    mean = np.array([(w * c).sum() for w, c in marginals])
    spread = [np.sqrt((w * (c - m) ** 2).sum()) for (w, c), m in zip(marginals, mean, strict=True)]
    return mean, np.array(spread)


def moves(ahead: float, left: float, yaw: float) -> torch.Tensor:
    """Draws (1, N, 3) of a normal distribution with these standard deviations."""
    return normal_draws(128)[None] * torch.tensor([ahead, left, yaw])


@pytest.mark.parametrize("heading", [0.0, np.pi / 2, 2.0])
def test_a_spread_widens_along_its_own_axes(heading: float) -> None:
    """Known to 1.5 m ahead and 0.3 m aside in the common frame, whatever the vehicle's heading."""
    ego = torch.tensor([[3.0, -2.0, 0.0, heading]])
    spread = under_spread(post(1.0, -1.0), ego, moves(1.5, 0.3, 0.0), FINE)
    (mean, found), (_, before) = moments(spread), moments(post(1.0, -1.0))
    turn = np.array([[np.cos(heading), np.sin(heading)], [-np.sin(heading), np.cos(heading)]])
    added = np.diag(turn @ np.diag([1.5**2, 0.3**2]) @ turn.T)
    np.testing.assert_allclose(mean, [1.0, -1.0], atol=0.05)
    np.testing.assert_allclose(found**2, before**2 + added, rtol=0.3, atol=0.05)


def test_a_spread_of_heading_widens_what_is_far_and_not_what_is_near() -> None:
    ego, sigma = torch.zeros(1, 4), moves(0.0, 0.0, 0.15)
    far = under_spread(post(6.0, 0.0), ego, sigma, FINE)
    (_, found), (_, before) = moments(far), moments(post(6.0, 0.0))
    np.testing.assert_allclose(found[1] ** 2, before[1] ** 2 + (6.0 * 0.15) ** 2, rtol=0.3)
    near = under_spread(post(0.0, 0.0), ego, sigma, FINE)
    np.testing.assert_allclose(moments(near)[1], moments(post(0.0, 0.0))[1], atol=0.03)


def test_a_spread_is_the_mean_over_its_draws() -> None:
    """Against a literal reading of every draw, cell by cell."""
    rng = torch.Generator().manual_seed(3)
    probability = torch.rand(1, 2, *FINE.shape[:2], generator=rng)
    ego = torch.tensor([[4.0, 1.0, 0.0, 0.7]])
    draws = torch.randn(1, 5, 3, generator=rng) * torch.tensor([1.0, 0.5, 0.2])
    (ahead, left), turn = FINE.axis_centers()[:2], float(ego[0, 3])
    expected = np.zeros(probability.shape[1:])
    for dx, dy, yaw in draws[0].double().numpy():
        at = (np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx)
        for i, j in np.ndindex(FINE.shape[:2]):
            x = at[0] + np.cos(yaw) * ahead[i] - np.sin(yaw) * left[j]
            y = at[1] + np.sin(yaw) * ahead[i] + np.cos(yaw) * left[j]
            cell = [int(np.floor((v - low) / size)) for v, low, size in
                    zip((x, y), FINE.lower_m, FINE.cell_m, strict=False)]  # fmt: skip
            row, column = (min(max(c, 0), n - 1) for c, n in zip(cell, FINE.shape, strict=False))
            expected[:, i, j] += probability[0, :, row, column].numpy() / 5
    found = under_spread(probability, ego, draws, FINE)[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_no_spread_changes_nothing() -> None:
    probability = torch.rand(2, 2, *FINE.shape[:2])
    same = under_spread(probability, torch.randn(2, 4), torch.zeros(2, 5, 3), FINE)
    torch.testing.assert_close(same, probability, rtol=1e-4, atol=1e-4)
    even = torch.full_like(probability, 0.3)
    torch.testing.assert_close(
        under_spread(even, torch.randn(2, 4), torch.rand(2, 5, 3), FINE), even
    )

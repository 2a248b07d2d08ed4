"""Untrained, the pose module is constant twist; signs and wraps do not matter to it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.some_poses import random_poses
from vlwm.core.geometry.frames import constant_twist, ego_of, quaternion_from_rpy
from vlwm.core.model.motion.motion_head import MotionHead, MotionWindows
from vlwm.core.model.motion.vehicle_state import motion_error, planar_of, true_state


@pytest.mark.parametrize("dof", [3, 6])
def test_untrained_it_is_constant_twist(dof: int) -> None:
    past = random_poses(0)
    module = MotionHead(4, 6, 0.5, 16, dof)
    motion = module(past.float(), torch.zeros(3, 4))
    ego = ego_of(past.numpy(), np.zeros((3, 4)))
    known = constant_twist(ego[:, 2], ego[:, 3], 0.5, 0.5 * np.arange(1, 7))
    error = motion_error(motion.ego.detach().double(), torch.from_numpy(known))
    assert float(error.abs().max()) < 1e-4
    assert motion.poses.shape == (3, 6, 13)
    np.testing.assert_allclose(motion.poses[..., 3:7].norm(dim=-1).detach(), 1.0, atol=1e-5)


def test_it_learns_a_steady_braking() -> None:
    torch.manual_seed(0)
    module = MotionHead(4, 6, 0.5, 32, 3)
    before = braking_error(module)
    teach(module, 150, 3e-3, braking_loss)
    assert braking_error(module) < 0.4 * before


def test_without_windows_it_says_what_it_said() -> None:
    module = MotionHead(4, 2, 0.5, 16, 3)
    none = MotionWindows(torch.zeros(0, 6, 13), torch.zeros(0, 6))
    module.learn_scale(none, none)
    module.calibrate(none)
    assert bool((module.sigma_scale == 1).all()) and bool((module.spread_scale == 1).all())
    torch.testing.assert_close(module.scale.matrix, torch.eye(88))


@pytest.mark.parametrize("dof", [3, 6])
def test_its_sigma_holds_as_many_errors_as_it_should(dof: int) -> None:
    """Each component of each horizon, however long the tails of its errors are."""
    rng = np.random.default_rng(1)
    past = torch.zeros(4000, 6, 13)
    past[..., 6] = 1.0
    past[:, 4, :3] = torch.from_numpy(0.02 * rng.standard_t(3, (4000, 3))).float()
    past[:, 5, :3] = torch.from_numpy(3.0 * rng.normal(size=(4000, 3))).float()
    past[:, 4:, 7:] = torch.from_numpy(rng.laplace(size=(4000, 2, 6))).float()
    turn = torch.from_numpy(0.1 * rng.laplace(size=(4000, 2))).float()
    past[:, 4:, 5], past[:, 4:, 6] = torch.sin(turn / 2), torch.cos(turn / 2)
    past[::2, 4:, 3:7] *= -1  # the same attitude
    module = MotionHead(4, 2, 0.5, 16, dof)
    module.calibrate(MotionWindows(past, torch.zeros(4000, 6)))
    motion = module(past[:, :4], torch.zeros(4000, 4))
    error = motion_error(motion.state, true_state(past[:, 4:], module.size)).abs()
    within = (error <= motion.log_sigma.exp() * module.sigma_scale).float().mean(dim=0)
    moving = error.amax(dim=(0, 1)) > 0
    assert moving.sum() == (4 if dof == 3 else 10)  # roll and pitch stand still
    np.testing.assert_allclose(within[:, moving], 0.683, atol=0.01)


def test_a_crossing_is_two_ways_and_none_between() -> None:
    """Half of the vehicles go on, half turn off: the draws do, and the expected way is neither."""
    torch.manual_seed(0)
    module = MotionHead(4, 2, 0.5, 32, 3)
    teach(module, 500, 5e-3, crossing_loss)
    seen = crossing(1000, 400)
    module.calibrate(seen)
    motion = module(seen.poses[:3, :4], seen.ground_z[:3, :4])
    moves = module.moves(motion, torch.arange(3), torch.ones(3, dtype=torch.int64))
    assert moves.shape == (3, len(module.even), 3)
    draws = moves + planar_of(motion.state[:, 1])[:, None].detach()
    turned, straight = (draws[..., 1] - 3.0).abs() < 0.3, draws[..., 1].abs() < 0.3
    assert bool((turned | straight).all())
    assert 0.4 < float(turned.float().mean()) < 0.6
    assert float(draws[straight][:, 2].abs().max()) < 0.05
    assert float((draws[turned][:, 2] - 0.6).abs().max()) < 0.05
    assert 1.0 < float(motion.state[0, 1, 1].detach()) < 2.0


def test_who_is_too_sure_is_made_less_so() -> None:
    """A module that knew the windows by heart: of others its errors are larger than it says."""
    seen = crossing(0, 500)
    module = MotionHead(4, 2, 0.5, 16, 3)
    with torch.no_grad():
        for member in module.members:
            module.split_output(member.out.bias)[0][..., 3:6] = -2.0
    before = likelihood(module, seen)
    module.calibrate(seen)
    assert float(module.spread_scale.max()) > 1.2 and likelihood(module, seen) > before + 0.1
    sigma = module(seen.poses[:, :4], seen.ground_z[:, :4]).log_sigma.detach()  # told, not widened
    motion = module(seen.poses[:1, :4], seen.ground_z[:1, :4])
    wide = module.moves(motion, torch.tensor([0]), torch.tensor([1]))
    assert float(wide[0, :, 0].std() / sigma[0, 1, 0].exp()) == pytest.approx(
        float(module.spread_scale[1]), rel=0.15
    )


def test_each_member_learns_by_itself() -> None:
    """The loss is the mean of what each alone would have, whatever the others say."""
    seen = crossing(0, 20)
    spreads = (-1.0, 0.0)

    def loss(*said: float) -> float:
        module = MotionHead(4, 2, 0.5, 16, 3)
        with torch.no_grad():
            for member, spread in zip(module.members, said, strict=True):
                module.split_output(member.out.bias)[0][..., 3:6] = spread
        return float(module.loss_of_windows(seen).detach())

    alone = [loss(spread, spread) for spread in spreads]
    assert abs(alone[0] - alone[1]) > 0.1
    assert loss(*spreads) == pytest.approx(sum(alone) / 2, rel=1e-5)


def likelihood(module: MotionHead, seen: MotionWindows) -> float:
    motion = module(seen.poses[:, :4], seen.ground_z[:, :4])
    truth = planar_of(true_state(seen.poses[:, 4:], 4))
    return float(motion.planar.widened(module.spread_scale).log_likelihood(truth).mean().detach())


def test_with_its_scale_it_learns_what_is_in_small_differences() -> None:
    """How hard a vehicle brakes shows in centimetres; where it is, in metres, tells nothing."""
    errors = []
    for scaled in (False, True):
        torch.manual_seed(0)
        module = MotionHead(4, 6, 0.5, 32, 3)
        if scaled:
            some, _ = braking(torch.rand(500))
            many = MotionWindows(some, torch.zeros(len(some), 4))
            module.learn_scale(many, many)
        teach(module, 100, 3e-3, braking_loss)
        errors.append(braking_error(module))
    assert errors[1] < 0.1 * errors[0]


def teach(
    module: MotionHead, steps: int, rate: float, loss: Callable[[MotionHead, int], Tensor]
) -> None:
    """Some steps at a rate that ends at 0, as in training."""
    optimizer = torch.optim.AdamW(module.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        optimizer.zero_grad()
        loss(module, step).backward()
        optimizer.step()
        schedule.step()


def braking_loss(module: MotionHead, seed: int) -> Tensor:
    past, truth = braking(torch.rand(64, generator=torch.Generator().manual_seed(seed)))
    return module.loss(module(past, torch.zeros(64, 4)), truth)


def crossing_loss(module: MotionHead, seed: int) -> Tensor:
    return module.loss_of_windows(crossing(seed, 128))


def braking_error(module: MotionHead) -> float:
    """Mean error of x (m) three seconds ahead, of windows that no step saw."""
    past, truth = braking(torch.rand(200, generator=torch.Generator().manual_seed(10_000)))
    said = module(past, torch.zeros(200, 4)).state.detach()
    return float((said - truth)[:, -1, 0].abs().mean())


def crossing(seed: int, count: int) -> MotionWindows:
    """Windows straight on at 10 m/s; then half of them turn off to the left."""
    rng = np.random.default_rng(seed)
    times = 0.5 * np.arange(-3, 3)
    poses = np.zeros((count, 6, 13))
    poses[..., 0], poses[..., 6], poses[..., 7] = 10 * times, 1.0, 10.0
    turn = np.where(rng.random(count) < 0.5, 0.0, 1.0)[:, None] * [0.3, 0.6]
    poses[:, 4:, 1] = 5 * turn + 0.02 * rng.normal(size=(count, 2))
    poses[:, 4:, 3:7] = quaternion_from_rpy(0 * turn, 0 * turn, turn)
    return MotionWindows(torch.from_numpy(poses).float(), torch.zeros(count, 6))


def braking(strength: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows that brake by 0 to 2 m/s² from 10 m/s, in the anchor frame."""
    times = 0.5 * torch.arange(-3, 7)
    a = -2 * strength[:, None]
    x = 10 * times + 0.5 * a * times**2
    table = torch.zeros(len(strength), 10, 13)
    table[..., 0], table[..., 6], table[..., 7] = x, 1.0, 10 + a * times
    return table[:, :4], true_state(table[:, 4:], 4)

"""Untrained, the pose module is constant twist; signs and wraps do not matter to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlwm.core.geometry.frames import constant_twist, ego_of, quaternion_from_rpy
from vlwm.core.model.pose import (
    MoreMotion,
    PoseModule,
    motion_error,
    normal_draws,
    pose_features,
    true_state,
)


def poses(seed: int, count: int = 3) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(count, 4, 13))
    angles = rng.uniform([-0.4, -0.4, -3.1], [0.4, 0.4, 3.1], (count, 4, 3))
    table[..., 3:7] = quaternion_from_rpy(*np.moveaxis(angles, -1, 0))
    return torch.from_numpy(table)


@pytest.mark.parametrize("dof", [3, 6])
def test_untrained_it_is_constant_twist(dof: int) -> None:
    past = poses(0)
    module = PoseModule(4, 6, 0.5, 16, dof)
    motion = module(past.float(), torch.zeros(3, 4))
    ego = ego_of(past.numpy(), np.zeros((3, 4)))
    known = constant_twist(ego[:, 2], ego[:, 3], 0.5, 0.5 * np.arange(1, 7))
    error = motion_error(motion.ego.detach().double(), torch.from_numpy(known))
    assert float(error.abs().max()) < 1e-4
    assert motion.poses.shape == (3, 6, 13)
    np.testing.assert_allclose(motion.poses[..., 3:7].norm(dim=-1).detach(), 1.0, atol=1e-5)


def test_the_sign_of_a_quaternion_does_not_matter() -> None:
    past = poses(1).float()
    turned = past.clone()
    turned[..., 3:7] *= -1
    features = pose_features(past, torch.zeros(3, 4), 0.5)
    torch.testing.assert_close(features, pose_features(turned, torch.zeros(3, 4), 0.5))
    torch.testing.assert_close(true_state(past, 12), true_state(turned, 12))
    assert features.shape[-1] == 22


def test_a_heading_that_wraps_is_no_error() -> None:
    a, b = torch.zeros(1, 1, 4), torch.zeros(1, 1, 4)
    a[..., 3], b[..., 3] = 3.1, -3.1
    assert float(motion_error(a, b).abs().max()) < 0.1


def test_height_above_ground_is_what_it_sees() -> None:
    past = poses(2).float()
    lifted = past.clone()
    lifted[..., 2] += 7.0
    same = pose_features(lifted, torch.full((3, 4), 7.0), 0.5)
    torch.testing.assert_close(pose_features(past, torch.zeros(3, 4), 0.5), same)


def test_it_learns_a_steady_braking() -> None:
    torch.manual_seed(0)
    module = PoseModule(4, 6, 0.5, 32, 3)
    optimizer = torch.optim.AdamW(module.parameters(), 3e-3)
    before = after = 0.0
    for step in range(150):
        past, truth = braking(torch.rand(64, generator=torch.Generator().manual_seed(step)))
        motion = module(past, torch.zeros(64, 4))
        loss = module.loss(motion, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after = float((motion.state - truth)[:, -1, 0].detach().abs().mean())
        before = before or after
    assert after < 0.4 * before


def test_until_it_has_seen_errors_its_draws_are_normal() -> None:
    draws = normal_draws(128)
    np.testing.assert_allclose(draws.mean(0), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.cov(draws.T, bias=True), np.eye(3), atol=0.1)
    module = PoseModule(4, 2, 0.5, 16, 3)
    torch.testing.assert_close(module.spread, draws.float().expand(2, -1, -1))
    none = MoreMotion(torch.zeros(0, 6, 13), torch.zeros(0, 6), 1.0)
    module.calibrate(none)
    torch.testing.assert_close(module.spread, draws.float().expand(2, -1, -1))
    assert bool((module.sigma_scale == 1).all())


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
    module = PoseModule(4, 2, 0.5, 16, dof)
    module.calibrate(MoreMotion(past, torch.zeros(4000, 6), 1.0))
    motion = module(past[:, :4], torch.zeros(4000, 4))
    error = motion_error(motion.state, true_state(past[:, 4:], module.size)).abs()
    within = (error <= motion.log_sigma.exp() * module.sigma_scale).float().mean(dim=0)
    moving = error.amax(dim=(0, 1)) > 0
    assert moving.sum() == (4 if dof == 3 else 10)  # roll and pitch stand still
    np.testing.assert_allclose(within[:, moving], 0.683, atol=0.01)


def test_its_draws_are_like_the_errors_it_has_seen() -> None:
    """Side and heading err together and with long tails; draws are where the truth is from it."""
    rng = np.random.default_rng(0)
    past = torch.zeros(600, 6, 13)
    past[..., 6] = 1.0  # stands still, says constant twist
    turn = torch.from_numpy(0.2 * rng.standard_t(4, 600)).float()
    past[:, 4:, 0] = torch.from_numpy(rng.normal(0.5, 0.3, 600)).float()[:, None]
    past[:, 4:, 1] = turn[:, None]
    past[:, 4:, 5], past[:, 4:, 6] = torch.sin(turn / 2)[:, None], torch.cos(turn / 2)[:, None]
    module = PoseModule(4, 2, 0.5, 16, 3)
    module.calibrate(MoreMotion(past, torch.zeros(600, 6), 1.0))
    motion = module(past[:3, :4], torch.zeros(3, 4))
    moves = module.moves(motion, torch.tensor([0, 1, 1]))
    assert moves.shape == (3, 128, 3)
    for draws in moves:
        assert float(draws[:, 0].mean()) == pytest.approx(0.5, abs=0.08)
        np.testing.assert_allclose(draws[:, 1], draws[:, 2], atol=1e-4)
        assert float(draws[:, 2].quantile(0.9)) == pytest.approx(0.2 * 1.53, rel=0.15)
        assert float(draws[:, 2].median()) == pytest.approx(0.0, abs=0.02)


def braking(strength: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows that brake by 0 to 2 m/s² from 10 m/s, in the anchor frame."""
    times = 0.5 * torch.arange(-3, 7)
    a = -2 * strength[:, None]
    x = 10 * times + 0.5 * a * times**2
    table = torch.zeros(len(strength), 10, 13)
    table[..., 0], table[..., 6], table[..., 7] = x, 1.0, 10 + a * times
    return table[:, :4], true_state(table[:, 4:], 4)

"""Features are the same for the same motion; their scale spreads what is in small differences."""

from __future__ import annotations

import torch

from tests.some_poses import random_poses
from vlwm.core.model.motion.pose_features import FeatureScale, pose_features


def test_the_sign_of_a_quaternion_does_not_matter() -> None:
    past = random_poses(1).float()
    turned = past.clone()
    turned[..., 3:7] *= -1
    features = pose_features(past, torch.zeros(3, 4), 0.5)
    torch.testing.assert_close(features, pose_features(turned, torch.zeros(3, 4), 0.5))
    assert features.shape[-1] == 22


def test_height_above_ground_is_what_it_sees() -> None:
    past = random_poses(2).float()
    lifted = past.clone()
    lifted[..., 2] += 7.0
    same = pose_features(lifted, torch.full((3, 4), 7.0), 0.5)
    torch.testing.assert_close(pose_features(past, torch.zeros(3, 4), 0.5), same)


def learnt() -> tuple[FeatureScale, torch.Tensor]:
    """The scale of 5,000 windows whose x, y, heading and speeds are nearly the same number."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(5000, 4, 22, generator=generator)
    features[:, :, 13:16] = features[:, :1, :1] + 0.01 * features[:, :, 13:16]
    features[:, :, 5] *= 0.0  # flat ground: no tilt
    scale = FeatureScale(4)
    scale.learn(features)
    return scale, features


def test_scaled_they_are_of_unit_spread_and_tell_apart_what_was_nearly_the_same() -> None:
    scale, features = learnt()
    scaled = scale(features)
    assert scaled.shape == (5000, 88) and scaled.dtype == torch.float32
    spread = scaled.std(dim=0)
    moving = spread > 1e-3
    assert int(moving.sum()) == 84  # but for the four tilts
    assert float(spread[moving].min()) > 0.85 and float(spread[moving].max()) < 1.05
    plane = scaled[:, :56]
    apart = torch.corrcoef(plane.t()) - torch.eye(56)
    assert float(apart.abs().max()) < 0.1


def test_what_no_train_window_had_does_not_shout() -> None:
    """Ground that tilts, a vehicle a hundred times as fast: bounded, and the tilt is no axis."""
    scale, features = learnt()
    tilted = features.clone()
    tilted[:, :, 5] = 0.1
    changed = (scale(tilted) - scale(features)).abs().amax(dim=0)
    assert int((changed > 1e-3).sum()) == 4 and float(changed.max()) <= 4.0
    assert float(scale(100 * features).abs().max()) <= 4.0


def test_one_window_has_no_spread() -> None:
    scale = FeatureScale(4)
    scale.learn(torch.randn(1, 4, 22))
    torch.testing.assert_close(scale.matrix, torch.eye(88))

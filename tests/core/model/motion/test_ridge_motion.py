"""The regression in torch is the baseline's; the head mixes with it as validation says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.core.evaluation.baselines.test_motions import driven
from tests.small_world import batch_of, model_of, small
from vlwm.core.evaluation.baselines.motions import PastMotion, Ridge, TurnRate, energy_score
from vlwm.core.model.motion.energy_score import energy_of
from vlwm.core.model.motion.motion_head import MotionHead, MotionWindows
from vlwm.core.model.motion.ridge_motion import RidgeMotion, feature_count

HORIZONS_S = 0.5 * np.arange(1, 7)
TRAIN, VAL, TEST = driven(300, 0), driven(120, 1), driven(30, 2)


def tensors(past: PastMotion) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(past.poses), torch.from_numpy(past.ground_z)


@pytest.fixture(scope="module")
def ridge() -> Ridge:
    return Ridge.fit(TurnRate.fit(*TRAIN, HORIZONS_S), *TRAIN, *VAL)


@pytest.fixture(scope="module")
def twin(ridge: Ridge) -> RidgeMotion:
    motion = RidgeMotion(4, 6, 0.5)
    motion.take({name: torch.from_numpy(value) for name, value in ridge.values().items()})
    return motion


def test_it_is_the_ridge_of_the_baselines(ridge: Ridge, twin: RidgeMotion) -> None:
    past = TEST[0]
    np.testing.assert_allclose(
        twin(*tensors(past)).numpy(), ridge.expected(past)[..., [0, 1, 3]], atol=1e-9
    )


@pytest.mark.parametrize("decay_s", [(0.0, 0.25), (100.0, 100.0), (1.0, 0.0)])
def test_rates_are_dropped_held_or_decay(decay_s: tuple[float, float]) -> None:
    past = TEST[0]
    motion = RidgeMotion(4, 6, 0.5)
    motion.decay_s.copy_(torch.tensor(decay_s))
    expected = TurnRate(HORIZONS_S, decay_s).expected(past)[..., [0, 1, 3]]
    np.testing.assert_allclose(motion(*tensors(past)).numpy(), expected, atol=1e-9)


def test_its_draws_are_its_errors_in_the_axes_of_the_expected_frame(
    ridge: Ridge, twin: RidgeMotion
) -> None:
    expected = twin(*tensors(TEST[0]))[:, 4]
    drawn = twin.draws(expected, torch.full((30,), 4), len(ridge.errors)).numpy()
    off = drawn - expected[:, None].numpy()
    cos, sin = (f(expected[:, 2:].numpy()) for f in (np.cos, np.sin))
    errors = ridge.errors[:, 4]
    np.testing.assert_allclose(
        cos * off[..., 0] + sin * off[..., 1], [errors[:, 0]] * 30, atol=1e-9
    )
    np.testing.assert_allclose(
        cos * off[..., 1] - sin * off[..., 0], [errors[:, 1]] * 30, atol=1e-9
    )
    np.testing.assert_allclose(off[..., 2], [errors[:, 2]] * 30, atol=1e-9)


def windows_of(motion: tuple[PastMotion, np.ndarray]) -> MotionWindows:
    past, future = motion
    poses = np.zeros((len(future), 10, 13))
    poses[:, :4] = past.poses
    poses[:, 4:, 0], poses[:, 4:, 1] = future[..., 0], future[..., 1]
    poses[:, 4:, 5], poses[:, 4:, 6] = np.sin(future[..., 3] / 2), np.cos(future[..., 3] / 2)
    ground = np.concatenate([past.ground_z, future[..., 2]], axis=1)
    return MotionWindows(torch.from_numpy(poses).float(), torch.from_numpy(ground).float())


def mixed(twin: RidgeMotion) -> MotionHead:
    torch.manual_seed(0)
    head = MotionHead(4, 6, 0.5, 16, 3, ridge=True)
    assert head.ridge is not None
    head.ridge.load_state_dict(twin.state_dict())
    return head


def test_a_head_that_learned_nothing_leaves_the_motion_to_the_regression(
    ridge: Ridge, twin: RidgeMotion
) -> None:
    """So that few windows make no worse motion than the regression alone."""
    head = mixed(twin)
    head.calibrate(windows_of(VAL))
    assert float(head.network_share) == 0.0
    past, future = TEST
    motion = head(*(v.float() for v in tensors(past)))
    expected = ridge.expected(past)[..., [0, 1, 3]]
    np.testing.assert_allclose(motion.ego[..., [0, 1, 3]].detach(), expected, atol=1e-4)
    rows = torch.arange(30).repeat_interleave(6), torch.arange(6).repeat(30)
    moves = head.moves(motion, *rows)
    assert moves.shape == (180, 256, 3)
    truth = torch.from_numpy(future[..., [0, 1, 3]]) - motion.ego[..., [0, 1, 3]].detach()
    own = float(energy_of(moves.double(), truth.reshape(180, 1, 3)).mean())
    assert own == pytest.approx(energy_score(ridge, past, future), rel=0.1)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_draws_are_shared_and_the_expectation_is_theirs(twin: RidgeMotion, share: float) -> None:
    head = mixed(twin)
    head.network_share.fill_(share)
    poses, ground = (v.float() for v in tensors(TEST[0]))
    motion = head(poses, ground)
    rows = torch.arange(30), torch.full((30,), 3)
    moves = head.moves(motion, *rows)
    assert moves.shape == (30, 256, 3)
    absolute = moves + motion.ego[:, 3, None][..., [0, 1, 3]].detach()
    alone = twin.draws(motion.ridge[:, 3], rows[1], 256 - round(256 * share))
    np.testing.assert_allclose(absolute[:, round(256 * share) :], alone, atol=1e-4)
    if share == 1.0:
        plain = MotionHead(4, 6, 0.5, 16, 3)
        plain.load_state_dict(head.state_dict(), strict=False)
        assert torch.equal(plain.moves(plain(poses, ground), *rows), moves)


def test_few_windows_fit_no_regression_and_the_network_is_alone() -> None:
    head = MotionHead(4, 6, 0.5, 16, 3, ridge=True)
    head.calibrate(windows_of(VAL))
    assert float(head.network_share) == 1.0


def test_the_energy_score_is_lowest_for_the_true_distribution() -> None:
    random = torch.Generator().manual_seed(0)
    truth = torch.randn(400, 1, 3, generator=random) * torch.tensor([1.0, 1.0, 0.1])
    draws = torch.randn(400, 64, 3, generator=random) * torch.tensor([1.0, 1.0, 0.1])
    right = float(energy_of(draws, truth).mean())
    others = (0.5 * draws, 2.0 * draws, draws + 0.5)
    assert all(float(energy_of(other, truth).mean()) > right for other in others)
    assert right == pytest.approx(float(energy_of(draws.flip(1), truth).mean()), rel=0.02)


def test_the_features_are_as_many_as_the_baselines(ridge: Ridge) -> None:
    assert len(ridge.centre) == feature_count(4)


def test_a_model_with_a_regression_is_the_same_until_validation_chose_a_share(
    twin: RidgeMotion,
) -> None:
    config = small("model.use_tokens=False")
    plain = model_of(config)
    mixed = model_of(small("model.use_tokens=False", "model.pose_ridge=True"))
    mixed.load_state_dict(plain.state_dict(), strict=False)
    assert mixed.motion_head.ridge is not None
    mixed.motion_head.ridge.load_state_dict(twin.state_dict())
    past = batch_of(config, size=1).past(4)
    alone, same = plain.forecast(past), mixed.forecast(past)
    assert torch.equal(alone.logits, same.logits) and torch.equal(alone.ego, same.ego)
    mixed.motion_head.network_share.fill_(0.5)
    assert not torch.equal(alone.logits, mixed.forecast(past).logits)


def test_a_model_made_under_inference_mode_forecasts_the_same() -> None:
    config = small("model.use_tokens=False", "model.pose_ridge=True")
    usual = model_of(config).forecast(batch_of(config, size=1).past(4))
    with torch.inference_mode():
        same = model_of(config).forecast(batch_of(config, size=1).past(4))
    assert torch.equal(usual.logits, same.logits)

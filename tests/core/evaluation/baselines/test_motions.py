"""Every motion without learning equals a literal version; its spread is its own errors."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from vlwm.core.data.batch import mirrored_poses
from vlwm.core.evaluation.baselines.motions import (
    DRAWS,
    Analogs,
    ConstantTwist,
    PastMotion,
    Ridge,
    TurnRate,
    energy_score,
    errors_of,
    features_of,
)
from vlwm.core.geometry.frames import anchor_poses, ego_of, quaternion_from_heading, relative_ego

HORIZONS_S = 0.5 * np.arange(1, 7)
MIRROR = np.array([1.0, -1.0, 1.0, -1.0])


def driven(count: int, seed: int) -> tuple[PastMotion, np.ndarray]:
    """Windows of vehicles whose speed and yaw rate drift; past poses and future ego frames."""
    rng = np.random.default_rng(seed)
    t = 0.5 * np.arange(10)
    speed = rng.uniform(3, 10, (count, 1)) + rng.uniform(-1, 1, (count, 1)) * np.tanh(t - 1)
    turn = rng.uniform(-0.4, 0.4, (count, 1)) * np.exp(-np.maximum(t - 1.5, 0) / 2)
    yaw = np.cumsum(turn, axis=1) * 0.5
    poses = np.zeros((count, 10, 13))
    poses[..., 0] = np.cumsum(speed * np.cos(yaw), axis=1) * 0.5
    poses[..., 1] = np.cumsum(speed * np.sin(yaw), axis=1) * 0.5
    poses[..., 2] = rng.uniform(1, 30, (count, 1))
    poses[..., 3:7] = quaternion_from_heading(yaw)
    poses[..., 7], poses[..., 8] = speed * np.cos(yaw), speed * np.sin(yaw)
    poses[..., 12] = turn
    poses, ground = anchor_poses(poses, np.zeros((count, 10)), 3)
    past = PastMotion(poses[:, :4], ground[:, :4], 0.5)
    return past, ego_of(poses[:, 4:], ground[:, 4:])


TRAIN, VAL, TEST = driven(300, 0), driven(80, 1), driven(20, 2)


@pytest.fixture(scope="module")
def rate() -> TurnRate:
    return TurnRate.fit(*TRAIN, HORIZONS_S)


@pytest.fixture(scope="module")
def ridge(rate) -> Ridge:
    return Ridge.fit(rate, *TRAIN, *VAL)


def literal_turn_rate(ego: np.ndarray, tau_v: float, tau_w: float) -> np.ndarray:
    """One window, by small steps: speed and yaw rate as closed functions of time."""
    steps = [relative_ego(a, b) for a, b in pairwise(ego)]
    v1, v2 = (math.hypot(s[0], s[1]) / 0.5 for s in steps[-2:])
    w1, w2 = (s[3] / 0.5 for s in steps[-2:])
    a = (v2 - v1) / 0.5
    v0, w0 = v2 + 0.25 * a, 1.5 * w2 - 0.5 * w1
    x, y, _, yaw = ego[-1]
    out, dt = [], 0.001
    for k in range(3000):
        t = (k + 0.5) * dt
        v = max(v0 + a * tau_v * (1 - math.exp(-t / tau_v)), 0.0)
        w = w0 * math.exp(-t / tau_w)
        x, y = x + v * math.cos(yaw + w * dt / 2) * dt, y + v * math.sin(yaw + w * dt / 2) * dt
        yaw += w * dt
        if (k + 1) % 500 == 0:
            out.append([x, y, ego[-1, 2], yaw])
    return np.array(out)


@pytest.mark.parametrize("decay_s", [(0.5, 2.0), (3.0, 0.25)])
def test_turn_rate_equals_small_steps(decay_s):
    past, _ = driven(4, 7)
    expected = TurnRate(HORIZONS_S, decay_s).expected(past)
    for ego, found in zip(past.ego, expected, strict=True):
        assert np.abs(found - literal_turn_rate(ego, *decay_s)).max() < 0.02


def test_decays_are_those_with_the_smallest_error_on_train(rate):
    past, future = TRAIN

    def off(motion: TurnRate) -> float:
        return float(np.abs(errors_of(motion.expected(past), future) * [1, 1, 10]).mean())

    assert all(off(rate) <= off(TurnRate(HORIZONS_S, d)) for d in ((0.25, 2.0), (1.0, 100.0)))
    assert off(rate) < off(ConstantTwist(HORIZONS_S))


def test_ridge_equals_least_squares_with_penalty_rows(rate, ridge):
    """An L2 penalty is one more row per feature: solved by `lstsq`, with the chosen penalty."""
    sides = [TRAIN, (TRAIN[0].mirrored(), TRAIN[1] * MIRROR)]
    rows = np.concatenate([features_of(p) for p, _ in sides])
    lacking = np.concatenate([f - rate.expected(p) for p, f in sides]).reshape(len(rows), -1)
    scale = rows.std(0)
    scale[scale < 1e-9] = 1.0
    x = np.column_stack([(rows - rows.mean(0)) / scale, np.ones(len(rows))])
    solved = []
    for penalty in (0.1, 1.0, 10.0, 100.0, 1000.0):
        more = np.sqrt(penalty) * np.eye(x.shape[1])[:-1]
        target = np.concatenate([lacking, np.zeros((len(more), lacking.shape[1]))])
        solved.append(np.linalg.lstsq(np.concatenate([x, more]), target, rcond=None)[0])
    assert min(np.abs(w - ridge.weights).max() for w in solved) < 1e-5


def test_the_mirror_image_of_a_past_has_the_mirror_image_of_its_future(ridge):
    past, _ = TEST
    assert np.allclose(ridge.expected(past.mirrored()), ridge.expected(past) * MIRROR, atol=0.05)
    assert np.array_equal(past.mirrored().poses, mirrored_poses(past.poses))


def test_analogs_are_the_nearest_windows_of_train(ridge):
    past, _ = TEST
    analogs = Analogs.fit(ridge, *TRAIN)
    found, start = analogs.expected(past), ridge.expected(past)
    keys = Analogs.fit(ridge, past, TEST[1]).keys[: len(start)]
    for i, key in enumerate(keys):
        rows = np.argsort(((analogs.keys - key) ** 2).sum(1))[:DRAWS]
        mean = analogs.errors[rows].mean(0)
        assert np.allclose(relative_ego(start[i], found[i])[:, [0, 1, 3]], mean, atol=1e-6)
        # moved by its draws, the expected frame is where each neighbour's error puts it
        draws = analogs.draws(past)[i]
        turned = np.stack([
            found[i, :, 0] + np.cos(found[i, :, 3]) * draws[..., 0]
            - np.sin(found[i, :, 3]) * draws[..., 1],
            found[i, :, 1] + np.sin(found[i, :, 3]) * draws[..., 0]
            + np.cos(found[i, :, 3]) * draws[..., 1]], axis=-1)  # fmt: skip
        cos, sin = np.cos(start[i, :, 3]), np.sin(start[i, :, 3])
        e = analogs.errors[rows]
        literal = start[i, :, :2] + np.stack(
            [cos * e[..., 0] - sin * e[..., 1], sin * e[..., 0] + cos * e[..., 1]], axis=-1
        )
        assert np.allclose(np.sort(turned, 0), np.sort(literal, 0), atol=1e-6)


@pytest.mark.parametrize("kind", [ConstantTwist, TurnRate])
def test_the_spread_is_made_of_own_errors_on_train(kind):
    motion = kind.fit(*TRAIN, HORIZONS_S)
    own = errors_of(motion.expected(TRAIN[0]), TRAIN[1])
    assert len(motion.errors) == DRAWS
    assert all((np.abs(own - draw).max((1, 2)) == 0).any() for draw in motion.errors)


def test_motions_that_know_more_score_better(rate, ridge):
    twist = ConstantTwist.fit(*TRAIN, HORIZONS_S)
    scores = [energy_score(m, *TEST) for m in (twist, rate, ridge)]
    assert scores[0] > scores[1] > scores[2]


def test_the_energy_score_punishes_spread_that_is_too_wide_or_too_narrow():
    rng = np.random.default_rng(0)
    past, _ = driven(400, 3)
    twist = ConstantTwist(HORIZONS_S)
    truth = twist.expected(past)
    truth[..., 0] += rng.normal(0, 1, truth.shape[:2])

    def score(width: float) -> float:
        errors = np.zeros((256, 6, 3))
        errors[..., 0] = rng.normal(0, width, (256, 6))
        return energy_score(ConstantTwist(HORIZONS_S, errors), past, truth)

    assert score(1.0) < min(score(0.2), score(4.0))

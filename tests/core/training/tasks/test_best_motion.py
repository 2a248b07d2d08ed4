"""The motion of a run is that of the validation that liked it best, also after a resume."""

from __future__ import annotations

import math

import pytest
import torch

from vlwm.core.model.motion.motion_head import MotionHead, MotionWindows
from vlwm.core.training.tasks.best_motion import BestMotion


def head(seed: int) -> MotionHead:
    torch.manual_seed(seed)
    made = MotionHead(3, 2, 0.5, 8, 3)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return made


def same(one: MotionHead, other: MotionHead) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def learn(made: MotionHead) -> None:
    with torch.no_grad():
        for weight in made.parameters():
            weight += 1.0


def test_a_worse_head_goes_back_and_a_better_one_is_kept() -> None:
    best, made = BestMotion(), head(0)
    assert not best.prefer(made, 1.0)
    learn(made)
    assert not same(made, head(0))
    assert best.prefer(made, 1.5) and same(made, head(0)) and best.energy == 1.0
    learn(made)
    assert not best.prefer(made, 0.5) and not same(made, head(0)) and best.energy == 0.5


def test_the_same_validation_again_changes_nothing() -> None:
    best, made = BestMotion(), head(0)
    best.prefer(made, 1.0)
    assert not best.prefer(made, 1.0) and same(made, head(0))


@pytest.mark.parametrize("energy", [math.nan, math.inf])
def test_a_head_that_broke_goes_back(energy: float) -> None:
    best, made = BestMotion(), head(0)
    best.prefer(made, 1.0)
    learn(made)
    best.prefer(made, energy)
    assert same(made, head(0))


def test_a_checkpoint_holds_it() -> None:
    best, made, again = BestMotion(), head(0), BestMotion()
    assert best.content() is None
    best.prefer(made, 1.0)
    again.load(best.content())
    other = head(1)
    assert again.prefer(other, 2.0) and same(other, made)
    again.load(None)
    assert again.energy == math.inf and not again.prefer(other, 2.0)


def test_draws_near_the_truth_have_a_low_energy() -> None:
    poses = torch.zeros(4, 5, 13)
    poses[:, :, 0], poses[:, :, 3] = torch.arange(-2.0, 3.0), 1.0  # one metre a frame, straight on
    straight = MotionWindows(poses, torch.zeros(4, 5))
    aside = MotionWindows(poses.clone(), torch.zeros(4, 5))
    aside.poses[:, 3:, 1] = 8.0
    made = MotionHead(3, 2, 0.5, 8, 3)  # untrained: constant twist
    assert made.energy(straight) < 1.0 < made.energy(aside)

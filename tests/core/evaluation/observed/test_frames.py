"""Which motion each part of an observed frame reads: the guess, or the true one."""

from __future__ import annotations

import numpy as np
import torch

from tests.core.evaluation.observed_windows import FRAMES, GRID, random_past
from vlwm.core.evaluation.baselines.tri_state import PLANNED, PREDICTED, TriState
from vlwm.core.evaluation.baselines.warps import PastFrames
from vlwm.core.evaluation.eval_windows import EvalWindow
from vlwm.core.evaluation.observed.scorer import ObservedFrame, observed_frames

AHEAD = np.array([[1.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0]])
ASIDE = np.array([[0.7, 0.7, 0.0, 0.8], [0.7, 2.0, 0.0, 1.6]])


def frames(true: np.ndarray, guess: np.ndarray) -> list[ObservedFrame]:
    seen = random_past(0)
    poses = np.zeros((FRAMES, 13))
    poses[:, 6], poses[:, 7] = 1.0, 2.0
    past = PastFrames(seen.occupied, seen.ego, poses)
    truth = torch.zeros((len(true), *GRID.shape), dtype=torch.uint8)
    window = EvalWindow(past, truth, true, poses[-1], seen)
    methods = TriState(np.arange(GRID.shape[2]) == GRID.ground_slice, GRID)
    return list(observed_frames(window, guess, methods))


def same(one: ObservedFrame, other: ObservedFrame, methods: tuple[str, ...]) -> list[bool]:
    pairs = [(one.planes[m], other.planes[m]) for m in methods]
    pairs += [(one.free[m], other.free[m]) for m in methods if m in one.free]
    return [torch.equal(a, b) for a, b in pairs]


def zones_agree(one: ObservedFrame, other: ObservedFrame) -> bool:
    names = one.zones.named()
    return all(torch.equal(mask, other.zones.named()[name]) for name, mask in names.items())


def test_the_predicted_track_never_reads_the_true_motion() -> None:
    """Fault: its baselines are laid where the vehicle truly went."""
    for one, other in zip(frames(AHEAD, AHEAD), frames(ASIDE, AHEAD), strict=True):
        assert all(same(one, other, PREDICTED))
        assert not any(same(one, other, PLANNED))
        assert not zones_agree(one, other)


def test_the_plan_track_and_the_zones_never_read_the_guess() -> None:
    """Fault: zones where a method expects the vehicle, so that each method has its own."""
    for one, other in zip(frames(AHEAD, AHEAD), frames(AHEAD, ASIDE), strict=True):
        assert all(same(one, other, PLANNED)) and zones_agree(one, other)
        assert torch.equal(one.way, other.way) and torch.equal(one.near, other.near)
        assert not any(same(one, other, PREDICTED))

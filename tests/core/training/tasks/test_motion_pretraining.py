"""Many windows' motion in a step: a function of step and seed, mirrored as windows are."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch

from tests.core.training.tasks.test_fusion_pretraining import Counted
from vlwm.core.config.load import load_config
from vlwm.core.config.schema import Config
from vlwm.core.data.batch import mirrored_poses
from vlwm.core.data.datasets import WindowDataset
from vlwm.core.model.motion.motion_head import MotionHead
from vlwm.core.training.tasks import motion_pretraining as motions_module
from vlwm.core.training.tasks.motion_pretraining import MotionPretraining, Motions, motions_of
from vlwm.core.training.tasks.pretraining import PhaseProgress, run_phase

WINDOWS = 30


def windows(count: int = WINDOWS) -> WindowDataset:
    """Windows that are told apart by their first number."""

    def motion(index: int) -> tuple[np.ndarray, np.ndarray]:
        poses = np.random.default_rng(index).normal(size=(10, 13))
        poses[0, 0] = index
        return poses, np.zeros(10)

    class Few:
        def __len__(self) -> int:
            return count

    few = Few()
    few.motion = motion
    return cast(WindowDataset, few)


def config(samples: int = 20, mirror: bool = True) -> Config:
    plain = load_config("test_local")
    return replace(plain, data=replace(plain.data, motion_samples=samples, mirror=mirror))


def learn_motion(
    head: MotionHead, motions: Motions, config: Config, progress: PhaseProgress | None = None
) -> None:
    phase = MotionPretraining(head, motions, config)
    run_phase(phase, config, torch.device("cpu"), progress or PhaseProgress())


def test_a_step_has_its_own_choice_whenever_it_is_taken() -> None:
    first = Motions(windows(), config(), 1, torch.device("cpu"))
    again = Motions(windows(), config(), 2, torch.device("cpu"))
    one, two, other = first.of_step(7), again.of_step(7), first.of_step(8)
    assert one is not None and two is not None and other is not None
    assert torch.equal(one.windows.poses, two.windows.poses)
    assert not torch.equal(one.windows.poses, other.windows.poses)
    assert one.share == 20 / 24 and two.share == 20 / 28  # beside a global batch of 4, and of 8


def test_each_is_a_window_or_its_mirror_image() -> None:
    chosen = Motions(windows(), config(), 1, torch.device("cpu")).of_step(0)
    assert chosen is not None
    flipped = 0
    for pose in chosen.windows.poses.double().numpy():
        true = windows().motion(int(pose[0, 0]))[0].astype(np.float32)
        mirror = mirrored_poses(true.astype(np.float64))
        assert np.array_equal(pose, true) or np.array_equal(pose, mirror)
        flipped += not np.array_equal(pose, true)
    assert 0 < flipped < len(chosen.windows)
    kept = Motions(windows(), config(mirror=False), 1, torch.device("cpu"))
    plain = kept.of_step(0)
    assert plain is not None
    assert torch.equal(plain.windows.poses[:, 0, 0], chosen.windows.poses[:, 0, 0])


def test_none_are_wanted() -> None:
    assert Motions(windows(), config(0), 1, torch.device("cpu")).of_step(0) is None
    assert Motions(windows(0), config(), 1, torch.device("cpu")).of_step(0) is None


def test_without_a_scene_the_module_says_what_it_says_of_an_empty_one() -> None:
    torch.manual_seed(0)
    module = MotionHead(4, 6, 0.5, 16, 3, context=8)
    for member in module.members:
        torch.nn.init.normal_(member.out.weight)
    poses, ground = torch.randn(3, 4, 13), torch.zeros(3, 4)
    alone = module(poses, ground)
    assert torch.equal(alone.state, module(poses, ground, torch.zeros(3, 8)).state)
    # a scene begins without influence
    torch.testing.assert_close(alone.state, module(poses, ground, torch.randn(3, 8)).state)


def test_of_many_windows_some_are_taken_evenly() -> None:
    some = motions_of(windows(), 8)
    assert some.poses[:, 0, 0].tolist() == [0, 4, 8, 12, 16, 20, 24, 28]
    assert some.poses.shape == (8, 10, 13) and some.ground_z.shape == (8, 10)
    assert len(motions_of(windows(0), 8).poses) == 0 == len(motions_of(windows(), 0).poses)


def test_poses_alone_teach_before_the_frames_the_same_each_time() -> None:
    plain = config(mirror=False)
    plain = replace(plain, data=replace(plain.data, motion_steps=30))
    motions = Motions(windows(), plain, 1, torch.device("cpu"))
    seen, mirrored = motions.evenly(100)
    assert torch.equal(seen.poses[..., 1], -mirrored.poses[..., 1])
    assert len(seen.poses) == WINDOWS and len(motions.evenly(7)[1].poses) == 6
    states, counted = [], Counted()
    for _ in range(2):
        torch.manual_seed(0)
        module = MotionHead(4, 6, 0.5, 16, 3)
        before = float(module.loss_of_windows(seen).detach())
        learn_motion(module, motions, plain, counted)
        states.append(module.state_dict())
        assert float(module.loss_of_windows(seen).detach()) < before - 0.1
        assert all(parameter.grad is None for parameter in module.parameters())
    assert counted.done == 2 * list(range(1, 31))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_more_windows_the_less_is_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights shrink less where the windows are more than those up to which the decay is full."""
    plain = replace(config(), data=replace(config().data, motion_steps=60))
    sizes = []
    for few in (motions_module._DECAYED, WINDOWS // 10):
        monkeypatch.setattr(motions_module, "_DECAYED", few)
        torch.manual_seed(0)
        module = MotionHead(4, 6, 0.5, 16, 3)
        learn_motion(module, Motions(windows(), plain, 1, torch.device("cpu")), plain)
        sizes.append(sum(float(m.features.weight.square().sum()) for m in module.members))
    assert sizes[0] < 0.95 * sizes[1]


def test_a_stop_between_its_steps_is_heeded() -> None:
    motions = Motions(windows(), config(), 1, torch.device("cpu"))
    with pytest.raises(KeyboardInterrupt):
        learn_motion(MotionHead(4, 6, 0.5, 16, 3), motions, config(), Counted(stop=True))


def test_without_samples_only_the_scale_is_learnt() -> None:
    module = MotionHead(4, 6, 0.5, 16, 3)
    motions = Motions(windows(), config(0), 1, torch.device("cpu"))
    learn_motion(module, motions, config(0))
    assert not torch.equal(module.scale.matrix, torch.eye(88))
    assert not any(member.out.weight.any() for member in module.members)


@pytest.mark.parametrize(("count", "fitted"), [(WINDOWS, False), (120, True)])
def test_the_regression_is_fitted_to_the_train_windows_before_the_first_step(
    count: int, fitted: bool
) -> None:
    plain = config(0, mirror=False)
    motions = Motions(windows(count), replace(plain, data=replace(plain.data, motion_samples=4)), 1,
                      torch.device("cpu"))  # fmt: skip
    unseen = motions_of(windows(20), 20)
    heads = []
    for share in (1.0, 2.0):  # other windows of the validation split choose a penalty alone
        head = MotionHead(4, 6, 0.5, 16, 3, ridge=True)
        val = replace(unseen, poses=unseen.poses * share)
        phase = MotionPretraining(head, motions, plain, val)
        phase.prepare()
        phase.finish()
        assert head.ridge is not None and bool(head.ridge.fitted) is fitted
        heads.append(head.ridge)
    assert torch.equal(heads[0].errors[..., 0].isnan(), torch.zeros(64, 6, dtype=torch.bool))
    assert torch.equal(heads[0].centre, heads[1].centre)
    assert bool(heads[0].weights.any()) is fitted

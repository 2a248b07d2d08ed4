"""The torch twin of `geometry.frames` computes the same numbers, wrapping included."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from vlwm.core.data.batch import Batch
from vlwm.core.geometry import frames
from vlwm.core.model import torch_frames
from vlwm.core.model.motion.vehicle_state import constant_motion

RNG = np.random.default_rng(7)
ANGLES = np.concatenate([RNG.uniform(-9.0, 9.0, 200), np.pi * np.arange(-4.0, 5.0), [0.0]])
QUATERNIONS = RNG.normal(size=(200, 4))
EGO = RNG.uniform(-4.0, 4.0, size=(2, 200, 4))
POSES = RNG.normal(size=(200, 13))
DT_S, HORIZONS_S = 0.5, np.array([0.5, 1.0, 3.0])


def heading_of_a_plan(poses: Tensor, ground_z: Tensor) -> Tensor:
    none = torch.zeros(len(poses), dtype=torch.int64)
    batch = Batch(none[:, None, None], poses[:, None], ground_z[:, None], none, none)
    return batch.plan(0).ego[:, 0]


def arc(ego: Tensor) -> Tensor:
    """Ego frames (N, H, 4) after two level poses at `ego` (2, N, 4)."""
    x, y, _, yaw = ego.unbind(-1)
    zero = torch.zeros_like(x)
    turn = torch_frames.quaternion_from_rpy(zero, zero, yaw)
    rest = torch.zeros(*x.shape, 6).to(x)
    poses = torch.cat([torch.stack([x, y, zero], -1), turn, rest], dim=-1).transpose(0, 1)
    state = constant_motion(poses, torch.from_numpy(HORIZONS_S), DT_S, 4)
    return torch.stack([state[..., 0], state[..., 1], torch.zeros_like(state[..., 0]),
                        torch_frames.wrap_angle(state[..., 3])], dim=-1)  # fmt: skip


def numpy_arc(ego: np.ndarray) -> np.ndarray:
    level = ego * [1.0, 1.0, 0.0, 1.0]
    return frames.constant_twist(level[0], level[1], DT_S, HORIZONS_S)


def turn_plane(vectors: Tensor, yaw: Tensor) -> Tensor:
    return torch.stack(torch_frames.turn_plane(vectors[..., 0], vectors[..., 1], yaw), dim=-1)


TWINS: dict[str, tuple[Callable[..., Tensor], Callable[..., np.ndarray], tuple[np.ndarray, ...]]]
TWINS = {
    "wrap_angle": (torch_frames.wrap_angle, frames.wrap_angle, (ANGLES,)),
    "heading_of": (torch_frames.heading_of, frames.heading_of, (QUATERNIONS,)),
    "quaternion_from_rpy": (
        torch_frames.quaternion_from_rpy, frames.quaternion_from_rpy, tuple(ANGLES[None, :3].T),
    ),
    "turn_plane": (
        turn_plane, lambda v, yaw: frames.turn_vectors(v, yaw)[..., :2],
        (POSES[:, :3], ANGLES[:200]),
    ),
    "ego_of": (torch_frames.ego_of, frames.ego_of, (POSES, ANGLES[:200])),
    "ego_of a plan": (heading_of_a_plan, frames.ego_of, (POSES, ANGLES[:200])),
    "relative_ego": (torch_frames.relative_ego, frames.relative_ego, (EGO[0], EGO[1])),
    "constant motion": (arc, numpy_arc, (EGO * [1.0, 1.0, 1.0, 0.7],)),
}  # fmt: skip


@pytest.mark.parametrize("name", TWINS)
def test_twins_agree(name: str) -> None:
    ours, theirs, arguments = TWINS[name]
    found = ours(*(torch.from_numpy(np.asarray(a)) for a in arguments))
    np.testing.assert_allclose(found.numpy(), theirs(*arguments), atol=1e-9)


def test_a_relative_heading_is_wrapped() -> None:
    one = torch.tensor([0.0, 0.0, 0.0, 3.0])
    other = torch.tensor([0.0, 0.0, 0.0, -3.0])
    assert float(torch_frames.relative_ego(one, other)[3]) == pytest.approx(2 * np.pi - 6.0)


def test_angles_come_back_from_their_quaternion() -> None:
    angles = torch.from_numpy(RNG.uniform([-1.5, -1.5, -3.1], [1.5, 1.5, 3.1], (50, 3)))
    found = torch_frames.rpy_of(torch_frames.quaternion_from_rpy(*angles.unbind(-1)))
    torch.testing.assert_close(torch.stack(found, dim=-1), angles)


def test_wrapping_passes_the_gradient() -> None:
    angle = torch.tensor([3.2, -3.2, 6.4, 0.1], requires_grad=True)
    torch_frames.wrap_angle(angle).sum().backward()
    assert angle.grad is not None and angle.grad.tolist() == [1.0] * 4

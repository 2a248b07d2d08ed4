"""Signs of quaternions and wraps of headings are no errors."""

from __future__ import annotations

import numpy as np
import torch

from vlwm.core.geometry import frames
from vlwm.core.model.motion.vehicle_state import motion_error, true_state
from vlwm.core.model.torch_frames import quaternion_from_rpy


def test_the_sign_of_a_quaternion_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    poses = torch.from_numpy(rng.normal(size=(3, 4, 13)))
    angles = rng.uniform([-0.4, -0.4, -3.1], [0.4, 0.4, 3.1], (3, 4, 3))
    poses[..., 3:7] = torch.from_numpy(frames.quaternion_from_rpy(*np.moveaxis(angles, -1, 0)))
    turned = poses.clone()
    turned[..., 3:7] *= -1
    state = true_state(poses, 12)
    torch.testing.assert_close(state, true_state(turned, 12))
    torch.testing.assert_close(state[..., [4, 5, 3]], torch.from_numpy(angles))
    again = quaternion_from_rpy(state[..., 4], state[..., 5], state[..., 3])
    torch.testing.assert_close((again * poses[..., 3:7]).sum(-1).abs(), torch.ones(3, 4).double())


def test_a_heading_that_wraps_is_no_error() -> None:
    a, b = torch.zeros(1, 1, 4), torch.zeros(1, 1, 4)
    a[..., 3], b[..., 3] = 3.1, -3.1
    assert float(motion_error(a, b).abs().max()) < 0.1

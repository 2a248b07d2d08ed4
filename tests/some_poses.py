"""Past poses that no vehicle drove, for what must hold of any."""

from __future__ import annotations

import numpy as np
import torch

from vlwm.core.geometry.frames import quaternion_from_rpy


def random_poses(seed: int, count: int = 3) -> torch.Tensor:
    """Poses float64 (count, 4, 13), tilted up to 0.4 rad, heading anywhere."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(count, 4, 13))
    angles = rng.uniform([-0.4, -0.4, -3.1], [0.4, 0.4, 3.1], (count, 4, 3))
    table[..., 3:7] = quaternion_from_rpy(*np.moveaxis(angles, -1, 0))
    return torch.from_numpy(table)

"""Score draws of a vehicle's place against the true one."""

from __future__ import annotations

import torch
from torch import Tensor

from vlwm.core.model.torch_frames import wrap_angle

_YAW_M = 10.0
"""metres that a radian of heading counts in the energy score: a wall 10 m away moves by so much"""


def energy_of(draws: Tensor, truth: Tensor) -> Tensor:
    """Return the energy score (R,) of draws (R, N, 3) of x, y (m) and yaw (rad), in metres.

    Args:
        truth: (R, 1, 3).
    """

    def apart(others: Tensor) -> Tensor:
        off = draws - others
        off = torch.cat([off[..., :2], _YAW_M * wrap_angle(off[..., 2:])], dim=-1)
        return off.norm(dim=-1).mean(dim=-1)

    # pairs of draws in a random order, the same for all rows: neighbours are of one component
    order = torch.randperm(draws.shape[1], generator=torch.Generator().manual_seed(0))
    draws = draws[:, order.to(draws.device)]
    pairs = [apart(draws.roll(k, dims=1)) for k in (1, 2, 3)]
    return apart(truth) - 0.5 * torch.stack(pairs).mean(dim=0)

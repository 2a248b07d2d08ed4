"""Compute the motion head's input: per-frame features of past poses, and one scale for all.

How a vehicle brakes or turns shows in small differences between frames: 1 cm of a position of 10 m.
To a fresh network they are noise next to the positions, and it needs thousands of steps to find
them (LeCun et al., Efficient BackProp, 1998, 4.3: decorrelated inputs of equal spread). So the
features of the train windows are measured first: features in the plane are turned onto their
principal axes and divided by their spread. Height and tilt features are scaled but not
decorrelated: on flat ground they are almost collinear with speed, and a principal axis built from
that noise would be amplified in hilly cities.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlwm.core.model.torch_frames import heading_of, turn_plane, wrap_angle

FRAME_FEATURES = 22
_UPRIGHT = (2, 5, 6, 9, 10, 11, 17, 20)  # height, tilt, climb, wx, wy, and their changes
_SMALLEST, _SMALLEST_UPRIGHT = 1e-3, 0.02  # spreads below which a feature is not enlarged
_FAR = 4.0
"""spreads from the mean beyond which a feature hardly grows: what no train window had"""


class FeatureScale(nn.Module):
    """Passes features unchanged until `learn`; then decorrelated, of unit spread and bounded.

    Args:
        frames: past frames, P.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, frames: int) -> None:
        super().__init__()
        size = frames * FRAME_FEATURES
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("matrix", torch.eye(size))

    @torch.no_grad()
    def learn(self, features: Tensor) -> None:
        """Take the scale from features (N, P, 22) of train windows and of their mirror images."""
        if len(features) < 2:
            return
        table = features.flatten(1).double()  # (N, P · 22)
        # columns that a slope changes, and the others
        upright = torch.zeros(features.shape[1:], dtype=torch.bool)
        upright[:, _UPRIGHT] = True
        rows = [part.nonzero()[:, 0] for part in (~upright.flatten(), upright.flatten())]
        # in the plane: principal axes of the covariance, each divided by its spread
        spread, axes = torch.linalg.eigh(torch.cov(table[:, rows[0]].t()))
        matrix = torch.zeros(table.shape[1], table.shape[1]).to(table)
        columns = torch.arange(table.shape[1]).split([len(r) for r in rows])
        matrix[rows[0][:, None], columns[0]] = axes / (spread + _SMALLEST**2).sqrt()
        # upright: each column divided by its own spread alone
        variance = table[:, rows[1]].var(dim=0)
        matrix[rows[1], columns[1]] = (variance + _SMALLEST_UPRIGHT**2).rsqrt()
        self.mean.copy_(table.mean(dim=0))
        self.matrix.copy_(matrix)

    def forward(self, features: Tensor) -> Tensor:
        """Return scaled features (B, P · 22) of (B, P, 22), in their precision."""
        with torch.autocast(features.device.type, enabled=False):  # differences of centimetres
            shifted = features.flatten(1).double() - self.mean.double()
            # features far outside of the train windows saturate instead of extrapolating
            return (_FAR * torch.tanh(shifted @ self.matrix.double() / _FAR)).to(features.dtype)


def pose_features(poses: Tensor, ground_z: Tensor, dt_s: float) -> Tensor:
    """Return per-frame features (B, P, 22) of past poses (B, P, 13) in the anchor frame.

    Position with the height above ground, heading as a vector, the up axis of the body (its tilt
    shows the acceleration), velocities there and in the vehicle's own axes, and how position,
    heading and velocity changed since the frame before (zero for the first). In the precision of
    the poses.
    """
    x, y, z = poses[..., :3].unbind(-1)
    place = torch.stack([x, y, z - ground_z], dim=-1) / 10.0  # (B, P, 3), in 10 m
    speed = poses[..., 7:10] / 10.0  # (B, P, 3), in 10 m/s
    yaw = heading_of(poses[..., 3:7])
    attitude = torch.stack([torch.cos(yaw), torch.sin(yaw), *_tilt(poses[..., 3:7])], dim=-1)
    # in the vehicle's own axes: ahead and to the left
    own = torch.stack(turn_plane(speed[..., 0], speed[..., 1], -yaw), dim=-1)
    known = torch.cat([place, speed, yaw[..., None]], dim=-1)
    # changes since the frame before; the first frame has none
    change = functional.pad(known[:, 1:] - known[:, :-1], (0, 0, 1, 0))
    moved, faster, turn = change.split([3, 3, 1], dim=-1)
    changed = torch.cat([moved, 2.0 * faster, wrap_angle(turn)], dim=-1) / dt_s
    parts = [place, attitude, speed, poses[..., 10:13], own, changed]
    return torch.cat(parts, dim=-1)


def _tilt(quaternion: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and y (...,) of the body's up axis."""
    # third column of the rotation matrix, less its z
    x, y, z, w = quaternion.unbind(-1)
    return 2 * (x * z + w * y), 2 * (y * z - w * x)

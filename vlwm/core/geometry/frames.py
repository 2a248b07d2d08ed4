"""Convert between world, ego and body frames; headings, quaternions and poses.

Metres, seconds, radians; right-handed; quaternions x, y, z, w; everything float64.

World  local east-north-up of a session.
Ego    x forward, y left, z up, with the vehicle's position and heading but no roll and pitch;
       z = 0 is the terrain under the vehicle. Written as four numbers (x, y, ground_z, yaw): its
       origin in the outer frame, and the direction of its x axis there.
Body   the vehicle itself, with roll and pitch.

A pose is thirteen numbers [x y z, qx qy qz qw, vx vy vz, wx wy wz]: position and orientation of the
body, linear and angular velocity, all in the outer frame, m, m/s and rad/s.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

POSE_SIZE = 13
POSITION = slice(0, 3)
ORIENTATION = slice(3, 7)
LINEAR_VELOCITY = slice(7, 10)
ANGULAR_VELOCITY = slice(10, 13)

_SMALL_ANGLE = 1e-4  # rad; below it series are exact to the last digit of a float64

Array = NDArray[np.float64]


def wrap_angle(angle: ArrayLike) -> Array:
    """Return the same angle in (-π, π]."""
    # mod gives [0, 2π): reflected, so that −π becomes π and not the other way round
    turned = np.pi - np.asarray(angle, dtype=np.float64)
    return np.pi - np.mod(turned, 2 * np.pi)


# Quaternions


def quaternion_from_rpy(roll: ArrayLike, pitch: ArrayLike, yaw: ArrayLike) -> Array:
    """Return unit quaternions (..., 4) that rotate by roll about x, then pitch (y), then yaw (z).

    The axes are the outer frame's; positive pitch lowers the nose (x forward, y left, z up).
    """
    half = [np.asarray(angle, dtype=np.float64) / 2 for angle in (roll, pitch, yaw)]
    (cr, cp, cy), (sr, sp, sy) = [np.cos(a) for a in half], [np.sin(a) for a in half]
    return np.stack(
        np.broadcast_arrays(
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
            cr * cp * cy + sr * sp * sy,
        ),
        axis=-1,
    )


def quaternion_from_heading(yaw: ArrayLike) -> Array:
    """Return unit quaternions (..., 4) of level vehicles with headings (...)."""
    return quaternion_from_rpy(0.0, 0.0, yaw)


def multiply_quaternions(left: ArrayLike, right: ArrayLike) -> Array:
    """Return Hamilton products (..., 4): the rotation `right`, then the rotation `left`."""
    x1, y1, z1, w1 = np.moveaxis(np.asarray(left, dtype=np.float64), -1, 0)
    x2, y2, z2, w2 = np.moveaxis(np.asarray(right, dtype=np.float64), -1, 0)
    return np.stack(
        [
            w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
            w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
            w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
            w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
        ],
        axis=-1,
    )


def conjugate(quaternion: ArrayLike) -> Array:
    """Return the inverse rotations (..., 4) of unit quaternions."""
    return np.asarray(quaternion, dtype=np.float64) * np.array([-1.0, -1.0, -1.0, 1.0])


def rotate(quaternion: ArrayLike, vectors: ArrayLike) -> Array:
    """Return vectors (..., 3) turned by unit quaternions (..., 4); leading axes broadcast."""
    quaternion = np.asarray(quaternion, dtype=np.float64)
    vectors = np.asarray(vectors, dtype=np.float64)
    # v + 2 w (q × v) + 2 q × (q × v): half the products of q v q*
    axis, scalar = quaternion[..., :3], quaternion[..., 3:]
    twice = 2.0 * np.cross(axis, vectors)
    return vectors + scalar * twice + np.cross(axis, twice)


def rotation_vector(quaternion: ArrayLike) -> Array:
    """Return axis times angle (..., 3), radians: the shorter rotation of quaternions (..., 4)."""
    quaternion = np.asarray(quaternion, dtype=np.float64)
    # q and −q are one rotation; w ≥ 0 gives the shorter way
    quaternion = np.where(quaternion[..., 3:] < 0, -quaternion, quaternion)
    sine = np.linalg.norm(quaternion[..., :3], axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, quaternion[..., 3:])
    # angle / sine is 0 / 0 near the identity: its series there
    scale = np.where(sine < _SMALL_ANGLE, 2.0 + sine**2 / 3.0, angle / np.maximum(sine, 1e-300))
    return scale * quaternion[..., :3]


def heading_of(quaternion: ArrayLike) -> Array:
    """Return the heading (...), (-π, π], of quaternions (..., 4): the direction of body x in plan.

    Any length of quaternion will do. A body that points straight up or down has none: 0.
    """
    x, y, z, w = np.moveaxis(np.asarray(quaternion, dtype=np.float64), -1, 0)
    return np.arctan2(2.0 * (x * y + z * w), x * x + w * w - y * y - z * z)


# Ego frames


def ego_of(poses: ArrayLike, ground_z: ArrayLike) -> Array:
    """Return ego frames (..., 4) of poses (..., 13) over terrain of height ground_z (...)."""
    poses = np.asarray(poses, dtype=np.float64)
    ground = np.broadcast_to(np.asarray(ground_z, dtype=np.float64), poses.shape[:-1])
    heading = heading_of(poses[..., ORIENTATION])
    return np.stack([poses[..., 0], poses[..., 1], ground, heading], axis=-1)


def turn_vectors(vectors: ArrayLike, yaw: ArrayLike) -> Array:
    """Return vectors (..., 3) turned about z by yaw (...), counter-clockwise seen from above."""
    vectors = np.asarray(vectors, dtype=np.float64)
    cos, sin = np.cos(yaw), np.sin(yaw)
    x, y = vectors[..., 0], vectors[..., 1]
    # z stays: the axis of the turn
    turned = np.broadcast_arrays(cos * x - sin * y, sin * x + cos * y, vectors[..., 2])
    return np.stack(turned, axis=-1)


def to_ego(points: ArrayLike, ego: ArrayLike) -> Array:
    """Return points (..., 3) of the outer frame, in the ego frame (4,)."""
    ego = np.asarray(ego, dtype=np.float64)
    return turn_vectors(np.asarray(points, dtype=np.float64) - ego[..., :3], -ego[..., 3])


def from_ego(points: ArrayLike, ego: ArrayLike) -> Array:
    """Return points (..., 3) of the ego frame (4,), in the outer frame."""
    ego = np.asarray(ego, dtype=np.float64)
    return turn_vectors(points, ego[..., 3]) + ego[..., :3]


def relative_ego(reference: ArrayLike, ego: ArrayLike) -> Array:
    """Return ego frames (..., 4) relative to ego frames `reference` (..., 4) of one outer frame."""
    reference = np.asarray(reference, dtype=np.float64)
    ego = np.asarray(ego, dtype=np.float64)
    moved = to_ego(ego[..., :3], reference)
    return np.concatenate([moved, wrap_angle(ego[..., 3:] - reference[..., 3:])], axis=-1)


def compose_ego(reference: ArrayLike, relative: ArrayLike) -> Array:
    """Return ego frames (..., 4) in the outer frame: the inverse of `relative_ego`."""
    reference = np.asarray(reference, dtype=np.float64)
    relative = np.asarray(relative, dtype=np.float64)
    moved = from_ego(relative[..., :3], reference)
    return np.concatenate([moved, wrap_angle(relative[..., 3:] + reference[..., 3:])], axis=-1)


def anchor_poses(poses: ArrayLike, ground_z: ArrayLike, anchor: int) -> tuple[Array, Array]:
    """Return poses and terrain heights in the ego frame of frame `anchor`.

    Args:
        poses: (..., F, 13) in the outer frame.
        ground_z: (..., F) terrain under the vehicle in the outer frame, metres.
        anchor: index of the reference along F.

    Returns:
        poses (..., F, 13), with positions, orientations and velocities in the anchor's ego frame,
        and ground_z (..., F) above the terrain under the anchor.
    """
    poses = np.asarray(poses, dtype=np.float64)
    ground = np.asarray(ground_z, dtype=np.float64)
    # (..., 1, 4), the ego frame that everything is turned back into
    ego = ego_of(poses[..., anchor, :], ground[..., anchor])[..., None, :]
    back = -ego[..., 3]
    parts = [
        to_ego(poses[..., POSITION], ego),
        multiply_quaternions(quaternion_from_heading(back), poses[..., ORIENTATION]),
        turn_vectors(poses[..., LINEAR_VELOCITY], back),
        turn_vectors(poses[..., ANGULAR_VELOCITY], back),
    ]
    return np.concatenate(parts, axis=-1), ground - ego[..., 2]


def poses_from_ego(poses: ArrayLike, ego: ArrayLike) -> Array:
    """Return poses (..., 13) of the ego frame (..., 4) in the outer frame of that ego frame.

    The inverse of `anchor_poses`: positions in metres, orientations and velocities turned with the
    heading of the ego frame.
    """
    poses = np.asarray(poses, dtype=np.float64)
    ego = np.asarray(ego, dtype=np.float64)
    yaw = ego[..., 3]
    parts = [
        from_ego(poses[..., POSITION], ego),
        multiply_quaternions(quaternion_from_heading(yaw), poses[..., ORIENTATION]),
        turn_vectors(poses[..., LINEAR_VELOCITY], yaw),
        turn_vectors(poses[..., ANGULAR_VELOCITY], yaw),
    ]
    return np.concatenate(parts, axis=-1)


# Motion


def constant_twist(
    ego_prev: ArrayLike, ego_last: ArrayLike, dt_s: float, horizons_s: ArrayLike
) -> Array:
    """Return ego frames that continue the motion between the last two frames.

    Planar velocity in the vehicle's own axes and yaw rate stay constant: the path is an exact arc
    through both frames (the exponential of SE(2)). Terrain height stays constant, because the past
    does not contain it.

    Args:
        ego_prev: (..., 4), `dt_s` before `ego_last` (..., 4), in the same outer frame.
        dt_s: seconds between the two.
        horizons_s: (H,) seconds after `ego_last`.

    Returns:
        (..., H, 4) in the outer frame.
    """
    last = np.asarray(ego_last, dtype=np.float64)
    step = relative_ego(ego_prev, last)
    ratio = np.asarray(horizons_s, dtype=np.float64) / dt_s  # (H,)
    # path length in the vehicle's own axes (..., H, 2) and turn (..., H), both linear in time
    along = _turn_from_arc(step[..., :2], step[..., 3])[..., None, :] * ratio[:, None]
    yaw = step[..., 3:] * ratio
    planar = _arc_from_turn(along, yaw)
    # height 0 relative to the last frame: the terrain ahead is unknown
    relative = np.concatenate([planar, np.zeros_like(yaw)[..., None], yaw[..., None]], axis=-1)
    return compose_ego(last[..., None, :], relative)


def finite_difference_velocity(
    positions: ArrayLike,
    quaternions: ArrayLike,
    dt_s: float | ArrayLike,
    kind: Literal["central", "backward"] = "central",
) -> tuple[Array, Array]:
    """Return linear (N, 3) and angular (N, 3) velocity of a path, outer frame, m/s and rad/s.

    `central` uses the next frame, so it is for checks and for complete paths, never for inputs of a
    forecast; `backward` uses the past alone. The ends are one-sided; a path of one frame has zero
    velocity.

    Args:
        positions: (N, 3) metres.
        quaternions: (N, 4) unit quaternions.
        dt_s: seconds between frames, one number or (N - 1,).
    """
    positions = np.asarray(positions, dtype=np.float64)
    quaternions = np.asarray(quaternions, dtype=np.float64)
    count = len(positions)
    if count < 2:
        return np.zeros((count, 3)), np.zeros((count, 3))
    # (N,), seconds since the first frame
    times = np.concatenate([[0.0], np.cumsum(np.broadcast_to(dt_s, count - 1))])
    here = np.arange(count)
    # frames before and after each, (N,); at an end the frame itself takes the missing place
    start = np.maximum(here - 1, 0)
    end = np.minimum(here + 1, count - 1) if kind == "central" else np.maximum(here, 1)
    span = (times[end] - times[start])[:, None]
    # rotation from the start to the end of the span, in the outer frame
    turn = multiply_quaternions(quaternions[end], conjugate(quaternions[start]))
    return (positions[end] - positions[start]) / span, rotation_vector(turn) / span


def _arc_factors(yaw: Array) -> tuple[Array, Array]:
    """Return sin θ / θ and (1 - cos θ) / θ."""
    small = np.abs(yaw) < _SMALL_ANGLE
    # both branches of `where` are computed: 1 keeps the unused one finite
    safe = np.where(small, 1.0, yaw)
    sine = np.where(small, 1.0 - yaw**2 / 6.0, np.sin(safe) / safe)
    # 1 − cos θ as 2 sin²(θ / 2), which keeps its digits for small θ
    versine = np.where(small, yaw / 2.0, 2.0 * np.sin(safe / 2.0) ** 2 / safe)
    return sine, versine


def _arc_from_turn(along: Array, yaw: Array) -> Array:
    """Return the displacement (..., 2) after a body-frame path (..., 2) that turns by yaw."""
    sine, versine = _arc_factors(yaw)
    x, y = along[..., 0], along[..., 1]
    return np.stack([sine * x - versine * y, versine * x + sine * y], axis=-1)


def _turn_from_arc(displacement: Array, yaw: Array) -> Array:
    """Return inverse of `_arc_from_turn` for |yaw| ≤ π."""
    sine, versine = _arc_factors(yaw)
    x, y = displacement[..., 0], displacement[..., 1]
    # `_arc_from_turn` is a turn times a stretch: its inverse is the transpose over the square
    norm = sine**2 + versine**2
    return np.stack([(sine * x + versine * y) / norm, (sine * y - versine * x) / norm], axis=-1)

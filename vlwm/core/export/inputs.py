"""Check arrays of a caller and bring them into the conventions of `geometry.frames`.

Every error names the array that is wrong and what to type instead. Metres, seconds, radians;
quaternions x, y, z, w; velocities in the frame of the positions.

Axes: B windows, P past and H future frames, X, Y, Z cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlwm.core.errors import UsageError
from vlwm.core.geometry.frames import (
    ANGULAR_VELOCITY,
    LINEAR_VELOCITY,
    ORIENTATION,
    POSE_SIZE,
    POSITION,
    rotate,
)
from vlwm.core.geometry.grid import VoxelGrid

QUATERNIONS = ("xyzw", "wxyz")
VELOCITY_FRAMES = ("world", "body")
_LAYOUT = "x y z, qx qy qz qw, vx vy vz, wx wy wz"
_TILT = np.cos(np.radians(60.0))  # no vehicle of this package leans further
_MOVES_MPS = 1.0  # slower motion is too small to check frames and time steps against
_AGREES = 0.5  # share by which two speeds may differ before a check fails


@dataclass(frozen=True)
class Conventions:
    """The conventions of the caller's poses.

    Attributes:
        quaternion: 'xyzw' or 'wxyz'; None assumes 'xyzw' and raises where that looks wrong.
        velocity_frame: 'world' or 'body'; None assumes 'world' and raises where that looks wrong.
    """

    quaternion: str | None = None
    velocity_frame: str | None = None

    def __post_init__(self) -> None:
        _require_word("quaternion", self.quaternion, QUATERNIONS)
        _require_word("velocity_frame", self.velocity_frame, VELOCITY_FRAMES)


def _require_word(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise UsageError(
            f"{name}={value!r} is unknown", remedy=f"use one of {', '.join(map(repr, allowed))}"
        )


@dataclass(frozen=True)
class ForecastInput:
    """Checked arrays of B windows, in the caller's world frame.

    Attributes:
        occupancy: uint8 (B, P, X, Y, Z) of 0 and 1.
        known: uint8 (B, P, X, Y, Z) of 0 and 1; None where every cell was observed.
        poses: float64 (B, P, 13).
        ground_z: float64 (B, P), metres.
        plan: float64 (B, H, 13); None without a plan.
        plan_ground_z: float64 (B, H), metres.
        batched: False where the caller gave one window without the axis B.
        classes: uint8 (B, P, X, Y, Z); None without classes.
    """

    occupancy: NDArray[np.uint8]
    known: NDArray[np.uint8] | None
    poses: NDArray[np.float64]
    ground_z: NDArray[np.float64]
    plan: NDArray[np.float64] | None
    plan_ground_z: NDArray[np.float64]
    batched: bool
    classes: NDArray[np.uint8] | None = None


def check_inputs(
    occupancy: ArrayLike,
    poses: ArrayLike,
    grid: VoxelGrid,
    frames: tuple[int, int],
    dt_s: float,
    *,
    plan: ArrayLike | None = None,
    ground_z: ArrayLike | None = None,
    known: ArrayLike | None = None,
    classes: ArrayLike | None = None,
    conventions: Conventions | None = None,
) -> ForecastInput:
    """Return the caller's arrays with an axis of windows, in the package's conventions.

    Args:
        occupancy: (P, X, Y, Z) or (B, P, X, Y, Z) of 0 and 1, each frame in its own ego frame.
        poses: (P, 13) or (B, P, 13).
        grid: the grid of the model.
        frames: past and future frames of the model.
        dt_s: seconds between frames of the model.
        plan: (H, 13) or (B, H, 13), the poses to be flown.
        ground_z: terrain under the vehicle: a number, (P,), (P + H,) with a plan, or (B, ...).
        known: (P, X, Y, Z) or (B, P, X, Y, Z) of 0 and 1: cells that were observed.
        classes: uint8 of the shape of `occupancy`.
        conventions: of the quaternions and velocities.

    Raises:
        UsageError: an array does not fit; the sentence names the array and the fix.
    """
    past, future = frames
    conventions = conventions or Conventions()
    cells = np.asarray(occupancy)
    batched = cells.ndim == 5
    cells = _cells("occupancy", cells, grid, past)
    windows = len(cells)
    mask = None if known is None else _cells("known", np.asarray(known), grid, past)
    if mask is not None and len(mask) != windows:
        raise _of_windows("known", len(mask), windows)
    own = _poses("poses", poses, past, windows, conventions)
    _check_motion(own, dt_s, conventions)
    own = _in_world(own, conventions)
    flown = None
    if plan is not None:
        flown = _in_world(_poses("plan", plan, future, windows, conventions), conventions)
    heights = _heights(ground_z, own, windows, past, future if plan is not None else 0)
    later = heights[:, past:]
    if later.shape[1] < future:  # the past does not know the terrain ahead: hold the last height
        later = np.repeat(heights[:, past - 1 : past], future, axis=1)
    kinds = None if classes is None else _classes(np.asarray(classes), cells.shape)
    return ForecastInput(cells, mask, own, heights[:, :past], flown, later, batched, kinds)


def _cells(name: str, value: np.ndarray, grid: VoxelGrid, frames: int) -> NDArray[np.uint8]:
    """Return uint8 (B, P, X, Y, Z) of 0 and 1."""
    want = (frames, *grid.shape)
    if value.ndim == 4:
        value = value[None]
    if value.ndim != 5 or value.shape[1:] != want:
        raise UsageError(
            f"{name} has shape {value.shape[1:] if value.ndim == 5 else value.shape}, not {want} "
            "(frame, x, y, z)",
            remedy=_shape_remedy(name, value, want),
        )
    if value.dtype.kind not in "buif":
        raise UsageError(
            f"{name} holds {value.dtype}, not numbers",
            remedy=f"give 0 and 1: {name}.astype(np.uint8)",
        )
    flags = value.astype(np.uint8) if value.dtype.kind in "bui" else (value > 0).astype(np.uint8)
    if value.dtype.kind != "b" and not np.array_equal(flags, value):
        raise UsageError(
            f"{name} holds values other than 0 and 1",
            remedy=f"compare first: {name} > 0.5 for probabilities, {name} != EMPTY for classes",
        )
    if value.dtype.kind in "ui" and value.size and value.max() > 1:
        raise UsageError(
            f"{name} holds classes up to {value.max()}, not 0 and 1",
            remedy=f"compare first: {name} != EMPTY, with the number of your empty class",
        )
    return flags


def _classes(value: np.ndarray, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return classes uint8 (B, P, X, Y, Z)."""
    value = value[None] if value.ndim == 4 else value
    if value.shape != shape or value.dtype.kind not in "ui":
        raise UsageError(
            f"classes is {value.dtype} of shape {value.shape}, not uint8 of shape {shape}",
            remedy="give the class of each cell of occupancy, 255 where it has no label",
        )
    return value.astype(np.uint8)


def _shape_remedy(name: str, value: np.ndarray, want: tuple[int, ...]) -> str:
    shape = value.shape[1:] if value.ndim == 5 else value.shape
    if value.ndim == 5 and shape[1:] == want[1:] and shape[0] > want[0]:
        return f"give the last {want[0]} frames: {name}[..., -{want[0]}:, :, :, :]"
    if len(shape) == 4 and shape == (want[0], want[3], want[2], want[1]):
        return f"order the axes x, y, z: {name}.swapaxes(-3, -1)"
    if value.ndim == 3 and shape == want[1:]:
        return f"the model reads {want[0]} frames, oldest first: np.stack the last {want[0]}"
    return "voxelise into the model's grid (model.grid has its range and cells)"


def _of_windows(name: str, found: int, windows: int) -> UsageError:
    return UsageError(
        f"{name} has {found} windows and occupancy has {windows}",
        remedy="give all arrays with the same first axis",
    )


def _poses(
    name: str, value: ArrayLike, frames: int, windows: int, conventions: Conventions
) -> NDArray[np.float64]:
    """Return poses (B, F, 13) with unit quaternions x, y, z, w; velocities as they came."""
    poses = np.asarray(value)
    if poses.dtype.kind not in "uif":
        raise UsageError(
            f"{name} holds {poses.dtype}, not numbers", remedy=f"thirteen numbers each: {_LAYOUT}"
        )
    poses = poses.astype(np.float64)  # a copy: the caller's array stays as it is
    if poses.ndim == 2:
        poses = poses[None]
    if poses.ndim != 3 or poses.shape[1:] != (frames, POSE_SIZE):
        raise UsageError(
            f"{name} has shape {np.shape(value)}, not ({frames}, {POSE_SIZE})",
            remedy=f"{frames} frames {_which(name)}, thirteen numbers each: {_LAYOUT}",
        )
    if len(poses) != windows:
        raise _of_windows(name, len(poses), windows)
    if not np.isfinite(poses).all():
        raise UsageError(f"{name} holds NaN or infinity", remedy="leave such windows out")
    lengths = np.linalg.norm(poses[..., ORIENTATION], axis=-1)
    if np.abs(lengths - 1.0).max() > 0.05:
        raise UsageError(
            f"{name}[:, 3:7] are not unit quaternions, their lengths range from "
            f"{lengths.min():.2f} to {lengths.max():.2f}",
            remedy=f"order the thirteen numbers {_LAYOUT}",
        )
    poses[..., ORIENTATION] /= lengths[..., None]
    _check_order(name, poses, conventions.quaternion)
    if conventions.quaternion == "wxyz":
        poses[..., ORIENTATION] = np.roll(poses[..., ORIENTATION], -1, axis=-1)
    return poses


def _which(name: str) -> str:
    """Return which frames an array of poses holds."""
    return "of the past, oldest first" if name == "poses" else "of the future, nearest first"


def _check_order(name: str, poses: NDArray[np.float64], order: str | None) -> None:
    """Raise where quaternions are level only if they are read w first."""
    if order is not None:
        return
    x, y, z, _ = np.moveaxis(poses[..., ORIENTATION], -1, 0)
    level = 1 - 2 * (x**2 + y**2)  # cosine of the tilt, read x, y, z, w
    level_w_first = 1 - 2 * (y**2 + z**2)
    if level.min() < _TILT and level_w_first.min() >= _TILT:
        raise UsageError(
            f"{name}[:, 3:7] looks w-first: read x, y, z, w the vehicle leans by "
            f"{np.degrees(np.arccos(np.clip(level.min(), -1, 1))):.0f} degrees",
            remedy='give quaternion="wxyz", or "xyzw" where it is right as it is',
        )


def _check_motion(poses: NDArray[np.float64], dt_s: float, conventions: Conventions) -> None:
    """Raise where velocities (B, P, 3) and positions do not belong together."""
    if conventions.velocity_frame is not None or poses.shape[1] < 2:
        return
    steps = np.diff(poses[..., POSITION], axis=1) / dt_s  # (B, P - 1, 3), m/s
    velocities = (poses[:, 1:, LINEAR_VELOCITY] + poses[:, :-1, LINEAR_VELOCITY]) / 2
    speed = float(np.median(np.linalg.norm(steps, axis=-1)))
    stated = float(np.median(np.linalg.norm(velocities, axis=-1)))
    if speed < _MOVES_MPS:
        return
    if stated < 0.05 * speed:
        raise UsageError(
            f"poses[:, 7:10] are near 0 while the positions move at {speed:.1f} m/s",
            remedy=f"np.gradient(poses[:, :3], {dt_s:g}, axis=0) gives velocities",
        )
    if not 1 - _AGREES < stated / speed < 1 / (1 - _AGREES):
        raise UsageError(
            f"the positions move at {speed:.1f} m/s with {dt_s:g} s between frames, and "
            f"poses[:, 7:10] state {stated:.1f} m/s",
            remedy=f"give frames {dt_s:g} s apart, in metres and seconds, or velocity_frame="
            '"world" where it is right as it is',
        )
    turned = rotate(poses[..., ORIENTATION], poses[..., LINEAR_VELOCITY])
    turned = (turned[:, 1:] + turned[:, :-1]) / 2
    errors = [float(np.median(np.linalg.norm(v - steps, axis=-1))) for v in (velocities, turned)]
    if errors[0] > _AGREES * speed and errors[1] < errors[0] / 2:
        raise UsageError(
            "poses[:, 7:10] looks body-frame: turned by the orientation it agrees with the motion",
            remedy='give velocity_frame="body", or "world" where it is right as it is',
        )


def _in_world(poses: NDArray[np.float64], conventions: Conventions) -> NDArray[np.float64]:
    if conventions.velocity_frame != "body":
        return poses
    poses = poses.copy()
    for part in (LINEAR_VELOCITY, ANGULAR_VELOCITY):
        poses[..., part] = rotate(poses[..., ORIENTATION], poses[..., part])
    return poses


def _heights(
    value: ArrayLike | None, poses: NDArray[np.float64], windows: int, past: int, future: int
) -> NDArray[np.float64]:
    """Return terrain heights (B, P) or (B, P + H), metres."""
    if value is None and np.abs(poses[..., 2]).max() > 200.0:
        raise UsageError(
            f"poses[:, 2] reaches {np.abs(poses[..., 2]).max():.0f} m and ground_z is missing",
            remedy="give ground_z, the height of the terrain under the vehicle in the same frame",
        )
    heights = np.asarray(0.0 if value is None else value, dtype=np.float64)
    shape = heights.shape
    if heights.ndim == 0:
        heights = np.full((windows, past), float(heights))
    if heights.ndim == 1:
        heights = np.broadcast_to(heights, (windows, len(heights)))
    lengths = (past, past + future) if future else (past,)
    if heights.ndim != 2 or len(heights) != windows or heights.shape[1] not in lengths:
        raise UsageError(
            f"ground_z has shape {shape}, not ({past},)",
            remedy=f"a number, one height a past frame ({past}), or with a plan one a frame of "
            "past and future",
        )
    if not np.isfinite(heights).all():
        raise UsageError("ground_z holds NaN or infinity", remedy="give metres, or leave it out")
    return heights

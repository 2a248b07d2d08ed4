"""Session folders, the users' interchange format: occupancy, poses, and `session.json`.

    drone_20240101_000000/
      session.json                       written last: a folder without it is not finished
      occupancy/000000_occupancy.npz     the layers of a frame, see `npz.py`
      poses/000000.json                  position, orientation, velocity, ground_z, timestamp,
                                         and optionally `believed` with the same keys

Recorded sessions load as well: `session.json`, `ground_z` and `timestamp` may be missing, numbers
need not start at 0 and may have gaps. Every guess about such a session is a sentence in its notes.
The poses are the true ones; `believed` is the pose that the vehicle computed for itself, and equals
the true one where a file has none. Written bytes depend on the content alone, never on a clock.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.npz import read_layers, read_occupancy
from vlwm.core.data.pose_files import (
    BELIEVED,
    BELIEVED_GROUND,
    GROUND,
    POSE,
    REMEDY,
    TIME,
    read_pose,
    write_pose,
)
from vlwm.core.data.session_meta import AGENTS, SessionMeta, read_meta, write_meta
from vlwm.core.errors import DataError
from vlwm.core.geometry.frames import (
    ANGULAR_VELOCITY,
    LINEAR_VELOCITY,
    finite_difference_velocity,
    rotate,
)

__all__ = ["AGENTS", "Session", "SessionMeta", "write_meta", "write_pose"]

DEFAULT_STEP_S = 0.5
_OCCUPANCY = re.compile(r"^(\d{6})_occupancy\.npz$")


class Session:
    """An existing session folder.

    Args:
        path: the folder.
        strict: a frame without a readable pose is an error instead of left out.

    Attributes:
        path: the folder.
        meta: its `session.json`, or the defaults of a recorded session without one; `dt_s` and
            `velocity_frame` are always set.
        numbers: int64 (N,), frame numbers in order.
        poses: float64 (N, 13), true poses, world frame, velocities rotated into it.
        ground_z: float64 (N,), terrain under the vehicle, world frame, metres.
        believed: float64 (N, 13), poses as the vehicle believed them; equal to `poses` where a
            pose file has none.
        believed_ground_z: float64 (N,), metres.
        timestamps: float64 (N,), seconds; NaN where a pose file has none.
        damaged: (file, reason) of frames whose pose is missing or broken.
        notes: sentences about guesses and missing values.

    Raises:
        DataError: no frame has a pose, or, with `strict`, one lacks it.
    """

    def __init__(self, path: Path, *, strict: bool = False) -> None:
        self.path, self.notes = path, list[str]()
        self.damaged: list[tuple[str, str]] = []
        self.meta, self._pose_crcs = read_meta(path)
        table = self._read_poses(strict)
        self.numbers = table[:, 0].astype(np.int64)
        values = table[:, 1:]
        self.poses, self.believed = values[:, POSE], values[:, BELIEVED]
        self.ground_z, self.believed_ground_z = values[:, GROUND], values[:, BELIEVED_GROUND]
        self.timestamps = values[:, TIME]
        self._settle_step()
        self._settle_velocities()
        if self.gaps:
            self.notes.append(f"{self.gaps} frame numbers are missing between the first and last")

    @property
    def has_believed(self) -> bool:
        """True if a believed pose differs from the true one."""
        same = np.array_equal(self.believed, self.poses)
        return not (same and np.array_equal(self.believed_ground_z, self.ground_z))

    @property
    def gaps(self) -> int:
        """Count the frame numbers that are missing between the first and the last."""
        return int(self.numbers[-1] - self.numbers[0] + 1 - len(self.numbers))

    def occupancy_path(self, number: int) -> Path:
        return self.path / "occupancy" / f"{number:06d}_occupancy.npz"

    def pose_path(self, number: int) -> Path:
        return self.path / "poses" / f"{number:06d}.json"

    def read_occupancy(self, number: int) -> NDArray[np.uint8]:
        """Return one frame's occupancy (X, Y, Z) of 0 and 1.

        Raises:
            DataError: the file is missing or damaged.
        """
        return read_occupancy(self.occupancy_path(number))

    def read_layers(self, number: int) -> dict[str, NDArray[np.uint8]]:
        """Return the layers of one frame by their npz names, each (X, Y, Z).

        Raises:
            DataError: the file is missing or damaged.
        """
        return read_layers(self.occupancy_path(number))

    def _read_poses(self, strict: bool) -> NDArray[np.float64]:
        """Return the frame number and the 29 numbers of `_read_pose` of each frame, (N, 30)."""
        rows = []
        for number in _frame_numbers(self.path):
            try:
                crc = self._pose_crcs[number] if number < len(self._pose_crcs) else None
                rows.append([number, *read_pose(self.pose_path(number), crc)])
            except DataError as error:
                if strict:
                    raise
                self.damaged.append((str(self.pose_path(number)), str(error)))
        if not rows:
            raise DataError(
                "a session without a frame that has a pose", where=self.path, remedy=REMEDY
            )
        return np.array(rows, dtype=np.float64)

    def _settle_step(self) -> None:
        """Set `dt_s` from `session.json`, else from the timestamps, else to half a second."""
        if self.meta.dt_s > 0:
            return
        steps = np.diff(self.timestamps) / np.diff(self.numbers)
        steps = steps[steps > 0]
        dt_s = round(float(np.median(steps)), 3) if len(steps) else DEFAULT_STEP_S
        source = "the timestamps" if len(steps) else "the format's default"
        self.notes.append(f"{dt_s:g} s between frames, after {source}")
        self.meta = replace(self.meta, dt_s=dt_s)

    def _settle_velocities(self) -> None:
        """Rotate body-frame velocities into the world frame, and note a guessed frame."""
        kind = self.meta.velocity_frame
        if kind is None:
            kind = guess_velocity_frame(self.poses, np.diff(self.numbers) * self.meta.dt_s)
            self.notes.append(f"velocities taken as {kind}-frame, which agrees with the motion")
        if kind == "body":
            for poses in (self.poses, self.believed):
                for part in (LINEAR_VELOCITY, ANGULAR_VELOCITY):
                    poses[:, part] = rotate(poses[:, 3:7], poses[:, part])
        self.meta = replace(self.meta, velocity_frame=kind)


def guess_velocity_frame(poses: NDArray[np.float64], dt_s: float | NDArray[np.float64]) -> str:
    """Return 'world' or 'body', whichever agrees better with finite differences of positions.

    Args:
        poses: (N, 13).
        dt_s: seconds between frames, one number or (N - 1,).
    """
    if len(poses) < 3:
        return "world"
    measured, _ = finite_difference_velocity(poses[:, :3], poses[:, 3:7], dt_s)
    as_world = poses[:, LINEAR_VELOCITY]
    as_body = rotate(poses[:, 3:7], as_world)
    errors = [float(np.median(np.linalg.norm(v - measured, axis=1))) for v in (as_world, as_body)]
    return "world" if errors[0] <= errors[1] else "body"


def find_sessions(root: Path) -> list[Path]:
    """Return the session folders of a data folder, by name; empty where there are none."""
    if not root.is_dir():
        return []
    # most entries of a large data folder are shards: those are not asked for a folder inside
    folders = [entry.path for entry in os.scandir(root) if entry.is_dir()]
    return sorted(Path(path) for path in folders if os.path.isdir(f"{path}/occupancy"))


def list_sessions(root: Path) -> list[Path]:
    """Return the session folders of a data folder, by name.

    Raises:
        DataError: the folder is missing or holds none.
    """
    found = find_sessions(root)
    if not found:
        raise no_sessions(root)
    return found


def no_sessions(root: Path) -> DataError:
    """Return the error of a data folder that is missing or empty."""
    if not root.is_dir():
        return DataError(
            "no such data folder", where=root, remedy="vlwm prepare makes it; or give --data DIR"
        )
    return DataError(
        "no session in this folder", where=root, remedy="vlwm prepare fills it; or --data DIR"
    )


def _frame_numbers(path: Path) -> list[int]:
    names = (_OCCUPANCY.match(p.name) for p in (path / "occupancy").iterdir())
    return sorted(int(m.group(1)) for m in names if m)

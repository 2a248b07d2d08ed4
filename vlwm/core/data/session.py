"""Session folders, the users' interchange format: occupancy, poses, and `session.json`.

    drone_20240101_000000/
      session.json                       written last: a folder without it is not finished
      occupancy/000000_occupancy.npz     key "occupancy", (X, Y, Z) uint8, 0 or 1
      poses/000000.json                  position, orientation, velocity, ground_z, timestamp

Recorded sessions load as well: `session.json`, `ground_z` and `timestamp` may be missing, numbers
need not start at 0 and may have gaps, and what had to be guessed about one is said in its notes.
Written bytes depend on the content alone, never on a clock.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from isal import igzip_lib, isal_zlib
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from vlwm import __version__
from vlwm.core.errors import DataError
from vlwm.core.files import atomic_path, flush_disk, make_folder, read_json, write_json
from vlwm.core.geometry.frames import (
    ANGULAR_VELOCITY,
    LINEAR_VELOCITY,
    finite_difference_velocity,
    rotate,
)

AGENTS = ("drone", "rover")
DEFAULT_STEP_S = 0.5
_OCCUPANCY = re.compile(r"^(\d{6})_occupancy\.npz$")
_MEMBER = b"occupancy.npy"
_POSES = "write it as docs/data_format.md says, or take the frame away"
_FIXED = (20, 0, 8, 0, 0x21)  # version, flags, deflate, 00:00:00, 1980-01-01
_KEYS = (
    ("position", "xyz"),
    ("orientation", "xyzw"),
    ("velocity.linear", "xyz"),
    ("velocity.angular", "xyz"),
)


@dataclass(frozen=True)
class SessionMeta:
    """What `session.json` says.

    Attributes:
        agent: 'drone' or 'rover'.
        dt_s: seconds between frames.
        grid: {"range": six metres, "voxel_size": three metres, "shape": three cells}.
        origin: world (0, 0, 0): {"crs", "easting", "northing", "height"}; None: without a place.
        velocity_frame: 'world' or 'body'; None: decided by agreement with finite differences.
        split: 'train', 'val' or 'test' for a session planned inside a region, else None.
        pattern: name of the way it goes, for a planned session.
    """

    agent: str
    dt_s: float
    grid: dict[str, Any] | None = None
    origin: dict[str, Any] | None = None
    seed: int | None = None
    frames: int | None = None
    velocity_frame: str | None = None
    split: str | None = None
    pattern: str | None = None
    fill: str = "surface"
    procedural: bool = False
    attribution: str = ""
    generator: str = f"vlwm {__version__}"
    sources: list[dict[str, Any]] = field(default_factory=list)
    sensors: dict[str, Any] = field(default_factory=dict)


class Session:
    """A session folder that is there.

    Args:
        path: the folder.
        strict: a frame without a readable pose is an error instead of left out.

    Attributes:
        path: the folder.
        meta: its `session.json`, or what a recorded session without one amounts to; its `dt_s` and
            `velocity_frame` are settled.
        numbers: int64 (N,), frame numbers in order.
        poses: float64 (N, 13), world frame, velocities turned into it.
        ground_z: float64 (N,), terrain under the vehicle, world frame, metres.
        timestamps: float64 (N,), seconds; NaN where a pose file has none.
        damaged: (file, reason) of frames whose pose is missing or broken.
        notes: sentences about what was guessed or is missing.

    Raises:
        DataError: no frame has a pose, or, with `strict`, one lacks it.
    """

    def __init__(self, path: Path, *, strict: bool = False) -> None:
        self.path, self.notes = path, list[str]()
        self.damaged: list[tuple[str, str]] = []
        self.meta = _read_meta(path)
        table = self._read_poses(strict)
        self.numbers = table[:, 0].astype(np.int64)
        self.poses, self.ground_z, self.timestamps = table[:, 1:14], table[:, 14], table[:, 15]
        self._settle_step()
        self._settle_velocities()
        if self.gaps:
            self.notes.append(f"{self.gaps} frame numbers are missing between the first and last")

    @property
    def gaps(self) -> int:
        """Frame numbers that are missing between the first and the last."""
        return int(self.numbers[-1] - self.numbers[0] + 1 - len(self.numbers))

    def occupancy_path(self, number: int) -> Path:
        return self.path / "occupancy" / f"{number:06d}_occupancy.npz"

    def pose_path(self, number: int) -> Path:
        return self.path / "poses" / f"{number:06d}.json"

    def read_occupancy(self, number: int) -> NDArray[np.uint8]:
        """One frame's occupancy (X, Y, Z) of 0 and 1.

        Raises:
            DataError: the file is missing, damaged, or holds something else.
        """
        return read_occupancy(self.occupancy_path(number))

    def _read_poses(self, strict: bool) -> NDArray[np.float64]:
        """Frame number, the 13 numbers of the pose, ground_z and timestamp, (N, 16)."""
        rows = []
        for number in _frame_numbers(self.path):
            try:
                rows.append([number, *_read_pose(self.pose_path(number))])
            except DataError as error:
                if strict:
                    raise
                self.damaged.append((str(self.pose_path(number)), str(error)))
        if not rows:
            raise DataError(
                "a session without a frame that has a pose", where=self.path, remedy=_POSES
            )
        return np.array(rows, dtype=np.float64)

    def _settle_step(self) -> None:
        """Seconds between frames: `session.json`, else the timestamps, else half a second."""
        if self.meta.dt_s > 0:
            return
        steps = np.diff(self.timestamps) / np.diff(self.numbers)
        steps = steps[steps > 0]
        dt_s = round(float(np.median(steps)), 3) if len(steps) else DEFAULT_STEP_S
        source = "the timestamps" if len(steps) else "the format's default"
        self.notes.append(f"{dt_s:g} s between frames, after {source}")
        self.meta = replace(self.meta, dt_s=dt_s)

    def _settle_velocities(self) -> None:
        """Turn body-frame velocities into the world frame; say which they were."""
        kind = self.meta.velocity_frame
        if kind is None:
            kind = guess_velocity_frame(self.poses, np.diff(self.numbers) * self.meta.dt_s)
            self.notes.append(f"velocities taken as {kind}-frame, which agrees with the motion")
        if kind == "body":
            for part in (LINEAR_VELOCITY, ANGULAR_VELOCITY):
                self.poses[:, part] = rotate(self.poses[:, 3:7], self.poses[:, part])
        self.meta = replace(self.meta, velocity_frame=kind)


def guess_velocity_frame(poses: NDArray[np.float64], dt_s: float | NDArray[np.float64]) -> str:
    """'world' or 'body', whichever agrees better with finite differences of the positions.

    Args:
        poses: (N, 13).
        dt_s: seconds between frames, one number or (N - 1,).
    """
    if len(poses) < 3:
        return "world"
    measured, _ = finite_difference_velocity(poses[:, :3], poses[:, 3:7], dt_s)
    told = poses[:, LINEAR_VELOCITY]
    turned = rotate(poses[:, 3:7], told)
    errors = [float(np.median(np.linalg.norm(v - measured, axis=1))) for v in (told, turned)]
    return "world" if errors[0] <= errors[1] else "body"


def list_sessions(root: Path) -> list[Path]:
    """Session folders of a data folder, by name.

    Raises:
        DataError: the folder is missing or holds none.
    """
    if not root.is_dir():
        raise DataError(
            "no such data folder", where=root, remedy="vlwm prepare makes it; or give --data DIR"
        )
    found = [p for p in root.iterdir() if p.is_dir() and (p / "occupancy").is_dir()]
    if not found:
        raise DataError(
            "no session in this folder", where=root, remedy="vlwm prepare fills it; or --data DIR"
        )
    return sorted(found)


def _read_meta(path: Path) -> SessionMeta:
    """What `session.json` says; a time step that it does not say is 0, to be settled."""
    agent = path.name.partition("_")[0]
    agent = agent if agent in AGENTS else "drone"
    file = path / "session.json"
    if not file.exists():
        return SessionMeta(agent=agent, dt_s=0.0)
    values = read_json(file)
    if not isinstance(values, Mapping):
        raise DataError(
            "session.json is not an object",
            where=file,
            remedy="write it as docs/data_format.md says, or delete it: it is optional",
        )
    known = {k: v for k, v in values.items() if k in SessionMeta.__dataclass_fields__}
    meta = SessionMeta(**{"agent": agent, "dt_s": 0.0, **known})
    if meta.velocity_frame not in (None, "world", "body"):
        raise DataError(
            f"velocity_frame {meta.velocity_frame!r} is unknown",
            where=file,
            remedy="use 'world' or 'body', or leave the key out",
        )
    return meta


def _frame_numbers(path: Path) -> list[int]:
    names = (_OCCUPANCY.match(p.name) for p in (path / "occupancy").iterdir())
    return sorted(int(m.group(1)) for m in names if m)


def _read_pose(path: Path) -> list[float]:
    """The 13 numbers of a pose, then ground_z (0 where absent) and timestamp (NaN)."""
    try:
        value = read_json(path)
    except DataError as error:
        raise DataError(
            f"a frame has no readable pose: {error.what}", where=path, remedy=_POSES
        ) from error
    try:
        row = []
        for key, axes in _KEYS:
            part = value
            for name in key.split("."):
                part = part[name]
            row += [float(part[a]) for a in axes]
        row += [float(value.get("ground_z", 0.0)), float(value.get("timestamp", np.nan))]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"a pose lacks {error}", where=path, remedy=_POSES) from error
    length = float(np.linalg.norm(row[3:7]))
    if not np.isfinite(row[:14]).all() or length < 1e-6:
        raise DataError(
            "a pose holds numbers that are not finite or no orientation",
            where=path,
            remedy=_POSES,
        )
    row[3:7] = [v / length for v in row[3:7]]
    return row


def write_pose(path: Path, pose: NDArray[np.float64], ground_z: float, time_s: float) -> None:
    """Write one pose file by rename; not flushed, see `write_meta`."""
    at = iter(round(float(v), 9) for v in pose)
    values: dict[str, Any] = {
        "position": {a: next(at) for a in "xyz"},
        "orientation": {a: next(at) for a in "xyzw"},
        "velocity": {k: {a: next(at) for a in "xyz"} for k in ("linear", "angular")},
    }
    values["ground_z"], values["timestamp"] = round(float(ground_z), 9), round(time_s, 6)
    with atomic_path(path, flush=False) as temporary:
        temporary.write_text(json.dumps(values) + "\n", encoding="utf-8")


def write_meta(folder: Path, meta: SessionMeta) -> None:
    """Write `session.json`; done last, it says that the session is whole and on the disk."""
    flush_disk(make_folder(folder))
    write_json(folder / "session.json", asdict(meta))


def read_occupancy(path: Path) -> NDArray[np.uint8]:
    """The array "occupancy" of an npz file as uint8 (X, Y, Z) of 0 and 1.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    try:
        raw = path.read_bytes()
        array = _own_npz(raw)
        if array is None:
            with np.load(io.BytesIO(raw), allow_pickle=False) as opened:
                array = opened["occupancy"]
    except FileNotFoundError as error:
        raise DataError(
            "no such frame", where=path, remedy="run the vlwm prepare command of this folder again"
        ) from error
    except (OSError, ValueError, KeyError, EOFError, zlib.error, struct.error, BadZipFile) as error:
        raise _damaged(path, str(error)) from error
    if array.ndim != 3 or array.dtype.kind not in "buif":
        raise _damaged(path, f"an array {array.dtype} of shape {array.shape}")
    return (array != 0).astype(np.uint8)


def _own_npz(raw: bytes) -> NDArray[Any] | None:
    """The array of a file that `npz_bytes` wrote, inflated by ISA-L; None for any other file.

    Several times as fast as `np.load`; whatever looks odd, damage included, is left to that.
    """
    header = struct.Struct("<4s5H3I2H")
    if len(raw) < header.size + len(_MEMBER):
        return None
    magic, *fixed, crc, packed, size, name, extra = header.unpack_from(raw)
    start = header.size + len(_MEMBER)
    if (magic, tuple(fixed), name, extra) != (b"PK\x03\x04", _FIXED, len(_MEMBER), 0):
        return None
    tail = raw[start + packed :]
    if raw[header.size : start] != _MEMBER or tail != _zip_end((crc, packed, size, name)):
        return None
    try:
        body = igzip_lib.decompress(raw[start : start + packed], flag=igzip_lib.DECOMP_DEFLATE)
    except igzip_lib.IsalError:  # type: ignore[misc]  # its stub says an instance
        return None
    if len(body) != size or isal_zlib.crc32(body) != crc:
        return None
    return np.asarray(npy_format.read_array(io.BytesIO(body), allow_pickle=False))


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(
        f"a frame is damaged: {reason}", where=path, remedy="delete it and run vlwm prepare again"
    )


def npz_bytes(occupancy: NDArray[np.uint8]) -> bytes:
    """An npz file with the array "occupancy", deflated by ISA-L at level 1.

    What `np.savez_compressed` writes, twenty times faster and with the same bytes every time: one
    member "occupancy.npy" in a zip (PKWARE APPNOTE 4.3) with a fixed date.
    """
    cells, header = np.ascontiguousarray(occupancy), io.BytesIO()
    npy_format.write_array_header_1_0(header, npy_format.header_data_from_array_1_0(cells))
    raw = b"".join((header.getvalue(), cells.data))  # one copy of the cells, not three
    packed = igzip_lib.compress(raw, level=1, flag=igzip_lib.COMP_DEFLATE)
    sizes = (isal_zlib.crc32(raw), len(packed), len(raw), len(_MEMBER))
    local = struct.pack("<4s5H3I2H", b"PK\x03\x04", *_FIXED, *sizes, 0) + _MEMBER
    return local + packed + _zip_end(sizes)


def _zip_end(sizes: tuple[int, int, int, int]) -> bytes:
    """What follows the member in the zip; sizes are CRC-32, packed, unpacked, of the name."""
    central = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, *_FIXED, *sizes, 0, 0, 0, 0, 0, 0)
    central += _MEMBER
    at = struct.calcsize("<4s5H3I2H") + len(_MEMBER) + sizes[1]
    return central + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(central), at, 0)


def write_occupancy(path: Path, occupancy: NDArray[np.uint8]) -> None:
    """Write one frame's npz file by rename; not flushed, see `write_meta`."""
    with atomic_path(path, flush=False) as temporary:
        temporary.write_bytes(npz_bytes(occupancy))

"""Read TartanAir (Wang et al. 2020) V1 and V2: depth pictures and poses of the left camera.

Poses are lines tx ty tz qx qy qz qw, north-east-down, of a camera that looks along x; 10 Hz
nominal without time stamps. V1: `depth_left/*_left_depth.npy`, float32 metres, 640 × 480, focal
length 320. V2: `depth_lcam_front/*_depth.png`, four bytes a pixel that are one little-endian
float32, 640 × 640, focal length 320, pixel centres at 0.5. Each version is also read from the
files of the other, and from .npz. Sky is a large number and cut off by range.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError  # of a damaged header of .npy
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.formats.axes import AXES, mount_to_standard, to_standard
from vlwm.core.data.recordings.pose_track import PoseTrack
from vlwm.core.data.recordings.readers.depth_camera import DepthCamera, numbered
from vlwm.core.data.recordings.recording import Image, Recording, Scan
from vlwm.core.errors import DataError
from vlwm.core.text import plain_reason
from vlwm.core.vocabulary import Agent

ATTRIBUTION = "TartanAir (Wang et al. 2020)"
STEP_S = 0.1
_LAYOUT = "give --input a trajectory with pose_left.txt (V1) or pose_lcam_front.txt (V2), or above"


@dataclass(frozen=True)
class _Layout:
    """Names of one version of the data set."""

    poses: str
    depth: str
    images: str
    camera: DepthCamera
    licence: str


def read_depth_png(path: Path) -> NDArray[np.float32]:
    """Return the depth (V, U) in metres of a picture whose four channels are one float32.

    Raises:
        ValueError: another kind of picture.
    """
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 4 or pixels.dtype != np.uint8:
        raise ValueError("not a picture of four 8-bit channels")
    return np.ascontiguousarray(pixels).view("<f4")[..., 0]


def _read_npy(path: Path) -> NDArray[np.float32]:
    depth = np.load(path, allow_pickle=False)
    if isinstance(depth, np.lib.npyio.NpzFile):
        with depth as arrays:
            if len(arrays.files) != 1:
                raise ValueError(f"{len(arrays.files)} arrays instead of one depth picture")
            depth = arrays[arrays.files[0]]
    if depth.ndim != 2 or depth.dtype.kind != "f":
        raise ValueError(f"an array {depth.dtype} of shape {depth.shape}, not a depth picture")
    return np.asarray(depth, dtype=np.float32)


_READERS: Mapping[str, Callable[[Path], NDArray[np.float32]]] = {
    ".npy": _read_npy, ".npz": _read_npy, ".png": read_depth_png,
}  # fmt: skip


def _read(path: Path) -> NDArray[np.float32]:
    """Return the depth (V, U) in metres of a file by the end of its name."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"depth is read from {', '.join(_READERS)}, not from {path.suffix}")
    return reader(path)


_LAYOUTS = (
    _Layout(
        "pose_left.txt", "depth_left", "image_left",
        DepthCamera((480, 640), 320.0, (320.0, 240.0)), "not stated for V1",
    ),
    _Layout(
        "pose_lcam_front.txt", "depth_lcam_front", "image_lcam_front",
        DepthCamera((640, 640), 320.0, (320.0, 320.0), first_px=0.5), "CC BY 4.0",
    ),
)  # fmt: skip


def read_tartanair(root: Path) -> list[Recording]:
    """Return one recording for each trajectory below a folder.

    Raises:
        DataError: there is none, or its poses are not a table of seven numbers.
    """
    found = [
        _trajectory(path.parent, layout, root)
        for layout in _LAYOUTS
        for path in sorted(root.rglob(layout.poses))
    ]
    if not found:
        raise DataError("no TartanAir trajectory here", where=root, remedy=_LAYOUT)
    return found


def _trajectory(folder: Path, layout: _Layout, root: Path) -> Recording:
    try:
        rows = np.loadtxt(folder / layout.poses, dtype=np.float64, ndmin=2)
        track = PoseTrack.of(np.arange(len(rows)) * STEP_S, rows[:, :3], rows[:, 3:].reshape(-1, 4))
    except (OSError, ValueError) as error:
        reason = plain_reason(error)
        raise DataError(
            f"not a table of seven numbers a line: {reason}",
            where=folder / layout.poses,
            remedy=_LAYOUT,
        ) from error
    axes = AXES["ned"]
    files, left_out = numbered(
        p for p in (folder / layout.depth).glob("*") if "_depth." in p.name.lower()
    )
    damaged: list[tuple[str, str]] = []
    parts = [p for p in folder.relative_to(root.parent).parts if p not in ("", ".")]
    return Recording(
        name="_".join(parts),
        agent=Agent.DRONE,
        scans=lambda: _scans(files, layout.camera, left_out, damaged),
        poses=to_standard(track, axes),
        extrinsics={"LIDAR": mount_to_standard(np.eye(4), axes)},
        images=[
            Image(int(p.stem.split("_")[0]) * STEP_S, p)
            for p in sorted((folder / layout.images).glob("[0-9]*.png"))
        ],
        attribution=ATTRIBUTION,
        licence=layout.licence,
        notes=[
            f"{len(files)} depth pictures, {len(rows)} poses, 10 Hz by the documentation",
            f"depths of {layout.camera.farthest_m:g} m and more are sky",
        ],
        damaged=damaged,
        source=str(folder),
    )


def _scans(
    files: list[tuple[int, Path]],
    camera: DepthCamera,
    left_out: list[tuple[str, str]],
    damaged: list[tuple[str, str]],
) -> Iterator[Scan]:
    damaged[:] = left_out
    for number, path in files:
        try:
            points = camera.points(_read(path))
        except (
            OSError, ValueError, EOFError, SyntaxError, TokenError, zlib.error, BadZipFile,
        ) as error:  # fmt: skip
            damaged.append((str(path), plain_reason(error)))
            continue
        yield Scan(number * STEP_S, points)

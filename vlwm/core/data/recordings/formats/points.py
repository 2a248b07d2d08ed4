"""Read point files: .bin, .npy, .pcd, .ply, .las and .laz."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError  # of a damaged header of .npy

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.formats.pcd import read_pcd
from vlwm.core.data.recordings.formats.ply import read_ply
from vlwm.core.errors import DataError, MachineError

TIME_FIELDS = ("t", "time", "timestamp", "offset_time", "time_offset", "gps_time", "offset_ns")
INTENSITY_FIELDS = ("intensity", "reflectivity", "i", "scalar_intensity")
_SMOOTHER = 0.3  # so much nearer are neighbouring points with the right length of a row


@dataclass(frozen=True, eq=False)
class Points:
    """Points of one file.

    Attributes:
        xyz: float32 (N, 3), metres, all finite.
        intensity: float32 (N,), or None.
        times: (N,), times of the points in the file's own unit, or None.
    """

    xyz: NDArray[np.float32]
    intensity: NDArray[np.float32] | None = None
    times: NDArray[np.generic] | None = None


def from_columns(columns: Mapping[str, NDArray[np.generic]]) -> Points:
    """Return points of named columns (N,), without those that are not finite."""
    xyz = np.stack([columns[a].astype(np.float32) for a in "xyz"], axis=-1)
    kept = np.isfinite(xyz).all(axis=1)
    intensity = next((columns[n] for n in INTENSITY_FIELDS if n in columns), None)
    times = next((columns[n] for n in TIME_FIELDS if n in columns), None)
    return Points(
        xyz[kept],
        None if intensity is None else intensity[kept].astype(np.float32),
        None if times is None else times[kept],
    )


def read_points(path: Path) -> Points:
    """Return the points of a file; the name's ending tells the format.

    Raises:
        DataError: another ending, or the file is missing or damaged.
        MachineError: a .las or .laz file and no laspy.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"point files of the kind {path.suffix or path.name} are not supported",
            where=path,
            remedy=f"write them as one of {', '.join(READERS)}",
        )
    try:
        return reader(path)
    except (
        OSError, ValueError, KeyError, EOFError, IndexError, OverflowError, SyntaxError, TokenError
    ) as error:  # fmt: skip
        raise DataError(
            f"a damaged point file: {error}",
            where=path,
            remedy="copy it again, or take it out of the folder",
        ) from error


def _read_bin(path: Path) -> Points:
    raw = np.fromfile(path, dtype="<f4")
    if path.name.lower().endswith(".pcd.bin"):  # nuScenes: x, y, z, intensity, ring
        if len(raw) % 5:
            raise ValueError(f"{len(raw)} numbers are not rows of x, y, z, intensity, ring")
        rows = raw.reshape(-1, 5)[:, :4]
    else:
        if len(raw) % 4:
            raise ValueError(f"{len(raw)} numbers are not rows of x, y, z, intensity")
        _refuse_other_rows(raw)
        rows = raw.reshape(-1, 4)
    return from_columns(dict(zip(("x", "y", "z", "intensity"), rows.T, strict=True)))


def _refuse_other_rows(raw: NDArray[np.float32]) -> None:
    """Raise ValueError if the numbers (N,) are clearly rows of 3, 5 or 6 instead of 4.

    A scanner measures one point next to the last. With the wrong length of a row, the columns mix
    and neighbours are far apart.
    """
    jumps = {}
    for width in (4, 3, 5, 6):
        if len(raw) % width == 0 and len(raw) >= 64 * width:
            places = raw[: 20_000 * width].reshape(-1, width)[:, :3].astype(np.float64)
            steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
            jumps[width] = float(np.median(steps))
    best = min(jumps, key=lambda w: jumps[w], default=4)
    if best != 4 and jumps[best] < _SMOOTHER * jumps.get(4, np.inf):
        raise ValueError(
            f"its numbers are rows of {best}, not of x, y, z, intensity; write it as .npy of shape "
            f"(N, {best})"
        )


def _read_npy(path: Path) -> Points:
    rows = np.load(path, allow_pickle=False)
    if rows.dtype.names:
        return from_columns({name: rows[name] for name in rows.dtype.names})
    if rows.ndim != 2 or rows.shape[1] < 3 or rows.dtype.kind not in "fiu":
        raise ValueError(f"an array {rows.dtype} of shape {rows.shape}, not (N, 3) or more")
    names = ("x", "y", "z", "intensity")[: rows.shape[1]]
    return from_columns(dict(zip(names, rows.T[:4], strict=True)))


def _read_pcd(path: Path) -> Points:
    return from_columns(read_pcd(path.read_bytes()))


def _read_ply(path: Path) -> Points:
    return from_columns(read_ply(path.read_bytes()))


def _read_las(path: Path) -> Points:
    try:
        import laspy
    except ImportError as error:
        raise MachineError(
            "reading .las and .laz files needs laspy",
            where=path,
            remedy="pip install 'vlwm[las]'",
        ) from error
    try:
        cloud = laspy.read(path)
    except laspy.errors.LaspyException as error:
        raise ValueError(str(error)) from error
    columns = {a: np.asarray(cloud[a], dtype=np.float64) for a in "xyz"}
    names = set(cloud.point_format.dimension_names)
    columns |= {n: np.asarray(cloud[n]) for n in ("intensity", "gps_time") if n in names}
    return from_columns(columns)


READERS: Mapping[str, Callable[[Path], Points]] = {
    ".bin": _read_bin,
    ".npy": _read_npy,
    ".pcd": _read_pcd,
    ".ply": _read_ply,
    ".las": _read_las,
    ".laz": _read_las,
}
"""reader by the ending of the name"""

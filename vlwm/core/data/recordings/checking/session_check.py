"""Check a session folder: counts, rates and units, and if another reading of its poses fits better.

Occupied cells of one frame, moved into another frame by the poses, should meet occupied cells. How
often they do depends on the scene, so no fixed share is asked for. Instead the poses are read in
other ways (an axis flipped, the quaternion w first, half a frame later, the sensor turned by a
degree), and a fault is reported where such a reading fits clearly better in most pairs of frames.
Where the motion cannot show a difference, nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.checking.frame_pairs import MOST_PAIRS, FramePairs, Pairs
from vlwm.core.data.recordings.checking.mount_fit import fitted_mount
from vlwm.core.data.recordings.checking.readings import READINGS
from vlwm.core.data.recordings.formats.extrinsic import TOLERANCE
from vlwm.core.data.recordings.options import RECORDING
from vlwm.core.data.session import Session
from vlwm.core.files import read_json
from vlwm.core.geometry.frames import (
    LINEAR_VELOCITY,
    ego_of,
    finite_difference_velocity,
    rotate,
    wrap_angle,
)
from vlwm.core.geometry.grid import VoxelGrid

Floats = NDArray[np.float64]

_LEAST_PAIRS = 6  # pairs of frames that show a difference, below which nothing is claimed
_GAIN = 0.04  # least share by which a better reading fits better ...
_SIGMAS = 3.0  # ... and how sure that has to be
_FREE_FIT = 0.005  # a fitted mount has to meet this much more than a reading without numbers
_TURN_DEG = 10.0  # a session that turns less cannot show faults of the heading
_MOVE_M = 2.0
_UPRIGHT = 0.7  # height of the tip of a unit z axis that is tilted by 45 degrees
_RATIOS = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}


@dataclass
class SessionCheck:
    """Result of a check.

    Attributes:
        session: name.
        frames: number of frames with poses.
        facts: counts and rates by name.
        faults: one sentence each.
        cannot_tell: what the motion cannot show.
        fits: mean share of cells that meet, by reading; 'as written' first.
    """

    session: str
    frames: int
    facts: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    cannot_tell: list[str] = field(default_factory=list)
    fits: dict[str, float] = field(default_factory=dict)


def check_session(session: Session, grid: VoxelGrid) -> SessionCheck:
    """Check a session.

    Raises:
        DataError: its frames are of another grid.
    """
    check = SessionCheck(session.path.name, len(session.numbers))
    _check_times(session, check)
    _check_mounts(session.meta.sensors, check)
    _add_scan_fit(session, check)
    ego = ego_of(session.poses, session.ground_z)
    turn = float(np.degrees(np.abs(wrap_angle(np.diff(ego[:, 3]))).sum()))
    way = float(np.linalg.norm(np.diff(ego[:, :2], axis=0), axis=1).sum())
    check.facts |= {"turn_deg": round(turn, 1), "way_m": round(way, 1)}
    _check_motion(session, grid, check)
    _check_upright(session, check)
    return check


def _check_motion(session: Session, grid: VoxelGrid, check: SessionCheck) -> None:
    """Compare other readings of the poses as far as the motion shows them."""
    if check.facts["way_m"] < _MOVE_M:
        check.cannot_tell.append("the vehicle hardly moves: poses and cells cannot be compared")
        return
    turns = check.facts["turn_deg"] >= _TURN_DEG
    if not turns:
        check.cannot_tell.append("the vehicle hardly turns: faults of the heading and the mount")
    _check_readings(session, grid, check, turns=turns)


def _check_upright(session: Session, check: SessionCheck) -> None:
    """Report a vehicle that is upside down in most frames; no motion is needed to see it."""
    quaternions = session.poses[:, 3:7]
    upright = _rise(quaternions)
    check.facts["upright"] = round(upright, 2)
    if not upright < 0.0:  # NaN without frames
        return
    w_first = READINGS["w first"][1]
    if any(w_first in sentence for sentence in check.faults):
        return
    if _rise(quaternions[:, [1, 2, 3, 0]]) > _UPRIGHT:
        check.faults.append(f"{w_first} (the vehicle is upright so, and upside down as written)")
    else:
        check.faults.append(
            "the vehicle is upside down in most frames: z of the body or of the world points down, "
            "and not of both (--axes)"
        )


def _rise(quaternions: Floats) -> float:
    """Return the median height of the tip of the body's z axis, 1 upright and -1 upside down."""
    return float(np.median(rotate(quaternions, [0.0, 0.0, 1.0])[:, 2]))


def _check_times(session: Session, found: SessionCheck) -> None:
    """Compare time stamps, the step and the velocities with the positions."""
    dt_s = session.meta.dt_s
    gaps = session.gaps
    found.facts |= {"step_s": dt_s, "missing_frames": gaps, "damaged": len(session.damaged)}
    for file, reason in session.damaged[:3]:
        found.faults.append(f"a frame has no usable pose: {reason} ({file})")
    stamps = session.timestamps[~np.isnan(session.timestamps)]
    steps = np.diff(session.timestamps) / np.diff(session.numbers)
    steps = steps[np.isfinite(steps)]
    if len(stamps) > 2 and len(steps):
        step = float(np.median(steps))
        if step <= 0:
            found.faults.append("the time stamps do not increase")
        else:
            _name_unit(found, step / dt_s, "the time stamps are in")
    speeds = np.linalg.norm(session.poses[:, LINEAR_VELOCITY], axis=1)
    spans = np.diff(session.numbers) * dt_s
    moved, _ = finite_difference_velocity(session.poses[:, :3], session.poses[:, 3:7], spans)
    true = np.linalg.norm(moved, axis=1)
    fast = (true > 0.5) & (speeds > 1e-12)
    if fast.sum() >= 3:
        ratio = float(np.median(speeds[fast] / true[fast]))
        found.facts["velocity_ratio"] = ratio
        _name_unit(found, 1.0 / ratio, "the velocities were computed from times in")


def _name_unit(found: SessionCheck, ratio: float, words: str) -> None:
    """Report a unit if the ratio is nearer to that of another unit than to 1."""
    every = {"seconds": 1.0, **_RATIOS}
    best = min(every, key=lambda n: abs(np.log(max(ratio, 1e-12) / every[n])))
    if best != "seconds":
        found.faults.append(f"{words} {best}, not seconds")


def _check_mounts(sensors: Mapping[str, Any], found: SessionCheck) -> None:
    for name, values in sensors.items():
        try:
            if "matrix" in values:
                turn = np.array(values["matrix"], dtype=np.float64)[:3, :3]
                error = float(np.abs(turn @ turn.T - np.eye(3)).max())
                mirrors = np.linalg.det(turn) < 0
            else:
                length = np.linalg.norm(np.array(values["rotation"], dtype=np.float64))
                error, mirrors = abs(float(length) - 1.0), False
        except (KeyError, TypeError, ValueError, IndexError):
            found.faults.append(f"session.json has no readable mount of {name}")
            continue
        if error > TOLERANCE or mirrors:
            found.faults.append(f"the mount of {name} in session.json is not a rotation")


def _add_scan_fit(session: Session, found: SessionCheck) -> None:
    """Add what the scans of a recording showed of their mount before they were accumulated.

    Scans that are accumulated with a wrong mount agree with each other, so cells alone hide it.
    """
    file = session.path / RECORDING
    if not file.is_file():
        return
    report = read_json(file).get("report", {})
    if "faults" not in report:
        found.cannot_tell.append(
            "a wrong mount: this session was accumulated without comparing its scans; prepare it "
            "again"
        )
        return
    found.faults += [f"by its scans, {sentence}" for sentence in report["faults"]]
    found.cannot_tell += [f"by its scans, {sentence}" for sentence in report["cannot_tell"]]


def _check_readings(session: Session, grid: VoxelGrid, found: SessionCheck, *, turns: bool) -> None:
    """Move cells between frames by each reading, and report the one that fits clearly better."""
    own = ego_of(session.poses, session.ground_z)
    frames = FramePairs(session, grid, own)
    if len(frames.pairs) < _LEAST_PAIRS:
        found.cannot_tell.append("too few pairs of frames with structure to compare")
        return
    spread = frames.pairs[:: max(1, len(frames.pairs) // MOST_PAIRS)]
    found.fits["as written"] = round(float(frames.fit(own, spread).mean()), 4)
    others = {n: reading(session.poses, session.ground_z) for n, (reading, _) in READINGS.items()}
    shown = {name: frames.showing(own, other) for name, other in others.items()}
    better: dict[str, Pairs] = {}
    for name, other in others.items():
        found.fits[name] = round(float(frames.fit(other, spread).mean()), 4)
        if _fits_better(frames, own, other, shown[name]):
            better[name] = shown[name]
    words = {name: words for name, (_, words) in READINGS.items()}
    mount, held_out = fitted_mount(frames, own)
    if _fits_better(frames, own, mount.applied(own), held_out):
        others["mount"], better["mount"], words["mount"] = mount.applied(own), held_out, mount.words
        found.fits["mount"] = round(float(frames.fit(others["mount"], spread).mean()), 4)
    if better:
        # all of them on the same pairs: those by which any of them was found
        pairs = np.unique(np.concatenate(list(better.values())), axis=0)
        fits = {name: float(frames.fit(others[name], pairs).mean()) for name in better}
        best = max(fits, key=lambda n: fits[n] - (_FREE_FIT if n == "mount" else 0.0))
        written = float(frames.fit(own, pairs).mean())
        found.faults.append(
            f"{words[best]} (cells meet in {100 * fits[best]:.0f} % of the cases so, "
            f"{100 * written:.0f} % as written)"
        )
    for sentence, names in _HARD_TO_SHOW.items():
        if max(len(shown[name]) for name in names) < _LEAST_PAIRS:
            found.cannot_tell.append(sentence)
    if not better and turns and max(found.fits.values()) < 0.1:
        found.cannot_tell.append("cells of neighbouring frames hardly meet under any reading")


def _fits_better(frames: FramePairs, own: Floats, other: Floats, pairs: Pairs) -> bool:
    """Return True where a reading fits clearly better than the poses as they are written."""
    if len(pairs) < _LEAST_PAIRS:
        return False
    before = frames.fit(own, pairs)  # (P,)
    gain = frames.fit(other, pairs) - before
    error = float(gain.std(ddof=1)) / np.sqrt(len(gain))
    return bool(gain.mean() > _GAIN * max(before.mean(), 0.05) and gain.mean() > _SIGMAS * error)


_HARD_TO_SHOW = {
    "a delay of half a frame: the motion is too steady": (
        "half a frame later", "half a frame earlier",
    ),
    "a mount that is off in yaw by some degrees: the vehicle moves too little": (
        "turned 4", "turned -4",
    ),
    "a mount that is off by a metre: the vehicle turns too little": (
        "1 m ahead", "1 m back", "1 m left", "1 m right",
    ),
}  # fmt: skip
"""faults that only some motions show → readings that would explain them"""

"""How often `vlwm prepare --check` finds a fault, and how often it speaks on clean sessions.

    python benchmarks/check_sessions.py [--sessions 20] [--seed 7] [--only FAULT ...]
        [--place DIR] [--real ../shared/data] [--json FILE]

Made sessions: `vlwm prepare` on a procedural city, 28 frames each, the first N that turn by 30
degrees and more, and one that flies straight. Each fault is put into a copy of the
session's poses, its meta or its time stamps. Real sessions: KITTI odometry (six scans), Argoverse 2
(two sweeps) and TartanAir (ten pictures), converted at 10 Hz by their readers. With --place the
made sessions are kept, and --only measures some of the faults: a count in parts.

    found      the sentence of the fault is among those of the check
    other      the check speaks, but names another fault
    silent     it says nothing
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vlwm.core.city.procedural import procedural_city
from vlwm.core.config.load import load_config
from vlwm.core.data.generation.prepare import PreparePlan, prepare
from vlwm.core.data.recordings.checking.session_check import SessionCheck, check_session
from vlwm.core.data.recordings.convert import convert
from vlwm.core.data.recordings.options import ConvertOptions
from vlwm.core.data.recordings.readers.registry import read_dataset
from vlwm.core.data.session import Session, list_sessions
from vlwm.core.geometry.frames import ego_of, multiply_quaternions, quaternion_from_heading
from vlwm.core.geometry.grid import VoxelGrid

GRID = ("point_cloud_range=[-24,-24,-2,24,24,28]", "voxel_size=[0.8,0.8,2.5]")
CELLS = VoxelGrid.from_range((-24, -24, -2, 24, 24, 28), (0.8, 0.8, 2.5))
TURNS_DEG = 30.0
CLEAN = "clean"
_STREET = VoxelGrid((-40, -40, -3), (0.4, 0.4, 0.4), (200, 200, 25))
REAL = {
    "kitti": ("kitti_odometry", _STREET),
    "argoverse2": ("argoverse2", _STREET),
    "tartanair": ("tartanair", VoxelGrid((-8, -8, -3), (0.1, 0.1, 0.1), (160, 160, 60))),
}
"""real sample → its folder, and the grid of its session"""
Change = Callable[[Session], None]


def poses(change: Callable[[np.ndarray], None]) -> Change:
    """A fault of the poses (N, 13)."""

    def put(session: Session) -> None:
        change(session.poses)

    return put


def _w_first(p: np.ndarray) -> None:
    p[:, 3:7] = p[:, [6, 3, 4, 5]]


def _flip(axis: int) -> Callable[[np.ndarray], None]:
    def change(p: np.ndarray) -> None:
        p[:, axis] *= -1.0

    return change


def _mount(p: np.ndarray) -> None:
    """The cells are turned by 5 degrees and 1 m ahead of where the poses say."""
    turn = quaternion_from_heading(np.radians(5.0))
    heading = ego_of(p, np.zeros(len(p)))[:, 3]
    p[:, 0] += np.cos(heading)
    p[:, 1] += np.sin(heading)
    p[:, 3:7] = multiply_quaternions(p[:, 3:7], turn)


def _twice(p: np.ndarray) -> None:
    """Poses of which the true ones are the ego transform applied twice."""
    ego = ego_of(p, np.zeros(len(p)))
    half = ego[:, 3] / 2
    # x_once + R(yaw_once) x_once = x_twice, so the single transform is solved for
    cos, sin = np.cos(half), np.sin(half)
    for k in range(len(p)):
        matrix = np.array([[1 + cos[k], -sin[k]], [sin[k], 1 + cos[k]]])
        p[k, :2] = np.linalg.solve(matrix, p[k, :2])
    p[:, 3:7] = quaternion_from_heading(half)


def _delay(p: np.ndarray) -> None:
    later = np.concatenate([p[1:], p[-1:]])
    sign = np.sign((p[:, 3:7] * later[:, 3:7]).sum(axis=1, keepdims=True))
    p[:, :3] = (p[:, :3] + later[:, :3]) / 2
    p[:, 3:7] += sign * later[:, 3:7]
    p[:, 3:7] /= np.linalg.norm(p[:, 3:7], axis=1, keepdims=True)


def _no_rotation(session: Session) -> None:
    matrix = np.eye(4)
    matrix[0, 1] = 0.05
    session.meta = replace(session.meta, sensors={"LIDAR": {"matrix": matrix.tolist()}})


def _milliseconds(session: Session) -> None:
    session.timestamps = session.timestamps * 1e3


FAULTS: dict[str, tuple[Change, str]] = {
    "flipped axis": (poses(_flip(0)), "x is mirrored"),
    "w-first quaternion": (poses(_w_first), "written w first"),
    "wrong extrinsic (5 degrees, 1 m)": (poses(_mount), "the mount of the sensor is off"),
    "extrinsic no rotation": (_no_rotation, "the mount of LIDAR in session.json"),
    "ego transform twice": (poses(_twice), "ego transform was applied twice"),
    "time in the wrong unit": (_milliseconds, "in milliseconds"),
    "lidar-pose delay of half a frame": (poses(_delay), "by half a frame"),
    "mirrored y": (poses(_flip(1)), "y is mirrored"),
}


def made(root: Path, count: int, seed: int = 7) -> list[Path]:
    """Prepare sessions of a procedural city, half as many again as have to turn."""
    config = load_config("test_local", GRID)
    plan = PreparePlan(
        frames=28, sessions=count + count // 2, agents=("drone", "rover"), patterns=("mix",),
        seed=seed, fill="surface", workers=1, dt_s=0.5,
    )  # fmt: skip
    prepare(procedural_city(800.0, seed), config, root, plan)
    return list_sessions(root)


def turn_of(session: Session) -> float:
    """Degrees that a session turns in all."""
    heading = np.unwrap(ego_of(session.poses, session.ground_z)[:, 3])
    return float(np.degrees(np.abs(np.diff(heading)).sum()))


def verdict(found: SessionCheck, words: str, fault: str) -> str:
    if any(words in sentence for sentence in found.faults):
        return "found"
    if found.faults:
        return "other"
    unsure = next((w for w in ("delay", "mount") if w in fault.replace("extrinsic", "mount")), "?")
    return "cannot tell" if any(unsure in c for c in found.cannot_tell) else "silent"


def real(root: Path) -> dict[str, dict[str, str]]:
    """Return what the check says of real sessions at 10 Hz, clean and with each fault.

    One frame is made of each scan. The sessions are short: most faults do not show in their motion.
    """
    found: dict[str, dict[str, str]] = {}
    for name, (folder, grid) in REAL.items():
        (recording,) = read_dataset(name, root / folder)
        with tempfile.TemporaryDirectory() as out:
            options = ConvertOptions(rate_hz=10.0, window_s=0.04, remove_moving=False)
            path = Path(out) / convert(recording, Path(out), grid, options).session
            check = check_session(Session(path), grid)
            words = "; ".join(check.faults) or "silent"
            more = f" (cannot tell: {'; '.join(check.cannot_tell)})" if check.cannot_tell else ""
            found[name] = {CLEAN: f"{check.frames} frames: {words}{more}"}
            for fault, (change, sentence) in FAULTS.items():
                session = Session(path)
                change(session)
                with_fault = check_session(session, grid)
                word = verdict(with_fault, sentence, fault)
                unsure = word == "silent" and bool(with_fault.cannot_tell)
                found[name][fault] = "cannot tell" if unsure else word
    return found


def turning(root: Path, count: int, seed: int = 7) -> list[Path]:
    """Return `count` made sessions that turn."""
    return [p for p in made(root, count, seed) if turn_of(Session(p)) >= TURNS_DEG][:count]


def measure(
    paths: list[Path], grid: VoxelGrid, names: Sequence[str], kept: Path | None = None
) -> dict[str, Counter[str]]:
    """Return what the check says of clean sessions ('clean'), and of faults put into them.

    Args:
        kept: file of the words so far: a count that was interrupted goes on from there.
    """
    words: dict[str, dict[str, str]] = {}
    if kept is not None and kept.exists():
        words = json.loads(kept.read_text())
    for name in names:
        row = words.setdefault(name, {})
        for path in paths:
            if path.name not in row:
                row[path.name] = word_of(path, grid, name)
            if kept is not None:
                kept.write_text(json.dumps(words, indent=1))
        print(name, dict(Counter(row.values())), flush=True)
    return {name: Counter(words[name].values()) for name in names}


def word_of(path: Path, grid: VoxelGrid, name: str) -> str:
    """Return what the check says of a session with a fault, or of a clean one."""
    session = Session(path)
    if name == CLEAN:
        found = check_session(session, grid)
        word = "speaks" if found.faults else "silent"
    else:
        change, words = FAULTS[name]
        change(session)
        found = check_session(session, grid)
        word = verdict(found, words, name)
    if word not in ("found", "silent") or (word == "silent" and name != CLEAN):
        print(f"  {name}: {path.name} {word}: {found.faults or found.cannot_tell}", flush=True)
    return word


def straight(path: Path, grid: VoxelGrid) -> list[str]:
    """Return what the check cannot tell of a session that flies straight on."""
    session = Session(path)
    session.poses[:, 3:7] = [0, 0, 0, 1]
    session.poses[:, 1] = session.poses[0, 1]
    session.poses[:, 0] = 2.0 * np.arange(len(session.poses))
    return check_session(session, grid).cannot_tell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7, help="of the city and of the flights")
    parser.add_argument("--only", nargs="+", choices=[CLEAN, *FAULTS])
    parser.add_argument("--place", type=Path, help="folder that keeps the made sessions")
    parser.add_argument("--real", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        paths = turning(given.place or Path(temporary), given.sessions, given.seed)
        print(f"{len(paths)} sessions turn; {time.monotonic() - started:.0f} s", flush=True)
        kept = None if given.place is None else given.place / "words.json"
        names = given.only or (CLEAN, *FAULTS)
        found: dict[str, Any] = {"faults": measure(paths, CELLS, names, kept)}
        found["straight flight"] = straight(paths[0], CELLS)
        print("straight flight:", found["straight flight"], flush=True)
    if given.real is not None:
        found["real"] = real(given.real)
        print(json.dumps(found["real"], indent=1), flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

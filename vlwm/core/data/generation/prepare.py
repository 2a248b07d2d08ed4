"""Make session folders, the packed store and `splits.json` from a City.

Sessions are planned first (a function of city, seed and number), then forked workers that share the
city's triangles voxelise the frames. Every file appears by rename, `session.json` last of a session
and `splits.json` last of all, so a run that was killed resumes where it stopped and ends with the
same bytes, whatever the number of workers; frames that were deleted or damaged since are made
again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vlwm.core.city.city import City
from vlwm.core.config.schema import Config
from vlwm.core.data.generation.scenes import AnyCity, Scenes
from vlwm.core.data.generation.session_plans import (
    PlannedSession,
    PreparePlan,
    deal_patterns,
    grid_values,
    hash_of_sources,
    plan_sessions,
    regions_of,
)
from vlwm.core.data.generation.session_writer import OnFrames, make_sessions
from vlwm.core.data.packed_store import FOLDER as PACKED
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.sensors.rig import LIDARS
from vlwm.core.data.splits import HELD_OUT, NAMES, PLAN_FILE, Region, Splits, deal_sessions
from vlwm.core.errors import DataError, MachineError, UsageError
from vlwm.core.files import free_bytes, make_folder, read_json, remove_temporaries, write_json
from vlwm.core.geometry.frames import from_ego
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.parallel import default_workers
from vlwm.core.store.shard import SUFFIX
from vlwm.version import __version__

CITY_FILE = "city_report.json"
"""what was read, and every feature that was left out, by file, name and reason"""

NPZ_LIMIT_BYTES = 5e9
"""up to so much a data folder holds npz files by default"""

_NPZ_PER_CELL, _SHARD_PER_CELL = 0.03, 0.003  # bytes; measured, and rounded up
_BYTES_PER_FRAME = 2000.0  # pose file, ends of blocks
_BYTES_PER_PICTURE = 80_000.0  # measured in Marunouchi
_EARLIER = {
    "lidar": None, "camera": False, "patterns": ["random"], "observe": None, "pose_noise": "none",
    "held_out": HELD_OUT,
}  # fmt: skip
"""values of a folder that does not name them"""

__all__ = ["OnFrames", "PreparePlan", "PrepareReport", "default_workers", "outline", "prepare"]


@dataclass(frozen=True)
class PrepareReport:
    """The outcome of `prepare`.

    Attributes:
        occupied_share: of all cells.
        ground_share: of the occupied cells, those that are lowest in their column.
        ground_below_share: of the columns, those whose ground leaves the grid at the bottom.
        written, kept: frames made now, and frames that were there.
    """

    sessions: int
    frames: int
    occupied_share: float
    ground_share: float
    ground_below_share: float
    frames_per_s: float
    splits: dict[str, int]
    written: int = 0
    kept: int = 0
    attribution: str = ""
    procedural: bool = False
    city: dict[str, Any] = field(default_factory=dict)


def prepare(
    city: City,
    config: Config,
    output: Path,
    plan: PreparePlan,
    on_frames: OnFrames = lambda session, done, total: None,
) -> PrepareReport:
    """Make the sessions of a plan in `output`, pack them, and write `splits.json`.

    Raises:
        DataError: the place is too small, or `output` holds other data.
        MachineError: the disk has no room.
    """
    deal_patterns(plan)
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    started = time.monotonic()
    _check_room(output, grid, plan)
    scenes = Scenes(city, grid, plan.fill)
    regions, splits = regions_of(city, grid, plan)
    make_folder(output)
    _claim(output, city, grid, plan)
    write_json(output / CITY_FILE, report_of(city))
    written, sessions = 0, list[PlannedSession]()
    scene = scenes.whole
    for some in plan_sessions(scenes, regions, plan):
        written += make_sessions(output, some, scene, plan, on_frames)
        sessions += some
    rate = written / max(time.monotonic() - started, 1e-9)
    store = PackedStore.open(output, grid, workers=plan.workers)
    if _drop_damaged(store, sessions):
        written += make_sessions(output, sessions, scene, plan, on_frames)
        store = PackedStore.open(output, grid, workers=plan.workers)
    splits.write(output / "splits.json")
    below = _ground_below(sessions, city, grid)
    return _report(store, splits, plan, city, written, rate, below)


def outline(
    city: AnyCity, config: Config, output: Path, plan: PreparePlan, *, npz: bool = True
) -> dict[str, Any]:
    """Return the plan of `prepare` as JSON values, after the checks that need no writing.

    Args:
        npz: False for shards alone.

    Raises:
        DataError: the place is too small.
        MachineError: the disk has no room.
    """
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    _check_room(output, grid, plan, npz=npz)
    regions, _ = regions_of(city, grid, plan)
    dealt = deal_sessions(plan.sessions)
    return {
        **asdict(plan),
        "city": city.name,
        "grid": list(grid.shape),
        "bytes": bytes_needed(grid, plan, npz=npz),
        "npz": npz,
        "splits": {name: dealt.count(name) * plan.frames for name in NAMES},
        "dealt": [{"split": s, "agent": a, "pattern": p} for s, a, p in deal_patterns(plan)],
        "regions": {name: len(regions[name]) for name in NAMES},
        "inside_m": {name: [round(s, 1) for s in _largest(regions[name])] for name in NAMES},
    }


def _largest(regions: Sequence[Region]) -> tuple[float, float]:
    """Return the sides of the largest region, metres."""
    return max((region.sides for region in regions), key=lambda sides: sides[0] * sides[1])


def bytes_needed(grid: VoxelGrid, plan: PreparePlan, *, npz: bool = True) -> int:
    """Return about how many bytes a plan takes on the disk.

    Args:
        npz: False without the npz, pose and sensor files: shards alone.
    """
    layers = 1 if plan.observe is None else 3  # each costs about as much as the truth
    shards = layers * grid.num_cells * _SHARD_PER_CELL + _BYTES_PER_FRAME / 10
    if not npz:
        return round(plan.sessions * plan.frames * shards)
    files = layers * grid.num_cells * _NPZ_PER_CELL + _BYTES_PER_FRAME
    if plan.lidar is not None:
        files += LIDARS[plan.lidar].beams * 16
    if plan.camera:
        files += _BYTES_PER_PICTURE
    return round(plan.sessions * plan.frames * (files + shards))


def _begun_with_npz(target: Path) -> bool | None:
    """Return True for a folder with npz sessions, False for one with shards, else None."""
    if any(target.glob("*/occupancy")):
        return True
    return False if any(target.glob(f"*{SUFFIX}")) else None


def writes_npz(asked: bool | None, target: Path, grid: VoxelGrid, plan: PreparePlan) -> bool:
    """Return True where npz files are written, False where shards alone are.

    Args:
        asked: by the operator; None continues as the folder was begun, else up to 5 GB.

    Raises:
        UsageError: shards alone, which hold no scans and pictures, with a lidar or a camera; or
            the folder was begun in the other way.
    """
    records = plan.lidar is not None or plan.camera
    if asked is False and records:
        raise UsageError(
            "shards hold no scans and pictures",
            remedy="leave out --no-npz, or --lidar and --camera",
        )
    begun = _begun_with_npz(target)
    if None not in (asked, begun) and asked != begun:
        what, option = ("npz files", "--no-npz") if begun else ("shards alone", "--npz")
        raise UsageError(
            f"this folder was begun with {what}",
            where=target,
            remedy=f"leave out {option}, or give another --output",
        )
    if begun is not None or asked is not None or records:
        return bool(begun) if begun is not None else asked is not False
    return bytes_needed(grid, plan) <= NPZ_LIMIT_BYTES


def _check_room(output: Path, grid: VoxelGrid, plan: PreparePlan, *, npz: bool = True) -> None:
    need = bytes_needed(grid, plan, npz=npz)
    free = free_bytes(output)
    if need > free:
        raise MachineError(
            f"about {need / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free",
            where=output,
            remedy="take fewer --sessions or --frames, or another --output",
        )


def report_of(city: AnyCity) -> dict[str, object]:
    """Return the content of `city_report.json`: what was read, what was left out, from what."""
    sources = [asdict(source) for source in city.sources]
    return {"city": city.name, **asdict(city.report), "sources": sources}


def claim_of(city: AnyCity, grid: VoxelGrid, plan: PreparePlan) -> dict[str, Any]:
    """Return what a data folder or store is for, as the JSON values of `prepare.json`."""
    values = {
        "generator": f"vlwm {__version__}",
        "city": city.name,
        "sources": hash_of_sources(city),
        "grid": grid_values(grid),
        **_kept_values(plan),
    }
    claim: dict[str, Any] = json.loads(json.dumps(values))
    return claim


def check_claim(found: Any, wanted: dict[str, Any], where: str | Path) -> None:
    """Refuse to mix two preparations in one place.

    Raises:
        DataError: the place was prepared from another city, in another way, or by a version whose
            bytes may differ.
    """
    known = found if isinstance(found, dict) else {}
    names = [*wanted, *(k for k in known if k in _EARLIER and k not in wanted)]
    other = [k for k in names if known.get(k, _EARLIER.get(k)) != wanted.get(k, _EARLIER.get(k))]
    if other:
        raise DataError(
            f"this folder was prepared with another {', '.join(other)}",
            where=where,
            remedy="give another --output or --store, or delete the folder to make it again",
        )


def _claim(output: Path, city: City, grid: VoxelGrid, plan: PreparePlan) -> None:
    """Write `prepare.json`, or compare it with the plan where it exists.

    Raises:
        DataError: the folder holds another preparation.
    """
    wanted = claim_of(city, grid, plan)
    for folder in (output, output / PACKED):
        remove_temporaries(folder)
    path = output / PLAN_FILE
    if path.exists():
        check_claim(read_json(path), wanted, output)
    else:
        write_json(path, wanted)


def _kept_values(plan: PreparePlan) -> dict[str, Any]:
    """Return what a folder remembers of its plan: later options at their defaults have no keys."""
    values = asdict(plan)
    later = ("observe", "pose_noise", "held_out")
    plain = {"workers"} | {k for k in later if values[k] == _EARLIER[k]}
    return {k: v for k, v in values.items() if k not in plain}


def _drop_damaged(store: PackedStore, sessions: list[PlannedSession]) -> bool:
    """Delete damaged files of our own sessions; whether there were any."""
    ours = {store.root / planned.name for planned in sessions}
    files = [Path(file) for file, _ in store.damaged if Path(file).parents[1] in ours]
    for file in files:
        file.unlink(missing_ok=True)
    return bool(files)


def _report(
    store: PackedStore,
    splits: Splits,
    plan: PreparePlan,
    city: City,
    written: int,
    rate: float,
    below: float,
) -> PrepareReport:
    occupied, ground = _shares(store)
    return PrepareReport(
        sessions=plan.sessions,
        frames=len(store),
        occupied_share=occupied,
        ground_share=ground,
        ground_below_share=below,
        frames_per_s=round(rate, 2),
        splits={name: splits.counts(store)[name] for name in NAMES},
        written=written,
        kept=len(store) - written,
        attribution=city.attribution,
        procedural=city.procedural,
        city={
            "name": city.name,
            **{k: v for k, v in asdict(city.report).items() if k not in ("skipped", "notes")},
            "skipped": len(city.report.skipped),
            "notes": list(city.report.notes),
        },
    )


_SHARES_FRAMES = 200


def _shares(store: PackedStore) -> tuple[float, float]:
    """Return the mean share of occupied cells, and of those the share lowest in their column.

    Over at most 200 frames, evenly spread.
    """
    rows = np.unique(np.linspace(0, len(store) - 1, _SHARES_FRAMES).astype(int))
    cells = lowest = 0
    for row in rows:
        occupancy = store.read_frame(int(row))
        cells += int(occupancy.sum(dtype=np.int64))
        lowest += int(occupancy.any(axis=2).sum())
    share = cells / (len(rows) * store.grid.num_cells)
    return round(share, 6), round(lowest / max(1, cells), 6)


def _ground_below(sessions: list[PlannedSession], city: City, grid: VoxelGrid) -> float:
    """Return the share of columns whose ground is below the grid, as happens on steep ground.

    Over at most 200 frames, evenly spread, and every fourth column each way.
    """
    ego = np.concatenate([s.ego() for s in sessions])
    x, y, _ = (axis[::4] for axis in grid.axis_centers())
    columns = np.stack([*np.meshgrid(x, y, indexing="ij"), np.zeros((len(x), len(y)))], axis=-1)
    shares = []
    for row in np.unique(np.linspace(0, len(ego) - 1, _SHARES_FRAMES).astype(int)):
        ground = city.terrain.height(from_ego(columns, ego[row])[..., :2])
        shares.append(float((ground - ego[row, 2] < grid.lower_m[2]).mean()))
    return round(float(np.mean(shares)), 6)

"""Prepare into a store: any number of machines run the same command, and any may vanish.

A session is a pure function of (city, plan, index), so nothing is locked: each machine goes through
the plan in an order of its own, skips the shards that the store has, makes a session in a folder
that it deletes afterwards, looks again, and writes the shard whole. Two machines that make the same
session write the same content; the first shard stays, and one that differs is reported. The machine
that sees the last shard writes `splits.json`, and so does every later one, with the same bytes.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vlwm.core.city.city import City
from vlwm.core.config.schema import Config
from vlwm.core.data.generation.frame_jobs import Scene
from vlwm.core.data.generation.prepare import CITY_FILE, check_claim, claim_of
from vlwm.core.data.generation.session_plans import (
    PreparePlan,
    SessionPlanner,
    deal_patterns,
    regions_of,
    session_names,
)
from vlwm.core.data.generation.session_writer import OnFrames, make_session
from vlwm.core.data.session import Session
from vlwm.core.data.session_shard import shard_of_session
from vlwm.core.data.splits import PLAN_FILE
from vlwm.core.errors import DataError, UsageError
from vlwm.core.files import json_text
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.voxelize import TriangleTiles
from vlwm.core.store.objects import ObjectStore, open_store
from vlwm.core.store.shard import SUFFIX, parse_index

SPLITS_FILE = "splits.json"


@dataclass
class StoreReport:
    """The work of one machine on a store.

    Attributes:
        store: URL.
        sessions: of the plan.
        made: sessions written by this machine.
        present: sessions that were in the store when this machine came to them.
        twice: sessions that another machine finished while this one made them.
        different: shards in the store whose content differs from what this machine made.
        frames: written by this machine.
        frames_per_s: of this machine.
        finished: True if the store holds the whole plan.
    """

    store: str
    sessions: int
    made: int = 0
    present: int = 0
    twice: int = 0
    different: list[str] = field(default_factory=list)
    frames: int = 0
    frames_per_s: float = 0.0
    finished: bool = False
    attribution: str = ""


def prepare_store(
    city: City,
    config: Config,
    url: str,
    plan: PreparePlan,
    on_frames: OnFrames = lambda session, done, total: None,
    *,
    share: tuple[int, int] | None = None,
    order_seed: int | None = None,
) -> StoreReport:
    """Make the sessions of a plan that a store lacks.

    Args:
        url: of the store.
        on_frames: called with (session, frames done, frames in all).
        share: (i, n): only the sessions i, i + n, …; None: all that are missing.
        order_seed: of the order in which this machine goes through the plan; None: random.

    Raises:
        DataError: the place is too small, or the store holds another preparation.
        MachineError: the store refuses or does not answer.
    """
    if plan.lidar is not None or plan.camera:
        raise UsageError(
            "a store keeps no scans and pictures",
            remedy="leave out --lidar and --camera, or use --output instead of --store",
        )
    deal_patterns(plan)
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    regions, splits = regions_of(city, grid, plan)
    store = open_store(url)
    _claim(store, city, claim_of(city, grid, plan))
    scene = Scene(TriangleTiles.build(city.triangles, scratch=city.scratch), city, grid, plan.fill)
    planner = SessionPlanner(scene, regions, plan)
    names = session_names(plan)
    report = StoreReport(url, len(names), attribution=city.attribution)
    started = time.monotonic()
    for index in _missing(store, names, share, order_seed, report):
        raw = _session_shard(planner, index, scene, plan, on_frames)
        _write_once(store, names[index] + SUFFIX, raw, report)
        report.frames += plan.frames
    report.frames_per_s = round(report.frames / max(time.monotonic() - started, 1e-9), 2)
    present = store.list()
    report.finished = all(name + SUFFIX in present for name in names)
    if report.finished:
        store.write(SPLITS_FILE, splits.to_text().encode())
    return report


def parse_share(text: str | None) -> tuple[int, int] | None:
    """Return (i, n) of `--shard i/n`, counted from 0.

    Raises:
        UsageError: it is not two whole numbers with 0 <= i < n.
    """
    if text is None:
        return None
    first, _, count = text.partition("/")
    if first.isascii() and count.isascii() and first.isdigit() and count.isdigit():
        share = int(first), int(count)
        if share[0] < share[1]:
            return share
    raise UsageError(f"--shard {text} is not i/n", remedy="use 0/4, 1/4, 2/4 and 3/4, for example")


def _claim(store: ObjectStore, city: City, wanted: dict[str, Any]) -> None:
    """Write `prepare.json` and the city's report, or compare the first with the plan."""
    raw = store.read(PLAN_FILE)
    if raw is None:
        report = {"city": city.name, **asdict(city.report)}
        store.write(CITY_FILE, json_text(report).encode())
        store.write(PLAN_FILE, json_text(wanted).encode())
        raw = store.read(PLAN_FILE)  # another machine may have written another plan just now
    try:
        found = json.loads(raw or b"")
    except (ValueError, RecursionError) as error:
        raise DataError(
            "prepare.json of the store is damaged",
            where=store.place(PLAN_FILE),
            remedy="delete it, then run the same command again",
        ) from error
    check_claim(found, wanted, store.url)


def _missing(
    store: ObjectStore,
    names: Sequence[str],
    share: tuple[int, int] | None,
    order_seed: int | None,
    report: StoreReport,
) -> Iterator[int]:
    """Yield the sessions that the store lacks at the time, in an order of this machine."""
    mine = np.arange(len(names)) if share is None else np.arange(share[0], len(names), share[1])
    seed = int.from_bytes(os.urandom(8), "little") if order_seed is None else order_seed
    for index in np.random.default_rng(seed).permutation(mine):
        if names[index] + SUFFIX in store.list():
            report.present += 1
        else:
            yield int(index)


def _session_shard(
    planner: SessionPlanner, index: int, scene: Scene, plan: PreparePlan, on_frames: OnFrames
) -> bytes:
    """Make one session in a temporary folder and return its shard."""
    planned = planner.plan(index)
    with tempfile.TemporaryDirectory(prefix="vlwm-session-") as scratch:
        folder = Path(scratch) / planned.name
        make_session(folder, planned, scene, plan, on_frames)
        return shard_of_session(Session(folder, strict=True), scene.grid, strict=True)


def _write_once(store: ObjectStore, name: str, raw: bytes, report: StoreReport) -> None:
    """Write a shard unless the store has it by now; report one with other content."""
    found = store.read(name)
    if found is None:
        store.write(name, raw)
        report.made += 1
        return
    report.twice += 1
    if found != raw and _content(found, store.place(name)) != _content(raw, name):
        report.different.append(name)


def _content(raw: bytes, where: str) -> tuple[Any, ...]:
    """Return the decoded content of a shard; its compression depends on the version of zstd."""
    index = parse_index(raw, where)
    header = {k: v for k, v in index.header.items() if k != "tables"}
    tables = {name: table.tobytes() for name, table in index.tables.items()}
    layers = {name: layer.content.tobytes() for name, layer in index.layers.items()}
    return header, tables, layers

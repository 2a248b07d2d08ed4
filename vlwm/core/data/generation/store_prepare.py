"""Prepare into a store: any number of machines run the same command, and any may vanish.

A session is a pure function of (city, plan, index), so nothing is locked: each machine goes through
the plan in an order of its own (`session_order`), skips the shards that the store has, makes a
session in a folder that it deletes afterwards, looks again, and writes the shard whole. Two
machines that make the same session write the same content; the first shard stays, and one that
differs is reported. The machine that sees the last shard writes `splits.json`, and so does every
later one, with the same bytes.

While a machine makes a session, the store holds a note of it: a hint, not a lock. Others
make the sessions without a note first, then wait as long as a session takes, then make those too,
since a machine that vanished leaves its note.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vlwm.core.config.schema import Config
from vlwm.core.data.generation.prepare import CITY_FILE, check_claim, claim_of, report_of
from vlwm.core.data.generation.scenes import AnyCity
from vlwm.core.data.generation.session_order import SessionOrder, longest_pause_s
from vlwm.core.data.generation.session_plans import (
    PreparePlan,
    deal_patterns,
    regions_of,
    session_names,
)
from vlwm.core.data.generation.session_work import Outcome, SessionMaker, SessionWork
from vlwm.core.data.generation.session_writer import OnFrames
from vlwm.core.data.splits import PLAN_FILE
from vlwm.core.engines import Engine
from vlwm.core.errors import DataError, UsageError
from vlwm.core.files import json_text
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.store.object_store import ObjectStore
from vlwm.core.store.objects import open_store
from vlwm.core.store.shard import SUFFIX

_PATIENCE = 1.5
"""sessions' time that a machine waits at the end for those that others seem to make"""
_LOOK_S = 5.0

SPLITS_FILE = "splits.json"
NOTE = ".making"
"""follows the name of a session that some machine makes, or made when it vanished"""


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
    city: AnyCity,
    config: Config,
    url: str,
    plan: PreparePlan,
    on_frames: OnFrames = lambda session, done, total: None,
    *,
    share: tuple[int, int] | None = None,
    order_seed: int | None = None,
    engine: Engine | None = None,
) -> StoreReport:
    """Make the sessions of a plan that a store lacks.

    Args:
        url: of the store.
        on_frames: called with (session, frames done, frames in all).
        share: (i, n): only the sessions i, i + n, …; None: all that are missing.
        order_seed: of the order in which this machine goes through the plan; None: random.
        engine: makes whole sessions, such as workers of Dask; None: this machine goes through the
            plan by itself, next to others.

    Raises:
        DataError: the place is too small, or the store holds another preparation.
        MachineError: the store or the engine refuses or does not answer.
    """
    if plan.lidar is not None or plan.camera:
        raise UsageError(
            "a store keeps no scans and pictures",
            remedy="leave out --lidar and --camera, or use --output instead of --store",
        )
    deal_patterns(plan)
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    _, splits = regions_of(city, grid, plan)
    store = open_store(url)
    _claim(store, city, claim_of(city, grid, plan))
    names = session_names(plan)
    mine = range(len(names)) if share is None else range(share[0], len(names), share[1])
    report = StoreReport(url, len(names), attribution=city.attribution)
    started = time.monotonic()
    if engine is None:
        maker = SessionMaker(city, grid, plan)
        _walk(store, maker, mine, order_seed, report, on_frames)
    else:
        made_up = config.prepare
        known = (made_up.procedural_size_m, plan.seed) if city.procedural else None
        missing = _missing(store, names, mine)
        report.present = len(mine) - len(missing)
        for outcome in engine.run(SessionWork(url, grid, plan, known), missing):
            _count(report, outcome)
            on_frames(outcome.name, plan.frames, plan.frames)
    report.frames_per_s = round(report.frames / max(time.monotonic() - started, 1e-9), 2)
    report.finished = not _missing(store, names, range(len(names)))
    if report.finished:
        store.write(SPLITS_FILE, splits.to_text().encode())
        _remove_notes(store)  # of machines that vanished
    return report


def _walk(
    store: ObjectStore,
    maker: SessionMaker,
    mine: Sequence[int],
    order_seed: int | None,
    report: StoreReport,
    on_frames: OnFrames,
) -> None:
    """Make what the store lacks at the time, until it has all of `mine`."""
    seed = int.from_bytes(os.urandom(8), "little") if order_seed is None else order_seed
    order = SessionOrder(len(mine), seed)
    places = {index: place for place, index in enumerate(mine)}
    done, session_s, put_s, met = 0, 0.0, 0.0, False
    at_first = len(_missing(store, maker.names, mine))
    while _missing(store, maker.names, mine):
        # before the look: what others began meanwhile is seen
        time.sleep(random.uniform(0.0, longest_pause_s(done, session_s, put_s)))
        missing = _missing(store, maker.names, mine)
        if not missing:
            break
        noted = _noted(store, maker.names)
        left = [places[index] for index in missing if index not in noted]
        others = at_first - len(missing) > done - report.twice
        if session_s and (not left or (others and order.all_in_work(left))):
            # others are probably about to write these: their machines get the time of one session
            left = _wait(store, maker.names, mine, _PATIENCE * session_s, missing)
            if not left:
                break
            left = [places[index] for index in left]
        index = mine[order.choose(left or [places[index] for index in missing], met=met)]
        begun, note = time.monotonic(), maker.names[index] + NOTE
        store.write(note, b"1")
        outcome = maker.put(store, index, on_frames)
        store.delete(note)
        session_s, put_s = time.monotonic() - begun, outcome.put_s
        _count(report, outcome)
        met = outcome.twice
        done += 1
    report.present = len(mine) - done


def _wait(
    store: ObjectStore,
    names: Sequence[str],
    mine: Sequence[int],
    seconds: float,
    missing: list[int],
) -> list[int]:
    """Wait for other machines to write the last sessions; return those still missing."""
    until = time.monotonic() + seconds
    while missing and time.monotonic() < until:
        time.sleep(min(_LOOK_S, seconds / 10))
        missing = _missing(store, names, mine)
    return missing


def _noted(store: ObjectStore, names: Sequence[str]) -> set[int]:
    """Return the sessions that other machines say to make."""
    notes = {name for name in store.list() if name.endswith(NOTE)}
    return {index for index, name in enumerate(names) if name + NOTE in notes}


def _remove_notes(store: ObjectStore) -> None:
    for name in store.list():
        if name.endswith(NOTE):
            store.delete(name)


def _count(report: StoreReport, outcome: Outcome) -> None:
    report.frames += outcome.frames
    report.made += outcome.made
    report.twice += outcome.twice
    if outcome.different:
        report.different.append(outcome.name + SUFFIX)


def _missing(store: ObjectStore, names: Sequence[str], mine: Sequence[int]) -> list[int]:
    """Return the sessions of `mine` that the store lacks now, ascending."""
    present = store.list()
    return [index for index in mine if names[index] + SUFFIX not in present]


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


def _claim(store: ObjectStore, city: AnyCity, wanted: dict[str, Any]) -> None:
    """Write `prepare.json` and the city's report, or compare the first with the plan."""
    raw = store.read(PLAN_FILE)
    if raw is None:
        store.write(CITY_FILE, json_text(report_of(city)).encode())
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

"""Make one session of a plan and write it into a store: the unit of work of all machines.

`SessionWork` can be pickled: a worker on another machine reads the city's tiles from the store as
its sessions need them and keeps the last ones. Only counts and names come back; the bytes are in
the store.
"""

from __future__ import annotations

import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from vlwm.core.city.procedural import procedural_city
from vlwm.core.city.tiling.tiled_city import TiledCity
from vlwm.core.data.generation.scenes import AnyCity, Scenes
from vlwm.core.data.generation.session_plans import (
    PreparePlan,
    SessionPlanner,
    regions_of,
    session_names,
)
from vlwm.core.data.generation.session_writer import OnFrames, make_session
from vlwm.core.data.session import Session
from vlwm.core.data.shards.session_shard import shard_of_session
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.store.object_store import ObjectStore
from vlwm.core.store.objects import open_store
from vlwm.core.store.shard import SUFFIX, parse_index

_held: dict[str, SessionMaker] = {}
_holding = threading.Lock()


@dataclass(frozen=True)
class Outcome:
    """The outcome of one session.

    Attributes:
        name: of the session.
        made: True if this worker's shard is in the store.
        twice: True if another machine finished the session while this one made it.
        different: True if the other machine's shard has other content.
        frames: made here.
        put_s: seconds to look for the shard in the store and to write it.
    """

    name: str
    made: bool = False
    twice: bool = False
    different: bool = False
    frames: int = 0
    put_s: float = 0.0


class SessionMaker:
    """Makes any session of a plan.

    Args:
        city: in memory, or as tiles, of which each session reads those in its reach.
        grid: of the frames.
        plan: the plan.
    """

    def __init__(self, city: AnyCity, grid: VoxelGrid, plan: PreparePlan) -> None:
        self._grid = grid
        regions, self.splits = regions_of(city, grid, plan)
        self._planner = SessionPlanner(Scenes(city, grid, plan.fill), regions, plan)
        self._plan = plan
        self.names = session_names(plan)

    def shard(self, index: int, on_frames: OnFrames) -> bytes:
        """Make one session in a temporary folder and return its shard."""
        planned = self._planner.plan(index)
        with tempfile.TemporaryDirectory(prefix="vlwm-session-") as scratch:
            folder = Path(scratch) / planned.name
            scene = self._planner.scene(index)
            make_session(folder, planned, scene, self._plan, on_frames)
            return shard_of_session(Session(folder, strict=True), self._grid, strict=True)

    def put(self, store: ObjectStore, index: int, on_frames: OnFrames) -> Outcome:
        """Make one session and write its shard, unless the store has it by then."""
        raw = self.shard(index, on_frames)
        name, frames, begun = self.names[index], self._plan.frames, time.monotonic()
        stored = store.read(name + SUFFIX)
        if stored is None:
            store.write(name + SUFFIX, raw)
            return Outcome(name, made=True, frames=frames, put_s=time.monotonic() - begun)
        same = stored == raw or _content(stored, store.place(name)) == _content(raw, name)
        return Outcome(name, twice=True, different=not same, frames=frames)


@dataclass(frozen=True)
class SessionWork:
    """Makes sessions in any process that reaches the store.

    Attributes:
        url: of the store.
        grid: of the frames.
        plan: the plan.
        procedural: side in metres and seed of a made-up city; None: the city's tiles in the store.
    """

    url: str
    grid: VoxelGrid
    plan: PreparePlan
    procedural: tuple[float, int] | None = None

    def __call__(self, index: int) -> Outcome:
        """Make a session that the store lacks."""
        maker, store = self._maker(), open_store(self.url)
        name = maker.names[index]
        if name + SUFFIX in store.list():
            return Outcome(name)
        return maker.put(store, index, _quiet)

    def _maker(self) -> SessionMaker:
        """Return this process's maker; the city is read once."""
        with _holding:
            if repr(self) not in _held:
                _held.clear()  # one city at a time: it is large
                _held[repr(self)] = SessionMaker(self._city(), self.grid, self._alone())
            return _held[repr(self)]

    def _city(self) -> AnyCity:
        if self.procedural is not None:
            return procedural_city(*self.procedural)
        return TiledCity(open_store(self.url))

    def _alone(self) -> PreparePlan:
        return replace(self.plan, workers=1)


def _quiet(session: str, done: int, frames: int) -> None:
    """Ignore the report: nobody reads a worker's progress."""


def _content(raw: bytes, where: str) -> tuple[object, ...]:
    """Return the decoded content of a shard; its compression depends on the version of zstd."""
    index = parse_index(raw, where)
    header = {k: v for k, v in index.header.items() if k != "tables"}
    tables = {name: table.tobytes() for name, table in index.tables.items()}
    layers = {name: layer.content.tobytes() for name, layer in index.layers.items()}
    return header, tables, layers

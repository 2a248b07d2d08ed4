"""Splits by area: no world cell of the test split is in the train split.

The plan of a city is cut into three contiguous regions, 70/15/15 of the area: a strip of 30 %
(`prepare.held_out`) along the long side is halved across. A frame shows the world out to half the
grid's diagonal, so a pose counts for a region only where it is that far inside; poses of different
splits are then at least a whole diagonal apart (114 m at full size) and no world cell is seen by
two.

Sessions that `prepare` makes are planned inside one region. Recorded ones are cut: a frame that is
in no region's inside belongs to no split and is counted. Without a place, or where the place is too
small to be cut, whole sessions are dealt, and `Splits.note` warns that they may show the same
world.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.checksums import check_seal, sealed
from vlwm.core.data.leaks import NOWHERE, without_leaks
from vlwm.core.errors import DataError
from vlwm.core.files import json_text, make_folder, read_json, write_text
from vlwm.core.store.progress import session_name
from vlwm.core.vocabulary import Split

if TYPE_CHECKING:
    from vlwm.core.data.packed_store import PackedStore

NAMES: tuple[str, ...] = tuple(Split)
SHARES: dict[str, float] = {Split.TRAIN: 0.70, Split.VAL: 0.15, Split.TEST: 0.15}
HELD_OUT = SHARES[Split.VAL] + SHARES[Split.TEST]
"""share of the built area that is not trained on"""
BY_TIME = "by time"
"""in place of a split: the session begins with train, then val, then test"""
PLAN_FILE = "prepare.json"
"""what `prepare` is making in a data folder; `splits.json` is written when it is done"""

_LEAST_INSIDE_M = 20.0
"""side of a region without its margins"""
_LEAST_RUN = 10
"""frames on end that each split needs"""
_PLANS = 32
"""cuts that are tried for recorded places"""
_MOST_SESSIONS = 1_000_000
"""of a plan that is believed"""
_STREAM = 0x5D117
"""number of the random stream of the splits: no other draw of the same seed changes it"""
_GAP_S = 3.0  # between the parts of a session that is cut in time: scans of both are accumulated


@dataclass(frozen=True)
class Region:
    """A rectangle of the plan, metres, in the coordinates of `Splits.crs`."""

    split: str
    x0: float
    y0: float
    x1: float
    y1: float

    def inside(self, xy: NDArray[np.float64], margin_m: float) -> NDArray[np.bool_]:
        """Return True for points (..., 2) at least `margin_m` inside the border (to 1e-6 m)."""
        m = margin_m - 1e-6
        x, y = xy[..., 0], xy[..., 1]
        return (x >= self.x0 + m) & (x <= self.x1 - m) & (y >= self.y0 + m) & (y <= self.y1 - m)

    def shrunk(self, margin_m: float) -> Region:
        """Return the rectangle `margin_m` inside this one; may be empty."""
        m = margin_m
        return Region(self.split, self.x0 + m, self.y0 + m, self.x1 - m, self.y1 - m)

    @property
    def sides(self) -> tuple[float, float]:
        return self.x1 - self.x0, self.y1 - self.y0


@dataclass(frozen=True)
class Splits:
    """Regions of a place, or splits of whole sessions where the place is unknown.

    Attributes:
        crs: coordinate system of the regions; None without a place.
        margin_m: distance from a region's border that a pose must keep.
        regions: one for each split.
        sessions: session name → split, where sessions are dealt whole; `BY_TIME` cuts one in time.
        note: sentence about splits that may show the same world; empty for splits by area.
        sources: name of a data folder → its own splits, where there are several; their sessions are
            named `<folder>/<session>`.
    """

    crs: str | None
    margin_m: float
    regions: tuple[Region, ...] = ()
    sessions: dict[str, str] = field(default_factory=dict)
    note: str = ""
    sources: dict[str, Splits] = field(default_factory=dict)

    def labels(self, store: PackedStore) -> NDArray[np.str_]:
        """Return the split of every frame of a store, (N,): 'train', 'val', 'test' or 'none'.

        With several sources, a frame that could show a place which another source holds out
        belongs to no split.
        """
        out = np.full(len(store), NOWHERE, dtype="<U5")
        for index, name in enumerate(store.sessions):
            rows = np.flatnonzero(store.session == index)
            origin = store.meta[index].get("origin")
            own, bare = self._of_session(name)
            if own.sessions.get(bare) == BY_TIME:
                out[rows] = _by_time(len(rows), float(store.meta[index].get("dt_s") or 0.5))
            elif bare in own.sessions:
                out[rows] = own.sessions[bare]
            elif origin and origin.get("crs") == own.crs:
                shift = np.array([origin["easting"], origin["northing"]])
                out[rows] = own.of_places(store.poses[rows, :2] + shift)
        if not self.sources:
            return out
        return without_leaks(out, store, 2 * self.margin_m)

    def _of_session(self, name: str) -> tuple[Splits, str]:
        """Return the splits that a session belongs to, and its name in there."""
        label, slash, bare = name.partition("/")
        return (self.sources[label], bare) if slash and label in self.sources else (self, name)

    def of_places(self, xy: NDArray[np.float64]) -> NDArray[np.str_]:
        """Return the split of points (N, 2) in `crs`."""
        out = np.full(len(xy), NOWHERE, dtype="<U5")
        for region in self.regions:
            out[region.inside(xy, self.margin_m)] = region.split
        return out

    def counts(self, store: PackedStore) -> dict[str, int]:
        """Count the frames of each split, and of none."""
        labels = self.labels(store)
        return {name: int((labels == name).sum()) for name in (*NAMES, NOWHERE)}

    def to_dict(self) -> dict[str, Any]:
        regions = [vars(r) for r in self.regions]
        values: dict[str, Any] = {"crs": self.crs, "margin_m": self.margin_m}
        values |= {"regions": regions, "sessions": self.sessions, "note": self.note}
        if self.sources:
            values["sources"] = {label: own.to_dict() for label, own in self.sources.items()}
        return values

    def write(self, path: Path) -> None:
        """Write `splits.json`."""
        write_text(path, self.to_text())

    def to_text(self) -> str:
        """Return the content of `splits.json`."""
        return json_text(sealed(self.to_dict()))

    @classmethod
    def read(cls, path: Path) -> Splits:
        """Read `splits.json`.

        Raises:
            DataError: the file is missing or is not such a file.
        """
        value = read_json(path)
        if isinstance(value, dict):
            check_seal(value, path)
        try:
            return cls.of_dict(value)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                "not a valid splits.json", where=path, remedy="delete it; prepare makes it again"
            ) from error

    @classmethod
    def of_dict(cls, value: Any) -> Splits:
        """Return the splits of plain values.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: they are not those of `to_dict`.
        """
        regions = tuple(
            Region(r["split"], **{k: float(v) for k, v in r.items() if k != "split"})
            for r in value["regions"]
        )
        margin_m, sessions = float(value["margin_m"]), dict(value["sessions"])
        sources = {label: cls.of_dict(own) for label, own in value.get("sources", {}).items()}
        note = str(value.get("note", ""))
        return cls(value["crs"], margin_m, regions, sessions, note, sources)


def plan_regions(
    bounds: tuple[float, float, float, float],
    margin_m: float,
    seed: int,
    built: NDArray[np.float64] | None = None,
    held_out: float = HELD_OUT,
) -> tuple[Region, ...]:
    """Cut a rectangle (x from, y from, x to, y to), metres, into three regions.

    Args:
        margin_m: distance that poses keep from a region's border.
        built: (N, 2) points spread evenly over what is built, metres; the shares are then of the
            built area, so that a gap in the city does not become the test region.
        held_out: share of validation and test together, half each.

    Raises:
        DataError: a region would have no inside; the sentence names the size that is needed.
    """
    rng = np.random.default_rng([seed, _STREAM])
    low, high = np.array(bounds[:2]), np.array(bounds[2:])
    long, short = (0, 1) if high[0] - low[0] >= high[1] - low[1] else (1, 0)
    from_low, val_first = rng.random(2) < 0.5
    size, need = high - low, 2 * margin_m + _LEAST_INSIDE_M
    _check_room(0.5 * size[long], 0.5 * size[short], need)
    points = np.empty((0, 2)) if built is None else np.asarray(built)
    least = max(need, 0.5 * held_out * size[long])
    if from_low:
        cut = _cut(points[:, long], held_out, low[long], high[long], least, 0.5 * size[long])
        strip, rest = (low[long], cut), (cut, high[long])
        inside = points[points[:, long] < cut]
    else:
        cut = _cut(points[:, long], 1 - held_out, low[long], high[long], 0.5 * size[long], least)
        strip, rest = (cut, high[long]), (low[long], cut)
        inside = points[points[:, long] >= cut]
    middle = _cut(inside[:, short], 0.5, low[short], high[short], need, need)
    halves = [(low[short], middle), (middle, high[short])]
    val, test = halves if val_first else halves[::-1]
    whole = (low[short], high[short])
    spans: dict[str, Any] = {
        Split.TRAIN: (rest, whole),
        Split.VAL: (strip, val),
        Split.TEST: (strip, test),
    }
    return tuple(_region(name, *spans[name], along_x=long == 0) for name in NAMES)


def _cut(
    values: NDArray[np.float64], share: float, low: float, high: float, before: float, after: float
) -> float:
    """Return the value below which `share` of the values are, away from the ends.

    Args:
        before, after: least distance from `low` and from `high`.
    """
    at = np.quantile(values, share) if len(values) else low + share * (high - low)
    return float(np.clip(at, low + before, max(low + before, high - after)))


def _region(
    name: str, along: tuple[float, float], across: tuple[float, float], *, along_x: bool
) -> Region:
    (x0, x1), (y0, y1) = (along, across) if along_x else (across, along)
    return Region(name, float(x0), float(y0), float(x1), float(y1))


def _check_room(length: float, width: float, need: float) -> None:
    if min(length, width) < need:
        raise DataError(
            f"the place is too small to split by area: half of it is {length:.0f} x {width:.0f} m, "
            f"and a region needs {need:.0f} m to have an inside",
            remedy=f"prepare a place of at least {2 * need:.0f} x {2 * need:.0f} m",
        )


def deal_sessions(count: int) -> list[str]:
    """Return the split of each of `count` planned sessions: 70/15/15, test and val at least one.

    Train comes first, then test, then val, so that with agents in turn both fly in train. Two
    sessions train and test; one trains.
    """
    if count < 3:
        return [str(Split.TRAIN), str(Split.TEST)][:count]
    each = max(1, round(SHARES[Split.TEST] * count))
    dealt = {Split.TRAIN: count - 2 * each, Split.TEST: each, Split.VAL: each}
    return [str(name) for name, sessions in dealt.items() for _ in range(sessions)]


def planned_splits(raw: bytes) -> dict[str, str]:
    """Return session -> split of the plan in `prepare.json`; empty where it does not tell."""
    try:
        plan = json.loads(raw)
        agents, count = [str(agent) for agent in plan["agents"]], int(plan["sessions"])
        dealt = deal_sessions(min(count, _MOST_SESSIONS))
        return {session_name(agents[i % len(agents)], i): s for i, s in enumerate(dealt)}
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError, RecursionError):
        return {}


def splits_of_recorded(
    names: Sequence[str], places: NDArray[np.float64] | None, crs: str | None, margin_m: float,
    seed: int,
) -> Splits:  # fmt: skip
    """Return splits for sessions that were recorded elsewhere.

    By area where the place is known and some way of cutting it leaves each split a run of frames
    that is long enough for a window; otherwise whole sessions are dealt, and one or two sessions
    are cut in time.

    Args:
        names: the sessions.
        places: (N, 2) easting and northing of all frames in `crs`, in order; None without a place.
    """
    note = "sessions were dealt whole, for their place is unknown"
    if places is not None and crs is not None:
        by_area = _by_area(places, crs, margin_m, seed)
        if by_area is not None:
            return by_area
        note = "sessions were dealt whole, for their place is too small to be cut"
    dealt = dict(zip(sorted(names), deal_sessions(len(names)), strict=True))
    if len(names) < 3:  # a single flight has to train, validate and test
        dealt = dict.fromkeys(names, BY_TIME)
        note = note.replace("dealt whole", "cut in time")
    return Splits(None, margin_m, (), dealt, f"{note}: splits may show the same world")


def _by_time(frames: int, dt_s: float) -> NDArray[np.str_]:
    """Return the split of each frame of a session that is cut in time, (frames,)."""
    ends = np.cumsum([SHARES[name] for name in NAMES]) * frames
    place = np.arange(frames)
    out = np.array(NAMES)[np.minimum(np.searchsorted(ends, place, side="right"), 2)]
    gap = round(_GAP_S / dt_s)
    for border in ends[:2]:
        out[(place >= border) & (place < border + gap)] = NOWHERE
    return np.asarray(out)


def _by_area(places: NDArray[np.float64], crs: str, margin_m: float, seed: int) -> Splits | None:
    """Return the first of some dozens of cuts that leaves every split a run of frames."""
    low, high = places.min(axis=0) - margin_m, places.max(axis=0) + margin_m
    bounds = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    for attempt in range(_PLANS):
        try:
            regions = plan_regions(bounds, margin_m, seed + attempt, places)
        except DataError:
            return None
        splits = Splits(crs, margin_m, regions)
        labels = splits.of_places(places)
        if all(_longest_run(labels == name) >= _LEAST_RUN for name in NAMES):
            return splits
    return None


def _longest_run(inside: NDArray[np.bool_]) -> int:
    """Return the largest number of True values in a row."""
    borders = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]])))
    return int((borders[1::2] - borders[::2]).max(initial=0))


def own_splits(store: PackedStore, margin_m: float, seed: int) -> Splits:
    """Return the splits of one data folder as its file, its sources or a plan of ours has them."""
    for folder in (store.root, store.derived):
        if (folder / "splits.json").exists():
            return Splits.read(folder / "splits.json")
    if (store.root / PLAN_FILE).exists():
        raise DataError(
            "vlwm prepare has not finished this folder",
            where=store.root,
            remedy="run the same vlwm prepare command again; it resumes where it stopped",
        )
    origins = [m.get("origin") for m in store.meta]
    assigned = [m.get("split") for m in store.meta]
    if all(assigned) and not any(origins):
        sessions = {name: str(s) for name, s in zip(store.sessions, assigned, strict=True)}
        own = Splits(None, margin_m, (), sessions, "sessions keep the split of their source")
        return write_splits(own, store)
    systems = {o["crs"] for o in origins if o}
    places = None
    if len(systems) == 1 and all(origins):
        shifts = np.array([[o["easting"], o["northing"]] for o in origins if o])
        places = store.poses[:, :2] + shifts[store.session]
    crs = next(iter(systems)) if places is not None else None
    return write_splits(splits_of_recorded(store.sessions, places, crs, margin_m, seed), store)


def write_splits(splits: Splits, store: PackedStore) -> Splits:
    """Write `splits.json` into the data folder, and return the splits."""
    # data on a read-only disk have their derived files elsewhere
    folder = store.root if store.derived.parent == store.root else make_folder(store.derived)
    splits.write(folder / "splits.json")
    return splits

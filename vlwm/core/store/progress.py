"""Progress of a store that machines are filling: sessions present and missing, speed, time left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from vlwm.core.errors import DataError
from vlwm.core.store.object_store import ObjectStore
from vlwm.core.store.shard import SUFFIX

PLAN_FILE = "prepare.json"
_FIRST_DAY = datetime(2024, 1, 1)
_RECENT = 50  # sessions of which the speed is measured


@dataclass(frozen=True)
class StoreProgress:
    """Progress of a store.

    Attributes:
        url: of the store.
        city: its name.
        sessions: of the plan.
        present: sessions in the store.
        missing: names of those that are not.
        size: bytes of all shards.
        per_hour: sessions an hour, over the newest ones; None before there are two times.
        remaining_s: seconds left at that speed; None where it is unknown.
        idle_s: seconds since the newest shard; None where the store does not tell times.
        finished: True if `splits.json` is there.
    """

    url: str
    city: str
    sessions: int
    present: int
    missing: list[str]
    size: int
    per_hour: float | None
    remaining_s: float | None
    idle_s: float | None
    finished: bool


def session_name(agent: str, index: int) -> str:
    """Return the name of session `index` of a plan: its agent and a day, a function of both."""
    return f"{agent}_{(_FIRST_DAY + timedelta(days=index)).strftime('%Y%m%d_%H%M%S')}"


def store_progress(store: ObjectStore, now_s: float) -> StoreProgress:
    """Return the progress of a store.

    Args:
        now_s: seconds since 1970.

    Raises:
        DataError: the store has no plan, or a damaged one.
    """
    plan = _plan(store)
    entries = store.list()
    count, agents = int(plan["sessions"]), list(plan["agents"])
    names = [session_name(str(agents[i % len(agents)]), i) for i in range(count)]
    shards = {name: entry for name, entry in entries.items() if name.endswith(SUFFIX)}
    missing = [name for name in names if name + SUFFIX not in shards]
    times = sorted(e.modified_s for e in shards.values() if e.modified_s is not None)[-_RECENT:]
    span_s = times[-1] - times[0] if len(times) > 1 else 0.0
    per_s = (len(times) - 1) / span_s if span_s > 0 else None
    return StoreProgress(
        url=store.url,
        city=str(plan.get("city", "")),
        sessions=count,
        present=count - len(missing),
        missing=missing,
        size=sum(entry.size for entry in shards.values()),
        per_hour=None if per_s is None else 3600.0 * per_s,
        remaining_s=None if per_s is None else len(missing) / per_s,
        idle_s=max(0.0, now_s - times[-1]) if times else None,
        finished="splits.json" in entries,
    )


def _plan(store: ObjectStore) -> dict[str, Any]:
    raw = store.read(PLAN_FILE)
    if raw is None:
        raise DataError(
            "nobody has prepared into this store yet",
            where=store.url,
            remedy="vlwm prepare --store fills it",
        )
    try:
        plan = json.loads(raw)
        if int(plan["sessions"]) < 0 or not list(plan["agents"]):
            raise ValueError("no agents")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            "prepare.json of the store is damaged",
            where=store.place(PLAN_FILE),
            remedy="delete it, then run the same command again",
        ) from error
    return dict(plan)

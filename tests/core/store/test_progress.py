"""Progress of a store: sessions present, missing, speed and time left."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vlwm.core.errors import DataError
from vlwm.core.store.objects import open_store
from vlwm.core.store.progress import session_name, store_progress


def test_speed_and_time_left_are_those_of_the_newest_shards(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    with pytest.raises(DataError, match="nobody has prepared into this store yet"):
        store_progress(store, 0.0)
    plan = {"sessions": 5, "agents": ["drone", "rover"], "city": "Niiza"}
    store.write("prepare.json", json.dumps(plan).encode())
    empty = store_progress(store, 1000.0)
    assert (empty.present, empty.per_hour, empty.remaining_s, empty.idle_s) == (0, None, None, None)
    for index, agent in enumerate(("drone", "rover", "drone")):
        store.write(f"{session_name(agent, index)}.shard", b"12345")
        os.utime(tmp_path / f"{session_name(agent, index)}.shard", (0, 1000 + 60 * index))
    now = store_progress(store, 1180.0)
    assert (now.present, now.size, now.finished) == (3, 15, False)
    assert now.missing == ["rover_20240104_000000", "drone_20240105_000000"]
    assert now.per_hour == pytest.approx(60.0) and now.remaining_s == pytest.approx(120.0)
    assert now.idle_s == pytest.approx(60.0)


def test_a_damaged_plan_is_one_sentence(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    for text in (b"{", b"[]", b'{"sessions": 2, "agents": []}', b"[" * 100_000):
        store.write("prepare.json", text)
        with pytest.raises(DataError, match=r"prepare\.json of the store is damaged"):
            store_progress(store, 0.0)

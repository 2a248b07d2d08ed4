"""One protocol for forked processes and for Dask; a store is filled with the same bytes by both."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vlwm.core.city.procedural import procedural_city
from vlwm.core.config.load import load_config
from vlwm.core.data.generation.session_plans import PreparePlan
from vlwm.core.data.generation.store_prepare import prepare_store
from vlwm.core.engines import DaskEngine, Engine, LocalEngine, open_engine
from vlwm.core.errors import MachineError, UsageError
from vlwm.core.store.objects import open_store

CONFIG = load_config("test_local", ["voxel_size=[3.2, 3.2, 10.0]", "prepare.procedural_size_m=500"])
PLAN = PreparePlan(frames=3, sessions=4, agents=("drone",), seed=42)


def filled(url: str, engine: Engine | None) -> dict[str, bytes | None]:
    report = prepare_store(procedural_city(500.0, 42), CONFIG, url, PLAN, engine=engine)
    assert report.finished and (report.made, report.twice, report.frames) == (4, 0, 12)
    store = open_store(url)
    return {name: store.read(name) for name in store.list()}


@pytest.mark.parametrize("workers", [1, 2])
def test_sessions_as_tasks_are_those_of_one_machine(tmp_path: Path, workers: int) -> None:
    alone = filled((tmp_path / "alone").as_uri(), None)
    assert filled((tmp_path / "tasks").as_uri(), LocalEngine(workers)) == alone


@pytest.mark.parametrize("word", ["spark", "dask:/HOST", "dask://", "http://HOST"])
def test_an_unknown_engine_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="use local, dask"):
        open_engine(word, 1)


def test_addresses_of_a_scheduler() -> None:
    assert isinstance(open_engine(None, 3), LocalEngine)
    pytest.importorskip("distributed", reason="pip install 'vlwm[dask]'")
    for word, address in (
        ("dask", None),
        ("dask://box:8786", "tcp://box:8786"),
        ("dask+tls://box:8786/", "tls://box:8786"),
    ):
        engine = open_engine(word, 1)
        assert isinstance(engine, DaskEngine) and engine.address == address


class Cluster:
    """A scheduler and two workers as processes of their own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", str(self.port),
                                     "--no-dashboard")  # fmt: skip
        self.workers = [self.worker() for _ in range(2)]

    def worker(self) -> subprocess.Popen[bytes]:
        return self._start(
            "worker", f"tcp://127.0.0.1:{self.port}", "--nthreads", "1", "--no-dashboard",
            "--no-nanny", "--local-directory", str(self.folder),
        )  # fmt: skip

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    pytest.importorskip("distributed", reason="pip install 'vlwm[dask]'")
    made = Cluster(tmp_path)
    yield made
    made.close()


def command(url: str, port: int) -> list[str]:
    sets = ["--set", "prepare.procedural_size_m=500", "--set", "voxel_size=[3.2, 3.2, 10.0]"]
    return [
        sys.executable, "-m", "vlwm", "prepare", "--store", url, "--config", "test_local",
        "--frames", "40", "--sessions", "8", "--engine", f"dask://127.0.0.1:{port}", "--json",
        *sets,
    ]  # fmt: skip


def wait_for_shards(url: str, count: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while sum(name.endswith(".shard") for name in open_store(url).list()) < count:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)


def run(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.ci
def test_a_killed_worker_and_a_lost_scheduler_cost_no_session(
    cluster: Cluster, tmp_path: Path
) -> None:
    url, alone = (tmp_path / "store").as_uri(), (tmp_path / "alone").as_uri()
    first = run(command(url, cluster.port))
    wait_for_shards(url, 1, first)
    os.kill(cluster.workers[0].pid, signal.SIGKILL)
    wait_for_shards(url, 3, first)
    cluster.scheduler.kill()
    out, err = first.communicate(timeout=120)
    assert first.returncode == MachineError.exit_code, err
    assert "the scheduler of Dask was lost" in err and "Traceback" not in err
    cluster.close()
    again = Cluster(tmp_path)
    try:
        done = run(command(url, again.port))
        out, err = done.communicate(timeout=180)
    finally:
        again.close()
    report: dict[str, Any] = json.loads(out)
    assert report["finished"] and report["present"] >= 3 and not report["different"], err
    words = [w for w in command(alone, 0) if not w.startswith("dask://") and w != "--engine"]
    assert run(words).communicate(timeout=180)
    stores = [open_store(u) for u in (url, alone)]
    contents = [{name: store.read(name) for name in store.list()} for store in stores]
    assert contents[0] == contents[1]


def test_a_scheduler_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="pip install 'vlwm[dask]'")
    engine = open_engine("dask://127.0.0.1:9", 1)
    assert isinstance(engine, DaskEngine)
    with pytest.raises(MachineError, match="cannot be reached"):
        list(DaskEngine(engine.address, connect_s=1.0).run(abs, [1]))

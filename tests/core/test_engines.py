"""One protocol for forked processes and for Dask; a store is filled with the same bytes by both."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.core.city.gml_text import member, solid, write_members
from tests.core.city.tiling.test_tiled_city import same
from tests.core.evaluation.tiny_run import tiny_config, write_tiny_data, write_tiny_run
from vlwm.core import engines
from vlwm.core.city.city import City
from vlwm.core.city.procedural import procedural_city
from vlwm.core.city.read import read_city
from vlwm.core.config.load import load_config
from vlwm.core.data.generation.session_plans import PreparePlan
from vlwm.core.data.generation.store_prepare import prepare_store
from vlwm.core.engines import DaskEngine, Engine, LocalEngine, in_order, open_engine
from vlwm.core.errors import MachineError, UsageError
from vlwm.core.evaluation.evaluator import score_subject
from vlwm.core.evaluation.load import EvalData, open_baselines, open_run
from vlwm.core.evaluation.window_work import WindowWork, fingerprint
from vlwm.core.store.objects import open_store

CONFIG = load_config("test_local", ["voxel_size=[3.2, 3.2, 10.0]", "prepare.procedural_size_m=500"])
_PATIENCE_S = 600.0
"""long enough for a machine that does much else"""
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
    ):
        engine = open_engine(word, 1)
        assert isinstance(engine, DaskEngine) and engine.address == address


class Cluster:
    """A scheduler and two workers as processes of their own.

    Args:
        folder: for files of the workers.
        protocol: of all connections.
        settings: of the environment of all processes.
    """

    def __init__(
        self, folder: Path, protocol: str = "tcp", settings: Mapping[str, str] | None = None
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.protocol = protocol
        self.environment = {**os.environ, **(settings or {})}
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--protocol", protocol,
            "--no-dashboard",
        )  # fmt: skip
        self.workers = [self.worker() for _ in range(2)]

    def worker(self) -> subprocess.Popen[bytes]:
        return self._start(
            "worker", f"{self.protocol}://127.0.0.1:{self.port}", "--nthreads", "1",
            "--no-dashboard", "--no-nanny", "--local-directory", str(self.folder),
        )  # fmt: skip

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, stdout=quiet, stderr=quiet, env=self.environment)

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
    until = time.monotonic() + _PATIENCE_S
    while sum(name.endswith(".shard") for name in open_store(url).list()) < count:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)


def run(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.ci
@pytest.mark.parametrize("number", range(int(os.environ.get("VLWM_DASK_RUNS", "1"))))
def test_a_killed_worker_and_a_lost_scheduler_cost_no_session(
    cluster: Cluster, tmp_path: Path, number: int
) -> None:
    url, alone = (tmp_path / "store").as_uri(), (tmp_path / "alone").as_uri()
    first = run(command(url, cluster.port))
    wait_for_shards(url, 1, first)
    os.kill(cluster.workers[number % 2].pid, signal.SIGKILL)
    wait_for_shards(url, 3, first)
    cluster.scheduler.kill()
    out, err = first.communicate(timeout=_PATIENCE_S)
    assert first.returncode == MachineError.exit_code, err
    assert "the scheduler of Dask was lost" in err and "Traceback" not in err
    cluster.close()
    kept = sum(name.endswith(".shard") for name in open_store(url).list())
    again = Cluster(tmp_path)
    try:
        done = run(command(url, again.port))
        out, err = done.communicate(timeout=_PATIENCE_S)
    finally:
        again.close()
    report: dict[str, Any] = json.loads(out)
    assert report["finished"] and report["present"] == kept >= 3 and not report["different"], err
    assert report["made"] == 8 - kept and not report["twice"]
    words = [w for w in command(alone, 0) if not w.startswith("dask://") and w != "--engine"]
    assert run(words).communicate(timeout=_PATIENCE_S)
    stores = [open_store(u) for u in (url, alone)]
    contents = [{name: store.read(name) for name in store.list()} for store in stores]
    assert contents[0] == contents[1]
    print(f"run {number}: {kept} sessions when the scheduler was lost, {report['made']} after it, "
          f"load {os.getloadavg()[0]:.0f}", flush=True)  # fmt: skip


def certificates(folder: Path) -> dict[str, str]:
    """Return the settings of docs/machines.md, with a new certificate that signs itself."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder.mkdir()
    key, cert = folder / "key.pem", folder / "cert.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=vlwm", "-addext", "subjectAltName=IP:127.0.0.1"]
    words += ["-keyout", str(key), "-out", str(cert)]
    subprocess.run(words, check=True, capture_output=True)
    settings = {"CA_FILE": str(cert)}
    for role in ("CLIENT", "SCHEDULER", "WORKER"):
        settings |= {f"{role}__CERT": str(cert), f"{role}__KEY": str(key)}
    tls = {f"DASK_DISTRIBUTED__COMM__TLS__{name}": value for name, value in settings.items()}
    return {**tls, "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"}


def test_tls_needs_certificates_that_can_be_read(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="pip install 'vlwm[dask]'")
    import dask

    word = "dask+tls://box:8786/"
    with pytest.raises(UsageError, match="needs certificates"):
        open_engine(word, 1)
    certificates(tmp_path / "mine")
    settings = {
        f"distributed.comm.tls.{name}": str(tmp_path / "mine" / file)
        for name, file in (
            ("ca-file", "cert.pem"), ("client.cert", "cert.pem"), ("client.key", "key.pem"),
        )
    }  # fmt: skip
    with dask.config.set(settings):
        engine = open_engine(word, 1)
        (tmp_path / "mine" / "cert.pem").unlink()
        with pytest.raises(UsageError, match="certificates of Dask cannot be read"):
            open_engine(word, 1)
    assert isinstance(engine, DaskEngine) and engine.address == "tls://box:8786"


@pytest.mark.ci
def test_a_store_is_filled_over_tls_and_not_by_a_stranger(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="pip install 'vlwm[dask]'")
    url = (tmp_path / "store").as_uri()
    ours, foreign = (certificates(tmp_path / name) for name in ("ours", "foreign"))
    cluster = Cluster(tmp_path, "tls", ours)
    words = [w.replace("dask://", "dask+tls://") for w in command(url, cluster.port)]

    def tried(settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, capture_output=True, text=True, timeout=_PATIENCE_S,
            env={**os.environ, **settings},
        )  # fmt: skip

    try:
        stranger = tried(foreign)
        assert stranger.returncode == MachineError.exit_code, stranger.stderr
        assert "cannot be reached" in stranger.stderr and "Traceback" not in stranger.stderr
        assert not any(name.endswith(".shard") for name in open_store(url).list())
        done = tried(ours)
    finally:
        cluster.close()
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["finished"] and report["made"] == 8


def many_files(folder: Path) -> Path:
    """Thirty files of buildings, some twice, one of them broken in part."""
    folder.mkdir()
    for k in range(30):
        write_members(
            folder / f"{k:02d}.gml",
            *(member(solid(4 + j, low=30 * k + 5 * j, high=30 * k + 5 * j + 4), f"b{k}_{j}")
              for j in range(20)),
            member(solid(5), "same"),
            member("<bldg:lod1Solid/>", f"empty{k}"),
        )  # fmt: skip
    return folder


def dask(cluster: Cluster) -> DaskEngine:
    return DaskEngine(f"tcp://127.0.0.1:{cluster.port}")


@pytest.mark.ci
def test_files_read_by_dask_are_the_city_of_one_process(cluster: Cluster, tmp_path: Path) -> None:
    """One of two workers is killed; what they read goes through the store and is gone."""
    folder, store = many_files(tmp_path / "in"), tmp_path / "store"
    store.mkdir()
    taken = list[str]()

    def kill(name: str, done: int, total: int) -> None:
        taken.append(name)
        if done == 3:
            os.kill(cluster.workers[0].pid, signal.SIGKILL)

    read = read_city([folder], engine=dask(cluster), pieces_url=store.as_uri(), on_source=kill)
    assert cluster.workers[0].wait(10) == -signal.SIGKILL and len(taken) > 30
    alone = read_city([folder])
    for field in (f for f in fields(City) if f.name != "scratch"):
        same(getattr(alone, field.name), getattr(read, field.name))
    assert alone.report.duplicates and alone.report.skipped and not list(store.iterdir())


@pytest.mark.ci
@pytest.mark.parametrize("kind", ["run", "baselines"])
def test_windows_scored_by_dask_have_the_scores_of_one_process(
    kind: str, cluster: Cluster, tmp_path: Path
) -> None:
    """One of two workers is killed; the whole sheet is equal, intervals included."""
    write_tiny_data(tmp_path, sessions=3, frames=24)
    every = EvalData("all", tmp_path / "data")
    if kind == "run":
        opening: Any = partial(open_run, write_tiny_run(tmp_path), every)
    else:
        opening = partial(open_baselines, tiny_config(tmp_path), every)
    opened = opening()
    if opened.fitted_here:
        fitted = replace(every, fitted=opened.subject.scorer.fitted)
        opening = partial(opening.func, opening.args[0], fitted)
    work = WindowWork("tiny", opening, *fingerprint(opened))
    seen = list[int]()

    def kill(done: int, total: int) -> None:
        if not seen:
            os.kill(cluster.workers[0].pid, signal.SIGKILL)
        seen.append(done)

    alone = score_subject(opened.subject, "all", None)
    sheet = score_subject(
        opened.subject, "all", None, progress=kill, engine=dask(cluster), work=work
    )
    assert cluster.workers[0].wait(10) == -signal.SIGKILL
    assert seen == list(range(1, len(opened.subject.windows) + 1)) and len(seen) > 30
    assert json.dumps(sheet) == json.dumps(alone)


class Late:
    """A future of Dask whose result arrives after some looks."""

    def __init__(self, looks: int, status: str) -> None:
        self.looks, self.client = looks, SimpleNamespace(status=status)

    def result(self, timeout: float) -> str:
        from distributed import TimeoutError as LateError

        self.looks -= 1
        if self.looks > 0:
            raise LateError(f"timed out after {timeout} s.")
        return "here"


def test_a_late_result_is_waited_for_while_the_scheduler_is_there() -> None:
    pytest.importorskip("distributed", reason="needs the extra vlwm[dask]")
    assert engines._result(Late(4, "running"), None) == "here"
    for lost in (Late(4, "connecting"), Late(1000, "running")):
        with pytest.raises(MachineError, match="the scheduler of Dask was lost"):
            engines._result(lost, None)


def test_results_are_put_in_order() -> None:
    arriving = iter([3, 1, 0, 2])
    assert list(in_order(arriving, range(4), lambda found: found)) == [0, 1, 2, 3]


def test_a_scheduler_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="pip install 'vlwm[dask]'")
    engine = open_engine("dask://127.0.0.1:9", 1)
    assert isinstance(engine, DaskEngine)
    with pytest.raises(MachineError, match="cannot be reached"):
        list(DaskEngine(engine.address, connect_s=1.0).run(abs, [1]))

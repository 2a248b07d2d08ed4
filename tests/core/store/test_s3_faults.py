"""Faults of an S3 server over HTTP, in the middle of a preparation: tried again or one sentence.

A proxy before a local server (moto) answers 500 or 503 SlowDown, cuts a PUT in half, or says that
the credentials have expired. After each of them the bucket holds whole objects only.
"""

from __future__ import annotations

import http.client
import itertools
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.core.test_engines import CONFIG, PLAN
from vlwm.core.city.procedural import procedural_city
from vlwm.core.data.generation.store_prepare import NOTE, StoreReport, prepare_store
from vlwm.core.errors import MachineError
from vlwm.core.store import objects
from vlwm.core.store.backup import Backup, restore
from vlwm.core.store.objects import open_store
from vlwm.core.store.shard import SUFFIX, parse_index

pytestmark = pytest.mark.ci
ANSWERS = {
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "expired": (403, "ExpiredToken"),
}


class Proxy(ThreadingHTTPServer):
    """Forwards to a server, but for the requests that `fault` names.

    Attributes:
        fault: '500', '503', 'cut' or 'expired'.
        every: each n-th PUT of a shard has the fault; 0: all requests from the PUT after `after`.
        dead: such a PUT was there.
        faults: that happened.
    """

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target = (host, port)
        self.fault, self.every, self.after = "", 0, 0
        self.faults = 0
        self.dead = False
        self.puts = itertools.count(1)

    def wants(self, method: str, path: str) -> bool:
        """Return True for a request that gets the fault."""
        is_shard = method == "PUT" and SUFFIX in path
        number = next(self.puts) if is_shard else 0
        if not self.fault:
            return False
        if self.every:
            return is_shard and number % self.every == 0
        self.dead = self.dead or number > self.after
        return self.dead


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        if self.server.wants(self.command, self.path):
            self.server.faults += 1
            if self.server.fault == "cut":
                self.rfile.read(size // 2)
                self.connection.close()
                self.close_connection = True
                return
            self.rfile.read(size)
            status, code = ANSWERS[self.server.fault]
            body = f"<Error><Code>{code}</Code><Message>made by a test</Message></Error>".encode()
            self.reply(status, {"Content-Type": "application/xml"}, body)
            return
        body = self.rfile.read(size)
        onward = http.client.HTTPConnection(*self.server.target, timeout=30)
        onward.request(self.command, self.path, body, dict(self.headers))
        got = onward.getresponse()
        headers = {k: v for k, v in got.getheaders() if k.lower() not in ("transfer-encoding",
                   "content-length", "connection", "date", "server")}  # fmt: skip
        self.reply(got.status, headers, got.read(), got.getheader("Content-Length"))
        onward.close()

    def reply(
        self, status: int, headers: dict[str, str], body: bytes, size: str | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header(
            "Content-Length", (size or "0") if self.command == "HEAD" else str(len(body))
        )
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    server = pytest.importorskip("moto.server", reason="pip install 'moto[server]' s3fs")
    pytest.importorskip("s3fs", reason="pip install s3fs")
    thread = server.ThreadedMotoServer(port=0)
    thread.start()
    before = Proxy(*thread.get_host_and_port())
    threading.Thread(target=before.serve_forever, daemon=True).start()
    values = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{before.server_port}", "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        patch.setattr(objects, "_FIRST_WAIT_S", 0.01)
        import boto3

        boto3.client("s3").create_bucket(Bucket="faults")
        yield before
    before.shutdown()
    thread.stop()


@pytest.fixture(autouse=True)
def calm(proxy: Proxy) -> Iterator[None]:
    yield
    proxy.fault, proxy.every, proxy.faults = "", 0, 0


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes | None]:
    url = (tmp_path_factory.mktemp("alone") / "store").as_uri()
    fill(url)
    store = open_store(url)
    return {name: store.read(name) for name in store.list()}


def fill(url: str) -> StoreReport:
    return prepare_store(procedural_city(500.0, 42), CONFIG, url, PLAN, order_seed=1)


def assert_whole(url: str, alone: dict[str, bytes | None]) -> int:
    """Every object of the bucket is the one of a run without faults; the number of shards.

    A machine that ended in the middle leaves the note of what it made.
    """
    store = open_store(url)
    names = [name for name in store.list() if not name.endswith(NOTE)]
    for name in names:
        raw = store.read(name)
        assert raw == alone[name]
        if name.endswith(SUFFIX):
            parse_index(raw or b"", name)
    return sum(name.endswith(SUFFIX) for name in names)


@pytest.mark.parametrize("fault", ["500", "503", "cut"])
def test_a_fault_that_passes_changes_no_byte(
    proxy: Proxy, alone: dict[str, bytes | None], fault: str
) -> None:
    proxy.fault, proxy.every = fault, 2
    url = f"s3://faults/{fault}"
    report = fill(url)
    assert proxy.faults >= 3 and report.finished and report.made == 4
    proxy.fault = ""
    assert assert_whole(url, alone) == 4 and open_store(url).list().keys() == alone.keys()


@pytest.mark.parametrize("fault", ["503", "cut"])
def test_a_fault_that_stays_is_a_sentence_and_leaves_no_half_shard(
    proxy: Proxy, alone: dict[str, bytes | None], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_TRIES", 2)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    proxy.fault, proxy.every = fault, 1
    url = f"s3://faults/stays{fault}"
    with pytest.raises(MachineError, match="does not answer after 2 tries") as raised:
        fill(url)
    assert "\n" not in str(raised.value) and "run the same command again" in str(raised.value)
    proxy.fault = ""
    assert assert_whole(url, alone) == 0
    assert fill(url).finished and assert_whole(url, alone) == 4


def test_credentials_that_expire_in_the_middle(
    proxy: Proxy, alone: dict[str, bytes | None]
) -> None:
    url = "s3://faults/expired"
    for made in (1, 2, 3):
        proxy.puts, proxy.dead = itertools.count(1), False
        proxy.fault, proxy.every, proxy.after = "expired", 0, 1
        with pytest.raises(MachineError, match="renew the credentials") as raised:
            fill(url)
        assert "\n" not in str(raised.value)
        proxy.fault = ""
        assert assert_whole(url, alone) == made
    report = fill(url)
    assert report.finished and report.made == 1 and assert_whole(url, alone) == 4


def test_a_backup_through_faults_is_read_back_whole(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first request of each kind for each part has the fault."""
    run, seen = tmp_path / "run", set[tuple[str, str]]()
    run.mkdir()
    (run / "last.pth").write_bytes(bytes(range(256)) * 4000)
    (run / "config.json").write_text("{}")

    def first(method: str, path: str) -> bool:
        is_first = method in ("PUT", "GET") and ".part" in path and (method, path) not in seen
        seen.add((method, path))
        return is_first

    monkeypatch.setattr(proxy, "wants", first)
    for fault in ("500", "503", "cut"):
        url = f"s3://faults/backup{fault}"
        proxy.fault = fault
        Backup(run, url).copy()
        restore(url, tmp_path / fault)
        assert (tmp_path / fault / "last.pth").read_bytes() == (run / "last.pth").read_bytes()
    assert proxy.faults >= 6

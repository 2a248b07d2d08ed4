"""A finished run stops its rented machine, and never one whose only copy of the run it is."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from vlwm.core.cloud.stop_instance import CALLS, refuse_stop, stop_instance
from vlwm.core.errors import MachineError, UsageError

WISHES = {
    "vast": ("PUT", "/api/v0/instances/7/", {"state": "stopped"}),
    "runpod": ("POST", "/v1/pods/7/stop", {}),
    "lambda": ("POST", "/api/v1/instance-operations/terminate", {"instance_ids": ["7"]}),
}


class StandIn(BaseHTTPRequestHandler):
    """Remembers what it is asked, and answers with `status`."""

    status = 200
    asked: ClassVar[list[tuple[str, str, object, str | None]]] = []

    def do_PUT(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Authorization"]
        StandIn.asked.append((self.command, self.path, json.loads(raw), key))
        self.send_response(self.status)
        self.end_headers()

    do_POST = do_PUT

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for call in CALLS.values():
        monkeypatch.setenv(call.number, "7")
        monkeypatch.setenv(call.key, "secret-key")
    StandIn.status, StandIn.asked = 200, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("provider", list(CALLS))
def test_each_provider_is_asked_in_its_own_words(stand_in: str, provider: str) -> None:
    assert CALLS[provider].title in stop_instance(provider, base=stand_in)
    assert StandIn.asked == [(*WISHES[provider], "Bearer secret-key")]


def test_a_refusal_is_a_sentence_without_the_key(stand_in: str) -> None:
    StandIn.status = 403
    with pytest.raises(MachineError, match="did not stop this instance: 403") as caught:
        stop_instance("vast", base=stand_in)
    assert "secret" not in str(caught.value)
    with pytest.raises(MachineError, match="did not stop this instance"):
        stop_instance("runpod", base="http://127.0.0.1:9")


def test_what_cannot_be_stopped_is_refused_before_the_run(
    stand_in: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="works on Vast"):
        refuse_stop("linux", tmp_path, backed_up=True)
    with pytest.raises(UsageError, match="together with its disk"):
        refuse_stop("lambda", tmp_path, backed_up=False)
    refuse_stop("lambda", tmp_path, backed_up=True)
    refuse_stop("lambda", Path("/lambda/nfs/mine/run"), backed_up=False)
    refuse_stop("vast", tmp_path, backed_up=False)
    monkeypatch.delenv("CONTAINER_API_KEY")
    with pytest.raises(UsageError, match="needs CONTAINER_API_KEY in the environment"):
        refuse_stop("vast", tmp_path, backed_up=False)

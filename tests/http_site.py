"""A real HTTP server on loopback that misbehaves on purpose."""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Behaviour:
    """One answer's fault; the server takes them in order, then behaves."""

    kind: str = "good"
    at: int = 0
    value: str = ""


@dataclass
class Site:
    """What the server serves and how."""

    body: bytes = b""
    faults: list[Behaviour] = field(default_factory=list)
    etag: bool = True
    ranges: bool = True
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    value_of_signature: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_fault(self) -> Behaviour:
        with self.lock:
            return self.faults.pop(0) if self.faults else Behaviour()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()

    def tag(self) -> str:
        return f'"{self.sha256[:16]}"'


class Handler(BaseHTTPRequestHandler):
    """Serves `server.site.body`, with its next fault."""

    server: QuietServer

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    @property
    def site(self) -> Site:
        return self.server.site

    def do_GET(self) -> None:
        site = self.site
        site.requests.append({"path": self.path, **dict(self.headers.items())})
        if self.path.startswith("/signed"):
            if not self.path.endswith(f"={site.value_of_signature}"):
                return self.plain(403, b"expired")
            return self.serve(Behaviour())
        fault = site.next_fault()
        if fault.kind == "status":
            headers = {"Retry-After": fault.value} if fault.value else {}
            return self.plain(fault.at, b"no", headers)
        if fault.kind == "redirect":
            return self.plain(302, b"", {"Location": fault.value})
        if fault.kind == "html":
            page = b"<!DOCTYPE html><html>log in</html>"
            return self.plain(200, page, {"Content-Type": "text/html"})
        if fault.kind == "change":
            site.body = bytes(reversed(site.body))
        if fault.kind == "gzip":
            packed = gzip.compress(site.body)
            return self.plain(200, packed, {"Content-Encoding": "gzip", "ETag": site.tag()})
        self.serve(fault)

    def plain(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def start(self, fault: Behaviour) -> int:
        wanted = self.headers.get("Range", "")
        guard = self.headers.get("If-Range")
        if not wanted or not self.site.ranges or fault.kind == "ignore_range":
            return 0
        if guard and guard != self.site.tag() and fault.kind != "ignore_if_range":
            return 0
        return int(wanted.removeprefix("bytes=").rstrip("-"))

    def serve(self, fault: Behaviour) -> None:
        body, start = self.site.body, self.start(fault)
        if start and start >= len(body):
            return self.plain(416, b"", {"Content-Range": f"bytes */{len(body)}"})
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if self.site.etag:
            self.send_header("ETag", self.site.tag())
        long = fault.at if fault.kind == "wrong_length" else 0
        self.send_header("Content-Length", str(len(body) - start + long))
        self.end_headers()
        rest = body[start:]
        if fault.kind in ("cut", "stall"):
            self.wfile.write(rest[: fault.at])
            self.wfile.flush()
            time.sleep(3.0 if fault.kind == "stall" else 0.0)
            self.close_connection = True
            return
        for i in range(0, len(rest), 4096):
            self.wfile.write(rest[i : i + 4096])
            if fault.kind == "slow":
                self.wfile.flush()
                time.sleep(0.005)
        if long:
            self.close_connection = True


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    site: Site

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news here."""


@pytest.fixture
def site() -> Iterator[Site]:
    server = QuietServer(("127.0.0.1", 0), Handler)
    served = Site(body=bytes(i * i % 251 for i in range(100_000)))
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    server.site = served
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield served
    server.shutdown()
    server.server_close()

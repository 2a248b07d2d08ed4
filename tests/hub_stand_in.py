"""A stand-in for the Hub on loopback: create, preupload, LFS, commit, resolve, tree.

It speaks what `huggingface_hub` asks for when a model is uploaded and downloaded; repositories and
large files are kept in memory, and faults are answered in order.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """State of the stand-in.

    Attributes:
        repos: name -> commits, oldest first, each a dict of file names to bytes.
        large: LFS objects by SHA-256.
        faults: (part of a path, status) in order; status 0 cuts the connection.
        seen: (method, path, token) of every request.
    """

    repos: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    faults: list[tuple[str, int]] = field(default_factory=list)
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""

    def fault(self, path: str) -> int | None:
        for number, (part, status) in enumerate(self.faults):
            if part in path:
                del self.faults[number]
                return status
        return None

    @staticmethod
    def sha(number: int) -> str:
        return f"{number + 1:040x}"


class _Server(ThreadingHTTPServer):
    hub: Hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def handle_one(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.seen.append((self.command, path, self.headers.get("Authorization", "")))
        fault = self.hub.fault(f"{self.command} {path}")
        if fault == 0:
            self.rfile.read(1000)
            self.close_connection = True
            self.connection.close()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self.chunks()
        if fault is not None:
            return self.answer(fault, {"error": "fault"}, {"Retry-After": "1"})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path.startswith("/lfs/"):
            return self.upload(path, body)
        if path.endswith("/info/lfs/objects/batch"):
            return self.batch(json.loads(body))
        if "/resolve/" in path:
            return self.resolve(path)
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path.startswith("/api/models/"):
            return self.model(path.removeprefix("/api/models/"), body)
        return self.answer(404, {})

    do_GET = do_HEAD = do_POST = do_PUT = handle_one

    def chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def create(self, asked: dict[str, Any]) -> None:
        name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
        name = name if "/" in name else f"user/{name}"
        self.hub.repos.setdefault(name, [{}])
        self.hub.private.setdefault(
            name, asked.get("private", False) or asked.get("visibility") == "private"
        )
        self.answer(200, {"url": f"{self.hub.url}/{name}", "id": name, "name": name})

    def upload(self, path: str, body: bytes) -> None:
        sha = path.removeprefix("/lfs/")
        if hashlib.sha256(body).hexdigest() != sha:
            return self.answer(400, {"error": "another sum"})
        self.hub.large[sha] = body
        return self.answer(200, {})

    def batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for wanted in asked["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.large:
                entry["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}}
            objects.append(entry)
        self.answer(200, {"transfer": "basic", "objects": objects})

    def model(self, path: str, body: bytes) -> None:
        repo, _, rest = ("/".join(path.split("/")[:2]), None, "/".join(path.split("/")[2:]))
        commits = self.hub.repos.get(repo)
        if commits is None:
            return self.answer(404, {}, {"X-Error-Code": "RepoNotFound"})
        if rest.startswith("preupload/"):
            names = [f["path"] for f in json.loads(body)["files"]]
            modes = ["lfs" if "safetensors" in name else "regular" for name in names]
            files = [{"path": name, "uploadMode": mode, "shouldIgnore": False}
                     for name, mode in zip(names, modes, strict=True)]  # fmt: skip
            return self.answer(200, {"files": files})
        if rest.startswith("commit/"):
            return self.commit(repo, body)
        found = self.at(repo, rest.partition("/")[2].partition("/")[0] or "main")
        if found is None:
            return self.answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        number, files = found
        if rest.startswith("tree/"):
            rows = [{"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                    for n, b in files.items()]  # fmt: skip
            return self.answer(200, rows)
        return self.answer(200, {
            "id": repo, "sha": Hub.sha(number), "private": self.hub.private[repo], "tags": [],
            "siblings": [{"rfilename": n} for n in files],
        })  # fmt: skip

    def at(self, repo: str, revision: str) -> tuple[int, dict[str, bytes]] | None:
        commits = self.hub.repos[repo]
        shas = [Hub.sha(number) for number in range(len(commits))]
        if revision == "main":
            return len(commits) - 1, commits[-1]
        return (n := shas.index(revision), commits[n]) if revision in shas else None

    def commit(self, repo: str, body: bytes) -> None:
        files = dict(self.hub.repos[repo][-1])
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "lfsFile":
                files[entry["value"]["path"]] = self.hub.large[entry["value"]["oid"]]
        self.hub.repos[repo].append(files)
        sha = Hub.sha(len(self.hub.repos[repo]) - 1)
        url = f"{self.hub.url}/{repo}/commit/{sha}"
        self.answer(200, {"commitUrl": url, "commitOid": sha, "success": True})

    def resolve(self, path: str) -> None:
        repo, _, rest = path.strip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        found = self.at(repo, revision) if repo in self.hub.repos else None
        if found is None:
            return self.answer(404, {}, {"X-Error-Code": "RepoNotFound"})
        number, files = found
        if name not in files:
            return self.answer(404, {}, {"X-Error-Code": "EntryNotFound"})
        tag = hashlib.sha256(files[name]).hexdigest()
        return self.answer(200, files[name], {"ETag": f'"{tag}"', "X-Repo-Commit": Hub.sha(number)})


@contextmanager
def hub_stand_in() -> Iterator[Hub]:
    """A running stand-in; its address is for HF_ENDPOINT, before huggingface_hub is imported."""
    server = _Server(("127.0.0.1", 0), _Handler)
    hub = Hub(url=f"http://127.0.0.1:{server.server_address[1]}")
    server.hub = hub
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()

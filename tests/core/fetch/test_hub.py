"""Files of the Hub arrive through huggingface-hub, here from a stand-in at HF_ENDPOINT."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

FILES = {"scenes/a.txt": b"first scene", "scenes/b.txt": b"second scene", "README.md": b"# set"}
COMMIT = "0123456789012345678901234567890123456789"


class Hub(BaseHTTPRequestHandler):
    """Answers what huggingface-hub asks for one public data set, owner/set."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        token = self.headers.get("Authorization")
        if "secret" in path and token != "Bearer hf_good":
            return self.answer(401, b"{}", {"X-Error-Code": "GatedRepo"})
        if path.startswith("/api/datasets/"):
            return self.listing(path)
        name = path.partition("/resolve/")[2].partition("/")[2]
        if name not in FILES:
            return self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        tag = hashlib.sha1(FILES[name]).hexdigest()
        self.answer(200, FILES[name], {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def listing(self, path: str) -> None:
        if "/tree/" in path:
            rows = [{"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                    for n, b in FILES.items()]  # fmt: skip
            return self.answer(200, json.dumps(rows).encode(), {"Content-Type": "application/json"})
        value = {"id": "owner/set", "sha": COMMIT, "private": False, "tags": [],
                 "siblings": [{"rfilename": n} for n in FILES]}  # fmt: skip
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def fetch(endpoint: str, home: Path, url: str, file: str, *args: str, token: str = "") -> str:
    """Run `vlwm download` in a process of its own: the Hub's library reads its endpoint once."""
    entry = {"name": "set", "group": "uavscenes", "url": url, "file": file, "bytes": None,
             "sha256": None, "licence": "x"}  # fmt: skip
    (home / "c.json").write_text(json.dumps([entry]))
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    env = {**clean, "HF_ENDPOINT": endpoint, "HF_HOME": str(home / "hf"), "HF_TOKEN": token}
    command = [sys.executable, "-m", "vlwm", "download", "--uavscenes", "--catalog",
               str(home / "c.json"), "--data-dir", str(home / "data"), *args]  # fmt: skip
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return f"{done.returncode} {done.stderr}"


def test_a_file_of_the_hub(endpoint: str, tmp_path: Path) -> None:
    url = "hf://datasets/owner/set/scenes/a.txt"
    assert fetch(endpoint, tmp_path, url, "u/scenes/a.txt").startswith("0")
    assert (tmp_path / "data/u/scenes/a.txt").read_bytes() == FILES["scenes/a.txt"]


def test_a_folder_of_the_hub_and_only_some_scenes(endpoint: str, tmp_path: Path) -> None:
    assert fetch(endpoint, tmp_path, "hf://datasets/owner/set", "u", "--scene", "b.txt")[0] == "0"
    names = {p.name for p in (tmp_path / "data/u").rglob("*.txt")}
    assert names == {"b.txt"}


def test_a_gated_set_says_what_to_do_and_the_token_opens_it(endpoint: str, tmp_path: Path) -> None:
    url = "hf://datasets/owner/secret/README.md"
    refused = fetch(endpoint, tmp_path, url, "u/README.md")
    assert refused.startswith("4") and "HF_TOKEN" in refused
    assert "could not download owner/secret from Hugging Face" in refused
    assert fetch(endpoint, tmp_path, url, "u/README.md", token="hf_good").startswith("0")
    assert (tmp_path / "data/u/README.md").read_bytes() == FILES["README.md"]

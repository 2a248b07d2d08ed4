"""Servers that lie, break off, change the file or send another one: never a wrong file.

Each schedule is drawn from a seed. A server knows two versions of a file; whatever it does, the
file under its name is one of them, whole, or it is missing and the error is one sentence.
"""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.http_site import QuietServer
from vlwm.core.errors import DataError
from vlwm.core.fetch.content import damage, is_page, is_whole, proves_itself
from vlwm.core.fetch.tile_set import fetch_tile_set
from vlwm.core.fetch.transfer import Policy, Transfer

QUICK = Policy(attempts=5, connect_s=2, stall_s=1.0, backoff_s=0.0005, longest_pause_s=0.002)
PAGES = (
    b"\xef\xbb\xbf<!DOCTYPE html><html>sign in</html>",
    b"<!-- a comment -->\n<html><body>sign in</body></html>",
    "\ufeff<html>sign in</html>".encode("utf-16-le"),
    b"<?xml version='1.0'?>\n<!-- x --><HTML lang='ja'></HTML>",
)
KINDS = (
    "whole", "cut", "open_end", "open_end_cut", "chunked", "chunked_cut", "gzip", "gzip_cut",
    "ignore_if_range", "other_part", "page", "status", "lying_total", "empty", "no_validator",
)  # fmt: skip


MESSAGES = (
    b'{"error": "access denied"}',
    b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>',
    b'[{"message": "quota"}]',
)


def tar(text: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as opened:
        for number in range(5):
            member = tarfile.TarInfo(f"{number}.txt")
            member.size = 40 * len(text)
            opened.addfile(member, io.BytesIO(text.encode() * 40))
    return packed.getvalue()


def tile(magic: bytes, text: str) -> bytes:
    body = text.encode() * 400
    return magic + struct.pack("<II", 1, 12 + len(body)) + body


def old_weights(text: str) -> bytes:
    """As torch.save wrote them before 1.6: pickles and numbers without an end."""
    return b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + text.encode() * 400


def document(text: str) -> bytes:
    return f"<?xml version='1.0'?>\n<!-- a -->\n<a:B>{text * 400}</a:B>\n".encode()


WRITERS: dict[str, Any] = {
    "a.bin": lambda text: (text * 4000).encode(),
    "a.zip": lambda text: archive(text),
    "a.pth": lambda text: archive(text),
    "a.tar": tar,
    "a.b3dm": lambda text: tile(b"b3dm", text),
    "a.glb": lambda text: tile(b"glTF", text),
    "old.pth": old_weights,
    "a.gml": document,
}


def archive(text: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        for number in range(30):
            opened.writestr(f"{number}.txt", text * 400)
    return packed.getvalue()


class Liar(BaseHTTPRequestHandler):
    """Answers each request with a fault drawn by the server's own generator."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server: Any = self.server
        rng: random.Random = server.rng
        if rng.random() < 0.4:
            server.version = 1 - server.version
        body = server.versions[server.version]
        kind = rng.choice(server.kinds) if server.left > 0 else "whole"
        server.left -= 1
        start, wanted = 0, self.headers.get("Range", "")
        tag = f'"v{server.version}"'
        ignores = kind in ("ignore_if_range", "dated", "dated_cut")
        if wanted and (ignores or self.headers.get("If-Range") in (tag, None)):
            start = min(int(wanted.removeprefix("bytes=").rstrip("-")), len(body))
        self.answer(kind, body, start, tag, rng)
        self.close_connection = True

    def answer(self, kind: str, body: bytes, start: int, tag: str, rng: random.Random) -> None:
        rest = body[start:]
        cut = rest[: rng.randrange(len(rest) + 1)]
        if kind == "status":
            return self.send(rng.choice([500, 503, 429, 416]), {"Retry-After": "²"}, b"no")
        if kind == "page":
            return self.send(200, {"Content-Type": "application/octet-stream"}, rng.choice(PAGES))
        if kind == "message":
            return self.send(200, {}, rng.choice(MESSAGES))
        if kind == "empty":
            return self.send(200, {}, b"")
        validators = {"ETag": tag}
        if kind == "no_validator":
            validators = {}
        if kind.startswith("dated"):
            validators = {"Last-Modified": formatdate(1e9 + (tag == '"v1"')), "Date": formatdate()}
        if kind.startswith("gzip"):
            packed = gzip.compress(body)
            packed = packed[: rng.randrange(len(packed))] if kind == "gzip_cut" else packed
            return self.send(200, {"Content-Encoding": "gzip"}, packed, long=None)
        if kind.startswith("chunked"):
            return self.chunked(body, cut if kind == "chunked_cut" and not start else None)
        status, headers = 200, validators
        if start:
            first = start + (1 if kind == "other_part" else 0)
            total = len(body) + (3 if kind == "lying_total" else 0)
            status = 206
            headers = {**validators, "Content-Range": f"bytes {first}-{len(body) - 1}/{total}"}
        if kind.endswith("cut") and kind != "open_end_cut":
            return self.send(status, headers, cut, long=len(rest))
        if kind.startswith("open_end"):
            return self.send(status, headers, cut if kind == "open_end_cut" else rest, long=None)
        self.send(status, headers, rest)

    def send(
        self, status: int, headers: dict[str, str], body: bytes, long: int | None = -1
    ) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value.encode("utf-8").decode("latin-1"))
        if long is not None:
            self.send_header("Content-Length", str(len(body) if long < 0 else long))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def chunked(self, body: bytes, cut: bytes | None) -> None:
        self.send_response_only(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = body if cut is None else cut
        self.wfile.write(b"%x\r\n%s\r\n" % (len(body), sent))
        if cut is None:
            self.wfile.write(b"0\r\n\r\n")


@pytest.fixture(scope="module")
def liar() -> Iterator[Any]:
    server: Any = QuietServer(("127.0.0.1", 0), Liar)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("seed", range(120))
def test_a_hostile_server_never_gives_a_wrong_file(liar: Any, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    name = list(WRITERS)[seed % 3 if seed < 60 else 3 + seed % 5]
    texts = ("the first version", "the other version")  # of one length
    liar.versions = [WRITERS[name](t) for t in texts]
    liar.rng, liar.version, liar.left = rng, 0, rng.randrange(1, 9)
    liar.kinds = KINDS if seed < 40 else ("cut", "dated_cut", "ignore_if_range", "dated")
    if seed >= 60:
        liar.kinds = (*KINDS, "message", "message", "open_end_cut", "open_end_cut")
    url = f"http://127.0.0.1:{liar.server_address[1]}/{name}"
    path = tmp_path / name
    for _ in range(3):  # the operator types it again
        try:
            Transfer(url, path, policy=QUICK).run()
        except DataError as error:
            assert "\n" not in str(error) and not path.exists()
        else:
            break
    if path.exists():
        versions, got = liar.versions, path.read_bytes()
        if name == "a.tar":  # zeros behind its end belong to no member
            versions, got = [v.rstrip(b"\0") for v in versions], got.rstrip(b"\0")
        assert got in versions
        assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_a_page_behind_a_bom_or_a_comment(page: bytes) -> None:
    assert is_page(page, ".pth") and not is_page(page, ".html")
    assert not is_page(b"<?xml version='1.0'?><core:CityModel>", ".gml")


@pytest.mark.parametrize("name", [*WRITERS, "a.json", "a.tar.gz"])
def test_half_a_file_and_an_empty_one_are_not_there(tmp_path: Path, name: str) -> None:
    whole = {"a.json": b'{"root": 1}', "a.tar.gz": gzip.compress(bytes(10240))}
    raw = whole.get(name) or WRITERS[name]("x")
    path = tmp_path / name
    path.write_bytes(raw)
    assert is_whole(path) and is_whole(path, about=len(raw) + 10)
    assert not is_whole(path, size=len(raw) + 1) and not is_whole(path, about=10 * len(raw))
    assert proves_itself(path, name) is (name not in ("a.bin", "old.pth"))
    path.write_bytes(raw[: len(raw) // 2])
    assert not proves_itself(path, name) or damage(path, name) is not None
    path.write_bytes(b"")
    assert damage(path, name) == "it is empty"


@pytest.mark.parametrize("cut", [1, 512, 600, 1024, 1500])
def test_a_tar_without_its_end_is_not_whole(tmp_path: Path, cut: int) -> None:
    """Members end on a block of 512 bytes: what is cut between two looks whole to tarfile."""
    raw, path = tar("x" * 64), tmp_path / "a.tar"
    end = raw.rindex(b"x") + 1
    path.write_bytes(raw[: -(-end // 512) * 512 + 1024])
    assert is_whole(path)
    path.write_bytes(raw[: -(-end // 512) * 512 + 512 - cut])
    assert damage(path, "a.tar") is not None


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("name", ["a.b3dm", "a.glb", "a.gml", "a.obj", "a.tar", "a.npz", "a.bag"])
def test_a_message_of_a_server_is_not_the_file(tmp_path: Path, name: str, message: bytes) -> None:
    (tmp_path / name).write_bytes(message)
    assert damage(tmp_path / name, name) is not None


def test_a_tile_that_is_kept_packed_is_whole(tmp_path: Path) -> None:
    path, packed = tmp_path / "a.b3dm", gzip.compress(tile(b"b3dm", "x"))
    path.write_bytes(packed)
    assert is_whole(path)
    path.write_bytes(packed[:-9])
    assert not is_whole(path)


def test_what_is_not_a_tile_set_does_not_keep_its_name(tmp_path: Path) -> None:
    path = tmp_path / "t/tileset.json"
    path.parent.mkdir()
    with pytest.raises(DataError, match="not a 3D Tiles tileset"):
        fetch_tile_set("http://h/t.json", path, lambda url, to: to.write_text('{"error": 1}'))
    assert not path.exists()
    path.write_text('{"error": 1}')  # the operator's own
    with pytest.raises(DataError, match="delete it"):
        fetch_tile_set("http://h/t.json", path, lambda url, to: None)
    assert path.exists()

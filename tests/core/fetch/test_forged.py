"""Forged catalogues, answers, links, archives and notes: one sentence, never a bug.

The suite runs them small; `-m endurance` runs a thousand of each.
"""

from __future__ import annotations

import io
import json
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlwm.core.errors import VlwmError
from vlwm.core.fetch.archive import extract
from vlwm.core.fetch.catalogue import Entry, read_catalogue
from vlwm.core.fetch.links import entries_of_links
from vlwm.core.fetch.plateau import plateau_entries
from vlwm.core.fetch.tile_set import fetch_tile_set
from vlwm.core.fetch.transfer import Policy, Transfer
from vlwm.core.files import explain_os_error

ODD: list[Any] = [
    None, True, 0, -1, 1.5, "", "²", "\ud800", "a\0b", "x" * 300, "x" * 5000, [], {}, [[]], "../x",
    "/x", "https://[::1", "https://" + "a" * 64 + ".com/x", "https://h:port/x", "hf://x", "\x1b[2J",
    10**400, "file:///etc/passwd", "https://h/%2e%2e", "https://h/a%00b",
]  # fmt: skip
ENTRY = {"name": "a", "group": "plateau", "url": "https://h/x.zip", "file": "x.zip", "bytes": 1,
         "sha256": None, "licence": "x", "about_bytes": 5, "how": "h", "extract": "e"}  # fmt: skip
ROW = {"ward_code": "13101", "type_en": "bldg", "format": "3D Tiles", "lod": "1", "year": 2023,
       "url": "https://h/a/tileset.json", "size": 3}  # fmt: skip
TILES = {"root": {"content": {"uri": "a.b3dm"}, "children": [{"contents": [{"uri": "b.json"}]}]}}


def mutated(value: Any, rng: random.Random) -> Any:
    """A JSON value with one or two of its parts exchanged for something odd."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.randrange(1, 3)):
        place = value
        while isinstance(place, dict | list) and place:
            key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
            if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.3:
                place[key] = rng.choice(ODD)
                break
            place = place[key]
    return rng.choice(ODD) if rng.random() < 0.05 else value


def raw(value: Any, rng: random.Random) -> bytes:
    """Its bytes, now and then flipped, cut or nested without end."""
    data = bytearray(json.dumps(value).encode())
    kind = rng.random()
    if kind < 0.2 and data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind < 0.3:
        data = data[: rng.randrange(len(data) + 1)]
    elif kind < 0.35:
        return b"[" * 100_000
    return bytes(data)


def _catalogue(folder: Path, rng: random.Random) -> None:
    path = folder / "c.json"
    path.write_bytes(raw(mutated([ENTRY, {**ENTRY, "name": "b"}], rng), rng))
    for entry in read_catalogue(path):
        str(entry.path(folder)).encode()


def _answer(folder: Path, rng: random.Random) -> None:
    answer = mutated({"datasets": [ROW, ROW], "citygml": [ROW]}, rng)
    for kind in ("citygml", "3dtiles"):
        plateau_entries(["13101"], kind, answer)


def _links(folder: Path, rng: random.Random) -> None:
    words = [str(rng.choice(ODD)) for _ in range(3)] + ["https://h/part.zip"]
    text = "\n".join(rng.sample(words, 3)).encode("utf-8", "surrogatepass")
    (folder / "l.txt").write_bytes(text)
    entries_of_links(Entry("midair", "midair", None, "midair"), folder / "l.txt")


def _tiles(folder: Path, rng: random.Random) -> None:
    path = folder / "t.json"
    path.write_bytes(raw(mutated(TILES, rng), rng))

    def take(url: str, target: Path) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                target.write_bytes(b'{"root": {}}')
        except OSError as error:
            raise explain_os_error(error, target) from error

    fetch_tile_set("https://h/t.json", path, take)


def _archive(folder: Path, rng: random.Random) -> None:
    packed = io.BytesIO()
    method = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    if rng.random() < 0.5:
        with zipfile.ZipFile(packed, "w", method) as zipped:
            zipped.writestr("a.txt", "text " * 200)
    else:
        with tarfile.open(
            fileobj=packed, mode=rng.choice(["w:gz", "w:bz2", "w:xz", "w"])
        ) as tarred:
            info = tarfile.TarInfo("a.txt")
            info.size = 100
            tarred.addfile(info, io.BytesIO(b"x" * 100))
    data = bytearray(packed.getvalue())
    for _ in range(rng.randrange(1, 6)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path = folder / "a.zip"
    path.write_bytes(data)
    extract(path, folder / "out")


def _notes(folder: Path, rng: random.Random) -> None:
    """Notes of an unfinished transfer, and addresses that cannot be asked for."""
    url = rng.choice(["https://[::1", f"http://{'a' * 64}.invalid/x", "http://h:99999/x", "ftp://x/y",
                      "http://127.0.0.1:9/x"])  # fmt: skip
    (folder / "x.part").write_bytes(b"some")
    notes = mutated({"url": "u", "etag": '"e"', "modified": None, "total": 9}, rng)
    (folder / "x.part.json").write_bytes(raw(notes, rng))
    policy = Policy(attempts=1, connect_s=0.2, restarts=0)
    Transfer(url, folder / "x", policy=policy, pause=lambda s: None).run()


READERS = [_catalogue, _answer, _links, _tiles, _archive, _notes]


@pytest.mark.parametrize(
    "many", [25, pytest.param(1000, marks=[pytest.mark.endurance, pytest.mark.timeout(900)])]
)
@pytest.mark.parametrize("reader", READERS, ids=lambda r: r.__name__)
def test_forged_input_is_one_sentence(
    tmp_path: Path,
    reader: Callable[[Path, random.Random], None],
    many: int,
    seeds_of: Callable[[int], range],
) -> None:
    refused = 0
    for seed in seeds_of(many):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            reader(folder, random.Random(seed))
        except VlwmError as error:
            refused += 1
            text = str(error)
            assert "\n" not in text and "\x1b" not in text, (seed, text)
            text.encode()
    assert refused or reader is _answer

"""Damaged and forged city files: bytes changed at random, and values that no exporter writes."""

from __future__ import annotations

import json
import random
import struct
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from tests.core.city.gml_text import GML, member, solid, wall
from tests.core.city.readers.test_obj import cube
from tests.core.city.readers.test_tiles3d import b3dm, blocks, leaf

WORDS = [
    b"\x00", b"\xff\xfe", b"-1", b"0", b"1e999", b"nan", b"-inf", b"1_0",
    "²".encode(), "１".encode(),
    b"999999999999999999999", b"4294967295", b"\xed\xa0\x80", b"\x1b[2J", b"\x9b", b"a" * 300,
    b"\\u0000",
    b"\\ud800", b"[" * 100, b"{}", b"null", b"[]", b"true", b'"x"', b"../", b"//", b"http://[",
    b"f 1 2 3\n",
    b"EPSG:6668", b"EPSG:0", b"srsName='EPSG:4978'", b"<", b"&", b"/>", b"posList", b"<!DOCTYPE a>",
]  # fmt: skip
"""what is put in place of bytes"""


def changed(data: bytes, random_: random.Random) -> bytes:
    """The bytes with one to eight changes: flips, cuts, copies and words of `WORDS`."""
    raw = bytearray(data)
    for _ in range(random_.choice([1, 1, 2, 3, 8])):
        at = random_.randrange(len(raw) + 1)
        kind = random_.randrange(6)
        if kind == 0 and at < len(raw):
            raw[at] ^= 1 << random_.randrange(8)
        elif kind == 1:
            raw[at : at + random_.randrange(1, 60)] = b""
        elif kind == 2:
            raw[at:at] = random_.choice(WORDS)
        elif kind == 3:
            word = random_.choice(WORDS)
            raw[at : at + len(word)] = word
        elif kind == 4:
            raw[at:at] = raw[at : at + random_.randrange(1, 200)]
        elif random_.random() < 0.2:
            del raw[at:]
        if not raw:
            raw = bytearray(b"\n")
    return bytes(raw)


def changed_json(value: Any, random_: random.Random) -> Any:
    """The value with one part of it replaced by one of another type."""
    odd: list[Any] = [
        None, True, -1, 0, 1e308, float("nan"), "", "x" * 300, "\x00", "\ud800", [], {}, [[]],
        [None],
        {"a": 1}, "²", 2**70, [1] * 16, "../a", "http://[", json.loads("[" * 200 + "]" * 200),
    ]  # fmt: skip
    paths: list[list[Any]] = []

    def walk(part: Any, path: list[Any]) -> None:
        paths.append(path)
        if isinstance(part, dict | list):
            for key in list(part) if isinstance(part, dict) else range(len(part)):
                walk(part[key], [*path, key])

    copy = json.loads(json.dumps(value))
    walk(copy, [])
    path = random_.choice(paths)
    if not path:
        return random_.choice(odd)
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = random_.choice(odd)
    return copy


def _gml() -> bytes:
    bodies = [
        solid(5 + i, low=30.0 * i, high=30.0 * i + 10) + (wall(7) if i == 1 else "")
        for i in range(4)
    ]
    text = GML.format(members="\n".join(member(b, f"b{i}") for i, b in enumerate(bodies)))
    envelope = '<gml:boundedBy><gml:Envelope srsName="EPSG:6697"/></gml:boundedBy>'
    return text.replace('gml">', f'gml">{envelope}', 1).encode()


def _tile(extra: dict[str, Any] | None = None) -> bytes:
    heights = [(3.0 + i, 20.0) for i in range(3)]
    table = {"gml_id": ["a", "b", "c"], "_zmin": [3.0, 4.0, 5.0]}
    return b3dm(*blocks(heights), table, **(extra or {}))


def _glb(data: bytes) -> tuple[dict[str, Any], bytes]:
    at = data.index(b"glTF")
    size = struct.unpack_from("<I", data, at + 12)[0]
    return json.loads(data[at + 20 : at + 20 + size]), data[at + 28 + size :]


def write_obj(folder: Path, random_: random.Random) -> None:
    text = "# EPSG:6677\n" + "".join(cube(40 * i, 9, f"n{i}", 1 + 8 * i) for i in range(6))
    (folder / "a.obj").write_bytes(changed(text.encode(), random_))


def write_gml(folder: Path, random_: random.Random) -> None:
    (folder / "a.gml").write_bytes(changed(_gml(), random_))


def write_zip(folder: Path, random_: random.Random) -> None:
    packed = BytesIO()
    methods = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    with zipfile.ZipFile(packed, "w", random_.choice(methods)) as archive:
        archive.writestr("udx/bldg/53394611_bldg_6697_op.gml", _gml())
        archive.writestr("t/a.obj", cube(0, 5, "x"))
    (folder / "a.zip").write_bytes(changed(packed.getvalue(), random_))


def write_tile(folder: Path, random_: random.Random) -> None:
    (folder / "a.b3dm").write_bytes(changed(_tile(), random_))
    (folder / "tileset.json").write_text(
        json.dumps({"asset": {"version": "1.0"}, "root": leaf("a.b3dm")})
    )


def write_tile_set(folder: Path, random_: random.Random) -> None:
    (folder / "a.b3dm").write_bytes(_tile())
    children = [leaf("a.b3dm"), {"contents": [{"uri": "a.b3dm"}]}]
    place = np.eye(4).ravel().tolist()
    root = leaf("a.b3dm", refine="ADD", transform=place, children=children)
    tree = {"asset": {"version": "1.0", "gltfUpAxis": "Y"}, "root": root}
    value = changed_json(tree, random_)
    (folder / "tileset.json").write_text(json.dumps(value))


def write_gltf(folder: Path, random_: random.Random) -> None:
    scene, binary = _glb(_tile())
    (folder / "a.bin").write_bytes(binary)
    scene["buffers"][0]["uri"] = "a.bin"
    (folder / "a.gltf").write_text(json.dumps(changed_json(scene, random_)))
    (folder / "tileset.json").write_text(json.dumps({"root": leaf("a.gltf")}))


READERS: dict[str, Callable[[Path, random.Random], None]] = {
    "obj": write_obj, "gml": write_gml, "zip": write_zip, "tile": write_tile,
    "tileset": write_tile_set, "gltf": write_gltf,
}  # fmt: skip

"""The shard format: readable from its description alone, and no byte changes in silence."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import zstandard

from vlwm.core.errors import DataError
from vlwm.core.store.shard import BITS, BYTES, ShardBuilder
from vlwm.core.store.shard_files import check_shard, read_index

FRAMES = 4


def a_shard(seed: int = 0) -> tuple[bytes, dict[str, list[bytes | None]]]:
    """A shard of two layers, of which frame 2 lacks the second, and what it holds."""
    rng = np.random.default_rng(seed)
    truth = [np.packbits(rng.random(400) < 0.1, bitorder="little").tobytes() for _ in range(FRAMES)]
    classes = [rng.integers(0, 9, 400, dtype=np.uint8).tobytes() for _ in range(FRAMES)]
    content: dict[str, list[bytes | None]] = {"truth.occupied": list(truth), "classes": [*classes]}
    content["classes"][2] = None
    builder = ShardBuilder({"truth.occupied": BITS, "classes": BYTES, "seen.free": BITS})
    for frame in range(FRAMES):
        present = {name: frames[frame] for name, frames in content.items()}
        builder.add({name: raw for name, raw in present.items() if raw is not None})
    tables = {"number": np.arange(FRAMES), "pose.true": rng.normal(size=(FRAMES, 13))}
    header = {"session": "drone_a", "frames": FRAMES, "meta": {"agent": "drone", "city": "東京"}}
    return builder.to_bytes(header, tables), content


def read_by_hand(raw: bytes) -> tuple[dict, dict, dict]:
    """Read a shard as docs/data_format.md describes it: header, tables, layers. No vlwm here."""
    magic, version, header_bytes, table_bytes, file_bytes, crc = struct.unpack_from("<8sIIQQI", raw)
    assert (magic, version, file_bytes) == (b"VLWMSHRD", 1, len(raw))
    assert struct.unpack_from("<I", raw, 36)[0] == zlib.crc32(raw[:36])
    data_at = 40 + header_bytes + table_bytes
    assert zlib.crc32(raw[40:data_at]) == crc
    header = json.loads(raw[40 : 40 + header_bytes])
    tables, at = {}, 40 + header_bytes
    for entry in header["tables"]:
        count = int(np.prod(entry["shape"]))
        table = np.frombuffer(raw, entry["type"], count, at).reshape(entry["shape"])
        tables[entry["name"]], at = table, at + table.nbytes
    layers = {}
    for entry in header["layers"]:
        columns = (tables[f"{entry['name']}/{key}"] for key in ("offset", "size", "crc", "content"))
        frames: list[bytes | None] = []
        for offset, size, packed_crc, content_crc in zip(*columns, strict=True):
            packed = raw[data_at + offset : data_at + offset + size]
            assert zlib.crc32(packed) == packed_crc
            content = zstandard.ZstdDecompressor().decompress(packed) if size else None
            assert content is None or zlib.crc32(content) == content_crc
            frames.append(content)
        layers[entry["name"]] = frames
    return header, tables, layers


def test_sixty_lines_without_vlwm_read_a_shard() -> None:
    raw, content = a_shard()
    header, tables, layers = read_by_hand(raw)
    assert header["session"] == "drone_a" and header["meta"]["city"] == "東京"
    assert layers == content  # a layer that no frame has is not in the file
    assert tables["number"].tolist() == [0, 1, 2, 3] and tables["pose.true"].shape == (4, 13)
    assert a_shard()[0] == raw


def test_flipped_bytes_and_cuts_are_found(tmp_path: Path) -> None:
    raw, _ = a_shard()
    path = tmp_path / "a.shard"
    path.write_bytes(raw)
    assert set(check_shard(path).layers) == {"truth.occupied", "classes"}
    for at in (*range(40), *range(40, len(raw), 7)):
        changed = bytearray(raw)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(changed)
        with pytest.raises(DataError):
            check_shard(path)
    for size in range(0, len(raw), 61):
        path.write_bytes(raw[:size])
        with pytest.raises(DataError, match="a shard is damaged"):
            check_shard(path)
    path.write_bytes(raw + b"more")
    with pytest.raises(DataError, match="bytes instead of"):
        read_index(path)


def test_a_shard_of_a_later_version_is_one_sentence(tmp_path: Path) -> None:
    raw = bytearray(a_shard()[0])
    raw[8] = 2
    raw[36:40] = struct.pack("<I", zlib.crc32(raw[:36]))
    (tmp_path / "a.shard").write_bytes(raw)
    with pytest.raises(DataError, match="a shard of version 2, and this vlwm reads version 1"):
        read_index(tmp_path / "a.shard")


def test_a_header_that_lies_is_one_sentence(tmp_path: Path) -> None:
    """Checksums agree, but tables, layers or frames do not: a forged file, not a damaged one."""
    raw, _ = a_shard()
    header_bytes = struct.unpack_from("<I", raw, 12)[0]
    header = json.loads(raw[40 : 40 + header_bytes])
    for change in (
        {"frames": 5}, {"layers": [{"name": "x"}]}, {"tables": 3}, {"frames": None},
        {"tables": [{"name": "a", "type": "O", "shape": [4]}]}, {"layers": [7]},
        {"tables": [{"name": "a", "type": "<f8", "shape": [4, 10**12]}]},
    ):  # fmt: skip
        text = json.dumps({**header, **change}).encode()
        body = text + raw[40 + header_bytes :]
        tables = struct.unpack_from("<Q", raw, 16)[0]
        crc = zlib.crc32(body[: len(text) + tables])
        prefix = struct.pack("<8sIIQQI", b"VLWMSHRD", 1, len(text), tables, 40 + len(body), crc)
        path = tmp_path / "a.shard"
        path.write_bytes(prefix + struct.pack("<I", zlib.crc32(prefix)) + body)
        with pytest.raises(DataError, match="its header makes no sense"):
            read_index(path)

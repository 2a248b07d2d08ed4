"""Frames as npz files: named layers round-trip, foreign files load, damage is one sentence."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlwm.core.data.npz import LAYERS, npz_bytes, read_layers, read_occupancy, write_layers
from vlwm.core.errors import DataError


def some_layers(seed: int = 0, shape: tuple[int, int, int] = (8, 6, 5)) -> dict[str, np.ndarray]:
    """Every layer at random; `classes` has values up to 255."""
    rng = np.random.default_rng(seed)
    layers = {name: (rng.random(shape) < 0.3).astype(np.uint8) for name in LAYERS}
    layers["classes"] = rng.integers(0, 256, shape, dtype=np.uint8)
    return layers


def test_layers_round_trip_and_numpy_reads_them(tmp_path: Path) -> None:
    layers = some_layers()
    write_layers(tmp_path / "a.npz", layers)
    found = read_layers(tmp_path / "a.npz")
    assert list(found) == list(LAYERS)
    with np.load(tmp_path / "a.npz") as opened:
        for name, layer in layers.items():
            np.testing.assert_array_equal(found[name], layer)
            np.testing.assert_array_equal(opened[name], layer)
    np.testing.assert_array_equal(read_occupancy(tmp_path / "a.npz"), layers["occupancy"])


def test_absent_layers_stay_absent_and_occupancy_alone_is_the_plain_file(tmp_path: Path) -> None:
    layers = some_layers()
    plain = npz_bytes(layers["occupancy"])
    assert npz_bytes({"occupancy": layers["occupancy"], "other": layers["known"]}) == plain
    (tmp_path / "a.npz").write_bytes(plain)
    assert list(read_layers(tmp_path / "a.npz")) == ["occupancy"]


def test_files_of_other_writers_load_and_unknown_keys_are_skipped(tmp_path: Path) -> None:
    layers = some_layers()
    values = {"occupancy": layers["occupancy"] > 0, "known": layers["known"] * 2.0}
    np.savez(tmp_path / "a.npz", **values, classes=layers["classes"].astype(int), extra=np.ones(3))
    found = read_layers(tmp_path / "a.npz")
    assert list(found) == ["occupancy", "known", "classes"]
    for name, layer in found.items():
        np.testing.assert_array_equal(layer, layers[name])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"known": np.ones((2, 2, 2))}, "it has no array 'occupancy'"),
        ({"occupancy": np.ones((2, 2))}, "occupancy is an array float64"),
        ({"occupancy": np.ones((2, 2, 2)), "known": np.ones((2, 2, 3))}, "known has the shape"),
        (
            {"occupancy": np.ones((2, 2, 2)), "classes": np.full((2, 2, 2), 256)},
            "classes are not whole numbers from 0 to 255",
        ),
    ],
)
def test_wrong_layers_are_one_sentence(tmp_path: Path, arrays: dict, words: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=words):
        read_layers(tmp_path / "a.npz")


def test_a_file_written_to_a_stream_loads(tmp_path: Path) -> None:
    class Stream(io.RawIOBase):
        out = b""

        def write(self, data: Any) -> int:
            Stream.out += bytes(data)
            return len(data)

        def writable(self) -> bool:
            return True

    layers = some_layers()
    with zipfile.ZipFile(Stream(), "w", zipfile.ZIP_DEFLATED) as out:
        for name, layer in layers.items():
            with out.open(f"{name}.npy", "w") as member:
                np.save(member, layer)
    (tmp_path / "a.npz").write_bytes(Stream.out)
    assert read_layers(tmp_path / "a.npz").keys() == layers.keys()


def test_no_flipped_bit_changes_a_layer_in_silence(tmp_path: Path) -> None:
    layers = some_layers()
    whole, path = npz_bytes(layers), tmp_path / "a.npz"
    rng = np.random.default_rng(0)
    names = np.arange(8 * whole.index(b"PK\x01\x02"), 8 * len(whole))
    for at in (*rng.integers(0, 8 * len(whole), 80), *rng.choice(names, 160)):
        raw = bytearray(whole)
        raw[at // 8] ^= 1 << (at % 8)
        path.write_bytes(raw)
        try:
            found = read_layers(path)
        except DataError:
            continue
        assert found.keys() == layers.keys()
        assert all(np.array_equal(layer, layers[name]) for name, layer in found.items())

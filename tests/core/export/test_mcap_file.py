"""An MCAP file is read back by the reader of the format's authors."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.export.test_forecast import GRID, wall
from tests.trained_run import ATTRIBUTION
from vlwm.core.errors import MachineError, UsageError
from vlwm.core.export.mcap_file import AGREED, FALSE, MISSED, McapWindow, write_mcap

pytest.importorskip("mcap_protobuf", reason="needs the extra mcap")


def read(path: Path) -> list[tuple[str, float, Any]]:
    """Topics, times in seconds and decoded messages."""
    from mcap.reader import make_reader
    from mcap_protobuf.decoder import DecoderFactory

    with open(path, "rb") as handle:
        reader = make_reader(handle, decoder_factories=[DecoderFactory()])
        return [
            (channel.topic, message.log_time / 1e9, decoded)
            for _, channel, message, decoded in reader.iter_decoded_messages()
        ]


def cells_of(message: Any) -> np.ndarray:
    """Cells (X, Y, Z) by the strides that the message states."""
    data = np.frombuffer(message.data, np.uint8)
    layers = len(data) // message.slice_stride
    x, y, z = np.meshgrid(
        range(message.column_count), range(message.row_count), range(layers), indexing="ij"
    )
    at = z * message.slice_stride + y * message.row_stride + x * message.cell_stride
    return data[at]


def window(start: float = 0.0) -> McapWindow:
    rng = np.random.default_rng(int(start))
    past, truth, forecast = (rng.random((n, *GRID.shape)) < 0.2 for n in (4, 6, 6))
    ego = np.stack([np.arange(10) + start, np.zeros(10), np.full(10, 5.0), np.full(10, 0.3)], 1)
    return McapWindow(
        GRID, np.arange(-3, 7) / 2, ego, past.astype(np.uint8), truth.astype(np.uint8), forecast,
        attribution=ATTRIBUTION,
    )  # fmt: skip


def test_windows_come_back_cell_by_cell(tmp_path: Path) -> None:
    windows = [window(0), window(50)]
    count = write_mcap(tmp_path / "a.mcap", windows)
    found = read(tmp_path / "a.mcap")
    assert len(found) == count == 2 * (2 + 4 + 3 * 6)
    for topic, stacks in (("/past", "past"), ("/truth", "truth"), ("/forecast", "forecast")):
        seen = np.stack([cells_of(m) for t, _, m in found if t == topic])
        np.testing.assert_array_equal(seen, np.concatenate([getattr(w, stacks) for w in windows]))
    times = [at for topic, at, _ in found if topic in ("/past", "/forecast")]
    np.testing.assert_allclose(times, [*np.arange(10) / 2, *(5.5 + np.arange(10) / 2)])
    assert {m.message for t, _, m in found if t == "/attribution"} == {ATTRIBUTION}


def test_the_difference_tells_agreed_missed_and_false(tmp_path: Path) -> None:
    one = window()
    write_mcap(tmp_path / "a.mcap", [one])
    difference = cells_of(next(m for t, _, m in read(tmp_path / "a.mcap") if t == "/difference"))
    assert one.truth is not None
    t, f = one.truth[0].astype(bool), one.forecast[0].astype(bool)
    for value, mask in ((AGREED, t & f), (MISSED, t & ~f), (FALSE, f & ~t), (0, ~t & ~f)):
        np.testing.assert_array_equal(difference == value, mask)


def test_a_grid_lies_where_its_ego_frame_is(tmp_path: Path) -> None:
    """The corner of the grid of a vehicle at (100, 50, 7) that looks north."""
    wall().to_mcap(tmp_path / "a.mcap")
    message = next(m for t, _, m in read(tmp_path / "a.mcap") if t == "/probability")
    p, q = message.pose.position, message.pose.orientation
    np.testing.assert_allclose([p.x, p.y, p.z], [108.0, 42.0, 5.0])
    np.testing.assert_allclose([q.z, q.w], [np.sqrt(0.5)] * 2)
    assert cells_of(message).max() == round(255 * 0.9)
    assert (message.cell_size.x, message.cell_size.z) == (1.0, 2.0)


def test_a_past_without_poses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="past frames are placed by their poses"):
        wall().to_mcap(tmp_path / "a.mcap", past=np.zeros((4, *GRID.shape)))


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.startswith("mcap"):
            raise ImportError(name=name)
        return plain(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MachineError, match="writing MCAP needs packages"):
        write_mcap(tmp_path / "a.mcap", [window()])

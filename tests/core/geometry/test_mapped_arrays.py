"""Arrays in nameless files hold what was written, and leave nothing behind."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlwm.core.errors import MachineError
from vlwm.core.geometry import mapped_arrays
from vlwm.core.geometry.mapped_arrays import Scratch, let_go, pieces
from vlwm.core.geometry.voxelize import TriangleTiles


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(-9, 9), max_size=30), max_size=12))
def test_rows_are_what_was_appended(batches: list[list[int]]) -> None:
    rows = Scratch().rows(np.int16)
    for batch in batches:
        rows.append(batch)
    wanted = np.array([v for batch in batches for v in batch], dtype=np.int16)
    np.testing.assert_array_equal(rows.array(), wanted)
    if len(wanted):
        rows.put(len(wanted) // 2, 7)
        wanted[len(wanted) // 2] = 7
        np.testing.assert_array_equal(rows.read(0, len(wanted)), wanted)


def test_pages_come_back_as_they_were(tmp_path: Path) -> None:
    array = Scratch(tmp_path).zeros((3000, 3))
    assert not array.any()
    array[:] = np.arange(9000.0).reshape(-1, 3)
    let_go(array)
    seen = np.concatenate([some.copy() for _, some in pieces(array, 700)])
    np.testing.assert_array_equal(seen, np.arange(9000.0).reshape(-1, 3))


def test_killed_it_leaves_no_file(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from vlwm.core.geometry.mapped_arrays import Scratch\n"
        "place = Scratch(Path(sys.argv[1]) / 'not' / 'there')\n"
        "array, rows = place.zeros(1 << 20), place.rows(float)\n"
        "array[:] = 1; rows.append(array); print(rows.array().sum(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL and float(done.stdout) == 1 << 20
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Scratch(tmp_path).rows(float)

    def refuse(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(MachineError, match="disk is full"):
        Scratch(tmp_path).zeros(10)
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(rows, "_file", full)
        rows.append(np.zeros(10))
        with pytest.raises(MachineError, match="disk is full"):
            rows.array()


def test_where_files_cannot_be_mapped_the_temporary_folder_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> None:
        raise OSError(errno.ENODEV, "No such device")

    with monkeypatch.context() as patch:
        patch.setattr(mmap, "mmap", refuse)
        place = Scratch(tmp_path)
    assert place.folder != tmp_path and place.folder.is_dir()
    assert Scratch(tmp_path).folder == tmp_path


def test_tiles_in_files_are_those_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    triangles = rng.uniform(0, 900, (5000, 1, 3)) + rng.uniform(-9, 9, (5000, 3, 3))
    triangles[17] = [[0, 0, 0], [5000, 0, 0], [0, 5000, 0]]
    memory = TriangleTiles.build(triangles)
    monkeypatch.setattr(mapped_arrays, "PIECE_ROWS", 333)
    monkeypatch.setattr("vlwm.core.geometry.voxelize.PIECE_ROWS", 333)
    files = TriangleTiles.build(triangles, scratch=Scratch())
    assert files.shape == memory.shape and files.origin_m == memory.origin_m
    for name in ("starts", "items", "first_tile", "large"):
        np.testing.assert_array_equal(getattr(files, name), getattr(memory, name))

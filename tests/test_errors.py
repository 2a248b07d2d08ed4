"""Every error of the code stands in one table and its key words stand in a test."""

from __future__ import annotations

import ast
import errno
import json
import re
import sys
import types
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from vlwm.core.errors import VlwmError

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "docs"))

from error_table import GAP, Raised, every_error  # noqa: E402

NEEDS_PROCESSES = ("the first process of the run has failed",)
"""what only several processes can meet; tests/core/training kills one of two"""


def test_every_error_has_words_and_a_remedy() -> None:
    for error in every_error():
        assert "\n" not in error.words and not error.words.endswith("."), error
        assert error.remedy is not None and error.remedy.strip(), error


def test_the_key_words_of_every_error_stand_in_a_test() -> None:
    said = {text for path in sorted((ROOT / "tests").rglob("*.py")) for text in _texts(path)}
    mute = [e for e in every_error() if e.pieces and not _is_met(e, said)]
    assert [e for e in mute if e.words not in NEEDS_PROCESSES] == []


def _texts(path: Path) -> list[str]:
    """The short texts of a test file: what it looks for."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [t.strip() for t in texts if 8 <= len(t) <= 90 and "\n" not in t]


def _is_met(error: Raised, texts: set[str]) -> bool:
    """Return True if a text of a test is words of the sentence, or holds all of one piece of it."""
    pieces = error.pieces
    words = ".*".join(map(re.escape, pieces))
    in_order = re.compile(words) if len(words) >= 8 else None
    return any(
        (in_order is not None and in_order.search(text)) or _meets(text, pieces) for text in texts
    )


def _meets(text: str, pieces: list[str]) -> bool:
    pattern = _expression(text)
    return any(
        text in piece
        or (len(piece) >= 7 and piece in text)
        or (pattern is not None and pattern.search(piece) is not None)
        for piece in pieces
    )


@cache
def _expression(text: str) -> re.Pattern[str] | None:
    """Return a text as an expression; None for one that is not, or has too few letters."""
    if len(re.sub(r"[^a-zA-Z ]", "", text)) < 8:
        return None
    try:
        return re.compile(text)
    except re.error:
        return None


COMMANDS = [
    ("prepare --fill wood", "--fill wood is unknown: use surface or solid"),
    ("prepare --area 35.68,139.76,0", "a radius of 0 m is out of range"),
    ("prepare --up w", "--up w is unknown"),
    ("prepare --scale 0", "--scale 0 is out of range"),
    ("prepare --set optimizer.lrr=1", "unknown config key optimizer.lrr"),
    ("prepare --set optimizer.rl=1", "did you mean optimizer.lr?"),
    ("prepare --set max_epochs=x", "max_epochs = 'x' should be a whole number"),
    ("prepare --set foo", "--set foo has no '='"),
    ("prepare --set dist_params=1", "--set dist_params has no effect in vlwm"),
    ("prepare --shard 0/2", "--shard and --engine belong to --store"),
    ("prepare --store file:///x --output y", "--store takes the place of --output"),
    ("prepare --store ftp://x", "is not the address of a store"),
    ("train --backup ftp://x", "is not the address of a store"),
    ("train --stop-instance", "--stop-instance works on Vast.ai, RunPod and Lambda Cloud"),
    ("train --stage wrold", "--stage wrold is unknown"),
    ("train --config test_local --gpu-ids 99", "GPU 99 not found"),
    ("eval --split tset", "--split tset is unknown: did you mean test?"),
    ("download --plateau --links list", "--links is for datasets that require registration"),
    ("download --midair", "requires registration"),
    ("download --midair --links list", "the link list is empty"),
    ("setup --json --fix", "--json cannot ask"),
    ("download --catalog one.json", "a catalogue is a list of entries"),
    ("download --catalog two.json", "entry 0 is not an object"),
    ("download --catalog three.json", "entry 0 lacks url, file"),
    ("download --catalog four.json", "two entries are named 'a'"),
    ("download --catalog five.json", "entry 0 has an unknown key 'ulr'"),
    ("download --catalog six.json", "the address should begin with http, https or hf"),
    ("download --catalog seven.json --midair", "nothing in the catalogue matches"),
    ("prepare --config circle.py", "_base_ files include each other in a loop"),
    ("prepare --input damaged.zip", "the archive is damaged"),
]  # fmt: skip


def _entry(**changes: Any) -> dict[str, Any]:
    return {"name": "a", "group": "plateau", "url": "https://x/y", "file": "y", **changes}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything wrong in it."""
    monkeypatch.chdir(tmp_path)
    catalogues = {
        "one": {}, "two": [1], "three": [{"name": "a", "group": "g"}],
        "four": [_entry(), _entry()], "five": [_entry(ulr="x")],
        "six": [_entry(url="ftp://x/y")], "seven": [_entry()],
    }  # fmt: skip
    for name, value in catalogues.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    (tmp_path / "list").write_text("# nothing\n")
    (tmp_path / "circle.py").write_text("_base_ = './circle.py'\n")
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as opened:
        opened.writestr("a.obj", "v 0 0 0\n")
    raw = (tmp_path / "whole.zip").read_bytes()
    (tmp_path / "damaged.zip").write_bytes(raw[: len(raw) // 2])
    return tmp_path


@pytest.mark.parametrize(("line", "words"), COMMANDS, ids=[line for line, _ in COMMANDS])
def test_a_mistake_on_the_command_line(desk: Path, line: str, words: str) -> None:
    from vlwm.cli import app

    error = CliRunner().invoke(app, line.split()).exception
    assert isinstance(error, VlwmError), error
    assert words in str(error) and "\n" not in str(error)


_AXES = dict.fromkeys("xyz", 0.0)
_POSE = {"position": _AXES, "orientation": {**_AXES, "w": 1.0},
         "velocity": {"linear": _AXES, "angular": _AXES}}  # fmt: skip


def _session(folder: Path, pose: object) -> Path:
    for name in ("occupancy", "poses"):
        (folder / name).mkdir(parents=True)
    (folder / "occupancy/000000_occupancy.npz").write_bytes(b"no archive")
    (folder / "poses/000000.json").write_text("{" if pose is None else json.dumps(pose))
    return folder


def _grid(*numbers: float, cell: float = 1.0) -> None:
    from vlwm.core.geometry.grid import VoxelGrid

    VoxelGrid.from_range(numbers, (cell, cell, cell))


def _scan(folder: Path) -> None:
    from vlwm.core.data.sensors.lidar import read_lidar

    np.save(folder / "a.npy", np.zeros((5, 3)))
    read_lidar(folder / "a.npy")


def _pattern(_: Path) -> None:
    from vlwm.core.data.trajectories.patterns import pattern_of

    pattern_of(["orbit"], "rover", 0)


def _poses(pose: object, *, strict: bool) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        from vlwm.core.data.session import Session

        Session(_session(folder / "drone_1", pose), strict=strict)

    return read


def _frame(folder: Path) -> None:
    from vlwm.core.data.session import Session

    Session(_session(folder / "drone_1", _POSE)).read_occupancy(0)


def _disk(folder: Path) -> None:
    from vlwm.core.files import explain_os_error

    raise explain_os_error(OSError(errno.EIO, "Input/output error"), folder)


def _memory(_: Path) -> None:
    import torch

    from vlwm.core.evaluation import evaluator

    def full(indices: range) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory")

    tally = types.SimpleNamespace(new_tally=lambda: None, add=lambda *_: None)
    subject: Any = types.SimpleNamespace(scorer=tally,
                                         windows=[0] * 8, cluster_of=int, batch=full,
                                         device="cuda:0")  # fmt: skip
    evaluator.score_subject(subject, "test", "best.pth", batch_size=4)


def _stopped(number: str) -> Callable[[Path], None]:
    def stop(_: Path) -> None:
        import signal

        from vlwm.core.training.runtime.stop_signal import StopSignal

        heard = StopSignal()
        heard.received = getattr(signal, number)
        raise heard.error("vlwm train")

    return stop


def _damaged_session(folder: Path) -> None:
    from vlwm.core.data.session import Session
    from vlwm.core.data.shards.session_shard import shard_of_session
    from vlwm.core.geometry.grid import VoxelGrid

    grid = VoxelGrid((0, 0, 0), (1, 1, 1), (8, 8, 8))
    shard_of_session(Session(_session(folder / "drone_1", _POSE)), grid)


def _no_window(folder: Path) -> None:
    from vlwm.core.data import windows

    store: Any = types.SimpleNamespace(root=folder, session_rows={}, sessions=[])
    splits: Any = types.SimpleNamespace(labels=lambda _: np.array([]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "_whole_windows", lambda *_: iter(()))
        windows.windows_of(store, splits, "val", 10)


def _no_png(folder: Path) -> None:
    from vlwm.core.figures.data_preview import write_preview

    nothing: Any = None
    write_preview(nothing, folder, nothing, folder / "map.jpg")


def _no_codec(folder: Path) -> None:
    from vlwm.core.figures import video

    nothing: Any = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video.cv2.VideoWriter, "isOpened", lambda _: False, raising=False)
        video.write_video(folder / "film.mp4", [], nothing)


CALLS: list[tuple[Callable[[Path], None], str]] = [
    (lambda _: _grid(0, 1), "a grid needs 6 and 3 finite numbers"),
    (lambda _: _grid(0, 0, 0, 1, 1, 1, cell=0.0), "cells must be larger than 0 m"),
    (lambda _: _grid(0, 0, 0, 1, 1, 1, cell=2.0), "holds no whole cell of"),
    (_scan, "a scan of shape (5, 3), not (N, 4)"),
    (_pattern, "no rover follows the pattern orbit"),
    (_poses({}, strict=True), "a pose lacks what it should have: 'position' is missing"),
    (_poses(None, strict=True), "a frame has no readable pose"),
    (_poses({}, strict=False), "a session without a frame that has a pose"),
    (_frame, "a frame is damaged"),
    (_damaged_session, "every frame of this session is damaged"),
    (_no_window, "the split 'val' holds no window of 10 frames"),
    (_no_png, "a preview is a PNG file"),
    (_no_codec, "OpenCV cannot write mp4 here"),
    (_disk, "disk error (Input/output error)"),
    (_memory, "the memory of cuda:0 does not hold 4 windows"),
    (_stopped("SIGTERM"), "stopped by a signal; progress is saved"),
    (_stopped("SIGINT"), "interrupted; progress is saved"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), CALLS, ids=[words for _, words in CALLS])
def test_a_fault_met_inside(tmp_path: Path, call: Callable[[Path], None], words: str) -> None:
    with pytest.raises(VlwmError) as caught:
        call(tmp_path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_gaps_are_told_from_words() -> None:
    assert Raised("m", "DataError", f"{GAP}: {GAP}", None).pieces == []
    assert Raised("m", "DataError", f"{GAP} answers {GAP}, {GAP}", None).pieces == ["answers"]

"""Forged files that a run, a dashboard or a training reads: one sentence or the same result.

Every reader ends soon, in little memory, with a value or a `VlwmError` of one clean line. The suite
runs them small; `-m endurance` runs a thousand of each.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import fake_run
from tests.core.city.hostile import changed, changed_json
from tests.core.city.test_hostile import limited
from tests.core.data.test_packed_store import GRID, whole_session
from tests.core.monitoring.test_layout import draw, sample
from vlwm.core.config.load import load_config
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.splits import Region, Splits
from vlwm.core.errors import VlwmError
from vlwm.core.model.checkpoint import load_checkpoint, newest_valid
from vlwm.core.monitoring.export import to_dict
from vlwm.core.monitoring.reader import RunReader
from vlwm.core.run_folder import RunFolder

CONFIG = """_base_ = "test_local.py"
model = dict(type="TransVQVAE", channels=(8, 8, 8), num_heads=2)
optimizer = dict(lr=1e-3, betas=(0.9, 0.999))
voxel_size = [3.2, 3.2, 10.0]
_half = [v / 2 for v in voxel_size]
data_root = "a" * 3 + f"{1}"
"""
_ODD_CODE = [
    "[0]\n_a = _half\n" + "_a = _a + _a\n" * 40, "9**64\n_n = 9**64\n" + "_n = _n * _n\n" * 40,
    "[1 for a in range(10**6) for b in range(10**6)]", "f'{[[0] * 10**6] * 10**6}'", "{}[0]",
    "1\n_half[0] = {}\n_half[0][1] = _half\nx = f'{_half}'", "1\nmax_epochs[0] = 1", "1\na, b = 5",
    "1\n_base_ = 5", "1\n_base_ = None", "b'%999999999d' % 1", "[" * 90 + "]" * 90,
    "not " * 900 + "1",
    "(" * 3000, "-" * 20_000 + "1", "9**9**9", "'a' * 10**9",
    "[0] * 10**9", "1" * 6000, "²", "\x00",
    "lambda: 0", "[x for x in range(9)]", "__import__('os')",
    "dict(**{})", "{1: 2}", "1e999", "nan",
    "not_there", "_base_ = _base_", '_base_ = "%s"' % ("x" * 400), "\ud800", "'\\ud800'", "if 1:\n",
    "a.b.c", "1 if 1 else 2", "...", "b''", "1j", "1_000", "0x" + "f" * 999, "[" * 200 + "]" * 200,
    "1 << 10**9", "'%s' % 1", "'{:>1000000000}'.format(1)", "10**10**5", "-(10**400)", "True - 1",
]  # fmt: skip
_KEYS = [
    "optimizer.lr", "max_epochs", "voxel_size", "model.channels", "prepare.agents", "data", "x.y",
    "", ".", "model..type", "²", "\x00", "_base_", "point_cloud_range", "data_root", "amp",
]  # fmt: skip
_ODD_TEXT = [
    "", "=", "1e999", "nan", "-inf", "²", "１", "\x00", "\x1b[2J",
    "[", "[" * 300, "(" * 5000, "None", "{}",
    "9**9**9", "'" * 3, "a" * 5000, "\ud800", "[1,2", "1e-400", "-1", "0", "10**400", "dict(a=1)",
    "True", "[0.0, 0.0, 0.0]", "[1e-9, 1e-9, 1e-9]", "[1e308, 1e308, 1e308]", "(8,) * 10**9",
]  # fmt: skip


def _config(folder: Path, rng: random.Random) -> None:
    lines = CONFIG.splitlines()
    if rng.random() < 0.6:
        at = rng.randrange(len(lines))
        name = lines[at].partition("=")[0]
        lines[at] = (
            f"{name}= {rng.choice(_ODD_CODE)}" if rng.random() < 0.8 else rng.choice(_ODD_CODE)
        )
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    (folder / "c.py").write_bytes(changed(data, rng) if rng.random() < 0.6 else data)
    load_config(str(folder / "c.py"), ())


def _set(folder: Path, rng: random.Random) -> None:
    words = [f"{rng.choice(_KEYS)}={rng.choice(_ODD_TEXT)}" for _ in range(rng.randrange(1, 3))]
    load_config("test_local", [w.replace("=", rng.choice(["=", "=", "", ":"]), 1) for w in words])


def _status(folder: Path, rng: random.Random) -> None:
    """What the dashboard draws of a damaged run, at two sizes and as JSON."""
    run = RunFolder(folder / "run")
    shutil.copytree(_run_folder(), run.path)
    for path in (run.path / "status.json", run.path / "metrics.jsonl"):
        text = path.read_text()
        if path.suffix == ".json":
            value = changed_json(json.loads(text), rng)
            path.write_text(json.dumps(value))
        elif rng.random() < 0.5:
            lines = text.splitlines()
            at = rng.randrange(len(lines))
            lines[at] = json.dumps(changed_json(json.loads(lines[at]), rng))
            path.write_text("\n".join(lines) + "\n")
        if rng.random() < 0.4:
            path.write_bytes(changed(path.read_bytes(), rng))
    snapshot = RunReader(run).read(sample())
    for width, height in ((120, 40), (60, 16)):
        text = "\n".join(draw(snapshot, width, height))
        assert not set(text) & {chr(c) for c in (*range(10), *range(11, 32), 127, *range(128, 160))}
    json.dumps(to_dict(snapshot), allow_nan=False)


_kept: dict[str, Path] = {}


def _run_folder() -> Path:
    if "run" not in _kept:
        _kept["run"] = fake_run.write_run(Path(tempfile.mkdtemp()) / "run", steps=60).path
    return _kept["run"]


def _checkpoint(folder: Path, rng: random.Random) -> None:
    """Damaged bytes, or another value inside: checkpoints are read before they are trusted."""
    path = folder / "last.pth"
    content: dict[str, Any] = {"stage": "world", "step": 3, "epoch": 1, "config": {"name": "x"},
               "model": {"a": torch.zeros(3)}, "versions": {"vlwm": "1"}, "format": 3}  # fmt: skip
    if rng.random() < 0.5:
        content = changed_json({k: v for k, v in content.items() if k != "model"}, rng)
    with contextlib.suppress(UnicodeEncodeError, OverflowError):
        torch.save(content, path)
    if rng.random() < 0.6 and path.exists():
        path.write_bytes(changed(path.read_bytes(), rng))
    for read in (load_checkpoint, lambda p: newest_valid(p.parent)):
        with contextlib.suppress(VlwmError):
            read(path)


def _data(folder: Path, rng: random.Random) -> None:
    """splits.json, session.json, a frame or a pose file of prepared data, sealed or not."""
    root = folder / "data"
    shutil.copytree(_prepared(), root)
    for path in [root / "splits.json", *root.glob("*/session.json")] if rng.random() < 0.5 else []:
        value = json.loads(path.read_text())
        value.pop("checksum", None)
        value.pop("checksums", None)
        path.write_text(json.dumps(value))
    path = rng.choice(sorted(p for p in root.rglob("*") if p.is_file()))
    if path.suffix == ".json" and rng.random() < 0.7:
        path.write_text(json.dumps(changed_json(json.loads(path.read_text()), rng)))
    else:
        path.write_bytes(changed(path.read_bytes(), rng))
    store = PackedStore.open(root, GRID)
    labels = Splits.read(root / "splits.json").labels(store)
    assert len(labels) == len(store)


def _prepared() -> Path:
    if "data" not in _kept:
        root = Path(tempfile.mkdtemp())
        for name in ("drone_a", "drone_b"):
            whole_session(root / name)
        regions = (Region("train", 0.0, 0.0, 5.0, 9.0), Region("test", 5.0, 0.0, 9.0, 9.0))
        Splits("EPSG:6677", 1.0, regions, {}).write(root / "splits.json")
        _kept["data"] = root
    return _kept["data"]


READERS: list[Callable[[Path, random.Random], None]] = [
    _config, _set, _status, _checkpoint, _data,
]  # fmt: skip


@pytest.mark.parametrize(
    "many", [12, pytest.param(1000, marks=[pytest.mark.endurance, pytest.mark.timeout(900)])]
)
@pytest.mark.parametrize("reader", READERS, ids=lambda r: r.__name__.strip("_"))
def test_forged_input_ends_in_a_sentence(
    reader: Callable[[Path, random.Random], None],
    many: int,
    tmp_path: Path,
    seeds_of: Callable[[int], range],
) -> None:
    for seed in seeds_of(many):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with limited(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                reader(folder, random.Random(f"{reader.__name__} {seed}"))
            except VlwmError as error:
                text = str(error)
                assert "\n" not in text and not set(text) & {chr(c) for c in range(32)}, repr(text)
            except Exception as error:
                raise AssertionError(f"{reader.__name__} {seed}") from error
        shutil.rmtree(folder, ignore_errors=True)

"""Memory that runs out in one process alone is everybody's business: all shrink, none drifts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from vlwm.core.run_folder import RunFolder

ROOT = Path(__file__).parents[4]
PROGRAM = "tests.core.training.loop.toy_ranks"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two gloo processes left behind."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    children = [
        subprocess.Popen(
            [sys.executable, "-m", PROGRAM, str(folder)], env={**env, "RANK": str(rank)},
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    errors = [child.communicate(timeout=300)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], errors
    return folder


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def losses(folder: Path) -> list[tuple[float, float, float]]:
    records, _ = RunFolder(folder).read_metrics()
    return [(r["step"], r["train/loss"], r["grad_norm"]) for r in records if r["kind"] == "train"]


@pytest.mark.parametrize(("phase", "step"), [("step", 8), ("validate", 6)])
def test_one_process_short_of_memory_shrinks_all(trained: Path, phase: str, step: int) -> None:
    """The process that ran short and the other one end as if both had planned it, bit for bit."""
    ends = [torch.load(trained / f"{phase}_{rank}.pt") for rank in range(2)]
    for end in ends:
        assert end["short"]["microbatch"] == 1 and end["short"]["shrunk"] == [step]
        assert end["planned"]["shrunk"] == []
        assert equal(end["short"]["model"], end["planned"]["model"])
        assert equal(end["short"]["optimizer"], end["planned"]["optimizer"])
    assert equal(ends[0]["short"]["model"], ends[1]["short"]["model"])
    short, planned = (losses(trained / phase / name) for name in ("short", "planned"))
    assert len(short) == 12 and short == planned

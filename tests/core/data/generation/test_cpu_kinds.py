"""Machines with other kinds of CPU make the same sessions of a plan."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlwm.core.store.objects import open_store

WORDS = [
    "prepare", "--config", "test_local", "--frames", "12", "--sessions", "4", "--workers", "1",
    "--set", "prepare.procedural_size_m=500", "--set", "voxel_size=[3.2, 3.2, 10.0]", "--json",
]  # fmt: skip


def older_cpu(folder: Path) -> dict[str, str]:
    """Settings under which NumPy, Numba and OpenBLAS use the instructions of an old CPU."""
    from numpy._core import _multiarray_umath as core

    optional = [name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name)]
    return {
        "NPY_DISABLE_CPU_FEATURES": ",".join(optional), "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(folder), "OPENBLAS_CORETYPE": "NEHALEM",
    }  # fmt: skip


@pytest.mark.ci
def test_an_older_cpu_makes_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("numpy._core", reason="needs NumPy 2")
    contents = []
    for name, settings in (("usual", {}), ("older", older_cpu(tmp_path / "numba"))):
        url = (tmp_path / name).as_uri()
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), **settings}
        command = [sys.executable, "-m", "vlwm", *WORDS, "--store", url]
        subprocess.run(command, check=True, capture_output=True, env=environment)
        store = open_store(url)
        contents.append({name: store.read(name) for name in store.list()})
    assert contents[0] == contents[1] and len(contents[0]) > 4

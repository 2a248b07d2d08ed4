"""A tile of 60 MB, made of a real one, is read quickly and in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks/city.py"


@pytest.mark.endurance
@pytest.mark.parametrize("tile", ["niiza/53395424", "matsumoto/54372798"])
def test_a_tile_of_60_mb(plateau: Path, tile: str) -> None:
    """In less than 20 processor seconds and 500 MB, every building of it."""
    path = plateau / f"citygml/{tile}_bldg_6697_op.gml.gz"
    command = [sys.executable, str(BENCHMARK), "--large", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["mb"] >= 60 and found["buildings"] > 6000
    assert found["seconds"] < 20 and found["peak_mb"] < 500

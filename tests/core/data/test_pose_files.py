"""Pose files: what is read has the same bits on every CPU, and nonsense is one sentence."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vlwm.core.data.pose_files import read_pose, write_pose
from vlwm.core.errors import DataError

PRINT_ROWS = """
import sys
from pathlib import Path
from vlwm.core.data.pose_files import POSE, read_pose
for path in sorted(Path(sys.argv[1]).glob("*.json")):
    print(*(value.hex() for value in read_pose(path, None)[POSE]))
"""


def write_turns(folder: Path, count: int = 300) -> list[list[float]]:
    """Write poses with orientations of many lengths; return the quaternions as written."""
    rng = np.random.default_rng(1)
    written = []
    for number in range(count):
        pose = rng.normal(size=13)
        pose[3:7] *= 10.0 ** rng.integers(-2, 3)
        write_pose(folder / f"{number:06d}.json", pose, 0.0, 0.0)
        written.append([round(float(v), 9) for v in pose[3:7]])
    return written


def test_orientations_are_divided_by_a_length_of_fixed_rounding(tmp_path: Path) -> None:
    """Squares are added in order; every sum is the exact one, rounded once."""
    for number, turn in enumerate(write_turns(tmp_path)):
        total = 0.0
        for value in turn:
            total = float(Fraction(total) + Fraction(value) ** 2)
        length = math.sqrt(total)
        found = read_pose(tmp_path / f"{number:06d}.json", None)[3:7]
        assert found == [value / length for value in turn]


@pytest.mark.parametrize("core", ["NEHALEM", "HASWELL", "SKYLAKEX"])
def test_orientations_have_the_same_bits_on_other_kinds_of_cpu(tmp_path: Path, core: str) -> None:
    write_turns(tmp_path)
    usual, other = (
        subprocess.run(
            [sys.executable, "-c", PRINT_ROWS, str(tmp_path)], check=True, capture_output=True,
            env={**os.environ, "PYTHONPATH": os.getcwd(), **more},
        ).stdout
        for more in ({}, {"OPENBLAS_CORETYPE": core})
    )  # fmt: skip
    assert usual == other and len(usual.splitlines()) == 300


@pytest.mark.parametrize("turn", [[0.0] * 4, [1e-7, 0.0, 0.0, 0.0], [1e200, 0.0, 0.0, 1e200]])
def test_an_orientation_without_direction_is_refused(tmp_path: Path, turn: list[float]) -> None:
    pose = np.array([0, 0, 0, *turn, 0, 0, 0, 0, 0, 0], dtype=float)
    write_pose(tmp_path / "a.json", pose, 0.0, 0.0)
    with pytest.raises(DataError, match="no orientation"):
        read_pose(tmp_path / "a.json", None)

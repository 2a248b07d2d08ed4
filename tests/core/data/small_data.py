"""Prepare small data from a procedural city, and compare folders."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from vlwm.core.city.procedural import procedural_city
from vlwm.core.config.load import load_config
from vlwm.core.config.schema import Config
from vlwm.core.data.generation.prepare import PreparePlan, PrepareReport, prepare
from vlwm.core.geometry.grid import VoxelGrid

SIZE_M = 500.0
PLAN = PreparePlan(frames=14, sessions=4, agents=("drone", "rover"), seed=3)
SENSORS = PreparePlan(
    frames=4, sessions=3, agents=("drone", "rover"), seed=3, lidar="HDL-32E", camera=True
)
OBSERVED = PreparePlan(frames=3, sessions=3, agents=("drone", "rover"), seed=3, observe="HDL-32E")


def config() -> Config:
    return load_config("test_local")


def grid() -> VoxelGrid:
    return VoxelGrid.from_range(config().point_cloud_range, config().voxel_size)


def make(folder: Path, plan: PreparePlan = PLAN, **changes: Any) -> PrepareReport:
    """Prepare a plan with changes in a folder."""
    changed = dataclasses.replace(plan, **changes)
    return prepare(procedural_city(SIZE_M, 3), config(), folder, changed)


def make_in(folder: Path, plan: PreparePlan, **changes: Any) -> Path:
    """Prepare a plan with changes; return the folder."""
    make(folder, plan, **changes)
    return folder


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the packed ones, by path."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and ".packed" not in p.parts)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

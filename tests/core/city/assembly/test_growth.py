"""What is kept of a city takes no memory, and is the same in pieces as at once."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.memory import repeated
from vlwm.core.city import grid_blocks
from vlwm.core.city.assembly.feature_table import FeatureIndex
from vlwm.core.city.assembly.string_column import Names
from vlwm.core.city.read import read_city
from vlwm.core.city.relief import Relief, lay_ground
from vlwm.core.city.terrain import Terrain
from vlwm.core.geometry import mapped_arrays
from vlwm.core.geometry.mapped_arrays import Scratch
from vlwm.core.geometry.voxelize import TriangleTiles

ROOT = Path(__file__).parents[4]


@settings(max_examples=25)
@given(st.lists(st.text(max_size=9), max_size=40), st.data())
def test_names_are_a_list(given: list[str], data: st.DataObject) -> None:
    names = Names(Scratch())
    for name in given:
        names.append(name)
    assert names == given and list(names) == given and len(names) == len(given)
    keep = np.array([data.draw(st.booleans()) for _ in given], dtype=bool)
    some = Names(Scratch())
    some.extend(names, keep)
    assert some == [name for name, kept in zip(given, keep, strict=True) if kept]


@given(st.lists(st.integers(0, 40), max_size=200))
def test_the_index_finds_every_number_in_order(keys: list[int]) -> None:
    """Keys whose hashes lie side by side or wrap around, in a table that grows many times."""
    index, known = FeatureIndex(Scratch(), slots=4), dict[int, list[int]]()
    for number, key in enumerate(keys):
        index.add(4 * key - 3, number)
        known.setdefault(key, []).append(number)
    for key in range(42):
        assert index.find(4 * key - 3) == known.get(key, [])


def test_ground_in_blocks_is_the_ground(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rolling hills: no seam, and far from the rim as at once; also where a block has no base."""
    rng = np.random.default_rng(4)
    xy = rng.uniform(-1500, 1500, (6000, 2))
    xy = xy[~((np.abs(xy[:, 0] - 400) < 350) & (np.abs(xy[:, 1]) < 350))]
    points = np.column_stack([xy, 9 * np.sin(xy[:, 0] / 300) + 7 * np.cos(xy[:, 1] / 260)])
    bounds = (-1600.0, -1600.0, 1600.0, 1600.0)
    at_once = Terrain.from_points(points, bounds)
    monkeypatch.setattr(grid_blocks, "BLOCK_NODES", 50)
    monkeypatch.setattr(grid_blocks, "FADE_NODES", 8)
    pieced = Terrain.from_points(points, bounds, scratch=Scratch())
    steps, wanted = (np.abs(np.diff(t.heights, axis=0)).max() for t in (pieced, at_once))
    assert steps < 1.2 * wanted
    rim = np.abs(xy).max()
    at = rng.uniform(-rim + 150, rim - 150, (4000, 2))
    off = np.abs(pieced.height(at) - at_once.height(at))
    within = (np.abs(at[:, 0] - 400) > 470) | (np.abs(at[:, 1]) > 470)
    assert off[within].max() < 1e-9 and off.max() < 2.0


def test_relief_in_blocks_is_the_relief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known nodes stay as they are; a hole is filled from its rim."""
    bounds = (0.0, 0.0, 900.0, 700.0)
    relief = Relief(bounds, scratch=Scratch())
    nodes = relief.grid.nodes()
    plane = 40 + 0.02 * nodes[..., 0] - 0.03 * nodes[..., 1]
    hole = np.linalg.norm(nodes - (500, 300), axis=-1) < 120
    relief.heights[:] = np.where(hole, np.nan, plane)
    monkeypatch.setattr(grid_blocks, "BLOCK_NODES", 60)
    terrain = lay_ground(np.zeros((0, 3)), bounds, relief, Scratch())
    np.testing.assert_array_equal(terrain.heights[~hole], plane[~hole])
    assert np.abs(terrain.heights - plane).max() < 0.01


def test_sixteen_times_the_city_takes_the_same_memory(
    plateau: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading and sorting, by what Python and numpy allocate; pieces small, as the city is."""
    for module in (
        "geometry.mapped_arrays",
        "geometry.voxelize",
        "city.assembly.string_column",
        "city.assembly.assemble",
    ):
        monkeypatch.setattr(f"vlwm.core.{module}.PIECE_ROWS", 500)
    monkeypatch.setattr(mapped_arrays, "_BUFFER_BYTES", 1 << 12)
    tiles = (plateau / "tokyo_marunouchi_obj").glob("*.obj")
    tile = sorted(tiles, key=lambda p: p.stat().st_size)[3:4]
    highest = []
    for times in (1, 16):
        folder = repeated(tile, times, tmp_path / str(times))
        read_city(tile)
        tracemalloc.start()
        city = read_city([folder], scratch=Scratch(tmp_path))
        found = TriangleTiles.build(city.triangles, scratch=city.scratch)
        highest.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(found.triangles) == len(city.triangles) == city.report.triangles
        buildings = city.report.buildings
        assert len(set(city.feature_ids)) == buildings
    assert len(list(tmp_path.iterdir())) == 2
    assert highest[1] < 1.1 * highest[0]


@pytest.mark.endurance
@pytest.mark.parametrize("workers", [1, 2])
def test_prepare_stays_flat(plateau: Path, tmp_path: Path, workers: int) -> None:
    """Marunouchi once and 16 times, by the command: 10 % at most, anonymous and resident."""
    command = [sys.executable, str(ROOT / "benchmarks/memory.py"), "--json"]
    command += ["--input", str(plateau / "tokyo_marunouchi_obj"), "--folder", str(tmp_path)]
    command += ["--workers", str(workers), "--sessions", "16"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    found = json.loads(done.stdout)
    assert found["rows"][1]["triangles"] == 16 * found["rows"][0]["triangles"]
    assert max(found["ratios"].values()) < 1.1

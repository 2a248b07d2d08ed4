"""A city as tiles is the city that was read, and its windows make the same frames."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlwm.core.city.city import City
from vlwm.core.city.procedural import procedural_city
from vlwm.core.city.tiling.tile_writer import write_tiles
from vlwm.core.city.tiling.tiled_city import TiledCity
from vlwm.core.data.generation.frame_jobs import Scene
from vlwm.core.errors import DataError
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.mapped_arrays import Scratch
from vlwm.core.geometry.voxelize import TriangleTiles
from vlwm.core.store.object_store import ObjectStore
from vlwm.core.store.objects import open_store

GRID = VoxelGrid.from_range((-20, -20, -2, 20, 20, 40), (1, 1, 1))


@pytest.fixture(scope="module")
def city() -> City:
    return procedural_city(1300.0, 5)


@pytest.fixture(scope="module")
def store(city: City, tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    opened = open_store(tmp_path_factory.mktemp("tiles").as_uri())
    write_tiles(city, opened)
    return opened


def same(one: Any, other: Any) -> None:
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif hasattr(one, "__dataclass_fields__"):
        for field in fields(one):
            same(getattr(one, field.name), getattr(other, field.name))
    elif not isinstance(one, str) and hasattr(one, "__getitem__"):
        assert list(one) == list(other)
    else:
        assert one == other


def test_all_tiles_are_the_city_bit_for_bit(city: City, store: ObjectStore, tmp_path: Path) -> None:
    again = TiledCity(store).city(Scratch(tmp_path))
    for field in (f for f in fields(City) if f.name != "scratch"):
        same(getattr(city, field.name), getattr(again, field.name))
    assert sum(name.startswith("tile_") for name in store.list()) >= 4
    other = open_store((tmp_path / "again").as_uri())
    assert write_tiles(again, other) == TiledCity(store).hash


def test_frames_from_a_window_are_those_of_the_whole_city(city: City, store: ObjectStore) -> None:
    tiled = TiledCity(store)
    assert len(tiled.window((-600, -600, -500, -500)).triangles) < len(city.triangles) / 2
    whole = Scene(TriangleTiles.build(city.triangles), city, GRID, "surface")
    reach = GRID.horizontal_half_diagonal_m + 1.0
    rng = np.random.default_rng(0)
    for x, y in [(0.0, 0.0), (500.0, -3.0), *rng.uniform(-600, 600, (6, 2))]:
        part = tiled.window((x - reach, y - reach, x + reach, y + reach))
        assert len(part.triangles) <= len(city.triangles)
        scene = Scene(TriangleTiles.build(part.triangles), part, GRID, "surface")
        ego = np.array([x, y, float(city.terrain.height([x, y])), rng.uniform(-3, 3)])
        np.testing.assert_array_equal(scene.frame(ego), whole.frame(ego))


def test_a_store_without_a_city_or_with_a_damaged_one_is_a_sentence(
    city: City, tmp_path: Path
) -> None:
    store = open_store(tmp_path.as_uri())
    with pytest.raises(DataError, match="the store holds no city"):
        TiledCity(store)
    write_tiles(procedural_city(500.0, 5), store)
    tile = next(tmp_path.glob("tile_*"))
    tile.write_bytes(tile.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="a tile of the city is missing or damaged"):
        TiledCity(store).city()
    index = tmp_path / "city.json"
    index.write_text(index.read_text().replace('"procedural": true', '"procedural": false'))
    with pytest.raises(DataError, match=r"city\.json"):
        TiledCity(store)

"""The preview shows what is there, where it is: buildings, tracks, regions, frames."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from vlwm.core.city.city import City
from vlwm.core.city.procedural import procedural_city
from vlwm.core.config.load import load_config
from vlwm.core.data.generation.prepare import PreparePlan, prepare
from vlwm.core.data.session import list_sessions
from vlwm.core.data.splits import Splits
from vlwm.core.errors import DataError
from vlwm.core.figures import canvas, city_map
from vlwm.core.figures.city_map import Track, draw_map
from vlwm.core.figures.contact_sheet import SheetRow, draw_sheet
from vlwm.core.figures.data_preview import write_preview
from vlwm.core.figures.window_figure import from_above
from vlwm.core.geometry.grid import VoxelGrid


@pytest.fixture(scope="module")
def city() -> City:
    return procedural_city(500, 3)


@pytest.fixture(scope="module")
def prepared(city: City, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    plan = PreparePlan(frames=4, sessions=3, agents=("drone", "rover"), seed=3)
    prepare(city, load_config("test_local"), folder, plan)
    return folder


def grid() -> VoxelGrid:
    config = load_config("test_local")
    return VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)


def _over(triangles: np.ndarray, x: float, y: float) -> np.ndarray:
    """Which triangles (T, 3, 3) lie over or under a point of the plan."""
    a, b = triangles[:, :, :2], np.roll(triangles[:, :, :2], -1, axis=1)
    side = (b[..., 0] - a[..., 0]) * (y - a[..., 1]) - (b[..., 1] - a[..., 1]) * (x - a[..., 0])
    return (side >= -1e-9).all(axis=1) | (side <= 1e-9).all(axis=1)


def test_buildings_stand_where_they_are_in_the_colour_of_their_height(city: City) -> None:
    none = Splits(city.origin.crs, 0.0)
    image = draw_map(city, none, [], [])
    axes, scale = city_map._axes(city, none), city_map._height_scale(city)
    triangles = city.mesh.triangles()
    roofs = triangles[np.ptp(triangles[:, :, 2], axis=1) < 1e-6]
    roofs = roofs[roofs[:, 0, 2] > 1.0]
    right = []
    for roof in roofs:
        x, y, _ = roof.mean(axis=0)
        z = roofs[_over(roofs, x, y), 0, 2].max()  # a tower may stand on it
        wanted = scale.colours(np.array([z - city.terrain.height([x, y])]))[0]
        found = image[axes.row(y), axes.column(x)]
        right.append(np.abs(found.astype(int) - wanted).max() <= 2)
    assert np.mean(right) > 0.97  # a scale bar or an arrow may lie on a roof
    open_ground = image[axes.row(city.bounds_xy[1] - 20), axes.column(city.bounds_xy[0] - 20)]
    assert tuple(open_ground) == city_map._PAPER


def test_a_track_and_a_region_are_drawn_at_their_place(city: City, prepared: Path) -> None:
    splits = Splits.read(prepared / "splits.json")
    axes = city_map._axes(city, splits)
    xy = np.array([[0.0, 0.0], [40.0, 25.0], [80.0, 50.0]])
    bare = draw_map(city, splits, [], [])
    track = Track("a", "drone", "test", xy, "words")
    drawn = draw_map(city, splits, [track], ["Project PLATEAU"])
    middle = drawn[axes.row(25.0), axes.column(40.0)]
    assert tuple(middle) == city_map._SPLITS["test"]
    changed = np.argwhere((bare != drawn).any(axis=-1))
    inside = (changed[:, 1] < axes.left + axes.width) & (changed[:, 0] > axes.top)
    rows, columns = changed[inside].T
    assert rows.min() >= axes.row(50.0) - 14 and columns.max() <= axes.column(80.0) + 14
    region = splits.regions[0]
    shift = (city.origin.easting, city.origin.northing)
    edge = drawn[axes.row(region.y0 - shift[1]), axes.column((region.x0 + region.x1) / 2)]
    assert tuple(edge) in city_map._SPLITS.values()


def test_frames_of_the_sheet_are_the_frames() -> None:
    cells = np.zeros((2, *grid().shape), np.uint8)
    cells[1, 30:40, 5:10, :9] = 1
    cells[:, :, :, 0] = 1
    picture = np.full((90, 160, 3), (10, 200, 30), np.uint8)
    image = draw_sheet([SheetRow("a", [0, 7], cells, [picture])], grid(), "title", ["note"])
    scale = canvas.HeightScale.of(grid(), cells)
    panel = from_above(cells[1], grid(), scale)
    wanted = cv2.resize(np.ascontiguousarray(panel), (200, 200), interpolation=cv2.INTER_NEAREST)
    found = image[96:296, 230:430]
    assert (np.abs(found.astype(int) - wanted).max(axis=-1) == 0).mean() > 0.97
    assert tuple(image[200, 440 + 178]) == (10, 200, 30)


def test_both_files_are_written_and_name_their_source(city: City, prepared: Path) -> None:
    files = write_preview(city, prepared, grid(), prepared / "preview.png")
    assert [f.name for f in files] == ["preview.png", "preview_frames.png"]
    assert all(min(cv2.imread(str(f)).shape[:2]) > 300 for f in files)
    real = dataclasses.replace(
        city, procedural=False, attribution="3D都市モデル（Project PLATEAU）"
    )
    before = files[0].read_bytes()
    write_preview(real, prepared, grid(), prepared / "preview.png")
    assert files[0].read_bytes() != before
    assert len(list_sessions(prepared)) == 3


def test_what_is_no_png_or_not_prepared_is_said(city: City, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="PNG"):
        write_preview(city, tmp_path, grid(), tmp_path / "a.jpg")
    with pytest.raises(DataError, match="no session"):
        write_preview(city, tmp_path, grid(), tmp_path / "a.png")

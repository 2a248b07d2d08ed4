"""Ground from relief is the relief's own surface; where none lies the bases take over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.core.city.gml_text import LATITUDE, LONGITUDE, member, solid, write_members
from vlwm.core.city.city import City
from vlwm.core.city.crs import project
from vlwm.core.city.read import read_city
from vlwm.core.city.readers.citygml import read_relief
from vlwm.core.city.readers.source_files import Folder, Source
from vlwm.core.city.relief import Relief, lay_ground
from vlwm.core.geometry.plan_grid import PlanGrid, nodes_under


def relief_member(height: float, rise_a_degree: float = 0.0, reach: float = 0.01) -> str:
    """Two triangles about the test buildings; the ground rises to the north."""

    def corner(a: int, b: int) -> str:
        latitude, longitude = LATITUDE + a * reach, LONGITUDE + b * reach
        return f"{latitude} {longitude} {height + a * reach * rise_a_degree}"

    def triangle(*corners: tuple[int, int]) -> str:
        text = " ".join(corner(*c) for c in (*corners, corners[0]))
        return (
            "<gml:Triangle><gml:exterior><gml:LinearRing><gml:posList>"
            f"{text}</gml:posList></gml:LinearRing></gml:exterior></gml:Triangle>"
        )

    patches = triangle((-1, -1), (-1, 1), (1, 1)) + triangle((-1, -1), (1, 1), (1, -1))
    body = f"<dem:reliefComponent><dem:TINRelief><dem:tin><gml:TriangulatedSurface>" \
           f"<gml:trianglePatches>{patches}</gml:trianglePatches></gml:TriangulatedSurface>" \
           "</dem:tin></dem:TINRelief></dem:reliefComponent>"  # fmt: skip
    return member(body, "relief", "dem:ReliefFeature")


def tree_of(folder: Path, relief: str) -> Path:
    buildings = folder / "udx/bldg/53394611_bldg_6697_op.gml"
    write_members(buildings, member(solid(20.0), "a"), member(solid(20.5, low=30, high=50), "b"))
    write_members(folder / "udx/dem/533946_dem_6697_op.gml", relief)
    return folder


def test_relief_is_the_ground(tmp_path: Path) -> None:
    rise = 0.1 * 111_000  # a slope of 10 %
    city = read_city([tree_of(tmp_path, relief_member(20.0, rise))])
    assert city.report.ground.startswith("relief, 100 %")
    low, high = city.terrain.height(np.array([[0.0, -100.0], [0.0, 100.0]]))
    assert high - low == pytest.approx(20.0, rel=0.01)
    place = project(np.array([[LATITUDE, LONGITUDE, 0.0]]), "EPSG:6677")[0, :2]
    at = place - (city.origin.easting, city.origin.northing)
    assert float(city.terrain.height(at)) == pytest.approx(20.0, abs=0.01)


def test_other_heights_than_the_buildings_are_told(tmp_path: Path) -> None:
    city = read_city([tree_of(tmp_path, relief_member(5.0))])
    assert any("above the relief" in note for note in city.report.notes)
    assert float(city.terrain.height([0.0, 0.0])) == pytest.approx(5.0)


def test_relief_in_a_file_of_any_name(tmp_path: Path) -> None:
    write_members(tmp_path / "all.gml", member(solid(20.0), "a"), relief_member(19.5))
    city = read_city([tmp_path])
    assert city.report.ground.startswith("relief")
    assert float(city.terrain.height([0.0, 0.0])) == pytest.approx(19.5)


def test_beyond_the_relief_the_bases_take_over(tmp_path: Path) -> None:
    city = read_city([tree_of(tmp_path, relief_member(20.0, reach=0.0003))])
    assert 0 < float(city.report.ground.split()[1]) < 60
    assert np.isfinite(city.terrain.heights).all()
    assert city.terrain.heights.min() > 19.9 and city.terrain.heights.max() < 20.6


@pytest.mark.parametrize(("reach", "share"), [(0.0006, 100), (0.00025, 25)])
def test_its_share_is_of_the_place_not_of_the_margin_around_it(
    tmp_path: Path, reach: float, share: int
) -> None:
    """The houses reach 0.0005 degrees to the north and the east; the ground 150 m further."""
    city = read_city([tree_of(tmp_path, relief_member(20.0, reach=reach))])
    told = float(city.report.ground.split()[1])
    assert abs(told - share) <= 10 * (share < 100), city.report.ground


def test_nodes_of_real_relief_lie_on_its_triangles(plateau: Path) -> None:
    path = plateau / "citygml/dem_veg/523965_dem_6697_05_op.gml"
    degrees = np.concatenate(list(read_relief(Source(Folder(path.parent), path.name))))
    triangles = project(degrees.reshape(-1, 3), "EPSG:6677").reshape(-1, 3, 3)
    low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
    relief = Relief((low[0], low[1], high[0], high[1]))
    relief.add(triangles)
    assert 0.2 < relief.covered < 1.0
    terrain = lay_ground(np.zeros((0, 3)), (low[0], low[1], high[0], high[1]), relief)
    rng = np.random.default_rng(0)
    known = np.argwhere(np.isfinite(relief.heights))
    for i, j in known[rng.choice(len(known), 60, replace=False)]:
        at = np.array([relief.grid.x0 + 5.0 * i, relief.grid.y0 + 5.0 * j])
        heights = [h for t in triangles if (h := height_in(t, at)) is not None]
        assert heights and min(abs(h - relief.heights[i, j]) for h in heights) < 1e-6
        assert float(terrain.height(at)) == pytest.approx(relief.heights[i, j], abs=1e-6)
    assert np.isfinite(terrain.heights).all()
    assert terrain.heights.min() >= low[2] - 1e-9 and terrain.heights.max() <= high[2] + 1e-9


def height_in(triangle: np.ndarray, at: np.ndarray) -> float | None:
    a, b, c = triangle
    m = np.array([b[:2] - a[:2], c[:2] - a[:2]]).T
    if abs(np.linalg.det(m)) < 1e-9:
        return None
    s, t = np.linalg.solve(m, at - a[:2])
    inside = s >= -1e-9 and t >= -1e-9 and s + t <= 1 + 1e-9
    return float(a[2] + s * (b[2] - a[2]) + t * (c[2] - a[2])) if inside else None


def test_every_node_of_a_triangle_is_found_once_and_no_other() -> None:
    rng = np.random.default_rng(3)
    grid = PlanGrid(-20.0, -20.0, 1.0, (41, 41))
    nodes = grid.nodes()
    for _ in range(40):
        triangle = np.column_stack([rng.uniform(-25, 25, (3, 2)), rng.uniform(0, 9, 3)])
        (hits,) = list(nodes_under(triangle[None], grid))
        found = set(zip(hits.i.tolist(), hits.j.tolist(), strict=True))
        assert len(found) == len(hits.i)
        expected = {
            (i, j) for i in range(41) for j in range(41)
            if height_in(triangle, nodes[i, j]) is not None
        }  # fmt: skip
        assert found == expected


def test_two_towns_far_apart_do_not_fill_the_memory() -> None:
    grid = PlanGrid.over((0.0, 0.0, 300_000.0, 200_000.0), 5.0)
    assert grid.shape[0] * grid.shape[1] < 4.2e7 and grid.spacing_m > 30
    assert grid.spacing_m * (grid.shape[0] - 1) >= 300_000


def test_slopes_are_slopes(matsumoto: City) -> None:
    """The ground of Matsumoto rises about 45 m, smoothly."""
    heights = matsumoto.terrain.heights
    assert 40 < np.ptp(heights) < 50
    steps = np.abs(np.diff(heights, axis=0)).max(), np.abs(np.diff(heights, axis=1)).max()
    assert max(steps) < 4.0

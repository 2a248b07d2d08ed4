"""Triangles cover their polygon, no more and no less, and wind as it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlwm.core.city.crs import project, zone_of
from vlwm.core.city.readers.citygml import Feature, read_features
from vlwm.core.city.readers.citygml_triangles import clean
from vlwm.core.city.readers.source_files import find_sources
from vlwm.core.geometry.triangulate import Polygons, triangulate, triangulate_ring


def covered(polygons: Polygons) -> tuple[np.ndarray, np.ndarray]:
    """Area (N,) of the triangles of each polygon: against its plane, and as they lie."""
    triangles, owner = triangulate(polygons)
    corners = polygons.points[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2
    planes = polygons.normals()[polygons.first_rings]
    units = planes / np.maximum(np.linalg.norm(planes, axis=1, keepdims=True), 1e-12)
    along = np.einsum("ij,ij->i", normals, units[owner])
    count = len(polygons.polygon_rings)
    return (
        np.bincount(owner, along, minlength=count),
        np.bincount(owner, np.linalg.norm(normals, axis=1), minlength=count),
    )


@given(
    st.lists(st.floats(0.2, 3.0), min_size=3, max_size=12),
    st.floats(0, 6.28),
    st.floats(-1.5, 1.5),
    st.booleans(),
)
def test_star_polygons_in_any_plane(
    radii: list[float], turn: float, tilt: float, back: bool
) -> None:
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False) + turn
    flat = np.column_stack([radii * np.cos(angles), radii * np.sin(angles), np.zeros(len(radii))])
    flat = flat[::-1] if back else flat
    lean = np.array([[np.cos(tilt), 0, np.sin(tilt)], [0, 1, 0], [-np.sin(tilt), 0, np.cos(tilt)]])
    points = flat @ lean.T + (4000.0, -30000.0, 50.0)
    x, y = flat[:, 0], flat[:, 1]
    area = abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
    along, whole = covered(Polygons(points, np.array([len(points)]), np.array([1])))
    assert along[0] == pytest.approx(area, rel=1e-6)
    assert whole[0] == pytest.approx(area, rel=1e-6)


@pytest.mark.parametrize("turned", range(4))
def test_a_dart_is_cut_along_its_inner_diagonal(turned: int) -> None:
    dart = np.roll(np.array([[0, 0, 0], [4, 0, 0], [1, 1, 0], [0, 4, 0]], float), turned, axis=0)
    along, whole = covered(Polygons(dart, np.array([4]), np.array([1])))
    assert along[0] == pytest.approx(4.0) and whole[0] == pytest.approx(4.0)


def test_a_hole_and_a_polygon_without_area() -> None:
    outer = np.array([[0, 0, 5], [4, 0, 5], [4, 4, 5], [0, 4, 5]], float)
    hole = np.array([[1, 1, 5], [1, 2, 5], [2, 2, 5], [2, 1, 5]], float)
    line = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [1, 0, 0], [0.5, 0, 0]], float)
    polygons = Polygons(np.concatenate([outer, hole, line]), np.array([4, 4, 5]), np.array([2, 1]))
    assert polygons.areas().tolist() == [15.0, 0.0]
    along, whole = covered(polygons)
    assert along[0] == whole[0] == pytest.approx(15.0)
    assert (triangulate(polygons)[1] == 1).sum() == 3, "its edges are kept"
    assert len(triangulate_ring([outer, hole])) == 8


def test_triangles_cover_every_real_polygon(shared_data: Path) -> None:
    """Within 0.1 % of each polygon of every genuine file; measured: within 0.01 %."""
    cities = shared_data / "plateau/citygml"
    sources, _ = find_sources([cities / "tokyo23ku", cities / "osaka"])
    sources += find_sources([cities / "dem_veg", cities / "niiza"])[0][:2]
    seen = 0
    for source in (s for s in sources if s.kind != "dem"):
        features = [f for f in read_features(source) if isinstance(f, Feature)]
        rings, _ = clean(features)
        metres = project(rings.points, zone_of(*features[0].points[0, :2]))
        polygons = Polygons(metres, rings.ring_sizes, rings.polygon_rings)
        along, whole = covered(polygons)
        areas = polygons.areas()
        big = areas > 0.01
        assert np.abs(along / np.where(big, areas, 1) - 1)[big].max() < 1e-3, source.name
        if source.name != "533925_tran_6697_op.gml":  # roads on slopes: no plane at all
            assert np.abs(whole / np.where(big, areas, 1) - 1)[big].max() < 1e-3, source.name
        seen += len(areas)
    assert seen > 30_000

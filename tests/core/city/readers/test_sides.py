"""The side of a surface that is in front, and which axis is north: told by place and by walls."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.city.test_reference import by_way_of
from tests.core.city.town import (
    ORIGIN,
    QUADS,
    TOWN,
    Point,
    corners,
    degrees,
    gml_text,
    obj_text,
    polygon,
    read_text,
    town_gml,
    whole,
)
from tests.measures import signed_volume


def _turned(inner: str) -> str:
    return f'<gml:OrientableSurface orientation="-"><gml:baseSurface>{inner}' \
           "</gml:baseSurface></gml:OrientableSurface>"  # fmt: skip


def test_walls_turned_around_are_no_exchanged_axes(tmp_path: Path) -> None:
    """Both orders of the axes are in the zone: the walls decide, by the side that is in front."""
    place = by_way_of("EPSG:6677", swapped=True)
    features = town_gml(place=place, surface=lambda p: _turned(polygon(p[::-1])))
    city = read_text(tmp_path / "a.gml", gml_text(features, "EPSG:6677"))
    whole(city)
    assert city.report.notes == () and signed_volume(city.mesh) > 0


@pytest.mark.parametrize("at", ["solid", "surface"])
def test_links_turn_what_they_link_to(tmp_path: Path, at: str) -> None:
    """A solid says which side of a wall is outside, also of walls that are written elsewhere."""
    features = []
    for k, block in enumerate(TOWN):
        at_deg = [degrees(p) for p in corners(block)]
        walls, links = "", ""
        for q, quad in enumerate(QUADS):
            inside = polygon([at_deg[i] for i in quad[::-1]])
            base = f'<gml:Polygon gml:id="p{k}-{q}">'.join(["", inside.split(">", 1)[1]])
            walls += (
                "<bldg:boundedBy><bldg:WallSurface><bldg:lod2MultiSurface><gml:MultiSurface>"
                f"<gml:surfaceMember>{base}</gml:surfaceMember></gml:MultiSurface>"
                "</bldg:lod2MultiSurface></bldg:WallSurface></bldg:boundedBy>"
            )
            link = f'<gml:OrientableSurface orientation="-"><gml:baseSurface ' \
                   f'xlink:href="#p{k}-{q}"/></gml:OrientableSurface>'  # fmt: skip
            links += f"<gml:surfaceMember>{link}</gml:surfaceMember>"
        shell = f"<gml:CompositeSurface>{links}</gml:CompositeSurface>"
        solid = f"<gml:Solid><gml:exterior>{shell}</gml:exterior></gml:Solid>"
        # walls of a room are not read by themselves
        kept = (
            walls
            if at == "solid"
            else f"<bldg:interiorRoom><bldg:Room>{walls}</bldg:Room></bldg:interiorRoom>"
        )
        features.append(
            f'<bldg:Building gml:id="b{k}">{kept}<bldg:lod2Solid>{solid}</bldg:lod2Solid>'
            "</bldg:Building>"
        )
    city = read_text(tmp_path / "a.gml", gml_text(features))
    whole(city)
    assert signed_volume(city.mesh) > 0


OSAKA = (-46_000.0, -145_000.0)
"""easting, northing in zone VI"""


@pytest.mark.parametrize("north_first", [False, True])
@pytest.mark.parametrize(
    ("name", "crs", "at", "says"),
    [
        ("osaka.obj", "EPSG:6674", OSAKA, "outside the area of EPSG:6674"),
        ("53394519_bldg_6677.obj", "EPSG:6677", ORIGIN, "outside mesh 53394519"),
    ],
)
def test_the_place_of_an_obj_tells_which_axis_is_north(
    tmp_path: Path, name: str, crs: str, at: tuple[float, float], says: str, north_first: bool
) -> None:
    def turned(p: Point) -> Point:
        east, north = p[0] + at[0], p[1] + at[1]
        return (north, east, p[2]) if north_first else (east, north, p[2])

    city = read_text(tmp_path / name, obj_text(head=f"# {crs}\n", turned=turned))
    notes = " ".join(city.report.notes)
    assert ("x is taken as north and y as east" in notes) == north_first == (says in notes)
    assert "look inward" not in notes and signed_volume(city.mesh) > 0
    assert city.origin.easting == pytest.approx(at[0], abs=500)
    assert city.origin.northing == pytest.approx(at[1], abs=500)


@pytest.mark.parametrize("north_first", [False, True])
@pytest.mark.parametrize("walls", [False, True])
def test_the_place_of_a_plane_tells_its_order(
    tmp_path: Path, north_first: bool, walls: bool
) -> None:
    """With and without walls that would tell; the definition of the system has north first."""
    place = by_way_of("EPSG:6674", "EPSG:6674", OSAKA, swapped=north_first)
    blocks = TOWN if walls else TOWN[:3]
    city = read_text(tmp_path / "a.gml", gml_text(town_gml(blocks, place=place), "EPSG:6674"))
    assert ("its axes are east, north" in " ".join(city.report.notes)) != north_first
    assert city.origin.easting == pytest.approx(OSAKA[0], abs=500)
    assert signed_volume(city.mesh) > 0

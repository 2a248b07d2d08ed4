"""A file is placed by the reference system that it names, or refused by that name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyproj import Transformer

from tests.core.city.town import ORIGIN, TOWN, Point, degrees, gml_text, read_text, town_gml, whole
from tests.measures import signed_volume
from vlwm.core.city.crs import in_japan, zone_of
from vlwm.core.city.reference import UnknownReference, reference_of
from vlwm.core.errors import DataError


def by_way_of(system: str, source: str = "EPSG:6677", shift: tuple[float, float] = ORIGIN,
              swapped: bool = False, unit: float = 1.0) -> Callable[[Point], str]:  # fmt: skip
    """A writer of points of the town in a system."""
    to = Transformer.from_crs(source, system, always_xy=True)

    def place(point: Point) -> str:
        x, y = to.transform(point[0] + shift[0], point[1] + shift[1])
        first, second = (y, x) if swapped else (x, y)
        return f"{first:.9f} {second:.9f} {point[2] / unit:.4f}"

    return place


BERLIN, NEW_YORK = (390_000.0, 5_820_000.0), (583_000.0, 4_507_000.0)
PLACES = [
    ("EPSG:10170", by_way_of("EPSG:6677", swapped=True), "EPSG:6677"),
    ("urn:ogc:def:crs:EPSG::6677", by_way_of("EPSG:6677", swapped=True), "EPSG:6677"),
    ("EPSG:4612", degrees, "EPSG:6677"),
    ("EPSG:4301", by_way_of("EPSG:4301", swapped=True), "EPSG:6677"),
    ("EPSG:3857", by_way_of("EPSG:3857"), "EPSG:6677"),
    ("urn:ogc:def:crs:OGC:1.3:CRS84", by_way_of("EPSG:6668"), "EPSG:6677"),
    (
        "urn:ogc:def:crs,crs:EPSG::25833,crs:EPSG::7837",
        by_way_of("EPSG:25833", "EPSG:25833", BERLIN),
        "EPSG:25833",
    ),
    (
        "EPSG:2263+6360",
        by_way_of("EPSG:2263", "EPSG:32618", NEW_YORK, unit=0.3048006096),
        "EPSG:32618",
    ),
]


@pytest.mark.parametrize(("system", "place", "crs"), PLACES, ids=[p[0] for p in PLACES])
def test_the_town_is_itself_in_every_system(
    tmp_path: Path, system: str, place: Callable[[Point], str], crs: str
) -> None:
    city = read_text(tmp_path / "a.gml", gml_text(town_gml(place=place), system))
    whole(city)
    assert city.origin.crs == crs and city.report.notes == ()


@pytest.mark.parametrize(
    ("system", "place"),
    [
        ("EPSG:6697", by_way_of("EPSG:6668")),
        ("EPSG:6677", by_way_of("EPSG:6677")),
    ],
)
def test_exchanged_axes_are_seen_by_place_or_by_walls(
    tmp_path: Path, system: str, place: Callable[[Point], str]
) -> None:
    city = read_text(tmp_path / "a.gml", gml_text(town_gml(place=place), system))
    whole(city)
    assert "its axes are east, north" in city.report.notes[0]
    assert signed_volume(city.mesh) > 0


def test_the_system_of_a_geometry_comes_before_the_envelope(tmp_path: Path) -> None:
    features = [
        f.replace("<gml:Solid>", '<gml:Solid srsName="EPSG:10170">')
        for f in town_gml(place=by_way_of("EPSG:6677", swapped=True))
    ]
    whole(read_text(tmp_path / "a.gml", gml_text(features, None)))
    features[0] = features[0].replace("<gml:posList>", '<gml:posList srsName="EPSG:6697">', 1)
    city = read_text(tmp_path / "b.gml", gml_text(features))
    assert city.report.skipped[0][2] == "its surfaces are in several reference systems"


@pytest.mark.parametrize(
    ("system", "place", "words"),
    [
        ("urn:ogc:def:crs:local:engineering", degrees, "not an EPSG system"),
        ("EPSG:99999", degrees, "does not exist"),
        ("EPSG:6677", lambda p: f"{p[0] + 5e6} {p[1]} {p[2]}", "are outside EPSG:6677"),
        (None, lambda p: f"{p[0]} {p[1]} {p[2]}", "names no reference system"),
    ],
)
def test_what_has_no_place_is_refused_by_its_name(
    tmp_path: Path, system: str | None, place: Callable[[Point], str], words: str
) -> None:
    with pytest.raises(DataError, match=f"this file is not placed: .*{words}.*transform it to"):
        read_text(tmp_path / "a.gml", gml_text(town_gml(place=place), system))


def test_every_form_of_a_name_is_the_same_system() -> None:
    forms = (
        "EPSG:25833", "urn:ogc:def:crs:EPSG::25833", "urn:ogc:def:crs:EPSG:6.9:25833",
        "http://www.opengis.net/def/crs/EPSG/0/25833", "http://www.opengis.net/gml/srs/epsg.xml#25833",
        "urn:adv:crs:ETRS89_UTM33*DE_DHHN2016_NH", "EPSG:25833+7837", "25833",
    )  # fmt: skip
    assert {reference_of(f).crs for f in forms} == {"EPSG:25833"}
    for wrong in ("EPSG:²³²³", "EPSG:", "somewhere", "\x1b[2J"):
        with pytest.raises(UnknownReference):
            reference_of(wrong)


def test_plane_systems_of_japan_are_their_zones() -> None:
    for k in range(13):
        assert reference_of(f"EPSG:{10162 + k}").crs == f"EPSG:{6669 + k}"
    assert zone_of(40.7, -74.0) == "EPSG:32618" and zone_of(-33.9, 151.2) == "EPSG:32756"
    assert in_japan(26.2, 127.7) and not in_japan(40.7, -74.0)


def test_attribution_is_that_of_the_data(tmp_path: Path) -> None:
    name = "53394611_bldg_6697_op.gml"
    ours = read_text(tmp_path / "a" / name, gml_text(town_gml()))
    assert "Project PLATEAU" in ours.attribution
    assert read_text(tmp_path / "b.gml", gml_text(town_gml())).attribution == "source not stated"
    place = by_way_of("EPSG:25833", "EPSG:25833", BERLIN)
    foreign = read_text(tmp_path / "c" / name, gml_text(town_gml(place=place), "EPSG:25833"))
    assert foreign.attribution == "source not stated"


def test_two_zones_at_their_border_are_one_city(tmp_path: Path) -> None:
    to = Transformer.from_crs("EPSG:6677", "EPSG:6676", always_xy=True)
    text = gml_text(town_gml(TOWN[:18], place=by_way_of("EPSG:6677", swapped=True)), "EPSG:6677")
    (tmp_path / "a.gml").write_text(text)

    def other(point: Point) -> str:
        x, y = to.transform(point[0] + ORIGIN[0], point[1] + ORIGIN[1])
        return f"{y:.4f} {x:.4f} {point[2]:.4f}"

    city = read_text(
        tmp_path / "b.gml", gml_text(town_gml(TOWN[18:], "c", place=other), "EPSG:6676")
    )
    assert city.report.buildings == 18
    from vlwm.core.city.read import read_city

    both = read_city([tmp_path])
    assert both.report.buildings == 36
    east = both.bounds_xy[2] - both.bounds_xy[0]
    assert np.isclose(east, 226, atol=2)

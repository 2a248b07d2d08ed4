"""What of a CityGML feature is taken, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tests.core.city.gml_text import polygon, ring, solid, wall, write_gml
from vlwm.core.city.city import City
from vlwm.core.city.read import read_city
from vlwm.core.city.readers.citygml import Feature, read_features, read_relief
from vlwm.core.city.readers.source_files import Folder, Source
from vlwm.core.errors import DataError


def heights(city: City, name: str) -> set[float]:
    chosen = city.feature_of_face == city.feature_ids.index(name)
    return set(city.mesh.triangles()[chosen][:, :, 2].reshape(-1))


def only(plateau: Path, name: str) -> Feature:
    """The single feature of a genuine cut-out."""
    path = next((plateau / "citygml/tokyo23ku").rglob(name))
    (feature,) = read_features(Source(Folder(path.parent), path.name))
    assert isinstance(feature, Feature)
    return feature


def test_lod2_is_taken_instead_of_lod1_and_lod0_never(tmp_path: Path) -> None:
    lod0 = f"<bldg:lod0RoofEdge>{polygon(0)}</bldg:lod0RoofEdge>"
    city = read_city([write_gml(tmp_path / "a.gml", lod0 + solid(5) + wall(7), lod0 + solid(5))])
    assert heights(city, "b0") == {7.0} and heights(city, "b1") == {5.0}
    assert (city.report.lod2, city.report.lod1) == (1, 1)


def test_a_solid_of_links_is_not_read_beside_its_surfaces(plateau: Path) -> None:
    feature = only(plateau, "Issue32_13101-bldg-365.gml")
    assert feature.lod == 2 and len(feature.polygon_rings) == 90


def test_installations_belong_to_the_body(plateau: Path, tmp_path: Path) -> None:
    fitting = (
        "<bldg:outerBuildingInstallation><bldg:BuildingInstallation><bldg:lod2Geometry>"
        f"{polygon(11)}</bldg:lod2Geometry></bldg:BuildingInstallation>"
        "</bldg:outerBuildingInstallation>"
    )
    city = read_city([write_gml(tmp_path / "a.gml", wall(7) + fitting, solid(5) + fitting)])
    assert heights(city, "b0") == {7.0, 11.0}
    assert heights(city, "b1") == {5.0}, "an installation alone is no body"
    feature = only(plateau, "53394525_bldg_6697_2_op.gml")
    assert len(feature.polygon_rings) == 249 and max(feature.polygon_rings) == 18


def test_parts_are_taken_each_at_its_own_level(tmp_path: Path) -> None:
    def part(body: str) -> str:
        return f"<bldg:consistsOfBuildingPart><bldg:BuildingPart>{body}</bldg:BuildingPart>" \
               "</bldg:consistsOfBuildingPart>"  # fmt: skip

    mixed = solid(3) + part(wall(7) + solid(4)) + part(solid(5))
    coarse = part(solid(4)) + part(solid(5))
    city = read_city([write_gml(tmp_path / "a.gml", mixed, coarse)])
    assert heights(city, "b0") == {7.0, 5.0} and heights(city, "b1") == {4.0, 5.0}
    assert (city.report.lod2, city.report.lod1) == (1, 1)


def test_holes_stay_holes(tmp_path: Path) -> None:
    areas = [
        read_city([write_gml(tmp_path / f"{hole}.gml", solid(5, hole=hole))]).mesh.areas().sum()
        for hole in (False, True)
    ]
    assert areas[1] == pytest.approx(areas[0] * (1 - 0.2**2), rel=1e-3)


def test_repeated_points_and_flat_rings_are_dropped(tmp_path: Path) -> None:
    doubled = solid(5).replace("<gml:posList>", "<gml:posList>35.68 139.76 5 ", 1)
    line = "<gml:posList>35.68 139.76 5 35.69 139.77 5 35.68 139.76 5</gml:posList>"
    flat = f"<gml:Polygon><gml:exterior><gml:LinearRing>{line}</gml:LinearRing></gml:exterior>" \
           "</gml:Polygon>"  # fmt: skip
    both = f"<bldg:lod1Solid>{flat}{polygon(5)}</bldg:lod1Solid>"
    city = read_city(
        [write_gml(tmp_path / "a.gml", doubled, both, f"<bldg:lod1Solid>{flat}</bldg:lod1Solid>")]
    )
    assert city.feature_ids == ["b0", "b1"]
    assert np.bincount(city.feature_of_face).tolist() == [2, 2]
    assert city.report.skipped[0][1:] == ("b2", "its surfaces have no area")


def test_a_hole_that_repeats_its_outer_ring_leaves_the_building_standing(tmp_path: Path) -> None:
    same = f"<gml:Polygon><gml:exterior>{ring(0, 10, 5)}</gml:exterior>" \
           f"<gml:interior>{ring(0, 10, 5)}</gml:interior></gml:Polygon>"  # fmt: skip
    city = read_city(
        [write_gml(tmp_path / "a.gml", f"<bldg:lod1Solid>{same}{polygon(8)}</bldg:lod1Solid>")]
    )
    assert 8.0 in heights(city, "b0")


def test_positions_may_stand_one_by_one_and_prefixes_may_change(tmp_path: Path) -> None:
    text = write_gml(tmp_path / "a.gml", solid(5)).read_text()
    whole = read_city([tmp_path / "a.gml"])
    points = text.split("<gml:posList>")[1].split("</gml:posList>")[0].split()
    single = "".join(
        f"<gml:pos>{' '.join(points[i : i + 3])}</gml:pos>" for i in range(0, len(points), 3)
    )
    other = text.replace(f"<gml:posList>{' '.join(points)}</gml:posList>", single)
    other = (
        other.replace("bldg:", "b:").replace("xmlns:b:", "xmlns:b").replace("xmlns:bldg", "xmlns:b")
    )
    other = other.replace("building/2.0", "building/3.0")
    (tmp_path / "b.gml").write_text(other)
    np.testing.assert_array_equal(
        read_city([tmp_path / "b.gml"]).mesh.vertices, whole.mesh.vertices
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("139.76 5", "139.76 nan", "not finite"),
        ("139.76 5", "139.76 inf", "not finite"),
        ("139.76 5", "139.76 x", "not a number"),
        ("139.76 5", "139.76", "triples"),
        ("35.68 139.76", "139.76 35.68", "not latitude"),
    ],
)
def test_a_broken_coordinate_skips_the_building(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    path = write_gml(tmp_path / "a.gml", solid(5).replace(old, new, 1), solid(5))
    city = read_city([path])
    assert city.feature_ids == ["b1"]
    assert words in city.report.skipped[0][2]


def test_broken_xml_names_file_and_line(tmp_path: Path) -> None:
    path = write_gml(tmp_path / "a.gml", solid(5))
    path.write_text(path.read_text().replace("</bldg:Building>", "</oops>"))
    with pytest.raises(DataError, match=r"XML is broken.*a\.gml:\d+"):
        read_city([path])
    path.write_bytes(b"\x00\x01 no xml")
    with pytest.raises(DataError, match=r"XML is broken.*a\.gml:1"):
        read_city([path])


@pytest.mark.parametrize("cut", [20, 200])
def test_a_damaged_gzip_is_named(tmp_path: Path, cut: int) -> None:
    path = write_gml(tmp_path / "a.gml", *([solid(5)] * 40))
    packed = tmp_path / "b.gml.gz"
    packed.write_bytes(gzip.compress(path.read_bytes())[:-cut])
    with pytest.raises(DataError, match=r"b\.gml\.gz"):
        read_city([packed])
    packed.write_bytes(b"not gzip at all")
    with pytest.raises(DataError, match=r"damaged.*b\.gml\.gz"):
        read_city([packed])


BOMB = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(9))


@pytest.mark.parametrize(
    "doctype",
    [
        f'<!DOCTYPE a [<!ENTITY e0 "ha">{BOMB}]>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd">',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_bombs_and_external_entities_are_refused(
    tmp_path: Path, doctype: str, encoding: str
) -> None:
    head = f'<?xml version="1.0" encoding="{encoding}"?>'
    path = write_gml(tmp_path / "a.gml", solid(5))
    text = path.read_text().replace('<?xml version="1.0"?>', head + doctype)
    path.write_bytes(text.replace("35.68", "&e9;35.68", 1).encode(encoding))
    with pytest.raises(DataError, match=r"entities|broken"):
        read_city([path])


def test_relief_is_read_as_triangles(plateau: Path) -> None:
    path = plateau / "citygml/dem_veg/523965_dem_6697_05_op.gml"
    found = np.concatenate(list(read_relief(Source(Folder(path.parent), path.name))))
    assert found.shape == (path.read_text().count("<gml:Triangle>"), 3, 3) == (1066, 3, 3)
    assert found[:, :, 2].min() == pytest.approx(-0.02) and found[:, :, 2].max() < 24.3
    assert found[:, :, 0].min() > 35 and found[:, :, 1].min() > 139


def test_plants_are_read_at_the_level_they_have(plateau: Path) -> None:
    folder = plateau / "citygml/dem_veg"
    trees = read_city([folder / "52385628_veg_6697_op.gml"])
    assert trees.report.plants == 28 and trees.report.lod3 == 28
    covers = read_city([folder / "54401008_veg_6697_op.gml"])
    assert covers.report.lod2 == 2 and set(covers.feature_kinds) == {"vegetation"}

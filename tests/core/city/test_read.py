"""Cities are read whole, stand where they stand, and every building keeps its volume."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from pyproj import Transformer

from vlwm.core.city.city import City, feature_bases
from vlwm.core.city.read import read_city
from vlwm.core.errors import DataError

CUBE = """# EPSG:6677
o one
v 10 20 0
v 30 20 0
v 30 40 0
v 10 40 0
v 10 20 12
v 30 20 12
v 30 40 12
v 10 40 12
f 4 3 2 1
f 5 6 7 8
f 1 2 6 5
f 2 3 7 6
f 3 4 8 7
f 4 1 5 8
"""


def gml_buildings(path: Path) -> set[str]:
    """Names of the buildings in a file, found without a parser."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    return set(re.findall(r"<(?:bldg|brid):(?:Building|Bridge) gml:id=\"([^\"]+)\"", text))


def origin_of(city: City) -> np.ndarray:
    return np.array([city.origin.easting, city.origin.northing, city.origin.height])


def test_a_cube_is_closed_and_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(CUBE)
    city = read_city([tmp_path])
    assert city.mesh.signed_volume() == pytest.approx(20 * 20 * 12)
    assert city.origin.crs == "EPSG:6677"
    absolute = city.mesh.bounds + origin_of(city)
    np.testing.assert_allclose(absolute, [[10, 20, 0], [30, 40, 12]], atol=1e-9)
    assert city.feature_ids == ["one"]
    assert "Project PLATEAU" in city.attribution


def test_negative_and_textured_indices_mean_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(CUBE)
    (tmp_path / "b.obj").write_text(CUBE.replace("f 4 3 2 1", "f -5/1/1 -6/2/1 -7//1 -8"))
    a, b = read_city([tmp_path / "a.obj"]), read_city([tmp_path / "b.obj"])
    np.testing.assert_array_equal(a.mesh.triangles(), b.mesh.triangles())


def test_the_same_building_in_two_files_is_taken_once(tmp_path: Path) -> None:
    for name in ("a.obj", "b.obj"):
        (tmp_path / name).write_text(CUBE)
    (tmp_path / "c.obj").write_text(CUBE.replace("v 10 ", "v 5 "))
    city = read_city([tmp_path])
    assert len(city.feature_ids) == 2 and city.report.duplicates == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("v 1 2 nan", "not a finite number"),
        ("v 1 2 inf", "not a finite number"),
        ("v 1 2", "three numbers"),
        ("v 1 2 x", "three numbers"),
        ("f 1 2 99", "not there"),
        ("f 0 1 2", "not there"),
        ("f 1 2", "not there"),
        ("f a b c", "whole numbers"),
    ],
)
def test_a_broken_obj_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "a.obj").write_text(CUBE + line + "\n")
    with pytest.raises(DataError, match=rf"{words}.*a\.obj:17"):
        read_city([tmp_path])


def test_missing_and_empty_folders_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read_city([tmp_path / "absent"])
    with pytest.raises(DataError, match=r"no city model here.*\.obj.*\.gml.*\.zip"):
        read_city([tmp_path])


def test_two_zones_are_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(CUBE)
    (tmp_path / "b.obj").write_text(CUBE.replace("6677", "6676"))
    with pytest.raises(DataError, match="EPSG:6676"):
        read_city([tmp_path])


def test_marunouchi_is_whole(shared_data: Path) -> None:
    folder = shared_data / "plateau/tokyo_marunouchi_obj"
    faces = sum(
        len(line.split()) - 3
        for path in folder.glob("*.obj")
        for line in path.read_text().splitlines()
        if line.startswith("f ")
    )
    city = read_city([folder])
    duplicated = city.report.duplicates
    assert duplicated <= 1 and abs(len(city.mesh.faces) - faces) <= 60 * duplicated
    assert 9_700 <= len(city.feature_ids) <= 9_750
    assert city.mesh.bounds[1, 2] == pytest.approx(214.0)
    assert np.ptp(city.terrain.heights) == 0.0


def test_two_readers_of_one_place_agree(shared_data: Path) -> None:
    """A building of a CityGML tile lies where pyproj alone puts it."""
    path = shared_data / "plateau/citygml/niiza/53395425_bldg_6697_op.gml.gz"
    with gzip.open(path, "rt") as file:
        text = file.read()
    start = r"<bldg:Building gml:id=\"([^\"]+)\".*?"
    solid = re.search(start + r"<bldg:lod1Solid>(.*?)</bldg:lod1Solid>", text, re.S)
    assert solid
    values = [
        float(v) for lists in re.findall(r"posList>([^<]+)<", solid[2]) for v in lists.split()
    ]
    lat, lon, height = np.array(values).reshape(-1, 3).T
    east, north = Transformer.from_crs("EPSG:6668", "EPSG:6677", always_xy=True).transform(lon, lat)
    city = read_city([path])
    index = city.feature_ids.index(solid[1])
    corners = city.mesh.triangles()[city.feature_of_face == index].reshape(-1, 3)
    corners = corners + origin_of(city)
    for axis, known in enumerate((east, north, height)):
        assert corners[:, axis].min() == pytest.approx(known.min(), abs=1e-6)
        assert corners[:, axis].max() == pytest.approx(known.max(), abs=1e-6)


@pytest.mark.parametrize(
    ("place", "crs"), [("niiza", "EPSG:6677"), ("matsumoto", "EPSG:6676"), ("osaka", "EPSG:6674")]
)
def test_every_building_of_real_tiles_is_read(shared_data: Path, place: str, crs: str) -> None:
    folder = shared_data / "plateau/citygml" / place
    names: set[str] = set()
    for path in folder.rglob("*bldg*.gml.gz"):
        names |= gml_buildings(path)
    city = read_city([folder])
    skipped = {feature for _, feature, _ in city.report.skipped}
    assert set(city.feature_ids) | skipped == names
    assert len(skipped) == 0
    assert city.origin.crs == crs


def test_lod1_blocks_have_the_volume_of_footprint_times_height(shared_data: Path) -> None:
    city = read_city([shared_data / "plateau/citygml/niiza/53395425_bldg_6697_op.gml.gz"])
    triangles = city.mesh.triangles()
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    sixfold = np.einsum("ij,ij->i", a - a.mean(0), np.cross(b - a.mean(0), c - a.mean(0)))
    volumes = np.bincount(city.feature_of_face, sixfold) / 6
    normals = np.cross(b - a, c - a)
    up = np.where(np.abs(normals[:, 2]) > 1e-9, normals[:, 2], 0.0) / 2
    footprints = np.bincount(city.feature_of_face, np.clip(up, 0, None))
    tops = np.full(len(footprints), -np.inf)
    bottoms = np.full(len(footprints), np.inf)
    np.maximum.at(tops, np.repeat(city.feature_of_face, 3), triangles[:, :, 2].reshape(-1))
    np.minimum.at(bottoms, np.repeat(city.feature_of_face, 3), triangles[:, :, 2].reshape(-1))
    expected = footprints * (tops - bottoms)
    lod1 = np.ones(len(volumes), dtype=bool) if city.report.lod2 == 0 else expected > 0
    assert volumes[lod1].sum() == pytest.approx(expected[lod1].sum(), rel=0.01)
    assert np.median(np.abs(volumes / expected - 1)) < 0.001


def test_buildings_of_matsumoto_stand_on_the_ground(shared_data: Path) -> None:
    city = read_city([shared_data / "plateau/citygml/matsumoto"])
    bases = feature_bases(city.mesh, city.feature_of_face, len(city.feature_ids))
    ground = city.terrain.height(bases[:, :2])
    assert ground.min() > 560 and ground.max() < 635
    off = np.abs(bases[:, 2] - ground)
    assert np.median(off) < 0.2 and np.percentile(off, 99) < 2.0
    assert city.report.lod2 == 1118 and city.report.lod1 == 3911


GML = """<?xml version="1.0"?>
<core:CityModel xmlns:core="http://www.opengis.net/citygml/2.0"
 xmlns:bldg="http://www.opengis.net/citygml/building/2.0" xmlns:gml="http://www.opengis.net/gml">
{members}
</core:CityModel>
"""
MEMBER = """<core:cityObjectMember><bldg:Building gml:id="{name}">{body}</bldg:Building>
</core:cityObjectMember>"""


def polygon(height: float, *, hole: bool = False) -> str:
    def ring(low: float, high: float) -> str:
        at = [(low, low), (low, high), (high, high), (high, low), (low, low)]
        text = " ".join(f"{35.68 + a * 1e-5} {139.76 + b * 1e-5} {height}" for a, b in at)
        return f"<gml:LinearRing><gml:posList>{text}</gml:posList></gml:LinearRing>"

    inner = f"<gml:interior>{ring(4, 6)}</gml:interior>" if hole else ""
    return f"<gml:Polygon><gml:exterior>{ring(0, 10)}</gml:exterior>{inner}</gml:Polygon>"


def write_gml(path: Path, *bodies: str) -> Path:
    members = "\n".join(MEMBER.format(name=f"b{i}", body=b) for i, b in enumerate(bodies))
    path.write_text(GML.format(members=members))
    return path


def test_lod2_is_taken_instead_of_lod1_and_lod0_never(tmp_path: Path) -> None:
    lod0 = f"<bldg:lod0RoofEdge>{polygon(0)}</bldg:lod0RoofEdge>"
    lod1 = f"<bldg:lod1Solid>{polygon(5)}</bldg:lod1Solid>"
    lod2 = f"<bldg:boundedBy><bldg:RoofSurface><bldg:lod2MultiSurface>{polygon(7)}" \
           "</bldg:lod2MultiSurface></bldg:RoofSurface></bldg:boundedBy>"  # fmt: skip
    city = read_city([write_gml(tmp_path / "a.gml", lod0 + lod1 + lod2, lod0 + lod1)])
    heights = city.mesh.triangles()[:, :, 2]
    by_building = [set(heights[city.feature_of_face == i].reshape(-1)) for i in range(2)]
    assert by_building == [{7.0}, {5.0}]
    assert (city.report.lod2, city.report.lod1) == (1, 1)


def test_holes_stay_holes(tmp_path: Path) -> None:
    solid = f"<bldg:lod1Solid>{polygon(5)}</bldg:lod1Solid>"
    holed = f"<bldg:lod1Solid>{polygon(5, hole=True)}</bldg:lod1Solid>"
    whole = read_city([write_gml(tmp_path / "a.gml", solid)]).mesh.areas().sum()
    rest = read_city([write_gml(tmp_path / "b.gml", holed)]).mesh.areas().sum()
    assert rest == pytest.approx(whole * (1 - 0.2**2), rel=1e-3)


def test_a_broken_feature_is_left_out_and_named(tmp_path: Path) -> None:
    good = f"<bldg:lod1Solid>{polygon(5)}</bldg:lod1Solid>"
    bad = good.replace("139.76", "NaN", 1)
    path = write_gml(
        tmp_path / "a.gml", good, bad, "<bldg:measuredHeight>-9999</bldg:measuredHeight>"
    )
    city = read_city([path])
    assert city.feature_ids == ["b0"]
    assert [feature for _, feature, _ in city.report.skipped] == ["b1", "b2"]
    with pytest.raises(DataError, match="b1"):
        read_city([path], strict=True)


def test_broken_xml_names_file_and_line(tmp_path: Path) -> None:
    path = write_gml(tmp_path / "a.gml", f"<bldg:lod1Solid>{polygon(5)}</bldg:lod1Solid>")
    path.write_text(path.read_text().replace("</bldg:Building>", "</oops>"))
    with pytest.raises(DataError, match=r"XML is broken.*a\.gml:\d+"):
        read_city([path])
    packed = tmp_path / "b.gml.gz"
    packed.write_bytes(gzip.compress(b"<a>" * 1000)[:-20])
    with pytest.raises(DataError, match=r"b\.gml\.gz"):
        read_city([packed])


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;">]>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    ],
)
def test_entities_are_refused(tmp_path: Path, doctype: str) -> None:
    path = write_gml(tmp_path / "a.gml", f"<bldg:lod1Solid>{polygon(5)}</bldg:lod1Solid>")
    path.write_text(
        path.read_text().replace('<?xml version="1.0"?>', '<?xml version="1.0"?>' + doctype)
    )
    with pytest.raises(DataError, match=r"entities|broken"):
        read_city([path])

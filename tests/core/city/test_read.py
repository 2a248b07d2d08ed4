"""Real cities are read whole, stand where they stand, and every building keeps its volume."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from pyproj import Transformer

from tests.core.city.gml_text import member as gml_member
from tests.core.city.gml_text import polygon, solid, write_gml, write_members
from tests.measures import area_m2, feature_bases
from vlwm.core.city.assembly.watertight import open_features
from vlwm.core.city.city import City
from vlwm.core.city.read import read_city
from vlwm.core.errors import DataError

PLACES = {"niiza": "EPSG:6677", "matsumoto": "EPSG:6676", "osaka": "EPSG:6674"}


def text_of(path: Path) -> str:
    raw = path.read_bytes()
    return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")


def names_in(path: Path) -> set[str]:
    """Names of the buildings and bridges in a file, found without a parser."""
    return set(re.findall(r"<(?:bldg|brid):(?:Building|Bridge) gml:id=\"([^\"]+)\"", text_of(path)))


def origin_of(city: City) -> np.ndarray:
    return np.array([city.origin.easting, city.origin.northing, city.origin.height])


def volumes_of(city: City) -> np.ndarray:
    """Enclosed volume (G,) of every feature, m³."""
    triangles = city.mesh.triangles()
    a, b, c = (triangles[:, k] - triangles[:, 0].mean(axis=0) for k in range(3))
    sixfold = np.einsum("ij,ij->i", a, np.cross(b, c))
    return np.bincount(city.feature_of_face, sixfold, minlength=len(city.feature_ids)) / 6


def prisms_of(city: City) -> np.ndarray:
    """Footprint times height (G,) of every feature, m³."""
    triangles = city.mesh.triangles()
    count = len(city.feature_ids)
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    roofs = np.bincount(city.feature_of_face, np.clip(normals[:, 2], 0, None) / 2, minlength=count)
    top, bottom = np.full(count, -np.inf), np.full(count, np.inf)
    owner = np.repeat(city.feature_of_face, 3)
    np.maximum.at(top, owner, triangles[:, :, 2].reshape(-1))
    np.minimum.at(bottom, owner, triangles[:, :, 2].reshape(-1))
    return roofs * (top - bottom)


@pytest.mark.parametrize("place", PLACES)
def test_buildings_read_are_the_buildings_in_the_files(
    plateau: Path, place: str, request: pytest.FixtureRequest
) -> None:
    city: City = request.getfixturevalue(place)
    files = list((plateau / "citygml" / place).rglob("*bldg*.gml.gz"))
    assert set(city.feature_ids) == set.union(*(names_in(p) for p in files))
    assert len(city.feature_ids) == len(set(city.feature_ids)) == city.report.buildings
    assert city.report.skipped == () and city.origin.crs == PLACES[place]


def test_every_small_genuine_file_is_read(plateau: Path) -> None:
    for path in sorted((plateau / "citygml").rglob("*.gml")):
        if not re.search(r"bldg|brid", path.name):
            continue
        city = read_city([path])
        skipped = [feature for _, feature, _ in city.report.skipped]
        named = {name for name in city.feature_ids if "#" not in name}
        assert named == names_in(path)
        elements = len(re.findall(r"<(?:bldg:Building|brid:Bridge)[ />]", text_of(path)))
        assert len(city.feature_ids) + len(skipped) == elements, path.name


def test_bridges_without_any_surface_are_counted_and_named(plateau: Path) -> None:
    folder = plateau / "citygml/tokyo23ku/PLATEAU-SDK-for-Unity/TestDataTokyoMini/udx"
    city = read_city([folder / "brid/53394525_brid_6697_op.gml"])
    assert city.report.bridges == 21 and len(city.report.skipped) == 38
    assert set(city.feature_kinds) == {"bridge"}


@pytest.mark.parametrize("place", ["niiza", "osaka", "marunouchi"])
def test_closed_blocks_have_the_volume_of_footprint_times_height(
    place: str, request: pytest.FixtureRequest
) -> None:
    city: City = request.getfixturevalue(place)
    closed = ~open_features(city.mesh.triangles(), city.feature_of_face, len(city.feature_ids))
    volumes, expected = volumes_of(city)[closed], prisms_of(city)[closed]
    assert closed.sum() >= len(city.feature_ids) - city.report.lod2
    assert volumes.sum() == pytest.approx(expected.sum(), rel=1e-4)
    assert np.abs(volumes / expected - 1).max() < 0.01


def test_real_lod2_buildings_are_closed_and_look_outward(matsumoto: City) -> None:
    assert matsumoto.report.lod2 == 1118 and matsumoto.report.lod1 == 3911
    assert matsumoto.report.open_shells == 0
    assert (volumes_of(matsumoto) > 0).all()


def test_buildings_of_matsumoto_stand_on_the_ground(matsumoto: City) -> None:
    bases = feature_bases(matsumoto.mesh, matsumoto.feature_of_face, len(matsumoto.feature_ids))
    ground = matsumoto.terrain.height(bases[:, :2])
    assert ground.min() > 570 and ground.max() < 625
    off = np.abs(bases[:, 2] - ground)
    assert np.median(off) < 0.1 and np.percentile(off, 99) < 1.0
    slope = matsumoto.terrain.height([1500.0, 0.0]) - matsumoto.terrain.height([-1500.0, 0.0])
    assert 15 < slope < 60


@pytest.mark.parametrize("place", ["niiza", "osaka"])
def test_most_buildings_stand_on_the_ground(place: str, request: pytest.FixtureRequest) -> None:
    city: City = request.getfixturevalue(place)
    bases = feature_bases(city.mesh, city.feature_of_face, len(city.feature_ids))
    off = np.abs(bases[:, 2] - city.terrain.height(bases[:, :2]))
    assert np.percentile(off, 95) < 1.0


def test_the_ground_reaches_beyond_the_buildings(niiza: City) -> None:
    terrain, bounds = niiza.terrain, niiza.bounds_xy
    nx, ny = terrain.heights.shape
    assert terrain.x0 <= bounds[0] - 150 and terrain.y0 <= bounds[1] - 150
    assert terrain.x0 + (nx - 1) * terrain.spacing_m >= bounds[2] + 150
    assert terrain.y0 + (ny - 1) * terrain.spacing_m >= bounds[3] + 150


def test_marunouchi_is_whole(plateau: Path, marunouchi: City) -> None:
    faces = sum(
        len(line.split()) - 3
        for path in (plateau / "tokyo_marunouchi_obj").glob("*.obj")
        for line in path.read_text().splitlines()
        if line.startswith("f ")
    )
    assert len(marunouchi.mesh.faces) == faces and marunouchi.report.duplicates == 0
    assert 9_700 <= len(marunouchi.feature_ids) <= 9_750
    assert marunouchi.mesh.bounds[1, 2] == pytest.approx(214.0)
    assert np.ptp(marunouchi.terrain.heights) == 0.0 and marunouchi.report.ground == "flat"


def test_a_building_lies_where_pyproj_alone_puts_it(plateau: Path, niiza: City) -> None:
    text = text_of(plateau / "citygml/niiza/53395425_bldg_6697_op.gml.gz")
    start = r"<bldg:Building gml:id=\"([^\"]+)\".*?"
    block = re.search(start + r"<bldg:lod1Solid>(.*?)</bldg:lod1Solid>", text, re.S)
    assert block
    values = [
        float(v) for lists in re.findall(r"posList>([^<]+)<", block[2]) for v in lists.split()
    ]
    lat, lon, height = np.array(values).reshape(-1, 3).T
    east, north = Transformer.from_crs("EPSG:6668", "EPSG:6677", always_xy=True).transform(lon, lat)
    index = niiza.feature_ids.index(block[1])
    corners = niiza.mesh.triangles()[niiza.feature_of_face == index].reshape(-1, 3)
    corners = corners + origin_of(niiza)
    for axis, known in enumerate((east, north, height)):
        assert corners[:, axis].min() == pytest.approx(known.min(), abs=1e-6)
        assert corners[:, axis].max() == pytest.approx(known.max(), abs=1e-6)


def test_roads_come_with_the_city(plateau: Path, osaka: City) -> None:
    paths = sorted((plateau / "citygml/osaka/udx/tran").glob("*.gz"))
    count = sum(len(re.findall(r"<tran:Road ", text_of(p))) for p in paths)
    assert osaka.report.roads == count == 1824
    assert 0.5e6 < area_m2(osaka.roads.triangles) < 3e6
    assert osaka.report.buildings == 2275 and "road" not in osaka.feature_kinds
    reach = np.abs(osaka.roads.triangles.mean(axis=1)).max(axis=0)
    assert (reach < np.array(osaka.bounds_xy[2:]) + 400).all()


def test_several_inputs_are_one_city(plateau: Path, osaka: City) -> None:
    folder = plateau / "citygml/osaka/udx/bldg"
    files = [folder / f"5135734{n}_bldg_6697_op.gml.gz" for n in (2, 3)]
    city = read_city([*files, files[0]])
    assert city.report.buildings == 114 + 91 and city.report.duplicates == 0
    assert {s.name for s in city.sources} == {f.name for f in files}
    assert set(city.feature_ids) < set(osaka.feature_ids)


def test_a_building_in_two_files_is_taken_once(tmp_path: Path) -> None:
    write_members(tmp_path / "a.gml", gml_member(solid(5), "same"), gml_member(solid(5), None))
    write_members(tmp_path / "b.gml", gml_member(solid(5.001), "same"))
    city = read_city([tmp_path])
    assert len(city.feature_ids) == 2 and city.report.duplicates == 1
    write_members(tmp_path / "a.gml", gml_member(solid(5), "same"), gml_member(solid(5), "same"))
    assert read_city([tmp_path]).feature_ids == ["same"]


def test_the_finer_of_two_files_is_taken(tmp_path: Path) -> None:
    fine = f"<bldg:boundedBy><bldg:RoofSurface><bldg:lod2MultiSurface>{polygon(9)}" \
           "</bldg:lod2MultiSurface></bldg:RoofSurface></bldg:boundedBy>"  # fmt: skip
    write_members(tmp_path / "a.gml", gml_member(solid(5), "one"))
    write_members(tmp_path / "b.gml", gml_member(fine, "one"))
    city = read_city([tmp_path])
    assert city.report.lod2 == 1 and city.report.superseded == 1
    assert set(city.mesh.vertices[:, 2]) == {9.0}


def test_terrain_is_never_a_bridge_deck(tmp_path: Path) -> None:
    deck = f"<brid:lod2MultiSurface>{polygon(40)}</brid:lod2MultiSurface>"
    write_members(
        tmp_path / "a.gml",
        gml_member(solid(3), "b"),
        gml_member(deck, "bridge", "brid:Bridge"),
    )
    city = read_city([tmp_path])
    assert sorted(city.feature_kinds) == ["bridge", "building"]
    assert np.ptp(city.terrain.heights) == 0.0 and city.terrain.heights[0, 0] == 3.0


def test_missing_and_empty_folders_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read_city([tmp_path / "absent"])
    with pytest.raises(DataError, match=r"no city model here.*\.obj.*\.gml.*\.zip"):
        read_city([tmp_path])
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="no city model here"):
        read_city([tmp_path / "a.txt"])


def test_a_file_without_buildings_is_said(plateau: Path, tmp_path: Path) -> None:
    udx = plateau / "citygml/tokyo23ku/PLATEAU-SDK-for-Unity/TestDataTokyoMini/udx"
    with pytest.raises(DataError, match="hold no buildings"):
        read_city([udx / "luse"])
    with pytest.raises(DataError, match="no building"):
        read_city([udx / "dem"])
    with pytest.raises(DataError, match="no building"):
        read_city([udx / "tran"])
    write_members(tmp_path / "empty.gml")
    with pytest.raises(DataError, match="no building"):
        read_city([tmp_path])


def test_files_that_are_not_read_are_named(plateau: Path) -> None:
    folder = plateau / "citygml/tokyo23ku/PLATEAU-SDK-for-Unity/TestDataTokyoMini"
    city = read_city([folder])
    assert "not read: 3 files of urf" in city.report.notes
    assert (city.report.buildings, city.report.bridges, city.report.roads) == (3, 21, 9)


def test_a_broken_feature_is_left_out_and_named(tmp_path: Path) -> None:
    bad = solid(5).replace("139.76", "NaN", 1)
    with pytest.raises(DataError, match=r"no building.*1 features were left out, the first b0"):
        read_city([write_gml(tmp_path / "a.gml", bad)])
    none = "<bldg:measuredHeight>-9999</bldg:measuredHeight>"
    path = write_gml(tmp_path / "a.gml", solid(5), bad, none, solid(-9999), solid(5))
    city = read_city([path])
    assert city.feature_ids == ["b0", "b4"]
    reasons = {feature: reason for _, feature, reason in city.report.skipped}
    assert "finite" in reasons["b1"] and "LOD1" in reasons["b2"] and "-9999" in reasons["b3"]
    with pytest.raises(DataError, match="b1"):
        read_city([path], strict=True)


def test_attribution_and_name(tmp_path: Path, plateau: Path) -> None:
    official = tmp_path / "20202_matsumoto-shi_2020_citygml_5_op/udx/bldg"
    write_gml(official / "a_bldg.gml", solid(5))
    city = read_city([tmp_path])
    assert city.attribution == (
        "3D都市モデル（Project PLATEAU）matsumoto-shi（国土交通省）, CC BY 4.0"
    )
    assert city.name == tmp_path.name and not city.procedural

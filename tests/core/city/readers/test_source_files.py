"""Archives as they are downloaded, and what their names say."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.core.city.gml_text import solid, write_gml
from tests.core.city.readers.test_obj import cube
from vlwm.core.city.city import City
from vlwm.core.city.read import read_city
from vlwm.core.city.readers.source_files import Folder, Source, find_sources
from vlwm.core.errors import DataError


def pack(target: Path, folder: Path, top: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, top + path.relative_to(folder).as_posix())
    return target


@pytest.mark.parametrize(
    ("member", "kind", "lod", "mesh"),
    [
        ("udx/bldg/53394611_bldg_6697_2_op.gml", "bldg", None, "53394611"),
        ("udx/dem/533925_dem_6697_05_op.gml", "dem", None, "533925"),
        ("udx/frn/53394525_frn_6697_sjkms_op.gml", "frn", None, "53394525"),
        (
            "x_obj_3_op/bldg/lod2/53394515_bldg_6677_obj/53394515_bldg_6677.obj",
            "bldg",
            2,
            "53394515",
        ),
        ("bldg/lod1/533926434_bldg_6677.obj", "bldg", 1, "533926434"),
        ("brid/53394525_brid_6677.obj", "brid", None, "53394525"),
        ("Issue32_13101-bldg-365.gml", "bldg", None, None),
        ("tokyo_-10_-69_bldg_6677.obj", "bldg", None, None),
        ("B_hotel.obj", None, None, None),
    ],
)
def test_names_say_what_a_file_holds(
    member: str, kind: str | None, lod: int | None, mesh: str | None
) -> None:
    source = Source(Folder(Path(".")), member)
    assert (source.kind, source.lod, source.mesh) == (kind, lod, mesh)


def test_a_zip_of_citygml_is_the_folder(plateau: Path, tmp_path: Path, osaka: City) -> None:
    path = tmp_path / "27100_osaka-shi_2022_citygml_op.zip"
    city = read_city([pack(path, plateau / "citygml/osaka", "27100_osaka-shi_2022_citygml_op/")])
    np.testing.assert_array_equal(city.mesh.vertices, osaka.mesh.vertices)
    assert city.feature_ids == osaka.feature_ids and len(city.roads) == len(osaka.roads)
    assert [s.name for s in city.sources] == [path.name]
    assert "osaka-shi（国土交通省）" in city.attribution
    assert city.name == "27100_osaka-shi_2022_citygml_op"


def test_a_zip_of_obj_is_the_folder(plateau: Path, tmp_path: Path) -> None:
    tiles = sorted((plateau / "tokyo_marunouchi_obj").glob("*_-9_*.obj"))
    folder = tmp_path / "loose"
    folder.mkdir()
    for tile in tiles:
        (folder / tile.name).write_bytes(tile.read_bytes())
    packed = tmp_path / "packed"
    packed.mkdir()
    pack(packed / "a.zip", folder, "13100_tokyo23-ku_2020_obj_3_op/bldg/lod1/")
    loose, zipped = read_city([folder]), read_city([packed])
    np.testing.assert_array_equal(loose.mesh.vertices, zipped.mesh.vertices)
    assert "tokyo23-ku" in zipped.attribution


def test_an_official_obj_archive_has_bridges_and_relief(tmp_path: Path) -> None:
    folder = tmp_path / "13100_tokyo23-ku_2020_obj_3_op"
    ground = "v -500 -500 0\nv 500 -500 0\nv 500 500 10\nv -500 500 10\nf 1 2 3\nf 1 3 4\n"
    for name, text in (
        ("bldg/lod1/53394611_bldg_6677.obj", cube(0, 30)),
        ("brid/53394611_brid_6677.obj", cube(60, 8)),
        ("dem/53394611_dem_6677.obj", ground),
    ):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
    city = read_city([pack(tmp_path / "t.zip", folder)])
    assert (city.report.buildings, city.report.bridges) == (1, 1)
    assert city.report.ground.startswith("relief, 100 %")
    assert float(city.terrain.height([0.0, 0.0])) == pytest.approx(5.0, abs=0.2)


def test_a_folder_with_loose_files_does_not_open_its_archives(tmp_path: Path) -> None:
    write_gml(tmp_path / "a.gml", solid(5))
    (tmp_path / "b.zip").write_bytes(b"nothing")
    assert len(find_sources([tmp_path])[0]) == 1


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    write_gml(tmp_path / "in/a.gml", *([solid(5)] * 200))
    whole = pack(tmp_path / "a.zip", tmp_path / "in").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"archive is damaged.*cut\.zip"):
        read_city([tmp_path / "cut.zip"])
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    (tmp_path / "flipped.zip").write_bytes(flipped)
    with pytest.raises(DataError, match=r"flipped\.zip"):
        read_city([tmp_path / "flipped.zip"])


def test_an_archive_without_models_and_foreign_entries(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("__MACOSX/a.gml", "x")
        archive.writestr("readme.txt", "x")
    with pytest.raises(DataError, match="no city model here"):
        read_city([tmp_path / "a.zip"])
    (tmp_path / "b.7z").write_bytes(b"7z")
    with pytest.raises(DataError, match="no city model here"):
        read_city([tmp_path / "b.7z"])

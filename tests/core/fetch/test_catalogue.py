"""The catalogue is checked, selections are what the guide says, PLATEAU's answer is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlwm.core.errors import DataError, UsageError
from vlwm.core.fetch.catalogue import Selection, read_catalogue, select
from vlwm.core.fetch.plateau import ask_plateau, plateau_entries


def names(wanted: Selection) -> list[str]:
    return [e.name for e in select(read_catalogue(), wanted)]


def test_the_guides_default() -> None:
    entries = {e.name: e for e in select(read_catalogue(), Selection())}
    assert set(entries) == {"tokyo23ku-obj-2020", "occworld-weights"}
    obj, weights = entries["tokyo23ku-obj-2020"], entries["occworld-weights"]
    assert obj.path(Path("data")).parent == Path("data/plateau/meshes/obj")
    assert weights.path(Path("data")) == Path("pretrained/occworld/latest.pth")


def test_groups_and_formats() -> None:
    assert names(Selection(groups=("plateau",))) == ["tokyo23ku-obj-2020"]
    assert names(Selection(groups=("plateau",), format="citygml")) == ["tokyo23ku-citygml-2020"]
    assert "nuscenes-mini" in names(Selection(groups=("nuscenes",)))
    everything = names(Selection(everything=True))
    assert "nuscenes-trainval" not in everything and "uavscenes-cam-lidar" in everything


def write(path: Path, **changes: Any) -> Path:
    entry = {"name": "a", "group": "g", "url": "https://x/y", "file": "y", "bytes": 1,
             "sha256": None, "licence": "CC0"}  # fmt: skip
    path.write_text(json.dumps([{**entry, **changes}]))
    return path


def test_another_catalogue_of_the_same_form(tmp_path: Path) -> None:
    (entry,) = read_catalogue(write(tmp_path / "c.json"))
    assert (entry.name, entry.size, entry.path(Path("d"))) == ("a", 1, Path("d/y"))
    assert select([entry], Selection()) == [entry]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file": "../y"}, "leads out"),
        ({"file": "/y"}, "leads out"),
        ({"sha256": "abc"}, "64 hexadecimal"),
        ({"url": "file:///etc/passwd"}, "http"),
        ({"licnce": "x"}, "did you mean licence"),
    ],
)
def test_a_bad_entry_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_catalogue(write(tmp_path / "c.json", **changes))


def test_an_empty_selection_says_what_there_is() -> None:
    entries = [e for e in read_catalogue() if e.group == "models"]
    with pytest.raises(UsageError, match="it has models"):
        select(entries, Selection(groups=("midair",)))


ANSWER = {
    "datasets": [
        {"ward_code": "13101", "city_code": "13100", "type_en": "bldg", "format": "3D Tiles",
         "lod": "1", "year": 2023, "url": "https://h/a/tileset.json", "texture": False},
        {"ward_code": "13101", "city_code": "13100", "type_en": "bldg", "format": "3D Tiles",
         "lod": "2", "year": 2023, "url": "https://h/b/tileset.json", "texture": True},
        {"ward_code": "13101", "city_code": "13100", "type_en": "bldg", "format": "3D Tiles",
         "lod": "2", "year": 2023, "url": "https://h/c/tileset.json", "texture": False},
        {"ward_code": "13101", "type_en": "tran", "format": "MVT", "url": "https://h/d"},
    ],
    "citygml": [
        {"city_code": "13101", "year": 2022, "url": "https://h/old.zip"},
        {"city_code": "13101", "year": 2023, "url": "https://h/new.zip", "file_size": 7},
    ],
}  # fmt: skip


def test_plateau_takes_the_newest_and_finest() -> None:
    (tiles,), _ = plateau_entries(["13101"], "3dtiles", ANSWER)
    assert tiles.url == "https://h/c/tileset.json"
    assert tiles.file == "plateau/3dtiles/13101/tileset.json"
    (gml,), missing = plateau_entries(["13101"], "citygml", ANSWER)
    assert (gml.url, gml.size) == ("https://h/new.zip", 7)
    assert plateau_entries(["99999"], "citygml", ANSWER) == ([], ["99999"])
    assert missing == []


def test_plateaus_etag_saves_the_answer(site: Any, tmp_path: Path) -> None:
    site.body = json.dumps(ANSWER).encode()
    cache = tmp_path / "c.json"
    assert ask_plateau(cache, site.url + "/x") == ANSWER
    assert json.loads(cache.read_text())["etag"] == site.tag()
    site.faults = [type("F", (), {"kind": "status", "at": 304, "value": ""})()]
    assert ask_plateau(cache, site.url + "/x") == ANSWER
    assert site.requests[1]["If-None-Match"] == site.tag()
    site.faults = [type("F", (), {"kind": "status", "at": 500, "value": ""})()]
    assert ask_plateau(cache, site.url + "/x") == ANSWER
    site.faults = [type("F", (), {"kind": "status", "at": 500, "value": ""})()]
    with pytest.raises(DataError, match="does not answer"):
        ask_plateau(tmp_path / "none.json", site.url + "/x")

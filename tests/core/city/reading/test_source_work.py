"""Files read by workers make the city that one process makes, bit for bit."""

from __future__ import annotations

import os
import signal
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import pytest

from tests.core.city.gml_text import member, polygon, solid, write_members
from tests.core.city.tiling.test_tiled_city import same
from tests.core.evaluation.tiny_run import ElsewhereEngine
from vlwm.core.city import read
from vlwm.core.city.city import City
from vlwm.core.city.read import read_city
from vlwm.core.city.readers.obj import Options
from vlwm.core.city.readers.obj_axes import Axes
from vlwm.core.city.readers.source_files import find_sources
from vlwm.core.city.reading import source_work
from vlwm.core.errors import DataError, MachineError
from vlwm.core.geometry.mapped_arrays import Scratch


def equal(one: City, other: City) -> None:
    for field in (f for f in fields(City) if f.name != "scratch"):
        same(getattr(one, field.name), getattr(other, field.name))


def many_files(folder: Path) -> Path:
    """Duplicates, two levels of detail, broken features and relief-like names, in nine files."""
    folder.mkdir()
    fine = f"<bldg:boundedBy><bldg:RoofSurface><bldg:lod2MultiSurface>{polygon(9)}" \
           "</bldg:lod2MultiSurface></bldg:RoofSurface></bldg:boundedBy>"  # fmt: skip
    for k in range(9):
        body = fine if k in (3, 7) else solid(5 + k / 1000)
        write_members(
            folder / f"{k}.gml",
            member(body, "same"),
            member(solid(4, low=20 * k, high=20 * k + 10), f"own{k}"),
            member("<bldg:lod1Solid/>", f"empty{k}"),
        )
    return folder


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_change_nothing(tmp_path: Path, workers: int) -> None:
    folder = many_files(tmp_path / "in")
    one = read_city([folder])
    assert one.report.superseded and one.report.duplicates and one.report.skipped
    other = read_city([folder], workers=workers, scratch=Scratch(tmp_path))
    equal(one, other)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("place", ["citygml/osaka", "tokyo_marunouchi_obj"])
def test_real_cities_from_two_workers(
    plateau: Path, place: str, request: pytest.FixtureRequest
) -> None:
    name = {"citygml/osaka": "osaka", "tokyo_marunouchi_obj": "marunouchi"}[place]
    equal(request.getfixturevalue(name), read_city([plateau / place], workers=2))


def test_what_an_earlier_file_settles_is_settled_for_the_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's guess of the axes is wrong: the file is read again, and the city is the same."""
    folder = many_files(tmp_path / "in")
    one = read_city([folder])
    real, again = source_work.SourceWork.__call__, list[int]()

    def other_axes(self: source_work.SourceWork, item: source_work.Item) -> source_work.SourceRead:
        found = real(self, item)
        axes = Axes(up="y") if item[0] == 4 else found.remarks.axes
        return replace(found, remarks=replace(found.remarks, axes=axes))

    here = read._Reader._read

    def counted(self: read._Reader, source: read.Source, done: int, total: int) -> None:
        again.append(done)
        here(self, source, done, total)

    monkeypatch.setattr(source_work.SourceWork, "__call__", other_axes)
    monkeypatch.setattr(read._Reader, "_read", counted)
    equal(one, read_city([folder], workers=2))
    assert again == [5, 6, 7, 8]  # after file 4 the guess is wrong


def test_the_first_file_is_read_by_a_worker_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: of two large files the first is read alone, so that a second worker gains nothing."""
    folder, here = many_files(tmp_path / "in"), list[int]()
    monkeypatch.setattr(read._Reader, "_read", lambda self, source, done, total: here.append(done))
    read_city([folder], workers=2)
    assert here == []


@pytest.mark.parametrize("first", ["<CityModel><broken", "", "<html>"])
def test_a_first_file_that_is_broken_is_told_in_its_turn(tmp_path: Path, first: str) -> None:
    folder = many_files(tmp_path / "in")
    (folder / "0.gml").write_text(first)
    texts = []
    for workers in (1, 2):
        with pytest.raises(DataError) as raised:
            read_city([folder], workers=workers)
        texts.append(str(raised.value))
    assert texts[0] == texts[1] and "0.gml" in texts[0]


def test_the_error_is_that_of_the_first_broken_file(tmp_path: Path) -> None:
    folder = many_files(tmp_path / "in")
    for k in (4, 6):
        (folder / f"{k}.gml").write_text("<CityModel><broken")
    texts = []
    for workers in (1, 2):
        with pytest.raises(DataError) as raised:
            read_city([folder], workers=workers, scratch=Scratch(tmp_path))
        texts.append(str(raised.value))
    assert texts[0] == texts[1] and "4.gml" in texts[0]
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_an_error_travels_without_its_cause(tmp_path: Path) -> None:
    """Fault: lxml's own error as the cause, which no process can pickle."""
    folder = many_files(tmp_path / "in")
    (folder / "0.gml").write_text("<CityModel><broken")
    sources, _ = find_sources([folder])
    before = source_work.Settled("EPSG:6677", False, Axes())
    kept = source_work.FolderPieces(tmp_path)
    found = source_work.SourceWork(before, Options(), kept)((0, sources[0]))
    assert isinstance(found.error, DataError) and found.error.__cause__ is None
    with pytest.raises(DataError, match=r"0\.gml"):
        list(found.batches(kept))


def test_what_is_read_elsewhere_goes_through_a_store(tmp_path: Path) -> None:
    """The work and a file inside an archive travel by pickle; nothing is left in the store."""
    folder, packed = many_files(tmp_path / "in"), tmp_path / "in.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    store = tmp_path / "store"
    store.mkdir()
    read_there = read_city([packed], engine=ElsewhereEngine(), pieces_url=store.as_uri())
    equal(read_city([packed]), read_there)
    assert not list(store.iterdir())


def test_a_worker_that_lacks_a_file_says_so(tmp_path: Path) -> None:
    folder, store = many_files(tmp_path / "in"), tmp_path / "store"
    store.mkdir()

    class OnAnotherMachine(ElsewhereEngine):
        def run(self, function: object, items: object) -> object:
            folder.rename(tmp_path / "not here")
            yield from super().run(function, items)

    with pytest.raises(DataError, match="a worker does not see this file of the city"):
        read_city([folder], engine=OnAnotherMachine(), pieces_url=store.as_uri())
    assert not list(store.iterdir())


def test_a_killed_worker_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, parent = many_files(tmp_path / "in"), os.getpid()
    real = source_work.read_source

    def dies(*args: object) -> object:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)

    monkeypatch.setattr(source_work, "read_source", dies)
    with pytest.raises(MachineError, match="worker processes was killed"):
        read_city([folder], workers=2)

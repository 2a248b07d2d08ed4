"""A large city is read once: the next `vlwm prepare` reads the tiles of the first."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.core.city.gml_text import member, solid, write_members
from tests.core.city.reading.test_source_work import equal
from vlwm.commands.shared import city as shared
from vlwm.core.city import read
from vlwm.core.city.city import City
from vlwm.core.config.load import load_config


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    for k in range(2):
        write_members(tmp_path / f"in/{k}.gml", member(solid(5, low=20 * k, high=20 * k + 10), "b"))
    return tmp_path / "in"


def read_it(inputs: Path, keep: Path, **more: str) -> City:
    config = load_config("tokyo_small")
    return shared.read_input(config, [inputs], 42, False, None, keep=keep, **more)


@pytest.fixture
def times_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found, real = list[int](), read.read_city

    def counted(*args: object, **more: object) -> City:
        found.append(1)
        return real(*args, **more)

    monkeypatch.setattr(read, "read_city", counted)
    monkeypatch.setattr(shared, "_LARGE_BYTES", 0)
    return found


def test_the_second_time_the_tiles_are_read(
    inputs: Path, tmp_path: Path, times_read: list[int]
) -> None:
    keep = tmp_path / "derived/city"
    first = read_it(inputs, keep)
    equal(first, read_it(inputs, keep))
    assert len(times_read) == 1


def test_changed_files_options_and_damage_are_read_again(
    inputs: Path, tmp_path: Path, times_read: list[int]
) -> None:
    keep = tmp_path / "derived/city"
    read_it(inputs, keep)
    read_it(inputs, keep, up="z")
    write_members(inputs / "0.gml", member(solid(9), "b"))
    changed = read_it(inputs, keep, up="z")
    assert changed.triangles[:, :, 2].max() == 9
    next(keep.glob("tile_*.city")).write_bytes(b"cut")
    equal(changed, read_it(inputs, keep, up="z"))
    assert len(times_read) == 4


def test_a_city_that_is_read_in_seconds_leaves_no_tiles(inputs: Path, tmp_path: Path) -> None:
    read_it(inputs, tmp_path / "derived/city")
    assert not (tmp_path / "derived").exists()


def test_a_file_that_takes_long_is_named_again_and_a_quick_one_never(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with shared._Steps(quiet_s=0.05) as steps:
        steps("reading a.gml", 0, 3)
        until = time.monotonic() + 5
        told = ""
        while told.count("\n") < 2 and time.monotonic() < until:
            time.sleep(0.02)
            told += capsys.readouterr().err
    for line in told.splitlines()[:2]:
        assert re.fullmatch(r"reading a\.gml \(0 of 3 files done\), \d+ s so far", line), line
    time.sleep(0.2)
    capsys.readouterr()
    with shared._Steps() as steps:
        steps("reading b.gml", 0, 1)
    time.sleep(0.2)
    assert capsys.readouterr().err == ""

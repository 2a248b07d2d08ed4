"""Whatever a city file holds, reading it ends soon: with a city or with one sentence."""

from __future__ import annotations

import json
import random
import resource
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.core.city.gml_text import solid, write_gml
from tests.core.city.hostile import READERS
from vlwm.core.city.read import read_city
from vlwm.core.errors import VlwmError

_SECONDS = 20
_MEMORY_BYTES = 8 << 30


@contextmanager
def limited() -> Iterator[None]:
    """Stop whatever runs longer than `_SECONDS`, and what takes more memory than there is."""

    def late(signum: int, frame: object) -> None:
        raise TimeoutError(f"longer than {_SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, limits[1]))
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def read_hostile(reader: str, seed: int, folder: Path) -> None:
    """Write one forged input and read it; anything but a city or a sentence is an error here."""
    folder.mkdir()
    READERS[reader](folder, random.Random(f"{reader} {seed}"))
    with limited(), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            read_city([folder])
        except VlwmError as error:
            text = str(error)
            assert "\n" not in text and not set(text) & {chr(c) for c in range(32)}, repr(text)


@pytest.mark.parametrize("reader", READERS)
def test_forged_files_end_in_a_city_or_a_sentence(reader: str, tmp_path: Path) -> None:
    for seed in range(25):
        read_hostile(reader, seed, tmp_path / str(seed))


@pytest.mark.endurance
@pytest.mark.parametrize("reader", READERS)
def test_a_thousand_forged_files(
    reader: str, tmp_path: Path, seeds_of: Callable[[int], range]
) -> None:
    for seed in seeds_of(1000):
        read_hostile(reader, seed, tmp_path / str(seed))


@pytest.mark.parametrize("depth", [100, 100_000])
def test_json_of_any_depth_is_a_sentence(tmp_path: Path, depth: int) -> None:
    text = '{"root": ' + '{"children": [' * depth + "{}" + "]}" * depth + "}"
    (tmp_path / "tileset.json").write_text(text)
    with limited(), pytest.raises(VlwmError):
        read_city([tmp_path])


@pytest.mark.parametrize(
    "uri", ["a\x00.b3dm", "a" * 300 + ".b3dm", "\ud800.b3dm", "%00", "\x1b[2J"]
)
def test_names_that_no_file_can_have_are_missing_tiles(tmp_path: Path, uri: str) -> None:
    (tmp_path / "tileset.json").write_text(json.dumps({"root": {"content": {"uri": uri}}}))
    with pytest.raises(VlwmError, match="1 of 1 leaf tiles are not here") as caught:
        read_city([tmp_path])
    str(caught.value).encode()
    assert not set(str(caught.value)) & {"\x00", "\x1b"}


def test_control_characters_in_names_reach_no_message(tmp_path: Path) -> None:
    body = solid(5).replace("139.76", "NaN", 1)
    path = write_gml(tmp_path / "a.gml", body)
    path.write_text(path.read_text().replace('gml:id="b0"', 'gml:id="&#x9b;2J\u202e"'))
    with pytest.raises(VlwmError) as caught:
        read_city([path])
    assert "\x9b" not in str(caught.value) and "\\x9b2J\\u202e" in str(caught.value)

"""The check on twenty made sessions: silent where clean, faults are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.check_sessions import CELLS, CLEAN, FAULTS, measure, straight, turning

pytestmark = pytest.mark.endurance
COUNT = 20
SEEDS = (7, 4207)
"""of cities and flights; others than those that the choice of pairs was tried on (107)"""


@pytest.fixture(scope="module", params=SEEDS, ids=str)
def paths(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    found = turning(tmp_path_factory.mktemp("many"), COUNT, request.param)
    assert len(found) == COUNT
    return found


def test_twenty_clean_sessions_are_silent(paths: list[Path]) -> None:
    assert measure(paths, CELLS, [CLEAN])[CLEAN] == {"silent": COUNT}
    assert straight(paths[0], CELLS)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_in_nineteen_of_twenty_sessions(paths: list[Path], name: str) -> None:
    table = measure(paths, CELLS, [name])
    assert table[name]["found"] >= COUNT - 1, table

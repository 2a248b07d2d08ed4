"""The check on twenty made sessions and on the real ones: silent where clean, faults are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.check_sessions import CELLS, measure, real, straight, turning

pytestmark = pytest.mark.endurance
COUNT = 20


def test_faults_of_twenty_sessions_are_named_and_clean_ones_are_silent(tmp_path: Path) -> None:
    paths = turning(tmp_path, COUNT)
    assert len(paths) == COUNT
    table = measure(paths, CELLS)
    assert table.pop("clean") == {"silent": COUNT}
    # one in twenty may be missed; on 2026-11-29 the lidar-pose delay was found in 18, so this fails
    rare = {name: dict(counts) for name, counts in table.items() if counts["found"] < COUNT - 1}
    assert not rare, rare
    assert straight(paths[0], CELLS)


def test_clean_real_sessions_are_silent(shared_data: Path) -> None:
    found = real(shared_data)
    print(found)
    assert all(": silent" in words for words in found.values()), found

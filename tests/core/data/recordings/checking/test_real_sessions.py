"""The check on real sessions: silent where clean, and each fault that their motion can show."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.check_sessions import CLEAN, FAULTS, REAL, real

WITHOUT_MOTION = {"extrinsic no rotation"}
SHOWN = {
    "kitti": {"flipped axis", "w-first quaternion", "time in the wrong unit"},
    "argoverse2": {"w-first quaternion"},  # two frames
    "tartanair": {"time in the wrong unit"},
}
"""what shows in six scans of a straight street, two sweeps at rest, and ten pictures of a corner"""


@pytest.fixture(scope="module")
def found(shared_data: Path) -> dict[str, dict[str, str]]:
    return real(shared_data)


@pytest.mark.parametrize("name", REAL)
def test_a_clean_session_is_silent(found: dict[str, dict[str, str]], name: str) -> None:
    assert ": silent" in found[name][CLEAN]


@pytest.mark.parametrize("name", REAL)
def test_a_fault_is_found_or_the_check_cannot_tell(
    found: dict[str, dict[str, str]], name: str
) -> None:
    words = {fault: found[name][fault] for fault in FAULTS}
    assert {fault for fault, word in words.items() if word == "found"} >= SHOWN[name] | (
        WITHOUT_MOTION
    )
    assert set(words.values()) <= {"found", "cannot tell"}, words

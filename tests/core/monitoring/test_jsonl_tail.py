"""A growing file is followed line by line, through cuts, replacement and damage."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vlwm.core.monitoring.jsonl_tail import LineFollower


def lines(*steps: int) -> bytes:
    return b"".join(json.dumps({"step": s, "pad": "x" * 40}).encode() + b"\n" for s in steps)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def steps(follower: LineFollower) -> tuple[list[int], bool]:
    news = follower.read()
    return [r["step"] for r in news.records], news.restarted


def test_lines_come_once_and_whole(path: Path) -> None:
    follower = LineFollower(path)
    assert steps(follower) == ([], False)
    path.write_bytes(lines(1, 2) + lines(3)[:10])
    assert steps(follower) == ([1, 2], False)
    path.write_bytes(lines(1, 2, 3, 4))
    assert steps(follower) == ([3, 4], False)
    assert steps(follower) == ([], False)


def test_a_cut_file_is_read_again(path: Path) -> None:
    follower = LineFollower(path)
    path.write_bytes(lines(*range(10)))
    follower.read()
    os.truncate(path, len(lines(0, 1, 2)))
    assert steps(follower) == ([0, 1, 2], True)


def test_a_cut_file_that_grew_past_the_old_place_is_noticed(path: Path) -> None:
    follower = LineFollower(path)
    path.write_bytes(lines(*range(10)))
    follower.read()
    path.write_bytes(lines(0, 1, *range(20, 60)))
    assert steps(follower) == ([0, 1, *range(20, 60)], True)


def test_a_removed_file_is_forgotten(path: Path) -> None:
    follower = LineFollower(path)
    path.write_bytes(lines(1))
    follower.read()
    path.unlink()
    assert steps(follower) == ([], True)
    assert steps(follower) == ([], False)
    path.write_bytes(lines(7))
    assert steps(follower) == ([7], False)


def test_damaged_lines_are_passed_over_and_counted(path: Path) -> None:
    follower = LineFollower(path)
    path.write_bytes(
        lines(1) + b'{"step": 2\n\x00\xff\n[3]\n\n' + b"[" * 100_000 + b"\n" + lines(4)
    )
    assert steps(follower) == ([1, 4], False)
    assert follower.damaged == 4

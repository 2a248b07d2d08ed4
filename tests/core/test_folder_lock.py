"""Two processes never work in one folder; a lock whose owner has ended holds nobody up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vlwm.core.errors import UsageError
from vlwm.core.folder_lock import LOCK_FILE, folder_lock


def hold(folder: Path, stale_s: float = 20.0) -> list[str]:
    said: list[str] = []
    with folder_lock(folder, "vlwm train", said.append, stale_s=stale_s):
        assert (folder / LOCK_FILE).exists()
    assert not list(folder.glob("*"))
    return said


def test_a_second_process_is_refused_and_told_who_works_there(tmp_path: Path) -> None:
    with (
        folder_lock(tmp_path, "vlwm train", print),
        pytest.raises(UsageError, match=rf"vlwm train \(process {os.getpid()} on .* is working"),
        folder_lock(tmp_path, "vlwm train", print),
    ):
        raise AssertionError("two at work")
    assert hold(tmp_path) == [] and hold(tmp_path / "new") == []
    assert not list(tmp_path.iterdir())


def owner_of(folder: Path) -> dict[str, object]:
    with folder_lock(folder, "vlwm train", print):
        return dict(json.loads((folder / LOCK_FILE).read_text()))


def test_a_killed_owner_is_taken_over_at_once_with_a_word(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                           capture_output=True, text=True, check=True)  # fmt: skip
    owner = owner_of(tmp_path) | {"pid": int(child.stdout)}
    (tmp_path / LOCK_FILE).write_text(json.dumps(owner))
    (sentence,) = hold(tmp_path)
    assert "taking over from process" in sentence


def test_a_killed_owner_that_nobody_asked_for_is_not_at_work(tmp_path: Path) -> None:
    """In a container without an init, what ended stays in the process table as a zombie."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    words = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    owner = owner_of(tmp_path) | {"pid": child.pid, "started": words[19]}
    (tmp_path / LOCK_FILE).write_text(json.dumps(owner))
    with pytest.raises(UsageError, match="is working"):
        hold(tmp_path)
    child.kill()
    while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert "taking over" in hold(tmp_path)[0]
    child.wait()


def test_a_process_number_given_again_is_not_the_owner(tmp_path: Path) -> None:
    owner = owner_of(tmp_path) | {"started": "1"}
    (tmp_path / LOCK_FILE).write_text(json.dumps(owner))
    assert "taking over" in hold(tmp_path)[0]


@pytest.mark.parametrize("change", [{"machine": "another container"}, {"pid": None}, None])
def test_elsewhere_only_the_heartbeat_answers(
    tmp_path: Path, change: dict[str, object] | None
) -> None:
    """As after a container restart: the same host and process number, another process table."""
    path, owner = tmp_path / LOCK_FILE, owner_of(tmp_path)
    path.write_text("{" if change is None else json.dumps(owner | change))
    said = hold(tmp_path, stale_s=0.6)
    assert "waiting" in said[0] and "taking over" in said[1]
    path.write_text(json.dumps(owner | {"machine": "another"}))
    beating = subprocess.Popen([sys.executable, "-c", "import os, sys, time\n"
        "for _ in range(100): os.utime(sys.argv[1]); time.sleep(0.1)", str(path)])  # fmt: skip
    try:
        time.sleep(0.3)
        with pytest.raises(UsageError, match="is working in this folder"):
            hold(tmp_path, stale_s=5.0)
    finally:
        beating.kill()
        beating.wait()

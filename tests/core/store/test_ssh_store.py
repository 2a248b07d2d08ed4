"""A folder of another machine by rsync: whole files, lost connections, and no surprises in names.

A stand-in for ssh on PATH runs the commands on this machine; rsync is the real one.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from tests.core.store.test_backup import a_run, checkpoint, content
from vlwm.core.errors import DataError, MachineError, UsageError
from vlwm.core.store.backup import Backup, restore
from vlwm.core.store.backup_thread import backed_up
from vlwm.core.store.objects import open_store
from vlwm.core.store.ssh_store import SshStore

STAND_IN = """#!/bin/sh
echo "$*" >> "$SSH_LOG"
if [ -s "$SSH_FAULTS" ]; then   # a lost connection for each line
    sed -i 1d "$SSH_FAULTS"; echo "Connection reset by peer" >&2; exit 255
fi
while [ $# -gt 0 ]; do
    case "$1" in -o|-p|-l) shift 2;; -*) shift;; *) break;; esac
done
shift   # the host
cd / && exec sh -c "$*"
"""


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder "on the other machine"; its stand-in for ssh is first on PATH."""
    if shutil.which("rsync") is None:
        pytest.skip("rsync is not installed here")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "ssh").write_text(STAND_IN)
    (tools / "ssh").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SSH_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("SSH_FAULTS", str(tmp_path / "faults"))
    return tmp_path / "far away's $HOME"


def store_of(folder: Path) -> SshStore:
    return SshStore(f"ssh://me@box:2222{folder}", sleep=lambda s: None)


def test_objects_come_and_go(far: Path, tmp_path: Path) -> None:
    store = store_of(far)
    assert store.list() == {} and store.read("a") is None and store.sha256("a") is None
    store.write("a'b c.json", b"\0\n{}")
    (tmp_path / "big").write_bytes(os.urandom(300_000))
    store.write_file("big.part", tmp_path / "big")
    assert {n: e.size for n, e in store.list().items()} == {"a'b c.json": 4, "big.part": 300_000}
    assert store.read("a'b c.json") == b"\0\n{}"
    assert store.read_file("big.part", tmp_path / "back") == store.sha256("big.part")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "big").read_bytes()
    with pytest.raises(DataError, match="gone"):
        store.read_file("none", tmp_path / "none")
    store.delete("big.part")
    store.delete("big.part")
    assert list(store.list()) == ["a'b c.json"]
    log = (tmp_path / "log").read_text()
    assert "-p 2222" in log and "BatchMode=yes" in log and "me@box" in log


def test_the_box_and_its_disk_are_lost(far: Path, tmp_path: Path) -> None:
    run, url = a_run(tmp_path / "run"), f"ssh://box{far}".replace("'", "%27").replace(" ", "%20")
    with backed_up(run, url):
        checkpoint(run, "last.pth", "second")
    before = content(run)
    shutil.rmtree(run)
    restore(url, tmp_path / "again")
    assert content(tmp_path / "again") == before and before["last.pth"] == b"second"


def test_a_lost_connection_is_tried_again_and_then_a_sentence(far: Path, tmp_path: Path) -> None:
    store, faults = store_of(far), tmp_path / "faults"
    faults.write_text("x\n" * 3)
    store.write("a", b"1")
    assert store.read("a") == b"1"
    faults.write_text("x\n" * 9)
    with pytest.raises(MachineError, match="Connection reset by peer") as raised:
        store.write("a", b"2")
    assert "ssh me@box true" in str(raised.value) and "\n" not in str(raised.value)
    faults.write_text("")
    assert store.read("a") == b"1"


def test_a_cut_file_is_sent_again(far: Path, tmp_path: Path) -> None:
    """rsync's own connection fails between two commands that work."""
    store, faults = store_of(far), tmp_path / "faults"
    (tmp_path / "big").write_bytes(os.urandom(100_000))
    real = store._rsync

    def cut(source: str, target: str) -> None:
        faults.write_text("x\n")
        real(source, target)

    store._rsync = cut
    store.write_file("big", tmp_path / "big")
    assert store.read("big") == (tmp_path / "big").read_bytes()


def test_a_backup_that_came_back_different_is_not_kept(far: Path, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    backup = Backup(run, f"ssh://box{far}".replace("'", "%27").replace(" ", "%20"))
    backup.copy()
    for part in far.glob("*.part"):
        part.write_bytes(b"other")
    with pytest.raises(DataError, match="damaged"):
        restore(backup.store.url, tmp_path / "again")


@pytest.mark.parametrize(
    "url", ["ssh://box", "ssh:///folder", "ssh://-oProxyCommand=x/f", "ssh://box:port/f"]
)
def test_addresses_without_a_host_or_folder_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="ssh://USER@HOST"):
        open_store(url)

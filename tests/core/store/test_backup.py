"""A run folder survives its machine: whole copies, read back, the newest two."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from vlwm.core.errors import DataError, MachineError
from vlwm.core.store.backup import Backup, restore
from vlwm.core.store.backup_thread import backed_up
from vlwm.core.store.objects import FolderStore, open_store


def checkpoint(folder: Path, name: str, text: str) -> None:
    """Replace a file as training does: by rename."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / f".{name.replace('/', '_')}").write_text(text)
    os.replace(folder / f".{name.replace('/', '_')}", folder / name)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def a_run(folder: Path) -> Path:
    for name in ("tokenizer/best.pth", "last.pth", "config.json", "metrics.jsonl"):
        checkpoint(folder, name, f"first {name}")
    return folder


def test_a_blank_machine_gets_the_newest_copy(tmp_path: Path) -> None:
    run, url = a_run(tmp_path / "run"), (tmp_path / "safe").as_uri()
    with backed_up(run, url):
        checkpoint(run, "last.pth", "second")
    before = content(run)
    shutil.rmtree(run)  # the machine and its disk
    assert restore(url, tmp_path / "again") == 4
    assert content(tmp_path / "again") == before
    assert before["last.pth"] == b"second" and not any("backup" in name for name in before)


def test_only_new_checkpoints_are_copied_and_two_copies_stay(tmp_path: Path) -> None:
    run, store = a_run(tmp_path / "run"), open_store((tmp_path / "safe").as_uri())
    backup = Backup(run, store.url)
    assert backup.copy_if_new() and not backup.copy_if_new()
    for text in ("second", "third", "fourth"):
        checkpoint(run, "last.pth", text)
        assert backup.copy_if_new()
    names = list(store.list())
    assert [n for n in names if "manifest" in n] == ["manifest-000003.json", "manifest-000004.json"]
    assert sum(n.endswith(".part") for n in names) == 5  # two of last.pth, three that never changed


def test_a_copy_that_never_ended_is_not_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, url = a_run(tmp_path / "run"), (tmp_path / "safe").as_uri()
    Backup(run, url).copy()
    whole = content(run)
    checkpoint(run, "last.pth", "second")
    original = FolderStore.write_file

    def cut(self: FolderStore, name: str, path: Path) -> None:
        original(self, name, path)
        (tmp_path / "safe" / name).write_bytes(b"cut")

    monkeypatch.setattr(FolderStore, "write_file", cut)
    with pytest.raises(MachineError, match="the backup returned other bytes than it was given"):
        Backup(run, url).copy()
    restore(url, tmp_path / "again")
    assert content(tmp_path / "again") == whole
    monkeypatch.setattr(FolderStore, "write_file", original)
    for part in (tmp_path / "safe").glob("*.part"):
        part.write_bytes(b"broken since")
    Backup(run, url).copy()
    restore(url, tmp_path / "second")
    assert content(tmp_path / "second") == content(run)


def test_a_failing_store_stops_no_training_but_is_an_error_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, url = a_run(tmp_path / "run"), (tmp_path / "safe").as_uri()

    def refuse(self: FolderStore, name: str, path: Path) -> None:
        raise MachineError("the disk is full")

    monkeypatch.setattr(FolderStore, "write_file", refuse)
    with pytest.raises(KeyError), backed_up(run, url):  # the error of the run comes through
        raise KeyError
    with pytest.raises(MachineError, match="the disk is full"), backed_up(run, url):
        pass


def test_damaged_and_absent_backups_are_one_sentence(tmp_path: Path) -> None:
    run, url = a_run(tmp_path / "run"), (tmp_path / "safe").as_uri()
    with pytest.raises(DataError, match="the store holds no backup of a run"):
        restore(url, tmp_path / "again")
    Backup(run, url).copy()
    for part in (tmp_path / "safe").glob("*.part"):
        part.write_bytes(b"other")
    with pytest.raises(DataError, match="the backup is damaged"):
        restore(url, tmp_path / "again")
    manifest = tmp_path / "safe/manifest-000001.json"
    for text in ("{", '{"files": {"../../x": "a"}}', '{"files": {"/x": "a"}}', "[]"):
        manifest.write_text(text)
        with pytest.raises(DataError, match="the backup is damaged"):
            restore(url, tmp_path / "again")
    assert not (tmp_path / "again/last.pth").exists()

"""Stores: whole objects, faults that pass are tried again, others are one sentence."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.core.store.test_shard import a_shard
from vlwm.core.errors import DataError, MachineError, UsageError, VlwmError
from vlwm.core.store.mirror import cache_folder, mirror
from vlwm.core.store.objects import FolderStore, RemoteStore, check_name, open_store


def test_a_folder_keeps_whole_objects(tmp_path: Path) -> None:
    store = open_store((tmp_path / "a/b").as_uri())
    assert store.list() == {} and store.read("x") is None
    store.write("x", b"one")
    store.write("x", b"three")
    (tmp_path / "a/b/.y.123.tmp").write_bytes(b"of a killed writer")
    assert {name: entry.size for name, entry in store.list().items()} == {"x": 5}
    assert store.read("x") == b"three"
    store.delete("x")
    store.delete("x")
    assert store.list() == {}


@pytest.mark.parametrize("url", ["", "data", "ftp://a/b", "s3://", "file://"])
def test_other_addresses_are_one_sentence(url: str) -> None:
    with pytest.raises(UsageError, match="is not the address of a store"):
        open_store(url)


class Flaky:
    """A file system whose calls raise the errors of a list, then answer."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.objects = list(errors), dict[str, bytes]()

    def _answer(self) -> None:
        if self.errors:
            raise self.errors.pop(0)

    def cat_file(self, path: str) -> bytes:
        self._answer()
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path]

    def pipe_file(self, path: str, data: bytes) -> None:
        self._answer()
        self.objects[path] = data

    def ls(self, path: str, **_: Any) -> list[dict[str, Any]]:
        self._answer()
        return [{"name": n, "size": len(d), "type": "file"} for n, d in self.objects.items()]


def remote(files: Flaky, scheme: str = "s3") -> tuple[RemoteStore, list[float]]:
    waits: list[float] = []
    store = RemoteStore(f"{scheme}://b/f", scheme, "b/f", sleep=waits.append)
    store._files = lambda: files
    return store, waits


def test_faults_that_pass_are_tried_again_with_longer_waits() -> None:
    slow = OSError(errno.EBUSY, "Please reduce your request rate (SlowDown)")
    files = Flaky(slow, OSError(errno.EIO, "500"), TimeoutError(), ConnectionResetError())
    store, waits = remote(files)
    store.write("x", b"data")
    assert files.objects == {"b/f/x": b"data"} and len(waits) == 4 and waits[3] > waits[0]
    assert store.read("x") == b"data" and store.read("y") is None
    assert store.list()["x"].size == 4


@pytest.mark.parametrize(
    ("error", "tries", "words"),
    [
        (PermissionError("The provided token\nhas expired."), 1, "the store refuses access"),
        (OSError(errno.EIO, "Internal Error"), 6, "the store does not answer after 6 tries"),
        (type("NoCredentialsError", (OSError,), {})(), 1, "there are no credentials"),
    ],
)
def test_faults_that_stay_are_one_sentence(error: Exception, tries: int, words: str) -> None:
    files = Flaky(*[error] * 20)
    store, _ = remote(files)
    with pytest.raises(MachineError, match=words) as caught:
        store.write("x", b"data")
    assert "\n" not in str(caught.value) and len(files.errors) == 20 - tries


def test_a_hub_is_read_only() -> None:
    with pytest.raises(UsageError, match="hf:// is read only here"):
        remote(Flaky(), "hf")[0].write("x", b"")


def filled(folder: Path, *, finished: bool = True) -> FolderStore:
    store = FolderStore(folder.as_uri(), folder)
    for name, seed in (("drone_a", 0), ("rover_b", 1)):
        store.write(f"{name}.shard", a_shard(seed)[0])
    store.write("prepare.json", b"{}")
    if finished:
        store.write("splits.json", b"{}")
    return store


def test_a_mirror_is_whole_and_continues(tmp_path: Path) -> None:
    store = filled(tmp_path / "store")
    local = tmp_path / "local"
    seen: list[tuple[str, int, int]] = []
    mirror(store.url, local, lambda *report: seen.append(report))
    assert seen[-1][0] == "splits.json" and seen[-1][1] == seen[-1][2]
    same = {p.name: p.read_bytes() for p in local.iterdir()}
    assert same == {p.name: p.read_bytes() for p in (tmp_path / "store").iterdir()}
    (local / "rover_b.shard").write_bytes(b"cut")
    assert "drone_a.shard" not in mirror(store.url, local)
    assert (local / "rover_b.shard").read_bytes() == same["rover_b.shard"]


def _damage(store: FolderStore) -> None:
    raw = bytearray(a_shard(1)[0])
    raw[-3] ^= 1
    store.write("rover_b.shard", bytes(raw))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda s: s.delete("splits.json"), "vlwm prepare has not finished this store"),
        (lambda s: [s.delete(n) for n in list(s.list())], "the store holds no session"),
        (_damage, "a shard is damaged"),
    ],
)
def test_a_store_that_is_not_whole_is_one_sentence(
    tmp_path: Path, spoil: Callable[[FolderStore], object], words: str
) -> None:
    store = filled(tmp_path / "store")
    spoil(store)
    with pytest.raises(VlwmError, match=words):
        mirror(store.url, tmp_path / "local")
    assert not (tmp_path / "local/rover_b.shard").exists()
    assert not (tmp_path / "local/splits.json").exists()


def test_an_object_that_goes_while_it_is_fetched_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path / "store")
    monkeypatch.setattr(FolderStore, "read", lambda self, name: None)
    with pytest.raises(DataError, match="an object of the store is gone"):
        mirror(store.url, tmp_path / "local")


def test_a_store_larger_than_the_disk_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path / "store")
    monkeypatch.setattr("vlwm.core.store.mirror.free_bytes", lambda path: 100)
    with pytest.raises(MachineError, match="GB more and"):
        mirror(store.url, tmp_path / "local")


@pytest.mark.parametrize("name", ["", ".x", "a/b", "..", "a\0"])
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="unsafe name"):
        check_name(name)


def test_two_stores_have_two_folders_in_a_cache(tmp_path: Path) -> None:
    one, other = (cache_folder(f"s3://{b}/tokyo", tmp_path) for b in ("a", "b"))
    assert one != other and one.name.startswith("tokyo-")

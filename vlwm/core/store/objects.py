"""Whole objects in a folder or a bucket: list, read, write; nothing else is asked of a store.

    file:///data/tokyo        a folder, also on a network disk; objects appear by rename
    s3://bucket/tokyo         needs `pip install 'vlwm[s3]'`; credentials and AWS_ENDPOINT_URL come
                              from the environment or the usual files of AWS
    ssh://USER@HOST/FOLDER    a folder of another machine, by rsync (`ssh_store`)
    hf://datasets/OWNER/NAME  read only

A store needs no locks and no conditional writes: writers of the same object write the same bytes.
Answers that a later try can change (500, 503 SlowDown, a cut connection) are tried again.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import random
import shutil
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from vlwm.core.errors import DataError, MachineError, UsageError
from vlwm.core.files import atomic_path, explain_os_error, make_folder, sha256_file
from vlwm.core.store.object_store import Entry, ObjectStore, gone
from vlwm.core.store.ssh_store import SshStore

Result = TypeVar("Result")

_TRIES = 6
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 20.0
_SCHEMES = ("file", "s3", "hf", "ssh")
_NEEDS = {"s3": ("s3fs", "pip install 'vlwm[s3]'"), "hf": ("huggingface_hub", "pip install vlwm")}


def is_url(text: str | Path) -> bool:
    """Return True for text that begins with a scheme of a store."""
    return str(text).partition("://")[0] in _SCHEMES and "://" in str(text)


def open_store(url: str) -> ObjectStore:
    """Return the store of a URL; nothing is read yet.

    Raises:
        UsageError: an unknown scheme, or the package for it is not installed.
    """
    scheme, found, rest = url.rstrip("/").partition("://")
    if not found or scheme not in _SCHEMES or not rest:
        raise UsageError(
            f"{url} is not the address of a store",
            remedy="write file:///FOLDER, s3://BUCKET/FOLDER, ssh://USER@HOST/FOLDER or "
            "hf://datasets/OWNER/NAME",
        )
    if scheme == "file":
        return FolderStore(url.rstrip("/"), Path(unquote(urlsplit(url).path)))
    if scheme == "ssh":
        return SshStore(url.rstrip("/"))
    package, remedy = _NEEDS[scheme]
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise UsageError(f"{scheme}:// needs the package {package}", remedy=remedy) from error
    return RemoteStore(url.rstrip("/"), scheme, rest)


class FolderStore(ObjectStore):
    """Objects as files of one folder."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self._folder = url, folder

    @property
    def folder(self) -> Path:
        """The folder."""
        return self._folder

    def list(self) -> dict[str, Entry]:
        try:
            entries = [e for e in os.scandir(self._folder) if not e.name.startswith(".")]
            files = [(e.name, e.stat()) for e in entries if e.is_file()]
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise explain_os_error(error, self._folder) from error
        return {name: Entry(stat.st_size, stat.st_mtime) for name, stat in sorted(files)}

    def read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explain_os_error(error, self._folder / name) from error

    def read_start(self, name: str, size: int) -> bytes | None:
        try:
            with open(self._folder / name, "rb") as stream:
                return stream.read(size)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explain_os_error(error, self._folder / name) from error

    def write(self, name: str, data: bytes) -> None:
        make_folder(self._folder)
        with atomic_path(self._folder / name) as temporary:
            temporary.write_bytes(data)

    def delete(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def write_file(self, name: str, path: Path) -> None:
        make_folder(self._folder)
        with atomic_path(self._folder / name) as temporary:
            shutil.copyfile(path, temporary)

    def read_file(self, name: str, path: Path) -> str:
        if not (self._folder / name).exists():
            raise gone(self.place(name))
        with atomic_path(path) as temporary:
            shutil.copyfile(self._folder / name, temporary)
        return sha256_file(path)

    def sha256(self, name: str) -> str | None:
        path = self._folder / name
        return sha256_file(path) if path.exists() else None


class RemoteStore(ObjectStore):
    """Objects of a bucket or a hub, through fsspec.

    Args:
        url: as the operator wrote it.
        scheme: 's3' or 'hf'.
        root: path after the scheme.
        sleep: waits between tries; a test replaces it.
    """

    def __init__(
        self, url: str, scheme: str, root: str, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.url, self._scheme, self._root, self._sleep = url, scheme, root, sleep
        self._opened: tuple[int, Any] | None = None

    def list(self) -> dict[str, Entry]:
        def look() -> dict[str, Entry]:
            try:
                found = self._files().ls(self._root, detail=True, refresh=True)
            except FileNotFoundError:
                return {}
            names = ((str(f["name"]).rsplit("/", 1)[-1], f) for f in found if f["type"] == "file")
            return {n: Entry(int(f["size"] or 0), _modified(f)) for n, f in sorted(names)}

        return self._retried(look, self.url)

    def read(self, name: str) -> bytes | None:
        def get() -> bytes | None:
            try:
                return bytes(self._files().cat_file(f"{self._root}/{name}"))
            except FileNotFoundError:
                return None

        return self._retried(get, self.place(name))

    def read_start(self, name: str, size: int) -> bytes | None:
        def get() -> bytes | None:
            try:
                return bytes(self._files().cat_file(f"{self._root}/{name}", start=0, end=size))
            except FileNotFoundError:
                return None

        return self._retried(get, self.place(name))

    def write(self, name: str, data: bytes) -> None:
        if self._scheme == "hf":
            raise UsageError(
                "hf:// is read only here",
                where=self.url,
                remedy="write to file:// or s3://, then upload the finished folder in one commit: "
                "hf upload OWNER/NAME FOLDER --repo-type dataset",
            )
        self._retried(
            lambda: self._files().pipe_file(f"{self._root}/{name}", data), self.place(name)
        )

    def delete(self, name: str) -> None:
        def remove() -> None:
            try:
                self._files().rm_file(f"{self._root}/{name}")
            except FileNotFoundError:
                return

        self._retried(remove, self.place(name))

    def write_file(self, name: str, path: Path) -> None:
        target = f"{self._root}/{name}"
        self._retried(lambda: self._files().put_file(str(path), target), self.place(name))

    def read_file(self, name: str, path: Path) -> str:
        def get() -> bool:
            try:
                with atomic_path(path) as temporary:
                    self._files().get_file(f"{self._root}/{name}", str(temporary))
            except (FileNotFoundError, DataError):
                return False
            return True

        if not self._retried(get, self.place(name)):
            raise gone(self.place(name))
        return sha256_file(path)

    def sha256(self, name: str) -> str | None:
        def digest() -> str | None:
            found = hashlib.sha256()
            try:
                with self._files().open(f"{self._root}/{name}", "rb") as handle:
                    for block in iter(lambda: handle.read(1 << 22), b""):
                        found.update(block)
            except FileNotFoundError:
                return None
            return found.hexdigest()

        return self._retried(digest, self.place(name))

    def _files(self) -> Any:
        """Return the file system of this process: its event loop does not survive a fork."""
        import fsspec

        if self._opened is None or self._opened[0] != os.getpid():
            options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
            self._opened = (os.getpid(), fsspec.filesystem(self._scheme, **options))
        return self._opened[1]

    def _retried(self, work: Callable[[], Result], where: str) -> Result:
        """Return `work()`, tried again after faults that pass.

        Raises:
            MachineError: the store refuses the credentials, or does not answer after some tries.
        """
        wait_s = _FIRST_WAIT_S
        for remaining in reversed(range(_TRIES)):
            try:
                return work()
            except PermissionError as error:
                raise MachineError(
                    f"the store refuses access: {_one_line(error)}",
                    where=where,
                    remedy="renew the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
                    "AWS_SESSION_TOKEN or AWS_PROFILE), then run the same command again",
                ) from error
            except _faults() as error:
                if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
                    raise MachineError(
                        "there are no credentials for the store",
                        where=where,
                        remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
                    ) from error
                if not remaining:
                    raise MachineError(
                        f"the store does not answer after {_TRIES} tries: {_one_line(error)}",
                        where=where,
                        remedy="run the same command again later; what is finished stays",
                    ) from error
            self._sleep(wait_s * (0.5 + random.random()))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        raise AssertionError("the last try returns or raises")


def _faults() -> tuple[type[BaseException], ...]:
    """Return the errors of a network or a store that a later try can pass."""
    found: list[type[BaseException]] = [OSError, TimeoutError]
    for module, name in (
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("aiohttp", "ClientError"),
        ("requests", "RequestException"),
    ):
        try:
            found.append(getattr(importlib.import_module(module), name))
        except ImportError:
            continue
    return tuple(found)


def _modified(entry: dict[str, Any]) -> float | None:
    value = entry.get("LastModified") or entry.get("mtime") or entry.get("last_modified")
    if isinstance(value, datetime):
        return value.timestamp()
    return float(value) if isinstance(value, int | float) else None


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:160]


def check_name(name: str) -> str:
    """Return the name of an object that is safe as a file name.

    Raises:
        DataError: it is not.
    """
    if not name or name.startswith(".") or "/" in name or "\\" in name or "\0" in name:
        raise DataError(
            f"the store holds an object with the unsafe name {name[:60]!r}",
            remedy="delete it there; sessions have names such as drone_20240101_000000.shard",
        )
    return name

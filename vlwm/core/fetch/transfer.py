"""One file over HTTP(S): whole, verified, or not there.

Bytes go to `<file>.part`; its validators (ETag, Last-Modified, length) lie in `<file>.part.json`,
so that another process can go on (RFC 9110, sections 13.1.5 and 14). The part is continued only
where the server proves that it still is the same file, or a SHA-256 is known that will prove it in
the end; otherwise it starts over. The final name appears by rename after size and hash were
checked.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from vlwm.core.errors import DataError, MachineError
from vlwm.core.files import (
    explain_os_error,
    flush_file,
    flush_folder,
    free_bytes,
    make_folder,
    read_json,
    write_json,
)
from vlwm.core.folder_lock import file_lock

if TYPE_CHECKING:
    import requests

Progress = Callable[[int, "int | None"], None]
"""called with bytes there and bytes in all (None: unknown)"""

_BLOCK = 1 << 18
_SPARE_BYTES = 64 << 20
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
_MAGIC = {".zip": b"PK", ".tgz": b"\x1f\x8b", ".gz": b"\x1f\x8b"}


@dataclass(frozen=True)
class Policy:
    """How patient a transfer is."""

    attempts: int = 8
    """tries in a row without a new byte before giving up"""
    connect_s: float = 20.0
    """seconds to connect"""
    stall_s: float = 60.0
    """seconds without a byte that count as stalled"""
    backoff_s: float = 1.0
    """first pause between tries; doubles, with jitter"""
    longest_pause_s: float = 120.0
    """longest pause, also where the server asks for more"""
    restarts: int = 3
    """whole files that may turn out wrong before giving up"""


@dataclass
class _Validators:
    """What identifies one version of a file on the server."""

    url: str = ""
    """hash of the address, whose query may hold a signature"""
    etag: str | None = None
    modified: str | None = None
    total: int | None = None

    @property
    def strong(self) -> str | None:
        """A validator fit for If-Range, or None."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.modified


class _Again(Exception):
    """This try failed in a way that another may mend."""

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class _StartOver(Exception):
    """The bytes there are not of the file that the server has now."""


@dataclass
class Transfer:
    """One file from `url` to `path`.

    Args:
        url: http or https address.
        path: final name of the file; folders are made.
        size: bytes in all, where known beforehand.
        sha256: hex digest, where known.
    """

    url: str
    path: Path
    size: int | None = None
    sha256: str | None = None
    policy: Policy = field(default_factory=Policy)
    progress: Progress = lambda done, total: None
    pause: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        self.part = self.path.with_name(self.path.name + ".part")
        self.notes = self.path.with_name(self.path.name + ".part.json")
        self._digest, self._digested = hashlib.sha256(), 0

    def run(self) -> Path:
        """Fetch the file; one that is there with the right size is left as it is.

        Raises:
            DataError: the server does not have it, keeps failing, or sends other bytes.
            MachineError: the disk has no room or cannot be written.
        """
        if self.is_there():
            return self.path
        make_folder(self.path.parent)
        with file_lock(self.path.with_name(self.path.name + ".lock")):
            if not self.is_there():
                self._fetch()
        return self.path

    def is_there(self) -> bool:
        """Whether the final file is there with the size that is known for it."""
        return self.path.is_file() and self.size in (None, self.path.stat().st_size)

    def _fetch(self) -> None:
        failures, restarts, had = 0, 0, self._have()
        while True:
            try:
                self._attempt()
                self._verify()
                return self._finish()
            except _StartOver as error:
                restarts += 1
                self._forget()
                if restarts > self.policy.restarts:
                    raise self._gave_up(str(error)) from error
                self.pause(self._pause_s(restarts, None))
            except _Again as error:
                failures = 0 if self._have() > had else failures + 1
                had = self._have()
                if failures >= self.policy.attempts:
                    raise self._gave_up(str(error)) from error
                self.pause(self._pause_s(failures, error.pause_s))

    def _gave_up(self, reason: str) -> DataError:
        return DataError(
            f"{_address(self.url)} could not be fetched: {reason}",
            where=self.path.name,
            remedy="run the same command again later; what has arrived is kept",
        )

    def _pause_s(self, failures: int, asked: float | None) -> float:
        doubled = self.policy.backoff_s * 2.0 ** max(0, failures - 1)
        pause = asked if asked is not None else doubled * random.uniform(0.5, 1.5)
        return min(pause, self.policy.longest_pause_s)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)

    def _attempt(self) -> None:
        import requests

        have = self._resumable()
        try:
            with self._open(have) as response:
                self._receive(response, have)
        except (requests.exceptions.SSLError, requests.exceptions.InvalidURL) as error:
            raise DataError(
                f"{_address(self.url)}: {_cause(error)}",
                where=self.path.name,
                remedy="check the address, this machine's clock and its certificates "
                "(REQUESTS_CA_BUNDLE where a proxy has its own)",
            ) from error
        except requests.exceptions.RequestException as error:
            raise _Again(_cause(error)) from error

    def _resumable(self) -> int:
        """Bytes of the part that may be continued; 0 after clearing one that may not."""
        have, known = self._have(), self._validators()
        same = known.url == _hash_of(self.url) and (known.strong or self.sha256)
        if have and same and (self.size is None or have <= self.size):
            return have
        if have:
            self._forget()
        return 0

    def _validators(self) -> _Validators:
        try:
            return _Validators(**read_json(self.notes))
        except (DataError, TypeError):
            return _Validators()

    def _open(self, have: int) -> requests.Response:
        import requests

        headers = {"Accept-Encoding": "identity", "User-Agent": "vlwm"}
        if have:
            headers["Range"] = f"bytes={have}-"
            validator = self._validators().strong
            if validator:
                headers["If-Range"] = validator
        timeout = (self.policy.connect_s, self.policy.stall_s)
        return requests.get(self.url, headers=headers, stream=True, timeout=timeout)

    def _receive(self, response: requests.Response, have: int) -> None:
        """Check the answer's head, then append or replace the part."""
        status = response.status_code
        if status == 416:
            if have and _range_total(response) == have:
                return
            raise _StartOver("the server refuses the rest of the file")
        if status in _TRANSIENT:
            raise _Again(f"the server answers {status}", _retry_after(response))
        if status not in (200, 206):
            self._refuse(response)
        start = self._start(response, have)
        encoded = response.headers.get("Content-Encoding", "identity") not in ("identity", "")
        now = self._seen(response, start, encoded)
        self._check_same(now, start)
        self._check_room(now, start)
        write_json(self.notes, asdict(now))
        self._append(response, start, now)

    def _refuse(self, response: requests.Response) -> None:
        status = response.status_code
        if response.history and status in (401, 403, 410):
            raise _Again(f"the redirected address answers {status}")
        reasons = {
            401: "it asks for a login",
            403: "it refuses access; the file may need a licence click or a token",
            404: "it has no such file",
            410: "the file is gone",
        }
        reason = reasons.get(status, "unexpected answer")
        raise DataError(
            f"{_address(self.url)} answers {status}, {reason}",
            where=self.path.name,
            remedy="check the address in the catalogue, or give another one with --catalog",
        )

    def _start(self, response: requests.Response, have: int) -> int:
        if response.status_code == 200:
            return 0
        start = _range_start(response)
        if start != have:
            raise _StartOver("the server sent another part of the file than was asked for")
        return have

    def _seen(self, response: requests.Response, start: int, encoded: bool) -> _Validators:
        headers = response.headers
        total = _range_total(response) if response.status_code == 206 else _length(response)
        return _Validators(
            url=_hash_of(self.url),
            etag=None if encoded else headers.get("ETag"),
            modified=None if encoded else headers.get("Last-Modified"),
            total=None if encoded else total,
        )

    def _check_same(self, now: _Validators, start: int) -> None:
        if self.size is not None and now.total not in (None, self.size):
            raise DataError(
                f"{_address(self.url)} has {now.total} bytes where the catalogue says {self.size}",
                where=self.path.name,
                remedy="the file has changed; correct the catalogue or give one with --catalog",
            )
        before = self._validators()
        if start and (before.etag, before.total) != (now.etag or before.etag, now.total):
            raise _StartOver("the file changed on the server")

    def _check_room(self, now: _Validators, start: int) -> None:
        total = self.size if self.size is not None else now.total
        need = (total or 0) - start + _SPARE_BYTES
        free = free_bytes(self.path.parent)
        if need > free:
            raise MachineError(
                f"{need / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free",
                where=self.path.parent,
                remedy="free some space or give a folder on another disk with --data-dir",
            )

    def _append(self, response: requests.Response, start: int, now: _Validators) -> None:
        done = start
        if self.sha256 is not None and start:
            self._hash_up_to(start)
        elif start == 0:
            self._digest, self._digested = hashlib.sha256(), 0
        try:
            with open(self.part, "r+b" if start else "wb") as file:
                file.truncate(start)
                file.seek(start)
                for block in _blocks(response):
                    if done == 0:
                        self._check_kind(block, response)
                    file.write(block)
                    if self.sha256 is not None:
                        self._hash(block)
                    done += len(block)
                    self.progress(done, self.size if self.size is not None else now.total)
        except OSError as error:
            if _is_disk(error):
                raise explain_os_error(error, self.part) from error
            raise _Again(str(error)) from error
        self._check_length(done, now.total)

    def _check_length(self, done: int, total: int | None) -> None:
        expected = self.size if self.size is not None else total
        if expected is not None and done < expected:
            raise _Again(f"the connection ended after {done} of {expected} bytes")
        if expected is not None and done > expected:
            raise _StartOver(f"{done} bytes came where {expected} belong")

    def _check_kind(self, block: bytes, response: requests.Response) -> None:
        magic = _MAGIC.get(self.path.suffix)
        page = block[:512].lstrip().lower()
        is_page = page.startswith((b"<!doctype html", b"<html"))
        if is_page and self.path.suffix not in (".html", ".htm"):
            raise _StartOver("a web page came instead of the file")
        if magic and not block.startswith(magic[: len(block)]):
            raise _StartOver(f"what came is no {self.path.suffix} file")

    def _hash_up_to(self, position: int) -> None:
        """Bring the running hash to `position` bytes of the part, reading them where it must."""
        if self._digested != position:
            self._digest, self._digested = hashlib.sha256(), 0
            with open(self.part, "rb") as file:
                while self._digested < position:
                    block = file.read(min(1 << 20, position - self._digested))
                    if not block:
                        break
                    self._hash(block)

    def _hash(self, block: bytes) -> None:
        self._digest.update(block)
        self._digested += len(block)

    def _verify(self) -> None:
        if self.sha256 is None:
            return
        self._hash_up_to(self._have())
        if self._digest.hexdigest() != self.sha256.lower():
            raise _StartOver("its SHA-256 is not the catalogue's")

    def _finish(self) -> None:
        try:
            flush_file(self.part)
            os.replace(self.part, self.path)
            flush_folder(self.path.parent)
        except OSError as error:
            raise explain_os_error(error, self.path) from error
        self.notes.unlink(missing_ok=True)


def fetch(url: str, path: Path, **options: Any) -> Path:
    """Fetch one file; see `Transfer` for options and errors."""
    return Transfer(url, path, **options).run()


def _blocks(response: requests.Response) -> Iterator[bytes]:
    """The body as it arrives: what came before a connection broke is not lost in a buffer."""
    import urllib3

    if response.headers.get("Content-Encoding"):
        yield from response.iter_content(_BLOCK)
        return
    try:
        while block := response.raw.read1(_BLOCK):
            yield block
    except urllib3.exceptions.ReadTimeoutError as error:
        raise _Again("the server stalled") from error
    except urllib3.exceptions.HTTPError as error:
        raise _Again("the connection broke") from error


def _is_disk(error: OSError) -> bool:
    import requests

    network = (requests.exceptions.RequestException, ConnectionError, TimeoutError)
    return error.errno is not None and not isinstance(error, network)


def _address(url: str) -> str:
    """Scheme, host and path: a query may hold a signature and is never shown."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


def _hash_of(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


def without_secrets(text: str) -> str:
    """A sentence of a library with the logins and queries taken out of its addresses."""
    return re.sub(r"(\w+://)(?:[^\s/@]*@)?([^\s?]*)(?:\?\S*)?", r"\1\2", text)


def _cause(error: BaseException) -> str:
    names = {
        "ConnectTimeout": "no connection in time",
        "ReadTimeout": "the server stalled",
        "ConnectionError": "the connection failed or broke",
        "ChunkedEncodingError": "the connection broke",
        "ContentDecodingError": "the compressed answer is damaged",
        "SSLError": "the server's certificate is not accepted",
        "ProxyError": "the proxy does not answer",
    }
    return names.get(type(error).__name__, type(error).__name__)


def _length(response: requests.Response) -> int | None:
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isdigit() else None


def _range_start(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
    return int(text) if text.isdigit() else None


def _range_total(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(text) if text.isdigit() else None


def _retry_after(response: requests.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None

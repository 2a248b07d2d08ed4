"""One file over HTTP(S): whole, verified, or missing.

Bytes go to `<file>.part`; its validators (ETag, Last-Modified, length) are kept in
`<file>.part.json`, so that another process can resume (RFC 9110, sections 13.1.5 and 14). The part
is continued only where the answer proves that it still is the same file, or where a SHA-256 will
prove it in the end; otherwise the file starts over. A body without a known end is whole only where
the file proves it by itself. The final name appears by rename, after size, hash and kind were
checked.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vlwm.core.errors import DataError, MachineError
from vlwm.core.fetch.answers import (
    Again,
    address,
    blocks,
    cause,
    content_range,
    encoding,
    host_of,
    is_unresolved,
    length,
    retry_after,
    says_where_it_ends,
    settled_date,
)
from vlwm.core.fetch.content import (
    damage,
    is_about,
    is_page,
    is_whole,
    is_wrong_kind,
    proves_itself,
)
from vlwm.core.fetch.version import Policy, Version, hash_of
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

_SPARE_BYTES = 64 << 20
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
_TRIES_UNRESOLVED = 3


class _StartOver(Exception):
    """The bytes so far are not of the file that the server has now."""


@dataclass
class Transfer:
    """One file from `url` to `path`.

    Args:
        url: http or https address.
        path: final name of the file; folders are made.
        size: bytes in all, where known beforehand.
        sha256: hex digest, where known.
        about: bytes in all, where only about known.
        again: replace the file under the final name, whatever it is.
        notice: gets a sentence for each failed try that is followed by another.
    """

    url: str
    path: Path
    size: int | None = None
    sha256: str | None = None
    about: int | None = None
    again: bool = False
    policy: Policy = field(default_factory=Policy)
    progress: Progress = lambda done, total: None
    notice: Callable[[str], None] = lambda text: None
    pause: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        self.part = self.path.with_name(self.path.name + ".part")
        self.notes = self.path.with_name(self.path.name + ".part.json")
        self._digest, self._digested = hashlib.sha256(), 0
        self._end_is_known = True

    def run(self) -> Path:
        """Fetch the file; one that is whole already is left as it is.

        Raises:
            DataError: the server does not have it, keeps failing, or sends other bytes.
            MachineError: the disk has no room or cannot be written.
        """
        if self.is_there() and not self.again:
            return self.path
        make_folder(self.path.parent)
        with file_lock(self.path.with_name(self.path.name + ".lock")):
            if self.again or not self.is_there():
                self._fetch()
        return self.path

    def is_there(self) -> bool:
        """Return whether the final file is whole, as far as can be known without the server."""
        return is_whole(self.path, self.size, self.about)

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
                self._wait(str(error), restarts, self.policy.restarts + 1, None)
            except Again as error:
                failures = 0 if self._have() > had else failures + 1
                had = self._have()
                tries = self.policy.attempts
                tries = min(tries, _TRIES_UNRESOLVED) if error.unresolved else tries
                if failures >= tries:
                    raise self._gave_up(str(error)) from error
                self._wait(str(error), failures, tries, error.pause_s)

    def _wait(self, reason: str, failures: int, tries: int, asked: float | None) -> None:
        """Report why a try failed, and pause before the next one."""
        pause = self.policy.pause_s(failures, asked)
        self.notice(
            f"{host_of(self.url)}: {reason}; try {failures + 1} of {tries} in {pause:.0f} s "
            "(Ctrl-C stops, what has arrived is kept)"
        )
        self.pause(pause)

    def _gave_up(self, reason: str) -> DataError:
        return DataError(
            f"download of {address(self.url)} failed: {reason}",
            where=self.path.name,
            remedy="check the network and the address, then run the same command again; what has "
            "arrived is kept",
        )

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)

    def _attempt(self) -> None:
        import requests

        have = self._resumable()
        bad = (
            requests.exceptions.SSLError, requests.exceptions.InvalidURL,
            requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema,
            requests.exceptions.InvalidHeader,
        )  # fmt: skip
        try:
            with self._open(have) as response:
                self._receive(response, have)
        except bad as error:
            raise self._refused(cause(error)) from error
        except requests.exceptions.RequestException as error:
            raise Again(cause(error), unresolved=is_unresolved(error)) from error
        except (UnicodeError, ValueError) as error:  # a host's name that cannot be one
            raise self._refused("it is not an address that can be asked for") from error

    def _refused(self, why: str) -> DataError:
        return DataError(
            f"{address(self.url)}: {why}",
            where=self.path.name,
            remedy="check the address, this machine's clock and its certificates "
            "(REQUESTS_CA_BUNDLE where a proxy has its own)",
        )

    def _resumable(self) -> int:
        """Return the bytes of the part that may be continued; 0 after removing one that may not."""
        have, known = self._have(), self._validators()
        same = known.url == hash_of(self.url) and (known.strong or self.sha256)
        if have and same and (self.size is None or have <= self.size):
            return have
        if have:
            self._forget()
        return 0

    def _validators(self) -> Version:
        try:
            found = Version(**read_json(self.notes))
        except (DataError, TypeError):
            return Version()
        texts = all(isinstance(v, str | None) for v in (found.url, found.etag, found.modified))
        return found if texts and isinstance(found.total, int | None) else Version()

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
        """Check the answer's head, then append to or replace the part."""
        status = response.status_code
        if status == 416:
            if (
                have
                and content_range(response)[2] == have
                and self._seen(response).is_same(self._validators())
            ):
                return
            raise _StartOver("the server refuses the rest of the file")
        if status in _TRANSIENT:
            raise Again(f"the server answers {status}", retry_after(response))
        if status not in (200, 206):
            self._refuse(response)
        start = self._start(response, have)
        now = self._seen(response)
        self._check_same(now, start)
        self._check_room(now, start)
        if start and now.total is None:
            now.total = self._validators().total
        self._end_is_known = says_where_it_ends(response) or bool(encoding(response))
        write_json(self.notes, asdict(now))
        self._append(response, start, now)

    def _refuse(self, response: requests.Response) -> None:
        status = response.status_code
        if response.history and status in (401, 403, 410):
            raise Again(f"the redirected address answers {status}")
        reasons = {
            401: "it asks for a login",
            403: "it refuses access; the file may need a licence click or a token",
            404: "it has no such file",
            410: "the file is gone",
        }
        reason = reasons.get(status, "unexpected answer")
        raise DataError(
            f"{address(self.url)} answers {status}, {reason}",
            where=self.path.name,
            remedy="check the address in the catalogue, or give another one with --catalog",
        )

    def _start(self, response: requests.Response, have: int) -> int:
        """Return the byte that the body begins with."""
        if response.status_code == 200:
            return 0
        first, last, total = content_range(response)
        if first != have or last is None or (total is not None and last + 1 != total):
            raise _StartOver("the server sent another part of the file than was asked for")
        if encoding(response):
            raise _StartOver("the server sent a compressed part of the file")
        return have

    def _seen(self, response: requests.Response) -> Version:
        headers, packed = response.headers, bool(encoding(response))
        total = (
            content_range(response)[2] if response.status_code in (206, 416) else length(response)
        )
        return Version(
            url=hash_of(self.url),
            etag=None if packed else headers.get("ETag"),
            modified=None if packed else settled_date(response),
            total=None if packed else total,
        )

    def _check_same(self, now: Version, start: int) -> None:
        if self.size is not None and now.total not in (None, self.size):
            raise DataError(
                f"{address(self.url)} has {now.total} bytes where the catalogue has {self.size}",
                where=self.path.name,
                remedy="the file has changed; correct the catalogue or give one with --catalog",
            )
        before = self._validators()
        contradicts = before.total is not None and now.total not in (None, before.total)
        if start and (contradicts or not (self.sha256 or before.is_same(now))):
            raise _StartOver("the file changed on the server")

    def _check_room(self, now: Version, start: int) -> None:
        total = self.size if self.size is not None else now.total
        need = (total or 0) - start + _SPARE_BYTES
        free = free_bytes(self.path.parent)
        if need > free:
            raise MachineError(
                f"{need / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free",
                where=self.path.parent,
                remedy="free some space or give a folder on another disk with --data-dir",
            )

    def _append(self, response: requests.Response, start: int, now: Version) -> None:
        done = start
        if self.sha256 is not None and start:
            self._hash_up_to(start)
        elif start == 0:
            self._digest, self._digested = hashlib.sha256(), 0
        expected = self.size if self.size is not None else now.total
        try:
            with open(self.part, "r+b" if start else "wb") as file:
                file.truncate(start)
                file.seek(start)
                for block in blocks(response):
                    if done == 0 and block:
                        self._check_kind(block, response)
                    file.write(block)
                    if self.sha256 is not None:
                        self._hash(block)
                    done += len(block)
                    if expected is not None and done > expected:
                        break
                    self.progress(done, expected)
        except OSError as error:
            raise explain_os_error(error, self.part) from error
        self._check_length(done, now.total)

    def _check_length(self, done: int, total: int | None) -> None:
        expected = self.size if self.size is not None else total
        if expected is not None and done < expected:
            raise Again(f"the connection ended after {done} of {expected} bytes")
        if expected is not None and done > expected:
            raise _StartOver(f"{done} bytes came where {expected} belong")
        if done == 0 and expected != 0:
            raise Again("nothing came")

    def _check_kind(self, block: bytes, response: requests.Response) -> None:
        suffix = self.path.suffix.lower()
        if is_page(block, suffix, response.headers.get("Content-Type", "")):
            raise _StartOver("a web page came instead of the file")
        if is_wrong_kind(block, suffix):
            raise _StartOver(f"the download is not a {suffix} file")

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
        """Look at the whole part before it gets its name.

        Raises:
            _StartOver: it is not the file.
            DataError: nobody can tell whether it is whole.
        """
        if self.sha256 is not None:
            self._hash_up_to(self._have())
            if self._digest.hexdigest() != self.sha256.lower():
                raise _StartOver("its SHA-256 is not the catalogue's")
            return
        reason = damage(self.part, self.path.name)
        if reason is not None:
            raise _StartOver(f"what came is not the file: {reason}")
        if self.about is not None and not is_about(self._have(), self.about):
            raise _StartOver(
                f"{self._have()} bytes came where the catalogue has about {self.about}"
            )
        known = self._end_is_known or self.size is not None
        if not known and not proves_itself(self.part, self.path.name):
            raise _StartOver("the server does not state the file's length, so it may be cut short")

    def _finish(self) -> None:
        try:
            flush_file(self.part)
            os.replace(self.part, self.path)
            flush_folder(self.path.parent)
        except OSError as error:
            raise explain_os_error(error, self.path) from error
        self.notes.unlink(missing_ok=True)

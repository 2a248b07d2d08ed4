"""Define the patience of a transfer, and the identity of one version of a file on a server."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """Retries and timeouts of a transfer."""

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

    def pause_s(self, failures: int, asked: float | None) -> float:
        """Return the seconds to wait after some failures, or that the server asked for."""
        doubled = self.backoff_s * 2.0 ** max(0, failures - 1)
        pause = asked if asked is not None else doubled * random.uniform(0.5, 1.5)
        return min(pause, self.longest_pause_s)


@dataclass
class Version:
    """Validators of one version of a file on the server."""

    url: str = ""
    """hash of the address, whose query may hold a signature"""
    etag: str | None = None
    modified: str | None = None
    """Last-Modified, where it is old enough to name one version"""
    total: int | None = None

    @property
    def strong(self) -> str | None:
        """A validator fit for If-Range, or None."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.modified

    def is_same(self, other: Version) -> bool:
        """Return whether two answers are of one version: a validator agrees and none differs."""
        pairs = [(self.etag, other.etag), (self.modified, other.modified)]
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        totals = self.total is None or self.total == other.total
        return totals and bool(both) and all(a == b for a, b in both)


def hash_of(url: str) -> str:
    """Return a hash of an address, whose query may hold a signature."""
    return hashlib.sha256(url.encode("utf-8", "backslashreplace")).hexdigest()

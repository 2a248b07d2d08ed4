"""Define a store of whole objects; `objects` opens those of each address.

A store needs no locks and no conditional writes: writers of the same object write the same bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from vlwm.core.errors import DataError


@dataclass(frozen=True)
class Entry:
    """An object of a store.

    Attributes:
        size: bytes.
        modified_s: seconds since 1970; None where the store does not tell.
    """

    size: int
    modified_s: float | None


class ObjectStore(ABC):
    """A flat folder of whole objects.

    Attributes:
        url: as the operator wrote it, without a slash at the end.
    """

    url: str

    @abstractmethod
    def list(self) -> dict[str, Entry]:
        """Return the objects by name; empty where the folder does not exist yet."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Return the bytes of an object; None where there is none of this name."""

    def read_start(self, name: str, size: int) -> bytes | None:
        """Return the first `size` bytes of an object, or all; None where there is none."""
        raw = self.read(name)
        return None if raw is None else raw[:size]

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write an object: it appears whole or not at all."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete an object; nothing happens where there is none."""

    @abstractmethod
    def write_file(self, name: str, path: Path) -> None:
        """Write a local file as an object, without holding it in memory."""

    @abstractmethod
    def read_file(self, name: str, path: Path) -> str:
        """Bring an object into a local file, and return the SHA-256 of its bytes.

        Raises:
            DataError: there is no object of this name.
        """

    @abstractmethod
    def sha256(self, name: str) -> str | None:
        """Return the SHA-256 of an object as the store has it; None where it is missing."""

    def place(self, name: str) -> str:
        """Return the URL of an object."""
        return f"{self.url}/{name}"


def gone(where: str) -> DataError:
    """Return the error of an object that is missing where it was listed."""
    return DataError(
        "an object of the store is gone", where=where, remedy="run the same command again"
    )

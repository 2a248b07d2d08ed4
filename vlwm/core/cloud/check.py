"""One line of the checklist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Command = tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """One check: its subject, its result, and the remedy."""

    name: str
    status: str
    """ok, warn (training works, with a loss) or fail (it does not)"""
    detail: str
    fix: str | None = None
    """what to do or type; never None where the status is fail"""
    repair: tuple[Command, ...] = ()
    """commands that `--fix` may run, in turn"""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return {"name": self.name, "status": self.status, "detail": self.detail, "fix": self.fix}

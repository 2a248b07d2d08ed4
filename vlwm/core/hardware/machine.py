"""The machine that is looked at: a root folder and an environment.

Everything in `hardware/` and `cloud/` reads files below `root` and variables of `environ`, never
the real ones directly, so that a whole fake machine can be handed over in a test.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """The machine to look at. The default is the one this process runs on."""

    root: Path = Path("/")
    """folder used as `/`"""
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    """environment of the operator's shell; may hold secrets, so it is never printed"""

    @property
    def real(self) -> bool:
        """Return whether it is this very machine, so that commands can repair it."""
        return self.root == Path("/")

    def path(self, absolute: str | Path) -> Path:
        """Return the real location of an absolute path of the machine."""
        return self.root / str(absolute).lstrip("/")

    def text(self, absolute: str | Path) -> str | None:
        """Return a small file's text, or None where it cannot be read."""
        try:
            return self.path(absolute).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def number(self, absolute: str | Path) -> int | None:
        """Return the whole number that a file holds, or None where it holds none."""
        try:
            return int((self.text(absolute) or "").strip())
        except ValueError:
            return None

    def exists(self, absolute: str | Path) -> bool:
        """Return whether a path exists; False where that cannot be found out."""
        try:
            return self.path(absolute).exists()
        except OSError:
            return False

"""Know how long a unit of each kind of work takes before a run has measured it.

A kind is a part of the run, or one of the kinds inside a part below. The pace of a kind comes from
the last run of this config on this device, kept in `~/.cache/vlwm/pace.json`; without one, from
the table below.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from vlwm.core.errors import VlwmError
from vlwm.core.files import read_json, write_json

VALIDATE, FIRST = "/validate", "/first"
"""endings of a stage's name: its validations, and the extra work of the first validation"""

COUNT = "/count"
"""ending of the names under which the number of units is kept"""

_SECONDS = {
    "test_local": {
        "prepare": 0.06, "tokenizer": 0.43, "motion": 0.037, "fusion": 0.22, "completion": 0.25,
        "world": 3.4,
    },
    "tokyo_small": {
        "prepare": 0.016, "tokenizer": 1.17, "motion": 0.144, "fusion": 0.344, "completion": 0.6,
        "world": 1.63,
    },
    "": {
        "prepare": 0.5, "tokenizer": 3.8, "motion": 0.03, "fusion": 0.31, "completion": 0.6,
        "world": 6.3,
    },
}  # fmt: skip
"""seconds on one thread of a CPU, by preset: of a frame that is prepared, of an optimizer step"""

_OF_A_SAMPLE = {
    "tokenizer/validate": ("tokenizer", 0.35),
    "world/validate": ("world", 2.0),
    "world/first": ("world", 1.7),
    "eval": ("world", 2.6),
}
"""time of a validation or test sample, as a multiple of a training sample of that stage; on a CPU
with the 75,000 cells of test_local"""


def expected_paces(config: str, batches: dict[str, int]) -> dict[str, float]:
    """Return seconds a unit of every kind of work, for a run that knows nothing of this machine.

    Args:
        config: name of the preset.
        batches: samples of an optimizer step of each stage, by its name.
    """
    paces = dict(_SECONDS.get(config, _SECONDS[""]))
    for kind, (stage, multiple) in _OF_A_SAMPLE.items():
        paces[kind] = multiple * paces[stage] / max(1, batches.get(stage, 1))
    return paces


class PaceMemory:
    """The paces of earlier runs on this machine.

    Args:
        path: the file; None keeps nothing.
        key: what a pace holds for: config, grid, batch, device.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self._path = path
        self._key = key

    def read(self) -> dict[str, float]:
        """Return kind -> seconds a unit, and kind + `COUNT` -> units; empty where none is kept."""
        return {} if self._path is None else _read(self._path).get(self._key, {})

    def write(self, paces: dict[str, float]) -> None:
        """Keep what a run has measured; kinds that it left out keep their older pace."""
        if self._path is None:
            return
        known = _read(self._path)
        known[self._key] = {**known.get(self._key, {}), **paces}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, known)
        except (OSError, VlwmError):
            return  # a pace is a convenience; a full or read-only home must not fail the run


def pace_file() -> Path:
    """Return where paces are kept: below XDG_CACHE_HOME or ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "vlwm" / "pace.json"


def _read(path: Path) -> dict[str, dict[str, float]]:
    """Return what is kept there; a damaged file counts as empty."""
    try:
        values = read_json(path)
    except (VlwmError, OSError, json.JSONDecodeError):
        return {}
    if not isinstance(values, dict):
        return {}
    good = {}
    for key, paces in values.items():
        if isinstance(paces, dict):
            good[key] = {
                name: float(pace)
                for name, pace in paces.items()
                if isinstance(pace, (int, float)) and 0 < pace < 1e9
            }
    return good

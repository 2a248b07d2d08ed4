"""Checksums of the JSON files of a data folder, so that damage is found and not trained on.

`session.json` and `splits.json` carry the key `checksum` over all their other values. Files without
it (of recorders, of earlier versions) load as they are.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlwm.core.errors import DataError

KEY = "checksum"


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON values with their checksum as the last key."""
    plain = {k: v for k, v in values.items() if k != KEY}
    return {**plain, KEY: _checksum(plain)}


def check_seal(values: Mapping[str, Any], where: Path) -> None:
    """Compare JSON values with the checksum among them, if there is one.

    Raises:
        DataError: it differs.
    """
    plain = {k: v for k, v in values.items() if k != KEY}
    if KEY in values and values[KEY] != _checksum(plain):
        raise DataError(
            "the file differs from its checksum",
            where=where,
            remedy=f"delete the key '{KEY}' if you changed the file on purpose; "
            "else delete the file and run vlwm prepare again",
        )


def _checksum(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, ensure_ascii=True)
    return f"{zlib.crc32(text.encode()):08x}"

"""The numbers of a glTF: its buffers, inside or next to it, and the lists cut out of them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from vlwm.core.text import safe_text

_COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
MOST_NUMBERS = 300_000_000

ReadFile = Callable[[str], "bytes | None"]
"""returns the bytes of a file next to the tile, None where it is missing"""


class BrokenTile(Exception):
    """A tile that cannot be used, and why."""


def buffers_of(scene: dict[str, Any], binary: bytes | None, read_file: ReadFile) -> list[bytes]:
    found = []
    for number, buffer in enumerate(scene.get("buffers") or ()):
        uri = buffer.get("uri")
        if uri is None:
            found.append(binary if number == 0 and binary is not None else b"")
        elif str(uri).startswith("data:"):
            head, _, body = str(uri).partition(",")
            found.append(
                base64.b64decode(body) if head.endswith("base64") else unquote_to_bytes(body)
            )
        else:
            data = read_file(str(uri))
            if data is None:
                raise BrokenTile(f"its buffer {safe_text(uri, 90)} is missing")
            found.append(data)
    return found


class Lists:
    """Lists of numbers of a parsed glTF.

    Args:
        scene: its JSON.
        buffers: as `buffers_of` returns them.
    """

    def __init__(self, scene: dict[str, Any], buffers: list[bytes]) -> None:
        self.scene, self.buffers = scene, buffers

    def view(self, index: int) -> bytes:
        view = self.scene["bufferViews"][index]
        if "EXT_meshopt_compression" in (view.get("extensions") or {}):
            raise BrokenTile("it needs EXT_meshopt_compression, which is not read")
        buffer = self.buffers[view.get("buffer") or 0]
        start, size = int(view.get("byteOffset") or 0), int(view["byteLength"])
        if start < 0 or size < 0 or start + size > len(buffer):
            raise BrokenTile("a part of its buffer is missing")
        return buffer[start : start + size]

    def accessor(self, index: int) -> NDArray:
        """Return an accessor (N, width); normalised integers become fractions of one."""
        accessor = self.scene["accessors"][index]
        kind = np.dtype(_COMPONENTS[accessor["componentType"]])
        width, count = _WIDTHS[accessor["type"]], int(accessor["count"])
        if count < 0 or count * width > MOST_NUMBERS:
            raise BrokenTile(f"{count} numbers in one list")
        if accessor.get("bufferView") is None:
            rows = np.zeros((count, width), kind)
        else:
            rows = self._rows_of(
                self.view(accessor["bufferView"]), count, width, kind,
                int(accessor.get("byteOffset") or 0),
                self.scene["bufferViews"][accessor["bufferView"]].get("byteStride"),
            )  # fmt: skip
        sparse = accessor.get("sparse")
        if sparse:
            size = int(sparse["count"])
            at = self._rows_of(
                self.view(sparse["indices"]["bufferView"]), size, 1,
                np.dtype(_COMPONENTS[sparse["indices"]["componentType"]]),
                int(sparse["indices"].get("byteOffset") or 0), None,
            )  # fmt: skip
            rows[at.reshape(-1)] = self._rows_of(
                self.view(sparse["values"]["bufferView"]), size, width, kind,
                int(sparse["values"].get("byteOffset") or 0), None,
            )  # fmt: skip
        if accessor.get("normalized") and kind.kind in "iu":
            return np.maximum(rows / np.iinfo(kind).max, -1.0)
        return rows

    @staticmethod
    def _rows_of(
        data: bytes, count: int, width: int, kind: np.dtype, start: int, stride: int | None
    ) -> NDArray:
        step = int(stride or kind.itemsize * width)
        if not count:
            return np.zeros((0, width), kind)
        if start < 0 or step < 0 or start + step * (count - 1) + kind.itemsize * width > len(data):
            raise BrokenTile("a list of numbers is cut off")
        return np.ndarray((count, width), kind, data, start, (step, kind.itemsize)).copy()

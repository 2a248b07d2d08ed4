"""Read the vertices of PLY files (Turk 1994): ascii and both binary orders."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[np.generic]]

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}


def read_ply(raw: bytes) -> Columns:
    """Return the scalar properties of the vertices by name, each (N,).

    Raises:
        ValueError: the bytes are not a PLY file whose first element is `vertex`.
    """
    if raw[:3] != b"ply":
        raise ValueError("no PLY header")
    form, points = "", -1
    fields: list[tuple[str, str]] = []
    start, element = 0, ""
    while True:
        end = raw.find(b"\n", start)
        if end < 0 or start > 1 << 16:
            raise ValueError("the PLY header has no end")
        words = raw[start:end].decode("ascii", "replace").split()
        start = end + 1
        if words[:1] == ["format"]:
            form = words[1]
        elif words[:1] == ["element"]:
            if element and points < 0:
                raise ValueError("the vertices are not the first element")
            element = words[1]
            points = int(words[2]) if element == "vertex" else points
        elif words[:1] == ["property"] and element == "vertex":
            fields.append((words[-1], _TYPES[words[1]]))  # a list has no scalar type: KeyError
        elif words[:1] == ["end_header"]:
            break
    if form not in _ORDERS or points < 0 or not fields:
        raise ValueError(f"PLY of the format {form!r} with {len(fields)} properties")
    if form == "ascii":
        table = np.array(raw[start:].split(None, points * len(fields))[: points * len(fields)])
        rows = table.astype(np.float64).reshape(points, len(fields))
        return {name: rows[:, k] for k, (name, _) in enumerate(fields)}
    layout = np.dtype([(name, _ORDERS[form] + kind) for name, kind in fields])
    cells = np.frombuffer(raw, layout, points, start)
    return {name: cells[name] for name, _ in fields}

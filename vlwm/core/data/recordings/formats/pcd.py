"""Read PCD files (Point Cloud Library, format 0.7): ascii, binary and binary_compressed.

https://pointclouds.org/documentation/tutorials/pcd_file_format.html; the compression is LZF, the
fields one after the other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlwm.core.geometry.jit import compiled

Columns = dict[str, NDArray[np.generic]]

_KINDS = {"F": "f", "I": "i", "U": "u"}


def read_pcd(raw: bytes) -> Columns:
    """Return the fields of a PCD file by name, each (N,); of fields with a count, the first value.

    Raises:
        ValueError: the bytes are not a whole PCD file.
    """
    header, start = _header(raw)
    names = header["FIELDS"]
    counts = [int(v) for v in header.get("COUNT", ["1"] * len(names))]
    kinds = zip(header["TYPE"], header["SIZE"], strict=True)
    types = [np.dtype(f"<{_KINDS[kind]}{int(size)}") for kind, size in kinds]
    points = int(header["POINTS"][0]) if "POINTS" in header else _area(header)
    if not len(names) == len(counts) == len(types) or points < 0:
        raise ValueError("the PCD header contradicts itself")
    layout = np.dtype(
        {
            "names": [str(k) for k in range(len(names))],
            "formats": [(t, (c,)) for t, c in zip(types, counts, strict=True)],
        }
    )
    storage = header["DATA"][0].lower()
    if storage == "ascii":
        columns = _ascii(raw[start:], types, counts, points)
    elif storage == "binary":
        rows = np.frombuffer(raw, layout, points, start)
        columns = [rows[str(k)][:, 0] for k in range(len(names))]
    elif storage == "binary_compressed":
        columns = _compressed(raw, start, types, counts, points)
    else:
        raise ValueError(f"PCD data of the kind {storage!r}")
    # Several padding fields may share the name "_"; the first of a name counts.
    return dict(reversed(list(zip(names, columns, strict=True))))


def _header(raw: bytes) -> tuple[dict[str, list[str]], int]:
    """Return the words after each key, and where the data begin."""
    found: dict[str, list[str]] = {}
    start = 0
    while "DATA" not in found:
        end = raw.find(b"\n", start)
        if end < 0 or start > 1 << 16:
            raise ValueError("no PCD header")
        key, *words = raw[start:end].decode("ascii", "replace").split() or [""]
        found[key.upper()] = words
        start = end + 1
    missing = [k for k in ("FIELDS", "SIZE", "TYPE") if k not in found] + [""] * (not found["DATA"])
    if missing:
        raise ValueError(f"the PCD header lacks {missing[0] or 'the kind of DATA'}")
    return found, start


def _area(header: dict[str, list[str]]) -> int:
    return int(header["WIDTH"][0]) * int(header["HEIGHT"][0])


def _ascii(
    raw: bytes, types: list[np.dtype], counts: list[int], points: int
) -> list[NDArray[np.generic]]:
    table = np.array(raw.split(), dtype=np.float64)
    if len(table) != points * sum(counts):
        raise ValueError(f"{len(table)} numbers instead of {points * sum(counts)}")
    rows = table.reshape(points, sum(counts))
    places = np.cumsum([0, *counts[:-1]])
    return [rows[:, p] for p in places]


def _compressed(
    raw: bytes, start: int, types: list[np.dtype], counts: list[int], points: int
) -> list[NDArray[np.generic]]:
    # two sizes in bytes, then LZF; unpacked, a field is stored for all points before the next
    packed, unpacked = (int(v) for v in np.frombuffer(raw, "<u4", 2, start))
    wanted = points * sum(t.itemsize * c for t, c in zip(types, counts, strict=True))
    body = np.frombuffer(raw, np.uint8, packed, start + 8)
    if unpacked != wanted or unpacked > (1 << 32):
        raise ValueError(f"{unpacked} unpacked bytes instead of {wanted}")
    out = np.zeros(unpacked, dtype=np.uint8)
    if _lzf(body, out) != unpacked:
        raise ValueError("the compressed data are damaged")
    columns, at = [], 0
    for kind, count in zip(types, counts, strict=True):
        size = kind.itemsize * count * points
        columns.append(out[at : at + size].view(kind).reshape(points, count)[:, 0])
        at += size
    return columns


@compiled
def _lzf(packed: NDArray[np.uint8], out: NDArray[np.uint8]) -> int:
    """Decompress LZF into `out` and return the number of bytes written; -1 for damaged data."""
    read, wrote = 0, 0
    while read < len(packed):
        control = int(packed[read])
        read += 1
        if control < 32:  # a literal run
            length = control + 1
            if read + length > len(packed) or wrote + length > len(out):
                return -1
            for k in range(length):
                out[wrote + k] = packed[read + k]
            read += length
            wrote += length
            continue
        length = control >> 5
        if length == 7:
            if read >= len(packed):
                return -1
            length += int(packed[read])
            read += 1
        if read >= len(packed):
            return -1
        source = wrote - ((control & 31) << 8) - int(packed[read]) - 1
        read += 1
        length += 2
        if source < 0 or wrote + length > len(out):
            return -1
        for k in range(length):  # byte by byte: the copy may overlap itself
            out[wrote + k] = out[source + k]
        wrote += length
    return wrote

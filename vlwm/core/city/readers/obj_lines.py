"""The lines of an OBJ file as arrays, as its specification and its exporters write them.

Two ways through a file: plain triangles with positive indices are read as whole arrays; anything
else (polygons, negative indices, tabs, continued lines, vertex colours, a line that is wrong) line
by line. A wrong line does not end the reading: it is remembered with the object it belongs to.

Letters: V vertices, F faces.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vlwm.core.geometry.triangulate import Polygons, triangulate
from vlwm.core.text import safe_text

_PLAIN = frozenset(
    [b"v ", b"vt", b"vn", b"f ", b"o ", b"g ", b"s ", b"us", b"mt", b"l ", b"p ", b"", b"#", b" "]
)
"""beginnings of the lines of a plain file; comments aside"""
_IGNORED = frozenset(
    b"vt vn vp s usemtl mtllib l p usemap maplib lod bevel c_interp d_interp shadow_obj trace_obj "
    b"mg ctech stech csh call end parm trim hole scrv sp con deg step bmat cstype".split()
)
FREE_FORM = "free-form curves or surfaces"
_FREE_FORM = frozenset([b"curv", b"curv2", b"surf"])
_BOMS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


@dataclass(frozen=True)
class BadLine:
    """A line that could not be used.

    Attributes:
        number: counted from 1.
        object, group: marks above it; -1 is none.
        vertex: one of the vertices that it names, -1 where none is known.
    """

    number: int
    reason: str
    object: int = -1
    group: int = -1
    vertex: int = -1


@dataclass(eq=False)
class ObjLines:
    """Content of a file's lines.

    Attributes:
        vertices: float64 (V, 3); NaN where the line is wrong.
        faces: int64 (F, 3).
        objects, groups: int64 (F,) marks (`o`, `g`) above each face; -1 is none.
        object_names, group_names: of the marks.
        bad: lines that could not be used.
        bad_vertices: line and reason of each NaN vertex.
        others: lines that are not understood, by their first word.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    objects: NDArray[np.int64]
    groups: NDArray[np.int64]
    object_names: list[str]
    group_names: list[str]
    bad: list[BadLine] = field(default_factory=list)
    bad_vertices: dict[int, BadLine] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)


def lines_of(data: bytes) -> list[bytes]:
    """Return the lines of a file in UTF-8 or a one-byte encoding, without a byte order mark."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            data = data.decode(encoding, "replace").encode("utf-8")
    return data.removeprefix(b"\xef\xbb\xbf").splitlines()


def read_plain(lines: list[bytes]) -> ObjLines | None:
    """Return the contents of a plain file; None where the file is not that plain."""
    kinds = np.array([line[:2] for line in lines], dtype="S2")
    beginnings = {k for k in np.unique(kinds).tolist() if not k.startswith(b"#")}
    if not beginnings <= _PLAIN or any(line.endswith(b"\\") for line in lines):
        return None
    vertices = _numbers([line[2:] for line in lines if line[:2] == b"v "], float)
    text = [line[2:] for line in lines if line[:2] == b"f "]
    if text and b"/" in text[0]:
        text = [re.sub(rb"/[^ ]*", b"", line) for line in text]
    faces = _numbers(text, np.int64)
    if vertices is None or faces is None or not np.isfinite(vertices).all():
        return None
    if len(faces) and (faces.min() < 1 or faces.max() > len(vertices)):
        return None
    is_face = kinds == b"f "
    return ObjLines(
        vertices,
        faces - 1,
        (np.cumsum(kinds == b"o ") - 1)[is_face],
        (np.cumsum(kinds == b"g ") - 1)[is_face],
        [_name(line) for line in lines if line[:2] == b"o "],
        [_name(line) for line in lines if line[:2] == b"g "],
    )


def _numbers(lines: list[bytes], kind: type) -> NDArray | None:
    """Return lines of exactly three numbers as (N, 3); None where one is anything else."""
    if not lines:
        return np.zeros((0, 3), dtype=kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        try:
            values: NDArray = np.fromstring(b"\n".join(lines), dtype=kind, sep=" ")
        except (DeprecationWarning, ValueError):
            return None
    if len(values) != 3 * len(lines) or any(len(line.split()) != 3 for line in lines):
        return None
    return values.reshape(-1, 3)


def _name(line: bytes) -> str:
    """Return the name on an `o` or `g` line, in UTF-8, else in Japanese Windows' encoding."""
    raw = line[1:].strip()
    for encoding in ("utf-8", "cp932"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1")


def read_careful(lines: list[bytes]) -> ObjLines:
    """Return the contents of any file, line by line."""
    reading = _Reading()
    number, total = 0, len(lines)
    while number < total:
        line, first = lines[number], number + 1
        number += 1
        while line.endswith(b"\\") and number < total:
            line = line[:-1] + b" " + lines[number]
            number += 1
        words = line.split()
        if words and not words[0].startswith(b"#"):
            reading.take(words, line, first)
    return reading.done()


def _without_comment(words: list[bytes]) -> list[bytes]:
    """Return the words before a comment at the end of a line of numbers."""
    ends = [i for i, word in enumerate(words) if word.startswith(b"#")]
    return words[: ends[0]] if ends else words


@dataclass
class _Reading:
    """State after the lines read so far."""

    vertices: list[tuple[float, float, float]] = field(default_factory=list)
    corners: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    object_names: list[str] = field(default_factory=list)
    group_names: list[str] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)
    bad_vertices: dict[int, BadLine] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)

    def take(self, words: list[bytes], line: bytes, number: int) -> None:
        """Add one line that is not empty."""
        key = words[0]
        if key == b"v":
            self._vertex(_without_comment(words), number)
        elif key in (b"f", b"fo"):
            self._face(_without_comment(words), number)
        elif key == b"o":
            self.object_names.append(_name(line.strip()))
        elif key == b"g":
            self.group_names.append(_name(line.strip()))
        elif key in _FREE_FORM:
            self.others[FREE_FORM] += 1
        elif key not in _IGNORED:
            self.others[safe_text(key[:20].decode("utf-8", "replace"))] += 1

    def _vertex(self, words: list[bytes], number: int) -> None:
        """Add a vertex: x y z, then perhaps a weight, or a colour, or both."""
        reason = None
        try:
            # some exporters write numbers as their country does: 1,5
            x, y, z, *_ = (float(word.replace(b",", b".")) for word in words[1:])
            if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(z)):
                reason = "a coordinate is not a finite number"
            elif any(b"_" in word for word in words):
                reason = "a vertex needs three numbers"
        except ValueError:
            reason = "a vertex needs three numbers"
        if reason is not None:
            x = y = z = math.nan
            self.bad_vertices[len(self.vertices)] = BadLine(number, reason)
        self.vertices.append((x, y, z))

    def _face(self, words: list[bytes], number: int) -> None:
        count = len(self.vertices)
        reason = None
        index: list[int] = []
        try:
            for word in words[1:]:
                corner = int(word.split(b"/", 1)[0])
                index.append(corner - 1 if corner > 0 else count + corner if corner else -1)
        except ValueError:
            reason = "a face needs whole numbers"
        inside = [i for i in index if 0 <= i < count]
        if reason is None and len(index) < 3:
            reason = "a face has fewer than three corners"
        elif reason is None and len(inside) < len(index):
            reason = "a face names a vertex that does not exist"
        marks = (len(self.object_names) - 1, len(self.group_names) - 1)
        if reason is not None:
            self.bad.append(BadLine(number, reason, *marks, inside[0] if inside else -1))
            return
        self.corners += index
        self.sizes.append(len(index))
        self.objects.append(marks[0])
        self.groups.append(marks[1])

    def done(self) -> ObjLines:
        """Return everything, polygons cut into triangles."""
        vertices = np.array(self.vertices, dtype=np.float64).reshape(-1, 3)
        sizes = np.array(self.sizes, dtype=np.int64)
        faces, owner = _triangles(vertices, np.array(self.corners, dtype=np.int64), sizes)
        return ObjLines(
            vertices,
            faces,
            np.array(self.objects, dtype=np.int64)[owner],
            np.array(self.groups, dtype=np.int64)[owner],
            self.object_names,
            self.group_names,
            self.bad,
            self.bad_vertices,
            self.others,
        )


def _triangles(
    vertices: NDArray[np.float64], corners: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return triangles (F, 3) of polygons laid end to end, and the polygon (F,) of each.

    A polygon with a NaN corner becomes a fan: its object is left out, but has to be known.
    """
    if not len(sizes):
        return np.zeros((0, 3), np.int64), np.zeros(0, np.int64)
    starts = np.cumsum(sizes) - sizes
    points = vertices[corners]  # (C, 3)
    broken = np.add.reduceat(np.isnan(points[:, 0]), starts) > 0
    points = np.where(np.repeat(broken, sizes)[:, None], 0.0, points)
    cut, owner = triangulate(Polygons(points, sizes, np.ones(len(sizes), dtype=np.int64)))
    return corners[cut], owner

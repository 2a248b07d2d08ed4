"""OBJ files: absolute easting, northing, height in metres, z up, unless they are found otherwise.

Objects (`o`, else `g`) are buildings. Where a file has one object for a whole town, its groups are,
or its shells (faces that hang together by their corners); the official tiles of PLATEAU name none.
The coordinate system is in a header comment, a `.prj` file or the file's name (`…_6677.obj`); else
it is Tokyo's zone IX, with a note.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.readers.feature_batch import BUILDING, Skipped
from vlwm.core.city.readers.obj_axes import Axes, axes_of, stated_unit
from vlwm.core.city.readers.obj_kinds import (
    INWARD_SHARE,
    inward_note,
    joined_parts,
    kinds_of,
    levels_of,
    notes_of,
    share_inward,
)
from vlwm.core.city.readers.obj_lines import FREE_FORM, BadLine, ObjLines, lines_of, read_careful
from vlwm.core.city.readers.obj_lines import read_plain as _read_plain
from vlwm.core.city.readers.obj_place import (
    are_degrees,
    from_degrees,
    is_north_first,
    system_of,
)
from vlwm.core.city.readers.source_files import Source
from vlwm.core.geometry.shells import scattered, shells_of_faces
from vlwm.core.text import safe_text

DEFAULT_CRS = "EPSG:6677"
_HEADER_LINES = 200
"""lines in which comments about the file are looked for"""
_COPYRIGHT = re.compile(
    r"#\s*((?:copyright|attribution|source|licen[cs]e)\b.{3,200})", re.IGNORECASE
)
_WIDEST_M = 150.0
"""an object wider than this, of shells that stay apart, is several buildings"""
_TOWN_SHARE = 0.6
"""of the whole file: an object of this size is several buildings"""
_BLOCK_M = 100.0
"""a wider object may be several buildings"""


@dataclass(frozen=True)
class Options:
    """Operator's statements about OBJ files.

    Attributes:
        up: axis that points up; None lets the buildings tell.
        scale: metres of one unit; None lets them tell.
    """

    up: str | None = None
    scale: float | None = None


@dataclass(frozen=True, eq=False)
class ObjFile:
    """One OBJ file.

    Attributes:
        crs: EPSG code that it states, None where it states none.
        vertices: (V, 3) float64 easting, northing, height, metres.
        faces: int64 (F, 3).
        feature_ids: names of the features.
        feature_of_face: int64 (F,).
        named: False where the features are shells that the file does not name.
        skipped: features that were left out.
        axes: how its coordinates were read.
        notes: for the operator; "{file}" is replaced by its name.
        copyright: what a comment states of its source.
        kinds: of the features: building, or what `obj_kinds` tells.
        lods: levels of detail of the features, where their names state them.
    """

    crs: str | None
    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    feature_ids: list[str]
    feature_of_face: NDArray[np.int64]
    named: bool = True
    skipped: list[Skipped] = field(default_factory=list)
    axes: Axes = field(default_factory=Axes)
    notes: list[str] = field(default_factory=list)
    copyright: str = ""
    kinds: list[str] = field(default_factory=list)
    lods: list[int] | None = None


def read_obj(
    source: Source, options: Options | None = None, otherwise: Axes | None = None
) -> ObjFile:
    """Read one OBJ file. A broken line leaves out the one feature that it belongs to.

    Args:
        otherwise: axes of a file with too few buildings to tell; z and metres if None.

    Raises:
        DataError: the file cannot be read.
    """
    lines = lines_of(source.read())
    found = _read_plain(lines) or read_careful(lines)
    head = "\n".join(line.decode("utf-8", "replace") for line in _comments(lines))
    crs = system_of(head, source)
    more = []
    if are_degrees(found.vertices, crs):
        found.vertices, crs, note = from_degrees(found.vertices)
        more.append(f"{{file}}: {note}")
    shells = _Shells(found)
    axes, notes = _axes(shells, lines, options or Options(), otherwise or Axes(), source)
    vertices = axes.applied(found.vertices)
    owners, names, named = _features(vertices, found, shells)
    owners, names = joined_parts(
        found.vertices, found.faces, owners, names, lambda: shells.of_faces
    )
    names = [name or f"{source.name}#{i}" for i, name in enumerate(names)]
    notes += more
    skipped, keep = _without_broken(found, owners, names, named, notes)
    notes += [
        f"{{file}}: not read: {count} {key}"
        if key == FREE_FORM
        else f"{{file}}: {count} lines that begin with {key!r} are not understood"
        for key, count in found.others.most_common(3)
    ]
    stated = _COPYRIGHT.search(head)
    kinds = _kinds(source, names, vertices, found.faces[keep], owners[keep], notes)
    vertices = _east_first(source, crs, vertices, found.faces[keep], owners[keep], notes)
    plain, lods = levels_of(names)
    if lods is not None:
        count = len(plain) - len(set(plain))
        notes.append(
            f"{{file}}: {count} buildings are there in several levels: the finest is taken"
        )
        names = plain
    return ObjFile(
        crs, vertices, found.faces[keep], names, owners[keep], named,
        skipped, axes, notes, stated.group(1).strip() if stated else "", kinds, lods,
    )  # fmt: skip


def _east_first(
    source: Source, crs: str | None, vertices: NDArray[np.float64],
    faces: NDArray[np.int64], owners: NDArray[np.int64], notes: list[str],
) -> NDArray[np.float64]:  # fmt: skip
    """Return vertices (V, 3) with east before north; note what is unusual about their axes."""
    inward = share_inward(vertices, faces, owners)
    is_outward = inward is not None and inward <= 1.0 - INWARD_SHARE
    used = vertices[np.unique(faces)]
    reason = is_north_first(used, crs or DEFAULT_CRS, source.mesh, is_outward=is_outward)
    if reason is not None:
        notes.append(f"{{file}}: x is taken as north and y as east: {reason}")
        vertices = vertices[:, [1, 0, 2]]
        inward = None if inward is None else 1.0 - inward
    doubt = inward_note(inward)
    notes += [f"{{file}}: {doubt}"] if doubt else []
    return vertices


def _kinds(
    source: Source, names: list[str], vertices: NDArray[np.float64],
    faces: NDArray[np.int64], owners: NDArray[np.int64], notes: list[str],
) -> list[str]:  # fmt: skip
    """Return the kinds of the features; PLATEAU's own names of files tell them better."""
    if source.kind is not None:
        return [BUILDING] * len(names)
    kinds = kinds_of(names, vertices, faces, owners)
    notes += [f"{{file}}: {safe_text(note)}" for note in notes_of(kinds, names)]
    return kinds


class _Shells:
    """The shells of a whole file in its own units, found when they are first asked for."""

    def __init__(self, found: ObjLines) -> None:
        self.found = found

    @cached_property
    def of_faces(self) -> tuple[NDArray[np.int64], int]:
        """Shell (F,) of each face, and how many there are."""
        return shells_of_faces(_without_nan(self.found.vertices), self.found.faces)


def _comments(lines: Sequence[bytes]) -> list[bytes]:
    return [line for line in lines[:_HEADER_LINES] if line.startswith(b"#")]


def _axes(
    shells: _Shells, lines: Sequence[bytes], options: Options, otherwise: Axes, source: Source
) -> tuple[Axes, list[str]]:
    """Return the axes of a file: as the operator states them, else as its buildings tell."""
    if source.kind in ("dem", "tran"):
        return Axes(
            options.up or otherwise.up, otherwise.mirrored, options.scale or otherwise.scale
        ), []
    found = shells.found
    used = ~np.isnan(found.vertices[found.faces]).any(axis=(1, 2))
    owners = found.objects if len(np.unique(found.objects)) > 1 else found.groups
    if len(np.unique(owners)) < 2:
        owners, _ = shells.of_faces
    triangles = found.vertices[found.faces[used]]
    axes, doubts = axes_of(triangles, owners[used], otherwise, options.up)
    unit = options.scale or stated_unit(lines) or axes.scale
    axes = replace(axes, scale=unit)
    words = axes.words(options.up is not None, options.scale is not None)
    doubts = doubts if unit == 1.0 and options.scale is None else []
    return axes, [f"{{file}}: {text}" for text in (*words, *doubts)]


def _without_nan(vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return vertices (V, 3) in which each NaN is a place of its own, far from all others."""
    lost = np.isnan(vertices).any(axis=1)
    if not lost.any():
        return vertices
    replaced = vertices.copy()
    replaced[lost] = (1e9 + 10.0 * np.flatnonzero(lost))[:, None]
    return replaced


def _features(
    vertices: NDArray[np.float64], found: ObjLines, shells: _Shells
) -> tuple[NDArray[np.int64], list[str], bool]:
    """Return the feature (F,) of each face, their names, and whether the file names them."""
    owners, names = found.objects, found.object_names
    if not names or (len(np.unique(owners)) < 2 and _are_buildings(vertices, found)):
        owners, names = found.groups, found.group_names
    names = list(names)
    if len(owners) and owners.min() < 0 and names:  # faces above the first name
        names.insert(0, "")
        owners = owners + 1
    if not len(owners):
        return owners, names, bool(names)
    if not names:
        label, count = shells.of_faces
        return label, [""] * count, False
    used = np.unique(owners)
    if len(used) < 2 or _spans_town(vertices, found.faces, owners):
        label, count = shells.of_faces
        if len(used) < 2 and scattered(_plans(vertices, found.faces, label)) < 2:
            return owners, names, True
        return label, [""] * count, False
    return _split(vertices, found.faces, owners, names)


def _are_buildings(vertices: NDArray[np.float64], found: ObjLines) -> bool:
    """Return True where the groups of a file with one object are buildings, not parts of one."""
    if len(np.unique(found.groups)) < 2:
        return False
    plans = _plans(vertices, found.faces, found.groups)
    return scattered(plans) > 1 or float(np.ptp(plans, axis=(0, 1)).max()) > _BLOCK_M


def _spans_town(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], owners: NDArray[np.int64]
) -> bool:
    """Return True if a name is that of a material of the whole town, not of a building.

    Its plan reaches over most of the file's, and its shells stay apart.
    """
    plans = _plans(vertices, faces, owners)
    whole = float(np.ptp(plans, axis=(0, 1)).max())
    sides = (plans[:, 1] - plans[:, 0]).max(axis=1)
    if whole < _BLOCK_M:
        return False
    for label in np.unique(owners)[sides > _TOWN_SHARE * whole]:
        mine = owners == label
        shells, _ = shells_of_faces(_without_nan(vertices), faces[mine])
        if scattered(_plans(vertices, faces[mine], shells)) > 2:
            return True
    return False


def _split(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    owners: NDArray[np.int64],
    names: list[str],
) -> tuple[NDArray[np.int64], list[str], bool]:
    """Return features in which an object as wide as a quarter is taken by its shells."""
    plans = _plans(vertices, faces, owners)
    wide = np.unique(owners)[(plans[:, 1] - plans[:, 0]).max(axis=1) > _WIDEST_M]
    owners, names = owners.copy(), list(names)
    for label in wide:
        mine = np.flatnonzero(owners == label)
        shells, count = shells_of_faces(_without_nan(vertices), faces[mine])
        if scattered(_plans(vertices, faces[mine], shells)) < 3:
            continue
        owners[mine] = np.where(shells == 0, label, len(names) + shells - 1)
        names += [f"{names[label]}#{k}" for k in range(1, count)]
    return owners, names, True


def _plans(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], owners: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return lowest and highest (x, y) of each owner that occurs, (G, 2, 2), NaN left out."""
    order = np.argsort(owners, kind="stable")
    corners = vertices[faces[order]][:, :, :2]  # (F, 3, 2)
    starts = np.flatnonzero(np.diff(owners[order], prepend=owners[order][0] - 1))
    with np.errstate(invalid="ignore"):
        low = np.fmin.reduceat(np.fmin.reduce(corners, axis=1), starts, axis=0)  # (G, 2)
        high = np.fmax.reduceat(np.fmax.reduce(corners, axis=1), starts, axis=0)
    return np.nan_to_num(np.stack([low, high], axis=1))


def _without_broken(
    found: ObjLines, owners: NDArray[np.int64], names: list[str], named: bool, notes: list[str]
) -> tuple[list[Skipped], NDArray[np.bool_]]:
    """Return features with a broken line, and which faces (F,) belong to none of them."""
    broken: dict[int, BadLine] = {}
    lost: NDArray[np.bool_] = np.asarray(np.isnan(found.vertices).any(axis=1))
    unused = set(found.bad_vertices)
    if lost.any():
        for face in np.flatnonzero(lost[found.faces].any(axis=1)):
            for vertex in found.faces[face][lost[found.faces[face]]]:
                broken.setdefault(int(owners[face]), found.bad_vertices[int(vertex)])
                unused.discard(int(vertex))
    stray = [found.bad_vertices[v] for v in sorted(unused)]
    for bad in found.bad:
        owner = _owner_of(bad, found, owners, named)
        if owner is None:
            stray.append(bad)
        else:
            broken.setdefault(owner, bad)
    if stray:
        first = min(stray, key=lambda b: b.number)
        notes.append(
            f"{{file}}: {len(stray)} broken lines belong to no building, the first is line "
            f"{first.number}: {first.reason}"
        )
    skipped = [Skipped(names[o], f"line {b.number}: {b.reason}") for o, b in sorted(broken.items())]
    return skipped, ~np.isin(owners, list(broken))


def _owner_of(bad: BadLine, found: ObjLines, owners: NDArray[np.int64], named: bool) -> int | None:
    """Return the feature of a face that could not be read: by its marks, or by its vertex."""
    faces = np.zeros(0, dtype=np.int64)
    if named and len(owners):
        alike = (found.objects == bad.object) & (found.groups == bad.group)
        faces = np.flatnonzero(alike if alike.any() else found.objects == bad.object)
    elif bad.vertex >= 0:
        faces = np.flatnonzero((found.faces == bad.vertex).any(axis=1))
    return int(owners[faces[0]]) if len(faces) else None

"""Tell the ground, roads and other flat things of an OBJ file from its buildings.

OBJ knows objects only. Writers of whole scenes (OSM2World, Blender, SketchUp, game engines) put the
terrain, streets and water next to the buildings. They are sheets: their faces all look up, without
a floor or walls. A sheet is the ground by its name, or where it is under the whole
town or alone in its file; it is a road, or something that is not read, by its name alone.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.readers.feature_batch import BUILDING, ROAD, TERRAIN

FLAT = "flat"
"""something that has no height and is not read, such as water"""
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[^\W\d_a-zA-Z]+")
_GROUND = frozenset((
    "terrain", "ground", "relief", "dem", "dtm", "dgm", "landscape", "topography", "topo",
    "地形", "地面", "地表",
))  # fmt: skip
INWARD_SHARE, _FEWEST_WALLED = 0.9, 8
"""of the features that look inward, and features that it takes to tell"""
_ROADS = frozenset((
    "road", "roads", "street", "streets", "highway", "highways", "sidewalk", "sidewalks",
    "footway", "path", "paths", "parking", "railway", "railways", "道路", "歩道", "線路",
))  # fmt: skip
_OTHERS = frozenset((
    "water", "river", "rivers", "lake", "sea", "ocean", "forest", "forests", "grass",
    "landuse", "farmland", "meadow", "beach", "水", "川", "海",
))  # fmt: skip
_UP_SHARE = 0.7
"""of the area that faces up or down: a sheet, not a body"""
_OPEN_SHARE, _CLOSED_SHARE = 0.2, 0.02
_MANY_OPEN, _MOST = 0.25, 0.8
_WALLED_SHARE = 0.2
"""of the area of a building without a floor that is walls"""
_MUCH = 0.5
"""of the town: the ground is at least as large"""
_TOWN_M = 100.0
"""a smaller place has no sheet that must be its ground"""
_ALONE_M = 200.0
"""a wider sheet in a file without any body is ground: no roof is that wide in both directions"""
_FEWEST = 3
"""bodies that the ground is compared with"""
_SINK_M = 5.0
"""the ground is at most so far above the usual base"""


def joined_parts(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    owners: NDArray[np.int64],
    names: list[str],
    shells_of_faces: Callable[[], tuple[NDArray[np.int64], int]],
) -> tuple[NDArray[np.int64], list[str]]:
    """Return owners (F,) and names in which a building's walls, roof and floor are one feature.

    Some writers make an object of each surface (`b1_RoofSurface`). Such parts are open, and close
    to bodies with others that they touch, with a floor or without one; a row of houses that touch
    is closed house by house.

    Args:
        shells_of_faces: returns the shell (F,) of each face, and how many there are.
    """
    if len(names) < 2 or not len(faces) or not np.isfinite(vertices).all():
        return owners, names
    used = np.unique(owners)
    if (_openness(vertices, faces, owners) > _OPEN_SHARE).mean() < _MANY_OPEN:
        return owners, names
    label, count = shells_of_faces()
    pairs = np.unique(np.column_stack([owners, label]), axis=0)  # (P, 2) owner and its shells
    is_whole = len(pairs) <= len(used) / _MOST
    is_body = _bodies(vertices, faces, label)
    if count > _MOST * len(used) or not is_whole or is_body.mean() < _MOST:
        return owners, names
    return label, [_common(parts) for parts in _names_of(pairs, names, count)]


def _names_of(pairs: NDArray[np.int64], names: list[str], count: int) -> list[list[str]]:
    found: list[list[str]] = [[] for _ in range(count)]
    for owner, shell in pairs.tolist():
        found[shell].append(names[owner])
    return found


def _common(names: list[str]) -> str:
    """Return what the names of parts begin with, or the first of them."""
    return posixpath.commonprefix(names).rstrip(" _-.:|") or names[0]


def _openness(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], owners: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the share (G,) of the area of each owner that no other of its faces looks against."""
    left, _ = _left_over(vertices, faces, owners)
    return np.asarray(np.linalg.norm(left, axis=1))


def _bodies(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], owners: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return whether each owner (G,) is closed, or has walls and a roof and is open below only."""
    left, walls = _left_over(vertices, faces, owners)
    closed = np.linalg.norm(left, axis=1) < _CLOSED_SHARE
    aside = np.linalg.norm(left[:, :2], axis=1) < _CLOSED_SHARE
    without_floor = aside & (left[:, 2] > 0) & (walls > _WALLED_SHARE)
    return np.asarray(closed | without_floor)


def _left_over(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], owners: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum of the normals (G, 3) and the walls (G,) as shares of each owner's area."""
    owner = np.unique(owners, return_inverse=True)[1].reshape(-1)
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.maximum(np.bincount(owner, np.linalg.norm(normals, axis=1)), 1e-300)
    left = np.column_stack([np.bincount(owner, normals[:, k]) for k in range(3)])
    walls = np.bincount(owner, np.linalg.norm(normals[:, :2], axis=1))
    return left / total[:, None], walls / total


def kinds_of(
    names: Sequence[str],
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    owners: NDArray[np.int64],
) -> list[str]:
    """Return the kind of each feature (G,): building, road, terrain or flat.

    Args:
        names: of the features; of a feature without one, the file's name.
        vertices: (V, 3) easting, northing, height, metres.
        faces: (F, 3), of whole features.
        owners: (F,) feature of each face.
    """
    kinds = [BUILDING] * len(names)
    if not len(faces):
        return kinds
    numbers, owner = np.unique(owners, return_inverse=True)
    owner = owner.reshape(-1)
    corners = vertices[faces]  # (F, 3, 3)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    upward = np.bincount(owner, normals[:, 2])
    total = np.bincount(owner, np.linalg.norm(normals, axis=1))
    # a closed body has as much that looks down as looks up
    sheets = np.abs(upward) > _UP_SHARE * np.maximum(total, 1e-12)  # (K,)
    words = [{w.lower() for w in _WORD.findall(names[k])} for k in numbers]
    named = np.array([bool(w & _GROUND) for w in words])
    if not (sheets | named).any():
        return kinds
    low, high = np.full((len(numbers), 3), np.inf), np.full((len(numbers), 3), -np.inf)
    np.minimum.at(low, owner, corners.min(axis=1))
    np.maximum.at(high, owner, corners.max(axis=1))
    bodies = ~sheets & ~named
    for place in np.flatnonzero(sheets):
        kind = _kind_of(words[place])
        if kind is not None:
            kinds[numbers[place]] = kind
        elif _is_under_all(int(place), low, high, bodies) or (
            not bodies.any() and _is_the_place(int(place), low, high)
        ):
            kinds[numbers[place]] = TERRAIN
    for place in np.flatnonzero(named & ~sheets):  # ground with a thickness
        if _is_under_all(int(place), low, high, bodies):
            kinds[numbers[place]] = TERRAIN
    return kinds


def seen_from_above(triangles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the triangles (T, 3, 3) of the ground that are its surface: of a slab, its top."""
    edges = triangles[:, 1:] - triangles[:, :1]
    up = np.cross(edges[:, 0], edges[:, 1])[:, 2]
    is_sheet = abs(up.sum()) > _UP_SHARE * np.abs(up).sum()
    return triangles if is_sheet else triangles[up > 0]


def _kind_of(words: set[str]) -> str | None:
    if words & _GROUND:
        return TERRAIN
    if words & _ROADS:
        return ROAD
    return FLAT if words & _OTHERS else None


def _is_under_all(
    place: int, low: NDArray[np.float64], high: NDArray[np.float64], bodies: NDArray[np.bool_]
) -> bool:
    """Return True for something wider than half of the town, and below its bodies (K,)."""
    if bodies.sum() < _FEWEST:
        return False
    plan = high[place, :2] - low[place, :2]
    town = high[bodies, :2].max(axis=0) - low[bodies, :2].min(axis=0)
    if plan.min() < _TOWN_M or (plan < _MUCH * town).any():
        return False
    return bool(low[place, 2] <= np.median(low[bodies, 2]) + _SINK_M)


def _is_the_place(place: int, low: NDArray[np.float64], high: NDArray[np.float64]) -> bool:
    """Return True for something wide that covers most of what a file covers."""
    plan = high[place, :2] - low[place, :2]
    whole = high[:, :2].max(axis=0) - low[:, :2].min(axis=0)
    return bool(plan.min() >= _ALONE_M and (plan >= _MUCH * whole).all())


def notes_of(kinds: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return what was taken for something else than a building."""
    notes = []
    for kind, words in (
        (TERRAIN, "taken as the ground"), (ROAD, "taken as roads"), (FLAT, "flat and not read"),
    ):  # fmt: skip
        mine = [name for name, k in zip(names, kinds, strict=True) if k == kind]
        if mine:
            count = len(mine)
            more = f" and {count - 1} more" if count > 1 else ""
            notes.append(f"{mine[0]}{more}: {words}")
    return notes


_LEVEL = re.compile(r"[ _\-.:]*lod[ _\-]?([0-4])(?![0-9])", re.IGNORECASE | re.ASCII)


def levels_of(names: Sequence[str]) -> tuple[list[str], list[int] | None]:
    """Return names without the level of detail in them, and the levels.

    A file may hold a building in several levels, each an object: `b7_lod1` and `b7_lod2`. Names
    stay as they are, with None, where no building has two.
    """
    found = [_LEVEL.search(name) for name in names]
    if not any(found):
        return list(names), None
    plain = [
        name if match is None else name[: match.start()] + name[match.end() :]
        for name, match in zip(names, found, strict=True)
    ]
    levels = [1 if match is None else int(match.group(1)) for match in found]
    if len(set(plain)) == len(plain) or len(set(zip(plain, levels, strict=True))) < len(plain):
        return list(names), None
    return plain, levels


def share_inward(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], owners: NDArray[np.int64]
) -> float | None:
    """Return the share of features whose walls look inward, as in a mirror; None for too few.

    Args:
        vertices: (V, 3) metres.
        faces, owners: (F, 3) corners of the faces, and the feature (F,) of each.
    """
    if not len(faces):
        return None
    numbers, starts, owner = np.unique(owners, return_index=True, return_inverse=True)
    # about a corner of each feature: far from the origin a volume has no digits left
    corner = vertices[faces[starts, 0]][owner.reshape(-1)]
    a, b, c = (vertices[faces[:, k]] - corner for k in range(3))
    volume = np.bincount(owner.reshape(-1), np.einsum("ij,ij->i", a, np.cross(b, c)))
    return float((volume < 0).mean()) if len(numbers) >= _FEWEST_WALLED else None


def inward_note(inward: float | None) -> str | None:
    """Return a note where the walls of nearly all features look inward."""
    if inward is None or inward < INWARD_SHARE:
        return None
    return (
        "the walls of its buildings look inward: its axes may be exchanged or mirrored (x is east, "
        "y north), or its faces are turned around; they are taken as they are"
    )

"""Find the axis of an OBJ that is up, and its unit, from its buildings.

Buildings are on the ground, so their lowest points are close together along the axis that is up,
and spread over the town along the others. The usual building is 3 to 100 m large, which separates
millimetres, centimetres and kilometres from metres, but not feet. Both need several buildings, and
a result that differs from z up in metres is always noted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

_FEWEST = 5
"""buildings that a guess needs"""
_FLAT_SHARE, _WIDE_SHARE = 0.35, 1.0
_NARROWEST = 1e-6
"""extent below which an axis is flat"""
_STEEPEST = 0.6
"""slope of the ground, rise over run"""
_USUAL_M = (0.5, 300.0)
_MILLIMETRES = 4000.0
"""size of the usual building from which its unit is a millimetre"""
_KILOMETRES = 0.1
"""size of the usual building below which its unit is a kilometre"""
_INWARD_SHARE = 0.5
"""of closed buildings with a negative volume: the axes are left-handed"""
_HEADER_LINES = 200
"""lines in which a comment about the unit is looked for"""
_UNIT = re.compile(rb"^#.*\bunits?\b\s*[:=]?\s*(?:(?:is|are|in)\s+)?\(?([a-z]+)", re.IGNORECASE)
_UNITS = {
    "mm": 1e-3, "millimeter": 1e-3, "millimeters": 1e-3, "millimetre": 1e-3, "millimetres": 1e-3,
    "cm": 1e-2, "centimeter": 1e-2, "centimeters": 1e-2, "centimetre": 1e-2, "centimetres": 1e-2,
    "m": 1.0, "meter": 1.0, "meters": 1.0, "metre": 1.0, "metres": 1.0,
    "km": 1e3, "kilometer": 1e3, "kilometers": 1e3, "kilometre": 1e3, "kilometres": 1e3,
    "in": 0.0254, "inch": 0.0254, "inches": 0.0254, "ft": 0.3048, "foot": 0.3048, "feet": 0.3048,
    "yd": 0.9144, "yard": 0.9144, "yards": 0.9144,
}  # fmt: skip
UPS = ("x", "y", "z")


@dataclass(frozen=True)
class Axes:
    """Transformation of a file's coordinates to east, north, up in metres.

    Attributes:
        up: the axis that points up.
        mirrored: y or x up in a left-handed system (east, up, north).
        scale: metres of one unit.
    """

    up: str = "z"
    mirrored: bool = False
    scale: float = 1.0

    def applied(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return points (..., 3) of the file as east, north, up in metres."""
        if self == Axes():
            return points
        x, y, z = (points[..., k] for k in range(3))
        if self.up == "y":
            turned = np.stack([x, z if self.mirrored else -z, y], axis=-1)
        elif self.up == "x":
            turned = np.stack([y, -z if self.mirrored else z, x], axis=-1)
        else:
            turned = points
        return turned * self.scale

    def words(self, asked_up: bool, asked_scale: bool) -> list[str]:
        """Return what is unusual about the axes and was not asked for."""
        found = []
        if self.up != "z" and not asked_up:
            side = {("y", True): "z as north", ("y", False): "z as south",
                    ("x", True): "z as south", ("x", False): "z as north"}  # fmt: skip
            found.append(
                f"{self.up} is taken as up and {side[self.up, self.mirrored]}; "
                "--up z keeps the file's own axes"
            )
        if self.scale != 1.0 and not asked_scale:
            found.append(f"a unit is taken as {self.scale:g} m; --scale 1 keeps it a metre")
        return found


def stated_unit(lines: Sequence[bytes]) -> float | None:
    """Return metres of one unit where a comment near the beginning states it."""
    for line in lines[:_HEADER_LINES]:
        found = _UNIT.match(line) if line.startswith(b"#") else None
        if found and (unit := _UNITS.get(found.group(1).decode("ascii").lower())):
            return unit
    return None


@np.errstate(all="ignore")  # coordinates may be beyond all numbers; their features go later
def axes_of(
    triangles: NDArray[np.float64],
    owners: NDArray[np.int64],
    otherwise: Axes,
    up: str | None = None,
) -> tuple[Axes, list[str]]:
    """Return up axis and unit of a file, and a note of what remains unknown.

    Args:
        triangles: (T, 3, 3) in the file's own axes.
        owners: (T,) building of each.
        otherwise: taken where there are too few buildings to tell.
        up: the axis that is up, where it is known.
    """
    bounds = _bounds(triangles, owners)  # (G, 2, 3)
    is_few = len(bounds) < _FEWEST
    if is_few and up in (None, otherwise.up):
        return otherwise, []
    axes = Axes(up=up or _up_of(bounds, triangles))
    if axes.up != "z" and len(triangles):
        axes = replace(axes, mirrored=_is_inward(triangles, owners))
    if is_few:
        return axes, []
    scale, notes = _scale_of(bounds)
    return replace(axes, scale=scale), notes


def _bounds(triangles: NDArray[np.float64], owners: NDArray[np.int64]) -> NDArray[np.float64]:
    if not len(owners):
        return np.zeros((0, 2, 3))
    order = np.argsort(owners, kind="stable")
    starts = np.flatnonzero(np.diff(owners[order], prepend=owners[order][0] - 1))
    low = np.minimum.reduceat(triangles[order].min(axis=1), starts, axis=0)
    high = np.maximum.reduceat(triangles[order].max(axis=1), starts, axis=0)
    return np.stack([low, high], axis=1)


def _up_of(bounds: NDArray[np.float64], triangles: NDArray[np.float64]) -> str:
    """Return the axis that is up: z unless another one is clearly flat and z clearly is not."""
    # how far the middles (G, 3) of the buildings spread along each axis
    middles = np.ptp(np.percentile(bounds.mean(axis=1), [5, 95], axis=0), axis=0)
    sizes = np.median(bounds[:, 1] - bounds[:, 0], axis=0)
    upright = _upright_share(triangles)

    def flatness(axis: int) -> float:
        others = [k for k in range(3) if k != axis]
        reach = min(middles[k] for k in others)
        if reach < max(3.0 * min(sizes[k] for k in others), _NARROWEST):
            return np.inf  # a row of houses spreads along one axis only: nothing to compare
        return _spread_off_a_slope(bounds[:, 0], axis) / float(reach)

    if flatness(2) <= _WIDE_SHARE:
        return "z"
    for axis in (1, 0):
        if flatness(axis) < _FLAT_SHARE and upright[axis] >= upright[2] - 0.05:
            return UPS[axis]
    return "z"


def _spread_off_a_slope(bases: NDArray[np.float64], axis: int) -> float:
    """Return how far lowest points (G, 3) spread along an axis, apart from an even slope."""
    others = [k for k in range(3) if k != axis]
    arms = np.column_stack([bases[:, others] - bases[:, others].mean(axis=0), np.ones(len(bases))])
    slope = np.linalg.lstsq(arms, bases[:, axis], rcond=None)[0]
    rest = bases[:, axis] - arms @ slope
    if np.linalg.norm(slope[:2]) > _STEEPEST:  # no town is that steep
        rest = bases[:, axis]
    low, high = np.percentile(rest, [5, 95])
    return float(high - low)


def _upright_share(triangles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share (3,) of the area that is upright or flat, if each axis were up."""
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    areas = np.linalg.norm(normals, axis=1)
    along = np.abs(normals) / np.maximum(areas, 1e-300)[:, None]
    fits = (along < 0.1) | (along > 0.9)  # (T, 3)
    return np.asarray((fits * areas[:, None]).sum(axis=0) / max(float(areas.sum()), 1e-300))


def _is_inward(triangles: NDArray[np.float64], owners: NDArray[np.int64]) -> bool:
    """Return True where most buildings have negative volume: the file's axes are left-handed."""
    number = np.unique(owners, return_inverse=True)[1].reshape(-1)
    count = int(number.max()) + 1
    # volumes are taken about a corner of each building, where float64 is exact enough
    first = np.zeros((count, 3))
    first[number[::-1]] = triangles[::-1, 0]
    a, b, c = (triangles[:, k] - first[number] for k in range(3))
    volumes = np.bincount(number, np.einsum("ij,ij->i", a, np.cross(b, c)), minlength=count)
    return bool((volumes < 0).mean() > _INWARD_SHARE)


def _scale_of(bounds: NDArray[np.float64]) -> tuple[float, list[str]]:
    """Return metres of one unit by the size of the middle building, and a note of doubt."""
    # the middle one of three sides: roofs without walls have no height
    size = float(np.median(np.sort(bounds[:, 1] - bounds[:, 0], axis=1)[:, 1]))
    if _USUAL_M[0] <= size <= _USUAL_M[1]:
        return 1.0, []
    if size > _USUAL_M[1]:
        return (1e-2 if size < _MILLIMETRES else 1e-3), []
    if size < _KILOMETRES and size > 1e-4:
        return 1e3, []
    return 1.0, [f"its buildings are {size:.3g} units large; --scale states the metres of a unit"]

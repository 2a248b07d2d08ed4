"""One deliberate look at a city that was read, in words, before anything is made of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.terrain import Bounds

_SMALL_M = 60.0
"""a city that is smaller has the wrong unit"""
_DENSE, _SPARSE = 30_000.0, 2.0
_LOW_M, _HIGH_M = 1.5, 120.0
_LEFT_OUT_SHARE = 0.05
"""of the features: more is worth a note"""
_FLAT_ABOVE_M = 6.0
"""median height of buildings above the ground: more means that the ground is missing"""


@dataclass(frozen=True)
class Facts:
    """Values that the checks look at.

    Attributes:
        bounds: x from, y from, x to, y to of the features, metres.
        heights: (N,) heights of the buildings, metres.
        buildings: how many there are.
        left_out: features that were left out as broken.
        crs: the city's system.
        ground: from what the ground was made.
        bases: (N,) lowest points of the buildings above the ground, metres.
        formats: of the files that the features are from: gml, obj, tiles.
        hang: the tops of the buildings are one smooth surface, and their bases are not.
    """

    bounds: Bounds
    heights: NDArray[np.float64]
    buildings: int
    left_out: int
    crs: str
    ground: str
    bases: NDArray[np.float64]
    formats: frozenset[str] = frozenset()
    hang: bool = False

    @property
    def sides(self) -> tuple[float, float]:
        """East and north extent, metres."""
        return self.bounds[2] - self.bounds[0], self.bounds[3] - self.bounds[1]

    @property
    def per_km2(self) -> float:
        """Buildings a square kilometre of the extent."""
        east, north = self.sides
        return self.buildings / max(east * north / 1e6, 1e-6)

    @property
    def left_out_share(self) -> float:
        """Part of the features that was left out."""
        return self.left_out / max(self.buildings + self.left_out, 1)


def summary(facts: Facts) -> str:
    """Return the place in one line: extent, heights, density, what is left out, system, ground."""
    east, north = facts.sides
    heights = "no heights"
    if len(facts.heights):
        low, middle, high = np.percentile(facts.heights, [0, 50, 100])
        heights = f"heights {low:.1f} to {high:.1f} m (half below {middle:.1f} m)"
    return (
        f"{east:.0f} x {north:.0f} m, {heights}, {facts.per_km2:.0f} buildings per km², "
        f"{100 * facts.left_out_share:.1f} % left out, {facts.crs}, ground: {facts.ground}"
    )


def warnings(facts: Facts) -> list[str]:
    """Return what is unlike any city, each with what may be behind it."""
    east, north = facts.sides
    found = []
    if max(east, north) < _SMALL_M:
        found.append(f"the whole place is {east:.0f} x {north:.0f} m: {_unit_question(facts)}")
    elif min(east, north) > 1000.0 and facts.per_km2 < _SPARSE and facts.buildings > 1:
        found.append(
            f"{facts.per_km2:.1f} buildings per km² are few for a city: is all of it here?"
        )
    if facts.per_km2 > _DENSE and facts.buildings > 100:
        found.append(f"{facts.per_km2:.0f} buildings per km² are more than any city has: "
                     "parts may be counted as buildings, or one place was given twice")  # fmt: skip
    if len(facts.heights) > 2:
        middle = float(np.median(facts.heights))
        if middle > _HIGH_M or middle < _LOW_M:
            found.append(f"half of the buildings are {'above' if middle > _HIGH_M else 'below'} "
                         f"{middle:.1f} m: {_unit_question(facts)}")  # fmt: skip
    if facts.hang:
        found.append("the tops of the buildings are level and their bases are not: are heights "
                     "counted downwards? turn the model around before --input")  # fmt: skip
    if facts.left_out_share > _LEFT_OUT_SHARE:
        found.append(f"{100 * facts.left_out_share:.0f} % of the features are left out")
    if facts.buildings == 1 and max(east, north) > 2 * _SMALL_M:
        found.append("1 building only: the ground is flat at its lowest corner")
    elif facts.ground == "flat" and len(facts.bases) > 2:
        above = float(np.percentile(facts.bases, 95))
        if above > _FLAT_ABOVE_M:
            found.append(f"the ground is flat, and buildings begin up to {above:.0f} m above it")
    return found


def _unit_question(facts: Facts) -> str:
    """Return what to look at where sizes are odd; the options turn and scale OBJ files only."""
    if facts.formats <= {"obj"}:
        return "are axis and unit right? --up and --scale set them"
    if facts.formats <= {"gml"}:
        return "does its srsName name the system, and the unit of heights, that it is in?"
    return "are the units of its files the metre?"

"""Choose the surfaces of a CityGML feature: its level of detail, its parts, and links to follow.

Of a building LOD2 surfaces are taken where it has them, else LOD1, LOD3 or the outer shell of LOD4,
never two of them; LOD0 footprints are at z = 0 and are never taken, nor are rooms and what is
inside. A LOD2 solid mostly holds links to the surfaces under `boundedBy`. Those are read once; what
only the solid has is added.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vlwm.core.city.readers.feature_batch import BRIDGE, BUILDING, ROAD, VEGETATION
from vlwm.core.city.readers.gml_geometry import (
    BrokenFeature,
    Element,
    Surface,
    as_solids_turn,
    has_links,
    linked,
    local,
    patches,
)

_LODS = {  # in order of preference
    BUILDING: (2, 1, 3, 4),
    BRIDGE: (2, 3, 1, 4),
    VEGETATION: (2, 3, 1, 4),
    ROAD: (1, 2, 3, 4),
}
_SURFACES = ("MultiSurface", "Geometry", "Surface")
_SOLIDS = ("Solid", "MultiSolid")
_GEOMETRY = tuple(f"{{*}}lod{n}{k}" for n in (1, 2, 3, 4) for k in (*_SURFACES, *_SOLIDS))
_IMPLICIT = tuple(f"{{*}}lod{n}ImplicitRepresentation" for n in (1, 2, 3, 4))
_FLAT = tuple(f"{{*}}lod0{k}" for k in ("FootPrint", "RoofEdge", "MultiSurface", "Geometry"))
_PARTS = frozenset({"BuildingPart", "BridgePart"})
_INDOORS = frozenset(
    {
        "Room", "BuildingRoom", "BridgeRoom", "IntBuildingInstallation", "IntBridgeInstallation",
        "BuildingFurniture", "BridgeFurniture", "InteriorWallSurface", "CeilingSurface",
        "FloorSurface", "Storey", "BuildingUnit",
    }
)  # fmt: skip


@dataclass
class _Unit:
    """A building without its parts, or one part: its geometry elements by level of detail."""

    feature: Element
    surfaces: dict[int, list[Element]] = field(default_factory=dict)
    solids: dict[int, list[Element]] = field(default_factory=dict)
    fittings: dict[int, list[Element]] = field(default_factory=dict)
    dead_links: int = 0

    def polygons(self, lod: int) -> list[Surface]:
        """Return surfaces of the body at a level with its installations; none without a body."""
        first, second = self.surfaces.get(lod, []), self.solids.get(lod, [])
        if lod == 1:
            first, second = second, first
        body = self._surfaces_of(first, [])
        if not body:
            body = self._surfaces_of(second, [])
        elif lod > 1:
            body = as_solids_turn(body, second, self.feature)
            body += self._only_in_solid(second, body)
        fittings = patches(self.fittings.get(lod, ()))
        once: dict[Element, Surface] = {}
        for surface in body + fittings if body else ():
            # a wall between two spaces, in front of one and behind the other, is one wall
            once.setdefault(surface.element, surface)
        return list(once.values())

    def _surfaces_of(self, geometries: list[Element], found: list[Surface]) -> list[Surface]:
        written = patches(geometries)
        by_link, dead = linked(geometries, self.feature, written + found)
        self.dead_links += dead
        return written + by_link

    def _only_in_solid(self, solids: list[Element], body: list[Surface]) -> list[Surface]:
        """Return surfaces of solids that are partly links: without them the body has holes."""
        by_link, _ = linked(solids, self.feature, body)
        written = patches(solids) if has_links(solids) else []
        return by_link + written


def _units(element: Element) -> list[_Unit]:
    """Return the feature itself and its parts."""
    units = {element: _Unit(element)}
    for geometry in element.iter(*_GEOMETRY):
        name = local(geometry)
        lod, owner, is_fitting, is_indoors = int(name[3]), element, False, False
        for above in geometry.iterancestors():
            if above is element:
                break
            tag = local(above)
            is_indoors |= tag in _INDOORS
            is_fitting |= tag.endswith(("Installation", "ConstructionElement"))
            if tag in _PARTS:
                owner = above
                break
        if is_indoors:
            continue
        unit = units.setdefault(owner, _Unit(element))
        if is_fitting:
            unit.fittings.setdefault(lod, []).append(geometry)
        elif name.endswith("Solid"):
            unit.solids.setdefault(lod, []).append(geometry)
        else:
            unit.surfaces.setdefault(lod, []).append(geometry)
    return list(units.values())


def chosen_surfaces(element: Element, kind: str) -> tuple[int, list[Surface]]:
    """Return the first level that a unit has, and surfaces: each part at its own best level.

    A building's own coarse block is left out where its parts have finer walls.

    Raises:
        BrokenFeature: there are none, and why.
    """
    lods = _LODS[kind]
    units = _units(element)
    found = [next(((n, p) for n in lods if (p := u.polygons(n))), None) for u in units]
    levels = [f[0] for f in found if f]
    if not levels:
        raise BrokenFeature(_why_empty(element, units))
    best = min(levels, key=lods.index)
    own, *parts = found
    polygons = own[1] if own and (own[0] == best or not any(parts)) else []
    return best, polygons + [p for part in parts if part for p in part[1]]


def _why_empty(element: Element, units: list[_Unit]) -> str:
    """Return why a feature has no surfaces."""
    missing = "no LOD1, LOD2, LOD3 or LOD4 surfaces"
    if any(u.dead_links for u in units):
        return f"it has {missing} of its own: they are links out of it"
    for _ in element.iter(*_IMPLICIT):
        return f"it has {missing}: an implicit representation is not read"
    for geometry in element.iter(*_GEOMETRY):
        inside = next((local(c) for c in geometry if local(c)), "nothing")
        return f"it has {missing}: a {inside} is not read"
    for _ in element.iter(*_FLAT):
        return f"it has {missing}, only an LOD0 outline"
    return f"it has {missing}"

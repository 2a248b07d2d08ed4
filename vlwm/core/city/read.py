"""From files to one City: find them, read each, join, lay the ground below.

Formats are told by the files' names: `.obj`, `.gml`, `.gml.gz`, `tileset.json`, alone, in folders
or in unopened zips. Buildings come first, the relief (dem) last, because it is sampled only where
they stand. A broken feature is left out, counted and named; `strict` stops at the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.area import Area, mesh_bounds
from vlwm.core.city.batch import BRIDGE, BUILDING, ROAD, TERRAIN, VEGETATION, Batch
from vlwm.core.city.city import City, Origin, ReadReport, SourceFile, feature_bases
from vlwm.core.city.citygml import read_relief
from vlwm.core.city.collect import Collector
from vlwm.core.city.gml_batch import gml_batches
from vlwm.core.city.ground import MARGIN_M, Relief, lay_ground, stand_note
from vlwm.core.city.obj import DEFAULT_CRS, read_obj
from vlwm.core.city.projection import project, zone_of
from vlwm.core.city.roads import Roads
from vlwm.core.city.shells import open_features
from vlwm.core.city.sources import Archive, Source, find_sources
from vlwm.core.city.terrain import Bounds, Terrain
from vlwm.core.city.tiles3d import Leaves, find_leaves, tile_batches
from vlwm.core.city.zone import Zone
from vlwm.core.errors import DataError
from vlwm.core.files import sha256_file
from vlwm.core.geometry.mesh import TriangleMesh

ATTRIBUTION = "3D都市モデル（Project PLATEAU）{place}（国土交通省）, CC BY 4.0"
_MESH_OVERHANG_M = 300.0
_OBJ_KINDS = {"brid": BRIDGE, "veg": VEGETATION, "tran": ROAD, "dem": TERRAIN}
_TOLD_MISSING = 3

OnSource = Callable[[str, int, int], None]
"""called with (file, files done, files in all)"""


def read_city(
    inputs: Sequence[Path],
    *,
    strict: bool = False,
    area: Area | None = None,
    on_source: OnSource = lambda name, done, total: None,
) -> City:
    """Read every city file of the inputs (files, folders, zips) into one City.

    Args:
        strict: stop at the first broken feature or missing tile.
        area: take only features whose middle lies in it.

    Raises:
        DataError: nothing to read, a broken file, two coordinate systems, no building in the area,
            or, with `strict`, the first broken feature.
    """
    paths = [Path(p) for p in inputs]
    sources, notes = find_sources(paths)
    reader = _Reader(area, strict)
    reader.collector.notes += notes
    wanted = [s for s in reader.without_nested(sources) if reader.is_wanted(s)]
    for done, source in enumerate(wanted):
        on_source(source.name, done, len(wanted))
        reader.read(source)
    return reader.city(paths)


class _Reader:
    """One reading: what the files gave so far."""

    def __init__(self, area: Area | None, strict: bool) -> None:
        self.area = area
        self.strict = strict
        self.zone = Zone() if area is None else Zone(zone_of(*area.middle), guessed=True)
        self.collector = Collector(area, strict=strict)
        self.relief: Relief | None = None
        self.used: list[Source] = []
        self.missing_tiles = 0
        self._leaves: dict[Source, Leaves] = {}
        self._bounds: Bounds | None = None

    def without_nested(self, sources: list[Source]) -> list[Source]:
        """The sources without tile sets that another one names."""
        nested = set()
        for source in (s for s in sources if s.format == "tiles"):
            self._leaves[source] = find_leaves(source, self.area)
            nested |= {Source(source.place, m) for m in self._leaves[source].nested}
        return [s for s in sources if s not in nested]

    def is_wanted(self, source: Source) -> bool:
        """Whether a file may hold something of the area, as far as its name says."""
        if self.area is None or source.mesh is None or len(source.mesh) % 2:
            return True
        return self.area.may_touch(mesh_bounds(source.mesh), _MESH_OVERHANG_M)

    def read(self, source: Source) -> None:
        """Add one file."""
        self.used.append(source)
        if source.format == "tiles":
            self._read_tiles(source)
        elif source.kind == "dem":
            self._read_relief(source)
        elif source.format == "obj":
            self._take(self._obj_batch(source), source)
        else:
            for batch in gml_batches(source, self.zone):
                self._take(batch, source)

    def _take(self, batch: Batch, source: Source) -> None:
        if batch.kind == TERRAIN:
            self._add_relief(batch.triangles)
            return
        naming = "unique"
        if source.format == "obj":
            unnamed = bool(batch.names) and batch.names[0].startswith(f"{source.name}#")
            naming = "shells" if unnamed else "pieces"
        self.collector.add(batch, source.name, self.zone.crs or DEFAULT_CRS, naming)

    def _obj_batch(self, source: Source) -> Batch:
        read = read_obj(source)
        if read.crs is None:
            note = f"{source.name} names no coordinate system; {DEFAULT_CRS} is taken"
            self.collector.notes.append(note)
        self.zone.require(read.crs or DEFAULT_CRS, source.place.where(source.member))
        order = np.argsort(read.feature_of_face, kind="stable")
        batch = Batch(
            _OBJ_KINDS.get(source.kind or "", BUILDING),
            read.feature_ids,
            [source.lod or 1] * len(read.feature_ids),
            read.vertices[read.faces[order]],
            read.feature_of_face[order].astype(np.int32),
        )
        there = np.isin(np.arange(len(batch.names)), batch.owners)
        empty = [n for n, found in zip(batch.names, there, strict=True) if not found]
        self.collector.skipped += [(source.name, name, "it has no faces") for name in empty]
        return batch.chosen(there)

    def _read_tiles(self, source: Source) -> None:
        leaves = self._leaves[source]
        total = len(leaves.found) + len(leaves.missing)
        if leaves.missing:
            self.missing_tiles += len(leaves.missing)
            told = ", ".join(leaves.missing[:_TOLD_MISSING])
            text = f"{len(leaves.missing)} of {total} leaf tiles are not here: {told}"
            text += ", …" if len(leaves.missing) > _TOLD_MISSING else ""
            if self.strict or not leaves.found:
                raise source.broken(0, text)
            self.collector.notes.append(f"{source.member}: {text}")
        self.used += [leaf.source for leaf in leaves.found]
        for batch in tile_batches(leaves, self.zone):
            self._take(batch, source)
        self.collector.notes += leaves.notes

    def _read_relief(self, source: Source) -> None:
        if source.format == "obj":
            self._add_relief(self._obj_batch(source).triangles)
            return
        for triangles in read_relief(source):
            if len(triangles):
                latitude, longitude = triangles[0, 0, :2]
                crs = self.zone.settle(float(latitude), float(longitude))
                self._add_relief(project(triangles.reshape(-1, 3), crs).reshape(-1, 3, 3))

    def _add_relief(self, triangles: NDArray[np.float64]) -> None:
        if self.relief is None:
            bounds = self.collector.bounds()
            if bounds is None:
                raise self._nothing()
            self.relief = Relief(_grown(bounds))
        self.relief.add(triangles)

    def _nothing(self) -> DataError:
        if self.area is not None and self.collector.outside:
            count = self.collector.outside
            return DataError(
                f"no building in the area {self.area.text}; {count} lie outside it",
                remedy="latitude comes first; or give another --area",
            )
        where = str(self.used[0].place.path) if self.used else None
        what = "no building in any file"
        if self.collector.skipped:
            _, name, reason = self.collector.skipped[0]
            count = len(self.collector.skipped)
            what += f"; {count} features were left out, the first {name}: {reason}"
        return DataError(what, where=where, remedy="give another --input")

    def city(self, inputs: Sequence[Path]) -> City:
        """Everything joined, about the middle of it all.

        Raises:
            DataError: there is no building.
        """
        bounds = self.collector.bounds()
        if bounds is None or self.zone.crs is None:
            raise self._nothing()
        joined, kinds = self.collector.joined(), self.collector.alive_kinds()
        east, north = (round((bounds[k] + bounds[k + 2]) / 2) for k in (0, 1))
        joined.triangles[:] -= (east, north, 0.0)
        is_road = np.array([k == ROAD for k in kinds])
        roads, built = joined.chosen(is_road), joined.chosen(~is_road)
        standing = [k for k in kinds if k != ROAD]
        mesh = TriangleMesh.from_triangles(built.triangles)
        local = (bounds[0] - east, bounds[1] - north, bounds[2] - east, bounds[3] - north)
        terrain, ground = self._ground(mesh, built, standing, _grown(local), (east, north))
        name = _name_of(inputs[0]) + (f"@{self.area.text}" if self.area else "")
        return City(
            name=name,
            origin=Origin(self.zone.crs, float(east), float(north), 0.0),
            mesh=mesh,
            feature_ids=built.names,
            feature_of_face=built.owners,
            feature_kinds=standing,
            terrain=terrain,
            roads=_roads(roads, local),
            sources=_source_files(self.used),
            attribution=ATTRIBUTION.format(place=_place_of(self.used, inputs[0])),
            report=self._report(built, standing, len(roads.names), ground),
        )

    def _ground(
        self,
        mesh: TriangleMesh,
        built: Batch,
        kinds: list[str],
        bounds: Bounds,
        origin: tuple[float, float],
    ) -> tuple[Terrain, str]:
        bases = feature_bases(mesh, built.owners, len(built.names))
        stands = [k == BUILDING for k in kinds]
        bases = bases[stands] if any(stands) else bases
        relief = self.relief
        if relief is None or relief.covered == 0.0:
            terrain = lay_ground(bases, bounds, None)
            return terrain, "flat" if np.ptp(terrain.heights) == 0.0 else "bases"
        relief.move(-origin[0], -origin[1])
        terrain = lay_ground(bases, bounds, relief)
        note = stand_note(bases, terrain)
        self.collector.notes += [note] if note else []
        return terrain, f"relief, {100 * relief.covered:.0f} % of the area"

    def _report(self, built: Batch, kinds: list[str], roads: int, ground: str) -> ReadReport:
        counts, levels = Counter(kinds), Counter(built.lods)
        is_open = open_features(built.triangles, built.owners, len(built.names))
        gathered = self.collector
        return ReadReport(
            files=len(self.used),
            features=len(built.names),
            buildings=counts[BUILDING],
            bridges=counts[BRIDGE],
            plants=counts[VEGETATION],
            roads=roads,
            lod1=levels[1],
            lod2=levels[2],
            lod3=levels[3],
            triangles=len(built.triangles),
            open_shells=int(is_open.sum()),
            duplicates=gathered.duplicates,
            superseded=gathered.superseded,
            outside=gathered.outside,
            missing_tiles=self.missing_tiles,
            ground=ground,
            skipped=tuple(gathered.skipped),
            notes=tuple(gathered.notes),
        )


def _grown(bounds: Bounds) -> Bounds:
    low, high = np.array(bounds[:2]) - MARGIN_M, np.array(bounds[2:]) + MARGIN_M
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _roads(batch: Batch, bounds: Bounds) -> Roads:
    """Roads that come near the buildings."""
    if not batch.names:
        return Roads.none()
    reach = _grown(bounds)
    extent = batch.bounds()
    near = np.all(extent[:, 1, :2] >= reach[:2], axis=1)
    near &= np.all(extent[:, 0, :2] <= reach[2:], axis=1)
    kept = batch.chosen(near)
    return Roads(kept.names, kept.triangles[:, :, :2].copy(), kept.owners)


def _source_files(used: Sequence[Source]) -> tuple[SourceFile, ...]:
    """Each loose file, and each archive once, with its hash."""
    found: dict[Path, SourceFile] = {}
    for source in used:
        place = source.place
        path = place.path if isinstance(place, Archive) else place.path / source.member
        if path not in found:
            found[path] = SourceFile(path.name, path.stat().st_size, sha256_file(path))
    return tuple(found.values())


def _name_of(given: Path) -> str:
    resolved = given.resolve()
    name = resolved.name if resolved.is_dir() else resolved.name.split(".")[0]
    return name or "city"


def _place_of(used: Sequence[Source], given: Path) -> str:
    named = next((s.city for s in used if s.city), None)
    return named or _name_of(given)

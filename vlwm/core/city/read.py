"""From files to one City: find them, read each, join, lay the ground below.

Formats are told by the files' names: `.obj`, `.gml`, `.gml.gz`, `tileset.json`, alone, in folders
or in unopened zips. Buildings come first, the relief (dem) last, because it is sampled only where
they stand. A broken feature is left out, counted and named; `strict` stops at the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.area import Area, mesh_bounds
from vlwm.core.city.assembly.assemble import Standing, grown, roads_of, standing_of
from vlwm.core.city.assembly.deduplicate import Collector
from vlwm.core.city.city import City, Origin, ReadReport, SourceFile
from vlwm.core.city.crs import project, zone_of
from vlwm.core.city.crs_zone import Zone
from vlwm.core.city.readers.citygml import read_relief
from vlwm.core.city.readers.citygml_triangles import gml_batches
from vlwm.core.city.readers.feature_batch import BRIDGE, BUILDING, ROAD, TERRAIN, VEGETATION, Batch
from vlwm.core.city.readers.obj import DEFAULT_CRS, read_obj
from vlwm.core.city.readers.source_files import Archive, Source, find_sources
from vlwm.core.city.readers.tiles3d import Leaves, find_leaves, tile_batches
from vlwm.core.city.relief import Relief, lay_ground, stand_note
from vlwm.core.city.terrain import Bounds, Terrain
from vlwm.core.errors import DataError
from vlwm.core.files import sha256_file
from vlwm.core.geometry.mapped_arrays import Scratch

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
    scratch: Scratch | None = None,
) -> City:
    """Read every city file of the inputs (files, folders, zips) into one City.

    Args:
        strict: stop at the first broken feature or missing tile.
        area: take only features whose middle lies in it.
        scratch: where the city's arrays are put; the system's folder for temporary files if None.

    Raises:
        DataError: nothing to read, a broken file, two coordinate systems, no building in the area,
            or, with `strict`, the first broken feature.
        MachineError: the disk of `scratch` has no room.
    """
    paths = [Path(p) for p in inputs]
    sources, notes = find_sources(paths)
    reader = _Reader(area, strict, scratch or Scratch())
    reader.collector.notes += notes
    wanted = [s for s in reader.without_nested(sources) if reader.is_wanted(s)]
    for done, source in enumerate(wanted):
        on_source(source.name, done, len(wanted))
        reader.read(source)
    return reader.city(paths)


class _Reader:
    """One reading: what the files gave so far."""

    def __init__(self, area: Area | None, strict: bool, scratch: Scratch) -> None:
        self.area = area
        self.scratch = scratch
        self.strict = strict
        self.zone = Zone() if area is None else Zone(zone_of(*area.middle), guessed=True)
        self.collector = Collector(area, strict=strict, scratch=scratch)
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
            self.relief = Relief(grown(bounds), scratch=self.scratch)
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
        east, north = (round((bounds[k] + bounds[k + 2]) / 2) for k in (0, 1))
        features, shift = self.collector.features, (east, north, 0.0)
        local = (bounds[0] - east, bounds[1] - north, bounds[2] - east, bounds[3] - north)
        standing = standing_of(features, shift, self.scratch)
        roads, count = roads_of(features, shift, local, self.scratch)
        terrain, ground = self._ground(standing, grown(local), (east, north))
        name = _name_of(inputs[0]) + (f"@{self.area.text}" if self.area else "")
        return City(
            name=name,
            origin=Origin(self.zone.crs, float(east), float(north), 0.0),
            triangles=standing.triangles,
            feature_ids=standing.names,
            feature_of_face=standing.owners,
            feature_kinds=standing.kinds,
            terrain=terrain,
            roads=roads,
            sources=_source_files(self.used),
            attribution=ATTRIBUTION.format(place=_place_of(self.used, inputs[0])),
            report=self._report(standing, count, ground),
            scratch=self.scratch,
        )

    def _ground(
        self, standing: Standing, bounds: Bounds, origin: tuple[float, float]
    ) -> tuple[Terrain, str]:
        bases = standing.bases_of(BUILDING, self.scratch)
        relief = self.relief
        if relief is None or relief.covered == 0.0:
            terrain = lay_ground(bases, bounds, None, self.scratch)
            return terrain, "flat" if np.ptp(terrain.heights) == 0.0 else "bases"
        relief.move(-origin[0], -origin[1])
        terrain = lay_ground(bases, bounds, relief, self.scratch)
        note = stand_note(bases, terrain, self.scratch)
        self.collector.notes += [note] if note else []
        return terrain, f"relief, {100 * relief.covered:.0f} % of the area"

    def _report(self, standing: Standing, roads: int, ground: str) -> ReadReport:
        gathered, levels = self.collector, standing.levels
        return ReadReport(
            files=len(self.used),
            features=len(standing.names),
            buildings=standing.count(BUILDING),
            bridges=standing.count(BRIDGE),
            plants=standing.count(VEGETATION),
            roads=roads,
            lod1=levels[1],
            lod2=levels[2],
            lod3=levels[3],
            triangles=len(standing.triangles),
            open_shells=standing.open_shells(),
            duplicates=gathered.duplicates,
            superseded=gathered.superseded,
            outside=gathered.outside,
            missing_tiles=self.missing_tiles,
            ground=ground,
            skipped=tuple(gathered.skipped),
            notes=tuple(gathered.notes),
        )


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

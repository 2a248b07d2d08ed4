"""From files to one City: find them, read each, join, bound the place, lay the ground below.

Formats are known by the files' names and contents: OBJ, CityGML, 3D Tiles, alone, in folders or in
unopened zips. Relief is laid last, whatever its file is called, because it is sampled only where
something was built. A broken feature is left out, counted and named; `strict` stops at the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.area import Area, mesh_bounds
from vlwm.core.city.assembly.assemble import Standing, grown, roads_of, standing_of
from vlwm.core.city.assembly.deduplicate import Collector, FileOf
from vlwm.core.city.assembly.extent import bound_extent, one_format
from vlwm.core.city.attribution import attribution_of
from vlwm.core.city.check import Facts, summary, warnings
from vlwm.core.city.city import City, Origin, ReadReport, SourceFile
from vlwm.core.city.crs import Zone, unproject, zone_of
from vlwm.core.city.readers.citygml_triangles import GmlFile
from vlwm.core.city.readers.feature_batch import (
    BRIDGE,
    BUILDING,
    PIECES,
    ROAD,
    SHELLS,
    TERRAIN,
    VEGETATION,
    Batch,
    Skipped,
)
from vlwm.core.city.readers.obj import DEFAULT_CRS, ObjFile, Options, read_obj
from vlwm.core.city.readers.obj_axes import Axes
from vlwm.core.city.readers.places import Archive
from vlwm.core.city.readers.source_files import Source, find_sources
from vlwm.core.city.readers.tiles3d import Leaves, find_leaves, tile_batches
from vlwm.core.city.reference import UnknownReference, reference_of
from vlwm.core.city.relief import Relief, lay_ground, stand_note
from vlwm.core.city.terrain import Bounds, Terrain
from vlwm.core.errors import DataError
from vlwm.core.files import sha256_file
from vlwm.core.geometry.mapped_arrays import Scratch, pieces
from vlwm.core.text import safe_text

_MESH_OVERHANG_M = 300.0
_OBJ_KINDS = {"brid": BRIDGE, "veg": VEGETATION, "tran": ROAD, "dem": TERRAIN}
_NAMED_MISSING = 3
_RELIEF_M = (-1_000.0, 10_000.0)
_REASONS = 3

OnSource = Callable[[str, int, int], None]
"""called with (what is done, files done, files in all), again and again during a long file"""


def read_city(
    inputs: Sequence[Path],
    *,
    strict: bool = False,
    area: Area | None = None,
    on_source: OnSource = lambda name, done, total: None,
    scratch: Scratch | None = None,
    up: str | None = None,
    scale: float | None = None,
) -> City:
    """Read every city file of the inputs (files, folders, zips) into one City.

    Args:
        strict: stop at the first broken feature or missing tile.
        area: take only features whose middle lies in it.
        scratch: where the city's arrays are put; the system's folder for temporary files if None.
        up: axis of OBJ files that points up (x, y, z); None lets their buildings tell.
        scale: metres of one unit of OBJ files; None lets their buildings tell.

    Raises:
        DataError: nothing to read, a broken file, places too far apart, no building in the area,
            or, with `strict`, the first broken feature.
        MachineError: the disk of `scratch` has no room.
    """
    paths = [Path(p) for p in inputs]
    sources, notes = find_sources(paths)
    reader = _Reader(area, strict, scratch or Scratch(), Options(up, scale), on_source)
    reader.collector.notes += notes
    reader.read_all([s for s in reader.without_nested(sources) if reader.is_wanted(s)])
    return reader.city(paths)


class _Reader:
    """One reading: what the files gave so far."""

    def __init__(
        self, area: Area | None, strict: bool, scratch: Scratch, options: Options, tell: OnSource
    ) -> None:
        self.area = area
        self.scratch = scratch
        self.strict = strict
        self.options = options
        self.tell = tell
        self.zone = Zone() if area is None else Zone(zone_of(*area.middle), guessed=True)
        self.collector = Collector(area, strict=strict, scratch=scratch)
        self.relief = scratch.rows(np.float64, (3, 3))
        self.used: list[Source] = []
        self.missing_tiles = 0
        self.stated: list[str] = []
        self.is_plateau = False
        self.axes = Axes()
        self._leaves: dict[Source, Leaves] = {}
        self._said: dict[str, list[str]] = {}

    def without_nested(self, sources: list[Source]) -> list[Source]:
        """Return the sources without tile sets that another one names."""
        nested = set()
        for source in (s for s in sources if s.format == "tiles"):
            self._leaves[source] = find_leaves(source, self.area)
            nested |= {Source(source.place, m) for m in self._leaves[source].nested}
        return [s for s in sources if s not in nested]

    def is_wanted(self, source: Source) -> bool:
        """Return False for a file that holds nothing of the area, as far as its name tells."""
        if self.area is None or source.mesh is None or len(source.mesh) % 2:
            return True
        try:
            bounds = mesh_bounds(source.mesh)
        except ValueError:
            return True
        return self.area.may_touch(bounds, _MESH_OVERHANG_M)

    def read_all(self, sources: list[Source]) -> None:
        """Read all files, the relief last."""
        later = [s for s in sources if s.kind == "dem"]
        for done, source in enumerate([*(s for s in sources if s.kind != "dem"), *later]):
            self.tell(f"reading {safe_text(source.name)}", done, len(sources))
            self.used.append(source)
            if source.format == "tiles":
                self._read_tiles(source, done, len(sources))
            elif source.format == "obj":
                self._read_obj(source)
            else:
                self._read_gml(source, done, len(sources))

    def _take(self, batch: Batch, source: Source, crs: str | None = None) -> None:
        if batch.kind == TERRAIN:
            self.collector.skip(batch.skipped, FileOf(source.name))
            self._add_relief(batch.triangles)
            return
        file = FileOf(source.name, source.format, crs)
        self.collector.add(batch, file, self.zone.crs or DEFAULT_CRS)

    def _say(self, text: str, source: Source) -> None:
        """Note something of a file; what holds for many files is one note."""
        self._said.setdefault(text, []).append(source.name)

    def _read_obj(self, source: Source) -> None:
        read = read_obj(source, self.options, self.axes)
        self.axes = read.axes
        self.stated.append(read.copyright)
        for note in read.notes:
            self._say(note, source)
        if read.crs is None:
            self._say(f"{{file}} names no coordinate system; {DEFAULT_CRS} is taken", source)
        vertices = self._placed(read, source)
        order = np.argsort(read.feature_of_face, kind="stable")
        batch = Batch(
            _OBJ_KINDS.get(source.kind or "", BUILDING),
            read.feature_ids,
            [source.lod or 1] * len(read.feature_ids),
            vertices[read.faces[order]],
            read.feature_of_face[order].astype(np.int32),
            list(read.skipped),
            PIECES if read.named else SHELLS,
        )
        there = np.isin(np.arange(len(batch.names)), batch.owners)
        broken = {s.name for s in read.skipped}
        empty = [n for n, found in zip(batch.names, there, strict=True) if not found]
        batch.skipped.extend(Skipped(n, "it has no faces") for n in empty if n not in broken)
        self._take(batch.chosen(there), source, read.crs)

    def _placed(self, read: ObjFile, source: Source) -> NDArray[np.float64]:
        """Return vertices (V, 3) in the city's system.

        Raises:
            DataError: the file states a system that is not read.
        """
        if not len(read.vertices):
            return read.vertices
        crs = read.crs or DEFAULT_CRS
        try:
            # OBJ has x east and y north, whatever the order of a system's axes
            reference = replace(reference_of(crs), swapped=False)
        except UnknownReference as error:
            raise source.broken(
                0, f"this file is not placed: {error}", "correct its header"
            ) from error
        return reference.metres(read.vertices, self.zone)

    def _read_gml(self, source: Source, done: int, total: int) -> None:
        file = GmlFile(source, self.zone)
        found_relief = False
        if source.kind == "dem":
            for triangles in file.relief():
                found_relief = True
                self._add_relief(triangles)
        if not found_relief:
            count = 0
            for batch in file.batches():
                self._take(batch, source)
                count += len(batch.names)
                self.tell(f"reading {safe_text(source.name)}: {count} features", done, total)
        self.is_plateau |= file.document.is_plateau
        self.collector.notes += file.notes

    def _read_tiles(self, source: Source, done: int, total: int) -> None:
        leaves = self._leaves[source]
        self._note_missing(source, leaves)
        self.used += [leaf.source for leaf in leaves.found]
        for count, batch in enumerate(tile_batches(leaves, self.zone)):
            self._take(batch, source)
            self.tell(f"reading {safe_text(source.name)}: {count} tiles", done, total)
        leaves.finish()
        self.stated.append(leaves.copyright)
        self.collector.notes += leaves.notes

    def _note_missing(self, source: Source, leaves: Leaves) -> None:
        """Note tiles that are not on the disk.

        Raises:
            DataError: none is, or some are missing with `strict`.
        """
        if not leaves.missing:
            return
        self.missing_tiles += len(leaves.missing)
        total = len(leaves.found) + len(leaves.missing)
        told = ", ".join(safe_text(m, 120) for m in leaves.missing[:_NAMED_MISSING])
        text = f"{len(leaves.missing)} of {total} leaf tiles are not here: {told}"
        text += ", …" if len(leaves.missing) > _NAMED_MISSING else ""
        if self.strict or not leaves.found:
            raise source.broken(
                0, text, "fetch the whole tree with vlwm download, or unpack all of it"
            )
        self.collector.notes.append(f"{safe_text(source.member)}: {text}")

    def _add_relief(self, triangles: NDArray[np.float64]) -> None:
        """Keep triangles (T, 3, 3) of the ground until the place is known."""
        heights = triangles[:, :, 2]
        real = np.isfinite(triangles).all(axis=(1, 2))
        real &= (heights > _RELIEF_M[0]).all(axis=1) & (heights < _RELIEF_M[1]).all(axis=1)
        self.relief.append(triangles[real])

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
        if self.collector.notes:
            what += "; " + "; ".join(self.collector.notes[:_REASONS])
        return DataError(what, where=where, remedy="give another --input")

    def city(self, inputs: Sequence[Path]) -> City:
        """Return everything joined, about the middle of it all.

        Raises:
            DataError: there is no building, or the place is none.
        """
        if self.collector.bounds() is None or self.zone.crs is None:
            raise self._nothing()
        bound_extent(self.collector)
        one_format(self.collector)
        bounds = self.collector.bounds()
        if bounds is None:
            raise self._nothing()
        self.tell(_extent_text(bounds), len(self.used), len(self.used))
        east, north = (round((bounds[k] + bounds[k + 2]) / 2) for k in (0, 1))
        features, shift = self.collector.features, (east, north, 0.0)
        local = (bounds[0] - east, bounds[1] - north, bounds[2] - east, bounds[3] - north)
        standing = standing_of(features, shift, self.scratch)
        roads, count = roads_of(features, shift, local, self.scratch)
        terrain, ground = self._ground(standing, bounds, local, (east, north))
        name = _name_of(inputs[0]) + (f"@{self.area.text}" if self.area else "")
        latitude, longitude = unproject(np.array([[east, north]], dtype=float), self.zone.crs)[0]
        self._notes(standing, local, terrain, ground)
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
            attribution=attribution_of(
                self.used, inputs, _name_of(inputs[0]), (float(latitude), float(longitude)),
                self.stated, self.is_plateau,
            ),
            report=self._report(standing, count, ground),
            scratch=self.scratch,
        )  # fmt: skip

    def _ground(
        self, standing: Standing, bounds: Bounds, local: Bounds, origin: tuple[float, float]
    ) -> tuple[Terrain, str]:
        """Return the ground under everything, and from what it was made."""
        bases = standing.bases_of(BUILDING, self.scratch)
        relief = self._relief(bounds) if len(self.relief) else None
        if relief is None or relief.covered == 0.0:
            if relief is not None:
                self.collector.notes.append(
                    "the relief lies elsewhere: the ground is made without it"
                )
            terrain = lay_ground(bases, grown(local), None, self.scratch)
            return terrain, "flat" if np.ptp(terrain.heights) == 0.0 else "bases"
        relief.move(-origin[0], -origin[1])
        terrain = lay_ground(bases, grown(local), relief, self.scratch)
        note = stand_note(bases, terrain, self.scratch)
        self.collector.notes += [note] if note else []
        return terrain, f"relief, {100 * relief.covered:.0f} % of the area"

    def _relief(self, bounds: Bounds) -> Relief:
        """Return the relief of all files over the whole place."""
        relief = Relief(grown(bounds), scratch=self.scratch)
        for _, some in pieces(self.relief.array()):
            relief.add(some)
        return relief

    def _notes(self, standing: Standing, local: Bounds, terrain: Terrain, ground: str) -> None:
        """Add what files have in common, and what of the city is unlike any city."""
        for text, names in self._said.items():
            files = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more files"
            self.collector.notes.append(text.format(file=files))
        if self.collector.namesakes:
            self.collector.notes.append(
                f"{self.collector.namesakes} features have a name that another one has at another "
                "place: all are kept"
            )
        self.facts = Facts(
            local,
            standing.heights(self.scratch),
            standing.count(BUILDING),
            len(self.collector.skipped),
            self.zone.crs or "",
            ground,
            _above(standing, terrain, self.scratch),
        )
        self.collector.notes += warnings(self.facts)

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
            summary=summary(self.facts),
        )


def _above(standing: Standing, terrain: Terrain, scratch: Scratch) -> NDArray[np.float64]:
    """Return how far (N,) the lowest points of the buildings are above the ground, metres."""
    bases = standing.bases_of(BUILDING, scratch)
    found = np.zeros(len(bases))
    for start, some in pieces(bases):
        found[start : start + len(some)] = some[:, 2] - terrain.height(some[:, :2])
    return found


def _extent_text(bounds: Bounds) -> str:
    east, north = (bounds[2] - bounds[0]) / 1000, (bounds[3] - bounds[1]) / 1000
    return f"laying the ground of {east:.1f} x {north:.1f} km"


def _source_files(used: Sequence[Source]) -> tuple[SourceFile, ...]:
    """Return each loose file, and each archive once, with its hash."""
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

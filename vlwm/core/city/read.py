"""From files to one City: find them, read each, join them, bound the place, build the terrain.

Formats are known by the files' names and contents: OBJ, CityGML, 3D Tiles, alone, in folders or in
unopened zips. Relief is laid last, whatever its file is called, because it is sampled only where
something was built. A broken feature is left out, counted and named; `strict` stops at the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.area import Area, mesh_bounds
from vlwm.core.city.assembly.deduplicate import FileOf
from vlwm.core.city.assembly.join import Gathered, OnSource
from vlwm.core.city.city import City
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
from vlwm.core.city.readers.obj_kinds import seen_from_above
from vlwm.core.city.readers.source_files import Source, find_sources
from vlwm.core.city.readers.tiles.tiles3d import Leaves, find_leaves, tile_batches
from vlwm.core.city.reference import Reference, UnknownReference, reference_of
from vlwm.core.geometry.mapped_arrays import Scratch
from vlwm.core.text import safe_text

_MESH_OVERHANG_M = 300.0
_OBJ_KINDS = {"brid": BRIDGE, "veg": VEGETATION, "tran": ROAD, "dem": TERRAIN}
_NAMED_MISSING = 3
_LARGE_BYTES = 50_000_000
_RELIEF_M = (-1_000.0, 10_000.0)


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
        area: take only features whose middle is in it.
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


class _Reader(Gathered):
    """One reading: what the files gave so far."""

    def __init__(
        self, area: Area | None, strict: bool, scratch: Scratch, options: Options, tell: OnSource
    ) -> None:
        super().__init__(area, strict, scratch, tell)
        self.strict = strict
        self.options = options
        self.axes = Axes()
        self._leaves: dict[Source, Leaves] = {}

    def without_nested(self, sources: list[Source]) -> list[Source]:
        """Return the sources without tile sets that another one names."""
        nested = set()
        for source in (s for s in sources if s.format == "tiles"):
            source.refuse_what_is_no_model()
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
            self.tell(_title(source), done, len(sources))
            self.used.append(source)
            source.refuse_what_is_no_model()
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
        where = source.place.where(source.member)
        file = FileOf(source.name, source.format, crs, where)
        self.collector.add(batch, file, self.zone.crs or DEFAULT_CRS)

    def _say(self, text: str, source: Source) -> None:
        """Note something of a file; what holds for many files is one note."""
        self.messages.setdefault(text, []).append(source.name)

    def _read_obj(self, source: Source) -> None:
        read = read_obj(source, self.options, self.axes)
        self.axes = read.axes
        self.stated.append(read.copyright)
        for note in read.notes:
            self._say(note, source)
        vertices = self._placed(read, source)
        order = np.argsort(read.feature_of_face, kind="stable")
        kind = _OBJ_KINDS.get(source.kind or "", BUILDING)
        batch = Batch(
            kind,
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
        kinds = np.array(read.kinds or [BUILDING] * len(batch.names))
        self._take(batch.chosen(there & (kinds == BUILDING)), source, read.crs)
        for other in (ROAD, TERRAIN):
            mine = there & (kinds == other)
            if mine.any():
                part = replace(batch.chosen(mine), kind=other, skipped=[])
                if other == TERRAIN:
                    self._add_relief(seen_from_above(part.triangles))
                else:
                    self._take(part, source, read.crs)

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
        if read.crs is None:
            self._say(_without_system(read.vertices, reference), source)
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
        shown = ", ".join(safe_text(m, 120) for m in leaves.missing[:_NAMED_MISSING])
        text = f"{len(leaves.missing)} of {total} leaf tiles are not here: {shown}"
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


def _without_system(vertices: NDArray[np.float64], reference: Reference) -> str:
    """Return the note of an OBJ that names no system, and may be outside the one taken."""
    note = f"{{file}} names no coordinate system; {DEFAULT_CRS} is taken"
    middle = np.nanmedian(vertices, axis=0)[None]
    if reference.holds(middle).all():
        return note
    x, y = middle[0, :2]
    return (
        f"{note}, but its coordinates, about {x:.0f} {y:.0f}, are outside it: shapes are right "
        'and the place on the map is wrong until its first line is "# EPSG:CODE"'
    )


def _title(source: Source) -> str:
    """Return what is being done for people; a file that takes long has its size."""
    size = source.place.size(source.member)
    large = f" ({size / 1e6:.0f} MB)" if size > _LARGE_BYTES else ""
    return f"reading {safe_text(source.name)}{large}"

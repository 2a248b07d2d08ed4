"""From files to one City: find them, read each, join them, bound the place, build the terrain.

Formats are known by the files' names and contents: OBJ, CityGML, 3D Tiles, alone, in folders or in
unopened zips. Relief is laid last, whatever its file is called, because it is sampled only where
something was built. A broken feature is left out, counted and named; `strict` stops at the first.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.area import Area, mesh_bounds
from vlwm.core.city.assembly.deduplicate import FileOf
from vlwm.core.city.assembly.join import Gathered, OnSource
from vlwm.core.city.city import City
from vlwm.core.city.crs import Zone
from vlwm.core.city.readers.feature_batch import TERRAIN, Batch
from vlwm.core.city.readers.obj import DEFAULT_CRS, Options
from vlwm.core.city.readers.obj_axes import Axes
from vlwm.core.city.readers.source_files import Source, find_sources
from vlwm.core.city.readers.tiles.tiles3d import Leaves, find_leaves, tile_batches
from vlwm.core.city.reading.source_reading import Remarks, read_source
from vlwm.core.city.reading.source_work import (
    FolderPieces,
    Pieces,
    Settled,
    SourceRead,
    SourceWork,
    StorePieces,
)
from vlwm.core.engines import Engine, LocalEngine, in_order
from vlwm.core.errors import DataError
from vlwm.core.geometry.mapped_arrays import Scratch
from vlwm.core.text import safe_text

_MESH_OVERHANG_M = 300.0
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
    workers: int = 1,
    engine: Engine | None = None,
    pieces_url: str | None = None,
) -> City:
    """Read every city file of the inputs (files, folders, zips) into one City.

    Args:
        strict: stop at the first broken feature or missing tile.
        area: take only features whose middle is in it.
        scratch: where the city's arrays are put; the system's folder for temporary files if None.
        up: axis of OBJ files that points up (x, y, z); None lets their buildings tell.
        scale: metres of one unit of OBJ files; None lets their buildings tell.
        workers: processes that read CityGML and OBJ; the city does not depend on it.
        engine: reads them instead.
        pieces_url: folder of a store for what was read, where workers of the engine are on other
            machines; it is deleted afterwards. None: the folder of `scratch`.

    Raises:
        DataError: nothing to read, a broken file, places too far apart, no building in the area,
            or, with `strict`, the first broken feature.
        MachineError: the disk of `scratch` has no room, a worker was killed, or the engine lost.
    """
    paths = [Path(p) for p in inputs]
    sources, notes = find_sources(paths)
    reader = _Reader(area, strict, scratch or Scratch(), Options(up, scale), on_source)
    reader.collector.notes += notes
    wanted = [s for s in reader.without_nested(sources) if reader.is_wanted(s)]
    if engine is None and workers > 1:
        engine = LocalEngine(workers)
    reader.read_all(wanted, engine, pieces_url)
    if reader.without_height:
        reader.collector.notes.append(
            f"not read: {reader.without_height} triangles of the relief whose heights are none of "
            "the earth's, such as -9999"
        )
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
        self.without_height = 0
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

    def read_all(self, sources: list[Source], engine: Engine | None, url: str | None) -> None:
        """Read all files, the relief last; all but tile sets by an engine, if there is one."""
        later = [s for s in sources if s.kind == "dem"]
        ordered = [*(s for s in sources if s.kind != "dem"), *later]
        done = 0
        if engine is not None and ordered:
            self._settle_by(ordered[0])
        while done < len(ordered) and (engine is None or not self._settled().is_final):
            self._read(ordered[done], done, len(ordered))
            done += 1
        if done < len(ordered) and engine is not None:
            with self._pieces(engine, url) as kept:
                self._read_by(engine, ordered, done, kept)

    def _settle_by(self, source: Source) -> None:
        """Let the first batch of the first file settle the system: the engine reads it all then.

        A fault waits until the file is read in its turn.
        """
        if source.format != "gml":  # OBJ comes in one batch, and tile sets are read here
            return
        zone = Zone(self.zone.crs, self.zone.guessed)
        try:
            for _ in read_source(source, zone, self.options, Remarks(self.axes)):
                break
        except DataError:
            return
        self.zone.crs, self.zone.guessed = zone.crs, zone.guessed

    @contextmanager
    def _pieces(self, engine: Engine, url: str | None) -> Iterator[Pieces]:
        """Yield a place for what workers read; it is empty and gone at the end."""
        if engine.elsewhere and url is not None:
            stored = StorePieces(f"{url.rstrip('/')}/.reading-{secrets.token_hex(4)}")
            try:
                yield stored
            finally:
                stored.clear()
            return
        with tempfile.TemporaryDirectory(
            prefix="vlwm-read-", dir=self.scratch.folder, ignore_cleanup_errors=True
        ) as folder:
            yield FolderPieces(Path(folder))

    def _read_by(self, engine: Engine, ordered: list[Source], first: int, kept: Pieces) -> None:
        """Read what follows `first` by an engine, and take it in the order of the files."""
        items = [(n, s) for n, s in enumerate(ordered) if n >= first and s.format != "tiles"]
        work = SourceWork(self._settled(), self.options, kept)
        running = engine.run(work, items)
        results = in_order(running, [n for n, _ in items], lambda read: read.number)
        try:
            for number in range(first, len(ordered)):
                if ordered[number].format == "tiles":
                    self._read(ordered[number], number, len(ordered))
                    continue
                read = next(results)
                if work.before == self._settled():
                    self._take_read(read, ordered, number, kept)
                else:  # a file before has settled something else
                    self._read(ordered[number], number, len(ordered))
        finally:
            running.close()  # ends the workers

    def _settled(self) -> Settled:
        return Settled(self.zone.crs, self.zone.guessed, self.axes)

    def _take_read(
        self, read: SourceRead, ordered: list[Source], number: int, kept: Pieces
    ) -> None:
        """Take what a worker has read."""
        source = ordered[number]
        self.tell(_title(source), number, len(ordered))
        self.used.append(source)
        for batch, crs in read.batches(kept):
            self._take(batch, source, crs)
        self.zone.stated += [s for s in read.systems if s not in self.zone.stated]
        self._finish(source, read.remarks)

    def _read(self, source: Source, done: int, total: int) -> None:
        """Read one source here."""
        self.tell(_title(source), done, total)
        self.used.append(source)
        if source.format == "tiles":
            source.refuse_what_is_no_model()
            self._read_tiles(source, done, total)
            return
        remarks, count = Remarks(self.axes), 0
        for batch, crs in read_source(source, self.zone, self.options, remarks):
            self._take(batch, source, crs)
            count += len(batch.names)
            self.tell(f"reading {safe_text(source.name)}: {count} features", done, total)
        self._finish(source, remarks)

    def _finish(self, source: Source, remarks: Remarks) -> None:
        """Keep the remarks of a source whose batches were taken."""
        self.axes = remarks.axes
        self.stated += remarks.stated
        self.is_plateau |= remarks.is_plateau
        self.collector.notes += remarks.notes
        for text in remarks.messages:  # what holds for many files is one note
            self.messages.setdefault(text, []).append(source.name)

    def _take(self, batch: Batch, source: Source, crs: str | None = None) -> None:
        if batch.kind == TERRAIN:
            self.collector.skip(batch.skipped, FileOf(source.name))
            self._add_relief(batch.triangles)
            return
        where = source.place.where(source.member)
        file = FileOf(source.name, source.format, crs, where)
        self.collector.add(batch, file, self.zone.crs or DEFAULT_CRS)

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
        self.without_height += int((~real).sum())
        self.relief.append(triangles[real])


def _title(source: Source) -> str:
    """Return what is being done for people; a file that takes long has its size."""
    size = source.place.size(source.member)
    large = f" ({size / 1e6:.0f} MB)" if size > _LARGE_BYTES else ""
    return f"reading {safe_text(source.name)}{large}"

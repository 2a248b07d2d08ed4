"""The city of `vlwm prepare`: read with progress, and what was read, in words."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlwm.core.city.city import City
    from vlwm.core.city.tiling.tiled_city import TiledCity
    from vlwm.core.config.schema import Config
    from vlwm.core.engines import Engine
    from vlwm.core.geometry.mapped_arrays import Scratch

_EVERY_S = 5.0
_QUIET_S = 10.0
"""longest time without a line"""
_LARGE_BYTES = 50_000_000
"""of city files: smaller ones are read in seconds"""
_INPUTS = "inputs.json"
_SHOWN = 5
_SHOWN_NOTES = 12


def read_input(
    config: Config,
    inputs: list[Path] | None,
    seed: int,
    strict: bool,
    area: str | None,
    scratch: Scratch | None = None,
    up: str | None = None,
    scale: float | None = None,
    workers: int = 1,
    engine: Engine | None = None,
    pieces_url: str | None = None,
    keep: Path | None = None,
) -> City:
    """Return the city of a config or of the operator's inputs.

    Args:
        up: axis of OBJ files that points up; None lets their buildings tell.
        scale: metres of one unit of OBJ files; None lets their buildings tell.
        workers: processes that read files.
        engine, pieces_url: as of `read_city`.
        keep: folder for the tiles of a large city, which the next call reads; None: they are not
            kept.

    Raises:
        UsageError: an option does not fit.
        DataError: the files cannot be read.
    """
    from vlwm.core.city.area import Area
    from vlwm.core.city.procedural import procedural_city
    from vlwm.core.city.read import read_city
    from vlwm.core.errors import UsageError

    _check_obj(up, scale)
    if config.prepare.source == "procedural" and not inputs:
        if area is not None:
            raise UsageError("a procedural city has no --area", remedy="give real tiles by --input")
        return procedural_city(config.prepare.procedural_size_m, seed)
    paths = inputs or [Path(config.prepare.input)]
    wanted = None if keep is None else _fingerprint(paths, [area, up, scale, strict])
    kept = None if keep is None or wanted is None else _kept_city(keep, wanted, scratch)
    if kept is not None:
        return kept
    with _Steps() as steps:
        city = read_city(
            paths,
            strict=strict,
            area=None if area is None else Area.parse(area),
            on_source=steps,
            scratch=scratch,
            up=None if up is None else up.lower(),
            scale=scale,
            workers=workers,
            engine=engine,
            pieces_url=pieces_url,
        )
    if keep is not None and wanted is not None:
        _keep(city, keep, wanted)
    return city


def _check_obj(up: str | None, scale: float | None) -> None:
    """Refuse an axis or a scale that makes no sense."""
    from vlwm.core.errors import UsageError

    if up is not None and up.lower() not in ("x", "y", "z"):
        raise UsageError(f"--up {up} is unknown", remedy="use x, y or z")
    if scale is not None and not 1e-6 <= scale <= 1e6:
        raise UsageError(
            f"--scale {scale:g} is out of range", remedy="give metres of one unit, 0.01 for cm"
        )


def _fingerprint(paths: list[Path], options: list[object]) -> dict[str, object] | None:
    """Return what tells if a city has to be read again; None for one that is read in seconds."""
    from vlwm.version import __version__

    found = list[tuple[str, int]]()
    size = 0
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file():
                found.append((str(file.absolute()), file.stat().st_mtime_ns))
                size += file.stat().st_size
    if size < _LARGE_BYTES:
        return None
    digest = hashlib.sha256(repr((found, options)).encode()).hexdigest()
    return {"generator": f"vlwm {__version__}", "files": len(found), "bytes": size, "hash": digest}


def _kept_city(keep: Path, wanted: dict[str, object], scratch: Scratch | None) -> City | None:
    """Return the city whose tiles an earlier call kept; None where they are of other files."""
    from vlwm.commands.shared.output import note
    from vlwm.core.city.tiling.tiled_city import TiledCity
    from vlwm.core.errors import DataError
    from vlwm.core.files import read_json
    from vlwm.core.store.objects import open_store

    try:
        if read_json(keep / _INPUTS) != wanted:
            return None
        city = TiledCity(open_store(keep.absolute().as_uri())).city(scratch)
    except DataError:  # never kept, or damaged: it is read again
        return None
    note(f"the city comes from its tiles in {keep}")
    return city


def _keep(city: City, keep: Path, wanted: dict[str, object]) -> None:
    """Write the tiles of a city, and what they were read from."""
    import shutil

    from vlwm.core.city.tiling.tile_writer import write_tiles
    from vlwm.core.files import make_folder, write_json
    from vlwm.core.store.objects import open_store

    shutil.rmtree(keep, ignore_errors=True)
    write_tiles(city, open_store(make_folder(keep).absolute().as_uri()))
    write_json(keep / _INPUTS, wanted)  # last: without it the tiles do not count


class _Steps:
    """Lines every few seconds while files are read, and none for a city that is read at once.

    A file that takes long, or one that a worker reads, tells nothing itself: a thread repeats what
    is being done then.
    """

    def __init__(self, quiet_s: float = _QUIET_S) -> None:
        self.quiet_s = quiet_s
        self.started = self.last = time.monotonic()
        self.name = "reading the city"
        self._end = threading.Event()

    def __enter__(self) -> _Steps:
        threading.Thread(target=self._repeat, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()

    def __call__(self, name: str, done: int, total: int) -> None:
        from vlwm.commands.shared.output import note

        now = time.monotonic()
        self.name = f"{name} ({done} of {total} files done)"
        if now - self.last >= _EVERY_S or name.endswith(" MB)"):
            self.last = now
            note(self.name)

    def _repeat(self) -> None:
        from vlwm.commands.shared.output import note

        while not self._end.wait(min(1.0, self.quiet_s)):
            now = time.monotonic()
            if now - self.last >= self.quiet_s:
                self.last = now
                note(f"{self.name}, {now - self.started:.0f} s so far")


def tell_city(city: City | TiledCity) -> None:
    """Print what was read, what was left out and why, and what is unlike any city."""
    from vlwm.commands.shared.output import note, warn
    from vlwm.core.text import safe_text

    report = city.report
    note(
        f"{safe_text(city.name)}: {report.features} buildings ({report.lod2} LOD2, "
        f"{report.lod1} LOD1), {report.triangles} triangles, {city.origin.crs}; "
        f"{safe_text(city.attribution)}"
    )
    if report.summary:
        note(f"place: {report.summary}")
    for line in report.notes[:_SHOWN_NOTES]:
        warn(f"{safe_text(line)}")
    if len(report.notes) > _SHOWN_NOTES:
        warn(f"{len(report.notes) - _SHOWN_NOTES} more notes of this kind")
    if report.duplicates:
        warn(f"{report.duplicates} buildings are there twice and were taken once")
    for file, feature, reason in report.skipped[:_SHOWN]:
        warn(f"left out: {safe_text(feature)} in {safe_text(file)}: {safe_text(reason)}")
    if len(report.skipped) > _SHOWN:
        reasons = Counter(safe_text(reason, 90) for _, _, reason in report.skipped)
        counts = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
        warn(f"left out: {len(report.skipped)} in all: {counts}")


def tell_report_file(city: City, target: Path) -> None:
    """Print where the list of everything that was left out is, once it is there."""
    from vlwm.commands.shared.output import note
    from vlwm.core.data.generation.prepare import CITY_FILE

    file = target / CITY_FILE
    if len(city.report.skipped) > _SHOWN and file.is_file():
        note(f"every feature that was left out is named in {file}")

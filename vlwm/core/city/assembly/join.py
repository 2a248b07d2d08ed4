"""Join everything that was read into one City: bounds, terrain, notes on oddities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.area import Area
from vlwm.core.city.assembly.assemble import Standing, grown, roads_of, standing_of
from vlwm.core.city.assembly.deduplicate import Collector
from vlwm.core.city.assembly.extent import bound_extent, one_copy, one_format, one_model
from vlwm.core.city.attribution import attribution_of
from vlwm.core.city.check import Facts, summary, warnings
from vlwm.core.city.city import City, Origin, ReadReport, SourceFile
from vlwm.core.city.crs import Zone, unproject, zone_of
from vlwm.core.city.readers.feature_batch import BRIDGE, BUILDING, VEGETATION
from vlwm.core.city.readers.places import Archive
from vlwm.core.city.readers.source_files import Source
from vlwm.core.city.relief import Relief, lay_ground, stand_note
from vlwm.core.city.terrain import Bounds, Terrain
from vlwm.core.errors import DataError
from vlwm.core.files import sha256_file
from vlwm.core.geometry.mapped_arrays import Scratch, pieces

_REASONS = 3
_MANY, _MOST, _ROUGH_M = 8, 20_000, 2.0
"""buildings that tell up from down, those looked at, and how far uneven bases are from a plane"""

OnSource = Callable[[str, int, int], None]
"""called with (what is done, files done, files in all), again and again during a long file"""


class Gathered:
    """Everything that was read of a city, before it is one.

    Attributes:
        zone: the metric system of the city.
        collector: its features.
        relief: float64 (T, 3, 3) triangles of the ground, metres, in files.
        used: files that were read.
        stated: copyright lines of the files.
        is_plateau: a file uses PLATEAU's vocabulary.
        messages: notes, each with the files that it holds for.
    """

    def __init__(self, area: Area | None, strict: bool, scratch: Scratch, tell: OnSource) -> None:
        self.area = area
        self.scratch = scratch
        self.tell = tell
        self.zone = Zone() if area is None else Zone(zone_of(*area.middle), guessed=True)
        self.collector = Collector(area, strict=strict, scratch=scratch)
        self.relief = scratch.rows(np.float64, (3, 3))
        self.used: list[Source] = []
        self.missing_tiles = 0
        self.stated: list[str] = []
        self.is_plateau = False
        self.messages: dict[str, list[str]] = {}

    def _nothing(self) -> DataError:
        if self.area is not None and self.collector.outside:
            count = self.collector.outside
            return DataError(
                f"no building in the area {self.area.text}; {count} are outside it",
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
            DataError: there is no building, or there are places too far apart.
        """
        if self.collector.bounds() is None or self.zone.crs is None:
            raise self._nothing()
        bound_extent(self.collector)
        one_copy(self.collector)
        one_format(self.collector)
        one_model(self.collector)
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
                    "the relief is elsewhere: the ground is made without it"
                )
            terrain = lay_ground(bases, grown(local), None, self.scratch)
            return terrain, "flat" if np.ptp(terrain.heights) == 0.0 else "bases"
        share = relief.share_of(bounds)  # of the place: the margin around it may be without relief
        relief.move(-origin[0], -origin[1])
        terrain = lay_ground(bases, grown(local), relief, self.scratch)
        note = stand_note(bases, terrain, self.scratch)
        self.collector.notes += [note] if note else []
        return terrain, f"relief, {100 * share:.0f} % of the area"

    def _relief(self, bounds: Bounds) -> Relief:
        """Return the relief of all files over the whole place."""
        relief = Relief(grown(bounds), scratch=self.scratch)
        for _, some in pieces(self.relief.array()):
            relief.add(some)
        return relief

    def _notes(self, standing: Standing, local: Bounds, terrain: Terrain, ground: str) -> None:
        """Add what files have in common, and what of the city is unlike any city."""
        for text, names in self.messages.items():
            files = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more files"
            self.collector.notes.append(text.replace("{file}", files))
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
            frozenset(file.format for file in self.collector.files),
            _hang(standing.bases_of(BUILDING, self.scratch), standing.heights(self.scratch)),
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
    heights = np.zeros(len(bases))
    for start, some in pieces(bases):
        heights[start : start + len(some)] = some[:, 2] - terrain.height(some[:, :2])
    return heights


def _hang(bases: NDArray[np.float64], heights: NDArray[np.float64]) -> bool:
    """Return True where the tops of the buildings, not their bases, are one smooth surface.

    Args:
        bases: (N, 3) middle of each plan and its lowest point, metres.
        heights: (N,) metres.
    """
    if len(bases) < _MANY or len(bases) != len(heights):
        return False
    every = slice(None, None, max(1, len(bases) // _MOST))
    plan, low = bases[every, :2] - bases[:, :2].mean(axis=0), bases[every, 2]
    plane = np.column_stack([plan, np.ones(len(plan))])
    both = np.column_stack([low, low + heights[every]])
    rest = both - plane @ np.linalg.lstsq(plane, both, rcond=None)[0]
    of_bases, of_tops = rest.std(axis=0)
    return bool(of_bases > _ROUGH_M and of_tops < 0.3 * of_bases)


def _extent_text(bounds: Bounds) -> str:
    east, north = (bounds[2] - bounds[0]) / 1000, (bounds[3] - bounds[1]) / 1000
    return f"laying the ground of {east:.1f} x {north:.1f} km"


def _source_files(used: Sequence[Source]) -> tuple[SourceFile, ...]:
    """Return each loose file, and each archive once, with its hash."""
    files: dict[Path, SourceFile] = {}
    for source in used:
        place = source.place
        path = place.path if isinstance(place, Archive) else place.path / source.member
        if path not in files:
            files[path] = SourceFile(path.name, path.stat().st_size, sha256_file(path))
    return tuple(files.values())


def _name_of(path: Path) -> str:
    resolved = path.resolve()
    name = resolved.name if resolved.is_dir() else resolved.name.split(".")[0]
    return name or "city"

"""Read one OBJ or CityGML file: batches of features in the city's metres, and remarks about it.

What a file gives depends on the file and on two things that earlier files settle: the metric system
of the city and the axes of OBJ files with too few buildings to tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.crs import Zone
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
from vlwm.core.city.readers.source_files import Source
from vlwm.core.city.reference import Reference, UnknownReference, reference_of

_OBJ_KINDS = {"brid": BRIDGE, "veg": VEGETATION, "tran": ROAD, "dem": TERRAIN}

Found = tuple[Batch, str | None]
"""a batch, and the metric system that its file states"""


@dataclass
class Remarks:
    """Facts that a file states about itself; complete when its last batch was taken.

    Attributes:
        axes: how OBJ coordinates were read; before reading, those of the files before.
        stated: copyright lines.
        messages: sentences with "{file}" in place of its name; those of many files become one.
        notes: sentences about this file alone.
        is_plateau: it uses PLATEAU's vocabulary.
    """

    axes: Axes = field(default_factory=Axes)
    stated: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_plateau: bool = False


def read_source(source: Source, zone: Zone, options: Options, remarks: Remarks) -> Iterator[Found]:
    """Yield the batches of an OBJ or CityGML file; those of kind terrain hold triangles alone.

    Args:
        zone: of the city; a first file settles it.
        remarks: is filled in.

    Raises:
        DataError: the file is broken, or something else under a model's name.
    """
    source.refuse_what_is_no_model()
    if source.format == "obj":
        yield from _obj(source, zone, options, remarks)
    else:
        yield from _gml(source, zone, remarks)


def _obj(source: Source, zone: Zone, options: Options, remarks: Remarks) -> Iterator[Found]:
    read = read_obj(source, options, remarks.axes)
    remarks.axes = read.axes
    remarks.stated.append(read.copyright)
    remarks.messages += read.notes
    vertices = _placed(read, source, zone, remarks)
    order = np.argsort(read.feature_of_face, kind="stable")
    kind = _OBJ_KINDS.get(source.kind or "", BUILDING)
    batch = Batch(
        kind,
        read.feature_ids,
        read.lods or [source.lod or 1] * len(read.feature_ids),
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
    yield batch.chosen(there & (kinds == BUILDING)), read.crs
    for other in (ROAD, TERRAIN):
        mine = there & (kinds == other)
        if not mine.any():
            continue
        part = replace(batch.chosen(mine), kind=other, skipped=[])
        if other == TERRAIN:
            yield _ground(seen_from_above(part.triangles)), None
        else:
            yield part, read.crs


def _placed(read: ObjFile, source: Source, zone: Zone, remarks: Remarks) -> NDArray[np.float64]:
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
        raise source.broken(0, f"this file is not placed: {error}", "correct its header") from error
    if read.crs is None:
        remarks.messages.append(_without_system(read.vertices, reference))
    return reference.metres(read.vertices, zone)


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


def _gml(source: Source, zone: Zone, remarks: Remarks) -> Iterator[Found]:
    file = GmlFile(source, zone)
    found_relief = False
    if source.kind == "dem":
        for triangles in file.relief():
            found_relief = True
            yield _ground(triangles), None
    if not found_relief:
        for batch in file.batches():
            yield batch, None
    remarks.is_plateau = file.document.is_plateau
    remarks.notes += file.notes


def _ground(triangles: NDArray[np.float64]) -> Batch:
    """Return triangles (T, 3, 3) of the ground as a batch without features."""
    return Batch(TERRAIN, [], [], triangles, np.zeros(0, np.int32))

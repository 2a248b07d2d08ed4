"""Turn a session folder into a shard: layers by their names in the store, poses and meta.

    npz               shard
    occupancy         truth.occupied    bits
    known             truth.known       bits
    seen_occupied     seen.occupied     bits
    seen_free         seen.free         bits
    classes           classes           uint8

Tables: `number`, `pose.true`, `ground_z.true`, `time`, and, where a believed pose differs from the
true one, `pose.believed` and `ground_z.believed`. The header holds the session's name, grid and
meta.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.npz import CLASSES, KNOWN, OCCUPANCY, SEEN_FREE, SEEN_OCCUPIED
from vlwm.core.data.session import Session
from vlwm.core.errors import DataError
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.store.shard import BITS, BYTES, ShardBuilder

TRUTH = "truth.occupied"
LAYER_OF = {
    OCCUPANCY: TRUTH,
    KNOWN: "truth.known",
    SEEN_OCCUPIED: "seen.occupied",
    SEEN_FREE: "seen.free",
    CLASSES: "classes",
}
"""name of a layer in the store, by its name in npz"""
KINDS = {name: BYTES if name == CLASSES else BITS for name in LAYER_OF.values()}


class OtherGridError(DataError):
    """The frames have another grid than the config: no frame of the folder can be used."""


def shard_of_session(
    session: Session,
    grid: VoxelGrid,
    *,
    strict: bool = False,
    more: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the shard of a session folder.

    Args:
        strict: a damaged frame is an error instead of left out.
        more: further values of the header.

    Raises:
        DataError: another grid, no readable frame, or, with `strict`, a damaged one.
    """
    builder = ShardBuilder(KINDS)
    kept: list[int] = []
    damaged = list(session.damaged)
    for place, number in enumerate(session.numbers):
        try:
            layers = session.read_layers(int(number))
            _check_shape(session, int(number), layers[OCCUPANCY], grid)
        except DataError as error:
            if strict or isinstance(error, OtherGridError):
                raise
            damaged.append((str(session.occupancy_path(int(number))), str(error)))
            continue
        builder.add({LAYER_OF[n]: frame_bytes(LAYER_OF[n], v, grid) for n, v in layers.items()})
        kept.append(place)
    if not kept:
        raise DataError(
            "every frame of this session is damaged",
            where=session.path,
            remedy="take its folder away, or make it again with vlwm prepare",
        )
    header = {
        "session": session.path.name,
        "frames": len(kept),
        "grid": grid_header(grid),
        "meta": _meta(session),
        "damaged": damaged,
        "notes": session.notes,
        **(more or {}),
    }
    return builder.to_bytes(header, _tables(session, kept))


def _meta(session: Session) -> dict[str, Any]:
    """Return the session's meta with a hash in place of its list of source files.

    A city has up to thousands of files; the list is in the city's report, and in the `session.json`
    of earlier versions.
    """
    meta: dict[str, Any] = json.loads(json.dumps(vars(session.meta)))
    if meta["city"]:
        return meta
    sources = json.dumps(meta["sources"]).encode()
    return {**meta, "sources": [], "city": hashlib.sha256(sources).hexdigest()}


def frame_bytes(layer: str, cells: NDArray[np.uint8], grid: VoxelGrid) -> bytes:
    """Return one layer (X, Y, Z) as a shard keeps it before compression."""
    return cells.tobytes() if KINDS[layer] == BYTES else grid.pack(cells).tobytes()


def grid_header(grid: VoxelGrid) -> dict[str, Any]:
    """Return a grid as JSON values."""
    return {
        "lower_m": list(grid.lower_m),
        "cell_m": list(grid.cell_m),
        "shape": list(grid.shape),
    }


def _tables(session: Session, kept: list[int]) -> dict[str, NDArray[Any]]:
    tables: dict[str, NDArray[Any]] = {
        "number": session.numbers[kept],
        "pose.true": session.poses[kept],
        "ground_z.true": session.ground_z[kept],
        "time": session.timestamps[kept],
    }
    if session.has_believed:
        tables["pose.believed"] = session.believed[kept]
        tables["ground_z.believed"] = session.believed_ground_z[kept]
    return tables


def _check_shape(
    session: Session, number: int, occupancy: NDArray[np.uint8], grid: VoxelGrid
) -> None:
    if occupancy.shape != grid.shape:
        raise other_grid(occupancy.shape, grid, str(session.occupancy_path(number)))


def other_grid(shape: tuple[int, ...], grid: VoxelGrid, where: str) -> OtherGridError:
    """Return the error of frames of `shape` where the config has another grid."""
    has, wants = ("x".join(map(str, s)) for s in (shape, grid.shape))
    return OtherGridError(
        f"the data are {has} cells and the config has {wants}",
        where=where,
        remedy="prepare the data with the same --config, or give the folder of that grid",
    )

"""Read city files in workers: each file's batches go into small files, and are taken in order.

A file is read as if all files before it had been read: the metric system and the axes that they
settle are assumed, and whoever takes the batches reads the file again where the assumption was
wrong. So the number of workers changes no byte. A worker holds one batch at a time, and what it has
read ahead is on the disk.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlwm.core.city.crs import Zone
from vlwm.core.city.readers.feature_batch import Batch, Skipped
from vlwm.core.city.readers.obj import Options
from vlwm.core.city.readers.obj_axes import Axes
from vlwm.core.city.readers.source_files import Source
from vlwm.core.city.reading.source_reading import Found, Remarks, read_source
from vlwm.core.errors import DataError
from vlwm.core.files import explain_os_error


@dataclass(frozen=True)
class Settled:
    """Facts that the files read so far have settled.

    Attributes:
        crs, guessed: as of `crs.Zone`.
        axes: of OBJ files with too few buildings to tell.
    """

    crs: str | None
    guessed: bool
    axes: Axes

    @property
    def is_final(self) -> bool:
        """True once no file can change the metric system any more."""
        return self.crs is not None and not self.guessed


@dataclass(frozen=True)
class SourceRead:
    """One file that a worker has read.

    Attributes:
        number: of the source.
        after: what is settled after it.
        systems: that it states.
        remarks: about the file.
        folder: holds its batches, `pieces` of them.
        error: why it cannot be read, after these batches.
    """

    number: int
    after: Settled
    systems: list[str]
    remarks: Remarks
    folder: Path
    pieces: int
    error: DataError | None = None

    def batches(self) -> Iterator[Found]:
        """Yield the batches in order and delete them.

        Raises:
            DataError: the file cannot be read on.
        """
        for piece in range(self.pieces):
            path = self.folder / _name(piece)
            yield _unpacked(path)
            path.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.error is not None:
            raise self.error


@dataclass(frozen=True)
class SourceWork:
    """Reads sources in any process that sees the same disk.

    Attributes:
        sources: all of them.
        before: what is settled when they are read.
        options: of OBJ files.
        folder: for the batches.
    """

    sources: Sequence[Source]
    before: Settled
    options: Options
    folder: Path

    def __call__(self, number: int) -> SourceRead:
        """Read one source."""
        zone = Zone(self.before.crs, self.before.guessed, [])
        remarks = Remarks(self.before.axes)
        folder = self.folder / f"{number:06d}"
        pieces, error = 0, None
        try:
            folder.mkdir(exist_ok=True)
            for found in read_source(self.sources[number], zone, self.options, remarks):
                _pack(folder / _name(pieces), found)
                pieces += 1
        except DataError as broken:
            # what came before counts too: the operator sees the first of all errors. Its cause is
            # lxml's and cannot be pickled, which a process that has Dask tries
            error = DataError(broken.what, where=broken.where, remedy=broken.remedy)
        except OSError as refused:
            raise explain_os_error(refused, self.folder) from refused
        after = Settled(zone.crs, zone.guessed, remarks.axes)
        return SourceRead(number, after, zone.stated, remarks, folder, pieces, error)


def _name(piece: int) -> str:
    return f"{piece:06d}.npz"


def _pack(path: Path, found: Found) -> None:
    batch, crs = found
    words: dict[str, Any] = {
        "kind": batch.kind,
        "names": batch.names,
        "lods": batch.lods,
        "skipped": [[s.name, s.reason] for s in batch.skipped],
        "naming": batch.naming,
        "crs": crs,
    }
    text = np.frombuffer(json.dumps(words).encode(), np.uint8)
    np.savez(path, text=text, triangles=batch.triangles, owners=batch.owners)


def _unpacked(path: Path) -> Found:
    with np.load(path, allow_pickle=False) as opened:
        words = json.loads(opened["text"].tobytes())
        triangles, owners = opened["triangles"], opened["owners"]
    skipped = [Skipped(name, reason) for name, reason in words["skipped"]]
    batch = Batch(
        words["kind"], words["names"], words["lods"], triangles, owners, skipped, words["naming"]
    )
    return batch, words["crs"]

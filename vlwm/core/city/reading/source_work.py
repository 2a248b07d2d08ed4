"""Read city files as the tasks of an engine: each file's batches go into small files, in order.

A file is read as if all files before it had been read: the metric system and the axes that they
settle are assumed, and whoever takes the batches reads the file again where the assumption was
wrong. So the number of workers changes no byte. A worker holds one batch at a time, and what it has
read ahead is on the disk, or in the store where workers are on other machines.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vlwm.core.city.crs import Zone
from vlwm.core.city.readers.feature_batch import Batch, Skipped
from vlwm.core.city.readers.obj import Options
from vlwm.core.city.readers.obj_axes import Axes
from vlwm.core.city.readers.source_files import Source
from vlwm.core.city.reading.source_reading import Found, Remarks, read_source
from vlwm.core.city.tiling.packing import pack, unpack
from vlwm.core.errors import DataError
from vlwm.core.files import explain_os_error
from vlwm.core.parallel import release_memory
from vlwm.core.store.object_store import ObjectStore
from vlwm.core.store.objects import FolderStore, open_store

Arrays = Mapping[str, np.ndarray]
Item = tuple[int, Source]
"""number of a source, and the source"""


class Pieces(Protocol):
    """Keeps the batches that were read, until they are taken."""

    def put(self, name: str, arrays: Arrays) -> None:
        """Keep arrays under a name."""

    def take(self, name: str) -> Arrays:
        """Return the arrays of a name, and delete them."""

    def find(self, source: Source) -> None:
        """Raise DataError where a process that keeps its batches here does not see a source."""


@dataclass(frozen=True)
class FolderPieces:
    """Batches in a folder of this machine."""

    folder: Path

    def put(self, name: str, arrays: Arrays) -> None:
        try:
            # `Any`: for mypy a name might be `allow_pickle`, which is not an array
            np.savez(self.folder / f"{name}.npz", **dict[str, Any](arrays))
        except OSError as refused:
            raise explain_os_error(refused, self.folder) from refused

    def take(self, name: str) -> Arrays:
        path = self.folder / f"{name}.npz"
        with np.load(path, allow_pickle=False) as opened:
            arrays = {key: opened[key] for key in opened.files}
        path.unlink()
        return arrays

    def find(self, source: Source) -> None:
        """Do nothing: workers of this machine see its files."""


@dataclass(frozen=True)
class StorePieces:
    """Batches in a folder of a store, which machines reach that share nothing else."""

    url: str

    def put(self, name: str, arrays: Arrays) -> None:
        _store(self.url).write(name, pack(arrays))

    def take(self, name: str) -> Arrays:
        store = _store(self.url)
        raw = store.read(name)
        if raw is None:
            raise DataError(
                "a part of the city that a worker has read is gone", where=store.place(name),
                remedy="run the same command again",
            )  # fmt: skip
        arrays = unpack(raw, store.place(name))
        store.delete(name)
        return arrays

    def find(self, source: Source) -> None:
        if not source.place.path.exists():
            raise DataError(
                "a worker does not see this file of the city",
                where=source.place.where(source.member),
                remedy="put it at the same path on all machines; or run the command once without "
                "--engine: workers then read the tiles in the store",
            )

    def clear(self) -> None:
        """Delete what was not taken."""
        store = _store(self.url)
        for name in store.list():
            store.delete(name)
        if isinstance(store, FolderStore):
            # a worker that was killed leaves a file that has no name yet
            shutil.rmtree(store.folder, ignore_errors=True)


@lru_cache(maxsize=4)
def _store(url: str) -> ObjectStore:
    """Return one store a process: a bucket is connected to once."""
    return open_store(url)


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
        pieces: number of its batches.
        error: why it cannot be read, after these batches.
    """

    number: int
    after: Settled
    systems: list[str]
    remarks: Remarks
    pieces: int
    error: DataError | None = None

    def batches(self, kept: Pieces) -> Iterator[Found]:
        """Yield the batches in order and delete them.

        Raises:
            DataError: the file cannot be read on.
        """
        for piece in range(self.pieces):
            yield _unpacked(kept.take(_name(self.number, piece)))
        if self.error is not None:
            raise self.error


@dataclass(frozen=True)
class SourceWork:
    """Reads sources in any process that sees them.

    Attributes:
        before: what is settled when they are read.
        options: of OBJ files.
        kept: takes the batches.
    """

    before: Settled
    options: Options
    kept: Pieces

    def __call__(self, item: Item) -> SourceRead:
        """Read one source."""
        number, source = item
        self.kept.find(source)
        zone = Zone(self.before.crs, self.before.guessed, [])
        remarks = Remarks(self.before.axes)
        pieces, error = 0, None
        try:
            for found in read_source(source, zone, self.options, remarks):
                self.kept.put(_name(number, pieces), _packed(found))
                pieces += 1
        except DataError as broken:
            # what came before counts too: the operator sees the first of all errors. Its cause is
            # lxml's and cannot be pickled, which a process that has Dask tries
            error = DataError(broken.what, where=broken.where, remedy=broken.remedy)
        release_memory()
        after = Settled(zone.crs, zone.guessed, remarks.axes)
        return SourceRead(number, after, zone.stated, remarks, pieces, error)


def _name(number: int, piece: int) -> str:
    return f"{number:06d}-{piece:06d}"


def _packed(found: Found) -> Arrays:
    batch, crs = found
    words = {
        "kind": batch.kind,
        "names": batch.names,
        "lods": batch.lods,
        "skipped": [[s.name, s.reason] for s in batch.skipped],
        "naming": batch.naming,
        "crs": crs,
    }
    text = np.frombuffer(json.dumps(words).encode(), np.uint8)
    return {"text": text, "triangles": batch.triangles, "owners": batch.owners}


def _unpacked(arrays: Arrays) -> Found:
    words = json.loads(arrays["text"].tobytes())
    triangles, owners = arrays["triangles"], arrays["owners"]
    skipped = [Skipped(name, reason) for name, reason in words["skipped"]]
    batch = Batch(
        words["kind"], words["names"], words["lods"], triangles, owners, skipped, words["naming"]
    )
    return batch, words["crs"]

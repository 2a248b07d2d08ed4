"""The packed store: the frames of a data folder as bits, read from one shard per session.

A data folder holds session folders (npz), shards, or both. Session folders are packed into shards
of their own under `.packed` (or under $VLWM_CACHE, for data on a read-only disk), and again when a
session changed; listing the files is the index. A damaged source frame is left out, named and
counted, or fatal with `strict`. Every frame agrees with its checksum when it is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from vlwm.core.data.session import find_sessions, no_sessions
from vlwm.core.data.shards.gathered_shards import (
    MANY,
    GatheredShards,
    LayerRows,
    gather,
    gather_many,
)
from vlwm.core.data.shards.packing import FOLDER, derived_folder, list_shards, pack_sessions
from vlwm.core.data.shards.session_shard import (
    KINDS,
    TRUTH,
)
from vlwm.core.errors import DataError
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.store.shard import BYTES, SUFFIX, ShardIndex, damaged, decompress
from vlwm.core.store.shard_files import ShardFiles, read_indexes
from vlwm.core.store.unfetched import Unfetched

_ABSENT = {"truth.known": 1, "classes": 255}  # value of each cell where a frame lacks the layer


__all__ = ["FOLDER", "PackedStore", "derived_folder", "list_shards"]


@dataclass(frozen=True, eq=False)
class PackedStore:
    """Frames of a data folder as bits.

    Attributes:
        root: the data folder.
        derived: the folder of files made from it, for example `.packed`.
        grid: the grid of every frame.
        poses: float64 (N, 13), true poses, world frame of each session.
        ground_z: float64 (N,), metres.
        believed: float64 (N, 13), poses as the vehicle believed them; None: the true ones.
        believed_ground_z: float64 (N,), metres; None: the true ones.
        session: int64 (N,), index into `sessions`.
        frame: int64 (N,), frame number within the session.
        sessions: names.
        meta: `session.json` of each session as plain values.
        damaged: (file, reason) of frames that were left out.
        notes: sentences about guesses and missing values, each with its session's name.
        roots: every data folder where there are several; `root` is the first.
        source: int64 (S,), index into `roots` of each session.
    """

    root: Path
    derived: Path
    grid: VoxelGrid
    poses: NDArray[np.float64]
    ground_z: NDArray[np.float64]
    believed: NDArray[np.float64] | None
    believed_ground_z: NDArray[np.float64] | None
    session: NDArray[np.int64]
    frame: NDArray[np.int64]
    sessions: list[str]
    meta: list[dict[str, Any]]
    damaged: list[tuple[str, str]]
    notes: list[str]
    _shards: list[Path]
    _layers: dict[str, LayerRows]
    _files: ShardFiles = field(default_factory=lambda: ShardFiles(bring=Unfetched()))
    roots: tuple[Path, ...] = ()
    source: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.frame)

    @classmethod
    def open(
        cls,
        root: str | Path | Sequence[str | Path],
        grid: VoxelGrid,
        *,
        strict: bool = False,
        on_session: Callable[[str, int, int], None] = lambda name, done, total: None,
        workers: int = 1,
    ) -> PackedStore:
        """Open the store of a data folder, packing session folders that are new or changed.

        Args:
            root: a data folder, or several: their sessions are named `<folder>/<session>`.
            strict: a damaged frame is an error instead of left out.
            on_session: called with (name, done, total) for each session that is packed.
            workers: processes that pack, a session each.

        Raises:
            DataError: no sessions, another grid, a damaged shard, or, with `strict`, a damaged
                frame.
        """
        roots = [Path(root)] if isinstance(root, str | Path) else [Path(r) for r in root]
        many = _only_shards(roots)
        if many:
            found = gather_many(many, grid, derived_folder(roots[0]))
            names = [path.name.removesuffix(SUFFIX) for path in many]
            source = np.zeros(len(many), np.int64)
            return _load(cls, roots, grid, found, many, names, source)
        parts = [_shards_of(folder, grid, strict, on_session, workers) for folder in roots]
        notes = [note for _, found_notes in parts for note in found_notes]
        shards = [shard for part, _ in parts for shard in part]
        paths = [path for path, _ in shards]
        source = np.repeat(np.arange(len(roots)), [len(part) for part, _ in parts])
        names = [path.name.removesuffix(SUFFIX) for path in paths]
        if len(roots) > 1:
            labels = source_labels(roots)
            names = [f"{labels[s]}/{name}" for s, name in zip(source, names, strict=True)]
        return _load(cls, roots, grid, gather(shards, grid, notes), paths, names, source)

    def read_bits(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return packed frames (len(rows), packed_bytes), the caller's own to write to.

        Raises:
            DataError: a frame does not agree with its checksum; it is named.
        """
        return self.read_layer(TRUTH, rows)

    def read_layer(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return one layer of frames: bits (len(rows), packed_bytes), or classes (., X, Y, Z).

        A frame without `truth.known` is known everywhere, one without a `seen` layer saw nothing,
        and one without `classes` has class 255.

        Raises:
            DataError: a frame does not agree with its checksum; it is named.
        """
        rows = np.asarray(rows, dtype=np.int64)
        cells = self.grid.num_cells if KINDS[name] == BYTES else self.grid.packed_bytes
        out = np.empty((len(rows), cells), dtype=np.uint8)
        layer = self._layers.get(name)
        present = np.zeros(len(rows), bool) if layer is None else layer.size[rows] > 0
        out[~present] = self._absent(name)
        if layer is not None:
            self._read_into(out, layer, rows, present)
        return out.reshape(len(rows), *self.grid.shape) if KINDS[name] == BYTES else out

    @property
    def shards(self) -> tuple[Path, ...]:
        """The shard of each session, in the order of `sessions`."""
        return tuple(self._shards)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that some frame has."""
        return tuple(sorted(self._layers))

    @property
    def has_unknown(self) -> bool:
        """True if some frame states which of its cells are known."""
        return "truth.known" in self._layers

    @property
    def crc(self) -> NDArray[np.uint32]:
        """CRC-32 of the bits of each frame (N,), uint32."""
        return self._layers[TRUTH].content

    def _absent(self, name: str) -> NDArray[np.uint8] | int:
        value = _ABSENT.get(name, 0)
        if KINDS[name] == BYTES or value == 0:
            return value
        return self.grid.pack(np.ones(self.grid.shape, np.uint8))

    def _read_into(
        self,
        out: NDArray[np.uint8],
        layer: LayerRows,
        rows: NDArray[np.int64],
        present: NDArray[np.bool_],
    ) -> None:
        """Decompress the frames `rows` of a layer into `out`; neighbours are read at once."""
        places = np.flatnonzero(present)
        if not len(places):
            return
        at, size = layer.at[rows], layer.size[rows].astype(np.uint64)
        session = self.session[rows]
        # a new read begins where the next frame is not the file's next bytes
        follows = (at[places[:-1]] + size[places[:-1]] == at[places[1:]]) & (
            session[places[:-1]] == session[places[1:]]
        )
        for run in np.split(places, np.flatnonzero(~follows) + 1):
            shard = self._shards[session[run[0]]]
            start = int(at[run[0]])
            raw = self._files.read(shard, start, int(at[run[-1]] + size[run[-1]]) - start)
            for place in run:
                begin = int(at[place]) - start
                packed = raw[begin : begin + int(size[place])]
                row = int(rows[place])
                if isal_zlib.crc32(packed) != layer.crc[row]:
                    raise self._damage(row)
                frame = decompress(packed, out.shape[1], shard)
                out[place] = np.frombuffer(frame, np.uint8)

    def _damage(self, row: int) -> DataError:
        shard = self._shards[self.session[row]]
        return damaged(shard, f"frame {self.frame[row]} differs from its checksum")

    def check(self, rows: NDArray[np.int64] | None = None) -> None:
        """Compare frames (all by default) with their checksums.

        Raises:
            DataError: the first frame that differs is named.
        """
        for row in np.arange(len(self)) if rows is None else rows:
            for name in self._layers:
                self.read_layer(name, np.array([row]))

    def read_frame(self, row: int) -> NDArray[np.uint8]:
        """Return one frame's occupancy (X, Y, Z)."""
        return self.grid.unpack(self.read_bits(np.array([row]))[0])

    def session_rows(self) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Yield each session's name with its rows, which follow each other."""
        ends = np.searchsorted(self.session, np.arange(len(self.sessions) + 1))
        for index, name in enumerate(self.sessions):
            yield name, np.arange(ends[index], ends[index + 1])

    @property
    def data_hash(self) -> str:
        """SHA-256 over the decoded content: grid, sessions, frame numbers, poses and layers.

        The same for npz folders, shards, and the packed bits of earlier versions. Layers other
        than the truth and believed poses count only where there are any.
        """
        digest = hashlib.sha256(repr((self.grid, self.sessions)).encode())
        for array in (self.session, self.frame, self.crc, self.poses, self.ground_z):
            digest.update(np.ascontiguousarray(array).tobytes())
        for name in (n for n in self.layers if n != TRUTH):
            digest.update(name.encode() + self._layers[name].content.tobytes())
        for believed in (self.believed, self.believed_ground_z):
            if believed is not None:
                digest.update(believed.tobytes())
        return digest.hexdigest()

    def column_prior(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the share of occupied cells among the known ones per height index (Z,)."""
        area = self.grid.shape[0] * self.grid.shape[1]
        counts, known = np.zeros((2, self.grid.shape[2]), dtype=np.int64)
        partly = "truth.known" in self.layers
        for row in rows:
            occupied = self.read_frame(int(row))
            if not partly:
                counts += occupied.sum(axis=(0, 1), dtype=np.int64)
                known += area
                continue
            bits = self.read_layer("truth.known", np.array([row]))[0]
            mask = self.grid.unpack(bits)
            counts += (occupied & mask).sum(axis=(0, 1), dtype=np.int64)
            known += mask.sum(axis=(0, 1), dtype=np.int64)
        return counts / np.maximum(1, known)

    @property
    def attribution(self) -> str:
        """The attribution that everything made of these frames has to carry."""
        return "; ".join(sorted({m.get("attribution") or "" for m in self.meta} - {""}))

    @property
    def procedural(self) -> bool:
        """True if any session shows a procedural city."""
        return any(m.get("procedural") for m in self.meta)


def source_labels(roots: Sequence[Path]) -> list[str]:
    """Return a name for each data folder: that of the folder, with a number where it is taken."""
    labels: list[str] = []
    for root in roots:
        name = root.resolve().name or "data"
        taken = sum(label == name or label.startswith(f"{name}_") for label in labels)
        labels.append(f"{name}_{taken + 1}" if taken else name)
    return labels


def _only_shards(roots: Sequence[Path]) -> list[Path]:
    """Return the shards of a single folder that holds many and no session folder, else none."""
    shards = list_shards(roots[0]) if len(roots) == 1 else []
    if len(shards) < MANY:
        return []
    names = {path.name.removesuffix(SUFFIX) for path in shards}
    return [] if any(p.name not in names for p in find_sessions(roots[0])) else shards


def _shards_of(
    folder: Path,
    grid: VoxelGrid,
    strict: bool,
    on_session: Callable[[str, int, int], None],
    workers: int,
) -> tuple[list[tuple[Path, ShardIndex]], list[str]]:
    """Return the shards of a data folder by name, and notes; sessions are packed first."""
    shards = {path.name.removesuffix(SUFFIX): path for path in list_shards(folder)}
    found = [p for p in find_sessions(folder) if p.name not in shards]
    if not shards and not found:
        raise no_sessions(folder)
    indexes = dict(zip(shards, read_indexes(shards.values()), strict=True))
    derived, notes = derived_folder(folder), list[str]()
    if found:
        packed, notes = pack_sessions(derived, found, grid, strict, on_session, workers)
        indexes |= packed
        shards |= {name: derived / f"{name}{SUFFIX}" for name in packed}
    return [(shards[name], indexes[name]) for name in sorted(indexes)], notes


def _load(
    cls: type[PackedStore],
    roots: list[Path],
    grid: VoxelGrid,
    found: GatheredShards,
    shards: list[Path],
    sessions: list[str],
    source: NDArray[np.int64],
) -> PackedStore:
    return cls(
        root=roots[0],
        derived=derived_folder(roots[0]),
        grid=grid,
        poses=found.poses,
        ground_z=found.ground_z,
        believed=found.believed,
        believed_ground_z=found.believed_ground_z,
        session=found.session,
        frame=found.frame,
        sessions=sessions,
        meta=found.meta,
        damaged=found.damaged,
        notes=found.notes,
        _shards=shards,
        _layers=found.layers,
        roots=tuple(roots),
        source=source,
    )

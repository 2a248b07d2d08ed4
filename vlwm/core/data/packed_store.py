"""The packed store: every frame as bits, in one file per session, memory-mapped.

Derived from the session folders and made again when a session is newer. `index.json` holds, per
session, the frame numbers, a CRC-32 of each frame's bits, and a signature of the source files; it
is written last, so a killed build leaves the old index or none. A damaged source frame is left out,
named and counted, or fatal with `strict`. Every frame that is handed out agrees with its checksum.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from vlwm.core.data.session import Session, list_sessions
from vlwm.core.errors import DataError
from vlwm.core.files import atomic_path, make_folder, read_json, write_json
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.parallel import each

FOLDER = ".packed"
_VERSION = 2


@dataclass(frozen=True, eq=False)
class PackedStore:
    """Frames of a data folder as bits.

    Attributes:
        root: the data folder.
        grid: the grid of every frame.
        poses: float64 (N, 13), world frame of each session.
        ground_z: float64 (N,), metres.
        session: int64 (N,), index into `sessions`.
        frame: int64 (N,), frame number within the session.
        crc: uint32 (N,).
        sessions: names.
        meta: what each session says of itself, as plain values.
        damaged: (file, reason) of frames that were left out.
        notes: sentences about what was guessed or is missing, each with its session's name.
    """

    root: Path
    grid: VoxelGrid
    poses: NDArray[np.float64]
    ground_z: NDArray[np.float64]
    session: NDArray[np.int64]
    frame: NDArray[np.int64]
    crc: NDArray[np.uint32]
    sessions: list[str]
    meta: list[dict[str, Any]]
    damaged: list[tuple[str, str]]
    notes: list[str]
    _bits: list[NDArray[np.uint8]]

    def __len__(self) -> int:
        return len(self.frame)

    @classmethod
    def open(
        cls,
        root: str | Path,
        grid: VoxelGrid,
        *,
        strict: bool = False,
        on_session: Callable[[str, int, int], None] = lambda name, done, total: None,
        workers: int = 1,
    ) -> PackedStore:
        """Open the store of a data folder, packing sessions that are new or changed.

        Args:
            strict: a damaged frame is an error instead of left out.
            on_session: called with (name, done, total) for each session that is packed.
            workers: processes that pack, a session each.

        Raises:
            DataError: no sessions, another grid, or, with `strict`, a damaged frame.
        """
        folder = Path(root)
        paths = list_sessions(folder)
        entries = _up_to_date(folder, paths, grid, strict, on_session, workers)
        return _load(cls, folder, grid, entries)

    def __getstate__(self) -> dict[str, Any]:
        """All but the mapped bits: a worker that is spawned maps the files itself."""
        return {k: v for k, v in vars(self).items() if k != "_bits"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        vars(self)["_bits"] = [_map(self.root, name, self.grid) for name in self.sessions]

    def read_bits(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Packed frames (len(rows), packed_bytes).

        Rows that follow each other in one session are a view of the mapped file (private to this
        process, so writing to it changes nothing on disk); others are copied.

        Raises:
            DataError: the bits of a frame do not agree with their checksum; it is named.
        """
        rows = np.asarray(rows)
        session = self.session[rows]
        first = np.searchsorted(self.session, session)
        places = rows - first
        if len(rows) and (session == session[0]).all() and (np.diff(places) == 1).all():
            out = self._bits[session[0]][places[0] : places[0] + len(rows)]
        else:
            pairs = zip(session, places, strict=True)
            out = np.array([self._bits[s][p] for s, p in pairs], dtype=np.uint8)
            out = out.reshape(-1, self.grid.packed_bytes)
        for row, bits in zip(rows, out, strict=True):
            if isal_zlib.crc32(bits) != self.crc[row]:
                raise self._damage(int(row))
        return out

    def _damage(self, row: int) -> DataError:
        return DataError(
            f"frame {self.frame[row]} of {self.sessions[self.session[row]]} is damaged in the "
            "packed store",
            where=self.root / FOLDER,
            remedy="delete that folder; it is made again from the sessions",
        )

    def check(self, rows: NDArray[np.int64] | None = None) -> None:
        """Compare frames (all by default) with their checksums.

        Raises:
            DataError: the first frame that differs is named.
        """
        for row in np.arange(len(self)) if rows is None else rows:
            self.read_bits(np.array([row]))

    def read_frame(self, row: int) -> NDArray[np.uint8]:
        """One frame's occupancy (X, Y, Z)."""
        return self.grid.unpack(self.read_bits(np.array([row]))[0])

    def session_rows(self) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Each session's name with its rows."""
        for index, name in enumerate(self.sessions):
            yield name, np.flatnonzero(self.session == index)

    @property
    def data_hash(self) -> str:
        """SHA-256 over grid, sessions, frame numbers, checksums and poses."""
        digest = hashlib.sha256(repr((self.grid, self.sessions)).encode())
        for array in (self.session, self.frame, self.crc, self.poses, self.ground_z):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def column_prior(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Share of occupied cells per height index (Z,), over frames."""
        counts = np.zeros(self.grid.shape[2], dtype=np.int64)
        for row in rows:
            counts += self.read_frame(int(row)).sum(axis=(0, 1), dtype=np.int64)
        area = self.grid.shape[0] * self.grid.shape[1]
        return counts / max(1, len(rows) * area)

    @property
    def attribution(self) -> str:
        """What has to stand beside anything made of these frames."""
        return "; ".join(sorted({m.get("attribution") or "" for m in self.meta} - {""}))

    @property
    def procedural(self) -> bool:
        """Whether any session shows a made-up city."""
        return any(m.get("procedural") for m in self.meta)


def _signature(path: Path) -> str:
    """Names, sizes and times of a session's files."""
    digest = hashlib.sha256()
    for folder in ("occupancy", "poses"):
        if (path / folder).is_dir():
            for entry in sorted(os.scandir(path / folder), key=lambda e: e.name):
                stat = entry.stat()
                digest.update(f"{entry.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    meta = path / "session.json"
    digest.update(meta.read_bytes() if meta.exists() else b"")
    return digest.hexdigest()


def _up_to_date(
    root: Path,
    paths: list[Path],
    grid: VoxelGrid,
    strict: bool,
    on_session: Callable[[str, int, int], None],
    workers: int,
) -> list[dict[str, Any]]:
    folder = make_folder(root / FOLDER)
    known = _read_index(folder, grid)
    signatures = {path.name: _signature(path) for path in paths}

    def is_old(path: Path) -> bool:
        entry = known.get(path.name)
        whole = entry is not None and _is_whole(folder, entry, grid)
        return entry is None or not whole or entry["signature"] != signatures[path.name]

    old = [path for path in paths if is_old(path)]
    number = {path.name: place for place, path in enumerate(paths)}
    packed = dict(known)
    made = each(lambda path: _pack(folder, path, grid, strict), old, workers)
    for path, entry in zip(old, made, strict=True):
        on_session(path.name, number[path.name], len(paths))
        packed[path.name] = entry | {"signature": signatures[path.name]}
    entries = [packed[path.name] for path in paths]
    damaged = [d for entry in entries for d in entry["damaged"]]
    if strict and damaged:
        file, reason = damaged[0]
        raise DataError(
            reason, where=file, remedy="mend it; without strict it is left out and counted"
        )
    changed = bool(old) or set(known) != {p.name for p in paths}
    if changed:
        write_json(folder / "index.json", {**_header(grid), "sessions": entries})
        for file in {folder / f"{name}.bits" for name in set(known) - {p.name for p in paths}}:
            file.unlink(missing_ok=True)
    return entries


def _header(grid: VoxelGrid) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "lower_m": list(grid.lower_m),
        "cell_m": list(grid.cell_m),
        "shape": list(grid.shape),
    }


def _read_index(folder: Path, grid: VoxelGrid) -> dict[str, dict[str, Any]]:
    """Entries by session name; empty where the index is absent, damaged or of another grid."""
    try:
        index = read_json(folder / "index.json")
        if {k: index.get(k) for k in _header(grid)} != _header(grid):
            return {}
        return {e["name"]: e for e in index["sessions"]}
    except (DataError, KeyError, TypeError, AttributeError):
        return {}


def _is_whole(folder: Path, entry: dict[str, Any], grid: VoxelGrid) -> bool:
    path = folder / f"{entry['name']}.bits"
    wanted = len(entry["numbers"]) * grid.packed_bytes
    return path.is_file() and path.stat().st_size == wanted


def _pack(folder: Path, path: Path, grid: VoxelGrid, strict: bool) -> dict[str, Any]:
    session = Session(path, strict=strict)
    kept: list[int] = []
    crcs: list[int] = []
    damaged = list(session.damaged)
    with atomic_path(folder / f"{path.name}.bits") as temporary, open(temporary, "wb") as out:
        for place, number in enumerate(session.numbers):
            try:
                occupancy = session.read_occupancy(int(number))
                _check_shape(occupancy, grid, session.occupancy_path(int(number)))
            except DataError as error:
                if strict or isinstance(error, _OtherGrid):
                    raise
                damaged.append((str(session.occupancy_path(int(number))), str(error)))
                continue
            bits = grid.pack(occupancy).tobytes()
            out.write(bits)
            kept.append(place)
            crcs.append(isal_zlib.crc32(bits))
    if not kept:
        raise DataError(
            "every frame of this session is damaged",
            where=path,
            remedy="take its folder away, or make it again with vlwm prepare",
        )
    return {
        "name": path.name,
        "numbers": session.numbers[kept].tolist(),
        "crc": crcs,
        "poses": session.poses[kept].tolist(),
        "ground_z": session.ground_z[kept].tolist(),
        "damaged": damaged,
        "notes": session.notes,
        "meta": json.loads(json.dumps(vars(session.meta))),
    }


class _OtherGrid(DataError):
    """The sessions are of another grid than the config: nothing to leave out, all of it is so."""


def _check_shape(occupancy: NDArray[np.uint8], grid: VoxelGrid, path: Path) -> None:
    if occupancy.shape != grid.shape:
        has, wants = ("x".join(map(str, s)) for s in (occupancy.shape, grid.shape))
        raise _OtherGrid(
            f"the data are {has} cells and the config says {wants}",
            where=path,
            remedy="prepare the data with the same --config, or give the folder of that grid",
        )


def _map(root: Path, name: str, grid: VoxelGrid) -> NDArray[np.uint8]:
    """The bits of a session (frames, packed_bytes), mapped copy-on-write."""
    mapped = np.memmap(root / FOLDER / f"{name}.bits", np.uint8, "c")
    return np.asarray(mapped).reshape(-1, grid.packed_bytes)


def _load(
    cls: type[PackedStore], root: Path, grid: VoxelGrid, entries: list[dict[str, Any]]
) -> PackedStore:
    counts = [len(e["numbers"]) for e in entries]
    return cls(
        root=root,
        grid=grid,
        poses=np.concatenate([np.array(e["poses"]) for e in entries]),
        ground_z=np.concatenate([np.array(e["ground_z"]) for e in entries]),
        session=np.repeat(np.arange(len(entries)), counts),
        frame=np.concatenate([np.array(e["numbers"]) for e in entries]),
        crc=np.concatenate([np.array(e["crc"], dtype=np.uint32) for e in entries]),
        sessions=[e["name"] for e in entries],
        meta=[e["meta"] for e in entries],
        damaged=[(f, r) for e in entries for f, r in e["damaged"]],
        notes=[f"{e['name']}: {note}" for e in entries for note in e["notes"]],
        _bits=[_map(root, e["name"], grid) for e in entries],
    )

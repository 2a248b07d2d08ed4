"""The preview of a prepared folder: a map of the place and a contact sheet, as PNG files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from vlwm.core.city.city import City
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.session import Session, list_sessions
from vlwm.core.data.splits import Splits
from vlwm.core.errors import DataError
from vlwm.core.figures.canvas import write_png
from vlwm.core.figures.city_map import Track, draw_map
from vlwm.core.figures.contact_sheet import PICTURES, SheetRow, draw_sheet
from vlwm.core.geometry.grid import VoxelGrid

_FRAMES = 5
_MOST_ROWS = 12


def write_preview(city: City, folder: Path, grid: VoxelGrid, file: Path) -> list[Path]:
    """Draw the map into `file` and the contact sheet next to it; return both files.

    Args:
        city: what the folder was prepared from.
        file: a PNG; the sheet is `<stem>_frames.png`.

    Raises:
        DataError: the folder is not prepared.
        MachineError: the disk is full or read-only.
    """
    if file.suffix.lower() != ".png":
        raise DataError("a preview is a PNG file", where=file, remedy="name it something.png")
    sessions = [Session(path) for path in list_sessions(folder)]
    splits = Splits.read(folder / "splits.json")
    notes = [city.attribution]
    if city.procedural:
        notes = ["procedural city, not a real place"]
    tracks = [_track(session, city, splits) for session in sessions]
    title = f"{city.name}: some frames of each session, from above, ahead is up"
    store = PackedStore.open(folder, grid)
    shown = list(zip(sessions, tracks, strict=True))[:_MOST_ROWS]
    rows = [_row(session, track, store) for session, track in shown]
    sheet = file.with_name(f"{file.stem}_frames.png")
    write_png(file, draw_map(city, splits, tracks, notes))
    write_png(sheet, draw_sheet(rows, grid, title, notes))
    return [file, sheet]


def _track(session: Session, city: City, splits: Splits) -> Track:
    """Return a session's path in the city's frame, and its caption."""
    origin, meta = session.meta.origin, session.meta
    shift = np.zeros(2)
    if origin is not None:
        shift = np.array([origin["easting"], origin["northing"]])
    xy = session.poses[:, :2] + shift
    split = splits.sessions.get(session.path.name) or str(splits.of_places(xy[:1])[0])
    length = float(np.linalg.norm(np.diff(xy, axis=0), axis=1).sum())
    words = f"{meta.agent} {meta.pattern or ''}, {split}: {len(xy)} frames, {length:.0f} m"
    local = xy - (city.origin.easting, city.origin.northing)
    return Track(session.path.name, meta.agent, split, local, words)


def _row(session: Session, track: Track, store: PackedStore) -> SheetRow:
    index = store.sessions.index(session.path.name)
    rows = np.flatnonzero(store.session == index)
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, _FRAMES).round().astype(int))]
    numbers = [int(n) for n in store.frame[chosen]]
    frames = np.stack([store.read_frame(int(row)) for row in chosen])
    found = (session.path / "images" / f"{n:06d}_CAM_FRONT.jpg" for n in numbers)
    pictures = [cv2.imread(str(p)) for p in found if p.exists()][:PICTURES]
    title = f"{session.path.name}   {track.words}"
    return SheetRow(title, numbers, frames, [p for p in pictures if p is not None])

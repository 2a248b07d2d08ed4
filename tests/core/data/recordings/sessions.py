"""Convert recordings in tests, and compare the sessions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.core.data.recordings.formats import write_folder
from tests.core.data.recordings.known_city import GRID, SMALL, KnownCity
from vlwm.core.data.recordings.convert import convert
from vlwm.core.data.recordings.options import ConvertOptions, ConvertReport
from vlwm.core.data.recordings.readers.folder import FolderSource, read_folder
from vlwm.core.data.recordings.recording import Recording
from vlwm.core.data.session import Session

CITY = KnownCity(seconds=2.4, scan_hz=5.0, pattern=replace(SMALL, azimuths=240))
"""a short recording that all readers are tested with"""
STILL = replace(CITY, blocks=1)
"""the same with scans of one instant, as sources have them that compensate for the motion"""
OPTIONS = ConvertOptions(window_s=0.5)


def session_of(recording: Recording, output: Path) -> tuple[Session, ConvertReport]:
    report = convert(recording, output, GRID, OPTIONS)
    return Session(output / report.session), report


def share_of_equal_cells(one: Session, other: Session) -> float:
    """Intersection over union of occupied cells over the frames that both have, and must share."""
    assert one.numbers.tolist() == other.numbers.tolist()
    pairs = [(one.read_layers(int(n)), other.read_layers(int(n))) for n in one.numbers]
    hit = sum(int((a["occupancy"] & b["occupancy"]).sum()) for a, b in pairs)
    union = sum(int((a["occupancy"] | b["occupancy"]).sum()) for a, b in pairs)
    assert union > 100
    known = [float((a["known"] != b["known"]).mean()) for a, b in pairs]
    assert max(known) < 0.02, known
    return hit / union


def assert_equals_the_generic_door(session: Session, found: Recording, folder: Path) -> None:
    """What a reader found, written as a plain folder of points and poses, gives equal cells.

    So a session differs from that of the known city by the numbers of its format alone, such as
    text and float16.
    """
    root = write_folder(folder, found)
    parts = root / "points", root / "poses.txt", root / "extrinsic.yaml"
    read = read_folder(FolderSource(*parts, agent=found.agent))
    read = replace(read, frame_times_s=found.frame_times_s)
    other, _ = session_of(read, folder / "out")
    assert share_of_equal_cells(session, other) == 1.0


def assert_same_motion(one: Session, other: Session, metres: float = 1e-3) -> None:
    """Positions relative to the first frame and orientations agree; worlds may differ in yaw."""
    assert np.allclose(one.poses[:, 2], other.poses[:, 2], atol=0.05 + metres)
    steps = [np.linalg.norm(np.diff(s.poses[:, :2], axis=0), axis=1) for s in (one, other)]
    assert np.allclose(*steps, atol=metres)
    speeds = [np.linalg.norm(s.poses[:, 7:10], axis=1) for s in (one, other)]
    assert np.allclose(*speeds, atol=0.05 + 10 * metres)

"""Write the pose files and pictures of a recorded session."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.formats.archive import AnyPath
from vlwm.core.data.recordings.recording import Recording
from vlwm.core.data.session import write_pose
from vlwm.core.files import atomic_path, make_folder, write_text

Floats = NDArray[np.float64]

_PROGRESS = "progress.json"
_SAVE_S = 10.0  # between two notes of the progress
_IMAGE_NEAR_S = 0.15  # a picture farther in time from a frame is not its picture


class Progress(TypedDict):
    """Describe how far a conversion got: terrain by frame, whole frames, counts of the scans."""

    levels: list[float | None]
    ground: list[float]
    cells: list[int]
    scans: dict[str, float]


class ProgressFile:
    """Note how far a conversion got, so that the next start resumes there.

    Args:
        folder: of the session.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / _PROGRESS
        self._last_s = time.monotonic()

    def read(self) -> Progress | None:
        """Return the last note, or None without one that can be read."""
        try:
            found = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return None
        return cast(Progress, found) if isinstance(found, dict) else None

    def note(self, values: Callable[[], Progress]) -> None:
        """Write what `values` returns, at most every few seconds."""
        if time.monotonic() - self._last_s >= _SAVE_S:
            self._last_s = time.monotonic()
            write_text(self.path, json.dumps(values()))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def write_poses(
    folder: Path,
    numbers: NDArray[np.int64],
    times: Floats,
    places: Floats,
    turns: Floats,
    motion: Floats,
    ground: Floats,
) -> None:
    """Write the pose files; world z = 0 is the terrain under the first frame."""
    base = np.array([0.0, 0.0, ground[0]])
    for row, number in enumerate(numbers):
        pose = np.concatenate([places[number] - base, turns[number], motion[row]])
        file = folder / "poses" / f"{number:06d}.json"
        write_pose(file, pose, float(ground[row] - base[2]), float(times[number]))


def write_images(
    folder: Path, recording: Recording, numbers: NDArray[np.int64], times: Floats
) -> list[str]:
    """Write the picture next in time to each frame as JPEG; return sentences about what is missing.

    Pictures that cannot be read are named in `recording.damaged`.
    """
    if not recording.images:
        return ["--camera has no effect: the recording has no pictures"]
    make_folder(folder / "images")
    stamps = np.array([image.time_s for image in recording.images])
    without = 0
    for number in numbers:
        row = int(np.abs(stamps - times[number]).argmin())
        if abs(stamps[row] - times[number]) > _IMAGE_NEAR_S:
            without += 1
            continue
        pixels = _read_picture(recording.images[row].path)
        if pixels is None:
            recording.damaged.append((str(recording.images[row].path), "not a readable picture"))
            continue
        encoded = cv2.imencode(".jpg", pixels)[1]
        file = folder / "images" / f"{number:06d}_CAM_FRONT.jpg"
        with atomic_path(file, flush=False) as temporary:
            temporary.write_bytes(encoded.tobytes())
    words = f"{without} of {len(numbers)} frames have no picture within {_IMAGE_NEAR_S:g} s"
    return [words] if without else []


def _read_picture(path: AnyPath) -> NDArray[np.uint8] | None:
    """Return the pixels of a picture, or None where it is missing or damaged."""
    try:
        raw = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except OSError:
        return None
    return None if not len(raw) else cv2.imdecode(raw, cv2.IMREAD_COLOR)

"""Read nuScenes (Caesar et al. 2020): lidar, poses and pictures by its JSON tables; Occ3D labels.

Quaternions are w, x, y, z, time stamps microseconds. `calibrated_sensor` leads from a sensor to
the ego vehicle, `ego_pose` from there to the map. The height of every `ego_pose` is 0, for the
localisation is planar, and poses drift over a scene: accumulate over two or three seconds, not
over a scene. Frames are the key frames. Occ3D labels (`gts/<scene>/<sample>/labels.npz`, in the
ego frame, class 17 is free) become the classes and the occupancy of their frames.
"""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.formats.extrinsic import checked
from vlwm.core.data.recordings.pose_track import PoseTrack, matrix_of
from vlwm.core.data.recordings.recording import Image, Labels, Recording, Scan
from vlwm.core.errors import DataError
from vlwm.core.files import read_json
from vlwm.core.text import plain_reason
from vlwm.core.vocabulary import Agent, Split

Floats = NDArray[np.float64]

ATTRIBUTION = "nuScenes (Motional)"
OCC3D = "Occ3D-nuScenes (Tian et al. 2023)"
LICENCE = "CC BY-NC-SA 4.0, non-commercial"
FREE = 17
_TABLES = ("scene", "sample", "sample_data", "ego_pose", "calibrated_sensor", "sensor")
_LAYOUT = "give --input the folder that holds v1.0-mini or v1.0-trainval, samples and sweeps"
_MINI_VAL = {103, 916}
_VAL_RANGES = (
    (3, 3), (12, 18), (35, 36), (38, 39), (92, 110), (221, 221), (268, 278), (329, 332),
    (344, 346), (519, 524), (552, 565), (625, 627), (629, 630), (632, 638), (770, 771),
    (775, 775), (777, 778), (780, 784), (794, 800), (802, 802), (904, 917), (919, 931),
    (962, 963), (966, 969), (971, 972), (1059, 1073),
)  # fmt: skip
"""scenes of the official validation split of trainval, 150 in all"""
ROOF = ((-1.0, 1.0), (-2.0, 2.6))
"""x and y of the vehicle in the lidar's frame (right, ahead), metres: no ground is seen in there"""
_HELD_OUT = 10  # every tenth official training scene validates


@dataclass(frozen=True)
class _Tables:
    """Rows of the tables by their token."""

    root: Path
    version: str
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]]

    def get(self, table: str, token: str) -> Mapping[str, Any]:
        return self.rows[table][token]


def read_nuscenes(root: Path) -> list[Recording]:
    """Return one recording for each scene whose lidar files are present.

    Raises:
        DataError: the layout is another, a table is damaged, or no lidar file is present.
    """
    tables = _read_tables(root)
    try:
        chains, absent = _lidar_chains(tables)
        scenes = sorted(tables.rows["scene"].values(), key=lambda s: s["name"])
        found = [
            _scene(tables, scene, chains[scene["token"]], absent[scene["token"]])
            for scene in scenes
            if scene["token"] in chains
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the tables contradict each other at one place: {plain_reason(error)}",
            where=root,
            remedy=_LAYOUT,
        ) from error
    if not found:
        raise DataError("no lidar file of the tables is present", where=root, remedy=_LAYOUT)
    return found


def _read_tables(root: Path) -> _Tables:
    folders = sorted(p.parent for p in root.glob("v1.0-*/scene.json"))
    if not folders:
        raise DataError("no nuScenes tables here", where=root, remedy=_LAYOUT)
    folder = folders[-1]
    rows = {}
    for name in _TABLES:
        values = read_json(folder / f"{name}.json")
        if not isinstance(values, list) or not all("token" in v for v in values):
            raise DataError(
                "a table is not a list of rows with tokens", where=folder / f"{name}.json",
                remedy=_LAYOUT,
            )  # fmt: skip
        rows[name] = {v["token"]: v for v in values}
    return _Tables(root, folder.name, rows)


def _lidar_chains(
    tables: _Tables,
) -> tuple[dict[str, list[Mapping[str, Any]]], Counter[str]]:
    """Return the lidar rows of each scene that are on disk, in time order, and how many are not."""
    channels: dict[str, list[Mapping[str, Any]]] = {}
    absent: Counter[str] = Counter()
    for row in tables.rows["sample_data"].values():
        mount = tables.get("calibrated_sensor", row["calibrated_sensor_token"])
        if tables.get("sensor", mount["sensor_token"])["channel"] != "LIDAR_TOP":
            continue
        scene = tables.get("sample", row["sample_token"])["scene_token"]
        if (tables.root / row["filename"]).is_file():
            channels.setdefault(scene, []).append(row)
        else:
            absent[scene] += 1
    chains = {k: sorted(v, key=lambda r: r["timestamp"]) for k, v in channels.items()}
    return chains, absent


def _scene(
    tables: _Tables, scene: Mapping[str, Any], rows: list[Mapping[str, Any]], absent: int
) -> Recording:
    """Return the recording of a scene of which `absent` lidar files are not on disk."""
    poses = [tables.get("ego_pose", r["ego_pose_token"]) for r in rows]
    times = np.array([r["timestamp"] for r in rows]) * 1e-6
    turns = np.array([_xyzw(p["rotation"]) for p in poses])
    track = PoseTrack.of(times, np.array([p["translation"] for p in poses]), turns)
    mount = tables.get("calibrated_sensor", rows[0]["calibrated_sensor_token"])
    matrix = checked(matrix_of(mount["translation"], _xyzw(mount["rotation"])), scene["name"])
    keys = [r for r in rows if r["is_key_frame"]]
    labels = _labels(tables.root, scene["name"], [k["sample_token"] for k in keys])
    notes = [
        f"{len(keys)} key frames, {len(rows) - len(keys)} sweeps",
        "poses have no height: the terrain comes from the lidar; no times of points: no deskewing",
    ]
    if absent:
        notes.append(
            f"{absent} of {absent + len(rows)} lidar files of the tables are absent: "
            "a part of the download may be missing"
        )
    damaged: list[tuple[str, str]] = []
    return Recording(
        name=scene["name"],
        agent=Agent.ROVER,
        scans=lambda: _scans(tables.root, rows, damaged),
        poses=track,
        extrinsics={"LIDAR": matrix},
        images=_images(tables, scene["token"]),
        frame_times_s=np.array([k["timestamp"] for k in keys]) * 1e-6,
        labels=labels,
        split=split_of(tables.version, scene["name"]),
        attribution=f"{ATTRIBUTION}, {OCC3D}" if labels else ATTRIBUTION,
        licence=LICENCE,
        notes=notes,
        damaged=damaged,
        source=str(tables.root),
    )


def _xyzw(wxyz: list[float]) -> list[float]:
    return [*wxyz[1:], wxyz[0]]


def split_of(version: str, scene: str) -> str:
    """Return our split of a scene: the official validation scenes test, each tenth other validates.

    The official test scenes have no labels and are treated as training scenes' own kind: 'train'.
    """
    number = int(scene.rpartition("-")[2])
    if "mini" in version:
        held = number in _MINI_VAL
    else:
        held = any(low <= number <= high for low, high in _VAL_RANGES)
    if held:
        return Split.TEST
    return Split.VAL if number % _HELD_OUT == 0 else Split.TRAIN


def _images(tables: _Tables, scene: str) -> list[Image]:
    found = []
    for row in tables.rows["sample_data"].values():
        mount = tables.get("calibrated_sensor", row["calibrated_sensor_token"])
        if tables.get("sensor", mount["sensor_token"])["channel"] != "CAM_FRONT":
            continue
        if (
            row["is_key_frame"]
            and tables.get("sample", row["sample_token"])["scene_token"] == scene
        ):
            found.append(Image(row["timestamp"] * 1e-6, tables.root / row["filename"]))
    return sorted(found, key=lambda i: i.time_s)


def _labels(root: Path, scene: str, samples: list[str]) -> Labels | None:
    """Return the Occ3D labels of a scene, or None where it has none."""
    folder = root / "gts" / scene
    if not folder.is_dir():
        return None
    return Labels(lambda i: read_occ3d(folder / samples[i] / "labels.npz"), FREE)


def read_occ3d(path: Path) -> NDArray[np.uint8] | None:
    """Return the classes (200, 200, 16) of an Occ3D frame, or None where it has no file.

    Raises:
        DataError: the file is damaged or of another family.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as opened:
            classes = opened["semantics"]
    except (
        OSError, ValueError, KeyError, EOFError, SyntaxError, TokenError, NotImplementedError,
        zlib.error, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise DataError(
            f"not an Occ3D frame: {error}", where=path, remedy="unpack Occ3D's gts again"
        ) from error
    if classes.shape != (200, 200, 16) or classes.dtype != np.uint8 or classes.max() > FREE:
        raise DataError(
            f"labels {classes.dtype} of shape {classes.shape} are not those of Occ3D-nuScenes",
            where=path,
            remedy="only Occ3D's own labels are read: others differ in frame or in y",
        )
    return np.asarray(classes)


def read_lidar_file(path: Path) -> NDArray[np.float32]:
    """Return the rows (N, 5) x, y, z, intensity, ring of a .pcd.bin file.

    Raises:
        ValueError: its size is not a whole number of rows.
    """
    raw = np.fromfile(path, dtype="<f4")
    if len(raw) % 5:
        raise ValueError(f"{len(raw)} numbers are not rows of five")
    return raw.reshape(-1, 5)


def off_the_roof(cloud: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which rows (N, 5) are not returns of the vehicle's own roof and bonnet, (N,)."""
    own = np.ones(len(cloud), dtype=bool)
    for axis, (low, high) in enumerate(ROOF):
        own &= (cloud[:, axis] >= low) & (cloud[:, axis] <= high)
    return ~own


def _scans(
    root: Path, rows: list[Mapping[str, Any]], damaged: list[tuple[str, str]]
) -> Iterator[Scan]:
    damaged.clear()
    for row in rows:
        path = root / row["filename"]
        try:
            cloud = read_lidar_file(path)
        except (OSError, ValueError) as error:
            damaged.append((str(path), plain_reason(error)))
            continue
        cloud = cloud[np.isfinite(cloud).all(axis=1)]
        away = off_the_roof(cloud)
        yield Scan(row["timestamp"] * 1e-6, cloud[away, :3], "LIDAR", cloud[away, 3])

"""Read and write `session.json`: the origin, time step and provenance of a session.

Sessions that `prepare` makes also have CRC-32s of their pose files there, and a checksum of the
file itself. Recorded sessions may lack the file.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vlwm.core.data.checksums import check_seal, sealed
from vlwm.core.errors import DataError
from vlwm.core.files import flush_disk, make_folder, read_json, write_json
from vlwm.core.vocabulary import Agent
from vlwm.version import __version__

AGENTS: tuple[str, ...] = tuple(Agent)
_POSE_CRCS = "poses_crc32"  # CRC-32 of pose files 0, 1, …, eight hex digits each


@dataclass(frozen=True)
class SessionMeta:
    """The content of `session.json`.

    Attributes:
        agent: 'drone' or 'rover'.
        dt_s: seconds between frames.
        grid: {"range": six metres, "voxel_size": three metres, "shape": three cells}.
        origin: world (0, 0, 0): {"crs", "easting", "northing", "height"}; None: unknown place.
        velocity_frame: 'world' or 'body'; None: decided by agreement with finite differences.
        velocity_source: where a made session's velocities and tilt come from: 'past' for backward
            differences of positions up to the frame. None: unknown (recorded, or made by an
            earlier version, whose differences looked 0.05 to 0.1 s ahead).
        split: 'train', 'val' or 'test' for a session planned inside a region, else None.
        pattern: name of the trajectory pattern of a planned session.
        sources: files of the city, in sessions of earlier versions.
        city: hash of the files of the city, which `city_report.json` lists.
    """

    agent: str
    dt_s: float
    grid: dict[str, Any] | None = None
    origin: dict[str, Any] | None = None
    seed: int | None = None
    frames: int | None = None
    velocity_frame: str | None = None
    velocity_source: str | None = None
    split: str | None = None
    pattern: str | None = None
    fill: str = "surface"
    procedural: bool = False
    attribution: str = ""
    generator: str = f"vlwm {__version__}"
    sources: list[dict[str, Any]] = field(default_factory=list)
    sensors: dict[str, Any] = field(default_factory=dict)
    city: str = ""


_TYPES: dict[str, tuple[type, ...]] = {
    "agent": (str,),
    "dt_s": (int, float),
    "grid": (dict, type(None)),
    "origin": (dict, type(None)),
    "seed": (int, type(None)),
    "frames": (int, type(None)),
    "velocity_frame": (str, type(None)),
    "velocity_source": (str, type(None)),
    "split": (str, type(None)),
    "pattern": (str, type(None)),
    "fill": (str,),
    "procedural": (bool,),
    "attribution": (str,),
    "generator": (str,),
    "sources": (list,),
    "sensors": (dict,),
    "city": (str,),
}
"""types of the values of `session.json`"""


def read_meta(path: Path) -> tuple[SessionMeta, list[int]]:
    """Read `session.json`: the meta (dt_s 0 where missing, set later) and the CRC-32s of poses.

    Raises:
        DataError: the file is damaged or a value has another type.
    """
    agent = path.name.partition("_")[0]
    agent = agent if agent in AGENTS else Agent.DRONE
    file = path / "session.json"
    if not file.exists():
        return SessionMeta(agent=agent, dt_s=0.0), []
    values = read_json(file)
    if not isinstance(values, Mapping):
        raise DataError(
            "session.json is not an object",
            where=file,
            remedy="write it as in docs/data_format.md, or delete it: it is optional",
        )
    check_seal(values, file)
    known = {k: v for k, v in values.items() if k in SessionMeta.__dataclass_fields__}
    for key, value in known.items():
        if not isinstance(value, _TYPES[key]) or not _has_sense(key, value):
            raise DataError(
                f"{key} = {str(value)[:60]!r} makes no sense",
                where=file,
                remedy="write it as in docs/data_format.md, or leave the key out",
            )
    meta = SessionMeta(**{"agent": agent, "dt_s": 0.0, **known})
    if meta.velocity_frame not in (None, "world", "body"):
        raise DataError(
            f"velocity_frame {meta.velocity_frame!r} is unknown",
            where=file,
            remedy="use 'world' or 'body', or leave the key out",
        )
    text = values.get(_POSE_CRCS, "")
    if not isinstance(text, str) or not re.fullmatch(r"([0-9a-f]{8})*", text):
        text = ""  # only a forged file: a damaged one differs from its checksum
    return meta, [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]


def _has_sense(key: str, value: Any) -> bool:
    if key == "dt_s":
        return not isinstance(value, bool) and 0 <= value < float("inf")
    if key == "origin" and value is not None:
        numbers = [value.get(k) for k in ("easting", "northing", "height")]
        finite = [isinstance(n, int | float) and np.isfinite(float(n)) for n in numbers]
        return isinstance(value.get("crs"), str) and all(finite)
    return True


def write_meta(folder: Path, meta: SessionMeta) -> None:
    """Write `session.json`, last of all: it marks the session as whole and on the disk."""
    poses = sorted((folder / "poses").glob("[0-9]*.json"))
    if [p.stem for p in poses] == [f"{i:06d}" for i in range(len(poses))]:
        crcs = "".join(f"{zlib.crc32(path.read_bytes()):08x}" for path in poses)
    else:
        crcs = ""  # recorded sessions whose numbers have gaps
    flush_disk(make_folder(folder))
    write_json(folder / "session.json", sealed({**asdict(meta), _POSE_CRCS: crcs}))

"""Define how a recording is turned into frames, and what is counted on the way."""

from __future__ import annotations

from dataclasses import dataclass, field

RECORDING = "recording.json"
"""file of a session folder with the plan and the report of its conversion"""


@dataclass(frozen=True)
class ConvertOptions:
    """Options for turning a recording into frames.

    Attributes:
        rate_hz: frames a second of the session.
        window_s: scans this long before and after a frame are accumulated.
        range_m: nearest and farthest return that counts.
        deskew: use the time of each point where there is one.
        remove_moving: leave points out that later scans look through.
        lidar: write the scan next to each frame.
        camera: write the picture next to each frame.
        lidar_delay_s: added to the times of the scans.
    """

    rate_hz: float = 2.0
    window_s: float = 1.5
    range_m: tuple[float, float] = (0.8, 120.0)
    deskew: bool = True
    remove_moving: bool = True
    lidar: bool = False
    camera: bool = False
    lidar_delay_s: float = 0.0


@dataclass
class ConvertReport:
    """Counts of one conversion, for the operator and for `recording.json`.

    Attributes:
        faults: other mounts or times that the scans agree with clearly better, one sentence each.
        cannot_tell: faults that the motion of the vehicle does not show.
    """

    session: str
    frames: int = 0
    without_pose: int = 0
    scans: int = 0
    points: int = 0
    moving_points: int = 0
    deskewed: bool = False
    position_spikes: int = 0
    jumps: int = 0
    clamped_velocities: int = 0
    occupied_share: float = 0.0
    known_share: float = 0.0
    notes: list[str] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    cannot_tell: list[str] = field(default_factory=list)

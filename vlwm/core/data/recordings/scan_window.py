"""Read the scans of a recording once, and hand out those around each frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.movers import LATER_S, TICK_S, later_scans, moving_points
from vlwm.core.data.recordings.options import ConvertOptions, ConvertReport
from vlwm.core.data.recordings.placing import PlacedScan, place_scan
from vlwm.core.data.recordings.pose_track import PoseTrack
from vlwm.core.data.recordings.recording import Recording, Scan
from vlwm.core.data.recordings.scan_fit import ScanFit

Floats = NDArray[np.float64]

_UPSIDE_DOWN = 0.85  # share of returns above the sensor that no ordinary mount has


class ScanWindow:
    """Scans of a recording, read once and handed out frame by frame.

    Attributes:
        first_s, last_s: times of the first and the last scan that was read; NaN before.
        out_of_range: scans all of whose returns are too near or too far.
        distance_m: median distance of the returns of the first of them; NaN before.
    """

    def __init__(
        self,
        recording: Recording,
        poses: PoseTrack,
        options: ConvertOptions,
        report: ConvertReport,
    ) -> None:
        self.recording, self.poses = recording, poses
        self.options, self.report = options, report
        self.first_s = self.last_s = float("nan")
        self.fit = ScanFit(poses, recording.extrinsics)
        self._without_pose = 0
        self.out_of_range, self.distance_m = 0, float("nan")
        self._above = 0  # returns above the sensor
        self._read = 0  # scans that were read
        self._counted = self._marked = 0  # of these, counted in the report, searched for movers
        self._compared = 0  # of these, with a later scan that looks through their points
        self._placed: deque[PlacedScan] = deque()
        self._numbers: deque[int] = deque()  # of each placed scan, from 1
        self._moving: deque[NDArray[np.bool_] | None] = deque()

    def counts(self) -> dict[str, float]:
        """Return what was counted so far, for `resume`."""
        report = self.report
        return {
            "counted": self._read, "marked": self._marked, "compared": self._compared,
            "without_pose": self._without_pose, "out_of_range": self.out_of_range,
            "above": self._above,
            "scans": report.scans, "points": report.points,
            "moving_points": report.moving_points, "deskewed": report.deskewed,
        }  # fmt: skip

    def resume(self, counts: Mapping[str, float]) -> None:
        """Continue the counts of an earlier start; scans of its frames are read but not used."""
        self._counted, self._marked = int(counts["counted"]), int(counts["marked"])
        self._compared = int(counts.get("compared", 0))
        self.out_of_range = int(counts.get("out_of_range", 0))
        self._without_pose, self._above = int(counts["without_pose"]), int(counts["above"])
        self.report.scans, self.report.points = int(counts["scans"]), int(counts["points"])
        self.report.moving_points = int(counts["moving_points"])
        self.report.deskewed = bool(counts["deskewed"])

    def around(
        self, times_s: Floats, first: int = 0
    ) -> Iterator[tuple[int, list[PlacedScan], list[NDArray[np.bool_]]]]:
        """Yield (frame number, scans within the window of its time, moving points of each).

        Args:
            first: number of the first frame that is handed out.
        """
        source, ended = self.recording.scans(), False
        window = self.options.window_s + TICK_S
        later = LATER_S[1] + TICK_S if self.options.remove_moving else 0.0
        for number, now in enumerate(times_s[first:], first):
            while not ended and not self._reaches(now + window + later):
                scan = next(source, None)
                ended = scan is None
                if scan is not None:
                    self._take(scan, now - window)
            while self._placed and self._placed[0].time_s < now - window:
                self._placed.popleft()
                self._moving.popleft()
                self._numbers.popleft()
            count = sum(1 for s in self._placed if s.time_s <= now + window)
            self._find_moving(count)
            chosen = list(self._placed)[:count]
            yield number, chosen, [m for m in list(self._moving)[:count] if m is not None]
            if ended and not self._placed:
                return

    def remarks(self) -> list[str]:
        """Return sentences about scans left out, what moves, and clouds that may be upside down."""
        found = []
        if not self.options.remove_moving:
            found.append("moving points are kept: what moves is smeared")
        elif self.report.scans and not self._compared:
            found.append(
                f"no scan has another {LATER_S[0]:g} to {LATER_S[1]:g} s after it: moving points "
                "cannot be found, and what moves is smeared"
            )
        read = self.report.scans + self._without_pose + self.out_of_range
        if self.out_of_range:
            low, high = self.options.range_m
            found.append(
                f"{self.out_of_range} of {read} scans have no return between {low:g} and "
                f"{high:g} m from the sensor"
            )
        if self._without_pose:
            found.append(f"{self._without_pose} of {read} scans have no pose at their time")
        if self._above > _UPSIDE_DOWN * max(1, self.report.points):
            share = 100 * self._above / self.report.points
            found.append(
                f"{share:.0f} % of the returns are above the sensor: the cloud may be upside down; "
                "check --axes (poses of PX4 and of TartanAir are ned) and the rotation of the mount"
            )
        return found

    def _reaches(self, time_s: float) -> bool:
        return bool(self.last_s > time_s)

    def _take(self, scan: Scan, oldest_s: float) -> None:
        """Place a scan and keep it, unless no frame will ask for it."""
        delay = self.options.lidar_delay_s
        if np.isnan(self.first_s):
            self.first_s = scan.time_s + delay
        self.last_s = scan.time_s + delay
        self._read += 1
        moved = scan if not delay else _delayed(scan, delay)
        self.fit.take(moved)
        if self.last_s < oldest_s:
            return
        new = self._read > self._counted
        late = scan.times_s is not None and self.options.deskew
        self.report.deskewed |= late
        placed = place_scan(
            moved,
            self.poses,
            self.recording.extrinsics,
            range_m=self.options.range_m,
            deskew=self.options.deskew,
        )
        if placed is None:
            self._count_unplaced(scan, new)
            return
        if new:
            self.report.scans += 1
            self.report.points += len(placed.points)
            self._above += int((placed.points[:, 2] > placed.origins[:, 2]).sum())
        self._placed.append(placed)
        self._moving.append(None)
        self._numbers.append(self._read)

    def _count_unplaced(self, scan: Scan, new: bool) -> None:
        """Count a scan without a pose, or without a return that is near enough."""
        distance = np.linalg.norm(scan.points, axis=1)
        low, high = self.options.range_m
        if ((distance >= low) & (distance <= high)).any():
            self._without_pose += new
            return
        self.out_of_range += new
        if len(distance) and np.isnan(self.distance_m):
            self.distance_m = float(np.median(distance))

    def _find_moving(self, count: int) -> None:
        """Mark the moving points of the first `count` scans that have no mark yet."""
        scans = list(self._placed)
        for index in range(count):
            if self._moving[index] is not None:
                continue
            scan = scans[index]
            moving = np.zeros(len(scan.points), dtype=bool)
            later = later_scans(scans, index) if self.options.remove_moving else []
            if later:
                moving = moving_points(scan, later)
            if self._numbers[index] > self._marked:
                self._marked = self._numbers[index]
                self._compared += bool(later)
                self.report.moving_points += int(moving.sum())
            self._moving[index] = moving


def _delayed(scan: Scan, seconds: float) -> Scan:
    times = None if scan.times_s is None else scan.times_s + seconds
    return Scan(
        scan.time_s + seconds, scan.points, scan.sensor, scan.intensity, times, scan.origins
    )

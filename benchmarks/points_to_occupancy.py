"""From points to occupancy against the exact voxels of a known city.

    python benchmarks/points_to_occupancy.py [--reach 24 40] [--cell 0.4 1.25] [--seconds 4]
        [--azimuths 1085] [--seed 3]

Rays of our own sensor model (HDL-32E at 10 Hz; 2,170 firings a turn are all of its own, by default
half of them) from a drone at 5 m/s that turns at 0.5 rad/s and tilts during each scan; every fifth
scan is dropped. Cells of 0.4 x 0.4 x 1.25 m, or --cell. *Visible* are the truly occupied cells in
which a ray of a tenfold denser, noise-free pattern from the same origins ends, by a code path of
its own (NumPy).

    recall, precision    noise-free, exact cells
    by returns alone     recall of the cells in which a return ended
    met by a ray         share of the visible cells that any ray meets: without one, no cell may be
                         known, so no recall can be higher
    within one cell      share of occupied cells at most one cell from the truth, with range noise
    exact                of 2 cm and, for each scan, pose noise of 5 cm and 0.1 degrees
    called free          share of truly occupied cells that are called free
    hit and free         cells with a return that are called free
    without a ray        known cells that no ray meets (three scans; each ray sampled every 2 cm,
                         and the cells left over compared with each ray)
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation
from scipy.spatial.transform import Rotation

from vlwm.core.data.generation.frame_jobs import Scene
from vlwm.core.data.recordings.accumulate import SeenCells, accumulate
from vlwm.core.data.recordings.placing import PlacedScan, place_scan
from vlwm.core.data.recordings.pose_track import matrix_of
from vlwm.core.data.sensors.rig import LIDARS, LidarPattern
from vlwm.core.geometry.carve import carve
from vlwm.core.geometry.frames import heading_of, quaternion_from_rpy, to_ego
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.voxelize import TriangleTiles

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.core.data.recordings.known_city import MOUNT, KnownCity

Facts = dict[str, float]


class Proof:
    """A known city, its scans, and the exact voxels of the frame in the middle."""

    def __init__(
        self, seconds: float, reach_m: float, cell_m: tuple[float, float], azimuths: int, seed: int
    ) -> None:
        pattern = replace(LIDARS["HDL-32E"], azimuths=azimuths)
        self.city = KnownCity(seconds=seconds, scan_hz=10.0, pattern=pattern, seed=seed)
        self.grid = VoxelGrid.from_range(
            (-reach_m, -reach_m, -2.0, reach_m, reach_m, 28.0), (cell_m[0], *cell_m)
        )
        place, turn = self.city.poses(np.array([self.city.start_s + seconds / 2]))
        level = self.city.ground(place[:, :2])[0]
        self.ego = np.array([place[0, 0], place[0, 1], level, heading_of(turn)[0]])
        model = self.city.city
        scene = Scene(TriangleTiles.build(model.triangles), model, self.grid, "surface")
        self.truth = scene.frame(self.ego)
        self.scans = [s for k, s in enumerate(self.city.scans) if k % 5 != 3]

    def placed(self, rng: np.random.Generator | None = None) -> list[PlacedScan]:
        """Return the scans in the world, with noise where a generator is given."""
        found = []
        for scan in self.scans:
            points, mount = scan.points, MOUNT
            if rng is not None:
                along = points / np.linalg.norm(points, axis=1, keepdims=True)
                points = points + along * rng.normal(0, 0.02, (len(along), 1)).astype(np.float32)
                shake = quaternion_from_rpy(*rng.normal(0, np.radians(0.1), 3))
                mount = matrix_of(rng.normal(0, 0.05, 3), shake) @ MOUNT
            one = place_scan(replace(scan, points=points), self.city.track, {"LIDAR": mount})
            if one is not None:
                found.append(one)
        return found

    def seen(self, scans: Sequence[PlacedScan]) -> SeenCells:
        still = [np.zeros(len(s.points), bool) for s in scans]
        return accumulate(scans, still, self.ego, self.grid)

    def cells(self, world: np.ndarray) -> np.ndarray:
        """Return the cells of the grid that hold points (N, 3) of the world."""
        index = np.floor((to_ego(world, self.ego) - self.grid.lower_m) / self.grid.cell_m)
        rows = index[((index >= 0) & (index < self.grid.shape)).all(axis=1)].astype(int)
        out = np.zeros(self.grid.shape, dtype=bool)
        out[tuple(rows.T)] = True
        return out

    def visible(self) -> np.ndarray:
        """Return the truly occupied cells in which rays of the denser pattern end."""
        own = self.city.pattern
        levels = np.interp(np.linspace(0, 31, 64), np.arange(32), own.elevations_deg)
        dense: LidarPattern = replace(own, azimuths=5 * own.azimuths, elevations_deg=tuple(levels))
        out = np.zeros(self.grid.shape, dtype=bool)
        for scan in self.scans:
            full = self.city.scan(scan.time_s, dense)
            places, turns = self.city.poses(full.times_s)
            body = full.points @ MOUNT[:3, :3].T + MOUNT[:3, 3]
            out |= self.cells(Rotation.from_quat(turns).apply(body) + places)
        return out & (self.truth > 0)

    def without_a_ray(self, scans: Sequence[PlacedScan]) -> int:
        """Return the number of known cells that no ray of some scans meets."""
        met = np.zeros(self.grid.shape, dtype=bool)
        for scan in scans:
            away = scan.points - scan.origins
            farthest = float(np.linalg.norm(away, axis=1).max())
            for share in np.linspace(0.0, 1.0, int(farthest / 0.02)):
                met |= self.cells(scan.origins + share * away)
        left = np.argwhere(self.seen(scans).known.astype(bool) & ~met)
        starts = [np.broadcast_to(s.origins, s.points.shape) for s in scans]
        rays = [to_ego(np.concatenate(p), self.ego) for p in (starts, [s.points for s in scans])]
        return sum(not self._meets(cell, *rays) for cell in left)

    def _meets(self, cell: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> bool:
        """Return True where a segment (N, 3) is inside the three slabs of a cell at one time."""
        low = np.array(self.grid.lower_m) + cell * self.grid.cell_m
        with np.errstate(divide="ignore", invalid="ignore"):
            times = [(e - starts) / (ends - starts) for e in (low, low + self.grid.cell_m)]
        enter, leave = np.minimum(*times).max(axis=1), np.maximum(*times).min(axis=1)
        return bool((np.maximum(enter, 0.0) <= np.minimum(leave, 1.0) + 1e-9).any())

    def met(self, scans: Sequence[PlacedScan]) -> np.ndarray:
        """Return the cells that a ray of the scans meets."""
        starts = np.concatenate([np.broadcast_to(s.origins, s.points.shape) for s in scans])
        ends = np.concatenate([s.points for s in scans])
        occupied, free = carve(self.grid, self.ego, starts, ends, np.ones(len(ends), bool))
        return (occupied | free) > 0


def measure(proof: Proof, rays: int) -> Facts:
    """Return the row of one grid."""
    scans, truth = proof.placed(), proof.truth > 0
    seen, visible = proof.seen(scans), proof.visible()
    occupied, free = seen.occupied > 0, seen.free > 0
    noisy = proof.seen(proof.placed(np.random.default_rng(0))).occupied > 0
    near = binary_dilation(truth, np.ones((3, 3, 3)))
    hits = np.zeros(proof.grid.shape, dtype=bool)
    for scan in scans:
        hits |= proof.cells(scan.points)
    few = [replace(s, points=s.points[::rays], origins=_part(s, rays)) for s in scans[:3]]
    return {
        "reach_m": -proof.grid.lower_m[0],
        "cell_m": proof.grid.cell_m[0],
        "visible cells": int(visible.sum()),
        "recall, by returns alone": round(float((hits & visible).sum() / visible.sum()), 4),
        "met by a ray": round(float((proof.met(scans) & visible).sum() / visible.sum()), 4),
        "recall": round(float((occupied & visible).sum() / visible.sum()), 4),
        "precision": round(float((occupied & truth).sum() / occupied.sum()), 4),
        "noisy, within one cell": round(float((noisy & near).sum() / noisy.sum()), 4),
        "noisy, exact": round(float((noisy & truth).sum() / noisy.sum()), 4),
        "called free, %": round(float(100 * (free & truth).sum() / truth.sum()), 3),
        "hit and free": int((hits & free).sum()),
        "known, % of all cells": round(float(100 * (occupied | free).mean()), 2),
        "known without a ray": proof.without_a_ray(few),
    }


def _part(scan: PlacedScan, rays: int) -> np.ndarray:
    return scan.origins if len(scan.origins) == 1 else scan.origins[::rays]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reach", type=float, nargs="+", default=[24.0, 40.0])
    parser.add_argument("--cell", type=float, nargs=2, default=[0.4, 1.25], help="side, height, m")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--azimuths", type=int, default=1085, help="firings of one turn")
    parser.add_argument("--seed", type=int, default=3, help="of the city")
    parser.add_argument("--rays", type=int, default=20, help="each n-th ray is sampled finely")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = []
    for reach in given.reach:
        start = time.monotonic()
        cell = (given.cell[0], given.cell[1])
        proof = Proof(given.seconds, reach, cell, given.azimuths, given.seed)
        found.append(measure(proof, given.rays))
        print(json.dumps(found[-1], indent=1), f"{time.monotonic() - start:.0f} s", flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

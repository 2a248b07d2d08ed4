"""Occupied, free and unknown cells of a known city, against the exact voxels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from tests.core.data.recordings.known_city import GRID, MOUNT, KnownCity
from vlwm.core.data.recordings.accumulate import SeenCells, accumulate
from vlwm.core.data.recordings.placing import PlacedScan, place_scan
from vlwm.core.data.sensors.rig import LIDARS
from vlwm.core.geometry.frames import heading_of, quaternion_from_rpy, to_ego

HDL = replace(LIDARS["HDL-32E"], azimuths=720)
CITY = KnownCity(seconds=2.0, scan_hz=10.0, pattern=HDL)


def ego_at(time_s: float) -> np.ndarray:
    place, turn = CITY.poses(np.array([time_s]))
    level = CITY.ground(place[:, :2])[0]
    return np.array([place[0, 0], place[0, 1], level, heading_of(turn)[0]])


EGO = ego_at(CITY.start_s + 1.0)


@pytest.fixture(scope="module")
def placed() -> list[PlacedScan]:
    """Scans with rotation during the scan; each fifth is dropped."""
    scans = [s for k, s in enumerate(CITY.scans) if k % 5 != 3]
    found = [place_scan(s, CITY.track, {"LIDAR": MOUNT}) for s in scans]
    return [p for p in found if p is not None]


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return CITY.scene.frame(EGO)


@pytest.fixture(scope="module")
def visible(truth: np.ndarray) -> np.ndarray:
    """Occupied cells where a ray of a tenfold denser pattern from the same origins ends.

    By another code path than the product: points are binned with NumPy, and nothing is carved.
    """
    levels = np.interp(np.linspace(0, 31, 80), np.arange(32), HDL.elevations_deg)
    dense = replace(HDL, azimuths=2880, elevations_deg=tuple(levels))
    out = np.zeros(GRID.shape, dtype=np.uint8)
    for scan in CITY.scans[::5]:
        full = CITY.scan(scan.time_s, dense)
        places, turns = CITY.poses(full.times_s)
        from scipy.spatial.transform import Rotation

        body = full.points @ MOUNT[:3, :3].T + MOUNT[:3, 3]
        world = Rotation.from_quat(turns).apply(body) + places
        index = np.floor((to_ego(world, EGO) - GRID.lower_m) / GRID.cell_m).astype(int)
        index = index[((index >= 0) & (index < GRID.shape)).all(axis=1)]
        out[tuple(index.T)] = 1
    return out & truth


def seen_of(scans: list[PlacedScan]) -> SeenCells:
    return accumulate(scans, [np.zeros(len(s.points), bool) for s in scans], EGO, GRID)


def test_noise_free_scans_give_the_visible_voxels(
    placed: list[PlacedScan], truth: np.ndarray, visible: np.ndarray
) -> None:
    seen = seen_of(placed)
    assert (seen.occupied & visible).sum() / visible.sum() >= 0.95
    assert (seen.occupied & truth).sum() / seen.occupied.sum() >= 0.95
    assert (seen.free & truth).sum() / truth.sum() <= 0.005
    assert not (seen.free & seen.occupied).any()
    assert seen.known.mean() > 0.05


def test_without_deskewing_the_turning_drone_smears_the_walls(
    truth: np.ndarray, placed: list[PlacedScan]
) -> None:
    raw = [place_scan(s, CITY.track, {"LIDAR": MOUNT}, deskew=False) for s in CITY.scans]
    smeared = seen_of([s for s in raw if s is not None])
    sharp = seen_of(placed)
    wrong = [float(1 - (s.occupied & truth).sum() / s.occupied.sum()) for s in (sharp, smeared)]
    assert wrong[0] < 0.01 < 0.05 < wrong[1]


def test_noise_of_ranges_and_poses_stays_within_one_cell(truth: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    scans = []
    for scan in CITY.scans:
        along = scan.points / np.linalg.norm(scan.points, axis=1, keepdims=True)
        noisy = scan.points + along * rng.normal(0, 0.02, (len(along), 1)).astype(np.float32)
        shake = quaternion_from_rpy(*rng.normal(0, np.radians(0.1), 3))
        from vlwm.core.data.recordings.pose_track import matrix_of

        mount = matrix_of(rng.normal(0, 0.05, 3), shake) @ MOUNT
        placed = place_scan(replace(scan, points=noisy), CITY.track, {"LIDAR": mount})
        assert placed is not None
        scans.append(placed)
    seen = seen_of(scans)
    near = binary_dilation(truth, np.ones((3, 3, 3)))
    assert (seen.occupied & near).sum() / seen.occupied.sum() >= 0.999
    assert (seen.occupied & truth).sum() / seen.occupied.sum() >= 0.85


def test_no_cell_without_a_ray_is_known(placed: list[PlacedScan]) -> None:
    """Points along all rays, every few centimetres, or the rays themselves meet each known cell."""
    seen = seen_of(placed)
    few = replace_points(placed[0], slice(None, None, 4))
    met = np.zeros(GRID.shape, dtype=bool)
    for share in np.linspace(0.0, 1.0, 900):
        at = few.origins + share * (few.points - few.origins)
        index = GRID.index_of(to_ego(at, EGO))
        index = index[((index >= 0) & (index < GRID.shape)).all(axis=1)]
        met[tuple(index.T)] = True
    one = seen_of([few])
    starts, ends = (to_ego(np.broadcast_to(p, few.points.shape), EGO)
                    for p in (few.origins, few.points))  # fmt: skip
    left = np.argwhere(one.known.astype(bool) & ~met)
    assert len(left) < 0.01 * one.known.sum()  # a corner that a ray cuts between two points
    assert all(meets_a_ray(cell, starts, ends) for cell in left)
    assert one.known.any() and seen.known.sum() > one.known.sum()


def meets_a_ray(cell: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> bool:
    """True where a segment (N, 3) is inside the three slabs of a cell at one time."""
    low = np.array(GRID.lower_m) + cell * GRID.cell_m
    with np.errstate(divide="ignore", invalid="ignore"):
        times = [(edge - starts) / (ends - starts) for edge in (low, low + GRID.cell_m)]
    enter = np.minimum(*times).max(axis=1)
    leave = np.maximum(*times).min(axis=1)
    return bool((np.maximum(enter, 0.0) <= np.minimum(leave, 1.0) + 1e-9).any())


def replace_points(scan: PlacedScan, part: slice) -> PlacedScan:
    origins = scan.origins if len(scan.origins) == 1 else scan.origins[part]
    return PlacedScan(scan.time_s, scan.points[part], origins, scan.kept[part])


def test_moving_points_leave_free_space_and_no_occupied_cell() -> None:
    point = to_world(np.array([[5.1, 0.1, 6.0]]))
    scan = PlacedScan(0.0, point, to_world(np.array([[0.1, 0.1, 6.0]])), np.array([0]))
    kept = accumulate([scan], [np.array([False])], EGO, GRID, (1, 1, 1))
    gone = accumulate([scan], [np.array([True])], EGO, GRID, (1, 1, 1))
    assert kept.occupied.sum() == 1 and gone.occupied.sum() == 0
    assert gone.free.sum() == kept.free.sum() + 1


def to_world(points: np.ndarray) -> np.ndarray:
    from vlwm.core.geometry.frames import from_ego

    return from_ego(points, EGO)


def wall(skipped: float, wavy: float = 0.0) -> PlacedScan:
    """Returns of a wall at x = 5 m + y / 8, without those whose y is near `skipped`."""
    y, z = (v.ravel() for v in np.meshgrid(np.arange(-4.0, 4.0, 0.1), np.arange(3.0, 10.5, 0.2)))
    kept = np.abs(y - skipped) > 0.45
    x = 5.0 + y / 8 + wavy * np.sin(40 * y + 9 * z)
    points = to_world(np.stack([x, y, z], -1)[kept])
    return PlacedScan(0.0, points, to_world(np.array([[-3.0, 0.1, 6.0]])), np.arange(len(points)))


def test_a_flat_surface_is_completed_where_a_ray_met_the_cell() -> None:
    """The wall is in the cell at y = 0.4 m; only a ray that passes through it makes it known."""
    hidden = tuple(GRID.index_of(np.array([[5.05, 0.4, 6.0]]))[0])
    along = to_world(np.array([[4.95, -3.0, 6.2]])), to_world(np.array([[4.95, 3.9, 6.2]]))
    ray = PlacedScan(0.0, along[1], along[0], np.array([0]))
    flat, wavy = wall(0.4), wall(0.4, 0.3)
    assert not seen_of([flat]).known[hidden]
    assert seen_of([flat, ray]).occupied[hidden] and not seen_of([flat, ray]).free[hidden]
    assert not seen_of([wavy, ray]).occupied[hidden]
    # rays through all parts of a cell prove that it is free, whatever its neighbours say
    y, z = (v.ravel() for v in np.meshgrid(np.arange(0.0, 0.8, 0.05), np.arange(5.5, 8.0, 0.05)))
    ends = to_world(np.stack([np.full(len(y), 9.0), y, z], -1))
    starts = to_world(np.stack([np.full(len(y), 2.0), y, z], -1))
    through = PlacedScan(0.0, ends, starts, np.arange(len(y)))
    assert seen_of([flat, through]).free[hidden] and not seen_of([flat, through]).occupied[hidden]

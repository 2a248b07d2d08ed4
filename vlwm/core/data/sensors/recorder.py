"""Record what the sensors of one session see: lidar scans, pictures, observed layers.

A recorder holds the surfaces within reach of one session's path, so its memory does not grow with
the city. It is made before the workers are forked; a frame depends on its pose and number alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.city import City
from vlwm.core.city.readers.feature_batch import VEGETATION
from vlwm.core.data.sensors.camera import REACH_M, CameraView, paint, write_picture
from vlwm.core.data.sensors.lidar import LidarScanner, write_lidar
from vlwm.core.data.sensors.observe import Layers, Observer, Track
from vlwm.core.data.sensors.ray_patterns import RAY_PATTERNS
from vlwm.core.data.sensors.rig import CAMERA, FRONT, LIDAR, LIDARS, MOUNTS
from vlwm.core.data.trajectories.planner import Trajectory
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.rays import RayCaster
from vlwm.core.geometry.voxelize import TriangleTiles

_ARM_M = 5.0  # no sensor hangs farther from the pose than this


@dataclass(frozen=True, eq=False)
class Surfaces:
    """Part of a city: buildings, then ground.

    Attributes:
        triangles: float64 (T, 3, 3), city's frame, metres.
        features: int32 (T,), number of the building; -1 for the ground.
        plants: bool (T,), whether it is vegetation.
    """

    triangles: NDArray[np.float64]
    features: NDArray[np.int32]
    plants: NDArray[np.bool_]


def surfaces_in(
    buildings: TriangleTiles, city: City, window: tuple[float, float, float, float]
) -> Surfaces:
    """Return triangles whose plan box meets a window (x from, y from, x to, y to) of the city."""
    low, high = np.array(window[:2]), np.array(window[2:])
    # tiles within the circle about the window, then the triangles whose plan box meets it
    near = buildings.near((low + high) / 2, float(np.linalg.norm(high - low)) / 2)
    plan = buildings.triangles[near][:, :, :2]
    meets = (plan.max(axis=1) >= low).all(axis=1) & (plan.min(axis=1) <= high).all(axis=1)
    near = near[meets]
    ground = city.terrain.triangles(window)
    owners = city.feature_of_face[near]
    # one look-up of the kind for each feature, not for each triangle
    features, place = np.unique(owners, return_inverse=True)
    kinds = [bool(city.feature_kinds) and city.feature_kinds[f] == VEGETATION for f in features]
    plants = np.array(kinds, dtype=bool)[place]
    return Surfaces(
        np.concatenate([buildings.triangles[near], ground]),
        np.concatenate([owners, np.full(len(ground), -1)]).astype(np.int32),
        np.concatenate([plants, np.zeros(len(ground), dtype=bool)]),
    )


class Recorder:
    """The sensors of a vehicle on its path.

    Args:
        path: in the session's world frame, whose origin is at `offset` (3,) in the city's.
        seed: of the session.
        pattern: lidar by name; None records no scans.
        camera: whether pictures are taken.
        observe: sensor by name whose rays are carved into layers; None observes nothing.
        grid: of the layers.
        believed: the path as the vehicle believes it.
    """

    def __init__(
        self,
        buildings: TriangleTiles,
        city: City,
        path: Trajectory,
        offset: NDArray[np.float64],
        seed: int,
        pattern: str | None,
        camera: bool,
        *,
        observe: str | None = None,
        grid: VoxelGrid | None = None,
        believed: Track | None = None,
    ) -> None:
        self.poses, self.attribution = path.poses, city.attribution
        places = path.poses[:, :2] + offset[:2]
        low, high = places.min(axis=0), places.max(axis=0)
        self.scanner: LidarScanner | None = None
        self.view: CameraView | None = None
        self.observer: Observer | None = None

        def around(reach_m: float) -> Surfaces:
            reach = reach_m + _ARM_M
            x0, y0, x1, y1 = (float(v) for v in (*(low - reach), *(high + reach)))
            return surfaces_in(buildings, city, (x0, y0, x1, y1))

        mounts = MOUNTS[path.agent]
        if pattern is not None:
            lidar = LIDARS[pattern]
            caster = RayCaster(around(lidar.range_m[1]).triangles - offset)
            self.scanner = LidarScanner(caster, lidar, mounts[LIDAR], seed)
        if observe is not None and grid is not None:
            rays = RAY_PATTERNS[observe]
            caster = RayCaster(around(rays.range_m[1]).triangles - offset)
            true = Track(path.poses, path.ground_z)
            self.observer = Observer(
                caster, rays, mounts[LIDAR], grid, true, believed or true, seed
            )
        if camera:
            seen = around(REACH_M)
            colours = paint(seen.triangles, seen.features, seen.plants)
            self.view = CameraView(seen.triangles - offset, colours, FRONT, mounts[CAMERA])

    def compile(self) -> None:
        """Make one frame for nothing, so that no forked worker has to compile."""
        if self.scanner is not None:
            self.scanner.scan(self.poses[0], 0)
        if self.view is not None:
            self.view.picture(self.poses[0])
        self.observe(0)

    def observe(self, number: int) -> Layers:
        """Return the observed layers of frame `number`; none without a sensor that observes."""
        return self.observer.observe(number) if self.observer is not None else {}

    def record(self, number: int, lidar: Path | None, image: Path | None) -> None:
        """Write the files of frame `number` that are asked for."""
        if lidar is not None and self.scanner is not None:
            write_lidar(lidar, self.scanner.scan(self.poses[number], number))
        if image is not None and self.view is not None:
            write_picture(image, self.view.picture(self.poses[number]), self.attribution)

"""Frames of a city, made by forked workers that share its triangles.

A worker holds nothing but the city; which frame it makes and in what order changes no byte. Workers
end with their parent, even when that is killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.city import City
from vlwm.core.data.npz import OCCUPANCY, write_layers
from vlwm.core.data.sensors.recorder import Recorder
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.voxelize import TriangleTiles, fill_solid
from vlwm.core.parallel import each


@dataclass(frozen=True, eq=False)
class Job:
    """The missing files of one frame.

    Attributes:
        number: of the frame.
        ego: (4,), its ego frame in the city's frame.
        occupancy, lidar, image: files to make; None where there is nothing to do.
    """

    number: int
    ego: NDArray[np.float64]
    occupancy: Path | None = None
    lidar: Path | None = None
    image: Path | None = None


@dataclass(frozen=True, eq=False)
class Scene:
    """The city, grid and filling from which any frame is made; shared with forked processes."""

    buildings: TriangleTiles
    city: City
    grid: VoxelGrid
    fill: str

    def frame(self, ego: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Return the occupancy (X, Y, Z) around an ego frame (4,) of the city's frame."""
        grid = self.grid
        occupancy = self.buildings.voxelize_ego(ego, grid)
        reach = grid.horizontal_half_diagonal_m + 1.0
        window = (ego[0] - reach, ego[1] - reach, ego[0] + reach, ego[1] + reach)
        ground = TriangleTiles.build(self.city.terrain.triangles(window))
        ground.voxelize_ego(ego, grid, occupancy, keep=True)
        return fill_solid(occupancy) if self.fill == "solid" else occupancy


def make_frames(
    scene: Scene, jobs: list[Job], workers: int, recorder: Recorder | None = None
) -> Iterator[None]:
    """Make frames, and yield after each; `recorder` makes scans and pictures.

    Raises:
        MachineError: a worker was killed from outside, as the kernel does when memory is short.
    """
    if workers > 1 and len(jobs) > 1:  # compile before forking
        scene.frame(jobs[0].ego)
        if recorder is not None:
            recorder.compile()
    chunk = max(1, min(16, len(jobs) // (4 * max(1, workers))))
    yield from each(partial(_make, scene, recorder), jobs, workers, chunk=chunk)


def _make(scene: Scene, recorder: Recorder | None, job: Job) -> None:
    if job.occupancy is not None:
        seen = {} if recorder is None else recorder.observe(job.number)
        write_layers(job.occupancy, {OCCUPANCY: scene.frame(job.ego), **seen})
    if recorder is not None:
        recorder.record(job.number, job.lidar, job.image)

"""Cast rays at triangles with Embree: first face, distance, and cosine of the incidence.

Embree finds the face in float32; the distance is then recomputed on the face's plane in float64,
so that a hit is on the surface to micrometres. Its tree is built the same every time,
and queries use one thread: a caster that was built before a fork serves all the workers.

Embree: Wald et al., "Embree: A Kernel Framework for Efficient CPU Ray Tracing", SIGGRAPH 2014.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlwm.core.geometry.jit import compiled

_SLACK_M = 0.05  # a plane met farther than this from where Embree saw it is nearly edge-on


@dataclass(frozen=True, eq=False)
class Hits:
    """First hits of N rays.

    Attributes:
        faces: int32 (N,), number of the triangle; -1 where nothing was met.
        distances: float64 (N,), metres along the ray; inf where nothing was met.
        cosines: float64 (N,), of the angle between ray and the face's normal, 0…1; 0 for a miss.
    """

    faces: NDArray[np.int32]
    distances: NDArray[np.float64]
    cosines: NDArray[np.float64]


class RayCaster:
    """Triangles (T, 3, 3) to cast rays at; metres, any one frame.

    Embree works in float32: keep the frame's origin within a few kilometres of the triangles.

    Raises:
        ValueError: another shape, or no triangle.
    """

    def __init__(self, triangles: ArrayLike) -> None:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self.triangles = np.ascontiguousarray(triangles, dtype=np.float64)
        shape = self.triangles.shape
        if len(shape) != 3 or shape[1:] != (3, 3) or not shape[0]:
            raise ValueError(f"triangles must have shape (T, 3, 3) with T > 0, not {shape}")
        self._scene = EmbreeScene(robust=True)  # no ray slips through between two neighbours
        corners = self.triangles.reshape(-1, 3).astype(np.float32)
        TriangleMesh(self._scene, corners, np.arange(len(corners), dtype=np.int32).reshape(-1, 3))
        self.first_hits(np.zeros(3), np.array([[0.0, 0.0, 1.0]]), 1.0)  # builds the tree

    def first_hits(self, origin: ArrayLike, directions: ArrayLike, reach_m: float) -> Hits:
        """Return the nearest triangle along each ray, seen from either side.

        Args:
            origin: (3,), where all rays start.
            directions: (N, 3) unit vectors.
            reach_m: longest distance that counts.
        """
        start = np.asarray(origin, dtype=np.float64)
        along = np.ascontiguousarray(directions, dtype=np.float64)
        # one query for all rays; `tfar` is Embree's distance in float32
        hits = self._scene.run(
            np.broadcast_to(start.astype(np.float32), along.shape),
            along.astype(np.float32),
            dists=float(reach_m),
            output=True,
        )
        faces = hits["primID"]
        distances, cosines = np.empty(len(along)), np.empty(len(along))
        _measure(self.triangles, faces, hits["tfar"], start, along, reach_m, distances, cosines)
        return Hits(faces, distances, cosines)


@compiled
def _measure(
    triangles: NDArray[np.float64],
    faces: NDArray[np.int32],
    seen: NDArray[np.float32],
    origin: NDArray[np.float64],
    directions: NDArray[np.float64],
    reach: float,
    distances: NDArray[np.float64],
    cosines: NDArray[np.float64],
) -> None:
    """Compute distances to the planes of faces and cosines to their normals; mark misses."""
    for k in range(len(faces)):
        distances[k], cosines[k] = np.inf, 0.0
        if faces[k] < 0:
            continue
        a, b, c = triangles[faces[k], 0], triangles[faces[k], 1], triangles[faces[k], 2]
        # two sides of the face, and their cross product: its normal, not of unit length
        ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
        vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        # distance = (a − origin) · n / (direction · n)
        slant = nx * directions[k, 0] + ny * directions[k, 1] + nz * directions[k, 2]
        away = nx * (a[0] - origin[0]) + ny * (a[1] - origin[1]) + nz * (a[2] - origin[2])
        distance = away / slant
        # an edge-on face: its plane is met far away or nowhere (NaN), so Embree's value stays
        if not abs(distance - seen[k]) <= _SLACK_M:
            distance = float(seen[k])
        if distance > reach:
            faces[k] = -1
            continue
        distances[k] = distance
        cosines[k] = abs(slant) / np.sqrt(nx * nx + ny * ny + nz * nz)

"""Render depth and face of every pixel of a pinhole camera, exactly.

A pixel shows the triangle that the ray through its centre meets first; the rays are not cast, the
triangles are filled row by row instead, with edges as planes through the camera (homogeneous
rasterisation: Olano and Greer, "Triangle Scan Conversion using 2D Homogeneous Coordinates", 1997),
so nothing needs clipping. Neighbours that share corners leave no pixel between them. Single
threaded float64: the same input gives the same bytes.

Camera frame: x right, y down, z forward. Pixel (u, v) has its centre at whole numbers, (0, 0) is
the upper left one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlwm.core.geometry.jit import compiled

_NEAR_M = 0.01


@dataclass(frozen=True)
class Pinhole:
    """A camera without distortion.

    Attributes:
        width, height: pixels.
        fx, fy: focal lengths, pixels.
        cx, cy: where the optical axis meets the picture, pixels.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    @property
    def matrix(self) -> list[list[float]]:
        """Return the intrinsic matrix, 3 × 3."""
        return [[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]]

    def project(self, points: ArrayLike) -> NDArray[np.float64]:
        """Return pixel coordinates (..., 2) of points (..., 3) of the camera frame with z > 0."""
        at = np.asarray(points, dtype=np.float64)
        scale = np.array([self.fx, self.fy])
        return at[..., :2] / at[..., 2:] * scale + (self.cx, self.cy)


def render(
    triangles: ArrayLike, origin: ArrayLike, axes: ArrayLike, camera: Pinhole, reach_m: float
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return depth and face of every pixel.

    Args:
        triangles: (T, 3, 3), outer frame, metres; both sides are visible.
        origin: (3,), the camera in the outer frame.
        axes: (3, 3), rows are the camera's x, y, z axes in the outer frame.
        reach_m: deepest surface that is drawn.

    Returns:
        depth float32 (H, W), metres along the optical axis, inf where nothing is seen; and face
        int32 (H, W), -1 there.

    Raises:
        ValueError: triangles of another shape.
    """
    corners = np.ascontiguousarray(triangles, dtype=np.float64)
    if corners.ndim != 3 or corners.shape[1:] != (3, 3):
        raise ValueError(f"triangles must have shape (T, 3, 3), not {corners.shape}")
    size = (camera.height, camera.width)
    # 1 / depth is linear in the picture, and the reach is its lowest value that counts
    inverse = np.full(size, 1.0 / reach_m, dtype=np.float32)
    face = np.full(size, -1, dtype=np.int32)
    start, turned = np.asarray(origin, np.float64), np.ascontiguousarray(axes, np.float64)
    lens = (camera.fx, camera.fy, camera.cx, camera.cy)
    _fill(corners, start, turned, lens, inverse, face)
    depth = np.divide(1.0, inverse, dtype=np.float32)
    depth[face < 0] = np.inf
    return depth, face


@compiled
def _fill(
    triangles: NDArray[np.float64],
    origin: NDArray[np.float64],
    axes: NDArray[np.float64],
    lens: tuple[float, float, float, float],
    inverse: NDArray[np.float32],
    face: NDArray[np.int32],
) -> None:
    """Draw every triangle into the inverse depths and faces; nearer ones win."""
    height, width = inverse.shape
    fx, fy, cx, cy = lens
    p = np.empty((3, 3))
    edges = np.empty((4, 3))  # three sides, then the inverse depth: each a·u + b·v + c
    for t in range(len(triangles)):
        for k in range(3):
            # corner k in the camera's axes
            dx = triangles[t, k, 0] - origin[0]
            dy = triangles[t, k, 1] - origin[1]
            dz = triangles[t, k, 2] - origin[2]
            for axis in range(3):
                p[k, axis] = axes[axis, 0] * dx + axes[axis, 1] * dy + axes[axis, 2] * dz
        top, bottom = _rows(p, fy, cy, height)
        if top > bottom or not _set_edges(p, fx, fy, cx, cy, edges):
            continue
        # in row v each side bounds u from the left or from the right
        for v in range(top, bottom + 1):
            left, right = 0.0, width - 1.0
            for k in range(3):
                slope, rest = edges[k, 0], edges[k, 1] * v + edges[k, 2]
                if slope > 0.0:
                    left = max(left, -rest / slope)
                elif slope < 0.0:
                    right = min(right, -rest / slope)
                # a side parallel to the row, and the row outside of it
                elif rest < 0.0:
                    right = -1.0
            rest = edges[3, 1] * v + edges[3, 2]
            first = int(np.ceil(min(left, width)))
            for u in range(first, int(np.floor(max(right, -1.0))) + 1):
                # larger inverse depth: nearer than what the pixel shows so far
                value = np.float32(edges[3, 0] * u + rest)
                if value > inverse[v, u]:
                    inverse[v, u] = value
                    face[v, u] = t


@compiled
def _rows(p: NDArray[np.float64], fy: float, cy: float, height: int) -> tuple[int, int]:
    """Return first and last pixel row of a triangle; last < first if it is behind the camera."""
    low, high = np.inf, -np.inf
    for k in range(3):
        y, z = p[k, 1], p[k, 2]
        if z >= _NEAR_M:
            low, high = min(low, y / z), max(high, y / z)
        # a side that crosses the near plane counts up to its crossing
        following = (k + 1) % 3
        other = p[following, 2]
        if (z < _NEAR_M) != (other < _NEAR_M):  # where the side passes the near plane
            share = (_NEAR_M - z) / (other - z)
            slope = (y + share * (p[following, 1] - y)) / _NEAR_M
            low, high = min(low, slope), max(high, slope)
    if low > high:
        return 0, -1
    # rows with a little slack; the sides decide exactly
    top = np.ceil(max(fy * low + cy - 1e-6, 0.0))
    bottom = np.floor(min(fy * high + cy + 1e-6, height - 1.0))
    return int(top), int(bottom)


@compiled
def _set_edges(
    p: NDArray[np.float64],
    fx: float,
    fy: float,
    cx: float,
    cy: float,
    edges: NDArray[np.float64],
) -> bool:
    """Fill sides and inverse depth of a triangle as functions of the pixel; False if edge-on.

    Side k is the plane through the camera and the corners k+1, k+2; a pixel is inside where all
    three are not negative. Shared sides come out as exact opposites.
    """
    edges[3] = 0.0
    for k in range(3):
        a, b = p[(k + 1) % 3], p[(k + 2) % 3]
        # normal of the plane through the camera and the side: a × b
        x = a[1] * b[2] - a[2] * b[1]
        y = a[2] * b[0] - a[0] * b[2]
        z = a[0] * b[1] - a[1] * b[0]
        # normal · ((u − cx) / fx, (v − cy) / fy, 1), sorted by u, v and 1
        edges[k, 0], edges[k, 1] = x / fx, y / fy
        edges[k, 2] = z - x * (cx / fx) - y * (cy / fy)
        if k == 0:
            volume = p[0, 0] * x + p[0, 1] * y + p[0, 2] * z
    if volume == 0.0:
        return False
    for axis in range(3):
        # 1 / depth over the picture: the three sides' functions add up to volume / depth
        edges[3, axis] = (edges[0, axis] + edges[1, axis] + edges[2, axis]) / volume
    # seen from behind: turn the sides so that inside is positive again
    if volume < 0.0:
        edges[:3] = -edges[:3]
    return True

"""Pictures of a city from a vehicle's camera: light on walls and roofs, haze, sky and ground.

Surfaces are lit by a low sun and by the sky, after their normal; every building has its own tint,
so that neighbours differ; with the distance everything fades into the horizon. There are
no textures and no shadows: the city models hold none.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlwm.core.data.sensors.rig import Mount
from vlwm.core.errors import DataError
from vlwm.core.files import atomic_path
from vlwm.core.geometry.jit import compiled
from vlwm.core.geometry.render import Pinhole, render

REACH_M = 800.0
QUALITY = 95
_AGAIN = "run the same vlwm prepare command again; it is written again"
_SUN = np.array([-0.45, -0.62, 0.64]) / np.linalg.norm([-0.45, -0.62, 0.64])
_HORIZON = np.array([205.0, 216.0, 226.0])
_ZENITH = np.array([96.0, 146.0, 206.0])
_GROUND = np.array([118.0, 119.0, 117.0])
_PLANTS = np.array([96.0, 122.0, 74.0])
_WALLS = np.array(
    [
        [198, 190, 178],
        [172, 168, 163],
        [206, 201, 194],
        [158, 150, 144],
        [186, 170, 152],
        [148, 156, 164],
    ],
    dtype=np.float64,
)
_FADE_STEPS = 1024
_LONGEST_COMMENT = 65_533


def paint(
    triangles: NDArray[np.float64], features: NDArray[np.int32], plants: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return lit colours (T, 2, 3), red, green, blue, of both sides of triangles (T, 3, 3).

    Args:
        features: (T,), number of the building; -1 for the ground.
        plants: (T,), whether a triangle belongs to vegetation.
    """
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    # Knuth's multiplier: buildings with neighbouring numbers get different colours
    mixed = (features.astype(np.uint64) * np.uint64(2654435761)) >> np.uint64(7)
    base = _WALLS[mixed % np.uint64(len(_WALLS))]
    base *= 0.88 + 0.03 * ((mixed >> np.uint64(9)) % np.uint64(5)).astype(np.float64)[:, None]
    base[features < 0] = _GROUND
    base[plants] = _PLANTS
    sides = np.stack([normal, -normal], axis=1)  # (T, 2, 3)
    light = 0.52 + 0.14 * sides[..., 2] + 0.56 * np.maximum(sides @ _SUN, 0.0)
    return np.minimum(base[:, None, :] * light[..., None], 255.0).astype(np.uint8)


class CameraView:
    """A camera on a vehicle in a city.

    Args:
        triangles: (T, 3, 3), the surfaces, in the world frame of the poses.
        colours: (T, 2, 3) from `paint`.
    """

    def __init__(
        self, triangles: ArrayLike, colours: NDArray[np.uint8], camera: Pinhole, mount: Mount
    ) -> None:
        self.triangles = np.ascontiguousarray(triangles, dtype=np.float64)
        self.colours, self.camera, self.mount = colours, camera, mount
        far = np.linspace(0.0, 1.0, _FADE_STEPS)
        self._clear = (np.exp(-2.0 * far) * (1.0 - far**4)).astype(np.float32)

    def depth(self, body: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return metres (H, W) along the optical axis at a body's pose (13,); inf for the sky."""
        place, axes = self.mount.pose(body)
        return render(self.triangles, place, axes, self.camera, REACH_M)[0]

    def picture(self, body: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Return red, green, blue (H, W, 3) at a body's pose (13,)."""
        place, axes = self.mount.pose(body)
        depth, face = render(self.triangles, place, axes, self.camera, REACH_M)
        lens = (self.camera.fx, self.camera.fy, self.camera.cx, self.camera.cy)
        out = np.empty((*face.shape, 3), dtype=np.uint8)
        _shade(
            self.triangles, self.colours, self._clear, place, axes, lens, depth, face,
            _HORIZON, _ZENITH, out,
        )  # fmt: skip
        return out


@compiled
def _shade(
    triangles: NDArray[np.float64],
    colours: NDArray[np.uint8],
    clear: NDArray[np.float32],
    place: NDArray[np.float64],
    axes: NDArray[np.float64],
    lens: tuple[float, float, float, float],
    depth: NDArray[np.float32],
    face: NDArray[np.int32],
    horizon: NDArray[np.float64],
    zenith: NDArray[np.float64],
    out: NDArray[np.uint8],
) -> None:
    """Colour of every pixel: the face's side that is seen, faded by distance, or the sky."""
    height, width = face.shape
    fx, fy, cx, cy = lens
    known, side = -1, 0
    for v in range(height):
        y = (v - cy) / fy
        for u in range(width):
            x = (u - cx) / fx
            length = np.sqrt(x * x + y * y + 1.0)
            f = face[v, u]
            if f < 0:
                rise = (axes[0, 2] * x + axes[1, 2] * y + axes[2, 2]) / length
                share = np.sqrt(max(0.0, min(1.0, rise)))
                for k in range(3):
                    out[v, u, k] = np.uint8(horizon[k] + share * (zenith[k] - horizon[k]))
                continue
            if f != known:
                known, side = f, _side(triangles[f], place)
            step = int(min(depth[v, u] * length / REACH_M, 1.0) * (len(clear) - 1))
            for k in range(3):
                colour = horizon[k] + clear[step] * (colours[f, side, k] - horizon[k])
                out[v, u, k] = np.uint8(colour + 0.5)


@compiled
def _side(triangle: NDArray[np.float64], place: NDArray[np.float64]) -> int:
    """Return 0 where `place` sees a triangle's front (counter-clockwise), 1 for its back."""
    a, b, c = triangle[0], triangle[1], triangle[2]
    ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    towards = (
        (uy * vz - uz * vy) * (place[0] - a[0])
        + (uz * vx - ux * vz) * (place[1] - a[1])
        + (ux * vy - uy * vx) * (place[2] - a[2])
    )
    return 0 if towards >= 0.0 else 1


def write_picture(path: Path, picture: NDArray[np.uint8], comment: str = "") -> None:
    """Write red, green, blue (H, W, 3) as JPEG by rename; not flushed, see `session.write_meta`.

    Args:
        comment: JPEG comment of the file: whose data the picture shows.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    _, packed = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    raw, text = packed.tobytes(), comment.encode()[:_LONGEST_COMMENT]
    noted = b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text if text else b""
    with atomic_path(path, flush=False) as temporary:
        temporary.write_bytes(raw[:2] + noted + raw[2:])


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Return red, green, blue (H, W, 3) of a picture file.

    Raises:
        DataError: the file is missing or no whole picture.
    """
    if not path.exists():
        raise DataError("no such picture", where=path, remedy=_AGAIN)
    raw = path.read_bytes()
    decoded = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR) if raw else None
    if decoded is None or not raw.endswith(b"\xff\xd9"):
        raise DataError("a damaged picture", where=path, remedy=_AGAIN)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)

"""Triangle meshes with shared vertices.

Vertices are float64 in metres, so that projected coordinates of 10⁵ m keep their nanometres;
the frame is the owner's. Faces wind counter-clockwise seen from outside, as far as the source
does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class TriangleMesh:
    """Triangles as vertices and faces.

    Attributes:
        vertices: float64 (V, 3), metres.
        faces: int32 (F, 3), indices into `vertices`.

    Raises:
        ValueError: another shape, or a face that names a vertex that does not exist.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int32]

    def __post_init__(self) -> None:
        vertices = np.ascontiguousarray(self.vertices, dtype=np.float64)
        faces = np.ascontiguousarray(self.faces, dtype=np.int32)
        for name, array in (("vertices", vertices), ("faces", faces)):
            if array.ndim != 2 or array.shape[1] != 3:
                raise ValueError(f"{name} must have shape (N, 3), not {array.shape}")
        if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
            raise ValueError(f"faces name vertices outside 0…{len(vertices) - 1}")
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "faces", faces)

    @classmethod
    def empty(cls) -> TriangleMesh:
        """Return a mesh without vertices and faces."""
        return cls(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int32))

    @classmethod
    def from_triangles(cls, triangles: ArrayLike) -> TriangleMesh:
        """Return the mesh of loose triangles (T, 3, 3); vertices are not merged."""
        corners = np.asarray(triangles, dtype=np.float64).reshape(-1, 3)
        return cls(corners, np.arange(len(corners), dtype=np.int32).reshape(-1, 3))

    def triangles(self) -> NDArray[np.float64]:
        """Return corner coordinates (F, 3, 3), metres, indexed [face, corner, axis]."""
        return self.vertices[self.faces]

    @property
    def bounds(self) -> NDArray[np.float64]:
        """Return (2, 3): lowest and highest x, y, z of all vertices, metres.

        Raises:
            ValueError: the mesh has no vertices.
        """
        if not len(self.vertices):
            raise ValueError("a mesh without vertices has no bounds")
        return np.stack([self.vertices.min(axis=0), self.vertices.max(axis=0)])

    def areas(self) -> NDArray[np.float64]:
        """Return area of every face (F,), m²."""
        return 0.5 * np.linalg.norm(self._face_normals(), axis=1)

    def _face_normals(self) -> NDArray[np.float64]:
        corners = self.triangles()
        return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def concatenate(meshes: Sequence[TriangleMesh]) -> TriangleMesh:
    """Return all faces of several meshes of one frame, in their order."""
    if not meshes:
        return TriangleMesh.empty()
    # number of each mesh's first vertex in the joined array
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
    faces = [mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]
    return TriangleMesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate(faces).astype(np.int32),
    )

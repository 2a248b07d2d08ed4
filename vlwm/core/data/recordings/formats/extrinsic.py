"""Read the mount of a sensor: a rigid motion from the sensor frame to the body frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.pose_track import matrix_of
from vlwm.core.errors import DataError
from vlwm.core.files import read_json
from vlwm.core.text import plain_reason

Floats = NDArray[np.float64]

TOLERANCE = 1e-3
"""largest element of R·Rᵀ − 1 of a matrix that still counts as a rotation"""
_FORM = (
    "write translation: [x, y, z] and rotation: [x, y, z, w] as YAML or JSON, or a 4x4 matrix as "
    "text; sensor frame to body frame, metres"
)


def read_extrinsic(path: Path) -> Floats:
    """Return the 4×4 matrix sensor → body of a YAML or JSON file or a text matrix.

    Raises:
        DataError: the file is missing, has another form, or its rotation is none.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _from_values(read_json(path), path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError("no such file", where=path, remedy="check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"not a readable extrinsic: {plain_reason(error)}", where=path, remedy=_FORM
        ) from error
    try:
        lines = [r.partition("#")[0].replace(",", " ").split() for r in text.splitlines()]
        numbers = np.array([[float(v) for v in r] for r in lines if r])
    except ValueError:
        return _from_yaml(text, path)
    if numbers.size == 12:  # three rows, as KITTI writes them
        numbers = np.vstack([numbers.reshape(3, 4), [0.0, 0.0, 0.0, 1.0]])
    return checked(numbers.reshape(4, 4) if numbers.size == 16 else numbers, path)


def _from_yaml(text: str, path: Path) -> Floats:
    import yaml

    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"not a readable extrinsic: {reason}", where=path, remedy=_FORM) from error
    return _from_values(values, path)


def _from_values(values: Any, path: Path) -> Floats:
    try:
        if isinstance(values, Mapping) and "translation" in values:
            place = np.array(_numbers(values["translation"], "xyz"))
            turn = np.array(_numbers(values["rotation"], "xyzw"))
            length = float(np.linalg.norm(turn))
            if len(place) != 3 or len(turn) != 4 or not abs(length - 1.0) < 0.02:
                raise ValueError("three metres and a unit quaternion are needed")
            return checked(matrix_of(place, turn / length), path)
        matrix = values["matrix"] if isinstance(values, Mapping) else values
        return checked(np.array(matrix, dtype=np.float64).reshape(4, 4), path)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"not a readable extrinsic: {plain_reason(error)}", where=path, remedy=_FORM
        ) from error


def _numbers(value: Any, axes: str) -> list[float]:
    """Return the numbers of a list, or of an object with an entry for each axis."""
    return (
        [float(value[a]) for a in axes] if isinstance(value, Mapping) else list(map(float, value))
    )


def checked(matrix: Floats, where: Path | str) -> Floats:
    """Return a 4×4 matrix that is a rigid motion, its rotation made exactly orthonormal.

    Raises:
        DataError: another shape, numbers that are not finite, or no rotation.
    """
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise DataError(
            f"an extrinsic of shape {matrix.shape} instead of 4x4 finite numbers",
            where=where,
            remedy=_FORM,
        )
    turn = matrix[:3, :3]
    error = float(np.abs(turn @ turn.T - np.eye(3)).max())
    if error > TOLERANCE or np.linalg.det(turn) < 0:
        kind = "mirrors" if error <= TOLERANCE else "is not a rotation"
        raise DataError(
            f"the extrinsic {kind}: its matrix differs from a rotation by {error:.3g}, and "
            f"{TOLERANCE:g} is allowed",
            where=where,
            remedy="take the calibration from its source again, sensor frame to body frame",
        )
    # the nearest rotation: singular values become 1
    left, _, right = np.linalg.svd(turn)
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = left @ right, matrix[:3, 3]
    return out


def inverse(matrix: Floats) -> Floats:
    """Return the inverse of a rigid motion (4, 4)."""
    out = np.eye(4)
    out[:3, :3] = matrix[:3, :3].T
    out[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return out

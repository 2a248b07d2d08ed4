"""Poses of a body over time: interpolation, outliers, jumps, and velocities from the past alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlwm.core.errors import DataError
from vlwm.core.geometry.frames import (
    conjugate,
    multiply_quaternions,
    rotate,
    rotation_vector,
)

Floats = NDArray[np.float64]

MAX_GAP_S = 1.5
"""longest interval between two poses that is interpolated"""
MAX_REACH_S = 0.15
"""longest extrapolation before the first and after the last pose"""
_FILTER_S = 0.6  # span of past poses that a velocity is fitted to
_FEWEST = 4  # poses below which the last two give the velocity


@dataclass(frozen=True, eq=False)
class PoseTrack:
    """Poses of one body in one world frame.

    Attributes:
        times_s: float64 (N,), strictly increasing.
        positions: float64 (N, 3), metres.
        quaternions: float64 (N, 4), unit, x, y, z, w, body to world.
        breaks: bool (N,), True where nothing may be interpolated between this pose and the one
            before (a reset of the estimator).
    """

    times_s: Floats
    positions: Floats
    quaternions: Floats
    breaks: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.times_s)

    @classmethod
    def of(
        cls,
        times_s: ArrayLike,
        positions: ArrayLike,
        quaternions: ArrayLike,
        breaks: ArrayLike | None = None,
    ) -> PoseTrack:
        """Return a track of poses in any order; equal times keep the first pose.

        Poses that are not finite or have no orientation are left out, as a gap of the track.

        Args:
            quaternions: (N, 4) x, y, z, w of any length but 0.

        Raises:
            DataError: there is no pose, or not one quaternion a time.
        """
        times = np.asarray(times_s, dtype=np.float64)
        turns = np.asarray(quaternions, dtype=np.float64)
        places = np.asarray(positions, dtype=np.float64)
        if not len(times) or turns.shape != (len(times), 4):
            raise DataError(
                f"{len(times)} times with orientations of shape {turns.shape} are not poses",
                remedy="check the file of the poses: it may be cut off",
            )
        numbers = np.concatenate([times[:, None], places, turns], axis=1)
        whole = np.isfinite(numbers).all(axis=1)
        whole &= np.linalg.norm(turns, axis=1) > 1e-6
        if not whole.any():
            raise DataError(
                f"none of {len(times)} poses is finite and has an orientation",
                remedy="check the file of the poses",
            )
        rows = np.flatnonzero(whole)
        _, first = np.unique(times[rows], return_index=True)
        rows = rows[first]
        turns = turns[rows] / np.linalg.norm(turns[rows], axis=1, keepdims=True)
        jumps = np.zeros(len(times), bool) if breaks is None else np.asarray(breaks, bool)
        return cls(times[rows], places[rows], turns, jumps[rows])

    def at(self, times_s: ArrayLike) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Return positions (M, 3), quaternions (M, 4) and validity (M,) at times (M,).

        Between two poses the body moves at constant velocity and turn rate. A time is invalid in a
        gap of more than `MAX_GAP_S`, across a break, and more than `MAX_REACH_S` outside.
        """
        wanted = np.atleast_1d(np.asarray(times_s, dtype=np.float64))
        if len(self) < 2:
            near = np.abs(wanted - self.times_s[0]) <= MAX_REACH_S
            shape = (len(wanted), 1)
            return np.tile(self.positions[0], shape), np.tile(self.quaternions[0], shape), near
        after = np.clip(np.searchsorted(self.times_s, wanted, side="right"), 1, len(self) - 1)
        before = after - 1
        start, stop = self.times_s[before], self.times_s[after]
        share = (wanted - start) / (stop - start)  # (M,), outside 0…1 beyond the ends
        step = self.positions[after] - self.positions[before]
        places = self.positions[before] + share[:, None] * step
        # Slerp as a fraction of the turn from one pose to the next: exact for a constant rate.
        turn = multiply_quaternions(self.quaternions[after], conjugate(self.quaternions[before]))
        part = quaternion_of(share[:, None] * rotation_vector(turn))
        turned = multiply_quaternions(part, self.quaternions[before])
        exact = (wanted == start) | (wanted == stop)
        whole = (stop - start <= MAX_GAP_S) & ~self.breaks[after]
        inside = (wanted >= start - MAX_REACH_S) & (wanted <= stop + MAX_REACH_S)
        return places, turned, (whole | exact) & inside

    def moved_by(self, matrix: Floats) -> PoseTrack:
        """Return the track of another frame on the same body: pose · matrix (4, 4)."""
        places = self.positions + rotate(self.quaternions, matrix[:3, 3])
        turns = multiply_quaternions(self.quaternions, quaternion_of_matrix(matrix[:3, :3]))
        return replace(self, positions=places, quaternions=turns)

    def shifted(self, seconds: float) -> PoseTrack:
        """Return the track with `seconds` added to each time."""
        return replace(self, times_s=self.times_s + seconds)

    def cleaned(self, max_speed_m_s: float) -> tuple[PoseTrack, int, int]:
        """Return the track without position spikes, and the numbers of spikes and of jumps.

        A run of at most three poses that the body can reach or leave only faster than twice
        `max_speed_m_s` is a spike and removed; any other such step is a jump, and becomes a break.
        """
        keep = [0]
        spikes, limit = 0, 2.0 * max_speed_m_s
        index = 1
        while index < len(self):
            if self._reachable(keep[-1], index, limit):
                keep.append(index)
                index += 1
                continue
            ahead = range(index + 1, min(index + 4, len(self)))
            back = next((i for i in ahead if self._reachable(keep[-1], i, limit)), None)
            if back is None:  # it does not come back: the track continues elsewhere
                keep.append(index)
                index += 1
            else:
                spikes += back - index
                index = back
        rows = np.array(keep)
        track = PoseTrack(
            self.times_s[rows], self.positions[rows], self.quaternions[rows], self.breaks[rows]
        )
        speed = np.linalg.norm(np.diff(track.positions, axis=0), axis=1) / np.diff(track.times_s)
        jumps = np.concatenate([[False], speed > limit])
        return replace(track, breaks=track.breaks | jumps), spikes, int(jumps.sum())

    def _reachable(self, start: int, stop: int, limit: float) -> bool:
        step = np.linalg.norm(self.positions[stop] - self.positions[start])
        return bool(step <= limit * (self.times_s[stop] - self.times_s[start]) + 0.5)

    def velocities(self, times_s: Floats) -> tuple[Floats, Floats]:
        """Return linear (M, 3) and angular (M, 3) velocity, world frame, from past poses alone.

        A quadratic is fitted to the poses of the last `_FILTER_S` seconds and its slope taken at
        the end, so a constant acceleration gives no lag. With few poses the last two decide.
        """
        linear = np.zeros((len(times_s), 3))
        angular = np.zeros((len(times_s), 3))
        for row, now in enumerate(times_s):
            last = int(np.searchsorted(self.times_s, now + 1e-6, side="right"))
            first = int(np.searchsorted(self.times_s, now - _FILTER_S))
            resets = np.flatnonzero(self.breaks[first:last])
            first = first + int(resets[-1]) if len(resets) else first
            if last - first < _FEWEST:
                first = max(0, last - 2)
            span = self.times_s[first:last]
            if len(span) < 2 or self.breaks[first + 1 : last].any():
                continue
            turns = multiply_quaternions(
                self.quaternions[first:last], conjugate(self.quaternions[last - 1])
            )
            values = np.concatenate([self.positions[first:last], rotation_vector(turns)], axis=1)
            slope = _slope_at_end(span - span[-1], values)  # (6,)
            linear[row], angular[row] = slope[:3], slope[3:]
        return linear, angular


def _slope_at_end(ages_s: Floats, values: Floats) -> Floats:
    """Return the slope (D,) at age 0 of the least-squares parabola through values (K, D)."""
    order = 2 if len(ages_s) >= _FEWEST else 1
    design = np.vander(ages_s, order + 1, increasing=True)  # (K, order + 1)
    fitted, *_ = np.linalg.lstsq(design, values, rcond=None)
    return np.asarray(fitted[1])


def quaternion_of(vector: ArrayLike) -> Floats:
    """Return unit quaternions (..., 4) of rotation vectors (..., 3), radians."""
    turn = np.asarray(vector, dtype=np.float64)
    angle = np.linalg.norm(turn, axis=-1, keepdims=True)
    # sin(a / 2) / a, with its limit 1/2 at a = 0.
    scale = np.where(angle < 1e-8, 0.5, np.sin(angle / 2) / np.maximum(angle, 1e-300))
    return np.concatenate([scale * turn, np.cos(angle / 2)], axis=-1)


def quaternion_of_matrix(matrix: ArrayLike) -> Floats:
    """Return unit quaternions (..., 4) of rotation matrices (..., 3, 3)."""
    from scipy.spatial.transform import Rotation

    rows = np.asarray(matrix, dtype=np.float64)
    found = Rotation.from_matrix(rows.reshape(-1, 3, 3)).as_quat()
    return np.asarray(found.reshape(*rows.shape[:-2], 4))


def matrix_of(position: ArrayLike, quaternion: ArrayLike) -> Floats:
    """Return the 4×4 matrix of one pose."""
    out = np.eye(4)
    out[:3, :3] = rotate(np.asarray(quaternion)[None, :], np.eye(3)).T
    out[:3, 3] = position
    return out

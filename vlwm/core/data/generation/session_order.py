"""Choose the next session of a plan that several machines work on, without talking to them.

Machines walk the plan in runs: each takes the session after its last one, so the session that
follows a finished one is probably being made by somebody else. A machine whose run meets finished
sessions jumps into the middle of the longest gap, which is farthest from all others. Sessions in a
random order instead collide about (machines - 1) · log(sessions) times.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_AHEAD = 2
"""sessions at the begin of a gap that belong to the machine that walks into it"""
_MIDDLE = (0.25, 0.75)
"""shares of a gap between which a machine jumps"""
_OUT_OF_STEP = 0.02
"""the longest pause before a session, as a share of the last one's time"""
_SHORTEST_PAUSE_S = 0.1
_PUTS = 4.0
"""the same in times that a look and a PUT take: machines closer than one do not see each other"""
_FIRST, _FIRST_SHARE = 2, 0.5
"""sessions at the begin after which machines that began together part, and how far at most"""


def longest_pause_s(done: int, session_s: float, put_s: float) -> float:
    """Return the longest pause before a session; each machine waits for a random part of it.

    Two machines that write each session at the same moment would never see each other's.

    Args:
        done: sessions that this machine has made.
        session_s, put_s: seconds that the last one took in all, and to look and write alone.
    """
    if not done:
        return 0.0
    first_s = _FIRST_SHARE * session_s / done if done <= _FIRST else 0.0
    return max(_OUT_OF_STEP * session_s, _SHORTEST_PAUSE_S, _PUTS * put_s, first_s)


class SessionOrder:
    """The walk of one machine through the sessions that are missing.

    Args:
        count: sessions of the plan, or of this machine's share.
        seed: of the first place and of ties; another one on each machine.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self._rng = np.random.default_rng(seed)
        self._last: int | None = None

    def choose(self, missing: Sequence[int], *, met: bool = False) -> int:
        """Return one of the missing sessions (ascending, not empty).

        Args:
            met: another machine made the last session at the same time: leave its way.
        """
        place = self._next(set(missing)) if self._last is not None and not met else None
        if place is None:
            place = self._jump(missing)
        self._last = place
        return place

    def _next(self, missing: set[int]) -> int | None:
        assert self._last is not None
        following = (self._last + 1) % self.count
        return following if following in missing else None

    def _jump(self, missing: Sequence[int]) -> int:
        if len(missing) == self.count:  # nobody has finished a session yet
            return int(self._rng.integers(self.count))
        gaps = _gaps(missing, self.count)
        # the first session of a gap is probably in work, and the second is next of the same
        # machine: weigh gaps by the rest
        lengths = np.array([max(0, len(gap) - _AHEAD) for gap in gaps], dtype=np.float64)
        if not lengths.any():
            longest = max(len(gap) for gap in gaps)
            ends = [gap[-1] for gap in gaps if len(gap) == longest]
            return ends[int(self._rng.integers(len(ends)))]
        gap = gaps[int(self._rng.choice(len(gaps), p=lengths**2 / (lengths**2).sum()))]
        low, high = (max(_AHEAD, int(share * len(gap))) for share in _MIDDLE)
        return gap[min(int(self._rng.integers(low, high + 1)), len(gap) - 1)]

    def all_in_work(self, missing: Sequence[int]) -> bool:
        """Return True if every missing session follows a finished one: others may make them all."""
        return len(missing) < self.count and all(
            len(gap) == 1 for gap in _gaps(missing, self.count)
        )


def _gaps(missing: Sequence[int], count: int) -> list[list[int]]:
    """Return the runs of missing sessions; the last session is followed by the first."""
    gaps: list[list[int]] = []
    for index in missing:
        if gaps and gaps[-1][-1] + 1 == index:
            gaps[-1].append(index)
        else:
            gaps.append([index])
    if len(gaps) > 1 and gaps[0][0] == 0 and gaps[-1][-1] == count - 1:
        gaps[0] = gaps.pop() + gaps[0]
    return gaps

"""Notice a lost process of a run, also one that hangs or is cut off, within a set time.

Collectives of the loop have the rank timeout: all processes reach them at about the same time. It
may take hours where one process works alone and the others wait (the lead prepares data or writes a
checkpoint). Then the working process counts up a key of the launcher's store from a thread, and the
others watch that key: a process that is killed, stopped or cut off stops counting.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from vlwm.core.errors import TrainingError, UsageError

TIMEOUT_VARIABLE = "VLWM_RANK_TIMEOUT_S"
"""seconds after which a process that gives no sign of life counts as lost"""
_TIMEOUT_S = 300.0
_LEAST_S, _MOST_S = 5.0, 3600.0
_BEATS = 10
"""signs of life within the timeout"""
_DONE, _FAILED = b"done", b"failed"


class PeerLost(TrainingError):
    """Another process of the run has died, hangs or cannot be reached."""


_REASONS = (
    ("in use", "its port is in use"),
    ("closed by peer", "its connection was closed"),
    ("connection reset", "its connection was closed"),
    ("refused", "its machine refuses the connection"),
    ("unreachable", "its machine cannot be reached"),
    ("timed out", "it did not answer in time"),
    ("timeout", "it did not answer in time"),
)


def lost_reason(error: BaseException) -> str:
    """Return in plain words why a collective failed; the library's own text goes to the log."""
    text = str(error).lower()
    return next((words for part, words in _REASONS if part in text), "the connection failed")


def rank_timeout_s() -> float:
    """Return the seconds after which a silent process counts as lost.

    Raises:
        UsageError: the environment variable is not a number between 5 and 3600.
    """
    text = os.environ.get(TIMEOUT_VARIABLE, "")
    if not text:
        return _TIMEOUT_S
    with suppress(ValueError):
        if _LEAST_S <= float(text) <= _MOST_S:
            return float(text)
    raise UsageError(
        f"{TIMEOUT_VARIABLE}={text} is not a number of seconds from 5 to 3600",
        remedy=f"leave it out for {_TIMEOUT_S:g}, or set {TIMEOUT_VARIABLE}=120, for example",
    )


class Lifeline:
    """Signs of life over a store that all processes reach.

    Args:
        store: of torch.distributed: `set`, `get`, `check`. Its type in torch lacks that `set` takes
            bytes.
        timeout_s: seconds of silence after which a process counts as lost.
    """

    def __init__(self, store: Any, timeout_s: float) -> None:
        self._store = store
        self.timeout_s = timeout_s
        self._count = itertools.count()

    def next_topic(self, who: str) -> str:
        """Return a name for the next piece of work: all processes count the same pieces."""
        return f"vlwm/{next(self._count)}/{who}"

    @contextmanager
    def working(self, topic: str) -> Iterator[None]:
        """Give signs of life while the block runs, then tell the others how it ended."""
        end = threading.Event()
        thread = threading.Thread(target=self._beat, args=(topic, end), daemon=True)
        thread.start()
        answer = _FAILED
        try:
            yield
            answer = _DONE
        finally:
            end.set()
            # a lost store is noticed by the next collective; the work itself is done
            with suppress(RuntimeError):
                self._store.set(f"{topic}/end", answer)

    def _beat(self, topic: str, end: threading.Event) -> None:
        for number in itertools.count():
            with suppress(RuntimeError):
                self._store.set(f"{topic}/beat", str(number))
            if end.wait(self.timeout_s / _BEATS):
                return

    def wait_for(self, topic: str) -> bool:
        """Wait until the work on a topic has ended; return True if it succeeded.

        Raises:
            PeerLost: there was no sign of life for the timeout, or the store is lost.
        """
        news: queue.SimpleQueue[bytes | RuntimeError | None] = queue.SimpleQueue()
        left = threading.Event()
        # a thread asks: a store behind a cut network never answers
        threading.Thread(target=self._watch, args=(topic, news, left), daemon=True).start()
        try:
            while True:
                answer = news.get(timeout=self.timeout_s)
                if isinstance(answer, RuntimeError):
                    raise PeerLost(
                        f"another process of the run was lost: {lost_reason(answer)}"
                    ) from answer
                if answer is not None:
                    return answer == _DONE
        except queue.Empty:
            raise PeerLost(
                f"another process of the run gave no sign of life for {self.timeout_s:g} s"
            ) from None
        finally:
            left.set()

    def _watch(
        self,
        topic: str,
        news: queue.SimpleQueue[bytes | RuntimeError | None],
        left: threading.Event,
    ) -> None:
        """Put None for each sign of life, then the answer, or the error of the store."""
        beat, pause_s = b"", 0.01
        try:
            while not left.wait(pause_s):
                if self._store.check([f"{topic}/end"]):
                    news.put(self._store.get(f"{topic}/end"))
                    return
                if self._store.check([f"{topic}/beat"]):
                    now = self._store.get(f"{topic}/beat")
                    if now != beat:
                        news.put(None)
                    beat = now
                pause_s = min(1.5 * pause_s, 1.0, self.timeout_s / _BEATS)
        except RuntimeError as error:  # the store knows no closer type
            news.put(error)

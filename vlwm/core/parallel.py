"""Forked workers that share what the parent holds: nothing is copied, and order is kept.

What a worker makes depends on its item alone, so the number of workers changes no byte. Workers
leave Ctrl-C to their parent and end with it, even when that is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from vlwm.core.errors import MachineError

Item = TypeVar("Item")
Result = TypeVar("Result")

_function: Callable[[Any], Any] | None = None  # of a forked worker


def each(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, *, chunk: int = 1
) -> Iterator[Result]:
    """`function` of every item, in order; at once in up to `workers` forked processes.

    Args:
        function: may be a closure: it is inherited, not sent. Items and results are sent.
        chunk: items handed to a worker at a time.

    Raises:
        MachineError: a worker was killed from outside, as the kernel does when memory is short.
    """
    if workers <= 1 or len(items) < 2:
        yield from map(function, items)
        return
    global _function
    _function = function
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(min(workers, len(items)), context, _begin, (os.getpid(),))
    try:
        yield from pool.map(_run, items, chunksize=chunk)
    except BrokenProcessPool as error:
        raise MachineError(
            f"one of {workers} worker processes was killed, probably for want of memory",
            remedy="run the same command with fewer --workers; it goes on where it stopped",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end when it ends, however that happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run(item: Any) -> Any:
    assert _function is not None
    return _function(item)


def default_workers() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))

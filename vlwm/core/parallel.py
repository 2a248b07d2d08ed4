"""Forked workers that share what the parent holds: nothing is copied, and order is kept.

What a worker makes depends on its item alone, so the number of workers changes no byte. Workers
leave signals to their parent and end with it, even when that is killed.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

from vlwm.core.errors import MachineError
from vlwm.core.signals import StopRequested, as_a_worker, last_signal

Item = TypeVar("Item")
Result = TypeVar("Result")

_function: Callable[..., object] | None = None  # of a forked worker
_stopping: Event | None = None  # an event that workers share with their parent


def each(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, *, chunk: int = 1
) -> Generator[Result, None, None]:
    """Yield `function` of every item, in order, from up to `workers` forked processes.

    Args:
        function: may be a closure: it is inherited, not sent. Items and results are sent.
        chunk: items handed to a worker at a time.

    Raises:
        MachineError: a worker was killed from outside, as the kernel does when memory is short.
    """
    if workers <= 1 or len(items) < 2:
        yield from map(function, items)
        return
    global _function, _stopping
    _function = function
    context = multiprocessing.get_context("fork")
    _stopping = context.Event()
    gc.freeze()  # the collector would touch, and so copy, every page that workers share
    pool = ProcessPoolExecutor(min(workers, len(items)), context, _begin, (os.getpid(),))
    try:
        yield from pool.map(_run, items, chunksize=chunk)
    except BrokenProcessPool as error:
        if last_signal() is not None:  # sent to the whole process group
            raise StopRequested from error
        raise MachineError(
            f"one of {workers} worker processes was killed, probably out of memory",
            remedy="run the same command with fewer --workers; what is done is kept",
        ) from error
    except BaseException:
        _stopping.set()  # workers finish the item at hand and skip the rest of their chunk
        raise
    finally:
        gc.unfreeze()
        pool.shutdown(cancel_futures=True)


def _begin(parent: int) -> None:
    """Leave signals to the parent, and end when it ends, however that happens."""
    as_a_worker()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run(item: object) -> Any:
    """Return the result of one item; the types are those of `each`."""
    assert _function is not None and _stopping is not None
    return None if _stopping.is_set() else _function(item)


def release_memory() -> None:
    """Give free pages of the heap back to the kernel, as far as the C library can.

    A forked worker that reuses free pages of its parent copies them one by one, so the memory of
    long work would creep up.
    """
    with suppress(OSError, AttributeError):  # musl has no malloc_trim
        ctypes.CDLL(None).malloc_trim(0)


def default_workers() -> int:
    """Return cores this process may use."""
    return len(os.sched_getaffinity(0))

"""Share work among the threads of a processor: rows of one map, or whole target frames."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def by_rows(kernel: Callable[..., None], rows: int, *arguments: object) -> None:
    """Run a kernel on bands of rows, one for each of torch's threads: it releases the GIL."""
    threads = min(torch.get_num_threads(), rows)
    if threads == 1:
        kernel(0, rows, *arguments)
        return
    # bands of nearly equal height, one for each thread
    edges = [rows * k // threads for k in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        bands = [
            pool.submit(kernel, first, last, *arguments)
            for first, last in itertools.pairwise(edges)
        ]
        for band in bands:
            band.result()


def in_threads(work: Callable[[int], None], count: int) -> None:
    """Call work(0) … work(count − 1), as many at a time as torch has threads.

    Torch's own threads are shared among them: two frames side by side on two cores take half the
    time of one after the other, while two cores on one convolution wait for each other.
    """
    threads = torch.get_num_threads()
    workers = min(threads, count)
    if workers <= 1:
        for index in range(count):
            work(index)
        return
    inference = torch.is_inference_mode_enabled()

    def begin() -> None:
        torch.set_num_threads(threads // workers)

    def one(index: int) -> None:
        # modes belong to a thread, and a new one begins with gradients
        with torch.inference_mode(inference), torch.no_grad():
            work(index)

    try:
        with ThreadPoolExecutor(workers, initializer=begin) as pool:
            for _ in pool.map(one, range(count)):
                pass
    finally:
        torch.set_num_threads(threads)  # what a thread sets, later threads begin with
